"""How serious a share of affected units is."""

from __future__ import annotations

from symlint.finding import Level

HALF = 0.5
MANY = 8


def by_share(affected: int, total: int) -> Level:
    """Error where half of a space or more is affected, at least eight units; else warning."""
    return Level.ERROR if affected >= MANY and affected / total >= HALF else Level.WARNING
