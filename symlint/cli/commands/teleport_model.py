"""`symlint teleport`: the same function with other weights."""

from __future__ import annotations

from pathlib import Path

import click

from symlint.cli.commands.states import Loops, states_options
from symlint.cli.commands.terminal import kinds_option, listed, waiting
from symlint.model.errors import UsageProblem


@click.command("teleport")
@click.argument("model", type=click.Path())
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False), help="Where to write the moved model.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Draws the elements of the groups.")
@click.option("--only", callback=listed, metavar="IDS", help="Generators by id, separated by commas.")
@kinds_option
@states_options("none")
def command(
    model: str,
    output: str,
    seed: int,
    only: frozenset[str] | None,
    kinds: frozenset[str] | None,
    loops: Loops,
) -> None:
    """Move the weights along the symmetries; the function stays.

    Random elements of the claimed groups are applied one after another. Names, shapes and storage stay as they are. The
    result is a test for every tool that judges weights: what it says of a network must not change. With --states auto
    states move as well: what comes out is the same for whole sequences, not step by step for any state.

    Exits with 0 when it was written, 2 when the call is wrong, 3 when there is no such file, 4 when it cannot be read.
    """
    from symlint.model.file.edit import write
    from symlint.model.file.stored import FEW
    from symlint.model.load import load
    from symlint.program.numbers import Unvalued
    from symlint.symmetry.inference import examine
    from symlint.symmetry.motion.teleport import select, stuck, teleport

    if Path(output).resolve() == Path(model).resolve():
        raise UsageProblem(f"{output} is the model itself: name another file for the result")
    if not Path(output).absolute().parent.is_dir():
        raise UsageProblem(f"{output}: its folder does not exist")
    with waiting(f"{model}: moving its weights"):
        _, structure = examine(loops.closed(load(model, budget=FEW), default=False))
        chosen = select(structure, only, kinds)
        try:
            moved = teleport(structure, chosen, seed)
        except Unvalued:
            left = stuck(structure, chosen, seed)
            for name, reason in left.items():
                click.echo(f"{name} stays: {reason}", err=True)
            chosen = [name for name in chosen if name not in left]
            moved = teleport(structure, chosen, seed)
        write(model, moved, output)
    click.echo(f"{output}: moved by {len(chosen)} generators", err=True)
