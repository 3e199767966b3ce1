"""Motion: apply an element of a generator to the weights of a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

import numpy as np

from symlint.model.graph import Array
from symlint.program.numbers import Numbers
from symlint.program.steps import Affine
from symlint.symmetry.kinds.branches import exchanged
from symlint.symmetry.kinds.unseen import hidden, masked
from symlint.symmetry.kinds.whole import whole
from symlint.symmetry.motion.action import Stand, permute, scale, stands, transform, turn
from symlint.symmetry.structure import Action, Structure
from symlint.symmetry.translation.course import Translation
from symlint.symmetry.translation.element import changes

LEAST, MOST = 0.05, 32.0
"""A translation moves each of its weights by this share of its largest element, if that takes no larger growth."""


class Weights:
    """The weights of a network on their way; ``start`` gives a stored tensor as it was.

    What was moved is kept, in float64 once a number of it has changed: permuted weights stay in their own type.
    """

    def __init__(self, structure: Structure, start: Callable[[str], Array]) -> None:
        self.structure, self.start = structure, start
        self.now: dict[str, Array] = {}

    def get(self, name: str) -> Array:
        """The present value of a weight of the program, in float64 unless its numbers are integers."""
        values = self.narrow(name)
        return values.astype(np.float64, copy=False) if _floating(self.structure, self.stored(name)) else values

    def narrow(self, name: str) -> Array:
        """The same in the narrowest type that holds it, read-only."""
        stored = self.stored(name)
        return self.now[stored] if stored in self.now else self.start(stored)

    def stored(self, name: str) -> str:
        """The stored tensor that is a weight of the program."""
        return self.structure.program.weights[name]

    def put(self, name: str, values: Array) -> None:
        """Replace a weight of the program."""
        self.now[self.structure.program.weights[name]] = values

    @property
    def numbers(self) -> Numbers:
        """The constant tensors that the present weights make."""
        return Numbers(self.structure.program, self.get)


def fresh_weights(structure: Structure) -> Weights:
    """The weights of a network as it has them: as its file stores them, or settled."""
    return Weights(structure, lambda name: structure.program.model.tensors[name].read())


def _floating(structure: Structure, stored: str) -> bool:
    return structure.program.model.tensors[stored].floating


def move(weights: Weights, action: Action, element: Any, *, wrong: bool = False) -> None:
    """Move all weights of a generator by one of its elements; a `wrong` move leaves all but the first as they were."""
    structure = weights.structure
    if action.translation is not None:
        found = (
            _misled(weights, action.translation, element)
            if wrong
            else _translated(weights, action.translation, element)
        )
        for name, change in found:
            weights.put(name, weights.get(name) + change)
        return
    if action.across:
        name = next(iter(action.charge)).tensor
        weights.put(
            name,
            weights.get(name)
            + (masked(structure, action, element) if wrong else hidden(structure, action, element, weights.get)),
        )
        return
    if action.branches is not None:
        present = {name: weights.get(name) for name in action.branches.weights}
        for name, values in list(exchanged(structure.axes, action.branches, element, present))[: 1 if wrong else None]:
            weights.put(name, values)
        return
    if action.kind == "permutation":
        for name in _bearers(structure, action)[: 1 if wrong else None]:
            weights.put(name, permute(weights.narrow(name), _stands(structure, name, action), element))
        return
    moved = [n for n in dict.fromkeys(o.tensor for o in action.charge) if _movable(structure, n)]
    numbers = weights.numbers if any(action.frames.values()) else None
    done: set[str] = set()
    for name in moved[: 1 if wrong else None]:
        if name in structure.program.affines:
            step = structure.program.affines[name]
            if step.gain not in done:
                done.add(step.gain)
                _affine(weights, action, step, element)
        elif action.kind == "rotation":
            weights.put(name, _rotated(weights, action, name, element, numbers))
        else:
            weights.put(name, _scaled(structure, action, name, weights.get(name), element))


def _translated(weights: Weights, translation: Translation, size: Array) -> list[tuple[str, Array]]:
    """The changes of a translation, grown until none of its weights stays within a few percent of itself."""
    found = list(changes(translation, weights.numbers, size))
    most = {name: float(np.abs(weights.get(name)).max(initial=0)) for name, _ in found}
    shares = [float(np.abs(c).max(initial=0)) / most[n] for n, c in found if most[n] and c.any()]
    growth = 2.0 ** np.ceil(np.log2(min(max(1.0, LEAST / min(shares, default=1.0)), MOST)))
    return [(name, change * growth) for name, change in found]


def _misled(weights: Weights, translation: Translation, size: Array) -> list[tuple[str, Array]]:
    """A change of the same size that is no translation: of the weight alone and in any pattern, or of its neighbour."""
    (name, change), *others = changes(translation, weights.numbers, size)
    target = name
    if translation.full and not others:
        program = weights.structure.program
        order = [n for n in program.weights if n != name and program.model.tensors[program.weights[n]].floating]
        target = next((n for n in order if program.shapes[n] == program.shapes[name]), order[0] if order else name)
    value = weights.get(target)
    rng = np.random.default_rng(size.size)
    return [(target, rng.permutation(np.resize(np.ravel(change), value.size)).reshape(value.shape) + 0.0 * value)]


def _rotated(weights: Weights, action: Action, name: str, matrix: Array, numbers: Numbers | None) -> Array:
    """A weight under a matrix, which acts in the frame D of each occurrence as D g D^-1."""
    values = weights.get(name)
    stood = _stands(weights.structure, name, action)
    if action.group == "SO2":
        return turn(values, stood, matrix)
    if action.group == "GL" or numbers is None:
        return transform(values, stood, matrix, _charge(action, name))
    for o, c in action.charge.items():
        if o.tensor != name:
            continue
        frame = np.ones(matrix.shape[-1])
        for gain, power in action.frames.get(o, ()):
            frame = frame * _known(numbers.value(gain)) ** power
        values = transform(values, stood, frame[:, None] * matrix / frame, {(o.axis, o.term, o.place): c})
    return values


def _known(gain: Array) -> Array:
    """A gain as a divisor; a unit without one is never mixed with others."""
    flat = gain.reshape(-1)
    return np.where(flat == 0, 1.0, flat)


def _affine(weights: Weights, action: Action, step: Affine, factor: Array) -> None:
    """Scale and shift move; gain and bias follow, and the running statistics stay.

    scale = gain / sqrt(var + epsilon), shift = bias - mean scale.
    """
    structure = weights.structure
    root = np.sqrt(weights.get(step.var) + step.epsilon)
    mean = weights.get(step.mean)
    before = weights.get(step.gain) / root
    shift = weights.get(step.bias) - mean * before
    after = _scaled(structure, action, step.scale, before, factor)
    shift = _scaled(structure, action, step.shift, shift, factor)
    weights.put(step.gain, after * root)
    weights.put(step.bias, shift + mean * after)


def _scaled(structure: Structure, action: Action, name: str, values: Array, factor: Array) -> Array:
    """A tensor with its units scaled, or as a whole."""
    if action.leaf < 0:
        return values * factor ** float(action.charge.get(whole(name), 0))
    return scale(values, _stands(structure, name, action), factor, _charge(action, name))


def _bearers(structure: Structure, action: Action) -> list[str]:
    """Weights of the program that hold the leaf of an action."""
    program = structure.program
    return [
        name
        for name in program.weights
        if name not in program.detached
        and any(action.leaf in set(structure.axes.factors.leaves(f)) for f in structure.axes.of[name])
    ]


def _movable(structure: Structure, name: str) -> bool:
    return name in structure.program.weights or name in structure.program.affines


def _stands(structure: Structure, name: str, action: Action) -> list[Stand]:
    return list(stands(structure.expansion, structure.axes.of[name], action.leaf, action.copies))


def _charge(action: Action, name: str) -> Mapping[tuple[int, int, int], Fraction]:
    return {(o.axis, o.term, o.place): c for o, c in action.charge.items() if o.tensor == name}
