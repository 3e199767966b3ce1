"""Removal: units that contribute nothing are cut off, and so are branches that are zero for every input."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import field

import numpy as np
from numpy.typing import NDArray

from symlint.evidence.context import Context
from symlint.lint.repairs import Remove
from symlint.model.graph import Model
from symlint.model.records import dataclass
from symlint.program.translate import lowered
from symlint.repair.plan import Repair
from symlint.repair.surgery.narrowing import agreed, reached
from symlint.symmetry.motion.motion import Weights
from symlint.symmetry.structure import Action, Structure

Dead = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Removal:
    """How many units of each leaf are left, and the order that puts those first."""

    widths: Mapping[int, int]
    orders: Mapping[str, NDArray[np.int64]]
    """Permutation -> its element (copies..., units)."""
    refused: Mapping[int, str] = field(default_factory=dict)
    """Why leaves keep their width that could do with less."""


def plan(context: Context, dead: Mapping[str, Dead], align: int = 1) -> Removal:
    """What can go of the units that are dead, by space and copy-major.

    Units that lie in the same tensors as others of one size go together with them or stay.
    """
    structure = context.structure
    kept = agreed(structure, wanted(context, dead, align))
    orders = {}
    for action, rows in _rows(context, dead):
        if action.leaf in kept:
            orders[action.id] = np.argsort(rows, axis=-1, kind="stable")
    return Removal(kept, orders)


def wanted(context: Context, dead: Mapping[str, Dead], align: int = 1) -> dict[int, int]:
    """The widths that spaces could do with, each for itself.

    Every copy of a space loses as many units as the copy with the fewest dead ones. Where all are dead one stays,
    unless every tensor holds other units beside them. Widths that fall are multiples of `align`.
    """
    structure = context.structure
    found: dict[int, int] = {}
    for action, rows in _rows(context, dead):
        size = structure.axes.factors.size(action.leaf)
        least = 0 if _beside(context, action.leaf) else 1
        width = max(least, size - int(rows.sum(axis=-1).min()))
        width = aligned(structure, action.leaf, width, align)
        if width < size:
            found[action.leaf] = width
    return found


def _rows(context: Context, dead: Mapping[str, Dead]) -> Iterator[tuple[Action, Dead]]:
    """The permutations of spaces, and which of their units are dead, shape (copies..., units)."""
    size = context.structure.axes.factors.size
    for space, mask in dead.items():
        action = context.structure.permutation(space)
        yield action, mask.reshape(*map(size, action.copies), size(action.leaf))


def aligned(structure: Structure, leaf: int, width: int, align: int) -> int:
    """A width as the next multiple of `align`; heads and groups are counted, not aligned: what is in them is."""
    size = structure.axes.factors.size(leaf)
    if leaf in structure.nested:
        return width
    return min(size, -(-width // align) * align)


def _beside(context: Context, leaf: int) -> bool:
    """Whether the axes of all weights that hold a leaf hold others beside it."""
    structure = context.structure
    terms, of, factors = structure.expansion.terms, structure.axes.of, structure.axes.factors
    holders = factors.holders.get(leaf, set()) & structure.program.weights.keys()
    held = [terms(f) for name in holders for f in of[name] if leaf in factors.leaves(f)]
    return all(any(leaf not in term.leaves for term in row) for row in held)


def arrange(weights: Weights, removal: Removal) -> None:
    """Put the units that stay first; heads move after what is in them."""
    actions = [weights.structure.actions[name] for name in removal.orders]
    for action in sorted(actions, key=lambda a: -len(a.copies)):
        action.move(weights, removal.orders[action.id])


def lifeless(chosen: Sequence[Repair]) -> list[Repair]:
    """The repairs that would take every unit of a space away."""
    return [repair for repair in chosen if isinstance(repair.remedy, Remove) and repair.whole]


def zeros(context: Context) -> set[str]:
    """Names of the values of a file that depend on its inputs, and are zero for every input."""
    values = context.values
    names = {name: ref.name for name, ref in lowered(context.structure.program).values.items() if ref.items is None}
    return {n for n, t in names.items() if t in values and t in context.moving and values[t].zero.all()}


def bypassed(context: Context, chosen: Sequence[Repair]) -> tuple[tuple[Repair, int], ...]:
    """The repairs that are done once such branches are left out, with their units; told without the file."""
    dead = lifeless(chosen)
    if not dead:
        return ()
    gone = _gone(context.symmetry.model, zeros(context))
    return tuple((r, len(r.finding.units)) for r in dead if not gone.isdisjoint(r.finding.tensors))


def _gone(model: Model, zero: Collection[str]) -> set[str]:
    """The values and stored tensors that go with the sums of which one part is zero."""
    nodes, ends = model.graph.nodes, model.graph.outputs
    before = reached(nodes, ends, {node.first for node in nodes}, {})[1]
    spared = {node.first for node in nodes if before.isdisjoint(node.outputs)}
    instead: dict[str, str] = {}
    for node in nodes:
        if node.op != "Add" or node.first in ends:
            continue
        names = [instead.get(name, name) for name in node.inputs]
        for value, other in (names, names[::-1]):
            if value in zero and model.shapes.get(node.first) == model.shapes.get(other, ()):
                instead[node.first] = other
                break
    if not instead:
        return set()
    left, used = reached([node for node in nodes if node.first not in instead], ends, spared, instead)
    kept = {node.first for node in left}
    made = {name for node in nodes if node.first not in kept for name in node.outputs}
    unread = {name for name in model.tensors if name in before and name not in used and name not in model.bound}
    return made | unread
