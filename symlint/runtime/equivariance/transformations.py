"""Flips, quarter turns, shifts, permutations and signs of arrays, and the axes on which they act."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import gcd

import numpy as np

from symlint.evidence.options import TRANSFORMATIONS, Transform
from symlint.model.errors import UsageProblem, suggestion
from symlint.model.graph import Array, Model, Shape

Places = tuple["Place", ...]
FEW = 3
"""Axes of which all choices are tried; of more each alone and all together."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """What of a tensor a transformation moves."""

    tensor: str
    axes: tuple[int, ...] = ()
    """The axis; of a quarter turn both, in the order in which it turns; none where all numbers are meant."""
    indices: bool = False
    """Whether the numbers are positions along axes that move elsewhere."""


def known(words: Iterable[str]) -> tuple[Transform, ...]:
    """The transformations of these names, in their order; all where none is named.

    Raises UsageProblem for another word.
    """
    chosen = set(words)
    for word in sorted(chosen - set(TRANSFORMATIONS)):
        raise UsageProblem(
            f"no transformation {word!r}{suggestion(word, TRANSFORMATIONS)}; there are {', '.join(TRANSFORMATIONS)}"
        )
    return tuple(name for name in TRANSFORMATIONS if name in chosen or not chosen)


@dataclass(frozen=True, slots=True)
class Transformation:
    """One element of a group, for axes of one size."""

    name: Transform
    size: int = 0
    """Of the axes of inputs that it moves; of a turn and a sign nothing depends on it."""
    step: int = 1
    """By how many places it shifts, or how many quarters it turns."""
    order: tuple[int, ...] = ()
    """Of a permutation: where each place gets its number from."""

    def along(self, size: int) -> Array | None:
        """Where each place of an axis of some size gets its number from; None where it does nothing to such an axis."""
        if self.name == "flip":
            return np.arange(size)[::-1]
        if self.name == "shift" and self.step * size % self.size == 0:
            return np.roll(np.arange(size), self.step * size // self.size)
        if self.name == "permutation" and size == self.size:
            return np.array(self.order)
        return None

    @property
    def inverse(self) -> Transformation:
        """What takes it back."""
        if self.name in ("shift", "turn"):
            return replace(self, step=(4 if self.name == "turn" else self.size) - self.step)
        return replace(self, order=tuple(np.argsort(self.order).tolist())) if self.order else self

    def moved(self, values: Array, place: Place) -> Array:
        """An array after this was done to some of its axes."""
        if place.indices:
            order = self.along(self.size)
            assert order is not None
            return np.argsort(order)[values].astype(values.dtype)
        if self.name == "sign":
            return -values
        if self.name == "turn":
            return np.rot90(values, self.step, (place.axes[0], place.axes[1]))
        order = self.along(values.shape[place.axes[0]])
        assert order is not None
        return values.take(order, place.axes[0])

    def applied(self, arrays: Mapping[str, Array], places: Sequence[Place]) -> dict[str, Array]:
        """Arrays by name, after this was done to all places."""
        made = dict(arrays)
        for place in places:
            made[place.tensor] = self.moved(made[place.tensor], place)
        return made


def squared(model: Model, plane: Place) -> Model | None:
    """The model with one size for both axes of a plane, in inputs and outputs; None where their sizes are given."""
    a, b = (model.shapes[plane.tensor][axis] for axis in plane.axes)
    if a == b:
        return model
    if not {a, b} <= set(model.symbols.values()):
        return None
    ends = (*model.graph.inputs, *model.graph.outputs)
    square = {n: tuple(a if size == b else size for size in model.shapes[n]) for n in ends if n in model.shapes}
    return replace(model, shapes={**model.shapes, **square})


def permuted(size: int, rng: np.random.Generator) -> tuple[int, ...]:
    """A random order of an axis that leaves no place where it is: a cycle through all."""
    order = rng.permutation(size)
    made = np.empty(size, int)
    made[order] = np.roll(order, 1)
    return tuple(made.tolist())


def matching(
    element: Transformation, output: str, shape: Shape, places: Sequence[Place], ranks: Mapping[str, int]
) -> list[Places]:
    """What an element may do to an output while it moves some places of inputs, besides nothing.

    Args:
        element: what is done.
        output: its name.
        shape: of the output.
        places: that are moved.
        ranks: of the inputs.
    """
    if element.name == "sign":
        return [(Place(output),)]

    def alike(axis: int, size: int) -> bool:
        there = any(p.axes and axis == p.axes[0] and len(shape) == ranks[p.tensor] for p in places)
        return size == element.size or (there and (size % element.size == 0 or element.size % size == 0))

    if element.name == "turn":
        planes = [p for p in combinations(range(len(shape)), 2) if shape[p[0]] == shape[p[1]] > 1]
        mine = [plane for plane in planes if alike(plane[0], shape[plane[0]])]
        return [(Place(output, axes),) for plane in mine for axes in (plane, plane[::-1])]
    axes = [a for a, n in enumerate(shape) if n > 1 and element.along(n) is not None and alike(a, n)]
    counts = range(1, len(axes) + 1) if len(axes) <= FEW else (1, len(axes))
    return [tuple(Place(output, (a,)) for a in some) for k in counts for some in combinations(axes, k)]


def together(place: Place, others: Sequence[Place]) -> list[Places]:
    """A place with others that may have to move along: alone, with some of a few, with those of other tensors, all."""
    if len(others) <= FEW:
        return [(place, *some) for k in range(len(others) + 1) for some in combinations(others, k)]
    plain = tuple(other for other in others if not other.indices)
    beside = [tuple(o for o in those if o.tensor != place.tensor) for those in (plain, tuple(others))]
    return list(dict.fromkeys(((place,), *((place, *those) for those in (*beside, plain, tuple(others))))))


def steps(size: int, shapes: Sequence[Shape], axis: int, rank: int) -> Iterator[int]:
    """Shifts to try of an axis: by one place, and by as many as are one of an output that has fewer."""
    found = [1]
    found += [size // gcd(size, shape[axis]) for shape in shapes if len(shape) == rank and shape[axis] > 1]
    yield from (step for step in dict.fromkeys(found) if step <= size // 2 or step == 1)
