"""The free scales of a network, numbered one by one, and where they meet its weights."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from functools import cached_property

import numpy as np

from symlint.model.graph import Array
from symlint.model.records import dataclass
from symlint.symmetry.actions.scaling import Rescaling, TensorRescaling
from symlint.symmetry.charges.unknowns import Charge
from symlint.symmetry.gauge.convex import Hold
from symlint.symmetry.kinds.whole import whole
from symlint.symmetry.motion.action import Index
from symlint.symmetry.motion.motion import Weights
from symlint.symmetry.structure import Structure


@dataclass(frozen=True)
class Scales:
    """The scales of some rescalings, one after another."""

    structure: Structure
    actions: Sequence[Rescaling]

    @cached_property
    def numbers(self) -> tuple[Index, ...]:
        """For every action, the numbers of its scales in the shape of its elements."""
        shapes = [a.shape(self.structure) for a in self.actions]
        ends = np.cumsum([int(np.prod(s, dtype=np.int64)) for s in shapes])
        return tuple(np.arange(e - np.prod(s, dtype=np.int64), e).reshape(s) for s, e in zip(shapes, ends, strict=True))

    @cached_property
    def count(self) -> int:
        """How many there are."""
        return sum(n.size for n in self.numbers)

    @cached_property
    def groups(self) -> Index:
        """For every scale the action that it is of, shape (count,)."""
        return np.repeat(np.arange(len(self.numbers)), [n.size for n in self.numbers])

    def tensors(self) -> list[str]:
        """The weights of the program that scales move, and the scales of its batch normalisations, without biases.

        What is added to a sum is rounded far more finely than what is multiplied, so that its size is of no concern.
        """
        summands = added(self.structure)
        return [n for n in self._moving if _sized(self.structure, n) and n not in summands]

    @cached_property
    def _moving(self) -> dict[str, list[tuple[Rescaling, Index]]]:
        """Tensor -> the actions that scale it, with the numbers of their scales."""
        found: dict[str, list[tuple[Rescaling, Index]]] = {}
        for action, numbers in zip(self.actions, self.numbers, strict=True):
            for name in dict.fromkeys(o.tensor for o in action.charge):
                found.setdefault(name, []).append((action, numbers))
        return found

    def size(self, name: str) -> Array:
        """The size of each element of a weight, in float64; of a batch normalisation, gain / sqrt(var + epsilon)."""
        program = self.structure.program
        if name in program.weights:
            return np.abs(self._read(name)).reshape(program.shapes[name])
        step = program.affines[name]
        return np.abs(self._read(step.gain) / np.sqrt(self._read(step.var) + step.epsilon)).reshape(
            program.shapes[name]
        )

    def _read(self, name: str) -> Array:
        program = self.structure.program
        return program.model.tensors[program.weights[name]].read().astype(np.float64)

    def holds(self, name: str) -> Iterator[Hold]:
        """Where scales meet a weight."""
        form = self.structure.program.shapes[name]
        for action, numbers in self._moving.get(name, ()):
            if isinstance(action, TensorRescaling):
                if power := action.charge.get(whole(name)):
                    yield Hold(numbers.reshape((1,) * len(form)), float(power))
                continue
            charge = action.powers(name)
            for s in action.stands(self.structure, name):
                if power := charge.get((s.axis, s.term, s.place)):
                    chosen = np.where(s.here, numbers[(*s.copies, s.units)], self.count)
                    full = np.broadcast_shapes(chosen.shape, (1,) * len(s.others) + s.grid.shape)
                    none = np.full(form[s.axis], self.count)
                    yield Hold(s.along(form, np.broadcast_to(chosen, full), none), float(power))

    def apply(self, logs: Array) -> dict[str, Array]:
        """All stored tensors after a move by scales of these logarithms, shape (count,), in float64."""
        tensors = self.structure.program.model.tensors
        weights = Weights(self.structure, lambda stored: tensors[stored].read())
        for action, numbers in zip(self.actions, self.numbers, strict=True):
            if logs[numbers].any():
                action.move(weights, np.exp(logs[numbers]))
        return weights.now


def two_sided(structure: Structure) -> list[Rescaling]:
    """The exact rescalings that let some weights grow while others shrink, biases aside.

    The others shrink everything that they move; their norm has no minimum, and no place of theirs is better.
    """
    summands = added(structure)

    def signs(charge: Charge) -> set[bool]:
        sized = (c > 0 for o, c in charge.items() if o.tensor not in summands and _sized(structure, o.tensor))
        return set(sized)

    return [a for a in structure.rescalings if len(signs(a.charge)) == 2]


def _sized(structure: Structure, name: str) -> bool:
    """Whether a tensor has a size of its own: what is made of a weight, as a reciprocal, has that of the weight."""
    return name in structure.program.weights or name in structure.program.affines


def added(structure: Structure) -> Collection[str]:
    """The weights that are summands, as they are or in another layout: the biases."""
    program = structure.program
    found: set[str] = set()
    queue = [n for step in program.elementwise if step.law.kind == "sum" for n in step.operands]
    for name in queue:
        if name not in program.fixed or name in found:
            continue
        found.add(name)
        if name in program.makers and name not in program.affines:
            queue += program.makers[name].operands
    return found
