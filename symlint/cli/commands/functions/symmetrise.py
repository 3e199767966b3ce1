"""`symlint symmetrise`: the average of a network over a group of transformations, as one network."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import click

from symlint.cli.commands.destinations import write
from symlint.cli.commands.terminal import waiting
from symlint.cli.report.words import count, printable
from symlint.model.errors import UsageProblem

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
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Draws the inputs of the proof.")
@click.pass_context
def command(
    ctx: click.Context, model: str, output: str, groups: tuple[str, ...], action: str | None, seed: int
) -> None:
    """Write the average of a network over a group of moves.

    The result runs the network once for every element of the group, flip:image:3 has two, turn:image:2 four (in the
    plane of axes 2 and 3), and takes the mean of what comes out, moved back: it is exactly invariant, or equivariant,
    whatever the network is. The copies share their weights. Inputs that move together are joined by a plus:
    permutation:x:0+edges:0+edges:1. The result is compared in onnxruntime with a loop over the original.

    Exits with 0 when it was written, 2 when the call is wrong, 3 when there is no such file, 4 when the model cannot be
    read or run, 5 when the result is not the same as the loop; then nothing is written.
    """
    from symlint.model.file.saving import save
    from symlint.model.file.stored import FEW
    from symlint.model.load import load
    from symlint.runtime.equivariance.averaging import averaged, prove
    from symlint.runtime.equivariance.groups import Action, group

    if Path(output).resolve() == Path(model).resolve():
        raise UsageProblem(f"{output} is the model itself: name another file for the result")
    if not Path(output).absolute().parent.is_dir():
        raise UsageProblem(f"{output}: its folder does not exist")
    wanted: Action = "invariant" if action == "invariant" else "equivariant" if action else ""
    loaded = load(model, budget=FEW)
    loaded, elements = group(loaded, groups, wanted)
    with TemporaryDirectory(prefix="symlint-") as folder, waiting(f"{model}: averaging it and proving that it is that"):
        made = Path(folder) / "average.onnx"
        save(averaged(loaded, elements), made)
        proof = prove(loaded, made, elements, seed)
        if proof.outcome == "held":
            write(made, Path(model), Path(output), keep=False)
    if proof.outcome != "held":
        click.echo(f"symlint: {printable(model)}: nothing is written: {printable(proof.reason)}", err=True)
        ctx.exit(UNRUN if proof.outcome == "not runnable" else FAILED)
    click.echo(
        f"{printable(output)}: written, the average over {count(len(elements), 'transformation')}\n"
        f"in onnxruntime it differs from a loop over the original by {proof.difference:.1e} of the largest\n"
        f"number that is averaged, on {count(proof.trials, 'set')} of inputs; rounding alone moves the original\n"
        f"by {proof.noise:.1e}"
    )
