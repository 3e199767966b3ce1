"""`symlint diff`: two files of one network, and what became of findings, weights and spaces."""

from __future__ import annotations

import click

from symlint.cli.commands.selecting import rules_option
from symlint.cli.commands.terminal import color_option, config_option, style_for, waiting
from symlint.model.errors import UnreadableModel, exit_code

EVENTS = ("new", "worse", "changed", "unchanged", "never")


@click.command("diff")
@click.argument("old", type=click.Path())
@click.argument("new", type=click.Path())
@rules_option("--select", "Compare what these rules find.")
@rules_option("--ignore", "Leave these rules out.")
@click.option(
    "--fail-on",
    multiple=True,
    type=click.Choice(EVENTS),
    default=("new",),
    show_default=True,
    help="What fails the run: new findings or newly affected units, the latter only, changed or unchanged weights."
    " Changed is whatever is more than rounding: weights that a symmetry moved, weights of one file only, and another"
    " operator or attribute of a node.",
)
@click.option("-f", "--format", "form", type=click.Choice(["full", "json"]), default="full", show_default=True)
@config_option
@color_option
@click.option("-v", "--verbose", is_flag=True, help="Show every weight and every space.")
@click.pass_context
def command(
    ctx: click.Context,
    old: str,
    new: str,
    select: tuple[str, ...] | None,
    ignore: tuple[str, ...] | None,
    fail_on: tuple[str, ...],
    form: str,
    config: str | None,
    color: str,
    verbose: bool,
) -> None:
    """Compare two files of one network: findings, weights, spaces.

    OLD and NEW may be a float network and its quantised form, a base and the same with an adapter merged, two
    checkpoints, or a network before and after an optimiser. Weights are matched by the spaces that they hold, whatever
    they are called; where widths differ, only those are that rows and columns were cut from. Networks never run. Exits
    with 0 when nothing happened that --fail-on names, 1 when it did, 2 when the call is wrong, 3 when there is no such
    file, 4 when one could not be audited or less than half of both is matched.
    """
    from symlint.cli.report.differences.document import as_json, unread
    from symlint.cli.report.differences.text import as_text
    from symlint.comparison.compare import compare
    from symlint.lint.configuration import Configurations
    from symlint.lint.rule import rules

    settings = Configurations(config, select=select, ignore=ignore).of(new)
    try:
        with waiting(f"{old} -> {new}"):
            result = compare(old, new, rules(), settings, fail_on)
    except UnreadableModel as problem:
        code = exit_code(problem)
        if form == "json":
            click.echo(unread(old, new, problem, code), nl=False)
        click.echo(f"symlint: {printable_line(problem)}", err=True)
        ctx.exit(code)
    style = style_for(color, verbose=verbose)
    click.echo(as_json(result) if form == "json" else as_text(result, style), nl=False, color=style.color)
    ctx.exit(result.exit_code)


def printable_line(problem: UnreadableModel) -> str:
    """The problem in one line that steers no terminal."""
    from symlint.cli.report.words import printable

    return printable(str(problem))
