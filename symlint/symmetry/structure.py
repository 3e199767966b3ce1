"""The structure of a network: its program, its axes, and the actions of its generators on weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from symlint.axes.terms import Expansion
from symlint.axes.walk import Axes
from symlint.program.steps import Program
from symlint.symmetry.charges.unknowns import Charge, Occurrence
from symlint.symmetry.kinds.branches import Branches
from symlint.symmetry.kinds.orthogonal import Frame
from symlint.symmetry.spaces import Kind
from symlint.symmetry.translation.course import Translation


@dataclass(frozen=True, slots=True)
class Action:
    """A generator as data: on which leaf it acts, and how far its elements may differ from copy to copy."""

    id: str
    space: str
    """The id of the space that it moves."""
    kind: Kind
    leaf: int
    """Negative where weights are moved as a whole."""
    copies: tuple[int, ...]
    charge: Charge
    """Empty for permutations and translations."""
    group: str = ""
    """Of a rotation: ``GL``; ``O``; ``Stab``, the orthogonal matrices that fix the vector of ones; ``SO2``, an angle
    per unit by which the pair of elements that it indexes is turned."""
    frames: Mapping[Occurrence, Frame] = field(default_factory=dict)
    """Of an orthogonal one: the gains by which it is conjugated, where there are any."""
    translation: Translation | None = None
    branches: Branches | None = None
    """Of a permutation of parts of the network, which are no units of an axis."""
    across: Charge = field(default_factory=dict)
    """Of a change that nothing sees: where what would see it meets the units, which need not reach all of them."""

    @property
    def invertible(self) -> bool:
        """Whether all invertible matrices act, so that only ranks mean anything."""
        return self.group == "GL"


@dataclass(frozen=True)
class Structure:
    """The result of the walk, from which elements of the generators act on weights."""

    program: Program
    axes: Axes
    expansion: Expansion
    actions: dict[str, Action]
    """Generator -> its action."""
    approximate: dict[str, Action] = field(default_factory=dict)
    """Generators that only an epsilon breaks, which are applied when they are named."""

    @cached_property
    def permutations(self) -> tuple[Action, ...]:
        """The permutations of units."""
        return tuple(a for a in self.actions.values() if a.kind == "permutation" and not a.branches)

    @cached_property
    def _permuted(self) -> dict[str, Action]:
        """Space -> the permutation of its units."""
        return {action.space: action for action in self.permutations}

    def permutation(self, space: str) -> Action:
        """The permutation of the units of a space."""
        return self._permuted[space]

    @cached_property
    def nested(self) -> dict[int, list[Action]]:
        """Leaf -> the actions whose gauge depends on its index: those on what its units are made of."""
        found: dict[int, list[Action]] = {}
        for action in self.actions.values():
            for leaf in dict.fromkeys(action.copies):
                found.setdefault(leaf, []).append(action)
        return found

    @cached_property
    def constant_leaves(self) -> frozenset[int]:
        """The leaves that weights and tables hold."""
        names = (*self.program.weights, *self.program.tables)
        return frozenset(x for n in names for f in self.axes.of[n] for x in self.axes.factors.leaves(f))

    def action(self, generator: str) -> Action:
        """The action of a generator, exact or not."""
        return self.actions.get(generator) or self.approximate[generator]
