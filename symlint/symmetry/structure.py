"""The structure of a network: its program, its axes, and the actions of its generators on weights."""

from __future__ import annotations

from dataclasses import field
from functools import cached_property

from symlint.model.records import dataclass
from symlint.program.steps import Program
from symlint.symmetry.actions.base import Action
from symlint.symmetry.actions.permutation import UnitPermutation
from symlint.symmetry.actions.rotation import Rotation
from symlint.symmetry.actions.scaling import Rescaling, Scaling, TensorRescaling, UnitRescaling
from symlint.symmetry.actions.translation import Shift
from symlint.symmetry.axes.terms import Expansion
from symlint.symmetry.axes.walk import Axes
from symlint.symmetry.charges.offsets import Offset

__all__ = ["Action", "Structure"]


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
    def permutations(self) -> tuple[UnitPermutation, ...]:
        """The permutations of units."""
        return tuple(a for a in self.actions.values() if isinstance(a, UnitPermutation))

    @cached_property
    def rescalings(self) -> tuple[Rescaling, ...]:
        """The rescalings, of units and of whole tensors, that multiply every weight that they move."""
        bent = self.program.composed.keys()
        found = (a for a in self.actions.values() if isinstance(a, UnitRescaling | TensorRescaling) and not a.offsets)
        return tuple(a for a in found if bent.isdisjoint(o.tensor for o in a.charge))

    @cached_property
    def unsettled(self) -> frozenset[str]:
        """The tensors between a bias and a constant that it takes along: only the sum says what their units are."""
        return frozenset(name for o in self._offsets for back in o.way.steps for name in back.step.results)

    @cached_property
    def compensated(self) -> frozenset[str]:
        """The sums with a constant that a bias takes along, so that it is no more than a bias itself."""
        return frozenset(offset.step.out for offset in self._offsets)

    @cached_property
    def _offsets(self) -> tuple[Offset, ...]:
        return tuple(o for a in self.actions.values() if isinstance(a, Scaling) for o in a.offsets)

    @cached_property
    def rotations(self) -> tuple[Rotation, ...]:
        """What mixes units with each other."""
        return tuple(a for a in self.actions.values() if isinstance(a, Rotation))

    @cached_property
    def shifts(self) -> tuple[Shift, ...]:
        """The translations along a pattern that may be of any size."""
        return tuple(a for a in self.actions.values() if isinstance(a, Shift) and not a.translation.bent)

    @cached_property
    def _permuted(self) -> dict[str, UnitPermutation]:
        """Space -> the permutation of its units."""
        return {action.space: action for action in self.permutations}

    def permutation(self, space: str) -> UnitPermutation:
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

    @cached_property
    def carried(self) -> dict[str, tuple[str, ...]]:
        """The spaces of which a state is made, each with the inputs that it comes back by: callers know its size."""
        found: dict[str, tuple[str, ...]] = {}
        spaces = {action.leaf: action.space for action in self.actions.values()}
        for loop in self.program.loops:
            held = {x for f in self.axes.of[loop.output] for x in self.axes.factors.leaves(f)}
            for leaf in sorted(held & spaces.keys()):
                found[spaces[leaf]] = (*found.get(spaces[leaf], ()), loop.input)
        return found

    def action(self, generator: str) -> Action:
        """The action of a generator, exact or not."""
        return self.actions.get(generator) or self.approximate[generator]
