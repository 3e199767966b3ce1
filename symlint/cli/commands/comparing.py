"""One network beside others: `symlint diff`, `align`, `trace`, and `fingerprint`, which sketches one for that."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from symlint.cli.commands.options import (
    Loops,
    color_option,
    config_option,
    form_option,
    inputs_option,
    read_array,
    rules_option,
    states_options,
    style_for,
    unread_too,
    waiting,
    writable,
)
from symlint.cli.report.words import count, printable
from symlint.model.errors import UsageProblem

if TYPE_CHECKING:
    from symlint.comparison.alignment.align import Alignment
    from symlint.model.graph import Model

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
@form_option
@config_option
@color_option
@click.option("-v", "--verbose", is_flag=True, help="Show every weight and every space.")
@click.pass_context
def diff_command(
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
    from symlint.cli.report.differences import as_json, as_text, unread
    from symlint.comparison.compare import compare
    from symlint.lint.configuration import Configurations
    from symlint.lint.rule import rules

    settings = Configurations(config, select=select, ignore=ignore).of(new)
    with unread_too(form, lambda problem: unread(old, new, problem)), waiting(f"{old} -> {new}"):
        result = compare(old, new, rules(), settings, fail_on)
    style = style_for(color, verbose=verbose)
    click.echo(as_json(result) if form == "json" else as_text(result, style), nl=False, color=style.color)
    ctx.exit(result.exit_code)


def _share(ctx: click.Context, parameter: click.Parameter, value: str | None) -> float | str | None:
    """The share of the first network in an average, or the word for all alike."""
    if value is None or value == "mean":
        return value
    try:
        share = float(value)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is neither a number nor 'mean'") from error
    if not 0 <= share <= 1:
        raise click.BadParameter(f"{value} is not between 0 and 1")
    return share


@click.command("align")
@click.argument("first", type=click.Path())
@click.argument("second", type=click.Path())
@click.argument("more", nargs=-1, type=click.Path())
@click.option("-o", "--output", type=click.Path(dir_okay=False), help="Where to write SECOND as it was moved.")
@click.option(
    "--merge",
    metavar="W|mean",
    callback=_share,
    help="Write W times FIRST plus 1 - W times SECOND as it was moved, or the mean of FIRST and all others.",
)
@inputs_option("Data for an input: on them --merge computes the statistics of batch normalisations.")
@click.option(
    "--labels",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE.npy",
    help="What should come out of --input, classes or numbers: the loss is told along the line from FIRST to SECOND.",
)
@form_option
@states_options("none")
@color_option
@click.option("-v", "--verbose", is_flag=True, help="Show every space and every tensor.")
@click.pass_context
def align_command(
    ctx: click.Context,
    first: str,
    second: str,
    more: tuple[str, ...],
    output: str | None,
    merge: float | str | None,
    inputs: dict[str, Path],
    labels: Path | None,
    form: str,
    loops: Loops,
    color: str,
    verbose: bool,
) -> None:
    """Move a network along its symmetries, as close to another as they allow.

    SECOND is moved, FIRST stands still. Two trainings of one architecture, or a copy that was fine-tuned, pruned,
    renamed, permuted, rescaled or rotated: what differs beyond symmetry? Units are matched space by space, whatever an
    exporter has called, transposed or packed, then signs, rotations, scales and translations. What is written computes
    what SECOND computes, proven in onnxruntime as `symlint verify SECOND OUT` does. Of what --merge averages nothing is
    claimed; --labels tell the loss at five points of the line. Needs scipy (the extra `align`).
    Exits with 0 when it was done, 2 when the call is wrong, 3 when there is no such file, 4 when one cannot be read or
    less than half of both is matched, 5 when the proof failed; then nothing is written.
    """
    from symlint.cli.report.alignments import Told, as_json, as_text, unread
    from symlint.model.load import load
    from symlint.model.stored import FEW

    if more and merge != "mean":
        raise UsageProblem("several networks are aligned to be merged: add --merge mean")
    if merge is not None and output is None:
        raise UsageProblem("--merge writes a network: say where with -o OUT")
    if labels is not None and not inputs:
        raise UsageProblem("--labels are of --input NAME:FILE.npy: give these, too")
    if output is not None:
        writable(output, first, second, *more)
    with unread_too(form, lambda problem: unread(first, second, problem)), waiting(f"{second} -> {first}"):
        models = [loops.closed(load(path, budget=FEW), default=False) for path in (first, second, *more)]
        found = _aligned(models, merge, None if output is None else Path(output), inputs, labels)
    style = style_for(color, verbose=verbose)
    code = max(one.exit_code for one in found)
    written = output if output is not None and not code else None
    report = Told(found, written, merge is not None, bool(inputs))
    click.echo(as_json(report) if form == "json" else as_text(report, style), nl=False, color=style.color)
    ctx.exit(code)


def _aligned(
    models: Sequence[Model],
    merge: float | str | None,
    output: Path | None,
    inputs: dict[str, Path],
    labels: Path | None,
) -> tuple[Alignment, ...]:
    """What came of each network but the first."""
    from symlint.comparison.alignment.align import aligned
    from symlint.comparison.alignment.merge import Data, measured, merged

    wanted = None if labels is None else read_array(labels)
    data = Data({name: read_array(file) for name, file in inputs.items()}, wanted)
    one, *others = models
    found: tuple[Alignment, ...]
    if merge is None or output is None:
        found = (aligned(one, others[0], output),)
    else:
        share = None if isinstance(merge, str) else merge
        found = merged(one, others, share, output, data.renewed if inputs else None)
    return tuple(measured(each, other.path, data) for each, other in zip(found, others, strict=False))


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
@form_option
@color_option
@click.option("-v", "--verbose", is_flag=True, help="Show the spaces of every network, not of the first alone.")
@click.pass_context
def trace_command(
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
    from symlint.comparison.lineage.sketch import lineage

    with unread_too(form, lambda problem: unread(model, problem)), waiting(model):
        found = lineage(model, (*against, *more))
    style = style_for(color, verbose=verbose)
    click.echo(as_json(found) if form == "json" else as_text(found, style), nl=False, color=style.color)
    ctx.exit(found.exit_code)


@click.command("fingerprint")
@click.argument("model", type=click.Path())
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False), help="Where to write it, as .npz.")
def fingerprint_command(model: str, output: str) -> None:
    """Write a sketch of a network for symlint trace.

    It holds 32 random projections per unit of what leads there from the inputs and from there to the outputs, which are
    the same wherever symmetries have moved the weights. Spaces within heads and rotated ones are left out. It is less
    sharp than the file, made of float networks alone, and keeps no secret: layers with few inputs can be read off it.

    Exits with 0 when it was written, 2 when the call is wrong, 3 when there is no such file, 4 when the model cannot be
    read.
    """
    from symlint.comparison.lineage.sketch import SUFFIX, sketched, weights, write
    from symlint.model.load import load

    if Path(output).suffix != SUFFIX:
        raise UsageProblem(f"{output}: a sketch is called *{SUFFIX}, by which a folder of them is found")
    writable(output)
    with waiting(model):
        sketch = sketched(weights(load(model)), model)
    write(sketch, Path(output))
    units = sum(space.units for space in sketch.spaces)
    size = Path(output).stat().st_size
    spaces = count(len(sketch.spaces), "space")
    click.echo(f"{printable(output)}: {count(units, 'unit')} of {spaces}, {count(size, 'byte')}")
