"""The report for grep and editors: one line per finding, and one that sums up.

``model.onnx: SYM101 [warning] 3 of 16 units of conv1 cannot affect the output``
"""

from __future__ import annotations

from collections.abc import Iterator

from rich.text import Text

from symlint.audit.outcome import Run
from symlint.cli.report import Style
from symlint.cli.report.acceptances import acceptance, standing
from symlint.cli.report.full import COLOR, left_out, shown, summary, typeset
from symlint.cli.report.words import printable


def report(run: Run, style: Style) -> str:
    """The lines, as long as they come: nothing is wrapped."""
    return typeset(_lines(run, style), style, wrap=False)


def _lines(run: Run, style: Style) -> Iterator[Text]:
    for item in run.reports:
        for finding in shown(item, run, style):
            yield Text.assemble(
                (printable(item.path), "bold"),
                f": {finding.rule} ",
                (f"[{finding.level}]", COLOR[finding.level]),
                f" {printable(finding.message)}",
                f" ({acceptance(finding)})" if finding.accepted else "",
                f" (the baseline has accepted {finding.worse_than})" if finding.worse_than else "",
            )
        if item.incomplete and not any(finding.message == item.incomplete for finding in item.findings):
            yield Text(f"{printable(item.path)}: incomplete: {printable(item.incomplete)}")
        for line in left_out(item):
            yield Text(f"{printable(item.path)}: {line}")
    if not style.quiet:
        yield from map(Text, standing(run))
        yield summary(run, every=style.verbose)
