"""The report as comma-separated values: one line per finding, notes and accepted ones included.

``units`` is how many are affected and ``which`` lists them; ``saves`` counts parameters, ``share`` is their part of the
model's, from 0 to 1. A model without findings has no line.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from io import StringIO

from symlint.audit.outcome import Report, Run
from symlint.cli.report import Style
from symlint.cli.report.acceptances import acceptance
from symlint.cli.report.words import cell, printable, ranges
from symlint.lint.finding import Finding

COLUMNS = (
    *("path", "rule", "name", "level", "evidence", "layer", "op", "node", "message", "units", "which"),
    *("saves", "share", "fixable", "accepted", "fingerprint"),
)


def report(run: Run, style: Style) -> str:  # noqa: ARG001 - a document for machines has no style
    """The lines under the names of the columns."""
    text = StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for item in run.reports:
        writer.writerows(_row(finding, item) for finding in item.findings)
    return text.getvalue()


def _row(finding: Finding, item: Report) -> Iterator[object]:
    words = (item.path, finding.rule, finding.name, str(finding.level), finding.evidence, finding.layer, finding.op)
    yield from (cell(printable(word)) for word in (*words, finding.node, finding.message))
    yield from (len(finding.units), cell(ranges(finding.units)), finding.saves)
    yield f"{finding.saves / item.coverage.total:.6g}" if item.coverage.total else "0"
    yield from (str(finding.fixable).lower(), cell(acceptance(finding)), finding.fingerprint)
