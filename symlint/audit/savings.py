"""Savings: what a fix of a model would take away in all, which is not what its findings save one by one.

The fix is carried out, in a folder that is thrown away, but nothing is run and nothing is proven.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from symlint.audit.outcome import Report
from symlint.errors import UnreadableModel
from symlint.lint.finding import Finding, Level
from symlint.lint.rule import Rule
from symlint.lint.settings import COMMAND, Settings
from symlint.model.load import load
from symlint.program.parameters import parameters
from symlint.program.translate import translate

_log = logging.getLogger(__name__)


def safety(report: Report) -> str:
    """The safety that `symlint fix` is to be given for what it can repair of a model."""
    return "bounded" if any(f.evidence == "bounded" for f in reparable(report)) else "exact"


def reparable(report: Report) -> list[Finding]:
    """The findings above notes that a fix repairs and nobody has accepted."""
    return [f for f in report.findings if f.fixable and f.level > Level.NOTE and f.accepted is None]


def savings(report: Report, rules: Sequence[Rule], settings: Settings) -> int | None:
    """Parameters that a fix takes away; None where it cannot be told, or where there is a limit to keep."""
    if not reparable(report) or settings.max_memory or settings.time_budget:
        return None
    # Imported here, since most models have nothing to repair.
    from symlint.repair.choice import SAFETY, acted_on
    from symlint.repair.fixing import foretold
    from symlint.repair.result import Wish

    drops = settings.origins.get("select") == COMMAND and bool(settings.select)
    evidence = SAFETY[safety(report)]
    wish = Wish(acted_on(settings, rules, safety(report), drops=drops), evidence=evidence, asked=settings.asked(rules))
    try:
        with TemporaryDirectory(prefix="symlint-") as folder:
            path, done = foretold(load(report.path), Path(folder), wish)
            return report.coverage.total - (_parameters(path) if done else report.coverage.total)
    except (UnreadableModel, MemoryError, OSError):
        return None
    except Exception:
        # Findings are true whether or not they can be repaired.
        _log.debug("%s: what a fix would take away cannot be told", report.path, exc_info=True)
        return None


def _parameters(path: Path) -> int:
    return sum(parameters(translate(load(str(path)))).values())
