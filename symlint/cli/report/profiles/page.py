"""A profile as one page: a row per space with its spectrum; of several files, what became of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from symlint.cli.report.full import architectural
from symlint.cli.report.page.blocks import drawn
from symlint.cli.report.page.figures import course, spectrum
from symlint.cli.report.page.rendering import render
from symlint.cli.report.profiles.records import points
from symlint.cli.report.profiles.table import arrow, number, rank
from symlint.comparison.course.measures import Measures
from symlint.comparison.trajectory import Trajectory

_ROWS = 1500
"""So many spaces are shown."""
Course = list[Measures | None]
"""A space in every file."""


def as_html(found: Trajectory) -> str:
    """The page; its map is that of the last file."""
    several = len(found.portraits) > 1
    every: list[Course] = list(_courses(found)) if several else [[one] for one in found.portraits[0].spaces]
    rows = [_row(one) for one in _largest(every)]
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


def _row(course_of: Course) -> dict[str, Any]:
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
