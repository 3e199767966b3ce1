"""The report as Markdown, for the summary of a job or a comment: the verdict, and a table of what was found."""

from __future__ import annotations

from collections.abc import Iterator

from symlint.audit.outcome import Report, Run
from symlint.cli.report import Style
from symlint.cli.report.acceptances import standing
from symlint.cli.report.full import coverage, left_out, shown, summary
from symlint.cli.report.words import count, printable, ranges, share
from symlint.lint.finding import Finding

_ROWS = 200
"""Lines of the table; a summary on GitHub holds a megabyte."""
_UNITS = 12
_SPECIAL = {character: f"&#{ord(character)};" for character in "\\`*_{}[]#|<>~&@$"}
"""What marks something in Markdown, in HTML or on GitHub, where @ calls people."""


def report(run: Run, style: Style) -> str:
    """The document; notes and what is accepted are in it where they are asked for."""
    return "\n".join(_lines(run, style)).rstrip("\n") + "\n"


def _lines(run: Run, style: Style) -> Iterator[str]:
    yield f"**symlint**: {_text(summary(run, every=style.verbose).plain)}"
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
            yield f"- {_text(item.path)}: {_text(line)}"
    yield from (f"- {_text(line)}" for line in standing(run))
    if not style.quiet:
        yield from (f"- {_text(item.path)}: {_text(coverage(item.coverage))}" for item in run.reports if _read(item))


def _read(item: Report) -> bool:
    return bool(item.coverage.total) or not item.incomplete


def _row(item: Report, finding: Finding) -> str:
    level = f"{finding.level} (accepted)" if finding.accepted else str(finding.level)
    saved = f"{finding.saves:,} ({share(finding.saves, item.coverage.total)})" if finding.saves else ""
    rule = f"{finding.rule} {finding.name}"
    cells = (item.path, level, rule, finding.message, ranges(finding.units, _UNITS), saved)
    return f"| {' | '.join(map(_text, cells))} |"


def _text(text: str) -> str:
    """Text in which nothing is a mark or a link."""
    plain = "".join(_SPECIAL.get(character, character) for character in printable(text))
    return plain.replace("://", "&#58;//").replace("www.", "www&#46;")
