"""Branches: what is zero for every input, and goes with the sum that it ends in."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from symlint.evidence.context import Context
from symlint.lint.repairs import Remove
from symlint.model.graph import Model
from symlint.repair.plan import Repair
from symlint.repair.surgery.narrowing import Whole
from symlint.repair.surgery.reached import reached


def lifeless(chosen: Sequence[Repair]) -> list[Repair]:
    """The repairs that would take every unit of a space away."""
    return [repair for repair in chosen if isinstance(repair.remedy, Remove) and repair.whole]


def zeros(context: Context, whole: Whole) -> set[str]:
    """Names of the values of a file that depend on its inputs, and are zero for every input."""
    values = context.values
    names = {name: ref.name for name, ref in whole.lowering.values.items() if ref.items is None}
    return {n for n, t in names.items() if t in values and t in context.moving and values[t].zero.all()}


def bypassed(context: Context, whole: Whole, chosen: Sequence[Repair]) -> tuple[tuple[Repair, int], ...]:
    """The repairs that are done once such branches are left out, with their units; told without the file."""
    dead = lifeless(chosen)
    if not dead:
        return ()
    gone = _gone(context.symmetry.model, zeros(context, whole))
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
