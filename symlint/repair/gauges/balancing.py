"""Balancing as a repair: new values for all that rescalings move, or for what rules found with a target."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from symlint.evidence.context import Context
from symlint.model.graph import Array
from symlint.model.records import dataclass
from symlint.repair.plan import Repair, repairs
from symlint.repair.result import Done, Wish
from symlint.symmetry.gauge.balance import Aim, balanced
from symlint.symmetry.gauge.scales import Scales, two_sided
from symlint.symmetry.gauge.seen import chains

AIMS: Mapping[str, Aim] = {"int8": "rounding", "float16": "norm"}
"""Target -> what the gauge for it has least of."""


@dataclass(frozen=True, slots=True)
class Balancing:
    """New values of stored tensors, and what they repair."""

    values: Mapping[str, Array]
    done: tuple[Done, ...]
    repairs: tuple[Repair, ...] = ()


def balancing(context: Context, wish: Wish, wanted: Callable[[Iterable[Repair]], Sequence[Repair]]) -> Balancing | None:
    """What a wish asks for: the gauge for its target where rules found something, or the whole network balanced.

    Args:
        context: of the network.
        wish: what was asked of the fix.
        wanted: leaves out what is accepted.
    """
    target, structure = wish.asked.target, context.structure
    aim = AIMS.get(target, "rounding")
    rules = [rule for rule in wish.rules if rule.repair == "balance" and target in rule.targets]
    found = tuple(wanted(repairs(context, rules, ("gauge",))))
    if wish.balance and not (found and aim != "rounding"):
        values = balanced(structure)
        done = Done("SYM701", "unbalanced-scales", f"{len(values)} tensors", 0, 0, "scales were balanced")
        return Balancing(values, (done,)) if values else None
    values = balanced(structure, aim, _actions(context, {r.space for r in found})) if found else {}
    told = (Done(r.rule.code, r.rule.name, r.where, 0, 0, r.finding.message) for r in found)
    return Balancing(values, tuple(told), found) if values else None


def _actions(context: Context, spaces: set[str]) -> set[str]:
    """The rescalings of all spaces that share weights with these, directly or through others."""
    scales = Scales(context.structure, two_sided(context.structure))
    found: set[str] = set()
    for chain in chains(scales):
        actions = [scales.actions[k] for k in chain]
        if not spaces.isdisjoint(action.space for action in actions):
            found |= {action.id for action in actions}
    return found
