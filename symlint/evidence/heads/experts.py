"""Experts that are one function, whatever the order and the scales of what is in them.

A router gives each expert a weight, or chooses some: it acts along the experts. For random inputs, what comes out is
computed with one expert chosen everywhere, and compared from expert to expert.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np

from symlint.analysis.rehearsal import Rehearsal, Unrehearsed, entered
from symlint.evidence.heads.twins import Group, close, same_rows
from symlint.evidence.ranks.side import Freedom, orthonormal
from symlint.model.graph import Array
from symlint.model.records import dataclass
from symlint.program.functions import MixKind, dispatched
from symlint.program.steps import Einsum, Mix, Normalise, Step, Unknown
from symlint.symmetry.motion.action import stands
from symlint.symmetry.motion.membership import members
from symlint.symmetry.structure import Action, Structure

SCALING = ("standardise", "rms")
"""Normalisations along units that choose none of them."""


@dataclass(frozen=True, slots=True)
class Experts:
    """The experts of one space that are the same function."""

    groups: tuple[Group, ...]
    routed: tuple[bool, ...]
    """For each group, whether the router gives all of them the same score."""


def experts(structure: Structure, action: Action, moving: frozenset[str]) -> Experts | None:
    """The units of a permutation that are the same function when they are chosen; None where nothing chooses.

    Args:
        structure: of the network.
        action: a permutation without copies, whose units are made of others.
        moving: the tensors that depend on the input.
    """
    try:
        with np.errstate(all="ignore"):
            return _Mixture(structure, action, moving).experts()
    except Unrehearsed:
        return None


class _Mixture:
    def __init__(self, structure: Structure, action: Action, moving: frozenset[str]) -> None:
        self.structure, self.action, self.moving = structure, action, moving
        self.program, self.of = structure.program, structure.axes.of
        self.count = structure.axes.factors.size(action.leaf)
        inner = {a.leaf for a in structure.nested.get(action.leaf, ())}
        inner |= {unit for by, unit in structure.axes.chosen if action.leaf in by}
        holding = structure.axes.holding
        mine = holding.get(action.leaf, ())
        self.inner = inner
        self.inside = moving.intersection(mine) | {n for x in inner for n in holding.get(x, ()) if n in moving}
        # What compares the experts reads or makes a tensor that holds them.
        along = [s for s in self.program.touching(mine) if self._along(s)]
        self.gates = {n for s in along for n in s.results}
        self.routers = [n for s in along if s.joint for n in s.operands if n not in self.gates]
        scaled = all(s.function in SCALING for s in along)
        if scaled or any(s.at_run_time for s in along):
            raise Unrehearsed(action.id)
        self.ends = [s for s in self.program.reading(self.inside) if self._leaves(s)]
        self.part = entered(self.program, {*self.inside, *(n for s in self.ends for n in s.results)}, moving)
        self.bases: dict[str, Array] = {}
        self.chosen = self._after(self.gates)
        self.shared: dict[tuple[int, bool], dict[str, Array]] = {}

    def _holds(self, name: str, leaves: set[int]) -> bool:
        return any(not leaves.isdisjoint(self.structure.axes.factors.leaves(f)) for f in self.of[name])

    @dispatched
    def _along(self, step: Step) -> bool:
        """Whether a step compares the experts, so that it may choose among them."""
        return False

    @_along.register
    def _(self, step: Unknown) -> bool:
        return any(n in self.inside and self._holds(n, {self.action.leaf}) for n in step.operands)

    @_along.register
    def _(self, step: Normalise) -> bool:
        leaves = self.structure.axes.factors.leaves
        along = {x for k in step.axes for x in leaves(self.of[step.x][k])}
        # What compares units of all experts with each other, as a norm over all heads does, chooses none of these.
        return step.x in self.moving and self.action.leaf in along and along.isdisjoint(self.inner)

    @_along.register
    def _(self, step: Mix) -> bool:
        return step.kind is MixKind.RANKING and self._holds(step.out, {self.action.leaf})

    def _leaves(self, step: Step) -> bool:
        """Whether a step puts together what the experts have computed."""
        read = [n for n in step.operands if n in self.inside]
        if not read or self.inside.issuperset(step.results):
            return False
        if isinstance(step, Einsum):
            return True
        if self.gates.issuperset(read):  # what is told of the choice alone is the same for equal experts
            return False
        raise Unrehearsed(step.node.name)

    def experts(self) -> Experts:
        """The answer."""
        rows = self._rows(0, rounded=False)
        groups = close(rows, range(self.count))
        if not groups or not rows.any():
            return Experts((), ())
        noise = np.linalg.norm(self._rows(0, rounded=True) - rows, axis=1)
        routes = [(self._routed(n, rounded=False), self._routed(n, rounded=True)) for n in self.routers]
        kept: list[Group] = []
        routed: list[bool] = []
        for one, *others in groups:
            same = [one, *(u for u in others if same_rows(rows, noise, one, u))]
            if len(same) > 1 and np.linalg.norm(rows[one]) > 0:
                kept.append(tuple(same))
                alike = (same_rows(r, np.linalg.norm(q - r, axis=1), one, u) for r, q in routes for u in same)
                routed.append(all(alike))
        return Experts(tuple(kept), tuple(routed))

    # -- sketches -------------------------------------------------------------------------------------------------
    def _rows(self, seed: int, *, rounded: bool) -> Array:
        """What comes out with each expert chosen, less what is the same for all of them."""
        made = [self._ended(unit, seed, rounded=rounded) for unit in range(self.count)]
        columns = []
        for k, step in enumerate(self.ends):
            name = step.results[0]
            if name not in self.bases:
                self.bases[name] = self._unseen(k)
            stack = np.stack([ends[k] for ends in made])
            columns.append((stack - stack @ self.bases[name] @ self.bases[name].T).reshape(self.count, -1))
        return np.hstack(columns)

    def _ended(self, unit: int, seed: int, *, rounded: bool, given: dict[str, Array] | None = None) -> list[Array]:
        # What no choice reaches, as what every expert computes, is the same whichever is chosen.
        shared = {} if given else self.shared.setdefault((seed, rounded), {})
        chosen = {name: self._one(name, unit) for name in self.gates}
        draw = Rehearsal(self.program, self.part, seed, rounded, {**chosen, **(given or {})}, known=dict(shared))
        made = [draw.value(step.results[0]) for step in self.ends]
        if not shared:
            shared.update({name: value for name, value in draw.known.items() if name not in self.chosen})
        return made

    def _after(self, names: Collection[str]) -> frozenset[str]:
        """Some tensors and all that is made of them."""
        found = set(names)
        for step in self.program.steps:
            if not found.isdisjoint(step.operands):
                found.update(step.results)
        return frozenset(found)

    def _one(self, name: str, unit: int) -> Array:
        """One where an expert is, zero where others are."""
        shape = self.program.shapes[name]
        rows = members(self.structure, self.action, self.of[name], shape)
        if rows is None:
            raise Unrehearsed(name)
        made = np.zeros(shape)
        made.reshape(-1)[rows[unit]] = 1.0
        return made

    def _routed(self, name: str, *, rounded: bool) -> Array:
        value = Rehearsal(self.program, self.part, 0, rounded).value(name)
        rows = members(self.structure, self.action, self.of[name], value.shape)
        if rows is None:
            raise Unrehearsed(name)
        return np.asarray(value.reshape(-1)[rows])

    def _unseen(self, k: int) -> Array:
        """A basis of what translations may add along the last axis of an end, which says nothing."""
        found: list[Array] = []
        for name, change in self._changes():
            for seed in (0, 1):
                made = self._ended(0, seed, rounded=False, given={name: change})[k]
                found.append(made.reshape(-1, made.shape[-1]))
        width = self.program.shapes[self.ends[k].results[0]][-1]
        basis = orthonormal(np.vstack(found).T) if found else np.zeros((width, 0))
        return basis if basis.shape[1] < width else basis[:, :0]

    def _changes(self) -> Iterator[tuple[str, Array]]:
        freedom = Freedom(self.structure)
        for name in sorted(self.program.weights):
            if self._holds(name, {self.action.leaf}) and len(self.program.shapes[name]) > 1:
                stood = list(stands(self.structure.expansion, self.of[name], self.action.leaf, ()))
                for change in freedom.of({name: stood}):
                    yield name, change[name]
