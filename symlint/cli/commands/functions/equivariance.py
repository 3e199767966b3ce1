"""`symlint equivariance`: what a network's outputs do under transformations of its inputs."""

from __future__ import annotations

from pathlib import Path

import click

from symlint.cli.commands.arrays import named_arrays, read_array
from symlint.cli.commands.states import Loops, states_options
from symlint.cli.commands.terminal import color_option, listed, style_for, waiting
from symlint.cli.report.words import printable
from symlint.model.errors import UnreadableModel, exit_code

UNRUN = 4
"""Exit code of a model that onnxruntime does not run."""


@click.command("equivariance")
@click.argument("model", type=click.Path())
@click.option("-f", "--format", "form", type=click.Choice(["full", "json"]), default="full", show_default=True)
@click.option(
    "--only",
    callback=listed,
    metavar="NAMES",
    help="Transformations, separated by commas: flip, turn, shift, permutation, sign.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Draws all that is random.")
@click.option(
    "--input", "inputs", multiple=True, callback=named_arrays, metavar="NAME:FILE.npy", help="Try on this instead."
)
@states_options("auto")
@click.option("-v", "--verbose", is_flag=True, help="Show all that does not hold or could not be tried.")
@color_option
@click.pass_context
def command(
    ctx: click.Context,
    model: str,
    form: str,
    only: frozenset[str] | None,
    seed: int,
    inputs: dict[str, Path],
    loops: Loops,
    verbose: bool,
    color: str,
) -> None:
    """Show how invariant or equivariant a network is.

    Inputs are flipped, turned by a quarter, shifted in a circle, permuted along each of their axes, and change their
    sign; onnxruntime runs the network before and after. Each output is compared as it is (invariant) and after the same
    was done to its own axes (equivariant), and the better of both is told, beside what rounding does and what another
    draw of the same inputs does. Where an axis alone does not do, axes of the same size in all inputs move with it, as
    the nodes of a graph do. What does not answer to an input could not be tried. What holds is also followed through
    the network step by step: where structure and weights show that it holds for all inputs, it is told as proven.

    Exits with 0 when the model ran, 2 when the call is wrong, 3 when there is no such file, 4 when it cannot be read or
    run.
    """
    from symlint.cli.report.equivariances import as_json, as_text
    from symlint.model.file.stored import FEW
    from symlint.model.load import load
    from symlint.runtime.equivariance.measure import Table, Wanted, measure
    from symlint.runtime.equivariance.transformations import known

    given = {name: read_array(file) for name, file in inputs.items()}
    wanted = Wanted(known(only or ()))
    try:
        with waiting(f"{model}: trying in onnxruntime"):
            table = measure(loops.closed(load(model, budget=FEW)), wanted, seed=seed, given=given)
    except UnreadableModel as problem:
        if form == "json":
            click.echo(as_json(Table(problem.path, (), problem.reason)), nl=False)
        click.echo(f"symlint: {printable(str(problem))}", err=True)
        ctx.exit(exit_code(problem))
    style = style_for(color, verbose=verbose)
    click.echo(as_json(table) if form == "json" else as_text(table, style), nl=False, color=style.color)
    ctx.exit(UNRUN if table.failure else 0)
