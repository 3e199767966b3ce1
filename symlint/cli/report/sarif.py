"""The report as SARIF 2.1.0 for code scanning: one run, all its models, one result per rule and space.

A model is binary, so a location has no region: viewers cannot show one, and an uploader would read the whole file as
text to find its lines. The fingerprint that code scanning matches on is therefore always given here.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

from symlint import __version__
from symlint.audit.outcome import Report, Run
from symlint.cli.report import Style
from symlint.cli.report.acceptances import acceptance, standing
from symlint.cli.report.json import dump, plain
from symlint.cli.report.words import printable, ranges
from symlint.lint.finding import Finding, Skipped
from symlint.lint.rule import Rule

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_PRECISION = {"exact": "very-high", "bounded": "high", "gauge": "high", "heuristic": "medium"}
_SEVERITY = {"error": "error", "warning": "warning", "note": "recommendation"}
_OUTCOME = {
    0: "no findings at or above the threshold",
    1: "findings at or above the threshold",
    3: "no model found",
    4: "audit incomplete",
    130: "interrupted",
}
_TENSORS_SHOWN = 20


def report(run: Run, style: Style) -> str:  # noqa: ARG001 - a document for machines has no style
    """The document; ``results`` is empty for clean models, which closes their old alerts."""
    root = _repository(Path.cwd())
    uris = [_uri(item.path, root) for item in run.reports]
    places = _LogicalLocations()
    indices = {rule.code: index for index, rule in enumerate(run.rules)}
    suppressed = any(finding.accepted for finding in run.findings)
    results = [
        _result(finding, indices, number, uri, places)
        for number, (item, uri) in enumerate(zip(run.reports, uris, strict=True))
        for finding in item.findings
    ]
    if suppressed:  # all results say so, or none
        for result, finding in zip(results, run.findings, strict=True):
            result["suppressions"] = _suppressions(finding)
    content: dict[str, Any] = {
        "tool": {
            "driver": {
                "name": "symlint",
                "version": __version__,
                "semanticVersion": __version__,
                "rules": [_rule(rule) for rule in run.rules],
            }
        },
        # Without the slash GitHub takes the whole string for the id of the run and leaves the category empty.
        "automationDetails": {"id": "symlint/"},
        "invocations": [_invocation(run, uris, indices)],
        "artifacts": [_artifact(item, uri) for item, uri in zip(run.reports, uris, strict=True)],
        "logicalLocations": places.items,
        "results": results,
    }
    return dump({"$schema": SCHEMA, "version": "2.1.0", "runs": [content]})


def _rule(rule: Rule) -> dict[str, Any]:
    page = rule.page.strip()
    sections = re.split(r"^## .*$", page, flags=re.MULTILINE)
    described = " ".join(sections[1].split()) if len(sections) > 1 else rule.summary
    return {
        "id": rule.code,
        "name": "".join(word.capitalize() for word in rule.name.split("-")),
        "shortDescription": {"text": rule.summary[:1024]},
        "fullDescription": {"text": described[:1024]},
        "help": {"text": page, "markdown": page},
        "defaultConfiguration": {"level": str(rule.level)},
        "properties": {
            "tags": [rule.evidence, "onnx"],
            "precision": _PRECISION[rule.evidence],
            "problem.severity": _SEVERITY[str(rule.level)],
        },
    }


def _result(
    finding: Finding, indices: dict[str, int], artifact: int, uri: str, places: _LogicalLocations
) -> dict[str, Any]:
    location: dict[str, Any] = {"physicalLocation": {"artifactLocation": {"uri": uri, "index": artifact}}}
    tensors = [places.tensor(uri, tensor) for tensor in finding.tensors[:_TENSORS_SHOWN]]
    location["logicalLocations"] = tensors or [places.model(uri)]
    return {
        "ruleId": finding.rule,
        **({"ruleIndex": indices[finding.rule]} if finding.rule in indices else {}),
        "level": str(finding.level),
        "message": {"text": _text(finding.message)},
        "locations": [location],
        "partialFingerprints": {"primaryLocationLineHash": finding.fingerprint},
        "properties": {
            "symlint/evidence": finding.evidence,
            "symlint/space": finding.space or "",
            "symlint/units": ranges(finding.units),
            "symlint/facts": plain(finding.facts),
            "symlint/saves": finding.saves,
            "symlint/fixable": finding.fixable,
        },
    }


def _suppressions(finding: Finding) -> list[dict[str, Any]]:
    if finding.accepted is None:
        return []
    words = _text(acceptance(finding))
    return [{"kind": "external", "status": "accepted", "justification": words}]


def _invocation(run: Run, uris: list[str], indices: dict[str, int]) -> dict[str, Any]:
    notifications: list[dict[str, Any]] = []
    for number, (item, uri) in enumerate(zip(run.reports, uris, strict=True)):
        locations = [{"physicalLocation": {"artifactLocation": {"uri": uri, "index": number}}}]
        if item.incomplete:
            words = {"text": _text(f"{item.path}: {item.incomplete}")}
            notifications.append({"level": "error", "message": words, "locations": locations})
        notifications += [_left_out(part, indices) | {"locations": locations} for part in item.skipped]
    notifications += [{"level": "note", "message": {"text": _text(line)}} for line in standing(run)]
    if not run.reports:
        message = f"no model found at {', '.join(run.missing) or 'the given paths'}"
        notifications.append({"level": "error", "message": {"text": _text(message)}})
    return {
        # Findings are no failure, and neither is one unreadable file among others: the notifications say so.
        "executionSuccessful": not run.interrupted and any(not item.incomplete for item in run.reports),
        "exitCode": run.exit_code,
        "exitCodeDescription": _OUTCOME[run.exit_code],
        "toolExecutionNotifications": notifications,
    }


def _left_out(part: Skipped, indices: dict[str, int]) -> dict[str, Any]:
    """A phase or rule that did not run to its end, as a notification."""
    tensor = f" at {part.tensor}" if part.tensor else ""
    words = {"level": "warning", "message": {"text": _text(f"{part.name} was not audited{tensor}: {part.reason}")}}
    return words if part.phase else words | {"associatedRule": {"id": part.name, "index": indices[part.name]}}


def _artifact(report: Report, uri: str) -> dict[str, Any]:
    hashes = {"hashes": {"sha-256": report.sha256}} if report.sha256 else {}
    return {"location": {"uri": uri}, "mimeType": "application/octet-stream", "roles": ["analysisTarget"], **hashes}


class _LogicalLocations:
    """The table of models and tensors that results point into; each is in it once."""

    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []
        self._index: dict[tuple[str, str], int] = {}

    def model(self, uri: str) -> dict[str, Any]:
        return self._reference((uri, ""), {"name": uri.rpartition("/")[2], "fullyQualifiedName": uri, "kind": "module"})

    def tensor(self, uri: str, tensor: str) -> dict[str, Any]:
        parent = self.model(uri)["index"]
        name = printable(tensor)
        item = {"name": name, "fullyQualifiedName": f"{uri}/{name}", "kind": "variable", "parentIndex": parent}
        return self._reference((uri, f"/{tensor}"), item)

    def _reference(self, key: tuple[str, str], item: dict[str, Any]) -> dict[str, Any]:
        if key not in self._index:
            self._index[key] = len(self.items)
            self.items.append(item)
        return {"index": self._index[key], "fullyQualifiedName": item["fullyQualifiedName"]}


def _text(message: str) -> str:
    """A message in which a name of the model can neither be a link nor hide anything."""
    return re.sub(r"\]\(", r"\\](", printable(message))


def _repository(folder: Path) -> Path:
    """The nearest folder at or above that holds a repository, else the folder itself."""
    return next((parent for parent in (folder, *folder.parents) if (parent / ".git").exists()), folder)


def _uri(path: str, root: Path) -> str:
    """The path relative to the repository, as a URI; a file outside it keeps its absolute one."""
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links out of the repository
    if absolute.is_relative_to(root):
        return quote(absolute.relative_to(root).as_posix())
    return absolute.as_uri()
