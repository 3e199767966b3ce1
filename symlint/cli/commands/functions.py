"""What a network computes under transformations of its inputs: `symlint equivariance`, `symlint symmetrise`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from symlint.cli.commands.fix_model import write
from symlint.cli.commands.options import (
    Loops,
    form_option,
    inputs_option,
    read_array,
    states_options,
    unread_too,
    writable,
)
from symlint.cli.commands.terminal import color_option, listed, style_for, waiting
from symlint.cli.report.words import count, printable

if TYPE_CHECKING:
    from symlint.model.graph import Model
    from symlint.runtime.proof import Proof


@click.command("equivariance")
@click.argument("model", type=click.Path())
@form_option
@click.option(
    "--only",
    callback=listed,
    metavar="NAMES",
    help="Transformations, separated by commas: flip, turn, shift, permutation, sign.",
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Draws all that is random.")
@inputs_option("Try on this instead.")
@states_options("auto")
@click.option("-v", "--verbose", is_flag=True, help="Show all that does not hold or could not be tried.")
@color_option
@click.pass_context
def equivariance_command(
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
    from symlint.cli.report.equivariances import as_json, as_text, unread
    from symlint.model.file.stored import FEW
    from symlint.model.load import load
    from symlint.runtime.equivariance.groups import known
    from symlint.runtime.equivariance.measure import Wanted, measure

    given = {name: read_array(file) for name, file in inputs.items()}
    wanted = Wanted(known(only or ()))
    with unread_too(form, unread), waiting(f"{model}: trying in onnxruntime"):
        table = measure(loops.closed(load(model, budget=FEW)), wanted, seed=seed, given=given)
    style = style_for(color, verbose=verbose)
    click.echo(as_json(table) if form == "json" else as_text(table, style), nl=False, color=style.color)
    ctx.exit(UNRUN if table.failure else 0)


FAILED, UNRUN = 5, 4
"""Exit codes of a result that is not what it should be, and of a model that onnxruntime does not run."""


@click.command("symmetrise")
@click.argument("model", type=click.Path())
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False), help="Where to write the average.")
@click.option(
    "--group",
    "groups",
    multiple=True,
    required=True,
    metavar="NAME:INPUT:AXIS",
    help="flip, turn, shift, permutation or sign of an input; several generate one group.",
)
@click.option(
    "--action",
    type=click.Choice(["invariant", "equivariant"]),
    help="What the outputs are to do.  [default: go along where they have the same axis, else stay]",
)
@click.option("--frame", is_flag=True, help="Run the network once, behind a frame: of one permutation, shift or sign.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Draws the inputs of the proof.")
@click.pass_context
def symmetrise_command(
    ctx: click.Context, model: str, output: str, groups: tuple[str, ...], action: str | None, frame: bool, seed: int
) -> None:
    """Write the average of a network over a group of moves.

    The result runs the network once for every element of the group, flip:image:3 has two, turn:image:2 four (in the
    plane of axes 2 and 3), and takes the mean of what comes out, moved back: it is exactly invariant, or equivariant,
    whatever the network is. The copies share their weights. Inputs that move together are joined by a plus:
    permutation:x:0+edges:0+edges:1. The result is compared in onnxruntime with a loop over the original.

    With --frame the inputs are brought to one of all that the group makes of them instead: places in the order of a
    key of their numbers, or shifted until the largest key is the first, or the sign that makes a sum positive; and the
    outputs are moved back. That is exact too, costs one run however large the group is, and jumps where keys are equal.

    Exits with 0 when it was written, 2 when the call is wrong, 3 when there is no such file, 4 when the model cannot be
    read or run, 5 when the result is not the same as the loop; then nothing is written.
    """
    from symlint.model.file.stored import FEW
    from symlint.model.load import load

    writable(output, model)
    loaded = load(model, budget=FEW)
    with TemporaryDirectory(prefix="symlint-") as folder, waiting(f"{model}: making it and proving that it is that"):
        made = Path(folder) / "made.onnx"
        proof, told, beside = (_framed if frame else _averaged)(loaded, groups, action, made, seed)
        if proof.outcome == "held":
            write(made, Path(model), Path(output), keep=False)
    if proof.outcome != "held":
        click.echo(f"symlint: {printable(model)}: nothing is written: {printable(proof.reason)}", err=True)
        ctx.exit(UNRUN if proof.outcome == "not runnable" else FAILED)
    click.echo(
        f"{printable(output)}: written, {told}\n"
        f"in onnxruntime it differs from {beside} by {proof.difference:.1e} of the largest\n"
        f"number, on {count(proof.trials, 'set')} of inputs; rounding alone moves the original\n"
        f"by {proof.noise:.1e}"
    )


def _averaged(model: Model, groups: Sequence[str], action: Any, out: Path, seed: int) -> tuple[Proof, str, str]:
    """The proof of what was made, what that is, and what it was compared with."""
    from symlint.model.file.saving import save
    from symlint.runtime.equivariance.groups import group
    from symlint.runtime.equivariance.symmetrising import averaged, prove

    model, elements = group(model, groups, action or "")
    save(averaged(model, elements), out)
    told = f"the average over {count(len(elements), 'transformation')}"
    return prove(model, out, elements, seed), told, "a loop over the original"


def _framed(model: Model, groups: Sequence[str], action: Any, out: Path, seed: int) -> tuple[Proof, str, str]:
    from symlint.model.file.saving import save
    from symlint.runtime.equivariance.groups import generators
    from symlint.runtime.equivariance.symmetrising import framed, proven

    model, chosen = generators(model, groups, action or "")
    save(framed(model, chosen), out)
    return proven(model, out, chosen, seed), "behind a frame", "the original there, and from itself when inputs move,"
