"""Sparing: what a fix of a model leaves alone, since somebody has accepted it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from symlint.audit.engine import judged
from symlint.audit.outcome import Report
from symlint.evidence.context import Context
from symlint.lint.finding import Accepted, Finding
from symlint.lint.repairs import Storing
from symlint.lint.rule import Rule
from symlint.lint.settings import Settings
from symlint.model.load import load
from symlint.model.records import dataclass
from symlint.repair.plan import Spared, repairable, storing
from symlint.symmetry.inference import examine


@dataclass(frozen=True, slots=True)
class Sparing:
    """What is accepted of a model."""

    repairs: tuple[Spared, ...] = ()
    places: frozenset[tuple[str, str]] = frozenset()
    """Rule and place of all of it, what no repair is known for included."""


def sparing(
    path: str, settings: Settings, rules: Sequence[Rule], accepts: Callable[[Report], Report] | None
) -> Sparing:
    """What a fix of a model is to leave alone.

    Args:
        path: of the model.
        settings: what it is judged by.
        rules: all that are installed.
        accepts: gives a report of it what is accepted; None where nothing is.

    Raises UnreadableModel.
    """
    if accepts is None:
        return Sparing()
    symmetry, structure = examine(settings.with_states(load(path)))
    context = Context(symmetry, structure, settings.asked(rules))
    report = accepts(replace(judged(path, context, settings.chosen(rules), settings), settings=settings))
    places = frozenset((f.rule, place(f, report)) for f in report.findings if f.accepted)
    return Sparing(spared(report, context, rules), places)


def spared(report: Report, context: Context, rules: Sequence[Rule]) -> tuple[Spared, ...]:
    """The repairs of what is accepted."""
    return tuple(_spared(report, context, {rule.code: rule for rule in rules}))


def place(finding: Finding, report: Report) -> str:
    """Where a finding is, in the words of a fix."""
    space = report.spaces.get(finding.space or "")
    return space.name if space else finding.layer or finding.node


def _spared(report: Report, context: Context, rules: Mapping[str, Rule]) -> Iterator[Spared]:
    for finding in report.findings:
        if finding.accepted is None or finding.repair is None:
            continue
        rule, why = rules[finding.rule], _words(finding.accepted)
        if isinstance(finding.repair, Storing):
            yield Spared(storing(rule, finding, finding.repair), why)
        else:
            yield from (Spared(repair, why) for repair in repairable(context, rule, [finding]))


def _words(accepted: Accepted) -> str:
    return f"accepted: {accepted.reason}" if accepted.reason else f"accepted by the {accepted.by}"
