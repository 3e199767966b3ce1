"""Rows of known weights over unknown bases, and the bases that they make."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod

import numpy as np

from symlint.analysis.values.lattice import Labels, Names, Value
from symlint.analysis.values.weights import Blockwise, Mask, Weight, absent
from symlint.model.clusters import ABSENT, BLOCK, Grouping, Off, proportional, sketch_of, sketched
from symlint.model.digest import blocks
from symlint.model.graph import Array, Tensor
from symlint.program.steps import Program

LARGE = 1 << 14
"""Elements from which on it is worth to know that none of a weight is zero."""
FAINT = 1e-20
"""A row of smaller weights is looked at beside the scales that it meets."""


@dataclass(frozen=True, slots=True)
class Run:
    """The values of all tensors of a network, for one that goes through the same steps again."""

    program: Program
    carried: Mapping[str, tuple[bool, ...]]
    values: Mapping[str, Value]
    names: Names
    births: Mapping[str, int]
    """The first output of a step -> how many bases had names before it."""


class Verdicts:
    """What was found of weights, for all who ask again: of other positions, or in another run."""

    def __init__(self) -> None:
        self.rows: dict[Hashable, Grouping] = {}
        """Weights and the way in which they are read -> which rows of theirs are multiples of each other."""
        self.apart: dict[Hashable, bool] = {}
        """The same -> whether none is zero or a multiple of another, where what they read is apart."""
        self.before: Run | None = None
        """The first run, which others continue."""
        self._full: dict[Hashable, bool] = {}
        self._tensors: dict[int, Tensor] = {}

    def name(self, tensor: Tensor) -> int:
        """A name for a stored tensor, or for what stands in its place."""
        self._tensors[id(tensor)] = tensor
        return id(tensor)

    def full(self, key: Hashable) -> None:
        """Remember that no element of some weight counts as zero."""
        self._full[key] = True

    def whole(self, value: Value) -> bool:
        """Whether a value is a large weight of which no element counts as zero."""
        weight = value.held
        if not isinstance(weight, Weight) or prod(weight.shape) < LARGE:
            return False
        if weight.key not in self._full:
            self._full[weight.key] = self._look(weight)
        return self._full[weight.key]

    def _look(self, weight: Weight) -> bool:
        source: object = weight.read
        if isinstance(source, Blockwise):
            return source.full
        if self._full.get(weight.key[:1]) and all(isinstance(change, tuple) for change in weight.key[1:]):
            return True
        values = weight.read()
        ordered = values if values.flags.c_contiguous else values.T
        return not any(absent(block).any() for block in blocks(ordered, BLOCK))


@dataclass(frozen=True, slots=True)
class Columns:
    """Weights, shape (batch, out, read, along), read when they must be; bases are the same along the last axis."""

    read: Callable[[], Array]
    out: int
    along: int
    verdicts: Verdicts
    key: tuple[Hashable, ...] | None
    """Their name among the verdicts, first the array's; None where nothing is remembered."""
    blocks: Callable[[], Iterator[tuple[tuple[slice, ...], Array]]] | None = None
    """Where they are one matrix, its blocks in float64, each with its rows (out) and its columns (read)."""
    off: Off | None = None
    """How far they may be off."""


@dataclass
class Rows:
    """Bases that rows make, by number: multiples of one row over the same bases are one."""

    base: Labels
    """Equal where the base is; shape (batch, passing, out)."""
    scale: Array
    number: Array
    """The value of a row that is a known number."""
    still: Mask
    """Where it is one."""
    steady: Mask
    """Where only bases are read that depend on no input."""


def combine(names: Names, labels: Labels, scale: Array, weights: Columns, tolerance: float) -> Rows:
    """The bases of an output from the bases and the weights that it reads.

    Args:
        names: tells which bases depend on no input.
        labels, scale: bases, shape (batch, passing, read).
        weights: what multiplies them.
        tolerance: relative, within which rows count as multiples of each other.
    """
    batch, many, read = labels.shape
    out, along = weights.out, weights.along
    if read == 1:
        rows = (weights.read()[:, None] * scale[:, :, None, :, None]).reshape(-1, along)
        keys = np.broadcast_to(labels, (batch, many, out)).reshape(-1)
        fixed = np.where(keys == 0, rows.sum(axis=1, dtype=np.float64), 0.0)
        rows = np.where((keys == 0)[:, None], 0.0, rows) if (keys == 0).any() else rows
        grouping, still = _grouped(keys, rows, fixed, tolerance, len(keys), _spread(weights.off, scale))
        shape = (batch, many, out)
        scale = np.where(still, fixed, grouping.factor)
        return Rows(
            grouping.group.reshape(shape),
            scale.reshape(shape),
            fixed.reshape(shape),
            still.reshape(shape),
            np.broadcast_to(names.still(labels), shape),
        )
    return _Combination(names, labels, scale, weights, tolerance).rows()


@dataclass
class _Part:
    """The rows of one slice of the weights over one set of bases."""

    block: Array
    fixed: Array
    spread: Callable[[Array], Array]
    """What it makes of how far the weights are off."""


class _Combination:
    def __init__(self, names: Names, labels: Labels, scale: Array, weights: Columns, tolerance: float) -> None:
        self.names, self.labels, self.scale, self.weights = names, labels, scale, weights
        self.tolerance = tolerance
        self.shape = (*labels.shape[:2], weights.out)
        self.total = prod(self.shape)

    @cached_property
    def columns(self) -> Array:
        """The weights."""
        return self.weights.read()

    def rows(self) -> Rows:
        """All bases, key by key."""
        batch, many, out = self.shape
        found = Rows(
            np.zeros(self.shape, np.int64),
            np.zeros(self.shape),
            np.zeros(self.shape),
            np.zeros(self.shape, bool),
            np.zeros(self.shape, bool),
        )
        places: dict[bytes, list[tuple[int, int]]] = {}
        distinct: dict[tuple[int, int], tuple[Labels, Labels, Labels]] = {}
        for b in range(batch):
            for p in range(many):
                told = distinct[b, p] = _distinct(self.labels[b, p])
                places.setdefault(told[0].tobytes(), []).append((b, p))
        offset = 0
        for together in places.values():
            only = distinct[together[0]][0]
            only = only[only != 0]
            steady = bool(len(only)) and bool(self.names.still(only).all())
            for (b, p), (group, factor, fixed, still) in zip(together, self._alike(together, distinct), strict=True):
                found.base[b, p] = group + offset
                found.scale[b, p], found.number[b, p], found.still[b, p] = factor, fixed, still
                found.steady[b, p] = steady
            offset += len(together) * out
        return found

    def _alike(
        self, together: list[tuple[int, int]], distinct: dict[tuple[int, int], tuple[Labels, Labels, Labels]]
    ) -> list[tuple[Labels, Array, Array, Mask]]:
        """Group, scale, number and whether it is one, of the rows over one set of bases."""
        out = self.shape[2]
        if len(together) == 1:
            (place,) = together
            if (quick := self._clean(place, *distinct[place])) is not None:
                return [quick]
        parts = [self._part(place, *distinct[place]) for place in together]
        rows = parts[0].block if len(parts) == 1 else np.concatenate([part.block for part in parts])
        fixed = np.concatenate([part.fixed for part in parts])
        off = self._off(lambda noise: np.concatenate([part.spread(noise) for part in parts]))
        grouping, still = _grouped(np.zeros(len(rows), np.int64), rows, fixed, self.tolerance, self.total, off)
        scale = np.where(still, fixed, grouping.factor)
        cuts = [slice(k * out, (k + 1) * out) for k in range(len(parts))]
        return [(grouping.group[cut], scale[cut], fixed[cut], still[cut]) for cut in cuts]

    def _clean(
        self, place: tuple[int, int], distinct: Labels, index: Labels, inverse: Labels
    ) -> tuple[Labels, Array, Array, Mask] | None:
        """The same where all bases differ and none is constant: then it is the weights alone that tell.

        Which rows are multiples of each other, or zero, does not depend on scales that are not zero.
        """
        b, p = place
        if len(distinct) < self.labels.shape[2] or distinct[0] == 0:
            return None
        grouping = _grouping(self.weights, b, self.shape, self.labels.shape[2], self.tolerance)
        width = np.sqrt(self.labels.shape[2] * self.weights.along)
        if ((grouping.norm > 0) & ~(grouping.norm > FAINT * width)).any() and not (self.scale[b, p] == 1).all():
            return None
        if not np.isfinite(grouping.norm).all():
            return None
        still = grouping.norm <= ABSENT * width
        if still.any() and grouping.norm[still].any():
            return None
        nothing = np.zeros(self.shape[2])
        return grouping.group, np.where(still, 0.0, grouping.factor), nothing, still

    def _off(self, rows: Callable[[Array], Array]) -> Off | None:
        """How far the elements of some rows may be off."""
        off = self.weights.off
        return None if off is None else off.then(rows)

    def _part(self, place: tuple[int, int], distinct: Labels, index: Labels, inverse: Labels) -> _Part:
        """Rows over distinct bases, in the order of their labels, and what the constant 1 adds to each."""
        b, p = place
        labels, scale, columns = self.labels[b, p], self.scale[b, p], self.columns[b]
        out, constant = self.shape[2], distinct[0] == 0
        fixed = np.zeros(out)
        if constant:
            fixed = _scaled(columns, scale, np.flatnonzero(labels == 0)).sum(axis=(1, 2), dtype=np.float64)
        if len(distinct) < len(labels) or constant:
            # What is indexed is a copy, and large: no second one is made of it.
            block = _scaled(columns, scale, index[1:] if constant else index).astype(np.float64, copy=False)
            again = np.ones(len(labels), bool)
            again[index] = False
            again &= labels != 0
            for k in np.flatnonzero(again):
                block[:, inverse[k] - constant] += columns[:, k] * scale[k : k + 1]
        elif not np.array_equal(inverse, np.arange(len(labels))):
            block = _scaled(columns, scale, index)
        else:
            block = columns if np.all(scale == 1) else columns * scale[:, None]

        def spread(noise: Array) -> Array:
            made = np.zeros((out, len(distinct), noise.shape[-1]))
            for k, at in enumerate(inverse.tolist()):
                made[:, at] += noise[b, :, k] * abs(float(scale[k]))
            return made[:, 1 if constant else 0 :].reshape(out, -1)

        return _Part(block.reshape(out, -1), fixed, spread)


def _grouping(weights: Columns, batch: int, shape: tuple[int, int, int], read: int, tolerance: float) -> Grouping:
    """Which rows of one slice of the weights are multiples of each other; `shape` is (batch, passing, out)."""
    key, remembered = (weights.key, batch), weights.verdicts.rows
    grouping = remembered.get(key) if weights.key else None
    if grouping is None:
        out = shape[2]

        def rows() -> Array:
            return np.asarray(weights.read()[batch].reshape(out, -1))

        table = out, read * weights.along
        sketch = sketched(rows()) if weights.blocks is None else sketch_of(weights.blocks(), *table)
        off = None if weights.off is None else weights.off.then(lambda noise: noise[batch].reshape(out, -1))
        grouping = proportional(np.zeros(out, np.int64), rows, sketch, tolerance, prod(shape), off)
        if weights.key:
            remembered[key] = grouping
            if shape[0] == 1 and grouping.least > ABSENT**2:
                weights.verdicts.full(weights.key[0])
    return grouping


def apart(weights: Columns, batch: int, read: int, tolerance: float) -> bool:
    """Whether over bases that all differ every row of remembered weights is a base of its own, whatever the scales."""
    assert weights.key is not None
    known = weights.verdicts.apart
    if weights.key not in known:
        shape = batch, 1, weights.out
        if read == 1:
            rows = weights.read().reshape(batch * weights.out, -1)
            keys = np.repeat(np.arange(batch), weights.out)
            off = None if weights.off is None else weights.off.then(lambda noise: noise.reshape(rows.shape))
            parts: Iterable[Grouping] = (proportional(keys, lambda: rows, sketched(rows), tolerance, len(keys), off),)
        else:
            parts = (_grouping(weights, b, shape, read, tolerance) for b in range(batch))
        least = FAINT * np.sqrt(read * weights.along)
        known[weights.key] = all(
            bool((part.norm > least).all() and np.isfinite(part.norm).all())
            and np.array_equal(part.group, np.arange(len(part.group)))
            for part in parts
        )
    return known[weights.key]


def _scaled(columns: Array, scale: Array, chosen: Labels) -> Array:
    """A copy of some columns of weights, shape (out, read, along), each times its scale."""
    some = columns[:, chosen]
    if (scale == 1).all():
        return some
    return np.multiply(some, scale[chosen, None], out=some if some.dtype == scale.dtype else None)


def _distinct(labels: Labels) -> tuple[Labels, Labels, Labels]:
    """The labels in order, the first place of each, and which of them stands at every place."""
    if (labels[1:] > labels[:-1]).all():
        places = np.arange(len(labels))
        return np.ascontiguousarray(labels), places, places
    ordered, index, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return ordered, index, inverse.reshape(-1)


def _spread(off: Off | None, scale: Array) -> Off | None:
    """How far weights may be off, times the scale of the one base that each reads."""
    if off is None:
        return None
    size = np.abs(scale)[:, :, None, :, None]
    return Off(
        off.most * float(size.max(initial=0)), lambda: (off.each()[:, None] * size).reshape(-1, off.each().shape[-1])
    )


def _grouped(
    keys: Labels, rows: Array, fixed: Array, tolerance: float, total: int, off: Off | None
) -> tuple[Grouping, Mask]:
    """Rows with what is added to each, and which of them are zero but for that."""
    plain = rows
    if fixed.any():
        rows = np.concatenate([rows, fixed[:, None]], axis=1)
        if off is not None:
            off = off.then(lambda noise: np.pad(noise, ((0, 0), (0, 1))))
    grouping = proportional(keys, lambda: rows, sketched(rows), tolerance, total, off)
    # What is added to a row counts in its length; a part of the square is left to rounding.
    square = grouping.norm**2 if plain is rows else grouping.norm**2 * (1 - 1e-9) - fixed**2
    return grouping, _small(plain, np.sqrt(np.maximum(square, 0)))


def _small(rows: Array, norm: Array) -> Mask:
    """Which rows have no element that counts; only those are read that their length does not tell."""
    small = np.zeros(len(rows), bool)
    if not rows.shape[1]:
        return np.ones(len(rows), bool)
    doubt = np.flatnonzero(~(norm > 2 * ABSENT * np.sqrt(rows.shape[1])))
    if len(doubt):
        small[doubt] = np.abs(rows[doubt]).max(axis=1) < ABSENT
    return small
