"""Acceptance: which findings of a run somebody has accepted, by a baseline or by the configuration.

An entry is a finding without what may change by itself: the place by its structure, how much was affected, and its
level. Equal places are a multiset. A file is known by its path, relative to the baseline; one that has moved takes the
entries of a file that is not among those of the run.

An accepted finding is reported like any other and does not fail the run. What was accepted and is worse now is not.
"""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from symlint.audit.outcome import Gone, Report, Run, Standing, elsewhere
from symlint.lint.finding import Accepted, Finding, Level
from symlint.lint.places import structure
from symlint.lint.rule import Rule
from symlint.lint.settings import COMMAND, Acceptance
from symlint.model.errors import UsageProblem
from symlint.model.records import dataclass

_VERSION = 1
_LEVELS = {str(level): level for level in Level}


@dataclass(frozen=True, slots=True)
class Entry:
    """One accepted finding."""

    rule: str
    fingerprint: str
    level: Level
    units: int
    saves: int
    layer: str = ""
    since: str = ""
    """The day on which it was accepted."""
    reason: str = ""
    """Words that somebody has written into the file; they stay in it."""
    expires: str = ""

    @property
    def key(self) -> tuple[str, str]:
        """What it shares with a finding in the same place."""
        return self.rule, structure(self.fingerprint)

    @property
    def amount(self) -> int:
        """How much was affected: units, or what the repair would save."""
        return self.units or self.saves

    @property
    def words(self) -> str:
        """How much was affected, to be read."""
        number, noun = (self.units, "unit") if self.units or not self.saves else (self.saves, "parameter")
        return f"{number:,} {noun}{'' if number == 1 else 's'}" if number else "once"

    def expired(self, today: str) -> bool:
        """Whether its last day has passed."""
        return bool(self.expires) and self.expires < today

    def covers(self, finding: Finding) -> bool:
        """Whether a finding in the same place is no worse."""
        return finding.level <= self.level and finding.amount <= self.amount


@dataclass(frozen=True, slots=True)
class Match:
    """The findings of one model beside its entries."""

    covered: Mapping[int, Entry]
    """Position of a finding -> the entry that accepts it."""
    worse: Mapping[int, Entry]
    """Position of a finding -> the entry that it has outgrown."""
    left: tuple[Entry, ...]
    """Entries that no finding is left for."""


def match(findings: Sequence[Finding], entries: Iterable[Entry]) -> Match:
    """Give each finding the smallest entry of its place that covers it; what is left over on both sides is worse."""
    waiting: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in sorted(entries, key=lambda entry: (entry.level, entry.amount)):
        waiting[entry.key].append(entry)
    covered: dict[int, Entry] = {}
    worse: dict[int, Entry] = {}
    # From the largest down: what it leaves can still cover all that is smaller.
    order = sorted(range(len(findings)), key=lambda k: (-findings[k].level, -findings[k].amount))
    for k in order:
        mine = waiting[_key(findings[k])]
        fitting = next((entry for entry in mine if entry.covers(findings[k])), None)
        if fitting is not None:
            mine.remove(fitting)
            covered[k] = fitting
    for k in order:
        if k not in covered and (mine := waiting[_key(findings[k])]):
            worse[k] = mine.pop()
    return Match(covered, worse, tuple(entry for mine in waiting.values() for entry in mine))


def _key(finding: Finding) -> tuple[str, str]:
    return finding.rule, structure(finding.fingerprint)


@dataclass(frozen=True, slots=True)
class Baseline:
    """A file of accepted findings."""

    file: Path
    models: Mapping[str, tuple[Entry, ...]]
    """Path relative to the file -> its entries."""

    def key(self, path: str) -> str:
        """The name of a model in this baseline."""
        if elsewhere(path):
            return path
        try:
            return Path(os.path.relpath(path, self.file.absolute().parent)).as_posix()
        except ValueError:  # another drive
            return Path(path).absolute().as_posix()

    def stored(self, reports: Sequence[Report], files: Iterable[str]) -> list[str]:
        """For each report the name under which its entries are, that of a file that has moved included.

        Args:
            reports: some of a run.
            files: all models of that run.
        """
        present = set(map(self.key, files))
        absent = {name: entries for name, entries in self.models.items() if name not in present}
        names = []
        for report in reports:
            key = self.key(report.path)
            name = key if key in self.models else _moved(key, report, absent)
            absent.pop(name, None)
            names.append(name)
        return names

    def text(self) -> str:
        """The file's content: a line per entry, so that changes of it can be read and merged."""
        models = [
            f"  {json.dumps(name)}: [\n" + ",\n".join(f"    {json.dumps(_written(e))}" for e in entries) + "\n  ]"
            for name, entries in sorted(self.models.items())
            if entries
        ]
        lines = ",\n".join(models)
        return f'{{\n"symlint-baseline": {_VERSION},\n"models": {{\n{lines}\n}}\n}}\n'


def _moved(key: str, report: Report, absent: Mapping[str, tuple[Entry, ...]]) -> str:
    """The absent file of which a model is most likely another copy; its own name where there is none."""
    mine = Counter(map(_key, report.findings))
    shared = {name: (mine & Counter(entry.key for entry in entries)).total() for name, entries in absent.items()}
    alike = [name for name, number in shared.items() if number]
    last = key.rpartition("/")[2]
    return max(alike, key=lambda name: (shared[name], name.rpartition("/")[2] == last, name), default=key)


def taken(file: Path, reports: Iterable[Report], old: Baseline | None, unread: frozenset[str], today: str) -> Baseline:
    """A baseline of all that stands; what an old one says of the same findings is kept.

    Args:
        file: where it will be written.
        reports: of the run.
        old: what the file has held so far.
        unread: codes of the rules on files that could not be read, which nothing accepts.
        today: the day, as YYYY-MM-DD.
    """
    empty = Baseline(file, {})
    models = {}
    for report in reports:
        name = empty.key(report.path)
        findings = [finding for finding in report.findings if finding.rule not in unread]
        before = match(findings, old.models.get(name, ()) if old else ()).covered
        entries = [_entry(finding, before.get(k), today) for k, finding in enumerate(findings)]
        models[name] = tuple(sorted(entries, key=lambda entry: (entry.rule, entry.fingerprint)))
    return Baseline(file, models)


def _entry(finding: Finding, old: Entry | None, today: str) -> Entry:
    units = len(finding.units)
    new = Entry(finding.rule, finding.fingerprint, finding.level, units, finding.saves, finding.layer, since=today)
    return replace(new, since=old.since, reason=old.reason, expires=old.expires) if old else new


def read(file: Path) -> Baseline:
    """A baseline from its file; raises `UsageProblem` for what is none."""
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageProblem(f"{file}: cannot read the baseline: {error.strerror}; --write-baseline makes one") from error
    except ValueError as error:
        raise UsageProblem(f"{file} is no baseline: {error}") from error
    version = document.get("symlint-baseline") if isinstance(document, dict) else None
    if version != _VERSION:
        raise UsageProblem(f"{file} is no baseline of this symlint: write it again with --write-baseline")
    try:
        models = {str(name): tuple(map(_read, entries)) for name, entries in document["models"].items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageProblem(
            f"{file}: an entry cannot be read ({error}): write it again with --write-baseline"
        ) from error
    return Baseline(file, models)


def _written(entry: Entry) -> dict[str, Any]:
    optional = {"reason": entry.reason, "expires": entry.expires}
    return {
        "rule": entry.rule,
        "fingerprint": entry.fingerprint,
        "level": str(entry.level),
        "units": entry.units,
        "saves": entry.saves,
        "layer": entry.layer,
        "since": entry.since,
        **{key: value for key, value in optional.items() if value},
    }


def _read(entry: Mapping[str, Any]) -> Entry:
    words = {key: str(entry[key]) for key in ("layer", "since", "reason", "expires") if key in entry}
    level = _LEVELS[entry["level"]]
    return Entry(
        str(entry["rule"]), str(entry["fingerprint"]), level, int(entry["units"]), int(entry["saves"]), **words
    )


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
    return replace(report, findings=tuple(_by_configuration(f, by.get(id(f))) for f in report.findings))


def _by_configuration(finding: Finding, by: Acceptance | None) -> Finding:
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
