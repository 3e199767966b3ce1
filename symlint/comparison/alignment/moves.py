"""Moves: elements of generators that were applied, and can be taken back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from symlint.model.graph import Array
from symlint.model.records import dataclass
from symlint.symmetry.actions.permutation import PartExchange, UnitPermutation
from symlint.symmetry.actions.rotation import InvertibleMap, OrthogonalMap, PlaneRotation
from symlint.symmetry.actions.scaling import Scaling
from symlint.symmetry.actions.translation import Shift, UnseenChange
from symlint.symmetry.motion.motion import Weights
from symlint.symmetry.structure import Action
from symlint.symmetry.translation.element import changes


@dataclass(frozen=True, eq=False)
class Move:
    """An element of a generator."""

    action: Action
    element: Any

    def apply(self, weights: Weights) -> None:
        """Move the weights; of a translation by exactly this element."""
        if isinstance(self.action, Shift | UnseenChange):
            for name, change in list(changed(weights, self.action, self.element)):
                weights.put(name, weights.get(name) + change)
        else:
            self.action.move(weights, self.element)

    @property
    def inverse(self) -> Move:
        """The move that takes it back."""
        match self.action:
            case UnitPermutation() | PartExchange():
                element = np.argsort(self.element, axis=-1)
            case Scaling():
                element = 1.0 / self.element
            case InvertibleMap():
                element = np.linalg.inv(self.element)
            case OrthogonalMap():
                element = self.element.swapaxes(-1, -2)
            case PlaneRotation() | Shift() | UnseenChange():
                element = -self.element
            case _:
                raise TypeError(f"{self.action.id} has no inverse")
        return Move(self.action, element)


def changed(weights: Weights, action: Shift | UnseenChange, size: Array) -> Iterator[tuple[str, Array]]:
    """What a translation of some size adds to which weights."""
    if isinstance(action, Shift):
        return changes(action.translation, weights.numbers, size)
    return action.changes(weights.structure, size, weights.get)


def undo(weights: Weights, moves: Sequence[Move]) -> None:
    """Take moves back, the last one first."""
    for move in reversed(moves):
        move.inverse.apply(weights)
