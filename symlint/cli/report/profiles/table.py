"""A profile for people: a line per space; of several files, what became of it from the first to the last."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from symlint.cli.report import Style
from symlint.cli.report.full import typeset
from symlint.cli.report.words import count, printable, share
from symlint.comparison.course.measures import Measures
from symlint.comparison.trajectory import Portrait, Trajectory

_BARS = "▁▂▃▄▅▆▇█"
_HEADS = 8
"""Ranks of copies that are told one by one."""


def as_text(found: Trajectory, style: Style) -> str:
    """The document for people."""
    several = len(found.portraits) > 1
    blocks = _course(found) if several else _single(found.portraits[0])
    return typeset(blocks, style).rstrip("\n") + "\n"


def _single(portrait: Portrait) -> Iterator[RenderableType]:
    coverage = portrait.report.coverage
    yield Text(printable(portrait.path), style="bold")
    yield Text(
        f"  {count(coverage.total, 'parameter')}, {share(coverage.audited, coverage.total)} audited", style="dim"
    )
    yield Text("")
    inside = _prefix([one.state.name for one in portrait.spaces])
    table = _table(inside or "layer", "role", "units", "live", "width", "rank", "stable", "parameters", "saves")
    for one in portrait.spaces:
        state = one.state
        table.add_row(
            _name(state.name, inside),
            one.role,
            f"{state.units:,}",
            _live(one),
            number(state.width),
            rank(one),
            number(one.spectrum.stable if one.spectrum else None),
            f"{one.parameters:,}",
            f"{one.saves:,}" if one.saves else "",
        )
    yield table


def _course(found: Trajectory) -> Iterator[RenderableType]:
    first, last = found.portraits[0], found.portraits[-1]
    yield Text(
        f"{count(len(found.portraits), 'file')}, {printable(first.path)} to {printable(last.path)}", style="bold"
    )
    yield Text("")
    inside = _prefix([one.state.name for p in found.portraits for one in p.spaces])
    table = _table(inside or "layer", "role", "units", "live", "width", "", "rank")
    for k in range(found.series):
        course = found.course(k)
        there = [one for one in course if one is not None]
        ends = (there[0], there[-1])
        table.add_row(
            _name(ends[0].state.name, inside),
            ends[0].role,
            arrow([f"{one.state.units:,}" for one in ends]),
            arrow([number(one.state.live) for one in ends]),
            arrow([number(one.state.width) for one in ends]),
            _line([None if one is None else one.state.width for one in course], ends[0].state.units),
            arrow([number(one.rank) for one in ends]),
        )
    yield table


def _prefix(names: Sequence[str]) -> str:
    """The modules in which all layers are, with a stop at the end; they head the column, so that names stay short."""
    parts = [name.split(".")[:-1] for name in names]
    depth = 0
    while all(len(part) > depth for part in parts) and len({part[depth] for part in parts}) == 1:
        depth += 1
    return "".join(f"{word}." for word in parts[0][:depth]) if parts else ""


def _name(name: str, inside: str) -> Text:
    return Text(printable(name.removeprefix(inside)), overflow="ellipsis", no_wrap=True)


def _table(*titles: str) -> Table:
    table = Table.grid(padding=(0, 2))
    for k, title in enumerate(titles):
        table.add_column(justify="left" if k < 2 or not title else "right", no_wrap=True, overflow="ellipsis")
    table.add_row(*(Text(printable(title), style="bold") for title in titles))
    return table


def _live(one: Measures) -> Text:
    live = one.state.live
    return Text(number(live), style="" if live in (None, one.state.units) else "yellow")


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
