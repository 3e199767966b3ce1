"""`symlint rule`: the list of rules and their manual pages."""

from __future__ import annotations

import json

import click

from symlint.commands.terminal import color_option, style_for
from symlint.errors import UsageProblem
from symlint.report import Style
from symlint.rule import Rule, rules
from symlint.settings import suggestion


@click.command("rule")
@click.argument("which", metavar="[CODE|NAME|PREFIX]", required=False)
@click.option("-f", "--format", "form", type=click.Choice(["text", "json"]), default="text", show_default=True)
@color_option
def command(which: str | None, form: str, color: str) -> None:
    """List the rules, or print the manual page of one."""
    installed = rules()
    chosen = [rule for rule in installed if which is None or which in (rule.code, rule.name)]
    chosen = chosen or [rule for rule in installed if which and rule.code.startswith(which)]
    if which and not chosen:
        names = [name for rule in installed for name in (rule.code, rule.name)]
        raise UsageProblem(f"no rule {which!r}{suggestion(which, names)}; `symlint rule` lists them")
    if form == "json":
        text = json.dumps({"schema_version": "1", "rules": [_entry(rule) for rule in chosen]}, indent=2) + "\n"
    elif which in {name for rule in chosen for name in (rule.code, rule.name)}:
        text = _page(chosen[0], style_for(color))
    else:
        text = "".join(f"{rule.code}  {rule.level!s:8} {rule.evidence:10} {rule.name}\n" for rule in chosen)
    click.echo(text, nl=False, color=color != "never")


def _entry(rule: Rule) -> dict[str, str]:
    return {
        "code": rule.code,
        "name": rule.name,
        "level": str(rule.level),
        "evidence": rule.evidence,
        "summary": rule.summary,
        "page": rule.page.strip(),
    }


def _page(rule: Rule, style: Style) -> str:
    """The page: Markdown as it was written in a pipe, typeset on a terminal."""
    head = f"{rule.name} ({rule.code}), {rule.level}, evidence: {rule.evidence}"
    if not style.color:
        return f"# {head}\n\n{rule.page.strip()}\n"
    from rich.markdown import Markdown
    from rich.text import Text

    from symlint.report.full import typeset

    return typeset(iter([Text(head, style="bold"), Text(""), Markdown(rule.page.strip())]), style)
