"""The cache: a folder with a file of JSON for each report, found by all that a report depends on.

That is the content of the model, of its external data and of what is read beside it; the source of symlint and of the
packages of rules and operators; the settings, less those that only judge findings. The path is not among it. A file
that cannot be read is as good as none, and the folder may be removed at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cache
from importlib.metadata import PackageNotFoundError, entry_points, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from symlint import __version__
from symlint.audit import record
from symlint.audit.engine import Job
from symlint.audit.outcome import Report, reparable
from symlint.evidence.options import surface
from symlint.lint.rule import Rule
from symlint.lint.settings import COMMAND, Settings
from symlint.model import states
from symlint.model.errors import UnreadableModel, UsageProblem
from symlint.model.load import files
from symlint.model.records import dataclass
from symlint.model.stored import StoredFile

_FORM = 1
"""Of the records; others are not read."""
_MOST = 1 << 30
"""Bytes of reports in a folder; before a run those that were used the longest ago go."""
_OURS = re.compile(r"[0-9a-f]{64}\.json|[0-9a-f]{16}\w+\.tmp")
_JUDGING = ("fail_on", "exclude", "accept", "per_file_ignores", "per_file_levels", "file", "origins")
"""Settings on which no report depends: they choose files, or judge what was found."""
_LIBRARIES = ("ml_dtypes", "numpy", "onnx", "onnx_ir", "onnxruntime")
"""What computes beside symlint."""


def default_folder() -> Path:
    """Where a cache is that nobody has named: below ``$XDG_CACHE_HOME``, or ``~/.cache``."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if Path(home).is_absolute() else Path("~/.cache").expanduser()) / "symlint"


@dataclass(frozen=True, slots=True)
class Content:
    """A model's files as they are now, and the key of its report."""

    key: str
    files: tuple[StoredFile, ...]
    """The model itself, then its external data."""

    @property
    def lasting(self) -> bool:
        """Whether none of the files has changed since."""
        return not any(file.stale for file in self.files)


@dataclass(frozen=True, slots=True)
class Cache:
    """A folder of reports."""

    folder: Path

    @classmethod
    def made(cls, folder: Path) -> Cache:
        """The cache in a folder, which is made for its owner alone where there is none.

        Raises `UsageProblem` where that cannot be.
        """
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
                raise PermissionError(13, "it cannot be written to")
            ignored = folder / ".gitignore"
            if not ignored.exists():
                ignored.write_text("*\n", encoding="utf-8")
        except (OSError, RuntimeError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise UsageProblem(f"{folder}: no cache can be there: {reason}; --no-cache does without") from error
        made = cls(folder.absolute())
        made.shrink()
        return made

    def found(self, content: Content, job: Job) -> Report | None:
        """The report of a model under its present path; None where there is none that says all that is asked."""
        try:
            stored = json.loads(self._file(content).read_text(encoding="utf-8"))
            os.utime(self._file(content))  # used now
            report = replace(record.report(stored["report"]), path=job.path)
            spared = stored["accepted"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if job.accepts is None:
            return replace(report, takes=None)
        judged = job.judged(report)
        return report if spared == _accepted(judged) or not reparable(judged) else None

    def keep(self, content: Content, job: Job, report: Report) -> None:
        """Write a report down, whole or not at all; a disk that is full costs nothing but the cache."""
        accepted = _accepted(job.judged(report)) if job.accepts else None
        stored = {"accepted": accepted, "report": {**record.of_report(report), "path": ""}}
        try:
            number, name = tempfile.mkstemp(".tmp", content.key[:16], self.folder)
            try:
                with os.fdopen(number, "w", encoding="utf-8") as file:
                    json.dump(stored, file)
                Path(name).replace(self._file(content))
            except OSError:
                Path(name).unlink(missing_ok=True)
        except OSError:
            return

    def shrink(self, most: int = _MOST) -> None:
        """Remove the reports that were used the longest ago, for as long as all of them have more bytes than that."""
        with suppress(OSError), os.scandir(self.folder) as entries:
            kept = [(entry.stat(), entry.path) for entry in entries if _OURS.fullmatch(entry.name)]
            left = sum(stat.st_size for stat, _ in kept)
            oldest = iter(sorted(kept, key=lambda each: each[0].st_mtime))
            while left > most:
                stat, path = next(oldest)
                Path(path).unlink(missing_ok=True)
                left -= stat.st_size

    def _file(self, content: Content) -> Path:
        return self.folder / f"{content.key}.json"


def content(job: Job, rules: Iterable[Rule]) -> Content | None:
    """What the report of a job depends on; None of a file that is not even read, which takes no time anyway."""
    try:
        stored = files(job.file or job.path)
        digests = {name: file.sha256 for name, file in stored.items()}
    except (UnreadableModel, OSError):
        return None
    made = {
        "form": _FORM,
        "symlint": __version__,
        "sources": _sources(rules),
        "settings": _asked(job.settings),
        "files": digests,
        "beside": _beside(job),
    }
    text = json.dumps(made, sort_keys=True)
    return Content(hashlib.sha256(text.encode()).hexdigest(), tuple(stored.values()))


def complete(report: Report, rules: Iterable[Rule]) -> bool:
    """Whether all rules have looked at all of a model, so that the next time would bring nothing else."""
    running = {rule.code for rule in rules if not rule.on_failure}
    return bool(report.finished) and not report.skipped and running <= report.finished


def _accepted(report: Report) -> list[int]:
    """Which findings are accepted: on that it depends what a fix takes away."""
    return [k for k, finding in enumerate(report.findings) if finding.accepted is not None]


def _asked(settings: Settings) -> dict[str, Any]:
    """The settings on which a report depends."""
    asked = {name: item for name, item in record.plain(settings).items() if name not in _JUDGING}
    return {**asked, "chosen": settings.origins.get("select") == COMMAND}  # by flag: what a fix of it would do


def _beside(job: Job) -> list[str]:
    """Digests of what is read beside a model: names of states, directions of mirrors."""
    paths = [Path(job.file or job.path).parent / states.SIDECAR]
    paths += [Path(where.path) for m in job.settings.mirrors if (where := surface(m.surface)).word == "file"]
    return [_digest([path]) for path in paths]


def _sources(rules: Iterable[Rule]) -> Mapping[str, str]:
    """Digests of the packages that compute a report, and versions of the libraries that they use."""
    names = {"symlint", *(rule.check.__module__ for rule in rules), *_operators()}
    packages = {name.partition(".")[0] for name in names}
    return {name: _source(name) for name in sorted(packages)} | {name: _version(name) for name in _LIBRARIES}


@cache
def _operators() -> frozenset[str]:
    """The modules of others' operators."""
    return frozenset(entry.module for entry in entry_points(group="symlint.operators"))


@cache
def _source(package: str) -> str:
    """A digest of all modules of a package."""
    try:
        spec = find_spec(package)
    except ValueError:  # it is what runs, and has no specification
        spec = None
    if spec is None:
        return ""
    folders = [Path(folder) for folder in spec.submodule_search_locations or ()]
    return _digest(_modules(folders) if folders else [Path(spec.origin or "")])


def _modules(folders: Iterable[Path]) -> Iterator[Path]:
    return (path for folder in folders for path in sorted(folder.rglob("*.py")))


@cache
def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return ""


def _digest(paths: Iterable[Path]) -> str:
    """A digest of some files, in order; one that cannot be read counts by its name."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(f"\0{path.name}\0".encode(errors="surrogatepass"))
        try:
            digest.update(path.read_bytes())
        except OSError:
            digest.update(b"\0")
    return digest.hexdigest()
