"""Transformations of arrays (flips, turns, shifts, permutations, signs), and the groups that they generate.

Pieces of axes, and what a transformation of the inputs does to each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, permutations
from math import factorial, gcd, lcm
from typing import Literal, NamedTuple

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


MOST = 64
"""Elements of a group, since each is a copy of the network."""
_FORM = "NAME:INPUT:AXIS, such as flip:image:3, or NAME:INPUT:AXIS+INPUT:AXIS where several move at once"
_OTHERWISE = " (--frame does with one, of one permutation, shift or sign)"
Action = Literal["", "invariant", "equivariant"]


@dataclass(frozen=True, slots=True)
class Generator:
    """A transformation of some places of the inputs, and what it does to each output."""

    name: Transform
    size: int
    """Of the axes that it moves."""
    moved: Places
    answers: tuple[Places, ...]
    """Output by output what moves there; nothing where the output stays."""


@dataclass(frozen=True, slots=True)
class Move:
    """One element that a generator makes."""

    generator: Generator
    element: Transformation


Element = tuple[Move, ...]
"""What is done to the inputs one after another; nothing for the neutral element."""


def group(model: Model, texts: Sequence[str], action: Action = "") -> tuple[Model, list[Element]]:
    """All elements of the group that ``flip:image:3`` and others generate, and the model at sizes that it may turn.

    An output that has the same axis goes along, unless another action is asked for. Raises UsageProblem for what the
    model does not have, and for groups that are too large.
    """
    model, made = generators(model, texts, action)
    return model, _elements(model, made)


def generators(model: Model, texts: Sequence[str], action: Action = "") -> tuple[Model, list[Generator]]:
    """What ``flip:image:3`` and others name, and the model at sizes that it may turn.

    Raises UsageProblem for what the model does not have.
    """
    named = [_named(model, text) for text in texts]
    for name, moved in named:
        model = (squared(model, moved[0]) if name == "turn" else None) or model
    return model, [_generator(model, *each, action) for each in named]


def _named(model: Model, text: str) -> tuple[Transform, Places]:
    word, _, rest = text.partition(":")
    (name,) = known([word])
    return name, tuple(_place(model, name, x, text) for x in rest.split("+")) if rest else (_only(model, name),)


def _generator(model: Model, name: Transform, moved: Places, action: Action) -> Generator:
    text = f"{name}:{'+'.join(':'.join((p.tensor, *map(str, p.axes[:1]))) for p in moved)}"
    sizes = {model.shapes[p.tensor][a] for p in moved for a in p.axes}
    if len(sizes) > 1:
        raise UsageProblem(f"{text}: the axes have different sizes, {' and '.join(map(str, sorted(sizes)))}")
    size = next(iter(sizes), 0)
    answers = tuple(_answer(model, name, size, moved, output, action) for output in model.graph.outputs)
    return Generator(name, size, moved, answers)


def _place(model: Model, name: Transform, part: str, text: str) -> Place:
    tensor, colon, axis = (part, "", "") if name == "sign" else part.rpartition(":")
    if name != "sign" and (not colon or not axis.isdecimal()):
        raise UsageProblem(f"group {text!r}: expected {_FORM}")
    if tensor not in model.graph.inputs:
        raise UsageProblem(f"group {text!r}: {model.path} has no input {tensor!r}: it takes {_listed(model)}")
    if name == "sign":
        return Place(tensor)
    first, rank = int(axis), len(model.shapes.get(tensor, ()))
    axes = (first, first + 1) if name == "turn" else (first,)
    if axes[-1] >= rank:
        raise UsageProblem(f"group {text!r}: {tensor} has {rank} axes, counted from 0")
    return Place(tensor, axes)


def _listed(model: Model) -> str:
    return ", ".join(model.graph.inputs)


def _only(model: Model, name: Transform) -> Place:
    """The place that is meant where none is named, if there is but one."""
    shapes = {n: model.shapes[n] for n in model.graph.inputs if n in model.shapes}
    if name == "sign":
        found = [Place(n) for n in shapes if "float" in model.dtypes.get(n, "float32")]
    elif name == "turn":
        free = set(model.symbols.values())
        pairs = [(Place(n, (a, a + 1)), set(s[a : a + 2])) for n, s in shapes.items() for a in range(len(s) - 1)]
        found = [p for p, sizes in pairs if sizes != {1} and (len(sizes) == 1 or (sizes <= free and p.axes[0] > 0))]
    else:
        found = [Place(n, (a,)) for n, s in shapes.items() for a, size in enumerate(s) if size > 1]
    if len(found) == 1:
        return found[0]
    words = [":".join((name, p.tensor, *map(str, p.axes[:1]))) for p in found]
    raise UsageProblem(f"group {name!r}: say which axis: {', '.join(words) or 'there is none'}")


def _answer(model: Model, name: Transform, size: int, moved: Places, output: str, action: Action) -> Places:
    """What an output does: what has the same axis goes along."""
    shape = model.shapes.get(output, ())
    found: Places
    if action == "invariant":
        return ()
    if name == "sign":
        return (Place(output),) if action == "equivariant" else ()
    if name == "turn":
        axes = moved[0].axes
        alike = len(shape) > axes[1] and shape[axes[0]] == shape[axes[1]] > 1
        found = (Place(output, axes),) if alike else ()
    else:
        ranks = {p.tensor: len(model.shapes[p.tensor]) for p in moved}
        here = [(p.axes[0], ranks[p.tensor]) for p in moved]
        axes = tuple(
            axis
            for axis, rank in dict(here).items()
            if axis < len(shape) and _alike(name, size, shape, axis, same_rank=len(shape) == rank)
        )
        found = tuple(Place(output, (axis,)) for axis in axes)
    if action == "equivariant" and not found:
        raise UsageProblem(f"output {output!r} of {model.path} has no axis that could go along with {name}")
    return found


def _alike(name: Transform, size: int, shape: Shape, axis: int, *, same_rank: bool) -> bool:
    """Whether an axis of an output is that of the input, or what is left of it after strides."""
    n = shape[axis]
    return n == size or (same_rank and n > 1 and name != "permutation" and (n % size == 0 or size % n == 0))


def _elements(model: Model, generators: Sequence[Generator]) -> list[Element]:
    """All that the generators make together, each once; the first does nothing.

    Raises UsageProblem where that is too much.
    """
    moves = [move for g in generators for move in _moves(model, g)]
    probes = _probes(model, generators)
    found: dict[bytes, Element] = {_effect(probes, ()): ()}
    waiting: list[Element] = [()]
    while waiting:
        element = waiting.pop(0)
        for move in moves:
            longer = (*element, move)
            effect = _effect(probes, longer)
            if effect not in found:
                found[effect] = longer
                waiting.append(longer)
        if len(found) > MOST:
            raise UsageProblem(
                f"the group has more than {MOST} elements, and each is a copy of the network{_OTHERWISE}"
            )
    return list(found.values())


def _moves(model: Model, generator: Generator) -> list[Move]:
    """All elements of one generator but the neutral one."""
    name, size = generator.name, generator.size
    if name in ("flip", "sign"):
        return [Move(generator, Transformation(name, size))]
    if name == "turn":
        return [Move(generator, Transformation(name, size, step)) for step in (1, 2, 3)]
    if any(size in model.symbols.values() for p in generator.moved for size in [model.shapes[p.tensor][p.axes[0]]]):
        raise UsageProblem(f"{name} of {generator.moved[0].tensor}: the axis has no fixed size")
    if name == "shift":
        others = [model.shapes[p.tensor][p.axes[0]] for answer in generator.answers for p in answer]
        least = lcm(*(size // np.gcd(size, n) for n in others))
        return [Move(generator, Transformation(name, size, step)) for step in range(least, size, least)]
    if factorial(min(size, 10)) > MOST:
        raise UsageProblem(f"{size} places have more than {MOST} orders, and each is a copy of the network{_OTHERWISE}")
    return [Move(generator, Transformation(name, size, 1, order)) for order in list(permutations(range(size)))[1:]]


def _probes(model: Model, generators: Sequence[Generator]) -> dict[str, Array]:
    """Numbers for each input that is moved, all different along the axes that are."""
    axes: dict[str, set[int]] = {}
    for place in (p for g in generators for p in g.moved):
        axes.setdefault(place.tensor, set()).update(place.axes)
    shapes = {n: [s if a in axes[n] else 1 for a, s in enumerate(model.shapes[n])] for n in axes}
    return {n: np.arange(1.0, np.prod(shape) + 1).reshape(shape) for n, shape in shapes.items()}


def _effect(probes: dict[str, Array], element: Element) -> bytes:
    made = transformed(probes, element)
    return b"".join(np.ascontiguousarray(made[name]).tobytes() for name in sorted(made))


def transformed(feeds: dict[str, Array], element: Element) -> dict[str, Array]:
    """Inputs after an element of the group."""
    for move in element:
        feeds = move.element.applied(feeds, move.generator.moved)
    return feeds


def taken_back(output: Array, k: int, element: Element) -> Array:
    """An output, by its number, after the inverse of an element."""
    for move in reversed(element):
        for place in move.generator.answers[k]:
            output = move.element.inverse.moved(output, place)
    return output


Role = Literal["stays", "alike", "moves", "first", "second"]
"""``alike``: nothing changes along it, so that it may be moved or not; ``first`` and ``second`` are turned together."""


class Piece(NamedTuple):
    """A factor of an axis."""

    size: int
    role: Role = "stays"
    pair: str = ""
    """Of two that are turned together: which two."""
    base: str = ""
    """Of a selection: the tensor of which it has places along this axis."""
    places: tuple[int, ...] = ()
    """Of a selection: those places, in order; a negative number stands for something that is put beside them."""
    of: int = 0
    """Of a selection: the size of the whole axis."""


Axis = tuple[Piece, ...]
Axes = tuple[Axis, ...]


def plain(size: int, role: Role = "stays") -> Axis:
    """An axis of one piece; none of size one."""
    return (Piece(size, role),) if size != 1 else ()


def still(axis: Axis) -> bool:
    """Whether nothing of an axis moves."""
    return all(piece.role in ("stays", "alike") for piece in axis)


def merged(pieces: Iterable[Piece]) -> Axis:
    """Pieces side by side, those that stay as one."""
    made: list[Piece] = []
    for piece in pieces:
        if made and piece.role == made[-1].role and piece.role in ("stays", "alike"):
            made[-1] = Piece(made[-1].size * piece.size, piece.role)
        elif piece.size != 1:
            made.append(piece)
    return tuple(made)


def split(axis: Axis, sizes: Sequence[int]) -> list[Axis] | None:
    """The parts of an axis that is so many sizes, one within another; None where something that moves would be cut."""
    parts: list[Axis] = []
    left = list(axis)
    for size in sizes:
        part: list[Piece] = []
        need = size
        while need > 1:
            if not left:
                return None
            piece = left.pop(0)
            if need % piece.size == 0:
                part.append(piece)
                need //= piece.size
            elif piece.size % need == 0 and piece.role in ("stays", "alike"):
                part.append(Piece(need, piece.role))
                left.insert(0, Piece(piece.size // need, piece.role))
                need = 1
            else:
                return None
        parts.append(merged(part))
    return None if left else parts


def joined(one: Axis, other: Axis) -> Axis | None:
    """What two tensors that meet along an axis have there; None where they do not move alike."""
    if one == other or all(piece.role == "alike" for piece in other):
        return one
    return other if all(piece.role == "alike" for piece in one) else None


def whole(axes: Iterable[Axis]) -> bool:
    """Whether of what is turned both axes are there, and once."""
    roles = [(p.pair, p.role) for axis in axes for p in axis if p.role in ("first", "second")]
    pairs = {pair for pair, _ in roles}
    return sorted(roles) == sorted((pair, role) for pair in pairs for role in ("first", "second"))


def fixed(values: Array, axes: Axes, sign: int, elements: Sequence[Transformation], slack: float) -> bool:
    """Whether transformations of the pieces leave an array as it is, up to a slack.

    Args:
        values: whose axes are those pieces, or have size one.
        axes: the pieces.
        sign: with which it is multiplied as well.
        elements: that generate all transformations.
        slack: absolute.
    """
    pieces = [p for axis, n in zip(axes, values.shape, strict=True) for p in (axis if n > 1 else ())]
    spread = values.reshape([p.size for p in pieces])
    if any(p.places for p in pieces):
        return False
    half = {p.pair for k, p in enumerate(pieces) if p.role in ("first", "second") and _partner(pieces, k) is None}
    for k, piece in enumerate(pieces):
        if piece.pair in half and piece.role in ("first", "second") and not _same(spread, spread.take([0], k), slack):
            return False
    return all(_same(spread, sign * _after(spread, pieces, element, half), slack) for element in elements)


def _partner(pieces: Sequence[Piece], k: int) -> int | None:
    """The place of the other axis of a turn."""
    found = [
        i for i, p in enumerate(pieces) if p.pair == pieces[k].pair and {p.role, pieces[k].role} == {"first", "second"}
    ]
    return found[0] if len(found) == 1 else None


def _after(values: Array, pieces: Sequence[Piece], element: Transformation, half: set[str]) -> Array:
    for k, piece in enumerate(pieces):
        if piece.role == "moves":
            order = element.along(piece.size)
            assert order is not None
            values = values.take(order, k)
        elif piece.role == "first" and piece.pair not in half:
            other = _partner(pieces, k)
            assert other is not None
            values = np.rot90(values, element.step, (k, other))
    return values


def _same(one: Array, other: Array, slack: float) -> bool:
    one, other = np.broadcast_arrays(one, other)
    with np.errstate(invalid="ignore"):
        return bool(((one == other) | (np.abs(one - other) <= slack)).all())
