"""Waves: what a change of one weight looks like at a tensor further on, whatever its size.

A change is described axis by axis. Every axis has a class per index: the change is a function of the classes alone, so
that indices of one class see the same change, and class -1 sees none. ``0, 0, 0`` is a change that is the same all
along the axis, ``0, 1, 2`` one that may differ everywhere, ``-1, 0, 0`` one that leaves the first index alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from functools import lru_cache
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from symlint.model.clusters import different
from symlint.model.graph import Shape
from symlint.program.steps import Spec

Classes = NDArray[np.int64]


class Partition:
    """The indices of an axis in classes; what is asked of it is found once."""

    __slots__ = ("_count", "_hash", "_spread", "_steady", "key", "values")

    def __init__(self, values: Classes) -> None:
        self.values = values
        """The class of each index, -1 for none."""
        self.key = values.tobytes()
        self._hash = hash(self.key)
        self._steady: bool | None = None
        self._count: int | None = None
        self._spread: Partition | None = None

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Partition) and self.key == other.key)

    def __hash__(self) -> int:
        return self._hash

    def __len__(self) -> int:
        return len(self.values)

    @property
    def steady(self) -> bool:
        """Whether all indices see the same change."""
        if self._steady is None:
            self._steady = not self.values.any()
        return self._steady

    @property
    def count(self) -> int:
        """How many classes there are."""
        if self._count is None:
            self._count = len(set(self.values[self.values >= 0].tolist()))
        return self._count

    @property
    def empty(self) -> bool:
        """Whether there are indices, and none sees a change."""
        return bool(len(self.values)) and not self.steady and bool((self.values < 0).all())

    @property
    def spread(self) -> Partition:
        """A class of its own for every index that sees a change at all."""
        if self._spread is None:
            apart = each(len(self.values))
            nothing = self.values < 0 if not self.steady else None
            if nothing is None or not nothing.any():
                self._spread = apart
            else:
                made = Partition(np.where(nothing, -1, apart.values))
                self._spread = self if made == self else made
        return self._spread


@lru_cache(maxsize=512)
def same(n: int) -> Partition:
    """One class for all of `n` indices."""
    return Partition(np.zeros(n, np.int64))


@lru_cache(maxsize=512)
def each(n: int) -> Partition:
    """A class for each of `n` indices."""
    return Partition(np.arange(n))


class Kind(Enum):
    """What a change depends on besides weights."""

    CONSTANT = "constant"
    """On nothing: the same numbers for every input."""
    LINEAR = "linear"
    """It is linear in one tensor, its base, with weights as coefficients."""
    ANY = "any"
    """On tensors that depend on the input in any way."""

    __hash__ = object.__hash__
    """There is one of each; by its name it would be hashed in Python, and waves are looked up at every step."""


class Wave(NamedTuple):
    """A change of a tensor."""

    kind: Kind
    partitions: tuple[Partition, ...]
    """Of a linear change: those of its coefficients."""
    base: str = ""
    """Of a linear change: the tensor in which it is linear."""
    where: tuple[int | None, ...] = ()
    """Of a linear change: the axis of the base that an axis goes along with."""
    taken: frozenset[int] = frozenset()
    """Of a linear change: the axes of the base over which it is a sum."""

    at: tuple[tuple[int, int], ...] = ()
    """Of a linear change: the axes of the base of which it takes one index alone, and which."""
    exact: bool = False
    """Whether the elements are those of the weight, only moved about, and classes are told by its own numbers."""

    @property
    def classes(self) -> tuple[Classes, ...]:
        """The class of each index, axis by axis."""
        return tuple(p.values for p in self.partitions)

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of classes of each axis: a change is given by one number for each choice of them."""
        return tuple(p.count for p in self.partitions)

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for waves that behave alike."""
        return self[:-1]

    @property
    def empty(self) -> bool:
        """Whether nothing changes."""
        return any(p.empty for p in self.partitions)

    def same_along(self, axis: int) -> bool:
        """Whether the change is one and the same along an axis, for every input."""
        moving = self.kind is Kind.LINEAR and self.where[axis] is not None
        return self.partitions[axis].steady and not moving

    def loose(self) -> Wave:
        """The same change, of which only the classes are remembered."""
        if self.kind is not Kind.LINEAR:
            return self._replace(kind=Kind.ANY, exact=False)
        spread = (p if w is None else p.spread for p, w in zip(self.partitions, self.where, strict=True))
        return Wave(Kind.ANY, tuple(spread))


def numbered(*columns: Classes) -> Classes:
    """Indices that agree in all columns are of one class; -1 in all of them is no change."""
    order, table = np.lexsort(columns[::-1]), np.stack(columns)
    ordered, ranks = table[:, order], np.zeros(len(order), np.int64)
    ranks[order[1:]] = np.cumsum((ordered[:, 1:] != ordered[:, :-1]).any(axis=0))
    nothing = (table < 0).all(axis=0)
    # No change in any column sorts before everything else.
    return np.where(nothing, -1, ranks - 1) if nothing.any() else ranks


def together(waves: Sequence[Wave]) -> Wave:
    """The sum of changes of one tensor."""
    if len(waves) == 1:
        return waves[0]
    first = waves[0]
    alike = all((w.kind, w.base, w.where) == (first.kind, first.base, first.where) for w in waves)
    if not alike:
        waves = [w.loose() for w in waves]
    partitions = tuple(
        Partition(numbered(*(w.partitions[k].values for w in waves))) for k in range(len(first.partitions))
    )
    taken = frozenset[int]().union(*(w.taken for w in waves))
    return waves[0]._replace(partitions=partitions, taken=taken, exact=False)


def varied(wave: Wave, others: Sequence[Shape]) -> Wave:
    """The change where tensors of some shapes, which multiply it, tell the indices of their axes apart."""
    partitions = list(wave.partitions)
    for shape in others:
        for a, n in enumerate(shape, start=len(partitions) - len(shape)):
            if n > 1:
                partitions[a] = partitions[a].spread
    return wave._replace(partitions=tuple(partitions))


def beside(waves: Sequence[Wave], axis: int) -> Wave | None:
    """Parts of one weight put behind each other, where they are told by the same numbers; else None."""
    rest = {tuple(p for k, p in enumerate(w.partitions) if k != axis) for w in waves}
    if len(rest) > 1 or not all(w.exact and w.kind is Kind.CONSTANT for w in waves):
        return None
    partitions = list(waves[0].partitions)
    partitions[axis] = Partition(np.concatenate([w.partitions[axis].values for w in waves]))
    return waves[0]._replace(partitions=tuple(partitions))


@lru_cache(maxsize=512)
def apart(partition: Partition, sizes: tuple[int, ...]) -> tuple[Partition, ...]:
    """The classes of the factors of an axis that is read as several."""
    if partition.steady:
        return tuple(map(same, sizes))
    if partition == each(len(partition)):
        return tuple(map(each, sizes))
    table = partition.values.reshape(sizes)
    found: list[Partition] = []
    for k in range(len(sizes)):
        rows = np.moveaxis(table, k, 0).reshape(sizes[k], -1)
        found.append(Partition(numbered(*rows.T)) if rows.shape[1] else same(sizes[k]))
    return tuple(found)


def joined(parts: tuple[Partition, ...]) -> Partition:
    """The classes of an axis that groups several: an index without a change in one part sees none."""
    return parts[0] if len(parts) == 1 else _joined(parts)


@lru_cache(maxsize=512)
def _joined(parts: tuple[Partition, ...]) -> Partition:
    n = prod(map(len, parts))
    if all(p.steady for p in parts):
        return same(n)
    if all(p == each(len(p)) for p in parts):
        return each(n)
    grids = np.meshgrid(*(p.values for p in parts), indexing="ij")
    nothing = np.any([g < 0 for g in grids], axis=0).reshape(-1)
    made = numbered(*(g.reshape(-1) for g in grids))
    made[nothing] = -1
    return Partition(_compact(made))


def _compact(classes: Classes) -> Classes:
    made = np.full(classes.shape, -1)
    _, made[classes >= 0] = np.unique(classes[classes >= 0], return_inverse=True)
    return made


def labelled(wave: Wave, spec: Spec, sizes: Mapping[str, int]) -> dict[str, Partition]:
    """The classes of every label of an operand."""
    found: dict[str, Partition] = {}
    for partition, axis in zip(wave.partitions, spec, strict=True):
        if len(axis) == 1:
            found[axis[0]] = partition
        elif axis:
            found.update(zip(axis, apart(partition, tuple(sizes[label] for label in axis)), strict=True))
    return found


def regrouped(
    labels: Mapping[str, Partition], spec: Spec, shape: Shape, sizes: Mapping[str, int]
) -> tuple[Partition, ...]:
    """The classes of the axes of a result; a label that the change lacks is the same all along."""
    made: list[Partition] = []
    for axis, n in zip(spec, shape, strict=True):
        if len(axis) == 1:
            found = labels.get(axis[0])
            made.append(same(n) if found is None else found)
        elif axis:
            made.append(joined(tuple(labels[label] if label in labels else same(sizes[label]) for label in axis)))
        else:
            made.append(same(n))
    return tuple(made)


def overlap(a: Wave, b: Wave) -> bool:
    """Whether two changes of one tensor have an element in common."""
    return all(
        bool(len(x)) if x.steady and y.steady else bool(((x.values >= 0) & (y.values >= 0)).any())
        for x, y in zip(a.partitions, b.partitions, strict=True)
    )


def covers(a: Wave, b: Wave) -> bool:
    """Whether every change that is like `b` is like `a`."""
    return all(_finer(x, y) for x, y in zip(a.partitions, b.partitions, strict=True))


def _finer(a: Partition, b: Partition) -> bool:
    """Whether classes of `a` tell apart all that classes of `b` do."""
    if a == b:
        return True
    if bool(((b.values >= 0) & (a.values < 0)).any()):
        return False
    if a.spread == a and not (a.values < 0).any():
        return True
    pairs = (a.values + 1) * (int(b.values.max(initial=-1)) + 2) + b.values + 1
    return len(different(pairs)) == len(different(a.values))
