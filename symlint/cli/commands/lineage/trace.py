"""`symlint trace`: whether a network is derived from one of others."""

from __future__ import annotations

import click

from symlint.cli.commands.terminal import color_option, style_for, waiting
from symlint.model.errors import UnreadableModel, exit_code


@click.command("trace")
@click.argument("model", type=click.Path())
@click.argument("more", nargs=-1, type=click.Path())
@click.option(
    "--against",
    multiple=True,
    required=True,
    type=click.Path(),
    metavar="FILES|FOLDER",
    help="The networks that MODEL may come from, or sketches of them; what a pattern of the shell adds counts as well.",
)
@click.option("-f", "--format", "form", type=click.Choice(["full", "json"]), default="full", show_default=True)
@color_option
@click.option("-v", "--verbose", is_flag=True, help="Show the spaces of every network, not of the first alone.")
@click.pass_context
def command(
    ctx: click.Context,
    model: str,
    more: tuple[str, ...],
    against: tuple[str, ...],
    form: str,
    color: str,
    verbose: bool,
) -> None:
    """Tell whether a network is derived from one of others, whatever was done to it.

    Renamed, reordered, rescaled, rotated, permuted, fine-tuned, pruned, quantised, given a new head: the units of every
    space are matched from inputs upward and from outputs downward, by half of the weights each, and the other half says
    whether it matches them in the same way. The score is 1 where it always does and near 0 for networks that have
    nothing in common. It is a score and no probability: two trainings on the same data are a little above chance.
    Widths have to be the same. Networks never run. Needs scipy (the extra `align`).

    Exits with 0 when all were compared, 2 when the call is wrong, 3 when there is no such file, 4 when one cannot be
    read or nothing can be compared.
    """
    from symlint.cli.report.lineages import as_json, as_text, unread
    from symlint.comparison.lineage.lineage import lineage

    try:
        with waiting(model):
            found = lineage(model, (*against, *more))
    except UnreadableModel as problem:
        if form == "json":
            click.echo(unread(model, problem, exit_code(problem)), nl=False)
        raise
    style = style_for(color, verbose=verbose)
    click.echo(as_json(found) if form == "json" else as_text(found, style), nl=False, color=style.color)
    ctx.exit(found.exit_code)
