"""Which findings a fix acts on."""

from __future__ import annotations

from collections.abc import Sequence

from symlint.lint.rule import Rule
from symlint.lint.settings import Settings

SAFETY = {"exact": ("exact",), "bounded": ("exact", "bounded"), "all": ("exact", "bounded", "heuristic")}
"""How much a fix may rely on -> the evidence of findings that it acts on."""


def acted_on(settings: Settings, rules: Sequence[Rule], safety: str, *, drops: bool) -> list[Rule]:
    """The rules whose findings are repaired; what is redundant in every network only where it is asked for.

    What is said of a gauge for a target is always acted on: the function stays.
    """
    wanted = [r for r in settings.chosen(rules) if r.repair and r.evidence in (*SAFETY[safety], "gauge")]
    return [r for r in wanted if drops or r.repair != "drop"]
