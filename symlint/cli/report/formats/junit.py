"""The report as JUnit's XML: a suite per model, in it a case for each finding and for each rule without one.

What fails the run is a failure, what is accepted is skipped, and a model that could not be audited is an error.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from symlint.audit.outcome import Report, Run
from symlint.cli.report import Style
from symlint.cli.report.acceptances import acceptance
from symlint.cli.report.full import left_out
from symlint.cli.report.words import printable, told
from symlint.lint.finding import Finding

_FOREIGN = re.compile("[\ufffe\uffff]")
"""What is no character of XML although it can be printed; controls and halves of pairs are written out before."""


def report(run: Run, style: Style) -> str:  # noqa: ARG001 - a document for machines has no style
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
        cases.append(_element("audit", item, f'<error message="{_text(item.incomplete)}">{_text(words)}</error>'))
    skipped = sum(finding.accepted is not None for finding in item.findings)
    counts = f'tests="{len(cases)}" failures="{len(failing)}" errors="{int(bool(item.incomplete))}"'
    yield f'<testsuite name="{_text(item.path)}" {counts} skipped="{skipped}">\n'
    yield from cases
    yield "</testsuite>\n"


def _case(finding: Finding, item: Report, *, failed: bool) -> str:
    place = f" at {finding.layer}" if finding.layer else ""
    words = _text(told(finding, item.coverage))
    content = f"<system-out>{finding.level}: {words}</system-out>"
    if failed:
        content = f'<failure message="{words}" type="{finding.level}">symlint rule {_text(finding.rule)}</failure>'
    elif finding.accepted is not None:
        content = f'<skipped message="{_text(acceptance(finding))}"/>{content}'
    return _element(f"{finding.rule} {finding.name}{place}", item, content)


def _element(name: str, item: Report, content: str) -> str:
    return f'<testcase name="{_text(name)}" classname="{_text(item.path)}">{content}</testcase>\n'


def _text(text: str) -> str:
    lines = (printable(line) for line in text.split("\n"))
    return html.escape(_FOREIGN.sub("\ufffd", "\n".join(lines)))
