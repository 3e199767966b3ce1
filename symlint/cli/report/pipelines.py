"""The report as SARIF 2.1.0 for code scanning: one run, all its models, one result per rule and space.

A model is binary, so a location says line 1, which code scanning asks for. The fingerprint that it matches on is always
given, since that of a line of a binary file would mean nothing. Addresses are those of the project's metadata; where it
has none, there are none. A fix has to name a change of the file in SARIF: it is an empty one, and its description names
the command that makes the true one.

The report in the words of what runs jobs: commands of GitHub Actions, JUnit's XML, Markdown.
"""

from __future__ import annotations

import html
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from importlib.metadata import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

from symlint import __version__
from symlint.audit.outcome import Report, Run, elsewhere
from symlint.cli.report import Style
from symlint.cli.report.data import dump, plain
from symlint.cli.report.full import coverage, left_out, shown, summary
from symlint.cli.report.words import acceptance, count, printable, ranges, share, standing, told
from symlint.lint.finding import Finding, Level, Skipped
from symlint.lint.rule import Rule


def repository() -> Path:
    """The nearest folder at or above the working directory that holds a repository, else that directory itself."""
    folder = Path.cwd()
    return next((parent for parent in (folder, *folder.parents) if (parent / ".git").exists()), folder)


def relative(path: str, root: Path) -> str:
    """The path from the root, with forward slashes; a file outside it keeps its absolute one."""
    absolute = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links out of the repository
    return (absolute.relative_to(root) if absolute.is_relative_to(root) else absolute).as_posix()


def uri(path: str, root: Path) -> str:
    """The same as a URI."""
    if elsewhere(path):
        return quote(path, safe="/:")
    place = relative(path, root)
    return Path(place).as_uri() if Path(place).is_absolute() else quote(place)


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
_MOST_RESULTS = 25_000
_LONGEST = 1_000
"""Characters of a message."""


def sarif_report(run: Run, style: Style) -> str:
    """The document; ``results`` is empty for clean models, which closes their old alerts."""
    root = repository()
    uris = [uri(item.path, root) for item in run.reports]
    places = _LogicalLocations()
    indices = {rule.code: index for index, rule in enumerate(run.rules)}
    alerts, left = _alerts(run, style)
    results = [_result(finding, indices, run.reports[k], (k, uris[k]), places) for k, finding in alerts]
    if any(finding.accepted for _, finding in alerts):  # all results say so, or none
        for result, (_, finding) in zip(results, alerts, strict=True):
            result["suppressions"] = _suppressions(finding)
    content: dict[str, Any] = {
        "tool": {
            "driver": {
                "name": "symlint",
                "version": __version__,
                "semanticVersion": __version__,
                **_address("informationUri", "homepage", "repository", "source"),
                "rules": [_rule(rule) for rule in run.rules],
            }
        },
        # Without the slash GitHub takes the whole string for the id of the run and leaves the category empty.
        "automationDetails": {"id": "symlint/"},
        "invocations": [_invocation(run, uris, indices, left)],
        "artifacts": [_artifact(item, place) for item, place in zip(run.reports, uris, strict=True)],
        "logicalLocations": places.items,
        "results": results,
    }
    return dump({"$schema": SCHEMA, "version": "2.1.0", "runs": [content]})


def _alerts(run: Run, style: Style) -> tuple[list[tuple[int, Finding]], int]:
    """The findings that become alerts, each with the number of its model, and how many more than there may be.

    Notes do where they are asked for, or can fail the run.
    """
    found = [
        (number, finding)
        for number, item in enumerate(run.reports)
        for finding in item.findings
        if finding.level > Level.NOTE or style.notes or run.threshold(item) == "note"
    ]
    if len(found) <= _MOST_RESULTS:
        return found, 0
    return sorted(found, key=lambda pair: -pair[1].level)[:_MOST_RESULTS], len(found) - _MOST_RESULTS


def _address(key: str, *labels: str, anchor: str = "") -> dict[str, str]:
    """A property with the first address of the project that has one of these labels; nothing where none has."""
    urls = dict(entry.split(", ", 1) for entry in metadata("symlint").get_all("Project-URL") or ())
    known = {label.lower(): address for label, address in urls.items()}
    found = next((known[label] for label in labels if label in known), "")
    return {key: found + anchor} if found else {}


def _rule(rule: Rule) -> dict[str, Any]:
    page = rule.page.strip()
    sections = re.split(r"^## .*$", page, flags=re.MULTILINE)
    described = " ".join(sections[1].split()) if len(sections) > 1 else rule.summary
    return {
        "id": rule.code,
        "name": "".join(word.capitalize() for word in rule.name.split("-")),
        "shortDescription": {"text": rule.summary[:1024]},
        "fullDescription": {"text": described[:1024]},
        **_address("helpUri", "documentation", "docs", anchor=f"#{rule.code.lower()}"),
        "help": {"text": page, "markdown": page},
        "defaultConfiguration": {"level": str(rule.level)},
        "properties": {
            "tags": [rule.evidence, "onnx"],
            "precision": _PRECISION[rule.evidence],
            "problem.severity": _SEVERITY[str(rule.level)],
        },
    }


def _result(
    finding: Finding, indices: dict[str, int], item: Report, artifact: tuple[int, str], places: _LogicalLocations
) -> dict[str, Any]:
    number, place = artifact
    file = {"uri": place, "index": number}
    location: dict[str, Any] = {"physicalLocation": {"artifactLocation": file, "region": {"startLine": 1}}}
    tensors = [places.tensor(place, tensor) for tensor in finding.tensors[:_TENSORS_SHOWN]]
    location["logicalLocations"] = tensors or [places.model(place)]
    return {
        "ruleId": finding.rule,
        **({"ruleIndex": indices[finding.rule]} if finding.rule in indices else {}),
        "level": str(finding.level),
        "message": {"text": _text(told(finding, item.coverage))},
        "locations": [location],
        "partialFingerprints": {"primaryLocationLineHash": finding.fingerprint},
        **({"fixes": [_fix(item, file)]} if finding.fixable else {}),
        "properties": {
            "symlint/evidence": finding.evidence,
            "symlint/layer": finding.layer,
            "symlint/node": finding.node,
            "symlint/op": finding.op,
            "symlint/space": finding.space or "",
            "symlint/units": ranges(finding.units),
            "symlint/facts": plain(finding.facts),
            "symlint/saves": finding.saves,
            "symlint/fixable": finding.fixable,
        },
    }


def _fix(item: Report, file: Mapping[str, object]) -> dict[str, Any]:
    """The command that repairs a finding; the change that the format asks for inserts nothing nowhere."""
    nowhere = {"deletedRegion": {"startLine": 1, "startColumn": 1, "endColumn": 1}}
    return {
        "description": {"text": _text(f"symlint fix {shlex.quote(item.path)} -o OUT")},
        "artifactChanges": [{"artifactLocation": dict(file), "replacements": [nowhere]}],
    }


def _suppressions(finding: Finding) -> list[dict[str, Any]]:
    if finding.accepted is None:
        return []
    words = _text(acceptance(finding))
    return [{"kind": "external", "status": "accepted", "justification": words}]


def _invocation(run: Run, uris: list[str], indices: dict[str, int], left: int) -> dict[str, Any]:
    notifications: list[dict[str, Any]] = []
    if left:
        more = f"{count(left, 'finding')} of the lowest levels left out: code scanning takes {_MOST_RESULTS:,}"
        notifications.append({"level": "warning", "message": {"text": more}})
    for number, (item, place) in enumerate(zip(run.reports, uris, strict=True)):
        locations = [{"physicalLocation": {"artifactLocation": {"uri": place, "index": number}}}]
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
    text = re.sub(r"\]\(", r"\\](", printable(message))
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 4]} ..."


_COMMAND = {Level.ERROR: "error", Level.WARNING: "warning", Level.NOTE: "notice"}


def github_report(run: Run, style: Style) -> str:
    """The commands; what is accepted has none, and notes only where they are asked for or can fail the run."""
    return "".join(f"{line}\n" for line in _commands(run, style))


def _commands(run: Run, style: Style) -> Iterator[str]:
    root = repository()
    for item in run.reports:
        file = relative(item.path, root)
        for finding in item.findings:
            if finding.accepted is None and (finding.level > Level.NOTE or style.notes or _can_fail(run, item)):
                title = f"{finding.rule} {finding.name}"
                yield _command(_COMMAND[finding.level], file, title, _message(finding, item))
        if item.incomplete and not any(finding.message == item.incomplete for finding in item.findings):
            yield _command("error", file, "audit incomplete", item.incomplete)
        for line in left_out(item):
            yield _command("warning", file, "audit incomplete", line)
    if not run.reports:
        yield _command("error", "", "no model found", summary(run, every=style.notes).plain)
    for line in standing(run):
        yield _command("notice", "", "accepted findings", line)
    if not style.quiet:
        yield f"symlint: {summary(run, every=style.notes).plain}"


def _can_fail(run: Run, item: Report) -> bool:
    return run.threshold(item) == "note"


def _message(finding: Finding, item: Report) -> str:
    place = f"{finding.layer}: " if finding.layer and finding.layer not in finding.message else ""
    return f"{place}{told(finding, item.coverage)}; symlint rule {finding.rule}"


def _command(kind: str, file: str, title: str, message: str) -> str:
    place = f"file={_property(file)},line=1," if file else ""
    return f"::{kind} {place}title={_property(title)}::{_data(message)}"


def _data(text: str) -> str:
    """Text that cannot end its command: a line of its own would be another one."""
    return printable(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


_FOREIGN = re.compile("[\ufffe\uffff]")
"""What is no character of XML although it can be printed; controls and halves of pairs are written out before."""


def junit_report(run: Run, style: Style) -> str:
    """The document."""
    suites = "".join(line for item in run.reports for line in _suite(item, run))
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name="symlint">\n{suites}</testsuites>\n'


def _suite(item: Report, run: Run) -> Iterator[str]:
    failing = set(map(id, run.failing(item)))
    cases = [_case(finding, item, failed=id(finding) in failing) for finding in item.findings]
    spoken_of = {finding.rule for finding in item.findings}
    clean = [rule for rule in run.rules if rule.code in item.finished - spoken_of]
    cases += [_element(f"{rule.code} {rule.name}", item, "") for rule in clean]
    if item.incomplete:
        words = "".join(f"\n{line}" for line in left_out(item))
        cases.append(_element("audit", item, f'<error message="{_xml(item.incomplete)}">{_xml(words)}</error>'))
    skipped = sum(finding.accepted is not None for finding in item.findings)
    counts = f'tests="{len(cases)}" failures="{len(failing)}" errors="{int(bool(item.incomplete))}"'
    yield f'<testsuite name="{_xml(item.path)}" {counts} skipped="{skipped}">\n'
    yield from cases
    yield "</testsuite>\n"


def _case(finding: Finding, item: Report, *, failed: bool) -> str:
    place = f" at {finding.layer}" if finding.layer else ""
    words = _xml(told(finding, item.coverage))
    content = f"<system-out>{finding.level}: {words}</system-out>"
    if failed:
        content = f'<failure message="{words}" type="{finding.level}">symlint rule {_xml(finding.rule)}</failure>'
    elif finding.accepted is not None:
        content = f'<skipped message="{_xml(acceptance(finding))}"/>{content}'
    return _element(f"{finding.rule} {finding.name}{place}", item, content)


def _element(name: str, item: Report, content: str) -> str:
    return f'<testcase name="{_xml(name)}" classname="{_xml(item.path)}">{content}</testcase>\n'


def _xml(text: str) -> str:
    lines = (printable(line) for line in text.split("\n"))
    return html.escape(_FOREIGN.sub("\ufffd", "\n".join(lines)))


_ROWS = 200
"""Lines of the table; a summary on GitHub holds a megabyte."""
_UNITS = 12
_SPECIAL = {character: f"&#{ord(character)};" for character in "\\`*_{}[]#|<>~&@$"}
"""What marks something in Markdown, in HTML or on GitHub, where @ calls people."""


def markdown_report(run: Run, style: Style) -> str:
    """The document; notes and what is accepted are in it where they are asked for."""
    return "\n".join(_paragraphs(run, style)).rstrip("\n") + "\n"


def _paragraphs(run: Run, style: Style) -> Iterator[str]:
    yield f"**symlint**: {_plain(summary(run, every=style.verbose).plain)}"
    yield ""
    found = [(item, finding) for item in run.reports for finding in shown(item, run, style)]
    found.sort(key=lambda pair: -pair[1].level)
    if found:
        yield "| model | level | rule | finding | units | saves |"
        yield "|---|---|---|---|---|--:|"
        yield from (_row(item, finding) for item, finding in found[:_ROWS])
        yield ""
    if len(found) > _ROWS:
        yield f"and {count(len(found) - _ROWS, 'more finding')}"
        yield ""
    for item in run.reports:
        lines = [f"incomplete: {item.incomplete}"] if item.incomplete else []
        for line in (*lines, *left_out(item)):
            yield f"- {_plain(item.path)}: {_plain(line)}"
    yield from (f"- {_plain(line)}" for line in standing(run))
    if not style.quiet:
        yield from (f"- {_plain(item.path)}: {_plain(coverage(item.coverage))}" for item in run.reports if _read(item))


def _read(item: Report) -> bool:
    return bool(item.coverage.total) or not item.incomplete


def _row(item: Report, finding: Finding) -> str:
    level = f"{finding.level} (accepted)" if finding.accepted else str(finding.level)
    saved = f"{finding.saves:,} ({share(finding.saves, item.coverage.total)})" if finding.saves else ""
    rule = f"{finding.rule} {finding.name}"
    cells = (item.path, level, rule, finding.message, ranges(finding.units, _UNITS), saved)
    return f"| {' | '.join(map(_plain, cells))} |"


def _plain(text: str) -> str:
    """Text in which nothing is a mark or a link."""
    plain = "".join(_SPECIAL.get(character, character) for character in printable(text))
    return plain.replace("://", "&#58;//").replace("www.", "www&#46;")
