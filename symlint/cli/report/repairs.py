"""What `symlint fix` tells: what was done, what was left, the cost before and after, and the proof."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from math import inf
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from symlint.cli.report import Style
from symlint.cli.report.data import dump
from symlint.cli.report.full import Hanging, typeset
from symlint.cli.report.words import count, listed, printable
from symlint.evidence.options import InputRange
from symlint.model.errors import UnreadableModel
from symlint.model.records import dataclass
from symlint.repair.plan import Cost, Fixed, Left, Shrunk

_SHAPES = 4
_LONG = 240
"""Characters of a reason that onnxruntime gives."""


@dataclass(frozen=True, slots=True)
class Repaired:
    """A model that was repaired, and where the result was written."""

    fixed: Fixed
    rest: tuple[Left, ...]
    """What the audit finds in the result, with the reasons why it stays, less what the fix tells of itself."""
    output: str | None
    """None where nothing was written."""
    config: str = ""
    """What became of the file beside the model that tells the sizes of its states."""

    @property
    def outcome(self) -> str:
        """In a word."""
        return "failed" if self.fixed.failed else "fixed" if self.fixed.done else "unchanged"

    @property
    def left(self) -> tuple[Left, ...]:
        """All that stays."""
        return (*self.fixed.left, *self.rest)


def as_json(results: Sequence[Repaired | UnreadableModel], code: int | None) -> str:
    """One document for machines: of one model, or of several where there is an exit code for all of them."""
    entries = [_unread(one) if isinstance(one, UnreadableModel) else _entry(one) for one in results]
    if code is None:
        return dump({"schema_version": "1", **entries[0]})
    return dump({"schema_version": "1", "exit_code": code, "models": entries})


def _unread(problem: UnreadableModel) -> dict[str, Any]:
    return {"model": {"path": problem.path}, "output": None, "outcome": "unreadable", "reason": problem.reason}


def _entry(one: Repaired) -> dict[str, Any]:
    fixed = one.fixed
    proof: dict[str, Any] | None = None if fixed.proof is None else asdict(fixed.proof)
    return {
        "model": {"path": fixed.model.path, "sha256": fixed.model.sha256},
        "output": one.output,
        "outcome": one.outcome,
        "reason": fixed.unreached,
        "repairs": [asdict(each) for each in fixed.done],
        "left": [asdict(each) for each in one.left],
        "states": [_narrower(each) for each in fixed.shrunk],
        "measured_at": _measured_at(fixed),
        "proof": proof,
        "before": _cost(fixed.before),
        "after": _cost(fixed.after),
        "widths": [{"align": v.align, "written": v.written, **_cost(v.cost)} for v in fixed.variants],
    }


def _narrower(state: Shrunk) -> dict[str, Any]:
    sizes = {"before": list(state.before), "after": list(state.after), "per": state.per}
    return {"input": state.input, "output": state.output, **sizes}


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
        "int8_decibels": None if cost.decibels is None else round(cost.decibels, 2),
        "float16_lost": cost.lost,
    }


def as_text(one: Repaired, style: Style) -> str:
    """The document for people."""
    return typeset(_blocks(one), style).rstrip("\n") + "\n"


def together(results: Sequence[Repaired | UnreadableModel], style: Style) -> str:
    """What became of several models, in a line."""
    read = [one for one in results if isinstance(one, Repaired)]
    times = Counter(one.outcome for one in read)
    times["not read"] = len(results) - len(read)
    taken = sum(o.fixed.before.measure.parameters - o.fixed.after.measure.parameters for o in read if o.fixed.done)
    words = ", ".join(f"{number:,} {word}" for word, number in times.items() if number)
    return typeset(iter([Text(f"{words}; {count(taken, 'parameter')} taken away in all", style="bold")]), style)


def _blocks(one: Repaired) -> Iterator[RenderableType]:
    fixed = one.fixed
    yield Text(printable(fixed.model.path), style="bold")
    yield Text("")
    if fixed.done:
        yield _repairs(fixed)
        yield Text("")
    if ranges := {name: ends for one in fixed.done for name, ends in one.inputs.items()}:
        told = " and ".join(str(InputRange(name, *_ends(*ends))) for name, ends in ranges.items())
        yield Hanging(Text(f"the outputs stay as long as {printable(told)}, as declared", style="yellow"))
        yield Text("")
    if fixed.shrunk:
        yield Text("narrower states, which callers have to keep as", style="bold")
        yield from (Text(printable(str(state))) for state in fixed.shrunk)
        if one.config:
            yield Text(printable(one.config), style="dim")
        yield Text("")
    for reason, left in _by_reason(one.left).items():
        yield Hanging(Text.assemble(("left alone", "bold"), f": {printable(reason)}"))
        yield _rest(left)
        yield Text("")
    if fixed.done:
        yield _costs(fixed)
        yield Text("")
    if gains := [gain for done in fixed.done for gain in done.gains]:
        yield from (Text(printable(gain)) for gain in gains)
        yield Text("")
    if fixed.variants:
        yield _widths(fixed)
        yield Text("")
    if (fixed.done or fixed.variants) and fixed.before.timing:
        shapes = (f"{name} [{', '.join(map(str, s))}]" for name, s in fixed.before.timing.shapes.items())
        yield Text(f"latency on one thread, for {printable(listed(shapes, _SHAPES))}", style="dim")
        yield Text("")
    if fixed.slower:
        yield Text(f"slower than before: {_remedy(fixed)}", style="yellow")
    yield _proof(one)
    yield Text(_end(one), style="bold")


def _remedy(fixed: Fixed) -> str:
    """What to do about a result that is slower."""
    before = fixed.before.timing
    times = {v.align: v.cost.timing for v in fixed.variants}
    better = [a for a, t in times.items() if a > 1 and t is not None and before is not None and not t.slower(before)]
    if better:
        return f"--align {better[0]} is not, and --align auto writes the fastest"
    return "rounder widths do not help" if fixed.variants else "--align auto would write the fastest of several widths"


def _ends(low: float | None, high: float | None) -> tuple[float, float]:
    return -inf if low is None else low, inf if high is None else high


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


def _by_reason(left: Sequence[Left]) -> dict[str, list[Left]]:
    groups: dict[str, list[Left]] = {}
    for one in left:
        groups.setdefault(one.reason, []).append(one)
    return groups


def _rest(left: Sequence[Left]) -> Table:
    """What stays for one reason."""
    table = Table.grid(padding=(0, 2))
    for one in left:
        style = "red" if one.refuted else "dim" if one.accepted else "yellow"
        table.add_row(Text(f"  {one.rule}", style=style), one.name, Text(printable(one.where), overflow="fold"))
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
    noisy, clear = fixed.before.decibels, fixed.after.decibels
    if noisy is not None and clear is not None:
        gain = clear - noisy
        change = Text(f"{gain:+.1f} dB" if abs(gain) >= 0.05 else "", style="green" if gain > 0 else "")
        table.add_row("signal to noise in int8", f"{noisy:.1f} dB", f"{clear:.1f} dB", change)
    if fixed.before.lost is not None and fixed.after.lost is not None:
        table.add_row("lost in float16", f"{fixed.before.lost:,}", f"{fixed.after.lost:,}", "")
    return table


def _widths(fixed: Fixed) -> Table:
    """What the same repairs come to at several widths."""
    table = Table.grid(padding=(0, 2))
    for name in ("widths", "parameters", "latency", "varies by"):
        table.add_column(justify="left" if name == "widths" else "right")
    table.add_row(*(Text(name, style="bold") for name in ("widths", "parameters", "latency", "varies by")))
    for one in fixed.variants:
        timing = one.cost.timing
        times = (_time(timing.seconds), _time(timing.spread)) if timing else ("-", "-")
        name = "as few as are needed" if one.align == 1 else f"multiples of {one.align} (--align {one.align})"
        style = "bold" if one.written else ""
        table.add_row(*(Text(cell, style=style) for cell in (name, f"{one.cost.measure.parameters:,}", *times)))
    return table


def _change(before: float, after: float) -> Text:
    if not before or before == after:
        return Text("")
    change = f"{100 * (after / before - 1):+.0f}%"
    return Text("" if change in ("-0%", "+0%") else change, style="green" if after < before else "")


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"


def _proof(one: Repaired) -> Text:
    fixed = one.fixed
    proof = fixed.proof
    if proof is None:
        return Text(fixed.unreached or _idle(one))
    if proof.outcome != "held":
        why = " ".join(proof.reason.split())[:_LONG] or "the outputs differ"
        return Text(f"not proven: {printable(why)}", style="red")
    tried = f"in onnxruntime on {count(proof.trials, 'set')} of inputs"
    if not proof.difference:
        return Text(f"identical outputs {tried}")
    noise = "" if proof.noise is None else f" (rounding alone moves it by {proof.noise:.1e})"
    return Text(f"same outputs {tried}: they differ by at most {proof.difference:.1e} of the largest{noise}")


def _idle(one: Repaired) -> str:
    """Why nothing was done."""
    if all(each.accepted for each in one.left):
        return "nothing to repair but what is accepted" if one.left else "nothing to repair"
    return "nothing could be repaired"


def _end(one: Repaired) -> str:
    if one.fixed.failed:
        return "no repair held: nothing was written"
    if one.output is None:
        return "nothing was written"
    return f"{printable(one.output)}: {'written' if one.fixed.done else 'unchanged'}"
