"""Promises: how many units of each finding a fix would take away, told without a change to the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from symlint.evidence.bounded import known
from symlint.evidence.context import Context
from symlint.repair.intent import Forecast
from symlint.repair.plan import Key, Repair
from symlint.repair.units.branches import bypassed


def promises(context: Context, found: Sequence[Repair]) -> Mapping[Key, int]:
    """Repair -> the units, over all copies, or directions that go; what stays is not in it.

    Args:
        context: the network.
        found: all that the rules find and can repair. What bounds prove counts for itself alone: exact findings are
            repaired without.
    """
    told: dict[Key, int] = {}
    for evidence in (("exact",), ("exact", "bounded")):
        mine = [r for r in found if r.finding.evidence in evidence]
        if any(r.finding.evidence == evidence[-1] for r in mine):
            told = {**_promised(known(context, evidence), mine), **told}
    return told


def _promised(context: Context, chosen: Sequence[Repair]) -> dict[Key, int]:
    forecast = Forecast(context)
    gone = {repair.key: removed for repair, removed in bypassed(context, forecast.whole, chosen)}
    return {**forecast.of([r for r in chosen if r.key not in gone]).taken, **gone}
