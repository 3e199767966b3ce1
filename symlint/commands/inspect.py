"""`symlint inspect`: the symmetries of one model."""

from __future__ import annotations

import click

from symlint.commands.terminal import color_option, style_for
from symlint.errors import UnreadableModel
from symlint.report.words import printable


@click.command("inspect")
@click.argument("model", type=click.Path())
@click.option("-f", "--format", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
@color_option
@click.option("-v", "--verbose", is_flag=True, help="Show every tensor and why each space is what it is.")
@click.pass_context
def command(ctx: click.Context, model: str, form: str, color: str, verbose: bool) -> None:
    """Show the symmetries of a model's parameters.

    Which axes of which weights must be transformed together (spaces), what may be done to them without a change of the
    network's function (generators), and which parameters no operator rule reaches (opaque).
    """
    from symlint.inference import infer
    from symlint.load import load
    from symlint.report import inspection

    try:
        symmetry = infer(load(model))
    except UnreadableModel as problem:
        click.echo(f"symlint: {printable(str(problem))}", err=True)
        if form == "json":
            click.echo(inspection.unread(problem), nl=False)
        ctx.exit(4)
    style = style_for(color, verbose=verbose)
    text = inspection.document(symmetry) if form == "json" else inspection.table(symmetry, style)
    click.echo(text, nl=False, color=style.color)
