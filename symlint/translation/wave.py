"""Waves: what a change of one weight looks like at a tensor further on, whatever its size.

A change is described axis by axis. Every axis has a class per index: the change is a function of the classes alone, so
that indices of one class see the same change, and class -1 sees none. ``0, 0, 0`` is a change that is the same all
along the axis, ``0, 1, 2`` one that may differ everywhere, ``-1, 0, 0`` one that leaves the first index alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache
from math import prod

import numpy as np
from numpy.typing import NDArray

from symlint.graph import Shape
from symlint.program import Spec

Classes = NDArray[np.int64]


class Kind(Enum):
    """What a change depends on besides weights."""

    CONSTANT = "constant"
    """On nothing: the same numbers for every input."""
    LINEAR = "linear"
    """It is linear in one tensor, its base, with weights as coefficients."""
    ANY = "any"
    """On tensors that depend on the input in any way."""


@dataclass(frozen=True, slots=True, eq=False)
class Wave:
    """A change of a tensor."""

    kind: Kind
    classes: tuple[Classes, ...]
    """Of a linear change: those of its coefficients."""
    base: str = ""
    """Of a linear change: the tensor in which it is linear."""
    where: tuple[int | None, ...] = ()
    """Of a linear change: the axis of the base that an axis goes along with."""
    taken: frozenset[int] = frozenset()
    """Of a linear change: the axes of the base over which it is a sum."""

    exact: bool = False
    """Whether the elements are those of the weight, only moved about, and classes are told by its own numbers."""

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for waves that behave alike."""
        return (self.kind, self.base, self.where, self.taken, *(c.tobytes() for c in self.classes))

    @property
    def empty(self) -> bool:
        """Whether nothing changes."""
        return any(len(c) and bool((c < 0).all()) for c in self.classes)

    def same_along(self, axis: int) -> bool:
        """Whether the change is one and the same along an axis, for every input."""
        moving = self.kind is Kind.LINEAR and self.where[axis] is not None
        return steady(self.classes[axis]) and not moving

    def loose(self) -> Wave:
        """The same change, of which only the classes are remembered."""
        if self.kind is not Kind.LINEAR:
            return replace(self, kind=Kind.ANY, exact=False)
        classes = [c if w is None else spread(c) for c, w in zip(self.classes, self.where, strict=True)]
        return Wave(Kind.ANY, tuple(classes))


def steady(classes: Classes) -> bool:
    """Whether all indices see the same change."""
    return bool((classes == 0).all())


def same(n: int) -> Classes:
    """One class for all of `n` indices."""
    return np.zeros(n, np.int64)


def spread(classes: Classes) -> Classes:
    """A class of its own for every index that sees a change at all."""
    return np.where(classes < 0, -1, np.arange(len(classes)))


def numbered(*columns: Classes) -> Classes:
    """Indices that agree in all columns are of one class; -1 in all of them is no change."""
    if all(map(steady, columns)):
        return np.zeros_like(columns[0])
    table = np.stack(columns, axis=-1)
    nothing = (table < 0).all(axis=-1)
    _, classes = np.unique(table.reshape(-1, table.shape[-1]), axis=0, return_inverse=True)
    classes = classes.reshape(table.shape[:-1])
    if not nothing.any():
        return classes
    made = np.full(classes.shape, -1)
    _, made[~nothing] = np.unique(classes[~nothing], return_inverse=True)
    return made


def together(waves: Sequence[Wave]) -> Wave:
    """The sum of changes of one tensor."""
    if len(waves) == 1:
        return waves[0]
    first = waves[0]
    alike = all((w.kind, w.base, w.where) == (first.kind, first.base, first.where) for w in waves)
    if not alike:
        waves = [w.loose() for w in waves]
    classes = tuple(numbered(*(w.classes[k] for w in waves)) for k in range(len(first.classes)))
    taken = frozenset[int]().union(*(w.taken for w in waves))
    return replace(waves[0], classes=classes, taken=taken, exact=False)


def beside(waves: Sequence[Wave], axis: int) -> Wave | None:
    """Parts of one weight put behind each other, where they are told by the same numbers; else None."""
    rest = {tuple(c.tobytes() for k, c in enumerate(w.classes) if k != axis) for w in waves}
    if len(rest) > 1 or not all(w.exact and w.kind is Kind.CONSTANT for w in waves):
        return None
    classes = list(waves[0].classes)
    classes[axis] = np.concatenate([w.classes[axis] for w in waves])
    return replace(waves[0], classes=tuple(classes))


def apart(classes: Classes, sizes: Sequence[int]) -> list[Classes]:
    """The classes of the factors of an axis that is read as several."""
    return list(_apart(classes.tobytes(), tuple(sizes)))


@lru_cache(maxsize=512)
def _apart(classes: bytes, sizes: tuple[int, ...]) -> tuple[Classes, ...]:
    table = np.frombuffer(classes, np.int64).reshape(sizes)
    found: list[Classes] = []
    for k in range(len(sizes)):
        rows = np.moveaxis(table, k, 0).reshape(sizes[k], -1)
        found.append(numbered(*rows.T) if rows.shape[1] else same(sizes[k]))
    return tuple(found)


def joined(parts: Sequence[Classes]) -> Classes:
    """The classes of an axis that groups several: an index without a change in one part sees none."""
    return parts[0] if len(parts) == 1 else _joined(*(part.tobytes() for part in parts))


@lru_cache(maxsize=512)
def _joined(*columns: bytes) -> Classes:
    parts = [np.frombuffer(column, np.int64) for column in columns]
    grids = np.meshgrid(*parts, indexing="ij") if parts else [np.zeros((), np.int64)]
    nothing = np.any([g < 0 for g in grids], axis=0).reshape(-1)
    made = numbered(*(g.reshape(-1) for g in grids))
    made[nothing] = -1
    return _compact(made)


def _compact(classes: Classes) -> Classes:
    made = np.full(classes.shape, -1)
    _, made[classes >= 0] = np.unique(classes[classes >= 0], return_inverse=True)
    return made


def labelled(wave: Wave, spec: Spec, sizes: Mapping[str, int]) -> dict[str, Classes]:
    """The classes of every label of an operand."""
    found: dict[str, Classes] = {}
    for classes, axis in zip(wave.classes, spec, strict=True):
        if len(axis) == 1:
            found[axis[0]] = classes
        elif axis:
            found.update(zip(axis, apart(classes, [sizes[label] for label in axis]), strict=True))
    return found


def regrouped(labels: Mapping[str, Classes], spec: Spec, shape: Shape, sizes: Mapping[str, int]) -> tuple[Classes, ...]:
    """The classes of the axes of a result; a label that the change lacks is the same all along."""
    made: list[Classes] = []
    for axis, n in zip(spec, shape, strict=True):
        parts = [labels.get(label, same(sizes[label])) for label in axis]
        made.append(joined(parts) if axis else same(n))
        assert prod(sizes[label] for label in axis) == n
    return tuple(made)


def overlap(a: Wave, b: Wave) -> bool:
    """Whether two changes of one tensor have an element in common."""
    return all(bool(((x >= 0) & (y >= 0)).any()) for x, y in zip(a.classes, b.classes, strict=True))


def covers(a: Wave, b: Wave) -> bool:
    """Whether every change that is like `b` is like `a`."""
    return all(_finer(x, y) for x, y in zip(a.classes, b.classes, strict=True))


def _finer(a: Classes, b: Classes) -> bool:
    """Whether classes of `a` tell apart all that classes of `b` do."""
    if bool(((b >= 0) & (a < 0)).any()):
        return False
    seen: dict[int, int] = {}
    return all(seen.setdefault(x, y) == y for x, y in zip(a.tolist(), b.tolist(), strict=True))
