"""`symlint rule`: the list of rules and their manual pages."""

from __future__ import annotations

import json
from collections.abc import Sequence

import click

from symlint.cli.commands.selecting import codes
from symlint.cli.commands.terminal import color_option, style_for
from symlint.cli.report import Style
from symlint.lint.rule import Rule, rules
from symlint.lint.severity import SHARES
from symlint.model.errors import UsageProblem, suggestion

HOW = """Where nothing above says otherwise, a finding is a warning. It is an error where all three are reached:
error-share of the units of the space, error-units as a number of units, and error-model of the model's parameters,
which a repair would remove. It is a note where a repair would remove less than note-model of them. Where no repair
removes parameters, the last two do not count."""
"""What the options of `symlint.lint.severity` mean, for the pages of all rules that have them."""


@click.command("rule")
@click.argument("which", metavar="[CODE|NAME|PREFIX]", required=False, shell_complete=codes)
@click.option("-f", "--format", "form", type=click.Choice(["text", "json", "markdown"]), default="text")
@color_option
def command(which: str | None, form: str, color: str) -> None:
    """List the rules, or print the manual page of one.

    Exits with 2 when there is no such rule.
    """
    installed = rules()
    chosen = [rule for rule in installed if which is None or which.upper() == rule.code or which == rule.name]
    chosen = chosen or [rule for rule in installed if which and rule.code.startswith(which.upper())]
    if not chosen:
        names = [name for rule in installed for name in (rule.code, rule.name)]
        raise UsageProblem(f"no rule {which!r}{suggestion(which or '', names)}; `symlint rule` lists them")
    if form == "json":
        text = json.dumps({"schema_version": "1", "rules": [_entry(rule) for rule in chosen]}, indent=2) + "\n"
    elif which and any(which.upper() == rule.code or which == rule.name for rule in chosen):
        text = _page(chosen[0], Style() if form == "markdown" else style_for(color))
    elif form == "markdown":
        text = _index(chosen)
    else:
        text = _list(chosen, style_for(color))
    click.echo(text, nl=False, color=style_for(color).color)


def _index(chosen: Sequence[Rule]) -> str:
    """A table of the rules in Markdown."""
    head = "| code | name | level | evidence | fix | says |\n|---|---|---|---|---|---|\n"
    cells = ((r.code, r.name, f"{r.level}", r.evidence, _acts(r), r.summary) for r in chosen)
    return head + "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |\n" for row in cells)


def _acts(rule: Rule) -> str:
    """Whether a fix repairs it, and whether it waits to be asked."""
    return ", ".join(word for word, there in (("yes", rule.repair), ("only when selected", _opt_in(rule))) if there)


def _list(chosen: Sequence[Rule], style: Style) -> str:
    """A line or more for each rule: what it says, whether a fix repairs it, and when it speaks."""
    from rich.table import Table
    from rich.text import Text

    from symlint.cli.report.full import typeset

    table = Table.grid(padding=(0, 2))
    for _ in range(3):
        table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for rule in chosen:
        marks = f"{'F' if rule.repair else '-'}{'O' if _opt_in(rule) else '-'}"
        line = Text.assemble((rule.name, "bold"), f": {rule.summary.rstrip('.')}")
        table.add_row(rule.code, f"{rule.level}", marks, line)
    legend = "F: symlint fix repairs it; O: it speaks only when it is selected, or with --target"
    return typeset(iter([table, Text(""), Text(legend, style="dim")]), style)


def _opt_in(rule: Rule) -> bool:
    return bool(rule.targets) or rule.evidence == "heuristic"


def _entry(rule: Rule) -> dict[str, object]:
    return {
        "code": rule.code,
        "name": rule.name,
        "level": str(rule.level),
        "evidence": rule.evidence,
        "summary": rule.summary,
        "page": rule.page.strip(),
        "repair": rule.repair,
        "fixable": bool(rule.repair),
        "opt_in": _opt_in(rule),
        "options": dict(rule.options),
        "targets": list(rule.targets),
    }


def _page(rule: Rule, style: Style) -> str:
    """The page: Markdown as it was written in a pipe, typeset on a terminal."""
    head = f"{rule.name} ({rule.code}), {rule.level}, evidence: {rule.evidence}"
    page = rule.page.strip() + _settings(rule)
    if not style.color:
        return f"# {head}\n\n{page}\n"
    from rich.markdown import Markdown
    from rich.text import Text

    from symlint.cli.report.full import typeset

    return typeset(iter([Text(head, style="bold"), Text(""), Markdown(page)]), style)


def _settings(rule: Rule) -> str:
    """What a configuration may change, and what the rule waits for, as a section of its page."""
    lines = []
    if rule.targets:
        lines.append(f"It speaks only with --target {' or '.join(rule.targets)}.")
    elif rule.evidence == "heuristic":
        lines.append(f"It speaks only when it is selected: --select {rule.code}.")
    if rule.options:
        options = "\n".join(f"- {name} = {value:g}" for name, value in rule.options.items())
        lines.append(f"Thresholds, to be set in a table [tool.symlint.rules.{rule.code}]:\n\n{options}")
    if rule.options.keys() >= SHARES.keys():
        lines.append(HOW)
    return "\n\n## Settings\n\n" + "\n\n".join(lines) if lines else ""
