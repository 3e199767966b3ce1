"""Reports: what calls of the api answer, as people, scripts and notebooks want it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from html import escape
from importlib import import_module
from itertools import starmap
from typing import Any

from symlint.audit.outcome import Run
from symlint.cli.report import Style, reporter
from symlint.cli.report.data import plain, written
from symlint.cli.report.profile_records import records
from symlint.cli.report.words import count, printable, ranges, share, told
from symlint.comparison.trajectory import Trajectory
from symlint.lint.finding import Finding
from symlint.lint.settings import LEVELS
from symlint.model.records import dataclass
from symlint.repair.plan import Cost, Done, Left, Shrunk
from symlint.runtime.equivariance import Measured, Table
from symlint.runtime.proof import Proof
from symlint.symmetry.spaces import Coverage

_SHOWN = 50
"""Findings of a cell; the rest are counted."""
_UNITS = 12


def _page(run: Run) -> str:
    """A table of the findings under the verdict; names from the model are escaped."""
    (audited,) = run.reports
    head = f"<b>{run.verdict}</b> {_text(audited.path)}: {count(len(audited.findings), 'finding')}"
    if audited.incomplete:
        return f"<p>{head}; audit incomplete: {_text(audited.incomplete)}</p>"
    if not audited.findings:
        return f"<p>{head}</p>"
    titles = ("rule", "level", "layer", "finding", "units", "saves")
    rows = [
        (
            finding.rule,
            str(finding.level),
            finding.layer,
            finding.message,
            ranges(finding.units, _UNITS),
            share(finding.saves, audited.coverage.total) if finding.saves else "",
        )
        for finding in audited.findings[:_SHOWN]
    ]
    body = "".join(f"<tr>{''.join(_cell('td', word) for word in row)}</tr>" for row in rows)
    top = "".join(starmap(_cell, (("th", title) for title in titles)))
    more = len(audited.findings) - _SHOWN
    left = f"<p>and {more:,} more</p>" if more > 0 else ""
    return f"<p>{head}</p><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>{left}"


def _cell(tag: str, word: str) -> str:
    return f'<{tag} style="text-align:left">{_text(word)}</{tag}>'


def _text(word: str) -> str:
    return escape(printable(word))


def _frame(rows: Sequence[Mapping[str, Any]]) -> Any:
    try:
        return import_module("pandas").DataFrame(rows)
    except ModuleNotFoundError as error:
        if error.name != "pandas":
            raise
        needed = "a data frame needs pandas, which is not installed: pip install pandas, or take to_dicts()"
        raise ModuleNotFoundError(needed, name=error.name) from None


@dataclass(frozen=True)
class Report:
    """What `symlint.check` has found in one model; printed, it is what the command prints."""

    run: Run
    """Of the one model, with what its configuration accepts."""

    @property
    def path(self) -> str:
        """The model as it was given: its path, ``<bytes>`` or ``<ModelProto>``."""
        return self.run.reports[0].path

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The findings, sorted by rule and by place."""
        return self.run.reports[0].findings

    @property
    def coverage(self) -> Coverage:
        """How much of the model was understood."""
        return self.run.reports[0].coverage

    @property
    def incomplete(self) -> str:
        """Why the audit could not be finished; empty when it could."""
        return self.run.reports[0].incomplete

    @property
    def verdict(self) -> str:
        """``pass``, ``fail`` or ``incomplete``, by the configured ``fail-on``."""
        return self.run.verdict

    @property
    def exit_code(self) -> int:
        """What `symlint check` would end with."""
        return self.run.exit_code

    def to_dicts(self) -> list[dict[str, Any]]:
        """The findings as ``models[0].findings`` of the JSON document has them: plain values only."""
        return [plain(written(finding)) for finding in self.findings]

    def to_frame(self) -> Any:
        """A `pandas.DataFrame` with a row per finding; raises ImportError where pandas is not installed."""
        return _frame(self.to_dicts())

    def assert_clean(self, fail_on: str | None = None) -> None:
        """Raise AssertionError unless the audit is complete and finds nothing at or above a level.

        Args:
            fail_on: ``error``, ``warning`` or ``note``; by default the configured one.

        What the configuration accepts does not fail.
        """
        lowest = self.run.threshold(self.run.reports[0]) if fail_on is None else fail_on
        if lowest not in (*LEVELS, "never"):
            raise ValueError(f"fail_on is {lowest!r}; it can be {', '.join(LEVELS)} or never")
        if self.incomplete:
            raise AssertionError(f"{printable(self.path)}: audit incomplete: {printable(self.incomplete)}")
        if lowest == "never":
            return
        failing = [f for f in self.findings if f.accepted is None and f.level >= LEVELS[lowest]]
        if failing:
            lines = [f"  {line}" for line in self.lines(failing)]
            raise AssertionError("\n".join([f"{printable(self.path)}:", *lines]))

    def lines(self, findings: Iterable[Finding]) -> list[str]:
        """Findings as people read them, a line each."""
        return [f"{f.rule} [{f.level}] {printable(told(f, self.coverage))}" for f in findings]

    def to_html(self) -> str:
        """The page of ``symlint check -f html``."""
        return reporter("html")(self.run, Style())

    def __str__(self) -> str:
        return reporter("full")(self.run, Style()).rstrip("\n")

    def _repr_html_(self) -> str:

        return _page(self.run)


@dataclass(frozen=True)
class Profile:
    """What `symlint.profile` has measured; printed, it is what the command prints."""

    trajectory: Trajectory

    def to_dicts(self) -> list[dict[str, Any]]:
        """A row per file and space, with the columns of the CSV; None where a number means nothing there."""
        return list(records(self.trajectory))

    def to_frame(self) -> Any:
        """A `pandas.DataFrame` of the rows; raises ImportError where pandas is not installed."""
        return _frame(self.to_dicts())

    def to_html(self) -> str:
        """The page of ``symlint profile -f html``."""
        from symlint.cli.report.profile_tables import as_html

        return as_html(self.trajectory)

    def __str__(self) -> str:
        from symlint.cli.report.profile_tables import as_text

        return as_text(self.trajectory, Style()).rstrip("\n")


@dataclass(frozen=True)
class Equivariance:
    """What `symlint.equivariance` has measured; printed, it is what the command prints."""

    table: Table

    @property
    def rows(self) -> tuple[Measured, ...]:
        """A row per transformation, input, axis and output."""
        return self.table.rows

    def to_dicts(self) -> list[dict[str, Any]]:
        """The rows as ``transformations`` of the JSON document has them: plain values only."""
        from symlint.cli.report.equivariances import record

        return [plain(record(row)) for row in self.rows]

    def to_frame(self) -> Any:
        """A `pandas.DataFrame` of the rows; raises ImportError where pandas is not installed."""
        return _frame(self.to_dicts())

    def __str__(self) -> str:
        from symlint.cli.report.equivariances import as_text

        return as_text(self.table, Style()).rstrip("\n")


@dataclass(frozen=True, slots=True)
class Repairs:
    """What `symlint.fix` has done."""

    done: tuple[Done, ...]
    left: tuple[Left, ...]
    """What was not carried out, or was taken back, and why."""
    proof: Proof | None
    """None where nothing was done."""
    before: Cost
    after: Cost
    failed: bool
    """Whether there was something to repair and none of it held; then the model is as it was."""
    text: str
    """What `symlint fix` prints."""
    states: tuple[Shrunk, ...] = ()
    """States that are narrower, where that was asked for."""

    def to_dicts(self) -> list[dict[str, Any]]:
        """The repairs that were carried out, as plain values."""
        return [asdict(one) for one in self.done]

    def __str__(self) -> str:
        return self.text
