"""How serious a share of affected units is."""

from __future__ import annotations

from collections.abc import Mapping

from symlint.evidence.context import Context
from symlint.lint.finding import Level
from symlint.lint.rule import Rule

SHARES: Mapping[str, float] = {"error-share": 0.5, "error-units": 8, "error-model": 0.01, "note-model": 0.0}
"""The options of every rule that counts units: an error takes this share of a space, so many units, and this share of
the model's parameters; what is below the last share of the model is no more than a note."""


def by_share(context: Context, rule: Rule, affected: int, total: int, saves: int | None = None) -> Level:
    """The level of a finding on some units of a space.

    Args:
        context, rule: of the finding.
        affected, total: units of the space.
        saves: parameters that the repair would remove; None where the share of the model says nothing.
    """
    part = 1.0 if saves is None else saves / max(context.symmetry.coverage.total, 1)
    if part < context.option(rule, "note-model"):
        return Level.NOTE
    many = affected >= context.option(rule, "error-units") and part >= context.option(rule, "error-model")
    return Level.ERROR if many and affected / total >= context.option(rule, "error-share") else Level.WARNING
