"""The report as workflow commands of GitHub Actions: an annotation per finding, and one line that sums up.

GitHub shows ten errors, ten warnings and ten notices of a step; the log holds all of them.
"""

from __future__ import annotations

from collections.abc import Iterator

from symlint.audit.outcome import Report, Run
from symlint.cli.report import Style
from symlint.cli.report.acceptances import standing
from symlint.cli.report.full import left_out, summary
from symlint.cli.report.location import relative, repository
from symlint.cli.report.words import printable, told
from symlint.lint.finding import Finding, Level

_COMMAND = {Level.ERROR: "error", Level.WARNING: "warning", Level.NOTE: "notice"}


def report(run: Run, style: Style) -> str:
    """The commands; what is accepted has none, and notes only where they are asked for or can fail the run."""
    return "".join(f"{line}\n" for line in _lines(run, style))


def _lines(run: Run, style: Style) -> Iterator[str]:
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
