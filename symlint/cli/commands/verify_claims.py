"""`symlint verify`: the claims on trial, with onnxruntime as the judge."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from symlint.cli.commands.arrays import named_arrays, read_array
from symlint.cli.commands.states import Loops, states_options
from symlint.cli.commands.terminal import kinds_option, listed, waiting
from symlint.cli.report.words import count, printable
from symlint.model.errors import UnreadableModel
from symlint.runtime.verify import Trial

UNREACHED = 4
"""Exit code of what could not be tried."""
SHOWN = 40
"""Generators that are told one by one."""


@click.command("verify")
@click.argument("model", type=click.Path())
@click.argument("other", required=False, type=click.Path())
@click.option("-f", "--format", "form", type=click.Choice(["full", "json"]), default="full", show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Draws all that is random.")
@click.option("--only", callback=listed, metavar="IDS", help="Generators by id, separated by commas.")
@kinds_option
@states_options("auto")
@click.option(
    "--input", "inputs", multiple=True, callback=named_arrays, metavar="NAME:FILE.npy", help="Try on this instead."
)
@click.pass_context
def command(
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
    with waiting(f"{model}: trying in onnxruntime"), _told(form):
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


@contextmanager
def _told(form: str) -> Iterator[None]:
    """A file that cannot be read is told to machines, too."""
    try:
        yield
    except UnreadableModel as problem:
        if form == "json":
            document = {"schema_version": "1", "model": {"path": problem.path}, "reason": problem.reason}
            click.echo(json.dumps({**document, "generators": []}, indent=2))
        raise


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
