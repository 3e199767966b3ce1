"""The report in the words of what runs jobs: commands of GitHub Actions, JUnit's XML, Markdown."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from symlint.audit.outcome import Report, Run
from symlint.cli.report import Style
from symlint.cli.report.full import coverage, left_out, shown, summary
from symlint.cli.report.sarif import relative, repository
from symlint.cli.report.words import acceptance, count, printable, ranges, share, standing, told
from symlint.lint.finding import Finding, Level

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
