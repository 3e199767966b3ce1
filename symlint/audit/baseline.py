"""The baseline: what stood when a gate was put up, and does not fail it.

An entry is a finding without what may change by itself: the place by its structure, how much was affected, and its
level. Equal places are a multiset. A file is known by its path, relative to the baseline; one that has moved takes the
entries of a file that is not among those of the run.
"""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from symlint.audit.addresses import elsewhere
from symlint.audit.outcome import Report
from symlint.lint.finding import Finding, Level
from symlint.lint.fingerprint import structure
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
