"""A profile for people: a line per space; of several files, what became of it from the first to the last."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.cells import cell_len
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from symlint.cli.report import Style
from symlint.cli.report.full import typeset
from symlint.cli.report.words import count, end, printable, share
from symlint.comparison.course.measures import Measures
from symlint.comparison.trajectory import Portrait, Trajectory

_BARS = "▁▂▃▄▅▆▇█"
_GAP, _SHORTEST = 2, 12
_HEADS = 8
"""Ranks of copies that are told one by one."""


def as_text(found: Trajectory, style: Style) -> str:
    """The document for people."""
    blocks = _course(found) if len(found.portraits) > 1 else _single(found.portraits[0])
    return typeset(_fitted(blocks, style.width), style).rstrip("\n") + "\n"


Row = tuple[str, ...]
"""The cells of a line; the first is a name, which may be cut."""


def _single(portrait: Portrait) -> Iterator[Text | list[Row]]:
    coverage = portrait.report.coverage
    yield Text(printable(portrait.path), style="bold")
    yield Text(
        f"  {count(coverage.total, 'parameter')}, {share(coverage.audited, coverage.total)} audited", style="dim"
    )
    yield Text("")
    inside = _prefix([one.state.name for one in portrait.spaces])
    rows: list[Row] = [(inside or "layer", "role", "units", "live", "width", "rank", "stable", "parameters", "saves")]
    rows += (_cells(one, inside) for one in portrait.spaces)
    yield rows


def _cells(one: Measures, inside: str) -> Row:
    return (
        one.state.name.removeprefix(inside),
        one.role,
        f"{one.state.units:,}",
        number(one.state.live),
        number(one.state.width),
        rank(one),
        number(one.spectrum.stable if one.spectrum else None),
        f"{one.parameters:,}",
        f"{one.saves:,}" if one.saves else "",
    )


def _course(found: Trajectory) -> Iterator[Text | list[Row]]:
    first, last = found.portraits[0], found.portraits[-1]
    yield Text(
        f"{count(len(found.portraits), 'file')}, {printable(first.path)} to {printable(last.path)}", style="bold"
    )
    yield Text("")
    inside = _prefix([one.state.name for p in found.portraits for one in p.spaces])
    rows: list[Row] = [(inside or "layer", "role", "units", "live", "width", "", "rank")]
    for k in range(found.series):
        course = found.course(k)
        there = [one for one in course if one is not None]
        ends = (there[0], there[-1])
        rows.append(
            (
                ends[0].state.name.removeprefix(inside),
                ends[0].role,
                arrow([f"{one.state.units:,}" for one in ends]),
                arrow([number(one.state.live) for one in ends]),
                arrow([number(one.state.width) for one in ends]),
                _line([None if one is None else one.state.width for one in course], ends[0].state.units),
                arrow([number(one.rank) for one in ends]),
            )
        )
    yield rows


def _fitted(blocks: Iterator[Text | list[Row]], width: int) -> Iterator[RenderableType]:
    """The blocks with tables in which names are cut at their beginning, and numbers never."""
    for block in blocks:
        if isinstance(block, Text):
            yield block
            continue
        rest = sum(_GAP + max(map(cell_len, column)) for column in list(zip(*block, strict=True))[1:])
        table = Table.grid(padding=(0, _GAP))
        for k, title in enumerate(block[0]):
            table.add_column(justify="left" if k < 2 or not title else "right", no_wrap=True)
        for k, (name, *cells) in enumerate(block):
            shown = end(printable(name), max(width - rest, _SHORTEST))
            table.add_row(*(Text(cell, style="" if k else "bold") for cell in (shown, *cells)))
        yield table


def _prefix(names: Sequence[str]) -> str:
    """The modules in which all layers are, with a stop at the end; they head the column, so that names stay short."""
    parts = [name.split(".")[:-1] for name in names]
    depth = 0
    while all(len(part) > depth for part in parts) and len({part[depth] for part in parts}) == 1:
        depth += 1
    return "".join(f"{word}." for word in parts[0][:depth]) if parts else ""


def rank(one: Measures) -> str:
    """The rank, of a few copies of different ranks one by one."""
    different = len(set(one.ranks)) > 1 and len(one.ranks) <= _HEADS
    return "+".join(map(str, one.ranks)) if different else number(one.rank)


def number(value: float | None) -> str:
    """A count in full, another number to one digit after the point; nothing where there is none."""
    return "" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"


def arrow(values: Sequence[str]) -> str:
    """The first and the last of two, or what both are."""
    return values[0] if len(set(values)) == 1 else " -> ".join(values)


def _line(values: Sequence[float | None], most: int) -> str:
    """Bars from nothing to the number of units."""
    if all(value is None for value in values):
        return ""
    top = len(_BARS) - 1
    return "".join(" " if v is None else _BARS[min(top, int(v / max(most, 1) * len(_BARS)))] for v in values)
