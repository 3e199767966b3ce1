"""The report as JSON lines: one for each model, clean and unreadable ones included, as `json` has it in ``models``."""

from __future__ import annotations

import json

from symlint.audit.outcome import Run
from symlint.cli.report import Style
from symlint.cli.report.json import model, plain


def report(run: Run, style: Style) -> str:  # noqa: ARG001 - a document for machines has no style
    """The lines; none where there is no model."""
    return "".join(f"{json.dumps(plain(model(item)), allow_nan=False)}\n" for item in run.reports)
