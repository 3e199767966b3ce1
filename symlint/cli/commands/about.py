"""What symlint is here: its rules (`rule`), the settings in force (`config`) and what is installed (`doctor`)."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import fields
from importlib.metadata import PackageNotFoundError, entry_points, version

import click

from symlint import __version__
from symlint.cli.commands.options import codes, color_option, config_option, style_for
from symlint.cli.report import Style
from symlint.cli.report.words import printable
from symlint.evidence.options import Equivariance, InputRange, Mirror
from symlint.lint.configuration import Configurations
from symlint.lint.rule import SHARES, Rule, rules
from symlint.lint.settings import Acceptance
from symlint.model.errors import MissingModel, UsageProblem, suggestion

HOW = """Where nothing above says otherwise, a finding is a warning. It is an error where all three are reached:
error-share of the units of the space, error-units as a number of units, and error-model of the model's parameters,
which a repair would remove. It is a note where a repair would remove less than note-model of them. Where no repair
removes parameters, the last two do not count."""
"""What the options of `symlint.lint.rule` mean, for the pages of all rules that have them."""


@click.command("rule")
@click.argument("which", metavar="[CODE|NAME|PREFIX]", required=False, shell_complete=codes)
@click.option("-f", "--format", "form", type=click.Choice(["text", "json", "markdown"]), default="text")
@color_option
def rule_command(which: str | None, form: str, color: str) -> None:
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


@click.command("config")
@click.argument("model", required=False, type=click.Path())
@config_option
def config_command(model: str | None, config: str | None) -> None:
    """Show the settings in force and where each comes from.

    They are those of MODEL, from the configuration nearest to it, or those of the working directory. Exits with 2 when
    a configuration cannot be followed, 3 when there is no such file.
    """
    if model is not None and not os.path.lexists(model):
        raise MissingModel(model)
    found = Configurations(config)
    settings = found.run if model is None else found.of(model)
    chosen = settings.chosen(rules())
    for item in fields(settings):
        if item.name in ("origins", "file", "silent"):
            continue
        value = getattr(settings, item.name)
        origin = settings.origins.get(item.name, "default")
        click.echo(f"{item.name.replace('_', '-'):8} = {_toml(value)}  # {printable(origin)}")
    click.echo(f"# {len(chosen)} rules: {', '.join(rule.code for rule in chosen)}")


def _toml(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(_toml(item) for item in value)}]"
    if isinstance(value, dict):
        pairs = ", ".join(f"{key} = {_toml(item)}" for key, item in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, (Mirror, Equivariance, InputRange, Acceptance)):
        said = ((item, getattr(value, item.name)) for item in fields(value))
        return _toml({item.name: each for item, each in said if each != item.default})
    if isinstance(value, (int, float)):
        return str(value)
    return f'"{printable(str(value))}"'


_REQUIRED = ("onnx", "onnx_ir", "onnxruntime", "numpy", "click", "rich")


@click.command("doctor")
@click.pass_context
def doctor_command(ctx: click.Context) -> None:
    """Show versions and installed packages of rules and operators.

    Exits with 2 when the installation is not complete.
    """
    rows = [("symlint", __version__), ("python", f"{platform.python_version()} on {platform.platform()}")]
    missing = []
    for name in _REQUIRED:
        try:
            rows.append((name, version(name)))
        except PackageNotFoundError:
            rows.append((name, "missing"))
            missing.append(name)
    packages = sorted(entry_points(group="symlint.rules"), key=lambda entry: entry.value)
    rows += [("rules", f"{entry.name} = {entry.value}") for entry in packages]
    packages = sorted(entry_points(group="symlint.operators"), key=lambda entry: entry.value)
    rows += [("operators", f"{entry.name} = {entry.value}") for entry in packages]
    for name, value in rows:
        click.echo(f"{name:12} {printable(value)}")
    try:
        found = rules()
    except (ImportError, UsageProblem) as error:
        raise UsageProblem(f"the rules cannot be loaded: {error}") from error
    click.echo(f"{'':12} {len(found)} rules")
    if missing or not found:
        problem = f"missing: {', '.join(missing)}" if missing else "no rules are installed"
        click.echo(
            f"symlint: {problem}; install again with: {sys.executable} -m pip install --force-reinstall symlint",
            err=True,
        )
        ctx.exit(2)
