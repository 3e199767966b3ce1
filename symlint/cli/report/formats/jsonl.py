"""The report as JSON lines: one for each model, clean and unreadable ones included, as `json` has it in ``models``."""

from __future__ import annotations

import json

from symlint.audit.outcome import Report, Run
from symlint.cli.report import Style
from symlint.cli.report.json import model, plain


def report(run: Run, style: Style) -> str:  # noqa: ARG001 - a document for machines has no style
    """The lines; none where there is no model."""
    return "".join(map(line, run.reports))


def line(report: Report) -> str:
    """The line of one model."""
    return f"{json.dumps(plain(model(report)), allow_nan=False)}\n"
