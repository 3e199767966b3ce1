"""Flaws: what two rules say of the same entries of an output is told once, by the rule that comes first."""

from __future__ import annotations

from collections.abc import Sequence

from symlint.lint.finding import Finding


def once(findings: Sequence[Finding]) -> list[Finding]:
    """The findings without those whose entries an earlier rule tells of, such as equal classes that never move."""
    return [finding for finding in findings if not any(_tells(other, finding) for other in findings)]


def _tells(one: Finding, other: Finding) -> bool:
    """Whether one finding says all that the other says, of the same axis of the same output."""
    if one.rule >= other.rule or not other.units or one.space or other.space:
        return False
    axes = one.facts.get("axes"), other.facts.get("axis")
    same = one.facts.get("output") is not None and one.facts.get("output") == other.facts.get("output")
    return same and axes[0] == [axes[1]] and set(other.units) <= set(one.units)
