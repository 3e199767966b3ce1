"""Groups of transformations: what a user names, and all elements that it generates."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from math import factorial, lcm
from typing import Literal

import numpy as np

from symlint.evidence.options import Transform
from symlint.model.errors import UsageProblem
from symlint.model.graph import Array, Model, Shape
from symlint.model.records import dataclass
from symlint.runtime.equivariance.transformations import Place, Places, Transformation, known, squared

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
