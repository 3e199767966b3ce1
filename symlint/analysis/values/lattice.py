"""Abstract values: which elements of a tensor are equal functions of the input, which are constant, which are zero.

An element stands for a function of the input (and of the places along axes that carry no units, which have size 1
here). It is ``scale * base``, with bases numbered by labels: equal labels are equal bases, and label 0 is the
constant 1.

What repeats along an axis is written once: a layer in which nothing was found costs the same for one position and for
a thousand. Labels that differ from place to place in a regular way are a start and a step (`Bases`); scales, and all
other arrays here, have size 1 along axes along which they do not change.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import field
from functools import cache, lru_cache, reduce
from math import gcd, inf, prod

import numpy as np
from numpy.typing import NDArray

from symlint.analysis.values.weights import Mask, Weight, absent, slim
from symlint.model.clusters import different
from symlint.model.graph import Array, Shape
from symlint.model.records import dataclass

Labels = NDArray[np.int64]
FEW = 4


@dataclass(frozen=True, slots=True, eq=False)
class Bases:
    """The labels of a tensor: ``start + sum of index * step``, and 0 wherever the start is 0.

    ``starts`` has size 1 along every axis with a step, and may have size 1 along others.
    """

    starts: Labels
    steps: tuple[int, ...]
    shape: Shape

    @property
    def written(self) -> Labels:
        """The labels in full."""
        return np.broadcast_to(self.write(range(len(self.shape))).starts, self.shape)

    @property
    def constant(self) -> Mask:
        """Where the base is the constant 1; size 1 along axes along which that does not change."""
        return np.asarray(self.starts == 0)

    @property
    def extent(self) -> int:
        """From the first to the last label of one start, both included."""
        return 1 + sum((n - 1) * step for n, step in zip(self.shape, self.steps, strict=True))

    def write(self, axes: Iterable[int]) -> Bases:
        """The same labels without steps along some axes."""
        starts, steps = self.starts, list(self.steps)
        for k in axes:
            if steps[k]:
                places = np.arange(self.shape[k]).reshape([-1 if j == k else 1 for j in range(len(steps))])
                starts = np.where(starts == 0, 0, starts + places * steps[k])
                steps[k] = 0
        return self if starts is self.starts else Bases(starts, tuple(steps), self.shape)

    def spread(self, shape: Shape) -> Bases:
        """Broadcast to a shape, with the same label all along the new axes."""
        if self.shape == shape:
            return self
        lead = len(shape) - len(self.shape)
        return Bases(self.starts.reshape((1,) * lead + self.starts.shape), (0,) * lead + self.steps, shape)

    def clear(self, mask: Mask) -> Bases:
        """The constant 1 wherever a mask says so."""
        if not mask.any():
            return self
        made = self.write(k for k, n in enumerate(mask.shape) if n > 1)
        return Bases(np.where(mask, 0, made.starts), made.steps, made.shape)

    def where(self, mask: Mask, other: Bases) -> Bases:
        """These labels where a mask says so, elsewhere those of another tensor of the same shape."""
        if mask.all():
            return self
        if not mask.any():
            return other
        wide = [n > 1 for n in mask.shape]
        apart = [k for k, (a, b) in enumerate(zip(self.steps, other.steps, strict=True)) if a != b or wide[k]]
        a, b = self.write(apart), other.write(apart)
        return Bases(np.where(mask, a.starts, b.starts), a.steps, self.shape)

    @property
    def telling(self) -> bool:
        """Whether every element surely has a label of its own, and none is 0."""
        for size, step, n in zip(self.starts.shape, self.steps, self.shape, strict=True):
            if not step and size == 1 and n > 1:
                return False
        starts = self.starts.reshape(-1)
        if len(starts) == 1:
            return bool(starts[0])
        if not starts.all():
            return False
        increasing = bool((starts[1:] > starts[:-1]).all())
        ordered = starts if increasing else np.sort(starts)
        if (np.diff(ordered) >= self.extent).all():
            return True
        modulus = gcd(*(step for step, n in zip(self.steps, self.shape, strict=True) if n > 1))
        return modulus > 1 and bool((np.diff(np.sort(starts % modulus)) > 0).all())

    def turn(self, order: Sequence[int]) -> Bases:
        """The axes in another order."""
        steps, shape = (tuple(part[k] for k in order) for part in (self.steps, self.shape))
        return Bases(self.starts.transpose(order), steps, shape)

    def cut(self, axis: int, start: int, stop: int) -> Bases:
        """Some places of an axis."""
        shape = (*self.shape[:axis], stop - start, *self.shape[axis + 1 :])
        if self.steps[axis]:
            starts = np.where(self.starts == 0, 0, self.starts + start * self.steps[axis])
        elif self.starts.shape[axis] > 1:
            starts = self.starts[(*(slice(None),) * axis, slice(start, stop))]
        else:
            starts = self.starts
        steps = (*self.steps[:axis], self.steps[axis] if stop - start > 1 else 0, *self.steps[axis + 1 :])
        return Bases(starts, steps, shape)


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """Bases and scales of one tensor; without bases every element is a known number."""

    bases: Bases | None
    held: Array | Weight
    """The scales, or the known numbers: with size 1 along axes along which they do not change."""
    shape: Shape
    """The shape, with size 1 along axes without units."""
    noise: Array | None = None
    """How far known numbers may be off because they are differences of larger ones; None where they are not."""
    plain: bool = False
    """Whether it is known that every element is a base of its own, and of a scale that is not zero."""

    @property
    def off(self) -> Array | None:
        """How far known numbers may be off; None where they are as they are stored."""
        if isinstance(self.held, Weight):
            return None if self.held.off is None else slim(self.held.off.each())
        return self.noise

    @property
    def slim(self) -> Array:
        """The scales or known numbers, with size 1 along axes along which they do not change."""
        return slim(self.held.read()) if isinstance(self.held, Weight) else self.held

    @property
    def scale(self) -> Array:
        """The scales or known numbers in the shape of the tensor."""
        return np.broadcast_to(self.slim, self.shape)

    @property
    def dtype(self) -> str:
        """The number type of the scales or known numbers."""
        return str(self.held.dtype)

    @property
    def labels(self) -> Bases:
        """The bases; those of known numbers are all the constant 1."""
        return (
            Bases(np.zeros((1,) * len(self.shape), np.int64), (0,) * len(self.shape), self.shape)
            if self.bases is None
            else self.bases
        )

    @property
    def numbers(self) -> Labels:
        """The labels, written out."""
        return np.broadcast_to(np.int64(0), self.shape) if self.bases is None else self.bases.written

    @property
    def constant(self) -> Mask:
        """Where the element is a known number, in the shape of the tensor."""
        return np.broadcast_to(self.labels.constant, self.shape)

    @property
    def zero(self) -> Mask:
        """Where the element is zero for every input, in the shape of the tensor."""
        return np.broadcast_to(absent(self.slim), self.shape)


def known(numbers: Array, noise: Array | None = None) -> Value:
    """A tensor of known numbers."""
    return Value(None, slim(numbers), numbers.shape, noise)


def tidy(bases: Bases, scale: Array) -> Value:
    """A value in which zero is the constant zero; `scale` broadcasts to the shape of the bases."""
    zero = absent(scale)
    if not zero.any():
        return Value(bases, scale, bases.shape)
    return Value(bases.clear(zero), np.where(zero, 0.0, scale), bases.shape)


class _Ranges:
    """Ranges of labels in order, at first that of the constant 1 alone; nearly all come behind those before them."""

    def __init__(self) -> None:
        self.count = 1
        self.ends = np.array([[0] * 8, [1] * 8])
        """First and last label, the last one excluded, and room for more."""

    def add(self, start: int, stop: int) -> None:
        """One more range; of two that begin alike the longer one counts."""
        if self.count == self.ends.shape[1]:
            self.ends = np.concatenate([self.ends, np.empty_like(self.ends)], axis=1)
        starts, stops = self.ends[:, : self.count]
        place = self.count if start > starts[-1] else int(np.searchsorted(starts, start))
        if place < self.count and starts[place] == start:
            stops[place] = max(stop, int(stops[place]))
            return
        self.ends[:, place + 1 : self.count + 1] = self.ends[:, place : self.count].copy()
        self.ends[:, place] = start, stop
        self.count += 1

    def hold(self, labels: Labels) -> Mask:
        """Which labels are in a range."""
        if self.count == 1 and self.ends[1, 0] == 1:
            return np.asarray(labels == 0)
        starts, stops = self.ends[:, : self.count]
        return np.asarray(labels < stops[np.searchsorted(starts, labels, "right") - 1])


@dataclass
class _Sums:
    """Which labels are of a base and a number, where the base has several: the label, that of the base, the number."""

    labels: Labels = field(default_factory=lambda: np.zeros(0, np.int64))
    bases: Labels = field(default_factory=lambda: np.zeros(0, np.int64))
    numbers: Array = field(default_factory=lambda: np.zeros(0))

    def add(self, made: Labels, bases: Labels, numbers: Array) -> None:
        """Remember sums; those of a base that has no other are left out."""
        made, first = np.unique(made, return_index=True)
        bases, numbers = bases[first], numbers[first]
        _, place, often = np.unique(bases, return_inverse=True, return_counts=True)
        kept = (often[place] > 1) & (bases != 0) & (made != 0) & (made != bases)
        if kept.any():
            columns = [
                np.concatenate(pair) for pair in zip(self, (made[kept], bases[kept], numbers[kept]), strict=True)
            ]
            order = np.argsort(columns[0], kind="stable")
            self.labels, self.bases, self.numbers = (column[order] for column in columns)

    def __iter__(self) -> Iterator[Array]:
        return iter((self.labels, self.bases, self.numbers))

    def apart(self, value: Value) -> tuple[Value, Array] | None:
        """A value of which labels are known as one of their bases, and what its elements have beside those."""
        bases = value.bases
        if bases is None or not len(self.labels) or int(bases.starts.max()) + bases.extent <= self.labels[0]:
            return None
        written = bases.written
        place = np.minimum(np.searchsorted(self.labels, written), len(self.labels) - 1)
        there = self.labels[place] == written
        if not there.any():
            return None
        inner = Bases(np.where(there, self.bases[place], written), (0,) * written.ndim, bases.shape)
        return Value(inner, value.slim, value.shape), value.slim * np.where(there, self.numbers[place], 0.0)


@dataclass
class Names:
    """The numbering of bases."""

    count: int = 1
    sums: _Sums = field(default_factory=_Sums)
    """So that numbers which are added one after another are one number."""
    room: float = inf
    """How many known numbers may yet be computed of others."""
    _still: _Ranges = field(default_factory=_Ranges)
    """The labels of functions that depend on no input."""

    def affords(self, size: int) -> bool:
        """Whether there is room for so many more, which is taken then."""
        enough = size <= self.room
        self.room -= size if enough else 0
        return enough

    def still(self, labels: Labels) -> Mask:
        """Which labels are of functions that depend on no input."""
        return self._still.hold(labels)

    def settle(self, bases: Bases, where: Mask | None = None) -> None:
        """Remember that these bases depend on no input: all, or those of which a mask says so.

        All bases of a tensor whose labels nothing else has are a range.
        """
        if where is None and bases.starts.size:
            first = bases.starts[bases.starts != 0]
            if len(first):
                self._still.add(int(first.min()), int(first.max()) + bases.extent)
        elif where is not None and where.any():
            labels = different(bases.written[np.broadcast_to(where, bases.shape)])
            labels = labels[labels != 0]
            breaks = np.flatnonzero(np.diff(labels) > 1)
            firsts, lasts = (
                labels[[0, *(breaks + 1)]] if len(labels) else [],
                labels[[*breaks, -1]] if len(labels) else [],
            )
            for a, b in zip(firsts, lasts, strict=True):
                self._still.add(int(a), int(b) + 1)

    def fresh(self, shape: Sequence[int]) -> Value:
        """A value of which nothing is known: every element is a base of its own."""
        shape = tuple(shape)
        made = Bases(np.full((1,) * len(shape), self.count), _strides(shape), shape)
        self.count += prod(shape)
        return Value(made, unit(len(shape)), shape, plain=True)

    def anew(self, x: Value, scale: Array | None = None, *, steady: bool = False) -> Value:
        """What one operation computes from every element of a plain value, whatever else it reads; see `derive`."""
        bases = x.labels
        if bases.starts.size > 1:
            made = self.derive(x.shape, [bases], steady=steady)
        else:
            made = Bases(np.full(bases.starts.shape, self.count), bases.steps, x.shape)
            self.count += made.extent
            if steady and self.still(bases.starts).all():
                self.settle(made)
        return Value(made, unit(len(x.shape)) if scale is None else scale, x.shape, plain=True)

    def derive(
        self,
        shape: Shape,
        bases: Sequence[Bases],
        codes: Iterable[Labels] = (),
        *,
        steady: bool = False,
        clear: Mask | None = None,
    ) -> Bases:
        """New bases, equal where all of `bases` and `codes` are: what one operation computes from others.

        Args:
            shape: of the result, to which all of them broadcast.
            bases: what the operation reads.
            codes: whole numbers, equal where some other thing that it reads is equal; made if nothing else tells.
            steady: bases that depend on no input make one that does not either.
            clear: where the result is the constant 1.
        """
        bases = [b.spread(shape) for b in bases]
        teller = next((b for b in bases if b.telling), None)
        if teller is None:
            made = self._paired(shape, bases, codes, clear)
        else:
            starts = teller.starts - int(teller.starts.min())
            if int(starts.max()) > 2 * starts.size * teller.extent:  # else a span doubles with every concatenation
                starts = starts.reshape(-1).argsort().argsort().reshape(starts.shape) * teller.extent
            made = Bases(starts + self.count, teller.steps, shape)
            self.count += int(starts.max()) + teller.extent
        if steady:
            quiet = reduce(np.logical_and, [self.still(b.starts) for b in bases])
            quiet = quiet if clear is None else quiet & ~clear
            if quiet.all():
                self.settle(made)
            elif quiet.any():  # a start and all that follows from it are of one kind
                made = made.write(k for k, n in enumerate(quiet.shape) if n > 1)
                self.settle(made, quiet)
        return made if clear is None else made.clear(clear)

    def moved(self, bases: Bases) -> Bases:
        """The same functions at other places: what is a base and a number is the moved base and that number."""
        made = self.derive(bases.shape, [bases], steady=True, clear=bases.constant)
        parts = self.sums.apart(Value(bases, unit(len(bases.shape)), bases.shape))
        if parts is None:
            return made
        inner, numbers = parts
        base = self.derive(bases.shape, [inner.labels], steady=True, clear=inner.labels.constant)
        made = base.where(inner.numbers == bases.written, made)
        self.sums.add(*(column.reshape(-1) for column in (made.written, base.written, numbers)))
        return made

    def _paired(self, shape: Shape, bases: list[Bases], codes: Iterable[Labels], clear: Mask | None) -> Bases:
        """New bases where no single operand tells all elements apart."""
        codes = [code.reshape((1,) * (len(shape) - code.ndim) + code.shape) for code in codes]
        free = []
        for k, n in enumerate(shape):
            stepped = [b for b in bases if b.steps[k]]
            if n == 1 or not stepped:
                continue
            told = reduce(np.logical_or, [b.starts != 0 for b in stepped])
            told = told if clear is None else told | clear
            varies = any(a.shape[k] > 1 for a in (*(b.starts for b in bases), *codes))
            if varies or not told.all() or (clear is not None and clear.ndim == len(shape) and clear.shape[k] > 1):
                bases = [b.write([k]) for b in bases]
            else:
                free.append(k)
        columns = [*(b.starts for b in bases), *codes]
        core = np.broadcast_shapes((1,) * len(shape), *(c.shape for c in columns))
        found = distinct(*(np.broadcast_to(c, core).reshape(-1) for c in columns)).reshape(core)
        places = prod(shape[k] for k in free)
        steps = [0] * len(shape)
        for k, step in zip(free, _strides(tuple(shape[k] for k in free)), strict=True):
            steps[k] = step
        made = Bases(found * places + self.count, tuple(steps), shape)
        self.count += (int(found.max(initial=-1)) + 1) * places
        return made

    def apart(self, bases: Bases, shape: Shape) -> Bases:
        """New bases that differ from place to place along the axes that are longer in `shape`."""
        if shape == bases.shape:
            return bases
        free = [k for k, n in enumerate(shape) if n > 1 and (bases.steps[k] or n != bases.shape[k])]
        sizes = tuple(shape[k] for k in free)
        places, steps = prod(sizes), dict(zip(free, _strides(sizes), strict=True))
        found = distinct(bases.starts.reshape(-1)).reshape(bases.starts.shape)
        starts = np.where(bases.starts == 0, 0, found * places + self.count)
        self.count += (int(found.max(initial=-1)) + 1) * places
        made = Bases(starts, tuple(steps.get(k, 0) for k in range(len(shape))), shape)
        quiet = self.still(bases.starts)
        if quiet.any():
            self.settle(made, None if quiet.all() else quiet)
        return made


@cache
def unit(rank: int) -> Array:
    """The scale 1."""
    one = np.ones((1,) * rank)
    one.flags.writeable = False
    return one


@lru_cache(1 << 12)
def _strides(shape: Shape) -> tuple[int, ...]:
    """Steps that give every place a number of its own; none along axes of one place."""
    steps, size = list[int](), 1
    for n in reversed(shape):
        steps.append(size if n > 1 else 0)
        size *= n
    return tuple(reversed(steps))


def distinct(*columns: Labels) -> Labels:
    """Rows of whole numbers as one whole number each, from 0 on, equal for equal rows.

    Many columns are hashed to 64 bits first; that two of a million rows collide has a chance below 1e-7.
    """
    size = len(columns[0])
    if size < 2:
        return np.zeros(size, np.int64)
    columns = tuple(c for c in columns if c[0] != c[-1] or (c != c[0]).any())
    if any((c[1:] > c[:-1]).all() for c in columns[:FEW]):
        return np.arange(size)  # one column tells all of them apart
    if len(columns) > FEW:
        odd = np.random.default_rng(20231129).integers(0, 2**63, len(columns), np.uint64) * np.uint64(2) + np.uint64(1)
        total = np.zeros(size, np.uint64)
        for column, factor in zip(columns, odd, strict=True):
            total = (total ^ (column.astype(np.uint64) * factor)) * np.uint64(0x9E3779B97F4A7C15)
            total ^= total >> np.uint64(29)
        columns = (total.view(np.int64),)
    found = np.zeros(size, np.int64)
    for place, column in enumerate(columns):
        _, inverse = np.unique(column, return_inverse=True)
        found = inverse.reshape(-1) if not place else found * (int(inverse.max(initial=0)) + 1) + inverse.reshape(-1)
        if place:
            _, found = np.unique(found, return_inverse=True)
    return found


def alike(scale: Array, noise: Array | None = None, tolerance: float = 1e-6) -> Labels:
    """Numbers as whole numbers, equal for those that agree to a few roundings of float32, or to their `noise`."""
    if noise is None and (scale.size == 1 or (scale.size and bool((scale == scale.reshape(-1)[0]).all()))):
        return np.zeros((1,) * scale.ndim, np.int64)
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
