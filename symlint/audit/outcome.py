"""What an audit has come to: a report per model, what is told of all of them once, and the verdict.

Savings: what a fix of a model would take away in all, which is not what its findings save one by one.

It is told from the plan of the repairs where that is sure. Elsewhere the fix is carried out, in a folder that is thrown
away, but nothing is run and nothing is proven.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from symlint.evidence.context import Context
from symlint.lint.finding import Drop, Finding, Level, Skipped, Storing
from symlint.lint.rule import Rule
from symlint.lint.settings import COMMAND, Acceptance, Settings
from symlint.model.errors import UnreadableModel
from symlint.model.load import load
from symlint.model.records import dataclass
from symlint.program.translate import translate
from symlint.symmetry.spaces import Coverage, Space

if TYPE_CHECKING:
    from symlint.repair.plan import Wish
    from symlint.repair.promises import Promise


def elsewhere(path: str) -> bool:
    """Whether a path is an address rather than one of this machine's file system."""
    return "://" in path


_NOTHING = Coverage(0, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class Gone:
    """A finding that a baseline has accepted and that is there no more."""

    path: str
    rule: str
    layer: str
    amount: str
    """``3 units``, in words."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What became of all that was accepted beforehand."""

    baseline: str = ""
    """The file of the baseline; empty where there is none."""
    gone: tuple[Gone, ...] = ()
    unused: tuple[Acceptance, ...] = ()
    """Acceptances that no finding needs."""
    expired: tuple[Acceptance, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """What the audit of one file has found."""

    path: str
    """As given by the caller, with forward slashes."""
    hashed: Callable[[], str] = str
    """Gives the hash of the file; nobody waits for it whose report does not show it."""
    coverage: Coverage = _NOTHING
    findings: tuple[Finding, ...] = ()
    spaces: Mapping[str, Space] = field(default_factory=dict)
    """The spaces that findings speak of, by id."""
    layers: tuple[tuple[str, int], ...] = ()
    """Every layer with the elements of its weights."""
    incomplete: str = ""
    """Why the audit could not be finished; empty when it could."""
    skipped: tuple[Skipped, ...] = ()
    """The phase and the rules that a budget, the memory or Ctrl-C has cut short."""
    finished: frozenset[str] = frozenset()
    """Codes of the rules that have looked at all of it."""
    lacking: tuple[str, ...] = ()
    """Inputs of which a range is declared and that it does not have."""
    takes: int | None = None
    """Parameters that a fix would take away in all; None where nobody has asked, or it cannot be told."""
    settings: Settings | None = None
    """What it was judged by, where that is not what the run was asked."""

    @property
    def sha256(self) -> str:
        """Of the file's bytes; empty when they could not be read, or have changed since the audit."""
        return self.hashed()


@dataclass(frozen=True, slots=True)
class Run:
    """The reports of one call, and what they amount to."""

    reports: tuple[Report, ...]
    rules: tuple[Rule, ...]
    """The rules that took part."""
    missing: tuple[str, ...] = ()
    """Paths at which there is no model."""
    fail_on: str = "warning"
    seconds: float = 0.0
    interrupted: bool = False
    """Whether Ctrl-C has left anything out."""
    standing: Standing = Standing()
    config: str = ""
    """The configuration that was named for all models; empty for that nearest to each."""
    unmet: tuple[str, ...] = ()
    """Names of declared mirrors of which no model has a tensor, where there are several models."""
    unmet_equivariances: tuple[str, ...] = ()
    """The same of declared equivariances, in words, of which no model has the input."""
    unmet_inputs: tuple[str, ...] = ()
    """Names of declared inputs that no model has."""

    @property
    def findings(self) -> Iterator[Finding]:
        """All findings of all models."""
        return (finding for report in self.reports for finding in report.findings)

    def threshold(self, report: Report) -> str:
        """The level from which findings of one report fail the run, or ``never``."""
        return report.settings.fail_on if report.settings else self.fail_on

    def failing(self, report: Report) -> list[Finding]:
        """The findings of one report that fail the run."""
        lowest = self.threshold(report)
        if lowest == "never":
            return []
        return [f for f in report.findings if f.accepted is None and f.level >= Level[lowest.upper()]]

    @property
    def exit_code(self) -> int:
        """The first of 130 interrupted, 4 incomplete, 1 findings at or above the threshold, 3 no model, 0 clean."""
        if self.interrupted:
            return 130
        if any(report.incomplete for report in self.reports):
            return 4
        if any(map(self.failing, self.reports)):
            return 1
        return 0 if self.reports else 3

    @property
    def verdict(self) -> str:
        """The exit code in a word."""
        return {0: "pass", 1: "fail"}.get(self.exit_code, "incomplete")


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
