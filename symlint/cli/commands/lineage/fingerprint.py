"""`symlint fingerprint`: what of a network is the same in every gauge, to be kept."""

from __future__ import annotations

from pathlib import Path

import click

from symlint.cli.commands.terminal import waiting
from symlint.cli.report.words import count, printable
from symlint.model.errors import UsageProblem


@click.command("fingerprint")
@click.argument("model", type=click.Path())
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False), help="Where to write it, as .npz.")
def command(model: str, output: str) -> None:
    """Write a sketch of a network for symlint trace.

    It holds 32 random projections per unit of what leads there from the inputs and from there to the outputs, which are
    the same wherever symmetries have moved the weights. Spaces within heads and rotated ones are left out. It is less
    sharp than the file, made of float networks alone, and keeps no secret: layers with few inputs can be read off it.

    Exits with 0 when it was written, 2 when the call is wrong, 3 when there is no such file, 4 when the model cannot be
    read.
    """
    from symlint.comparison.lineage.lineage import weights
    from symlint.comparison.lineage.sketch import sketched
    from symlint.comparison.lineage.storage import SUFFIX, write
    from symlint.model.load import load

    if Path(output).suffix != SUFFIX:
        raise UsageProblem(f"{output}: a sketch is called *{SUFFIX}, by which a folder of them is found")
    if not Path(output).absolute().parent.is_dir():
        raise UsageProblem(f"{output}: its folder does not exist")
    with waiting(model):
        sketch = sketched(weights(load(model)), model)
    write(sketch, Path(output))
    units = sum(space.units for space in sketch.spaces)
    size = Path(output).stat().st_size
    spaces = count(len(sketch.spaces), "space")
    click.echo(f"{printable(output)}: {count(units, 'unit')} of {spaces}, {count(size, 'byte')}")
