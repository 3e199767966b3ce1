"""What every action has: a leaf, the copies between which its elements may differ, and where it acts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field
from fractions import Fraction
from math import prod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from symlint.model.graph import Array
from symlint.model.records import dataclass
from symlint.program.numbers import Numbers
from symlint.symmetry.axes.factor import Factors
from symlint.symmetry.charges.unknowns import Charge
from symlint.symmetry.motion.action import Stand, stands
from symlint.symmetry.motion.motion import Weights
from symlint.symmetry.spaces import Kind

if TYPE_CHECKING:
    from symlint.symmetry.structure import Structure

Orbit = Callable[["Action"], int]
"""How many directions one copy of an action has."""


@dataclass(frozen=True)
class Action(ABC):
    """A generator as data: on which leaf it acts, and how far its elements may differ from copy to copy.

    An element is an array with an axis per copy factor, then the units, unless a kind says otherwise.
    """

    kind: ClassVar[Kind]

    id: str
    space: str
    """The id of the space that it moves."""
    leaf: int
    """Negative where no units of an axis are moved."""
    copies: tuple[int, ...] = ()
    charge: Charge = field(default_factory=dict)
    """How each occurrence of the leaf answers; empty for permutations, and for translations that a pattern tells."""

    def shape(self, structure: Structure) -> tuple[int, ...]:
        """The shape of an element, but for the second axis of a matrix."""
        size = structure.axes.factors.size
        return (*(size(c) for c in self.copies), size(self.leaf))

    @abstractmethod
    def draw(self, structure: Structure, numbers: Numbers, rng: np.random.Generator) -> Array:
        """A random element away from the neutral one: no fixed points, matrices of condition below 10."""

    def directions(self, structure: Structure, step: float) -> Iterator[tuple[Array, Array]]:
        """For every continuous direction, the elements a `step` ahead and behind; none of a discrete group."""
        return iter(())

    @abstractmethod
    def move(self, weights: Weights, element: Any, *, wrong: bool = False) -> None:
        """Move all weights by an element; a `wrong` move leaves all but the first as they were."""

    @property
    def reached(self) -> frozenset[int]:
        """The leaves of which the units are made that it moves."""
        return frozenset({self.leaf})

    @property
    def carries(self) -> bool:
        """Whether it says what it makes of states."""
        return type(self).carried is not Action.carried

    def carried(self, structure: Structure, name: str, values: Array, element: Any) -> Array:
        """What an element makes of the values of a state, a tensor of the program."""
        raise NotImplementedError(f"{self.id} does not say")

    @abstractmethod
    def group(self, factors: Factors, orbit: Orbit) -> tuple[str, int]:
        """The group in words of the field, and the dimension of its orbit."""

    def tensors(self, bearers: Mapping[int, Sequence[str]], stored: Mapping[str, Sequence[str]]) -> set[str]:
        """The stored tensors that it moves.

        Args:
            bearers: leaf -> the weights that hold it.
            stored: tensor of the program -> the stored tensors that move with it.
        """
        return {t for o in self.charge for t in stored.get(o.tensor, ())}

    def count(self, factors: Factors) -> int:
        """How many copies there are."""
        return prod(factors.size(c) for c in self.copies)

    def powers(self, name: str) -> Mapping[tuple[int, int, int], Fraction]:
        """Axis, term and place of each occurrence in a tensor -> its charge."""
        return {(o.axis, o.term, o.place): c for o, c in self.charge.items() if o.tensor == name}

    def stands(self, structure: Structure, name: str) -> list[Stand]:
        """Where its units are in a tensor."""
        return list(stands(structure.expansion, structure.axes.of[name], self.leaf, self.copies))


def power(count: int) -> str:
    """The exponent of a group that acts on so many copies."""
    return f"^{count}" if count > 1 else ""


def additive(form: tuple[int, ...], step: float) -> Iterator[tuple[Array, Array]]:
    """Elements a step ahead and behind, where elements are added."""
    for k in range(int(np.prod(form, dtype=np.int64))):
        ahead = np.zeros(form)
        ahead.flat[k] = step
        yield ahead, -ahead
