"""Promises: what a fix would take away of a network, told without a change to its file."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property

from symlint.evidence.bounded import known
from symlint.evidence.context import Context
from symlint.lint.rule import Rule
from symlint.model.records import dataclass
from symlint.repair.plan import Key, Repair, Spared
from symlint.repair.promises.amount import amount
from symlint.repair.promises.intent import Forecast, Intent
from symlint.repair.units.branches import bypassed


@dataclass(frozen=True)
class Promise:
    """What would become of all that the rules find and can repair in a network."""

    context: Context
    """With the weights that are judged."""
    found: tuple[Repair, ...]

    @cached_property
    def taken(self) -> Mapping[Key, int]:
        """Repair -> the units, over all copies, or directions that go; what stays is not in it.

        What bounds prove counts for itself alone: exact findings are repaired without.
        """
        told: dict[Key, int] = {}
        for evidence in (("exact",), ("exact", "bounded")):
            mine = [r for r in self.found if r.finding.evidence in evidence]
            if any(r.finding.evidence == evidence[-1] for r in mine):
                told = {**self._plan(tuple(mine), evidence).taken, **told}
        return told

    @cached_property
    def reasons(self) -> Mapping[Key, str]:
        """Repair -> why none of it goes, of those that take nothing away."""
        told: dict[Key, str] = {}
        for plan in self._plans.values():
            told |= plan.intent.reasons
        return {key: reason for key, reason in told.items() if key not in self.taken}

    def parameters(
        self, rules: Collection[Rule], evidence: Collection[str], spared: Collection[Spared] = ()
    ) -> int | None:
        """The parameters that go in all, where a fix acts on these rules and this evidence, and spares what it is told.

        None where only carrying the repairs out tells.
        """
        asked = (r for r in self.found if r.finding.evidence in evidence and r.rule in rules)
        chosen = tuple(r for r in asked if not any(one.covers(r) for one in spared))
        return self._plan(chosen, tuple(evidence)).amount if chosen else None

    def _plan(self, chosen: tuple[Repair, ...], evidence: tuple[str, ...]) -> _Plan:
        key = tuple(repair.key for repair in chosen), evidence
        if key not in self._plans:
            if evidence not in self._forecasts:
                like = next(iter(self._forecasts.values()), None)
                self._forecasts[evidence] = Forecast(known(self.context, evidence), like=like)
            self._plans[key] = _Plan(self._forecasts[evidence], chosen)
        return self._plans[key]

    @cached_property
    def _plans(self) -> dict[tuple[tuple[Key, ...], tuple[str, ...]], _Plan]:
        return {}

    @cached_property
    def _forecasts(self) -> dict[tuple[str, ...], Forecast]:
        return {}


@dataclass(frozen=True)
class _Plan:
    """Some repairs, and what would become of them together."""

    forecast: Forecast
    chosen: Sequence[Repair]

    @cached_property
    def bypassed(self) -> Mapping[Key, int]:
        """The repairs that are done once branches of which nothing is alive are left out."""
        found = bypassed(self.forecast.context, self.forecast.whole, self.chosen)
        return {repair.key: removed for repair, removed in found}

    @cached_property
    def intent(self) -> Intent:
        """What the others would take away."""
        return self.forecast.of([r for r in self.chosen if r.key not in self.bypassed])

    @property
    def taken(self) -> Mapping[Key, int]:
        """Repair -> the units that go."""
        return {**self.intent.taken, **self.bypassed}

    @property
    def amount(self) -> int | None:
        """The parameters that go, where that can be told."""
        return None if self.bypassed else amount(self.forecast, self.intent, self.chosen)
