"""Notebook: a report as a fragment of HTML that stands in a cell."""

from __future__ import annotations

from html import escape
from itertools import starmap

from symlint.audit.outcome import Run
from symlint.cli.report.words import count, printable, ranges, share

_SHOWN = 50
"""Findings of a cell; the rest are counted."""
_UNITS = 12


def report(run: Run) -> str:
    """A table of the findings under the verdict; names from the model are escaped."""
    (audited,) = run.reports
    head = f"<b>{run.verdict}</b> {_text(audited.path)}: {count(len(audited.findings), 'finding')}"
    if audited.incomplete:
        return f"<p>{head}; audit incomplete: {_text(audited.incomplete)}</p>"
    if not audited.findings:
        return f"<p>{head}</p>"
    titles = ("rule", "level", "layer", "finding", "units", "saves")
    rows = [
        (
            finding.rule,
            str(finding.level),
            finding.layer,
            finding.message,
            ranges(finding.units, _UNITS),
            share(finding.saves, audited.coverage.total) if finding.saves else "",
        )
        for finding in audited.findings[:_SHOWN]
    ]
    body = "".join(f"<tr>{''.join(_cell('td', word) for word in row)}</tr>" for row in rows)
    top = "".join(starmap(_cell, (("th", title) for title in titles)))
    more = len(audited.findings) - _SHOWN
    left = f"<p>and {more:,} more</p>" if more > 0 else ""
    return f"<p>{head}</p><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>{left}"


def _cell(tag: str, word: str) -> str:
    return f'<{tag} style="text-align:left">{_text(word)}</{tag}>'


def _text(word: str) -> str:
    return escape(printable(word))
