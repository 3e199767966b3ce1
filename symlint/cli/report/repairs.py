"""What `symlint fix` tells: what was done, what was left, the cost before and after, and the proof."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from symlint.cli.report import Style
from symlint.cli.report.full import typeset
from symlint.cli.report.json import dump
from symlint.cli.report.words import count, listed, printable
from symlint.repair.result import Cost, Fixed

_SHAPES = 4
_LONG = 240
"""Characters of a reason that onnxruntime gives."""


def as_json(fixed: Fixed, output: str | None) -> str:
    """One document for machines; ``output`` is null where nothing was written."""
    proof: dict[str, Any] | None = None if fixed.proof is None else asdict(fixed.proof)
    return dump(
        {
            "schema_version": "1",
            "model": {"path": fixed.model.path, "sha256": fixed.model.sha256},
            "output": output,
            "outcome": "failed" if fixed.failed else "fixed" if fixed.done else "unchanged",
            "reason": fixed.unreached,
            "repairs": [asdict(one) for one in fixed.done],
            "left": [asdict(one) for one in fixed.left],
            "measured_at": _measured_at(fixed),
            "proof": proof,
            "before": _cost(fixed.before),
            "after": _cost(fixed.after),
        }
    )


def _measured_at(fixed: Fixed) -> dict[str, list[int]] | None:
    """Input -> the shape for which the latency was measured."""
    timing = fixed.before.timing
    return {name: list(shape) for name, shape in timing.shapes.items()} if timing else None


def _cost(cost: Cost) -> dict[str, Any]:
    found = cost.measure
    return {
        "nodes": found.nodes,
        "parameters": found.parameters,
        "bytes": found.bytes,
        "multiply_adds": found.multiply_adds,
        "latency": cost.timing.seconds if cost.timing else None,
        "spread": cost.timing.spread if cost.timing else None,
    }


def as_text(fixed: Fixed, output: str | None, style: Style) -> str:
    """The document for people."""
    return typeset(_blocks(fixed, output), style).rstrip("\n") + "\n"


def _blocks(fixed: Fixed, output: str | None) -> Iterator[RenderableType]:
    yield Text(printable(fixed.model.path), style="bold")
    yield Text("")
    if fixed.done:
        yield _repairs(fixed)
        yield Text("")
    if fixed.left:
        yield Text("left alone", style="bold")
        yield _rest(fixed)
        yield Text("")
    if fixed.done:
        yield _costs(fixed)
        if fixed.before.timing:
            shapes = (f"{name} [{', '.join(map(str, s))}]" for name, s in fixed.before.timing.shapes.items())
            yield Text(f"latency on one thread, for {printable(listed(shapes, _SHAPES))}", style="dim")
        yield Text("")
        if fixed.slower:
            yield Text("slower: this runtime wants rounder widths, try --align 8 or --align 16", style="yellow")
    yield _proof(fixed)
    yield Text(_end(fixed, output), style="bold")


def _repairs(fixed: Fixed) -> Table:
    table = Table.grid(padding=(0, 2))
    for one in fixed.done:
        gone = f"{one.removed} of {one.units}" if one.units else count(one.removed, "parameter") if one.removed else ""
        gone = count(one.bytes, "byte") if one.bytes else gone
        table.add_row(
            Text(one.rule, style="green"),
            one.name,
            Text(gone),
            Text(printable(one.where), overflow="ellipsis", no_wrap=True),
        )
    return table


def _rest(fixed: Fixed) -> Table:
    table = Table.grid(padding=(0, 2))
    for one in fixed.left:
        style = "red" if one.refuted else "yellow"
        table.add_row(Text(one.rule, style=style), one.name, Text(printable(one.where)), Text(printable(one.reason)))
    return table


def _costs(fixed: Fixed) -> Table:
    table = Table.grid(padding=(0, 2))
    for name in ("", "before", "after", ""):
        table.add_column(name, justify="left" if not name else "right")
    table.add_row("", Text("before", style="bold"), Text("after", style="bold"), "")
    one, two = fixed.before.measure, fixed.after.measure
    rows = [
        ("nodes", one.nodes, two.nodes),
        ("parameters", one.parameters, two.parameters),
        ("bytes", one.bytes, two.bytes),
        ("multiply-adds", one.multiply_adds, two.multiply_adds),
    ]
    for name, before, after in rows:
        table.add_row(name, f"{before:,}", f"{after:,}", _change(before, after))
    first, second = fixed.before.timing, fixed.after.timing
    if first and second:
        table.add_row("latency", _time(first.seconds), _time(second.seconds), _change(first.seconds, second.seconds))
        table.add_row("  varies by", _time(first.spread), _time(second.spread), "")
    return table


def _change(before: float, after: float) -> Text:
    if not before or before == after:
        return Text("")
    change = f"{100 * (after / before - 1):+.0f}%"
    return Text("" if change in ("-0%", "+0%") else change, style="green" if after < before else "")


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"


def _proof(fixed: Fixed) -> Text:
    proof = fixed.proof
    if proof is None:
        return Text(fixed.unreached or ("nothing could be repaired" if fixed.left else "nothing to repair"))
    if proof.outcome != "held":
        why = " ".join(proof.reason.split())[:_LONG] or "the outputs differ"
        return Text(f"not proven: {printable(why)}", style="red")
    tried = f"in onnxruntime on {count(proof.trials, 'set')} of inputs"
    if not proof.difference:
        return Text(f"identical outputs {tried}")
    noise = "" if proof.noise is None else f" (rounding alone moves it by {proof.noise:.1e})"
    return Text(f"same outputs {tried}: they differ by at most {proof.difference:.1e} of the largest{noise}")


def _end(fixed: Fixed, output: str | None) -> str:
    if fixed.failed:
        return "no repair held: nothing was written"
    if output is None:
        return "nothing was written"
    return f"{printable(output)}: {'written' if fixed.done else 'unchanged'}"
