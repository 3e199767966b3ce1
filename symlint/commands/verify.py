"""`symlint verify`: the claims on trial, with onnxruntime as the judge."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence

import click

from symlint.commands.terminal import listed
from symlint.report.words import printable
from symlint.verify import Trial


@click.command("verify")
@click.argument("model", type=click.Path())
@click.argument("other", required=False, type=click.Path())
@click.option("-f", "--format", "form", type=click.Choice(["full", "json"]), default="full", show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="Draws inputs and elements of the groups.")
@click.option("--only", help="Generators by id, separated by commas.")
@click.option("--kinds", help="Kinds of generators, separated by commas: permutation, rescaling ...")
@click.pass_context
def command(
    ctx: click.Context, model: str, other: str | None, form: str, seed: int, only: str | None, kinds: str | None
) -> None:
    """Try every claimed symmetry against onnxruntime.

    With one model: move its weights by random elements of the claimed groups and compare the outputs. With two: compare
    their outputs on the same random inputs. Exit 1 when something is refuted, 4 when it could not be tried.
    """
    from symlint.inference import examine
    from symlint.load import load
    from symlint.stored import FEW
    from symlint.teleport import select
    from symlint.verify import same_function, verify

    loaded = load(model, budget=FEW)
    if other is not None:
        trials = [same_function(loaded, load(other, budget=FEW), seed)]
    else:
        _, structure = examine(loaded)
        trials = verify(structure, select(structure, listed(only), listed(kinds)), seed)
    click.echo(_document(trials) if form == "json" else _table(trials))
    outcomes = {t.outcome for t in trials}
    ctx.exit(1 if "refuted" in outcomes else 4 if "not runnable" in outcomes else 0)


def _document(trials: Sequence[Trial]) -> str:
    rows = [
        {"id": t.id, "kind": t.kind, "difference": t.difference if t.finite else None, "outcome": t.outcome}
        | ({"reason": t.reason} if t.reason else {})
        for t in trials
    ]
    return json.dumps({"schema_version": "1", "generators": rows}, indent=2, allow_nan=False)


def _table(trials: Sequence[Trial]) -> str:
    """What was refuted or could not be tried, and a line that sums up."""
    lines = [
        f"{t.outcome:13s} {t.id:24s} {_difference(t)}  {printable(t.reason)}".rstrip()
        for t in trials
        if t.outcome != "held"
    ]
    count = Counter(t.outcome for t in trials)
    largest = max((t.difference for t in trials if t.difference is not None), default=0.0)
    words = ", ".join(f"{n} {outcome}" for outcome, n in sorted(count.items())) or "no symmetry to try"
    return "\n".join([*lines[:40], f"{words}; largest difference {largest:.1e} of the largest output"])


def _difference(trial: Trial) -> str:
    return "        -" if trial.difference is None else f"{trial.difference:9.1e}"
