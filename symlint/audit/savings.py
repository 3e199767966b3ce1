"""Savings: what a fix of a model would take away in all, which is not what its findings save one by one.

It is told from the plan of the repairs where that is sure. Elsewhere the fix is carried out, in a folder that is thrown
away, but nothing is run and nothing is proven.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from symlint.audit.outcome import Report
from symlint.evidence.context import Context
from symlint.lint.finding import Finding, Level
from symlint.lint.repairs import Drop, Storing
from symlint.lint.rule import Rule
from symlint.lint.settings import COMMAND, Settings
from symlint.model.errors import UnreadableModel
from symlint.model.load import load
from symlint.program.translate import translate

if TYPE_CHECKING:
    from symlint.repair.plan import Wish
    from symlint.repair.promises import Promise

_log = logging.getLogger(__name__)


def safety(report: Report) -> str:
    """The safety that `symlint fix` is to be given for what it can repair of a model."""
    return "bounded" if any(f.evidence == "bounded" for f in reparable(report)) else "exact"


def reparable(report: Report) -> list[Finding]:
    """The findings above notes that a fix repairs and nobody has accepted."""
    return [f for f in report.findings if f.fixable and f.level > Level.NOTE and f.accepted is None]


def savings(
    report: Report, context: Context, promise: Promise | None, rules: Sequence[Rule], settings: Settings
) -> int | None:
    """Parameters that a fix takes away; None where it cannot be told, or where there is a limit to keep."""
    if not reparable(report) or settings.max_memory or settings.time_budget:
        return None
    # Imported here, since most models have nothing to repair.
    from symlint.audit.remainder import spared
    from symlint.repair.plan import SAFETY, Wish, acted_on

    drops = settings.origins.get("select") == COMMAND and bool(settings.select)
    evidence, acting = SAFETY[safety(report)], acted_on(settings, rules, safety(report), drops=drops)
    codes, asked = {rule.code for rule in acting}, settings.asked(rules)
    plain = not any(isinstance(f.repair, Drop | Storing) for f in report.findings if f.rule in codes)
    try:
        left = spared(report, context, rules)
        planned = promise.parameters(acting, evidence, left) if promise is not None and plain else None
        wish = Wish(acting, evidence=evidence, asked=asked, spared=left)
        return _carried_out(report, context.opened, wish) if planned is None else planned
    except (UnreadableModel, MemoryError, OSError):
        return None
    except Exception:
        # Findings are true whether or not they can be repaired.
        _log.debug("%s: what a fix would take away cannot be told", report.path, exc_info=True)
        return None


def _carried_out(report: Report, context: Context, wish: Wish) -> int:
    from symlint.repair.fixing import foretold

    with TemporaryDirectory(prefix="symlint-") as folder:
        path, done = foretold(context.symmetry.model, Path(folder), wish, (context.symmetry, context.structure))
        return report.coverage.total - (_parameters(path) if done else report.coverage.total)


def _parameters(path: Path) -> int:
    return sum(translate(load(str(path))).parameters.values())
