"""What a rule sees: the symmetries of a model, and what its weights say about the units of each space.

What holds of the units of one space.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import field, fields, replace
from functools import cached_property
from math import prod
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from symlint.analysis.need import Mask, needs
from symlint.analysis.sameness import all_alike
from symlint.analysis.values.lattice import Bases, Names, Value, distinct
from symlint.analysis.values.rows import Verdicts
from symlint.analysis.values.valuation import valuate
from symlint.analysis.values.weights import slim
from symlint.evidence.ends import Ends
from symlint.evidence.negligible import negligible
from symlint.evidence.options import Asked, Equivariance, Tried
from symlint.evidence.products import Mutual, Product, general_linear, mutual, products
from symlint.evidence.settled import canonical, kinds
from symlint.model.budget import Budget
from symlint.model.graph import Array, Shape
from symlint.model.naming import Names as Named
from symlint.model.records import dataclass
from symlint.program.flow import Passages
from symlint.program.steps import RANGE
from symlint.symmetry.actions.permutation import UnitPermutation
from symlint.symmetry.actions.rotation import OrthogonalMap
from symlint.symmetry.actions.translation import UnseenChange
from symlint.symmetry.axes.factor import Factors
from symlint.symmetry.inference import examine
from symlint.symmetry.motion.membership import members
from symlint.symmetry.spaces import Space, Symmetry
from symlint.symmetry.structure import Action, Structure


@dataclass(frozen=True, slots=True)
class Units:
    """What holds of the units of one space, by position (copy-major where a space has copies)."""

    dead: NDArray[np.bool_]
    """The unit contributes to no output."""
    constant: NDArray[np.bool_]
    """The unit contributes, but its value is one number whatever the input."""
    constants: Mapping[int, float]
    """That number, as the unit's readers see it first."""
    groups: tuple[tuple[int, ...], ...]
    """Units that are positive multiples of each other wherever they are read."""
    factors: Mapping[int, float]
    """Unit of a group -> its multiple of the group's first unit."""


def spread(found: Units, plain: Action, action: Action, factors: Factors) -> Units:
    """What holds of the units of `plain` in all copies of `action` alike, told for each of them."""
    if plain.copies == action.copies:
        return found
    shape = (*(factors.size(c) for c in action.copies), factors.size(action.leaf))
    flat = [factors.size(c) if c in plain.copies else 1 for c in action.copies]
    units = np.broadcast_to(np.arange(found.dead.size).reshape(*flat, shape[-1]), shape).reshape(-1)
    into = [np.flatnonzero(units == u).tolist() for u in range(found.dead.size)]
    return Units(
        found.dead[units],
        found.constant[units],
        {v: value for u, value in found.constants.items() for v in into[u]},
        tuple(copy for group in found.groups for copy in zip(*(into[u] for u in group), strict=True)),
        {v: factor for u, factor in found.factors.items() for v in into[u]},
    )


class Sight:
    """What the tensors that hold the units of a space show of them, one tensor after the other.

    Args:
        count: how many units there are, over all copies.
        size: how many of them one copy has.
    """

    def __init__(self, count: int, size: int) -> None:
        self.count, self.size = count, size
        self.needed, self.still, self.steady = np.zeros(count, bool), np.ones(count, bool), np.zeros(count, bool)
        self.unmoved, self.varied = np.ones(count, bool), False
        """Which move in no tensor; whether units differ in one in which they move."""
        self.numbers = np.zeros(count)
        self.columns: list[NDArray[np.int64]] = []
        self.scales: list[NDArray[np.float64]] = []
        self.seen = self.apart = self.answers = False
        """Whether a tensor holds them at all; holds them all apart; depends on the input."""

    def distinct(self, mask: NDArray[np.bool_]) -> None:
        """Every element of a tensor differs from every other, and moves; `mask` says which an output needs."""
        self.needed |= mask.any(axis=1)
        self.still &= ~mask.any(axis=1)
        self.apart = True

    @property
    def full(self) -> bool:
        """Whether one more such tensor shows nothing that is not known."""
        return self.apart and self.answers and bool(self.needed.all()) and not self.still.any()

    def told(
        self,
        labels: NDArray[np.int64],
        scale: NDArray[np.float64],
        fixed: NDArray[np.bool_],
        mask: NDArray[np.bool_],
    ) -> None:
        """The labels and scales of a tensor, a row a unit, and which of the elements never move."""
        self.needed |= mask.any(axis=1)
        constant = ((labels == 0) & mask).all(axis=1)
        self.numbers = np.where(constant, scale[:, 0], self.numbers)
        # What is the same for all units (an index repeated along them) is no state of one.
        repeated = self.count > 1 and bool((labels == labels[:1]).all() and (scale == scale[:1]).all())
        moves = (~fixed & mask).any(axis=1)
        self.unmoved &= ~moves
        self.varied |= not repeated and bool(moves.any())
        self.still &= ~moves | repeated
        self.steady |= constant
        self.columns.extend(labels.T)
        self.scales.extend(scale.T)

    def units(self, *, pooled: bool) -> Units:
        """All that was seen; units that are pooled are not told to be equal."""
        # Where units differ nowhere, what repeats along them may be all that they are.
        constant = self.needed & self.steady & (self.still if self.varied or self.apart else self.unmoved)
        if not self.answers:  # computed from the weights alone, like a learned query
            constant = np.zeros(self.count, bool)
        columns = [*self.columns, np.arange(self.count) // self.size]
        eligible = self.needed & ~constant & ~self.still
        groups = () if pooled or self.apart else same_units(columns, eligible)
        last = self.scales[-1] if self.scales else np.ones(self.count)
        multiples = {u: float(last[u] / last[g[0]]) for g in groups for u in g if last[g[0]]}
        found = {int(u): float(self.numbers[u]) for u in np.flatnonzero(constant)}
        return Units(~self.needed & self.seen, constant, found, groups, multiples)


def same_units(columns: list[NDArray[np.int64]], eligible: NDArray[np.bool_]) -> tuple[tuple[int, ...], ...]:
    """Eligible units with the same labels everywhere, in the same copy."""
    found = distinct(*columns)
    members: dict[int, list[int]] = {}
    for unit in np.flatnonzero(eligible):
        members.setdefault(int(found[unit]), []).append(int(unit))
    return tuple(tuple(group) for group in members.values() if len(group) > 1)


class Thresholds(Protocol):
    """What of a rule says which thresholds it has."""

    @property
    def code(self) -> str:
        """The stable code of the rule."""

    @property
    def options(self) -> Mapping[str, float]:
        """Kebab name -> default."""


@dataclass(frozen=True)
class Context:
    """A model under audit: its symmetries, and the analyses that rules share, made when first asked for."""

    symmetry: Symmetry
    structure: Structure
    asked: Asked = field(default_factory=Asked)
    budget: Budget = field(default_factory=Budget)
    judged: Structure | None = None
    """The network whose weights are judged, where that is not the settled one: for repairs, as it is stored."""
    trial: Callable[[Equivariance], tuple[Tried, ...]] | None = None
    """Runs the network for a declared equivariance, where the user lets it run; raises UsageProblem for what means
    nothing in it."""

    @cached_property
    def opened(self) -> Context:
        """The network as its repairs see it, which leave its states as their callers know them."""
        if not self.structure.program.loops:
            return self
        symmetry, structure = examine(replace(self.symmetry.model, states=()))
        return replace(self, symmetry=symmetry, structure=structure)

    @cached_property
    def anyhow(self) -> Context:
        """The network of which nobody knows what its states begin with."""
        program = self.structure.program
        loops = tuple(replace(loop, begun=False) for loop in program.loops)
        return replace(self, structure=replace(self.structure, program=replace(program, loops=loops)))

    def option(self, rule: Thresholds, name: str) -> float:
        """A threshold of a rule: the configured one, else its default."""
        return self.asked.options.get(rule.code, {}).get(name, rule.options[name])

    @cached_property
    def spaces(self) -> tuple[Space, ...]:
        """Spaces whose units are more than a choice of basis: of these a unit can be dead, constant or a duplicate.

        They can be permuted, but not mixed, nor can their copies: under GL(n) and O(n) the same flaw is a rank (see
        `products`). What is written and never read is dead in any basis.
        """
        actions = self.structure.actions.values()
        linear = [a for a in actions if general_linear(a) or isinstance(a, OrthogonalMap)]
        turned, mixed = {a.leaf for a in linear}, {a.space for a in linear}
        permuted = {a.space for a in self.structure.permutations if turned.isdisjoint(a.copies)}
        kept = permuted - mixed
        return tuple(s for s in self.symmetry.spaces if s.id in kept)

    @cached_property
    def products(self) -> tuple[tuple[Space, Product], ...]:
        """Linear spaces through which less gets than width, writers and readers allow."""
        spaces, actions = {s.id: s for s in self.symmetry.spaces}, self.structure.actions
        found = products(self.structure, self._passages, lambda: self.canonical)
        return tuple((spaces[actions[product.generator].space], product) for product in found)

    @cached_property
    def mutual(self) -> tuple[Mutual, ...]:
        """Spaces of queries and keys whose product is symmetric in every head."""
        return tuple(mutual(self.structure, self._passages))

    @cached_property
    def named(self) -> Named:
        """The model's names as people read them."""
        return Named(self.symmetry.model)

    def tensors(self, space: Space) -> tuple[str, ...]:
        """Names of all stored tensors of a space, sorted."""
        return tuple(sorted({place.tensor for place in space.places}))

    @cached_property
    def parameters(self) -> Mapping[str, int]:
        """Stored tensor -> number of weight elements."""
        return self.structure.program.parameters

    def weight(self, space: Space) -> int:
        """Parameters that one unit of a space has: what deleting it saves."""
        sizes = self.parameters
        shapes = self.symmetry.model.tensors
        axes = {(p.tensor, p.axis) for p in space.places if p.tensor in sizes}
        total = sum(shapes[tensor].size // shapes[tensor].shape[axis] for tensor, axis in axes)
        return total // space.copies if space.copies > 1 else total

    def units(self, space: Space) -> Units:
        """The state of every unit of a space."""
        self.budget.tick()
        action = self.structure.permutation(space.id)
        found = self._inspect(action)
        found = replace(found, dead=found.dead & ~self._lost_with(action))
        if self.bundled(space):
            # A head or group is a bundle of units: whether two are equal depends on the order of what is in them.
            found = replace(found, constant=np.zeros_like(found.constant), groups=())
        return found

    def bundled(self, space: Space) -> bool:
        """Whether the units of a space are made of units of others, as heads, groups and experts are."""
        leaf = self.structure.permutation(space.id).leaf
        return any(isinstance(a, UnitPermutation) for a in self.structure.nested.get(leaf, ()))

    def dead(self, action: Action) -> NDArray[np.bool_]:
        """Which units contribute to no output, copy-major."""
        return self._inspect(action).dead

    def unbroken(self, space: Space) -> bool:
        """Whether all units of a space, in each of its copies, are the same one."""
        action, found = self.structure.permutation(space.id), self.units(space)
        if action.leaf in self._pooled or self.bundled(space):
            return False
        if found.groups:
            return len(found.groups) == space.copies and all(len(group) == space.size for group in found.groups)
        lost = found.dead.any() or found.constant.any()
        return not lost and all_alike(self.canonical, self.plain(action), self._passages.moving)

    @cached_property
    def _passages(self) -> Passages:
        return Passages(self.structure.program)

    def _lost_with(self, action: Action) -> NDArray[np.bool_]:
        """Units whose whole copy (head, group, expert) is dead: they are told of with that."""
        factors = self.structure.axes.factors
        lost = np.zeros([*(factors.size(c) for c in action.copies), factors.size(action.leaf)], bool)
        for k, copy in enumerate(action.copies):
            outer = self._outer.get(copy)
            if outer is not None:
                lost |= self._inspect(outer).dead.reshape([-1 if j == k else 1 for j in range(lost.ndim)])
        return lost.reshape(-1)

    @cached_property
    def _outer(self) -> dict[int, Action]:
        """Leaf -> its permutation, where that is one for the whole network."""
        return {a.leaf: a for a in reversed(self.structure.permutations) if not a.copies}

    # -- analyses -------------------------------------------------------------------------------------------------
    @cached_property
    def carried(self) -> dict[str, tuple[bool, ...]]:
        """Tensor -> whether each of its axes holds units, or a factor on which the gauge of units depends."""
        factors = self.structure.axes.factors
        living = {x for a in self.structure.actions.values() for x in (a.leaf, *a.copies)}
        alive: dict[int, bool] = {}
        carried: dict[str, tuple[bool, ...]] = {}
        for name, axes in self.structure.axes.of.items():
            for f in axes:
                if f not in alive:
                    alive[f] = not living.isdisjoint(factors.leaves(f))
            indices = {factors.index(g) for f in axes for g in factors.families(f)} if factors.indexed else set()
            carried[name] = tuple(
                alive[f] or (bool(indices) and any(g in indices for g in factors.sums(f))) for f in axes
            )
        return carried

    @property
    def values(self) -> dict[str, Value]:
        """The value of every tensor, as far as the weights tell it."""
        return self._values[0]

    @property
    def moving(self) -> frozenset[str]:
        """The tensors that depend on the input."""
        return self._passages.moving

    @cached_property
    def verdicts(self) -> Verdicts:
        """What was found of the rows of the weights, in whatever run."""
        return Verdicts()

    @cached_property
    def faint(self) -> dict[str, Mask]:
        """Weight of the program -> its elements that are as good as zero, for weights that have such."""
        with np.errstate(all="ignore"):
            return negligible(self.judged or self.structure, self.asked)

    @cached_property
    def canonical(self) -> Structure:
        """The network whose weights are judged: without what no output sees of them, and what others take over."""
        if self.judged is not None:
            return self.judged
        return canonical(self.structure, self.faint, self._leaves, kinds=self._kinds) if self._kinds else self._least

    def as_judged(self) -> Context:
        """The same network with the weights that are judged in the place of the stored ones, and all that is known."""
        found = replace(self, structure=self.canonical, judged=self.canonical)
        given = {f.name for f in fields(self)}
        vars(found).update((name, known) for name, known in vars(self).items() if name not in given)
        return found

    def settled_in(self, names: Collection[str]) -> Structure:
        """The network of which some weights of the program alone are settled."""
        return canonical(self.structure, {}, self._leaves, names, self._kinds)

    @cached_property
    def _least(self) -> Structure:
        """The network whose settled weights are the smallest."""
        return canonical(self.structure, self.faint, self._leaves)

    @cached_property
    def _kinds(self) -> Mapping[int, Array]:
        """Which units changes that few readers see are to treat alike."""
        if not any(isinstance(a, UnseenChange) and a.added for a in self.structure.actions.values()):
            return {}
        with np.errstate(all="ignore"):
            values, names = valuate(self._least.program, self.carried, self.silent, self.verdicts)
        return kinds(self.structure, values, names)

    @cached_property
    def _leaves(self) -> frozenset[int]:
        """The leaves of inputs and outputs, where anything may be shifted along them."""
        moving = bool(self.structure.shifts)
        return Ends(self.structure, self.carried).leaves if moving else frozenset()

    @cached_property
    def silent(self) -> dict[str, Mask]:
        """What counts as zero of the weights that are judged; of settled ones that is zero already."""
        apart = self.structure.program.detached
        return {n: mask for n, mask in self.faint.items() if self.judged is not None or n in apart}

    @cached_property
    def _values(self) -> tuple[dict[str, Value], Names]:
        with np.errstate(all="ignore"):  # constants of masks overflow; what is not finite is known to be that
            return valuate(self.canonical.program, self.carried, self.silent, self.verdicts)

    @cached_property
    def ends(self) -> Ends:
        """The network with the pinned axes of its inputs and outputs written out."""
        return Ends(self.canonical, self.carried, self.parameters, self.verdicts)

    @cached_property
    def _needs(self) -> dict[str, Mask]:
        return needs(self.canonical.program, self._values[0], self.verdicts)

    @cached_property
    def _bearers(self) -> dict[int, list[str]]:
        """Leaf -> the computed tensors that hold it, but for those that are other functions in another gauge."""
        values, _ = self._values
        held: dict[int, list[str]] = {}
        for name, axes in self.structure.axes.of.items():
            if name in values and values[name].bases is not None and name not in self.structure.unsettled:
                for leaf in {x for f in axes for x in self.structure.axes.factors.leaves(f)}:
                    held.setdefault(leaf, []).append(name)
        return held

    @cached_property
    def _pooled(self) -> set[int]:
        """Leaves along which something is normalised or folded: their units are read all together."""
        factors, of = self.structure.axes.factors, self.structure.axes.of
        return {
            leaf
            for step in self.structure.program.steps
            if step.function != RANGE
            for k in step.joint
            for leaf in factors.leaves(of[step.operands[0]][k])
        }

    def _inspect(self, action: Action) -> Units:
        if action.id not in self._inspected:
            plain = self.plain(action)
            self._inspected[action.id] = spread(self._look(plain), plain, action, self.structure.axes.factors)
        return self._inspected[action.id]

    def plain(self, action: Action) -> Action:
        """An action without the copies that only a choice at run time tells apart: activations do not hold them."""
        chosen = {unit for _, unit in self.structure.axes.chosen}
        return replace(action, copies=tuple(c for c in action.copies if c not in chosen))

    @cached_property
    def _inspected(self) -> dict[str, Units]:
        return {}

    def _look(self, action: Action) -> Units:
        factors = self.structure.axes.factors
        count = factors.size(action.leaf) * prod(factors.size(c) for c in action.copies)
        values, names = self._values
        sight = Sight(count, factors.size(action.leaf))

        def telling(value: Value) -> bool:
            return count > 1 and value.labels.telling and not names.still(value.labels.starts).any()

        mine = {action.leaf, *action.copies}
        places: dict[tuple[tuple[int, ...], Shape], NDArray[np.int64] | None] = {}
        for name in self._bearers.get(action.leaf, ()):
            value, axes = values[name], tuple(self.structure.axes.of[name])
            if sight.full and telling(value):
                continue  # it would show once more that all units differ
            need = slim(self._needs[name]) if name in self._needs else None
            there = [bool(mine.intersection(factors.leaves(f))) for f in axes]
            value, need = _narrowed(value, need, there)
            where = axes, value.shape
            if where not in places:
                places[where] = members(self.structure, action, *where)
            rows = places[where]
            if rows is None:
                continue
            sight.seen = True
            if need is None or not need.any():
                continue
            sight.answers |= name in self.moving
            mask = np.broadcast_to(need, value.shape).reshape(-1)[rows] if need.size > 1 else np.ones((1, 1), bool)
            if telling(value):
                sight.distinct(mask)
                continue
            labels = value.numbers.reshape(-1)[rows]
            scale = np.asarray(value.scale, np.float64).reshape(-1)[rows]
            sight.told(labels, scale, names.still(labels), mask)
        return sight.units(pooled=action.leaf in self._pooled)


def _narrowed(value: Value, need: Mask | None, there: Sequence[bool]) -> tuple[Value, Mask | None]:
    """A value and the need of it, at one place of each axis without the units asked for that changes nothing."""
    bases, scale = value.labels, value.slim
    parts = [bases.starts, scale] if need is None else [bases.starts, scale, need]
    shape = tuple(
        n if kept or any(part.shape[k] > 1 for part in parts) else 1
        for k, (n, kept) in enumerate(zip(value.shape, there, strict=True))
    )
    steps = tuple(step if n > 1 else 0 for step, n in zip(bases.steps, shape, strict=True))
    return Value(Bases(bases.starts, steps, shape), scale, shape), need
