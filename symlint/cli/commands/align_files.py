"""`symlint align`: a network moved along its own symmetries, as close to another as they allow."""

from __future__ import annotations

from pathlib import Path

import click

from symlint.cli.commands.states import Loops, states_options
from symlint.cli.commands.terminal import color_option, style_for, waiting
from symlint.model.errors import UnreadableModel, UsageProblem, exit_code


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
@click.option("-f", "--format", "form", type=click.Choice(["full", "json"]), default="full", show_default=True)
@states_options("none")
@color_option
@click.option("-v", "--verbose", is_flag=True, help="Show every space and every tensor.")
@click.pass_context
def command(
    ctx: click.Context,
    first: str,
    second: str,
    more: tuple[str, ...],
    output: str | None,
    merge: float | str | None,
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
    claimed. Needs scipy (the extra `align`).
    Exits with 0 when it was done, 2 when the call is wrong, 3 when there is no such file, 4 when one cannot be read or
    less than half of both is matched, 5 when the proof failed; then nothing is written.
    """
    from symlint.cli.report.alignments import Told, as_json, as_text, unread
    from symlint.comparison.alignment.align import aligned
    from symlint.comparison.alignment.merge import merged
    from symlint.model.file.stored import FEW
    from symlint.model.load import load

    if more and merge != "mean":
        raise UsageProblem("several networks are aligned to be merged: add --merge mean")
    if merge is not None and output is None:
        raise UsageProblem("--merge writes a network: say where with -o OUT")
    if output is not None:
        named(output, (first, second, *more))
    try:
        with waiting(f"{second} -> {first}"):
            one, *others = [loops.closed(load(path, budget=FEW), default=False) for path in (first, second, *more)]
            if merge is None or output is None:
                found = [aligned(one, others[0], None if output is None else Path(output))]
            else:
                found = [*merged(one, others, None if isinstance(merge, str) else merge, Path(output))]
    except UnreadableModel as problem:
        if form == "json":
            click.echo(unread(first, second, problem, exit_code(problem)), nl=False)
        raise
    style = style_for(color, verbose=verbose)
    code = max(one.exit_code for one in found)
    written = output if output is not None and not code else None
    report = Told(tuple(found), written, merge is not None)
    click.echo(as_json(report) if form == "json" else as_text(report, style), nl=False, color=style.color)
    ctx.exit(code)


def named(output: str, models: tuple[str, ...]) -> None:
    """Refuse to write over a model or into a folder that does not exist. Raises UsageProblem."""
    if Path(output).resolve() in {Path(model).resolve() for model in models}:
        raise UsageProblem(f"{output} is one of the models: name another file for the result")
    if not Path(output).absolute().parent.is_dir():
        raise UsageProblem(f"{output}: its folder does not exist")
