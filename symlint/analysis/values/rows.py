"""Rows of known weights over unknown bases, and the bases that they make."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from functools import cached_property
from math import prod

import numpy as np

from symlint.analysis.values.lattice import Labels, Names, Value
from symlint.analysis.values.weights import Blockwise, Mask, Weight, absent
from symlint.model.clusters import (
    ABSENT,
    BLOCK,
    Cut,
    Grouping,
    Off,
    Places,
    Sketch,
    Strip,
    different,
    proportional,
    sketch_of,
    sketched,
    strips,
)
from symlint.model.graph import Array, Shape, Tensor, blocks
from symlint.model.records import dataclass
from symlint.program.steps import Program

EVERY = slice(None)
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
        self.restless: Mapping[str, Shape] = {}
        """States, as they are written, of which no run found in time what holds at every step: nothing is assumed."""
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
class Matrix:
    """Numbers of two axes that are worked out in blocks; its rows may be the columns of what is stored."""

    stored: Blockwise
    turned: bool = False

    def blocks(self) -> Iterator[tuple[Strip, Array]]:
        """Its blocks in float64, each with its rows and its columns."""
        if not self.turned:
            yield from self.stored.blocks()
        else:
            yield from (((rows, columns), block.T) for (columns, rows), block in self.stored.blocks())

    def at(self, rows: Places | slice, columns: Places | slice) -> Array:
        """Some of its rows, or of its columns, in float64."""
        return self.stored.at((columns, rows)).T if self.turned else self.stored.at((rows, columns))


@dataclass(frozen=True, slots=True)
class Columns:
    """Weights, shape (batch, out, read, along), read when they must be; bases are the same along the last axis."""

    read: Callable[[], Array]
    out: int
    along: int
    verdicts: Verdicts
    key: tuple[Hashable, ...] | None
    """Their name among the verdicts, first the array's; None where nothing is remembered."""
    matrix: Matrix | None = None
    """Where they are one matrix that is worked out in blocks."""
    off: Off | None = None
    """How far they may be off."""

    def some(self, batch: int, rows: Places) -> Array:
        """Some of the rows of one slice, shape (rows, read, along)."""
        if self.matrix is None:
            return np.asarray(self.read()[batch][rows])
        found = self.matrix.at(rows, EVERY)
        return found.reshape(len(rows), found.shape[1] // self.along, self.along)

    def beside(self, batch: int, places: Places) -> Array:
        """What all rows of one slice read at some places, shape (out, places, along)."""
        if self.matrix is None:
            return np.asarray(self.read()[batch][:, places])
        columns = (places[:, None] * self.along + np.arange(self.along)).reshape(-1)
        return self.matrix.at(EVERY, columns).reshape(self.out, len(places), self.along)

    def table(self, batch: int) -> Iterator[tuple[Strip, Array]]:
        """The blocks of one slice in float64, which are used up, each with its rows and its columns, (read, along)."""
        if self.matrix is not None:
            yield from self.matrix.blocks()
            return
        rows = self.read()[batch].reshape(self.out, -1)
        for place, room in strips(rows):
            room[...] = rows[place]
            yield place, room


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
        sketch = sketched(np.column_stack([rows, fixed]) if fixed.any() else rows)
        off = _spread(weights.off, scale)
        grouping, still = _grouped(keys, rows.__getitem__, fixed, sketch, tolerance, len(keys), off)
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


class _Combination:
    def __init__(self, names: Names, labels: Labels, scale: Array, weights: Columns, tolerance: float) -> None:
        self.names, self.labels, self.scale, self.weights = names, labels, scale, weights
        self.tolerance = tolerance
        self.shape = (*labels.shape[:2], weights.out)
        self.total = prod(self.shape)

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
        together: dict[bytes, list[_Part]] = {}
        for place in ((b, p) for b in range(batch) for p in range(many)):
            part = _Part(self.weights, self.labels[place], self.scale[place], place)
            together.setdefault(part.distinct.tobytes(), []).append(part)
        offset = 0
        for parts in together.values():
            only = parts[0].distinct[int(parts[0].constant) :]
            steady = bool(len(only)) and bool(self.names.still(only).all())
            for part, (group, factor, fixed, still) in zip(parts, self._alike(parts), strict=True):
                found.base[part.place] = group + offset
                found.scale[part.place], found.number[part.place], found.still[part.place] = factor, fixed, still
                found.steady[part.place] = steady
            offset += len(parts) * out
        return found

    def _alike(self, parts: list[_Part]) -> list[tuple[Labels, Array, Array, Mask]]:
        """Group, scale, number and whether it is one, of the rows over one set of bases."""
        out = self.shape[2]
        if len(parts) == 1 and (quick := self._clean(parts[0])) is not None:
            return [quick]
        fixed = np.concatenate([part.fixed for part in parts])
        sketches = [part.sketch(bool(fixed.any())) for part in parts]
        sums = np.concatenate([sketch.sums for sketch in sketches], axis=1)
        sketch = Sketch(sketches[0].width, sums, np.concatenate([sketch.squares for sketch in sketches]))

        def rows(some: Places) -> Array:
            made = np.empty((len(some), parts[0].width))
            for k, part in enumerate(parts):
                here = np.flatnonzero(some // out == k)
                made[here] = part.rows(some[here] - k * out)
            return made

        off = self.weights.off
        off = None if off is None else off.then(lambda noise: np.concatenate([part.spread(noise) for part in parts]))
        keys = np.zeros(len(fixed), np.int64)
        grouping, still = _grouped(keys, rows, fixed, sketch, self.tolerance, self.total, off)
        scale = np.where(still, fixed, grouping.factor)
        cuts = [slice(k * out, (k + 1) * out) for k in range(len(parts))]
        return [(grouping.group[cut], scale[cut], fixed[cut], still[cut]) for cut in cuts]

    def _clean(self, part: _Part) -> tuple[Labels, Array, Array, Mask] | None:
        """The same where all bases differ and none is constant: then it is the weights alone that tell.

        Which rows are multiples of each other, or zero, does not depend on scales that are not zero.
        """
        read = self.labels.shape[2]
        if len(part.distinct) < read or part.constant:
            return None
        grouping = _grouping(self.weights, part.place[0], self.shape, read, self.tolerance)
        width = np.sqrt(read * self.weights.along)
        if ((grouping.norm > 0) & ~(grouping.norm > FAINT * width)).any() and not (part.scale == 1).all():
            return None
        if not np.isfinite(grouping.norm).all():
            return None
        still = grouping.norm <= ABSENT * width
        if still.any() and grouping.norm[still].any():
            return None
        nothing = np.zeros(self.shape[2])
        return grouping.group, np.where(still, 0.0, grouping.factor), nothing, still


class _Part:
    """The rows of one slice of the weights over distinct bases, in the order of their labels."""

    def __init__(self, weights: Columns, labels: Labels, scale: Array, place: tuple[int, int]) -> None:
        self.weights, self.scale, self.place = weights, scale, place
        self.distinct, first, inverse = _distinct(labels)
        self.constant = bool(self.distinct[0] == 0)
        self.first = first[int(self.constant) :]
        """Where each base stands first, but for the constant 1."""
        self.base = inverse - int(self.constant)
        """Which base stands at every place; that of the constant 1 is below zero."""
        again = self.base >= 0
        again[self.first] = False
        self.again = np.flatnonzero(again)
        """The places of bases that have stood before."""
        self.width = len(self.first) * weights.along

    @cached_property
    def fixed(self) -> Array:
        """What the constant 1 adds to each row."""
        where = np.flatnonzero(self.base < 0)
        parts = self.weights.beside(self.place[0], where) * self.scale[where, None]
        return np.asarray(parts.sum(axis=(1, 2), dtype=np.float64))

    def rows(self, some: Places) -> Array:
        """Some of the rows, shape (rows, width)."""
        columns = self.weights.some(self.place[0], some)
        block = columns[:, self.first] * self.scale[self.first, None]
        for k in self.again.tolist():
            block[:, self.base[k]] += columns[:, k] * self.scale[k]
        return block.reshape(len(some), self.width)

    def sketch(self, whole: bool) -> Sketch:
        """One reading of the rows; with what the constant 1 adds as their last element, if asked for."""
        return sketch_of(self._blocks(whole), self.weights.out, self.width + whole)

    def _blocks(self, whole: bool) -> Iterator[tuple[Cut, Array]]:
        along = self.weights.along
        scale, base = np.repeat(self.scale, along), np.repeat(self.base, along)
        target = base * along + np.tile(np.arange(along), len(self.base))
        # Bases that stand at several places are summed before their squares are.
        met = different(target[np.isin(base, self.base[self.again])])
        alone = (base >= 0) & ~np.isin(target, met)
        sums = np.zeros((self.weights.out, len(met)))
        for (rows, columns), block in self.weights.table(self.place[0]):
            np.multiply(block, scale[columns], out=block)
            here, single = target[columns], alone[columns]
            for k in np.flatnonzero(~single & (base[columns] >= 0)).tolist():
                sums[rows, np.searchsorted(met, here[k])] += block[:, k]
            yield (rows, here[single]), block if single.all() else block[:, single]
        yield (EVERY, met), sums
        if whole:
            yield (EVERY, np.array([self.width])), self.fixed[:, None].copy()

    def spread(self, noise: Array) -> Array:
        """How far the rows may be off, of how far the weights are."""
        made = np.zeros((self.weights.out, len(self.first), self.weights.along))
        for k, base in enumerate(self.base.tolist()):
            if base >= 0:
                made[:, base] += noise[self.place[0], :, k] * abs(float(self.scale[k]))
        return made.reshape(self.weights.out, -1)


def _grouping(weights: Columns, batch: int, shape: tuple[int, int, int], read: int, tolerance: float) -> Grouping:
    """Which rows of one slice of the weights are multiples of each other; `shape` is (batch, passing, out)."""
    key, remembered = (weights.key, batch), weights.verdicts.rows
    grouping = remembered.get(key) if weights.key else None
    if grouping is None:
        out = shape[2]

        def rows(some: Places) -> Array:
            return weights.some(batch, some).reshape(len(some), read * weights.along)

        sketch = sketch_of(weights.table(batch), out, read * weights.along)
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
            parts: Iterable[Grouping] = (
                proportional(keys, rows.__getitem__, sketched(rows), tolerance, len(keys), off),
            )
        else:
            parts = (_grouping(weights, b, shape, read, tolerance) for b in range(batch))
        least = FAINT * np.sqrt(read * weights.along)
        known[weights.key] = all(
            bool((part.norm > least).all() and np.isfinite(part.norm).all())
            and np.array_equal(part.group, np.arange(len(part.group)))
            for part in parts
        )
    return known[weights.key]


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
    keys: Labels,
    rows: Callable[[Places], Array],
    fixed: Array,
    sketch: Sketch,
    tolerance: float,
    total: int,
    off: Off | None,
) -> tuple[Grouping, Mask]:
    """Rows with what is added to each, and which of them are zero but for that; the sketch is of both."""
    if not fixed.any():
        grouping = proportional(keys, rows, sketch, tolerance, total, off)
        return grouping, _small(rows, sketch.width, grouping.norm)

    def whole(some: Places) -> Array:
        return np.column_stack([rows(some), fixed[some]])

    off = None if off is None else off.then(lambda noise: np.pad(noise, ((0, 0), (0, 1))))
    grouping = proportional(keys, whole, sketch, tolerance, total, off)
    # What is added to a row counts in its length; a part of the square is left to rounding.
    square = grouping.norm**2 * (1 - 1e-9) - fixed**2
    return grouping, _small(rows, sketch.width - 1, np.sqrt(np.maximum(square, 0)))


def _small(rows: Callable[[Places], Array], width: int, norm: Array) -> Mask:
    """Which rows have no element that counts; only those are read that their length does not tell."""
    if not width:
        return np.ones(len(norm), bool)
    small = np.zeros(len(norm), bool)
    doubt = np.flatnonzero(~(norm > 2 * ABSENT * np.sqrt(width)))
    if len(doubt):
        small[doubt] = np.abs(rows(doubt)).max(axis=1) < ABSENT
    return small
