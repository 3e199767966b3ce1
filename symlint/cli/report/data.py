"""The report as data: one JSON document, JSON Lines, comma-separated values."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from io import StringIO
from typing import Any

from symlint import __version__
from symlint.audit.outcome import Report, Run, Standing
from symlint.cli.report import Style
from symlint.cli.report.words import acceptance, cell, printable, ranges
from symlint.lint.finding import Finding, Skipped
from symlint.lint.settings import Acceptance
from symlint.symmetry.spaces import Coverage


def json_report(run: Run, style: Style) -> str:
    """The document; a model that could not be read is in it with zeros and its SYM00x finding."""
    document = {
        "schema_version": "1",
        "verdict": run.verdict,
        "exit_code": run.exit_code,
        "symlint": __version__,
        "models": [model(report) for report in run.reports],
        "acceptance": _standing(run.standing),
        "unmet_mirrors": list(run.unmet),
        "unmet_equivariances": list(run.unmet_equivariances),
        "unmet_inputs": list(run.unmet_inputs),
    }
    return dump(document)


def dump(document: Mapping[str, Any]) -> str:
    """A document as text: strict JSON (no NaN), ASCII, in the order given."""
    return json.dumps(plain(document), indent=2, allow_nan=False) + "\n"


def plain(value: Any) -> Any:
    """The value in JSON's types: numpy numbers and arrays as Python's, what is not finite as null."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def model(report: Report) -> dict[str, Any]:
    """What is known of one model."""
    return {
        "path": report.path,
        "sha256": report.sha256,
        "coverage": shares(report.coverage),
        "findings": [written(finding) for finding in report.findings],
        "skipped": [_skipped(item) for item in report.skipped],
        "not_understood": [{"reason": why, "parameters": round(n, 1)} for why, n in report.coverage.reasons],
    }


def shares(coverage: Coverage) -> dict[str, float]:
    """How far weights are understood, as documents for machines hold it."""
    counts = ("total", "covered", "pinned", "opaque")
    return {**{name: getattr(coverage, name) for name in counts}, "understood": coverage.understood}


def _standing(standing: Standing) -> dict[str, Any]:
    return {
        "baseline": standing.baseline or None,
        "gone": [asdict(gone) for gone in standing.gone],
        "unused": [_acceptance(item) for item in standing.unused],
        "expired": [_acceptance(item) for item in standing.expired],
    }


def _acceptance(item: Acceptance) -> dict[str, Any]:
    return {key: value or None for key, value in asdict(item).items()}


def _skipped(item: Skipped) -> dict[str, Any]:
    return {"phase" if item.phase else "rule": item.name, "tensor": item.tensor or None, "reason": item.reason}


def written(finding: Finding) -> dict[str, Any]:
    """A finding as documents for machines hold it."""
    return {
        "rule": finding.rule,
        "name": finding.name,
        "level": str(finding.level),
        "evidence": finding.evidence,
        "layer": finding.layer or None,
        "node": finding.node or None,
        "op": finding.op or None,
        "message": finding.message,
        "space": finding.space,
        "units": list(finding.units),
        "tensors": list(finding.tensors),
        "facts": {**finding.facts, **({"repairs": finding.repairs} if finding.repairs else {})},
        "saves": {"parameters": finding.saves},
        "fingerprint": finding.fingerprint,
        "fixable": finding.fixable,
        "stays": finding.stays or None,
        "accepted": _accepted(finding),
        "worse_than": finding.worse_than or None,
    }


def _accepted(finding: Finding) -> dict[str, Any] | None:
    accepted = finding.accepted
    return (
        {"by": accepted.by, "reason": accepted.reason or None, "expires": accepted.expires or None}
        if accepted
        else None
    )


def jsonl_report(run: Run, style: Style) -> str:
    """The lines; none where there is no model."""
    return "".join(map(line, run.reports))


def line(report: Report) -> str:
    """The line of one model."""
    return f"{json.dumps(plain(model(report)), allow_nan=False)}\n"


COLUMNS = (
    *("path", "rule", "name", "level", "evidence", "layer", "op", "node", "message", "units", "which"),
    *("saves", "share", "fixable", "accepted", "fingerprint"),
)


def csv_report(run: Run, style: Style) -> str:
    """The lines under the names of the columns."""
    return comma_separated(COLUMNS, (_row(finding, item) for item in run.reports for finding in item.findings))


def comma_separated(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """The rows as lines under the names of the columns."""
    text = StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue()


def _row(finding: Finding, item: Report) -> Iterator[object]:
    words = (item.path, finding.rule, finding.name, str(finding.level), finding.evidence, finding.layer, finding.op)
    yield from (cell(printable(word)) for word in (*words, finding.node, finding.message))
    yield from (len(finding.units), cell(ranges(finding.units)), finding.saves)
    yield f"{finding.saves / item.coverage.total:.6g}" if item.coverage.total else "0"
    yield from (str(finding.fixable).lower(), cell(acceptance(finding)), finding.fingerprint)
