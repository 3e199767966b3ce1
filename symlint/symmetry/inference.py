"""The inference: from a model to its spaces, generators and coverage."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial

from symlint.model.budget import Budget
from symlint.model.graph import Model
from symlint.model.naming import Names
from symlint.program.steps import Program
from symlint.program.translate import translate
from symlint.symmetry.actions.base import Action
from symlint.symmetry.actions.permutation import PartExchange
from symlint.symmetry.actions.rotation import InvertibleMap
from symlint.symmetry.actions.translation import Shift, UnseenChange
from symlint.symmetry.axes.arena import WHOLE, Form
from symlint.symmetry.axes.terms import Expansion, directions
from symlint.symmetry.axes.walk import Axes, walk
from symlint.symmetry.generators import Generators
from symlint.symmetry.kinds.parts import parts
from symlint.symmetry.kinds.whole import scalings
from symlint.symmetry.overlap import Overlaps
from symlint.symmetry.spaces import Generator, Place, Space, Symmetry, coverage
from symlint.symmetry.structure import Structure


def infer(model: Model) -> Symmetry:
    """The symmetries of a model's parameters; the dimension of a small one is measured."""
    symmetry, structure = examine(model)
    return measured(symmetry, structure)


def measured(symmetry: Symmetry, structure: Structure) -> Symmetry:
    """The same, with the rank of all generators' tangent vectors as dimension where it can be taken."""
    from symlint.symmetry.dimension import dimension

    found = dimension(structure)
    return symmetry if found is None else replace(symmetry, dimension=found)


def examine(model: Model, budget: Budget | None = None) -> tuple[Symmetry, Structure]:
    """The symmetries, and the structure that can apply them; all walks over it ask the budget."""
    program = translate(model)
    if budget is not None and budget.limited:
        program = replace(program, steps=budget.steps(program.steps))
    axes = walk(program)
    expansion = Expansion(axes.factors)
    return _Report(program, axes, expansion).symmetry()


class _Report:
    def __init__(self, program: Program, axes: Axes, expansion: Expansion) -> None:
        self.program, self.axes, self.expansion = program, axes, expansion
        self.factors = axes.factors
        self.generators = Generators(program, axes, expansion)
        self.bearers, self.names = self.generators.bearers, self.generators.names
        self.stored: dict[str, tuple[str, ...]] = {name: (stored,) for name, stored in program.weights.items()}
        own = {name: (name,) for name in program.weights}
        for name, step in program.affines.items():
            if step.gain in program.weights and step.bias in program.weights:
                moved = (step.gain, step.bias) if name == step.scale else (step.bias,)
                self.stored[name] = tuple(program.weights[n] for n in moved)
                own[name] = moved[:1]
        followed = {n: tuple(program.weights[x] for x in names) for n, names in program.composed.items()}
        self.scaled = self.stored | followed
        """The same where they are scaled, with what weights make that follow."""
        self._numbered = tuple(program.weights)
        self.overlaps = Overlaps(program, axes, expansion, own | program.composed)
        self.directions = directions(program, axes, expansion)
        self.called = Names(program.model)

    def symmetry(self) -> tuple[Symmetry, Structure]:
        actions = [*self.overlaps.apart(self.generators.actions()), *self.generators.placed()]
        actions += self.generators.whole(list(self.overlaps.beyond(scalings(self.program), actions)))
        cut = parts(self.program, self.axes, self.expansion, self.generators.angles)
        actions += self.generators.parted(list(self.overlaps.beyond(cut, actions)))
        actions += self.generators.exchanges()
        loose = list(self.generators.nearly())
        beyond = self.overlaps.beyond(scalings(self.program, nearly=True), [*actions, *loose])
        loose += self.generators.whole(list(beyond), ".nearly")
        beside: defaultdict[int, list[Action]] = defaultdict(list)
        for action in (*actions, *loose):
            beside[action.leaf].append(action)
        spaces = tuple(
            self._space(leaf, self._copies(beside[leaf]))
            for leaf in self.names
            if any(not isinstance(a, PartExchange) for a in beside[leaf])
        )
        free = self.overlaps.free(actions)
        mixing = {leaf: [a for a in found if isinstance(a, InvertibleMap)] for leaf, found in beside.items()}
        orbit = partial(self.overlaps.orbit, actions=actions, free=free)
        generators = tuple(
            self._generator(a, orbit, counted=not self.overlaps.inside(a, mixing[a.leaf], free)) for a in actions
        )
        reached = {t for g in generators for t in g.tensors}
        acted: defaultdict[int, set[str]] = defaultdict(set)
        for action, generator in zip(actions, generators, strict=True):
            for leaf in action.reached:
                acted[leaf].update(generator.tensors)
        generators += tuple(replace(self._generator(a, orbit, counted=True), exact=False) for a in loose)
        shares, opaque = coverage(self.program, self.axes, reached, acted)
        dimension = sum(g.dimension for g in generators if g.exact)
        symmetry = Symmetry(self.program.model, shares, dimension, spaces, generators, opaque)
        return symmetry, Structure(
            self.program, self.axes, self.expansion, {a.id: a for a in actions}, {a.id: a for a in loose}
        )

    # -- generators -----------------------------------------------------------------------------------------------
    def _copies(self, actions: Iterable[Action]) -> int:
        """How many gauges a space has at least; a translation has a pattern of its own."""
        return min((a.count(self.factors) for a in actions if not isinstance(a, Shift | UnseenChange)), default=1)

    def _generator(self, action: Action, orbit: Callable[[Action], int], *, counted: bool) -> Generator:
        group, dimension = action.group(self.factors, orbit)
        stored = self.scaled if action.kind == "rescaling" else self.stored
        names = tuple(sorted(action.tensors(self.bearers, stored)))
        return Generator(action.id, action.kind, action.space, group, dimension if counted else 0, True, names)

    # -- spaces ---------------------------------------------------------------------------------------------------
    def _space(self, leaf: int, count: int) -> Space:
        if leaf < 0:
            mine = self._numbered[-1 - leaf]
            name = self.program.weights[mine]
            places = tuple(Place(name, k, self._layout(f)) for k, f in enumerate(self.axes.of[mine]))
            return Space(self.names[leaf], 1, 1, self.called.layer(name), places, (WHOLE,))
        places = tuple(
            Place(self.program.weights[name], k, self._layout(f))
            for name in self.bearers[leaf]
            for k, f in enumerate(self.axes.of[name])
            if leaf in set(self.factors.leaves(f))
        )
        why, pin = tuple(self.factors.why.get(leaf, ())), self.factors.pins.get(leaf)
        name = self.called.layer(places[0].tensor)
        if direction := self.directions.get(leaf):
            name = f"{name} ({direction})"
        return Space(self.names[leaf], self.factors.size(leaf), count, name, places, why, pin)

    def _layout(self, f: int) -> str:
        """An axis in factor notation."""
        written: list[str] = []
        for term in self.expansion.terms(f):
            words = [self.names.get(x, str(self.factors.size(x))) for x in term.leaves] or ["1"]
            text = words[0] if len(words) == 1 else f"({' '.join(words)})"
            if not written or written[-1] != text or self.factors.form(f) is Form.SUM:
                written.append(text)
        return "+".join(written) if len(written) <= 8 else f"{'+'.join(written[:3])}+...+{written[-1]}"
