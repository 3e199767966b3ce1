"""Reflections of the units of a space: elements of its generators, and the places at which they move something."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from symlint.model.graph import Array
from symlint.model.records import dataclass
from symlint.symmetry.actions.permutation import UnitPermutation
from symlint.symmetry.actions.rotation import Rotation
from symlint.symmetry.motion.action import stands
from symlint.symmetry.motion.motion import Weights
from symlint.symmetry.structure import Action, Structure

STILL = 1e-7
"""Numbers of a matrix below this are zero."""
Place = tuple[str, int]
"""A stored tensor and one of its axes."""


class NotShown(Exception):
    """No generator of the network holds the reflection; the message says why."""


@dataclass(frozen=True, slots=True, eq=False)
class Reflection:
    """Elements of generators, one after another."""

    leaf: int
    units: tuple[int, ...]
    """Those that it moves, by the number that findings give them."""
    parts: tuple[tuple[Action, Array], ...]

    @property
    def compares(self) -> bool:
        """Whether it only exchanges units, so that each is compared with another one."""
        return all(isinstance(action, UnitPermutation) for action, _ in self.parts)

    def act(self, weights: Weights) -> None:
        """Reflect weights."""
        for action, element in self.parts:
            action.move(weights, element)

    def places(self, structure: Structure) -> frozenset[Place]:
        """Where it moves something."""
        found: frozenset[Place] = frozenset()
        for kind in dict.fromkeys(action.kind for action, _ in self.parts):
            same: frozenset[Place] = frozenset()
            for action, element in self.parts:
                if action.kind == kind:
                    same ^= frozenset(_places(structure, action, element))  # two signs cancel
            found |= same
        return found


def _places(structure: Structure, action: Action, element: Array) -> Iterator[Place]:
    program, still = structure.program, np.arange(element.shape[-1])
    moved: Array
    if isinstance(action, Rotation):
        moved = np.any(np.abs(element - np.eye(len(still))) > STILL, axis=-1)
    else:
        moved = np.asarray(element != (still if isinstance(action, UnitPermutation) else 1.0))
    charged = {(o.tensor, o.axis, o.term, o.place) for o in action.charge}
    hit: set[str] = set()
    for name in (*program.weights, *program.affines):
        if name in program.detached or (name in program.affines and not charged):
            continue
        for stand in stands(structure.expansion, structure.axes.of[name], action.leaf, action.copies):
            acts = not charged or (name, stand.axis, stand.term, stand.place) in charged
            if acts and np.any(np.where(stand.here, moved[(*stand.copies, stand.units)], False)):
                hit.add(name)
                affine = program.affines.get(name)
                part = name if affine is None else affine.gain if name == affine.scale else affine.bias
                yield program.weights[part], stand.axis
    if any((step.scale in hit) != (step.shift in hit) for step in program.affines.values()):
        raise NotShown("a batch normalisation takes the sign back, and its bias changes with the running mean")
