"""One factor of a product as rows, and what of it means nothing: rows that a translation may change at will.

A key bias shifts all scores alike, a value bias can be taken over by the bias of the output, and the null direction of
a norm is never seen. Such a change of a factor A (rows over the units) is ``w a^T``, with a fixed column w and any a:
only what is left of A without w can be observed. A shift that may differ along an axis beside the units, as that of
keys which have a weight for each position, has a column for each place of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property, reduce
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from symlint.model.clusters import ABSENT
from symlint.model.graph import Array
from symlint.model.records import dataclass
from symlint.program.numbers import Numbers
from symlint.symmetry.motion.action import Stand
from symlint.symmetry.structure import Action, Structure
from symlint.symmetry.translation.course import Translation
from symlint.symmetry.translation.element import factors

Matrix = NDArray[np.float64]
SAME = 1e-9
"""Singular values of a change below this, relative to the largest, are rounding."""


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """One factor of a product: rows of weights as stored over the n units."""

    rows: NDArray[Any]
    blocks: NDArray[np.int64]
    """Rows with one number are mixed by a rotation of their own, so that only their common size means something."""
    free: Matrix
    """Columns (rows, t): the factor may change by each of them times any vector, so that they mean nothing."""

    @property
    def lost(self) -> int:
        """By how much the free columns lower the rank that the factor can have."""
        return int(self.free.shape[1])

    @property
    def there(self) -> NDArray[np.bool_]:
        """Rows that are not nothing, or need not be."""
        some = (np.abs(self.rows) > ABSENT).any(axis=1) | self.free.any(axis=1)
        return np.asarray(np.bincount(self.blocks, some)[self.blocks] > 0)

    @property
    def capacity(self) -> int:
        """The rank that the factor could have; where all is nothing every row could have been something."""
        written = (np.abs(self.rows) > ABSENT).any()
        return (int(np.count_nonzero(self.there)) if written else len(self.rows)) - self.lost

    @property
    def unit(self) -> Matrix:
        """Those rows in float64, each block of mean square one, less their part along the free columns."""
        there = self.there | ~np.isfinite(self.rows).all(axis=1)
        wide, blocks = self.rows[there].astype(np.float64), self.blocks[there]
        square = np.einsum("ij,ij->i", wide, wide)
        square = np.bincount(blocks, square)[blocks] / np.bincount(blocks)[blocks]
        size = np.where(square > ABSENT**2, square, square.mean() if square.any() else 1.0) ** -0.5
        basis = orthonormal(self.free[there] * size[:, None])
        wide *= size[:, None]
        return np.asarray(wide - basis @ (basis.T @ wide))


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """One factor of the products of several copies: rows (copies, p, n), blocks (copies, p), free (copies, p, t).

    The free columns need be neither orthonormal nor independent.
    """

    rows: NDArray[Any]
    blocks: NDArray[np.int64]
    free: Matrix

    def unit(self) -> tuple[Matrix, NDArray[np.int64]]:
        """For every copy what `Side.unit` is, with rows of zeros where nothing is; and how many others there are."""
        wide = self.rows.astype(np.float64)
        square = np.einsum("cij,cij->ci", wide, wide)
        there = (np.abs(self.rows) > ABSENT).any(axis=2) | self.free.any(axis=2)
        copies = len(wide)
        mixed = self.blocks + np.arange(copies)[:, None] * (int(self.blocks.max(initial=0)) + 1)
        names, inverse = np.unique(mixed, return_inverse=True)
        if len(names) < mixed.size:
            inverse = inverse.reshape(-1)
            square = (np.bincount(inverse, square.reshape(-1)) / np.bincount(inverse))[inverse].reshape(square.shape)
            there = (np.bincount(inverse, there.reshape(-1)) > 0)[inverse].reshape(there.shape)
        count = there.sum(axis=1)
        mean = (square * there).sum(axis=1, keepdims=True) / np.maximum(count, 1)[:, None]
        size = np.where(square > ABSENT**2, square, np.where(mean > 0, mean, 1.0)) ** -0.5
        wide *= (size * there)[:, :, None]
        if self.free.shape[2]:
            basis = np.linalg.qr(self.free * size[:, :, None])[0]
            wide -= basis @ (basis.swapaxes(1, 2) @ wide)
        return wide, count


def columns(change: NDArray[Any]) -> Matrix:
    """A basis of the columns w of a change (rows, n) that was drawn at random: shape (rows, t).

    There is none where everything may change, as in a pair of layers beside another: no product is observed there, and
    the one that is stored is as good as any.
    """
    found = orthonormal(change)
    return found if found.shape[1] < change.shape[1] else found[:, :0]


def orthonormal(matrix: NDArray[Any]) -> Matrix:
    """An orthonormal basis of the columns of a matrix that are numbers throughout."""
    matrix = matrix[:, np.isfinite(matrix).all(axis=0)]
    if not matrix.any():
        return np.zeros((len(matrix), 0))
    left, size, _ = np.linalg.svd(matrix, full_matrices=False)
    return np.asarray(left[:, size > SAME * size[0]])


COLUMNS = 64
"""Columns of one translation that are told apart: what has more is taken for one by which everything may change."""


@dataclass(frozen=True)
class Freedom:
    """The translations of one network."""

    structure: Structure

    @cached_property
    def _by_weight(self) -> dict[str, list[Translation]]:
        found: dict[str, list[Translation]] = {}
        for action in self.structure.shifts:
            found.setdefault(action.translation.weight, []).append(action.translation)
        return found

    @cached_property
    def loose(self) -> frozenset[str]:
        """The weights that may become anything, as others take over whatever they are."""
        return frozenset(n for n, found in self._by_weight.items() if any(t.full for t in found))

    def meaningless(self, action: Action) -> bool:
        """Whether all that one side of a linear space is made of may become anything: nothing is seen of the other."""
        held = [(o.tensor, c) for o, c in action.charge.items() if o.tensor in self.structure.program.weights]
        sides = [{name for name, c in held if c * sign > 0} for sign in (1, -1)]
        return any(side and side <= self.loose for side in sides)

    def of(self, stands: Mapping[str, Collection[Stand]]) -> list[dict[str, Array]]:
        """Changes of weights, random elements of each translation that is free along the units of a product.

        Args:
            stands: weight of the program -> where the units are in it.
        """
        shapes, found = self.structure.program.shapes, list[dict[str, Array]]()
        for element in self.factors(stands):
            change: dict[str, Array] = {}
            for moved, parts in element:
                change[moved] = change.get(moved, 0.0) + np.broadcast_to(reduce(np.multiply, parts), shapes[moved])
            found.append(change)
        return found

    def factors(self, stands: Mapping[str, Collection[Stand]]) -> Iterator[list[tuple[str, tuple[Array, ...]]]]:
        """The same changes as they come, several of one weight perhaps: the product of arrays that broadcast."""
        program = self.structure.program
        numbers = Numbers(program, lambda n: program.model.tensors[program.weights[n]].read())
        for k, (translation, axis) in enumerate(self._along(stands)):
            size = np.random.default_rng(k).standard_normal(translation.shape)
            beside: list[Sequence[Any]] = [range(n) if j != axis else [slice(None)] for j, n in enumerate(size.shape)]
            if translation.full or translation.dimension > COLUMNS * size.shape[axis]:
                beside = [[slice(None)]] * size.ndim
            for place in product(*beside):
                part = np.zeros_like(size)
                part[place] = size[place]
                yield list(factors(translation, numbers, part))

    def touched(self, stands: Mapping[str, Collection[Stand]]) -> frozenset[str]:
        """The weights of the program that those changes change."""
        found = [translation for translation, _ in self._along(stands)]
        return frozenset({t.weight for t in found} | {way.weight for t in found for way in t.absorbers})

    def _along(self, stands: Mapping[str, Collection[Stand]]) -> Iterator[tuple[Translation, int]]:
        """The translations that are free along the units, with the axis of these."""
        for name, places in stands.items():
            for translation in self._by_weight.get(name, ()):
                axes = [stand.axis for stand in places if _free(translation, stand)]
                if axes:
                    yield translation, axes[0]


def _free(translation: Translation, stand: Stand) -> bool:
    """Whether every unit of an occurrence may change on its own, at each place beside it or at several alike."""
    classes = np.moveaxis(translation.wave.classes[stand.axis][stand.grid], stand.place, -1)
    ordered = np.sort(classes.reshape(-1, classes.shape[-1]), axis=1)
    return bool(ordered.min() >= 0) and bool((np.diff(ordered, axis=1) > 0).all())
