"""What `symlint equivariance` tells: transformations that hold, that do not, and that could not be tried."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from math import isfinite
from typing import Any

from rich.cells import cell_len
from rich.console import RenderableType
from rich.table import Table as Grid
from rich.text import Text

from symlint.cli.report import Style
from symlint.cli.report.data import dump
from symlint.cli.report.full import Hanging, typeset
from symlint.cli.report.words import count, end, printable
from symlint.model.errors import UnreadableModel
from symlint.runtime.equivariance import Measured, Table
from symlint.runtime.groups import Place

_SHOWN = 12
"""Rows of what does not hold, the nearest first."""
_GAP, _SHORTEST = 2, 12
_TITLES = ("", "moved", "output", "action", "error", "noise", "unrelated")


def as_json(table: Table) -> str:
    """The document for machines."""
    document: dict[str, Any] = {"schema_version": "1", "model": {"path": table.path}}
    if table.failure:
        document["reason"] = table.failure
    return dump({**document, "transformations": [record(row) for row in table.rows]})


def unread(problem: UnreadableModel) -> str:
    """The document where the file could not be read."""
    return as_json(Table(problem.path, (), problem.reason))


def record(row: Measured) -> dict[str, Any]:
    """A row in JSON's types."""
    told = asdict(row) | {"moved": [_placed(p, "input") for p in row.moved]}
    told["answer"] = [_placed(p, "output") for p in row.answer]
    return told


def _placed(place: Place, what: str) -> dict[str, Any]:
    return {what: place.tensor, "axes": list(place.axes)} | ({"indices": True} if place.indices else {})


def as_text(table: Table, style: Style) -> str:
    """The document for people."""
    return typeset(_blocks(table, style), style).rstrip("\n") + "\n"


def _blocks(table: Table, style: Style) -> Iterator[RenderableType]:
    yield Text(printable(table.path), style="bold")
    if table.failure:
        yield Hanging(Text(f"could not be tried: {printable(table.failure)}"), 2)
        return
    yield Hanging(Text("errors are shares of an output's largest value; noise is rounding", style="dim"), 2)
    rows = list({(row.name, frozenset(row.moved), row.output): row for row in reversed(table.rows)}.values())[::-1]
    held = [row for row in rows if row.outcome == "held"]
    proven, measured = [row for row in held if row.proven], [row for row in held if not row.proven]
    broken = sorted((row for row in rows if row.outcome == "broken"), key=_nearness)
    untried = [row for row in rows if row.outcome == "not tried"]
    if not rows:
        yield Hanging(Text("no input has an axis that could be moved"), 2)
    if proven:
        yield from _part("holds for all inputs, as structure and weights show", "green", proven, style)
    if measured:
        yield from _part("holds on what was tried", "green", measured, style)
    if broken:
        shown = broken if style.verbose else broken[:_SHOWN]
        yield from _part("does not hold", "yellow", shown, style)
        if len(shown) < len(broken):
            yield Text(f"and {count(len(broken) - len(shown), 'row')} more that hold less (-v shows them)", style="dim")
    for reason in dict.fromkeys(row.reason for row in untried):
        concerned = [row for row in untried if row.reason == reason]
        yield Text("")
        what = count(len(concerned), "transformation")
        yield Hanging(Text.assemble(("could not be tried", "bold"), f": {what}, since {printable(reason)}"))
        if style.verbose:
            yield _grid([(row.name, _axes(row.moved), row.output) for row in concerned], style.width)


def _part(title: str, color: str, rows: Sequence[Measured], style: Style) -> Iterator[RenderableType]:
    yield Text("")
    yield Text(title, style=f"bold {color}")
    yield _grid([_TITLES, *map(_cells, rows)], style.width)


def _cells(row: Measured) -> tuple[str, ...]:
    name = row.name if row.step == 1 else f"{row.name} {row.step}"
    answer = row.output + "".join(_places([p.axes for p in row.answer]))
    return name, _axes(row.moved), answer, row.action or "", *map(_number, (row.error, row.noise, row.unrelated))


def _axes(moved: Sequence[Place]) -> str:
    """``x[0] adjacency[0][1]``."""
    of = {tensor: [p for p in moved if p.tensor == tensor] for tensor in sorted({p.tensor for p in moved})}
    of = {p.tensor: of[p.tensor] for p in moved}
    return " ".join(
        tensor + _places(sorted(p.axes for p in places if p.axes)) + ("[values]" if places[0].indices else "")
        for tensor, places in of.items()
    )


def _places(axes: Sequence[tuple[int, ...]]) -> str:
    return "".join(f"[{','.join(map(str, each))}]" for each in axes if each)


def _nearness(row: Measured) -> float:
    error = row.error if row.error is not None else float("inf")
    return error / row.unrelated if row.unrelated else error


def _number(value: float | None) -> str:
    if value is None or not isfinite(value):
        return "-"
    return "0" if value == 0 else f"{value:.3f}" if value >= 0.001 else f"{value:.0e}"


def _grid(rows: Sequence[Sequence[str]], width: int) -> Grid:
    """A table in which names are cut at their beginning, and numbers never."""
    wide = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    room = width - sum(wide) + wide[1] + wide[2] - _GAP * (len(wide) - 1)
    second = min(wide[2], max(room - wide[1], room // 2, _SHORTEST))
    most = {1: max(room - second, _SHORTEST), 2: second}
    grid = Grid.grid(padding=(0, _GAP))
    for k in range(len(wide)):
        grid.add_column(justify="right" if k > 3 else "left", no_wrap=True)
    for row in rows:
        style = "dim" if row[0] == "" else ""
        grid.add_row(*(Text(end(printable(cell), most.get(k, width)), style=style) for k, cell in enumerate(row)))
    return grid
