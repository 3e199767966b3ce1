"""What is dead for more than the weights of its units: by bounds of activations, and branches, heads or experts whole.

Of a network whose activations are bounded more is known than its weights tell, among it which activations idle.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from symlint.analysis.bounds import Settled, certify, settled
from symlint.analysis.interval import Interval
from symlint.analysis.need import Mask, needs
from symlint.analysis.ranges import SLOPES
from symlint.analysis.values.lattice import Names, Value
from symlint.analysis.values.rows import Verdicts
from symlint.analysis.values.valuation import valuate
from symlint.evidence.context import Context
from symlint.evidence.options import InputRange, Level
from symlint.evidence.ranks import Freedom
from symlint.model.graph import Array
from symlint.model.naming import Where
from symlint.model.records import dataclass
from symlint.program.recognise import PRODUCT
from symlint.program.steps import SUM, Law, Pointwise, Program, Step
from symlint.symmetry.actions.permutation import UnitPermutation
from symlint.symmetry.actions.rotation import Rotation
from symlint.symmetry.motion.membership import members
from symlint.symmetry.spaces import Space
from symlint.symmetry.structure import Action

CHANCE = 1e-3
"""So many units of a space may have weights of one sign by chance."""
SURE = 1.0
"""With this margin the signs of the weights do not matter."""


@dataclass(frozen=True)
class Bounded(Context):
    """A context in which an activation that bounds make one number is that number."""

    plain_context: Context | None = None
    """The context that knows only what follows from zeros in the weights."""

    @cached_property
    def intervals(self) -> dict[str, Interval]:
        """What the tensors lie between on which a clamp depends."""
        with np.errstate(all="ignore"):
            given = {one.name: (one.low, one.high) for one in self.declared}
            return certify(self.canonical, self.exact, self.carried, given=given)

    @property
    def declared(self) -> tuple[InputRange, ...]:
        """What is declared of inputs that the model has."""
        return tuple(one for one in self.asked.inputs if one.name in self.structure.program.inputs)

    @cached_property
    def unaided(self) -> Bounded:
        """The same of inputs that may be anything."""
        return replace(self, asked=replace(self.asked, inputs=())) if self.declared else self

    @property
    def condition(self) -> str:
        """Under which all is true that rests on what is declared, in words."""
        return f"as long as {' and '.join(map(str, self.declared))}, as declared"

    @property
    def ranges(self) -> dict[str, list[float | None]]:
        """Declared input -> low and high, None for no end."""
        ends = {one.name: (one.low, one.high) for one in self.declared}
        return {name: [end if np.isfinite(end) else None for end in both] for name, both in ends.items()}

    @cached_property
    def settled(self) -> dict[str, Settled]:
        """The activations of which bounds prove more than the weights tell; empty where nothing is gained."""
        with np.errstate(all="ignore"):
            return settled(self.canonical, self.exact, self.intervals)

    def margins(self, space: Space) -> dict[int, float]:
        """Unit of a space -> the smallest margin by which an activation of it is one number."""
        action = self.plain(self.structure.permutation(space.id))
        least: dict[int, float] = {}
        for name in self._settled_along.get(action.leaf, ()):
            one = self.settled[name]
            rows = members(self.structure, action, self.structure.axes.of[name], one.where.shape)
            for unit, row in enumerate(() if rows is None else rows):
                if one.where.reshape(-1)[row].all():
                    least[unit] = min(least.get(unit, np.inf), float(one.margin.reshape(-1)[row].min()))
        return least

    @cached_property
    def _settled_along(self) -> dict[int, list[str]]:
        """Leaf -> the settled activations that hold it, in order."""
        of, leaves = self.structure.axes.of, self.structure.axes.factors.leaves
        found: dict[int, list[str]] = {}
        for name in self.settled:
            for leaf in {x for f in of[name] for x in leaves(f)}:
                found.setdefault(leaf, []).append(name)
        return found

    def level(self, space: Space, units: Collection[int], level: Level) -> Level:
        """A level, or a note where weights of one sign, which chance makes where they are few, explain the units."""
        margins = self.margins(space)
        sure = all(margins.get(u, SURE) >= SURE for u in units)
        return level if sure or space.size * 2.0 ** -self._fan(space) <= CHANCE else min(level, Level.NOTE)

    def _fan(self, space: Space) -> int:
        """The fewest weights that a unit has in one tensor."""
        shapes = {(p.tensor, p.axis): self.symmetry.model.tensors[p.tensor].shape for p in space.places}
        fans = [int(np.prod(shape, dtype=np.int64)) // shape[axis] for (_, axis), shape in shapes.items()]
        return min((n for n in fans if n > 1), default=1)

    # -- analyses -------------------------------------------------------------------------------------------------
    @cached_property
    def silent(self) -> dict[str, Mask]:
        """What counts as zero of the weights that are judged."""
        return super().silent if self.plain_context is None else self.plain_context.silent

    @cached_property
    def verdicts(self) -> Verdicts:
        """What was found of the rows of the weights, which are those of the other context."""
        return super().verdicts if self.plain_context is None else self.plain_context.verdicts

    @cached_property
    def carried(self) -> dict[str, tuple[bool, ...]]:
        """Which axes are written out, those of the other context."""
        return super().carried if self.plain_context is None else self.plain_context.carried

    @property
    def exact(self) -> dict[str, Value]:
        """The value of every tensor as far as zeros in the weights tell it."""
        return (self.plain_context or self).values

    @cached_property
    def _written(self) -> Program:
        """The program with what is settled multiplied away, and its number added."""
        program, steps = self.canonical.program, list[Step]()
        shapes, tables = dict(program.shapes), dict(program.tables)
        for step in program.steps:
            if not isinstance(step, Pointwise) or (one := self.settled.get(step.out)) is None:
                steps.append(step)
                continue
            raw, left, keep, number = (f"{step.out}?{word}" for word in ("raw", "left", "keep", "number"))
            shapes |= {raw: shapes[step.out], left: shapes[step.out], keep: one.where.shape, number: one.where.shape}
            tables |= {keep: np.where(one.where, 0.0, 1.0), number: np.where(one.where, one.number, 0.0)}
            steps += [replace(step, out=raw), _step(step, left, (raw, keep), PRODUCT, "Mul")]
            steps.append(_step(step, step.out, (left, number), SUM, "Add"))
        return replace(program, steps=self.budget.steps(tuple(steps)), shapes=shapes, tables=tables)

    @cached_property
    def _values(self) -> tuple[dict[str, Value], Names]:
        program = self._written
        carried = {name: self.carried[name.rpartition("?")[0]] for name in program.shapes if name not in self.carried}
        with np.errstate(all="ignore"):
            return valuate(program, {**carried, **self.carried}, self.silent, self.verdicts)

    @cached_property
    def _needs(self) -> dict[str, Mask]:
        return needs(self._written, self._values[0], self.verdicts)


def _step(like: Pointwise, out: str, operands: tuple[str, ...], law: Law, function: str) -> Pointwise:
    return Pointwise(out, operands, law, function, like.node)


def bounded(context: Context) -> Bounded:
    """The same network with what bounds prove; made once for each context."""
    if isinstance(context, Bounded):
        return context
    found, judged = vars(context).get("bounded"), context.canonical
    if not isinstance(found, Bounded):
        found = Bounded(context.symmetry, judged, context.asked, context.budget, judged, plain_context=context)
        vars(context)["bounded"] = found
    return found


def known(context: Context, evidence: Collection[str]) -> Context:
    """The network as far as evidence of these kinds tells it."""
    proven = bounded(context) if "bounded" in evidence else None
    return proven if proven is not None and proven.settled else context


def idle(context: Bounded) -> Iterator[tuple[Space, dict[Where, NDArray[np.bool_]]]]:
    """The spaces with such units, and activation -> the units of which it changes nothing, copy-major."""
    structure = context.structure
    axes, factors = structure.axes.of, structure.axes.factors
    found: dict[int, list[tuple[Pointwise, NDArray[np.bool_]]]] = {}
    for step, where in {s.out: (s, where) for s, where in _unchanged(context)}.values():
        for leaf in {x for f in axes[step.out] for x in factors.leaves(f)}:
            found.setdefault(leaf, []).append((step, where))
    for space in context.spaces if found else ():
        action = context.plain(structure.permutation(space.id))
        count = space.size * space.copies
        masks: dict[Where, NDArray[np.bool_]] = {}
        for step, where in found.get(action.leaf, ()):
            rows = members(structure, action, axes[step.out], where.shape)
            if rows is None or len(rows) != count:
                continue
            on = np.asarray(where.reshape(-1)[rows].all(axis=1))
            if on.any():
                masks[Where(step.node.name or step.node.first, step.function)] = on
        if masks:
            yield space, masks


def _unchanged(context: Bounded) -> Iterator[tuple[Pointwise, NDArray[np.bool_]]]:
    """The activations that change nothing of some elements, and of which."""
    for step in context.structure.program.elementwise:
        if step.operands[0] not in context.intervals:
            continue
        x = context.intervals[step.operands[0]]
        where = _where(context, step, x)
        if where is None:
            continue
        where = where & ~x.settled
        if where.any() and x.shape == context.intervals[step.out].shape:
            yield step, where


def _where(context: Bounded, step: Pointwise, x: Interval) -> Array | None:
    """Which elements an activation returns as they are; None where it is no such activation."""
    if step.function in SLOPES:
        return np.asarray(x.low >= 0)
    if step.function != "Clip":
        return None
    ends = [context.exact[name].scale for name in step.operands[1:]]
    attributes = step.node.attributes if not ends else {}
    low = ends[0] if ends else attributes.get("min", -np.inf)
    high = ends[1] if len(ends) > 1 else attributes.get("max", np.inf)
    return np.asarray((x.low >= low) & (x.high <= high))


Cause = Literal["graph", "start", "weights"]
"""``graph``: no path leads to an output, whatever the weights. ``start``: only because tensors are at one constant, as
an initialisation at zero leaves them. ``weights``: everything else."""


@dataclass(frozen=True, slots=True)
class Branch:
    """Spaces that hang together and of which every unit is dead."""

    spaces: tuple[Space, ...]
    tensors: tuple[str, ...]
    cause: Cause
    parameters: int
    """How many weights hold units of these spaces only."""

    @property
    def units(self) -> int:
        """Of the first space, over all copies."""
        return self.spaces[0].size * self.spaces[0].copies


@dataclass(frozen=True, slots=True)
class Bundles:
    """A space whose units are made of units of other spaces, some of them dead."""

    space: Space
    lost: tuple[int, ...]


def lost(context: Context, space: Space) -> bool:
    """Whether a space is a bundle, or all of its units are dead: then nothing is told of single units."""
    return context.bundled(space) or _dead(context, context.structure.permutation(space.id))


def branches(context: Context) -> Iterator[Branch]:
    """Every branch of which nothing is alive, in the order of the spaces."""
    actions = dict(_whole(context))
    if not actions:
        return
    without, alive = _asked_again(context)
    for together in _connected(context, actions):
        spaces = tuple(s for s in context.symmetry.spaces if s.id in together)
        mine = [actions[s.id] for s in spaces]
        yield Branch(
            spaces,
            tuple(sorted({t for s in spaces for t in context.tensors(s)})),
            "graph" if all(_dead(alive, a) for a in mine) else "weights" if _dead(without, mine[0]) else "start",
            _parameters(context, {a.leaf for a in mine}),
        )


def bundles(context: Context) -> Iterator[Bundles]:
    """The heads, groups and experts that are dead, where others of them are not."""
    for space in context.spaces:
        if context.bundled(space):
            lost = np.flatnonzero(context.units(space).dead)
            if 0 < len(lost) < space.size * space.copies:
                yield Bundles(space, tuple(lost.tolist()))


def _whole(context: Context) -> Iterator[tuple[str, Action]]:
    """The spaces all of whose units are dead, with an action that tells where those are."""
    found: dict[str, list[Action]] = {}
    freedom = Freedom(context.structure)
    for action in context.structure.actions.values():
        found.setdefault(action.space, []).append(action)
    for space in context.symmetry.spaces:
        mine = found.get(space.id, ())
        chosen = [a for a in mine if isinstance(a, UnitPermutation | Rotation)]
        if chosen and _dead(context, chosen[0]) and not any(map(freedom.meaningless, chosen)):
            yield space.id, chosen[0]


def _dead(context: Context, action: Action) -> bool:
    return bool(context.dead(action).all())


def _connected(context: Context, actions: dict[str, Action]) -> Iterator[set[str]]:
    """Spaces that some weight holds together, directly or by way of others."""
    program, factors = context.structure.program, context.structure.axes.factors
    waiting = dict.fromkeys(actions)
    held = {name: factors.holders.get(a.leaf, set()) & program.weights.keys() for name, a in actions.items()}
    while waiting:
        todo, found = [next(iter(waiting))], set[str]()
        while todo:
            top = todo.pop()
            found.add(top)
            waiting.pop(top, None)
            todo += [other for other in waiting if other not in todo and held[top] & held[other]]
        yield found


def _asked_again(context: Context) -> tuple[Context, Context]:
    """The network with all constant tensors at random numbers, and with all tensors."""
    program = context.canonical.program
    rng = np.random.default_rng(0)
    values: dict[str, Array] = {}
    still: set[str] = set()
    for name, stored in program.weights.items():
        tensor = program.model.tensors[stored]
        values[name] = rng.uniform(0.5, 1.5, tensor.shape)
        # What has decayed is not where an initialisation left it, though what is judged has zeros in its place.
        if name not in context.faint and _constant(tensor.read(), floating=tensor.floating):
            still.add(name)
    return _with(context, {n: v for n, v in values.items() if n in still}), _with(context, values)


def _constant(values: Array, *, floating: bool) -> bool:
    if not values.size or (values.size == 1 and not floating):
        return False
    first = values.reshape(-1)[0]
    return bool(np.all(values == first)) and (values.size > 1 or not first)


def _with(context: Context, values: dict[str, Array]) -> Context:
    """The network with other weights."""
    program = context.canonical.program
    changed = replace(
        program,
        weights={n: stored for n, stored in program.weights.items() if n not in values},
        tables={**program.tables, **values},
    )
    structure = replace(context.structure, program=changed)
    return replace(context, structure=structure, judged=structure)


def _parameters(context: Context, leaves: set[int]) -> int:
    """How many elements of weights belong to units of some leaves."""
    structure, sizes = context.structure, context.parameters
    total, seen = 0, set[str]()
    for name in sorted(set().union(*(structure.axes.factors.holders.get(x, ()) for x in leaves))):
        stored = structure.program.weights.get(name)
        if stored is None or stored in seen or stored not in sizes:
            continue
        seen.add(stored)
        alive = 1
        shape = structure.program.shapes[name]
        for f, n in zip(structure.axes.of[name], shape, strict=True):
            alive *= n - _covered(context, f, leaves, n)
        total += int(np.prod(shape, dtype=np.int64)) - alive
    return total


def _covered(context: Context, f: int, leaves: set[int], size: int) -> int:
    there = np.zeros(size, bool)
    for term in context.structure.expansion.terms(f):
        if not leaves.isdisjoint(term.leaves):
            there[term.positions] = True
    return int(there.sum())
