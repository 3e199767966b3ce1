"""The symmetries of a model and of what it computes: shown, measured, moved along, tried and made.

The symmetries of a model: shown (`inspect`), measured (`profile`), moved along (`teleport`) and tried (`verify`).

What a network computes under transformations of its inputs: `symlint equivariance`, `symlint symmetrise`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click

from symlint.cli.commands.fix_model import write
from symlint.cli.commands.options import (
    Loops,
    color_option,
    config_option,
    form_option,
    inputs_option,
    kinds_option,
    listed,
    read_array,
    states_options,
    style_for,
    unread_too,
    waiting,
    writable,
)
from symlint.cli.report import Style
from symlint.cli.report.words import count, printable
from symlint.model.errors import UnreadableModel, UsageProblem

if TYPE_CHECKING:
    from symlint.comparison.trajectory import Trajectory
    from symlint.model.graph import Model
    from symlint.runtime.proof import Proof
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
    from symlint.cli.report.inspection import unread

    return unread(problem)


def _inspected(form: str, symmetry: Symmetry, structure: Structure, style: Style) -> str:
    from symlint.cli.report.inspection import as_csv, as_dot, as_json, flow, pinned

    if form == "json":
        return as_json(symmetry)
    if form != "table":
        return (as_csv if form == "csv" else as_dot)(symmetry, flow(structure))
    from symlint.cli.report.overview import table

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
    if form in ("csv", "json"):
        from symlint.cli.report.profile_records import as_csv, as_json

        return as_csv(found) if form == "csv" else as_json(found)
    from symlint.cli.report.profile_tables import as_html, as_text

    return as_html(found) if form == "html" else as_text(found, style)


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
    from symlint.model.load import load
    from symlint.model.saving import write
    from symlint.model.stored import FEW
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
    from symlint.model.load import load
    from symlint.model.stored import FEW
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
    from symlint.model.load import load
    from symlint.model.stored import FEW
    from symlint.runtime.equivariance import Wanted, measure
    from symlint.runtime.groups import known

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
    from symlint.model.load import load
    from symlint.model.stored import FEW

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
    from symlint.model.saving import save
    from symlint.runtime.groups import group
    from symlint.runtime.symmetrising import averaged, prove

    model, elements = group(model, groups, action or "")
    save(averaged(model, elements), out)
    told = f"the average over {count(len(elements), 'transformation')}"
    return prove(model, out, elements, seed), told, "a loop over the original"


def _framed(model: Model, groups: Sequence[str], action: Any, out: Path, seed: int) -> tuple[Proof, str, str]:
    from symlint.model.saving import save
    from symlint.runtime.groups import generators
    from symlint.runtime.symmetrising import framed, proven

    model, chosen = generators(model, groups, action or "")
    save(framed(model, chosen), out)
    return proven(model, out, chosen, seed), "behind a frame", "the original there, and from itself when inputs move,"
