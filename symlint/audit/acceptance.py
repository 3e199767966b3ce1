"""Acceptance: which findings of a run somebody has accepted, by a baseline or by the configuration.

An accepted finding is reported like any other and does not fail the run. What was accepted and is worse now is not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from symlint.audit.addresses import elsewhere
from symlint.audit.baseline import Baseline, Entry, Match, match
from symlint.audit.outcome import Gone, Report, Run, Standing
from symlint.lint.acceptance import Acceptance
from symlint.lint.finding import Accepted, Finding
from symlint.lint.fingerprint import structure
from symlint.lint.rule import Rule
from symlint.lint.settings import COMMAND
from symlint.model.records import dataclass

BASELINE, CONFIGURATION = "baseline", "configuration"


@dataclass(frozen=True, slots=True)
class Accepting:
    """Says of single reports what is accepted, before the others of their run are there."""

    files: tuple[str, ...]
    """All models of the run."""
    unread: frozenset[str]
    """Codes of the rules on files that could not be read, which nothing accepts."""
    today: str
    """The day that acceptances are to outlive, as YYYY-MM-DD."""
    baseline: Baseline | None = None

    def __call__(self, report: Report) -> Report:
        """The report with its accepted findings."""
        if self.baseline:
            (report,), _, _ = _beside([report], self.baseline, self.today, self.files)
        return _configured(report, self.unread, self.today, set())

    def singly(self, files: Iterable[str]) -> Iterator[Accepting]:
        """For each of these models what accepts findings of it, with no more than that takes."""
        if self.baseline is None:
            yield from (replace(self, files=()) for _ in files)
            return
        base, present = self.baseline, set(map(self.baseline.key, self.files))
        absent = {name: entries for name, entries in base.models.items() if name not in present}
        for file in files:
            key = base.key(file)
            mine = {key: base.models[key]} if key in base.models else absent
            yield replace(self, files=(file,), baseline=replace(base, models=mine))


def accepting(files: Iterable[str], rules: Sequence[Rule], today: str, baseline: Baseline | None = None) -> Accepting:
    """What accepts findings of these files, by a baseline or by the configuration of each."""
    return Accepting(tuple(files), frozenset(rule.code for rule in rules if rule.on_failure), today, baseline)


def settled(run: Run, baseline: Baseline | None, today: str) -> tuple[Run, Baseline | None]:
    """The run with its accepted findings, and the baseline without what is gone.

    Args:
        run: as the engine has left it.
        baseline: what stood before.
        today: the day that acceptances are to outlive, as YYYY-MM-DD.
    """
    unread = frozenset(rule.code for rule in run.rules if rule.on_failure)
    reports = run.reports
    gone: list[Gone] = []
    pruned = baseline
    if baseline:
        reports, gone, pruned = _beside(reports, baseline, today, [report.path for report in reports])
    used: set[Acceptance] = set()
    reports = tuple(_configured(report, unread, today, used) for report in reports)
    tables = [a for report in reports if report.settings for a in report.settings.accept]
    expired = tuple(a for a in dict.fromkeys(tables) if a.expired(today))
    unused = tuple(a for a in dict.fromkeys(tables) if a not in used and a not in expired and _sought(a, run))
    file = str(baseline.file) if baseline else ""
    return replace(run, reports=reports, standing=Standing(file, tuple(gone), unused, expired)), pruned


def _beside(
    reports: Sequence[Report], baseline: Baseline, today: str, files: Iterable[str]
) -> tuple[tuple[Report, ...], list[Gone], Baseline]:
    """Reports, of a run over some files, beside a baseline: what it accepts, what is gone, and it without that."""
    models = {name: entries for name, entries in baseline.models.items() if _exists(baseline, name)}
    settled_reports, gone = [], []
    for report, name in zip(reports, baseline.stored(reports, files), strict=True):
        entries = [entry for entry in baseline.models.get(name, ()) if not entry.expired(today)]
        found = match(report.findings, entries)
        missing = [entry for entry in found.left if entry.rule in report.finished]
        settled_reports.append(replace(report, findings=tuple(_judged(report.findings, found))))
        gone += [Gone(report.path, entry.rule, entry.layer, entry.words) for entry in missing]
        if name in baseline.models:
            models[name if name in models else baseline.key(report.path)] = _pruned(report, entries, found, missing)
    return tuple(settled_reports), gone, Baseline(baseline.file, models)


def _exists(baseline: Baseline, name: str) -> bool:
    return elsewhere(name) or (baseline.file.absolute().parent / name).exists()


def _judged(findings: Sequence[Finding], found: Match) -> Iterator[Finding]:
    for k, finding in enumerate(findings):
        if k in found.covered:
            entry = found.covered[k]
            yield replace(finding, accepted=Accepted(BASELINE, entry.reason, entry.expires))
        elif k in found.worse:
            entry = found.worse[k]
            yield replace(finding, worse_than=f"{entry.words}, {entry.level}")
        else:
            yield finding


def _pruned(report: Report, entries: Iterable[Entry], found: Match, missing: Sequence[Entry]) -> tuple[Entry, ...]:
    """The entries that are needed still, none larger than the finding that needs it."""
    now = Counter(entries)
    now.subtract(missing)
    for k, entry in found.covered.items():
        finding = report.findings[k]
        now[entry] -= 1
        now[replace(entry, level=finding.level, units=len(finding.units), saves=finding.saves)] += 1
    return tuple(sorted(now.elements(), key=lambda entry: (entry.rule, entry.fingerprint)))


def _configured(report: Report, unread: frozenset[str], today: str, used: set[Acceptance]) -> Report:
    """A report with what its configuration accepts; adds to the acceptances that were of use."""
    tables = [a for a in (report.settings.accept if report.settings else ()) if not a.expired(today)]
    open_for = [finding for finding in report.findings if finding.rule not in unread] if tables else []
    by: dict[int, Acceptance] = {}
    for table in tables:
        mine = [f for f in open_for if table.names(f) and id(f) not in by]
        by |= dict.fromkeys(map(id, mine), table)
    # Of places that are equal any may have been meant: their numbers depend on what a file lists first.
    for table in (table for table in tables if table.fingerprint and table not in by.values()):
        same = (f for f in open_for if structure(f.fingerprint) == structure(table.fingerprint) and id(f) not in by)
        if (other := next(same, None)) is not None:
            by[id(other)] = table
    used |= set(by.values())
    return replace(report, findings=tuple(_accepted(f, by.get(id(f))) for f in report.findings))


def _accepted(finding: Finding, by: Acceptance | None) -> Finding:
    if by is None:
        return finding
    return replace(finding, accepted=Accepted(CONFIGURATION, by.reason, by.expires), worse_than="")


def _sought(acceptance: Acceptance, run: Run) -> bool:
    """Whether the run would have found what an acceptance names, were it there."""
    narrowed = any(r.settings and COMMAND in map(r.settings.origins.get, ("select", "ignore")) for r in run.reports)
    if not acceptance.rule:
        return not narrowed and not any(report.incomplete for report in run.reports)
    finished = {code for report in run.reports for code in report.finished}
    return any(acceptance.speaks_of(rule.code, rule.name) for rule in run.rules if rule.code in finished)
