"""The symmetries of a model: shown (`inspect`), measured (`profile`), moved along (`teleport`) and tried (`verify`)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from symlint.cli.commands.options import (
    Loops,
    form_option,
    inputs_option,
    read_array,
    states_options,
    unread_too,
    writable,
)
from symlint.cli.commands.terminal import color_option, config_option, kinds_option, listed, style_for, waiting
from symlint.cli.report import Style
from symlint.cli.report.words import count, printable
from symlint.model.errors import UnreadableModel, UsageProblem

if TYPE_CHECKING:
    from symlint.comparison.trajectory import Trajectory
    from symlint.runtime.verify import Trial
    from symlint.symmetry.spaces import Symmetry
    from symlint.symmetry.structure import Structure

INSPECT_FORMATS = ("table", "json", "csv", "dot")


@click.command("inspect")
@click.argument("model", type=click.Path())
@click.option("-f", "--format", "form", type=click.Choice(INSPECT_FORMATS), default="table", show_default=True)
@states_options("auto")
@color_option
@click.option("-v", "--verbose", is_flag=True, help="Show every space and tensor, ids, and what joins each space.")
def inspect_command(model: str, form: str, loops: Loops, color: str, verbose: bool) -> None:
    """Show the symmetries of a model's parameters.

    Which axes of which weights must be transformed together (spaces), what may be done to them without a change of the
    network's function (generators), what stays in place (pinned) and which parameters no operator rule reaches
    (opaque). Spaces that repeat from block to block are one line, unless -v is given. csv has one row per generator,
    dot is a graph of spaces and tensors for Graphviz. Exits with 0 when the model was read, 2 when the call is wrong, 3
    when there is no such file, 4 when it cannot be read.
    """
    from symlint.model.load import load
    from symlint.symmetry.inference import examine, measured

    with unread_too(form, _uninspected), waiting(f"{model}: symmetries"):
        symmetry, structure = examine(loops.closed(load(model)))
    style = style_for(color, verbose=verbose)
    text = _inspected(form, measured(symmetry, structure), structure, style)
    click.echo(text, nl=False, color=style.color)


def _uninspected(problem: UnreadableModel) -> str:
    from symlint.cli.report.inspection.documents import unread

    return unread(problem)


def _inspected(form: str, symmetry: Symmetry, structure: Structure, style: Style) -> str:
    if form == "json":
        from symlint.cli.report.inspection.documents import as_json

        return as_json(symmetry)
    from symlint.cli.report.inspection.flow import flow

    if form == "csv":
        from symlint.cli.report.inspection import documents

        return documents.as_csv(symmetry, flow(structure))
    if form == "dot":
        from symlint.cli.report.inspection.documents import as_dot

        return as_dot(symmetry, flow(structure))
    from symlint.cli.report.inspection.flow import pinned
    from symlint.cli.report.inspection.overview import table

    return table(symmetry, style, flow(structure), pinned(symmetry, structure))


PROFILE_FORMATS = ("table", "csv", "json", "html")
STDOUT = Path("-")
Outputs = Sequence[tuple[str, Path]]


def _outputs(ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> Outputs:
    """Format and file of each output; the format is empty where it is that of ``--format``."""
    outputs: list[tuple[str, Path]] = []
    for value in values:
        kind, equals, name = value.partition("=")
        named = equals and kind in PROFILE_FORMATS
        file = Path(name if named else value)
        if not str(name if named else value) or file.is_dir() or not file.absolute().parent.is_dir():
            raise UsageProblem(f"{value}: is no file, or its folder does not exist")
        if file.resolve() in [other.resolve() for _, other in outputs]:
            raise UsageProblem(f"{file} is named twice: one output would overwrite the other")
        outputs.append((kind if named else "", file))
    return outputs


@click.command("profile")
@click.argument("models", nargs=-1, required=True, type=click.Path())
@click.option("-f", "--format", "form", type=click.Choice(PROFILE_FORMATS), default="table", show_default=True)
@click.option(
    "-o",
    "--output",
    multiple=True,
    callback=_outputs,
    metavar="[FORMAT=]FILE",
    help="Write this file as well (- is stdout); without a format, instead of stdout.",
)
@config_option
@color_option
def profile_command(models: tuple[str, ...], form: str, output: Outputs, config: str | None, color: str) -> None:
    """Show what every space of a network has come to.

    A row per space: units that are live, constant and distinct, the effective width, ranks and spectra, norms, shares
    of paths, parameters, and what repairs would save. No number depends on the gauge: a rescaling or a permutation that
    leaves the function leaves the table. Several MODELS are checkpoints of one network in order of time; their spaces
    are matched as `symlint diff` does. Networks never run. Exits with 0 when all were read, 3 when there is no such
    file, 4 when one could not be read.
    """
    from symlint.comparison.trajectory import trajectory
    from symlint.lint.configuration import Configurations
    from symlint.lint.rule import rules

    settings = Configurations(config)
    with waiting(f"measuring {', '.join(models)}"):
        found = trajectory(models, rules(), [settings.of(model) for model in models])
    for kind, file in output:
        if file == STDOUT:
            continue
        try:
            file.write_text(_profiled(found, kind or form, Style()), encoding="utf-8")
        except OSError as error:
            raise UsageProblem(f"{file}: cannot be written: {error.strerror}") from error
    if all(kind or file == STDOUT for kind, file in output):
        style = style_for(color)
        shown = next((kind for kind, file in output if kind and file == STDOUT), form)
        click.echo(_profiled(found, shown, style), nl=False, color=style.color)


def _profiled(found: Trajectory, form: str, style: Style) -> str:
    if form == "table":
        from symlint.cli.report.profile_tables import as_text

        return as_text(found, style)
    if form == "html":
        from symlint.cli.report.profile_tables import as_html

        return as_html(found)
    from symlint.cli.report import profile_records

    return {"csv": profile_records.as_csv, "json": profile_records.as_json}[form](found)


@click.command("teleport")
@click.argument("model", type=click.Path())
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False), help="Where to write the moved model.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Draws the elements of the groups.")
@click.option("--only", callback=listed, metavar="IDS", help="Generators by id, separated by commas.")
@kinds_option
@states_options("none")
def teleport_command(
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
    from symlint.model.file.saving import write
    from symlint.model.file.stored import FEW
    from symlint.model.load import load
    from symlint.program.numbers import Unvalued
    from symlint.symmetry.inference import examine
    from symlint.symmetry.motion.teleport import select, stuck, teleport

    writable(output, model)
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


UNREACHED = 4
"""Exit code of what could not be tried."""
SHOWN = 40
"""Generators that are told one by one."""


@click.command("verify")
@click.argument("model", type=click.Path())
@click.argument("other", required=False, type=click.Path())
@form_option
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Draws all that is random.")
@click.option("--only", callback=listed, metavar="IDS", help="Generators by id, separated by commas.")
@kinds_option
@states_options("auto")
@inputs_option("Try on this instead.")
@click.pass_context
def verify_command(
    ctx: click.Context,
    model: str,
    other: str | None,
    form: str,
    seed: int,
    only: frozenset[str] | None,
    kinds: frozenset[str] | None,
    loops: Loops,
    inputs: dict[str, Path],
) -> None:
    """Try every claimed symmetry against onnxruntime.

    With one model: move its weights by random elements of the claimed groups and compare the outputs. With two: compare
    their outputs on the same random inputs. Inputs are drawn until the outputs answer to them; values that are given
    with --input stand in their place. What leaves a network and comes back at its next step does so here too, for 8 to
    64 steps from a start of zeros. Exits with 0 when all that was tried holds, 1 when something is refuted, 2 when
    the call is wrong, 3 when there is no such file, 4 when something could not be tried or a file cannot be read.
    """
    from symlint.model.file.stored import FEW
    from symlint.model.load import load
    from symlint.runtime.verify import same_function, verify
    from symlint.symmetry.inference import examine
    from symlint.symmetry.motion.teleport import select

    given = {name: read_array(file) for name, file in inputs.items()}
    unreached = ""
    with unread_too(form, _untried), waiting(f"{model}: trying in onnxruntime"):
        loaded = loops.closed(load(model, budget=FEW))
        if other is not None:
            trials = [same_function(loaded, loops.closed(load(other, budget=FEW)), seed, given)]
        else:
            symmetry, structure = examine(loaded)
            trials = verify(structure, select(structure, only, kinds), seed, given)
            unreached = symmetry.coverage.unreached
    if form == "json":
        click.echo(_document(trials, pair=other is not None, unreached=unreached))
    else:
        click.echo(_table(trials, unreached) if other is None else _verdict(trials[0]))
    outcomes = {t.outcome for t in trials}
    ctx.exit(1 if "refuted" in outcomes else UNREACHED if "not runnable" in outcomes or unreached else 0)


def _untried(problem: UnreadableModel) -> str:
    document = {"schema_version": "1", "model": {"path": problem.path}, "reason": problem.reason}
    return json.dumps({**document, "generators": []}, indent=2) + "\n"


def _document(trials: Sequence[Trial], *, pair: bool, unreached: str) -> str:
    rows: list[dict[str, Any]] = [
        {"id": t.id, "kind": t.kind, "difference": t.difference if t.finite else None, "outcome": t.outcome}
        | ({"reason": t.reason} if t.reason else {})
        for t in trials
    ]
    document: dict[str, Any] = {"schema_version": "1"}
    if pair:
        (row,) = rows
        document |= {"outcome": row["outcome"], "difference": row["difference"], "reason": trials[0].reason}
    if unreached:
        document["reason"] = unreached
    return json.dumps({**document, "generators": rows}, indent=2, allow_nan=False)


def _table(trials: Sequence[Trial], unreached: str) -> str:
    """What was refuted or could not be tried, and a line that sums up."""
    lines = [
        f"{_outcome(t.outcome):18s} {t.id:24s} {_difference(t)}  {printable(t.reason)}".rstrip()
        for t in trials
        if t.outcome != "held"
    ]
    more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    times = Counter(t.outcome for t in trials)
    told = ", ".join(f"{n} {_outcome(outcome)}" for outcome, n in sorted(times.items()))
    words = f"{count(len(trials), 'generator')}: {told}" if trials else "no symmetry to try"
    end = [f"could not be tried: {unreached}"] if unreached else []
    return "\n".join([*lines[:SHOWN], *more, f"{words}{_apart(trials)}", *end])


def _verdict(trial: Trial) -> str:
    """Whether two networks are one function."""
    word = {"held": "the same function", "refuted": "not the same function"}.get(trial.outcome, "could not be tried")
    reason = f"; {printable(trial.reason)}" if trial.reason else ""
    return f"{word}{_apart([trial])}{reason}"


def _apart(trials: Sequence[Trial]) -> str:
    """How far the outputs of all trials are apart at most."""
    tried = [t.difference for t in trials if t.difference is not None]
    if not tried:
        return ""
    return f"; outputs differ by up to {max(tried):.1e} of the largest" if max(tried) else "; outputs are identical"


def _outcome(outcome: str) -> str:
    return "could not be tried" if outcome == "not runnable" else outcome


def _difference(trial: Trial) -> str:
    return "        -" if trial.difference is None else f"{trial.difference:9.1e}"
