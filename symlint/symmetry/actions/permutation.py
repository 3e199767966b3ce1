"""Permutations: of the units of an axis, and of parts of a network that compute alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from symlint.model.graph import Array
from symlint.model.records import dataclass
from symlint.program.numbers import Numbers
from symlint.symmetry.actions.base import Action, Orbit, power
from symlint.symmetry.axes.factor import Factors
from symlint.symmetry.kinds.branches import Branches, exchanged
from symlint.symmetry.motion.action import Index, permute
from symlint.symmetry.motion.motion import Weights, derangements
from symlint.symmetry.spaces import Kind

if TYPE_CHECKING:
    from symlint.symmetry.structure import Structure


@dataclass(frozen=True)
class UnitPermutation(Action):
    """The units of an axis change places; an element has the unit that comes to each place."""

    kind: ClassVar[Kind] = "permutation"

    def draw(self, structure: Structure, numbers: Numbers, rng: np.random.Generator) -> Index:
        """Random cycles."""
        return derangements(rng, self.shape(structure))

    def move(self, weights: Weights, element: Index, *, wrong: bool = False) -> None:
        """Permute all weights that hold the units, in their own types."""
        structure = weights.structure
        for name in self._bearers(structure)[: 1 if wrong else None]:
            weights.put(name, permute(weights.narrow(name), self.stands(structure, name), element))

    def carried(self, structure: Structure, name: str, values: Array, element: Index) -> Array:
        """The units in their new places."""
        return permute(values, self.stands(structure, name), element)

    def _bearers(self, structure: Structure) -> list[str]:
        """Weights of the program that hold the leaf."""
        program, axes = structure.program, structure.axes
        names = [name for name in program.weights if name not in program.detached]
        return [n for n in names if any(self.leaf in set(axes.factors.leaves(f)) for f in axes.of[n])]

    def group(self, factors: Factors, orbit: Orbit) -> tuple[str, int]:
        """A symmetric group per copy."""
        return f"S_{factors.size(self.leaf)}{power(self.count(factors))}", 0

    def tensors(self, bearers: Mapping[int, Sequence[str]], stored: Mapping[str, Sequence[str]]) -> set[str]:
        """Those that hold the units."""
        return {t for name in bearers[self.leaf] for t in stored[name]}


@dataclass(frozen=True)
class PartExchange(Action):
    """Parts of the network change places, which are no units of an axis; an element orders the parts."""

    kind: ClassVar[Kind] = "permutation"

    branches: Branches = field(kw_only=True)

    def shape(self, structure: Structure) -> tuple[int, ...]:
        """A number per part."""
        return (len(self.branches.images),)

    def draw(self, structure: Structure, numbers: Numbers, rng: np.random.Generator) -> Index:
        """A random cycle."""
        return derangements(rng, self.shape(structure))

    def move(self, weights: Weights, element: Index, *, wrong: bool = False) -> None:
        """Exchange the weights of the parts."""
        present = {name: weights.get(name) for name in self.branches.weights}
        moved = list(exchanged(weights.structure.axes, self.branches, element, present))
        for name, values in moved[: 1 if wrong else None]:
            weights.put(name, values)

    def group(self, factors: Factors, orbit: Orbit) -> tuple[str, int]:
        """The symmetric group of the parts."""
        return f"S_{len(self.branches.images)}", 0

    def tensors(self, bearers: Mapping[int, Sequence[str]], stored: Mapping[str, Sequence[str]]) -> set[str]:
        """Those of the parts, and those whose units feed or read them."""
        return {t for name in self.branches.weights for t in stored[name]}
