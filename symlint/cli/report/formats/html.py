"""The report as one page: the verdict, what was not audited, a map of each network, and a card per finding."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from symlint.audit.outcome import Report, Run
from symlint.audit.savings import reparable, safety
from symlint.cli.report import Style
from symlint.cli.report.full import architectural, consequences, node
from symlint.cli.report.page.blocks import drawn
from symlint.cli.report.page.rendering import render
from symlint.cli.report.words import count, listed, number, ranges, share
from symlint.lint.finding import Finding, Level
from symlint.symmetry.spaces import Space

_CARDS = 400
"""Findings of a model that are shown, the highest levels first."""
_UNITS, _TENSORS, _FACTS, _SPECTRA = 24, 6, 60, 3
"""Units, tensors, and characters of a fact that are told; spectra that are drawn."""


@dataclass(frozen=True, slots=True)
class _Card:
    """A finding, in the words of the page."""

    id: str
    finding: Finding
    level: str
    node: str
    tolerance: str
    units: str
    strip: Any
    spectra: tuple[tuple[str, Any], ...]
    """Captions and figures."""
    more: int
    """Spectra that are not drawn."""
    saves: str
    tensors: str
    accepted: str
    consequences: tuple[tuple[str, str], ...]
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
    size = 0 if space is None else space.copies if finding.spectra else space.size * space.copies
    fits = finding.units and size > max(finding.units)
    saved = f"{count(finding.saves, 'parameter')} ({share(finding.saves, one.coverage.total)} of the model)"
    label = f"{len(finding.units)} of {size} units"
    return _Card(
        anchor,
        finding,
        str(finding.level),
        node(finding),
        number(finding.facts["tolerance"]) if isinstance(finding.facts.get("tolerance"), float) else "",
        ranges(finding.units, _UNITS),
        strip(finding.units, size, label) if fits else "",
        tuple(_drawn(finding, space)),
        max(len(finding.spectra) - _SPECTRA, 0),
        saved if finding.saves else "",
        listed(finding.tensors, _TENSORS),
        finding.accepted.reason or finding.accepted.by if finding.accepted else "",
        tuple(consequences(finding)),
        tuple(_facts(finding)),
        _command(one, finding),
    )


def _drawn(finding: Finding, space: Space | None) -> Iterator[tuple[str, Any]]:
    """The spectra of a finding, each with what it shows."""
    from symlint.cli.report.page.figures import spectrum

    for one in finding.spectra[:_SPECTRA]:
        told = f"rank {one.rank} of {one.bound}"
        several = space is not None and space.copies > 1
        caption = f"{one.copy}: {told}" if several else told
        label = f"{one.rank} singular values above a gap, of {one.bound}; noise {number(one.noise)}"
        yield caption, spectrum(one.values, one.noise, label)


def _facts(finding: Finding) -> Iterator[tuple[str, str]]:
    """The numbers that the message rests on, as far as they are short."""
    for name, value in finding.facts.items():
        items = value if isinstance(value, (list, tuple)) else [value]
        text = listed(map(number, items))
        if name not in ("tolerance", "start") and text and len(text) <= _FACTS and not isinstance(value, Mapping):
            yield name.replace("_", " "), text


def _command(one: Report, finding: Finding) -> str:
    """What repairs it."""
    if not finding.fixable:
        return ""
    asked = f" --safety {safety(one)}" if finding in reparable(one) and safety(one) != "exact" else ""
    return f"symlint fix {shlex.quote(one.path)} -o OUT --select {finding.rule}{asked}"
