"""Abstract values: which elements of a tensor are equal functions of the input, which are constant, which are zero.

An element stands for a function of the input (and of the places along axes that carry no units, which have size 1
here). It is ``scale * base``, with bases numbered by labels: equal labels are equal bases, and label 0 is the
constant 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from symlint.clusters import ABSENT
from symlint.graph import Array, Shape

Labels = NDArray[np.int64]
FEW = 4


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """Labels and scales of one tensor; no labels means that every element is a known number."""

    labels: Labels | None
    scale: Array
    noise: Array | None = None
    """How far known numbers may be off because they are differences of larger ones; None where they are not."""

    @property
    def shape(self) -> Shape:
        """The shape, with size 1 along axes without units."""
        return self.scale.shape

    @property
    def numbers(self) -> Labels:
        """The labels, written out."""
        return np.zeros(self.scale.shape, np.int64) if self.labels is None else self.labels

    @property
    def constant(self) -> NDArray[np.bool_]:
        """Where the element is a known number."""
        return np.asarray(self.numbers == 0)

    @property
    def zero(self) -> NDArray[np.bool_]:
        """Where the element is zero for every input."""
        return np.asarray(np.abs(self.scale) < ABSENT)


def known(numbers: Array, noise: Array | None = None) -> Value:
    """A tensor of known numbers."""
    return Value(None, numbers, noise)


def tidy(labels: Labels, scale: Array) -> Value:
    """A value in which zero is the constant zero."""
    zero = np.abs(scale) < ABSENT
    return Value(np.where(zero, 0, labels), np.where(zero, 0.0, scale))


@dataclass
class Names:
    """The numbering of bases."""

    uniform: set[int] = field(default_factory=lambda: {0})
    """Labels of functions that depend on no input."""
    count: int = 1

    def fresh(self, shape: Sequence[int]) -> Value:
        """A value of which nothing is known: every element is a base of its own."""
        size = int(np.prod(shape, dtype=np.int64))
        labels = np.arange(self.count, self.count + size).reshape(tuple(shape))
        self.count += size
        return Value(labels, np.ones(tuple(shape)))

    def derive(self, *columns: Labels, steady: bool = False) -> Labels:
        """New labels, equal where all `columns` are equal: the bases that one operation computes from others.

        With `steady`, a base that depends on no input (by the first column) makes one that does not either.
        """
        shape = np.broadcast_shapes(*(c.shape for c in columns))
        found = distinct(*(np.broadcast_to(c, shape).reshape(-1) for c in columns))
        if steady:
            still = np.isin(np.broadcast_to(columns[0], shape).reshape(-1), list(self.uniform))
            self.uniform.update((np.unique(found[still]) + self.count).tolist())
        labels = found.reshape(shape) + self.count
        self.count += int(found.max(initial=-1)) + 1
        return labels


def distinct(*columns: Labels) -> Labels:
    """Rows of whole numbers as one whole number each, from 0 on, equal for equal rows.

    Many columns are hashed to 64 bits first; that two of a million rows collide has a chance below 1e-7.
    """
    if len(columns) > FEW:
        odd = np.random.default_rng(20231129).integers(0, 2**63, len(columns), np.uint64) * np.uint64(2) + np.uint64(1)
        total = np.zeros(len(columns[0]), np.uint64)
        for column, factor in zip(columns, odd, strict=True):
            total = (total ^ (column.astype(np.uint64) * factor)) * np.uint64(0x9E3779B97F4A7C15)
            total ^= total >> np.uint64(29)
        columns = (total.view(np.int64),)
    found = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        _, inverse = np.unique(column, return_inverse=True)
        _, found = np.unique(found * (int(inverse.max(initial=0)) + 1) + inverse, return_inverse=True)
    return found


def alike(scale: Array, noise: Array | None = None, tolerance: float = 1e-6) -> Labels:
    """Numbers as whole numbers, equal for those that agree to a few roundings of float32, or to their `noise`."""
    values, inverse = np.unique(scale.reshape(-1).astype(np.float64), return_inverse=True)
    slack = tolerance * np.abs(values)
    if noise is not None:
        np.maximum.at(slack, inverse.reshape(-1), np.broadcast_to(noise, scale.shape).reshape(-1))
    apart = np.abs(np.diff(values)) > np.maximum(slack[:-1], slack[1:])
    starts = np.concatenate([[True], apart])
    groups = np.cumsum(starts) - 1
    first = values[np.flatnonzero(starts)][groups]
    far = np.abs(values - first) > 2 * slack  # neighbours that chain on and on are no group
    groups = np.where(far, groups.max(initial=0) + 1 + np.arange(len(values)), groups)
    return groups[inverse.reshape(-1)].reshape(scale.shape)
