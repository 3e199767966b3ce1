"""Arrays over the labels of a contraction: one axis per label, and back to the grouping of a tensor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from math import prod

import numpy as np

from symlint.analysis.values.lattice import Bases, Labels, Names, Value, alike, tidy
from symlint.model.graph import Array, Shape
from symlint.model.records import dataclass
from symlint.program.steps import Einsum, Spec


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """A value with one axis per label; an axis of size 1 stands for all its places."""

    bases: Bases
    scale: Array
    order: tuple[str, ...]

    @property
    def shape(self) -> Shape:
        """The size of each axis."""
        return self.bases.shape

    def size(self, label: str) -> int:
        """The places of a label."""
        return self.shape[self.order.index(label)]

    def turn(self, order: Sequence[str]) -> Grid:
        """The axes in another order."""
        if self.order == tuple(order):
            return self
        places = [self.order.index(label) for label in order]
        return Grid(self.bases.turn(places), self.scale.transpose(places), tuple(order))

    def align(self, order: Sequence[str]) -> Grid:
        """The axes in another order, of size 1 for a label that is new; one of size 1 may be left out."""
        if self.order == tuple(order):
            return self
        kept = [label for label in order if label in self.order]
        there = self.turn([*kept, *(label for label in self.order if label not in order)])
        cut = [kept.index(label) if label in kept else -1 for label in order]
        starts, scale = (
            a.reshape([1 if k < 0 else a.shape[k] for k in cut]) for a in (there.bases.starts, there.scale)
        )
        steps = tuple(0 if k < 0 else there.bases.steps[k] for k in cut)
        shape = tuple(1 if k < 0 else there.shape[k] for k in cut)
        return Grid(Bases(starts, steps, shape), scale, tuple(order))


def pieces(shape: Shape, spec: Spec, sizes: Mapping[str, int]) -> list[list[int]] | None:
    """Into which sizes each axis is cut, an axis of size 1 into such ones; None where it cannot be cut."""
    found: list[list[int]] = []
    for size, axis in zip(shape, spec, strict=True):
        parts = [sizes[label] for label in axis]
        full = parts[0] if len(parts) == 1 else prod(parts)
        if size == full:
            found.append(parts)
        elif size == 1:
            found.append([1] * len(parts))
        else:
            return None
    return found


def apart(array: Array, shape: Shape, spec: Spec, sizes: Mapping[str, int]) -> Array | None:
    """An array of a tensor's shape, or with size 1 along some of its axes, with one axis per label."""
    cuts = pieces(shape, spec, sizes)
    return None if cuts is None else cut_apart(array, cuts)


def cut_apart(array: Array, cuts: Sequence[Sequence[int]]) -> Array:
    """An array whose axes are cut, but for those of size 1, which become several of size 1."""
    if all(len(cut) == 1 for cut in cuts):
        return array
    return array.reshape(
        [m for n, cut in zip(array.shape, cuts, strict=True) for m in (cut if n > 1 else [1] * len(cut))]
    )


def grid(value: Value, spec: Spec, sizes: Mapping[str, int]) -> Grid | None:
    """A value with one axis per label; None where it cannot be cut."""
    cuts = pieces(value.shape, spec, sizes)
    if cuts is None:
        return None
    bases, steps = value.labels, list[int]()
    for step, cut in zip(bases.steps, cuts, strict=True):
        if len(cut) == 1:
            steps.append(step if cut[0] > 1 else 0)
            continue
        inner = [step * prod(cut[k + 1 :]) for k in range(len(cut))]
        steps += [s if n > 1 else 0 for s, n in zip(inner, cut, strict=True)]
    starts, scale = cut_apart(bases.starts, cuts), cut_apart(value.slim, cuts)
    shape = tuple(n for cut in cuts for n in cut)
    return Grid(Bases(starts, tuple(steps), shape), scale, tuple(label for axis in spec for label in axis))


def together(names: Names, found: Grid, step: Einsum, shape: Shape) -> Value:
    """Axes per label, grouped as the result wants them; one without units is written out where its group has some."""
    wanted = [label for axis in step.result for label in axis]
    found = found.turn(wanted)
    bases, scale = found.bases, found.scale
    if bases.shape == shape and 0 not in shape and all(len(axis) == 1 for axis in step.result):
        steps = tuple(s if n > 1 else 0 for s, n in zip(bases.steps, shape, strict=True))
        return tidy(Bases(bases.starts, steps, shape), scale)
    plain = tuple(k for j, size in enumerate(shape) if size == 1 for k in _places(step.result, j) if found.shape[k] > 1)
    if plain:
        bases, scale = collapse(names, bases, scale, plain)
    full = [
        step.sizes[label] if size > 1 else 1 for axis, size in zip(step.result, shape, strict=True) for label in axis
    ]
    full = [max(a, b) for a, b in zip(full, bases.shape, strict=True)]
    spread = [k for k, (a, b) in enumerate(zip(bases.shape, full, strict=True)) if a != b]
    bases = Bases(bases.starts, bases.steps, tuple(full))
    if spread:
        bases = names.apart(bases, spread)
    return tidy(*_joined(bases, scale, step.result, shape))


def _joined(bases: Bases, scale: Array, result: Spec, shape: Shape) -> tuple[Bases, Array]:
    """Several axes as one, wherever the result has them so."""
    groups = [_places(result, j) for j in range(len(result))]
    steps: list[int] = []
    for group in groups:
        axes = [k for k in group if bases.shape[k] > 1]
        regular = all(bases.steps[a] == bases.steps[b] * bases.shape[b] for a, b in pairwise(axes))
        if not regular:
            bases = bases.write(axes)
        steps.append(bases.steps[axes[-1]] if axes else 0)
    return Bases(joined(bases.starts, bases.shape, groups), tuple(steps), shape), joined(scale, bases.shape, groups)


def joined(array: Array, shape: Shape, groups: Sequence[Sequence[int]]) -> Array:
    """An array with groups of neighbouring axes as one, of size 1 where all of them have size 1.

    Args:
        array: of the shape, or with size 1 along some axes.
        shape: in full.
        groups: the axes of each new one.
    """
    made: list[int] = []
    for group in groups:
        if len(group) > 1 and any(array.shape[k] > 1 for k in group):
            array = np.broadcast_to(array, [shape[k] if k in group else n for k, n in enumerate(array.shape)])
        made.append(prod(array.shape[k] for k in group))
    return array.reshape(made)


def collapse(names: Names, bases: Bases, scale: Array, axes: tuple[int, ...]) -> tuple[Bases, Array]:
    """One base for all elements along axes that no longer carry units: multiples of each other as a whole, or apart."""
    rest = tuple(1 if k in axes else n for k, n in enumerate(bases.shape))
    if prod(bases.shape[k] for k in axes) > 4096:
        fresh = names.fresh(rest)
        return fresh.labels, fresh.slim
    lead = first(scale, axes)
    safe = np.where(lead == 0, 1.0, lead)
    fixed = bases.constant.all(axis=axes, keepdims=True)
    start = scale[tuple(slice(0, 1) if k in axes else slice(None) for k in range(scale.ndim))]
    same = fixed & (scale == start).all(axis=axes, keepdims=True)
    made = gathered(names, bases, map(alike, [scale / safe]), axes, steady=True, clear=same)
    return made, np.where(same, start, safe)


def first(scale: Array, axes: tuple[int, ...]) -> Array:
    """Along some axes the first number that is not zero, else 0; the axes have size 1 then."""
    rest = tuple(1 if k in axes else n for k, n in enumerate(scale.shape))
    flat = np.moveaxis(scale, axes, range(len(axes))).reshape(
        -1, *(n for k, n in enumerate(scale.shape) if k not in axes)
    )
    if len(flat) == 1:
        return scale
    return np.asarray(np.take_along_axis(flat, (flat != 0).argmax(axis=0)[None], axis=0)[0].reshape(rest))


def gathered(
    names: Names,
    bases: Bases,
    codes: Iterable[Labels],
    axes: tuple[int, ...],
    *,
    steady: bool = False,
    clear: Array | None = None,
) -> Bases:
    """New bases that everything along some axes determines together; these axes have size 1 then."""
    rest = tuple(1 if k in axes else n for k, n in enumerate(bases.shape))
    steps = tuple(0 if k in axes else step for k, step in enumerate(bases.steps))
    columns = [Bases(part, steps, rest) for part in _lines(bases.starts, axes)]
    told = (part for code in codes for part in _lines(code, axes))
    return names.derive(rest, columns, told, steady=steady, clear=clear)


def _lines(array: Array, axes: tuple[int, ...]) -> list[Array]:
    """What stands at each place along some axes, which have size 1 then."""
    rest = [1 if k in axes else n for k, n in enumerate(array.shape)]
    return list(np.moveaxis(array, axes, range(len(axes))).reshape(-1, *rest))


def _places(result: Spec, axis: int) -> range:
    before = sum(len(a) for a in result[:axis])
    return range(before, before + len(result[axis]))
