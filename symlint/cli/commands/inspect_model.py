"""`symlint inspect`: the symmetries of one model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from symlint.cli.commands.states import Loops, states_options
from symlint.cli.commands.terminal import color_option, style_for, waiting
from symlint.cli.report.words import printable
from symlint.model.errors import UnreadableModel, exit_code

if TYPE_CHECKING:
    from symlint.cli.report import Style
    from symlint.symmetry.spaces import Symmetry
    from symlint.symmetry.structure import Structure

FORMATS = ("table", "json", "csv", "dot")


@click.command("inspect")
@click.argument("model", type=click.Path())
@click.option("-f", "--format", "form", type=click.Choice(FORMATS), default="table", show_default=True)
@states_options("auto")
@color_option
@click.option("-v", "--verbose", is_flag=True, help="Show every space and tensor, ids, and what joins each space.")
@click.pass_context
def command(
    ctx: click.Context,
    model: str,
    form: str,
    loops: Loops,
    color: str,
    verbose: bool,
) -> None:
    """Show the symmetries of a model's parameters.

    Which axes of which weights must be transformed together (spaces), what may be done to them without a change of the
    network's function (generators), what stays in place (pinned) and which parameters no operator rule reaches
    (opaque). Spaces that repeat from block to block are one line, unless -v is given. csv has one row per generator,
    dot is a graph of spaces and tensors for Graphviz. Exits with 0 when the model was read, 2 when the call is wrong, 3
    when there is no such file, 4 when it cannot be read.
    """
    from symlint.model.load import load
    from symlint.symmetry.inference import examine, measured

    try:
        with waiting(f"{model}: symmetries"):
            symmetry, structure = examine(loops.closed(load(model)))
    except UnreadableModel as problem:
        click.echo(f"symlint: {printable(str(problem))}", err=True)
        if form == "json":
            from symlint.cli.report.inspection.document import unread

            click.echo(unread(problem), nl=False)
        ctx.exit(exit_code(problem))
    style = style_for(color, verbose=verbose)
    text = _text(form, measured(symmetry, structure), structure, style)
    click.echo(text, nl=False, color=style.color)


def _text(form: str, symmetry: Symmetry, structure: Structure, style: Style) -> str:
    if form == "json":
        from symlint.cli.report.inspection.document import document

        return document(symmetry)
    from symlint.cli.report.inspection.flow import flow

    if form == "csv":
        from symlint.cli.report.inspection import spreadsheet

        return spreadsheet.table(symmetry, flow(structure))
    if form == "dot":
        from symlint.cli.report.inspection.graphviz import graph

        return graph(symmetry, flow(structure))
    from symlint.cli.report.inspection.overview import table
    from symlint.cli.report.inspection.pinned import pinned

    return table(symmetry, style, flow(structure), pinned(symmetry, structure))
