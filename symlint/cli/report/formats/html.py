"""The report as one page: the verdict, what was not audited, a map of each network, and a card per finding."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from symlint.audit.outcome import Report, Run
from symlint.audit.savings import reparable, safety
from symlint.cli.report import Style
from symlint.cli.report.full import architectural
from symlint.cli.report.page.blocks import drawn
from symlint.cli.report.page.rendering import render
from symlint.cli.report.words import count, listed, number, ranges, share
from symlint.lint.finding import Finding, Level

_CARDS = 400
"""Findings of a model that are shown, the highest levels first."""
_UNITS, _TENSORS, _FACTS = 24, 6, 60
"""Units, tensors, and characters of a fact that are told."""


@dataclass(frozen=True, slots=True)
class _Card:
    """A finding, in the words of the page."""

    id: str
    finding: Finding
    level: str
    tolerance: str
    units: str
    strip: Any
    saves: str
    tensors: str
    accepted: str
    facts: tuple[tuple[str, str], ...]
    command: str


def report(run: Run, style: Style) -> str:  # noqa: ARG001 - a page looks the same everywhere
    """The page."""
    models = [_model(run, k, one) for k, one in enumerate(run.reports)]
    return render(
        "audit.html",
        verdict=run.verdict,
        fail_on=run.fail_on,
        rules=sum(not rule.on_failure for rule in run.rules),
        missing=run.missing,
        models=models,
    )


def _model(run: Run, index: int, one: Report) -> dict[str, Any]:
    free = [finding for finding in one.findings if architectural(finding)]
    order = sorted((f for f in one.findings if not architectural(f)), key=lambda finding: -finding.level)
    cards = [_card(one, finding, f"m{index}f{k}") for k, finding in enumerate(order[:_CARDS])]
    counts = [sum(f.level is level for f in one.findings) for level in (Level.ERROR, Level.WARNING, Level.NOTE)]
    failed = "incomplete" if one.incomplete else "fail" if run.failing(one) else "pass"
    takes = "" if one.takes is None else f"{one.takes:,} ({share(one.takes, one.coverage.total)})"
    return {
        "path": one.path,
        "verdict": failed,
        "counts": counts,
        "total": one.coverage.total,
        "audited": "" if one.incomplete else share(one.coverage.audited, one.coverage.total),
        "takes": takes,
        "incomplete": one.incomplete,
        "skipped": [f"{item.name}: {item.reason}" for item in one.skipped],
        "reasons": [(why, f"{n:,.0f} parameters") for why, n in one.coverage.reasons],
        "map": drawn(one.layers, _levels(cards)),
        "cards": cards,
        "free": listed(f"{n} {name}" for name, n in sorted(Counter(f.name for f in free).items())),
        "left": len(order) - len(cards),
    }


def _levels(cards: Sequence[_Card]) -> dict[str, tuple[Level, str]]:
    """Layer -> its highest level, and where that is told."""
    found: dict[str, tuple[Level, str]] = {}
    for card in cards:
        found.setdefault(card.finding.layer, (card.finding.level, card.id))
    return found


def _card(one: Report, finding: Finding, anchor: str) -> _Card:
    from symlint.cli.report.page.figures import strip

    space = one.spaces.get(finding.space or "")
    size = space.size * space.copies if space else 0
    fits = finding.units and size > max(finding.units)
    saved = f"{count(finding.saves, 'parameter')} ({share(finding.saves, one.coverage.total)} of the model)"
    label = f"{len(finding.units)} of {size} units"
    return _Card(
        anchor,
        finding,
        str(finding.level),
        number(finding.facts["tolerance"]) if isinstance(finding.facts.get("tolerance"), float) else "",
        ranges(finding.units, _UNITS),
        strip(finding.units, size, label) if fits else "",
        saved if finding.saves else "",
        listed(finding.tensors, _TENSORS),
        finding.accepted.reason or finding.accepted.by if finding.accepted else "",
        tuple(_facts(finding)),
        _command(one, finding),
    )


def _facts(finding: Finding) -> Iterator[tuple[str, str]]:
    """The numbers that the message rests on, as far as they are short."""
    for name, value in finding.facts.items():
        text = number(value)
        if name != "tolerance" and value not in ([], {}, "") and len(text) <= _FACTS:
            yield name.replace("_", " "), text


def _command(one: Report, finding: Finding) -> str:
    """What repairs it."""
    if not finding.fixable:
        return ""
    asked = f" --safety {safety(one)}" if finding in reparable(one) and safety(one) != "exact" else ""
    return f"symlint fix {shlex.quote(one.path)} -o OUT --select {finding.rule}{asked}"
