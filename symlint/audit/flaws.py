"""Flaws: what two rules say of one flaw, and what a rule would say of every model, is told once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from symlint.audit.outcome import Report
from symlint.lint.finding import Finding


def once(findings: Sequence[Finding]) -> list[Finding]:
    """The findings without those whose entries an earlier rule tells of, such as equal classes that never move."""
    ends = [finding for finding in findings if not finding.space and finding.facts.get("output") is not None]
    return [finding for finding in findings if finding.space or not any(_tells(other, finding) for other in ends)]


def unmet(reports: Sequence[Report]) -> tuple[tuple[Report, ...], tuple[str, ...], tuple[str, ...]]:
    """Of several models: the reports without declarations of what a model lacks, and those that no model answers.

    These are the names of mirrors, and equivariances in words.
    """
    if len(reports) < 2:
        return tuple(reports), (), ()
    read = [report for report in reports if report.finished]
    return tuple(map(met, reports)), _nowhere(read, "mirror"), _nowhere(read, "equivariance")


def _nowhere(reports: Sequence[Report], kind: str) -> tuple[str, ...]:
    """What is declared, of one kind, and absent of all models."""
    absent = [{f.facts[kind] for f in r.findings if f.facts.get("absent") and kind in f.facts} for r in reports]
    return tuple(sorted(set.intersection(*absent))) if absent else ()


def unknown_inputs(reports: Sequence[Report]) -> tuple[str, ...]:
    """The inputs that a configuration declares and none of the models that it is for has."""
    lacking = {name for report in reports for name in report.lacking}
    declared = ((r, one.name) for r in reports if r.settings and r.finished for one in r.settings.inputs)
    return tuple(sorted(lacking - {name for report, name in declared if name not in report.lacking}))


def met(report: Report) -> Report:
    """A report without declarations of tensors and inputs that the model lacks."""
    return replace(report, findings=tuple(f for f in report.findings if not f.facts.get("absent")))


def _tells(one: Finding, other: Finding) -> bool:
    """Whether one finding says all that the other says, of the same axis of the same output."""
    if one.rule >= other.rule or not other.units:
        return False
    axes = one.facts.get("axes"), other.facts.get("axis")
    same = bool(one.facts["output"] == other.facts.get("output"))
    return same and axes[0] == [axes[1]] and set(other.units) <= set(one.units)
