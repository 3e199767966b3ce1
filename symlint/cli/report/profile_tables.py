"""A profile for people: a line per space and its spectrum; of several files, what became of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.cells import cell_len
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from symlint.cli.report import Style
from symlint.cli.report.full import architectural, typeset
from symlint.cli.report.page import course, drawn, render, spectrum
from symlint.cli.report.profile_records import points
from symlint.cli.report.words import count, end, printable, share
from symlint.comparison.trajectory import Measures, Portrait, Trajectory

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


_ROWS = 1500
"""So many spaces are shown."""
Course = list[Measures | None]
"""A space in every file."""


def as_html(found: Trajectory) -> str:
    """The page; its map is that of the last file."""
    several = len(found.portraits) > 1
    every: list[Course] = list(_courses(found)) if several else [[one] for one in found.portraits[0].spaces]
    rows = [_shown(one) for one in _largest(every)]
    last = found.portraits[-1].report
    levels = {f.layer: f.level for f in sorted(last.findings, key=lambda f: f.level) if not architectural(f)}
    places = {row["layer"]: f"s{k}" for k, row in reversed(list(enumerate(rows)))}
    told = {layer: (levels.get(layer), places.get(layer, "")) for layer in {*levels, *places}}
    paths = [p.path for p in found.portraits]
    left = len(every) - len(rows)
    return render("profile.html", paths=paths, several=several, rows=rows, left=left, map=drawn(last.layers, told))


def _courses(found: Trajectory) -> Iterator[Course]:
    for k in range(found.series):
        yield list(found.course(k))


def _largest(every: Sequence[Course]) -> list[Course]:
    """As many as a page holds, in their order: those of which something can be saved, then the largest."""

    def weight(k: int) -> tuple[bool, int]:
        last = [one for one in every[k] if one is not None][-1]
        return not last.saves, -last.parameters

    return [every[k] for k in sorted(sorted(range(len(every)), key=weight)[:_ROWS])]


def _shown(course_of: Course) -> dict[str, Any]:
    """A space in one file, or in all of them."""
    there = [one for one in course_of if one is not None]
    first, last = there[0], there[-1]
    ends = (first, last)
    return {
        "layer": first.state.name,
        "role": first.role,
        "numbers": [
            arrow([f"{one.state.units:,}" for one in ends]),
            arrow([number(one.state.live) for one in ends]),
            arrow([number(one.state.width) for one in ends]),
            arrow([rank(one) for one in ends]),
            arrow([number(one.spectrum.stable if one.spectrum else None) for one in ends]),
        ],
        "plot": _plot(course_of) if len(course_of) > 1 else _spectrum(first),
        "parameters": last.parameters,
        "saves": last.saves,
    }


def _spectrum(one: Measures) -> Any:
    if one.spectrum is None:
        return ""
    label = f"{one.spectrum.rank} singular values above the noise of {one.spectrum.noise:.0e}"
    return spectrum(points(one), one.spectrum.noise, label)


def _plot(course_of: Course) -> Any:
    widths = [None if one is None else one.state.width for one in course_of]
    live = [None if one is None or one.state.live is None else float(one.state.live) for one in course_of]
    if all(value is None for value in (*widths, *live)):
        return ""
    most = max(one.state.units for one in course_of if one is not None)
    told = ", ".join("none" if w is None else f"{w:.1f}" for w in widths)
    return course([("live", live), ("width", widths)], most, f"effective width {told}")
