"""What is lost as a whole: branches of which nothing reaches an output, and heads, groups or experts without effect."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

import numpy as np

from symlint.evidence.context import Context
from symlint.evidence.ranks.side import Freedom
from symlint.model.graph import Array
from symlint.model.records import dataclass
from symlint.symmetry.actions.permutation import UnitPermutation
from symlint.symmetry.actions.rotation import Rotation
from symlint.symmetry.spaces import Space
from symlint.symmetry.structure import Action

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
