"""What `symlint trace` tells: from which networks another may be derived, and which of its spaces say so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from symlint.cli.report import Style
from symlint.cli.report.data import dump
from symlint.cli.report.differences import ROWS, table
from symlint.cli.report.full import typeset
from symlint.cli.report.words import end, printable
from symlint.comparison.lineage.sketch import Lineage
from symlint.comparison.lineage.trace import SpaceTrace, Trace
from symlint.model.errors import UnreadableModel, exit_code

COLOURS = {"derived": "bold green", "unclear": "yellow", "unrelated": "", "not comparable": "dim"}

_FIGURES, _SHORTEST = 42, 24
"""Columns that the numbers and the verdict of a row take, and those that a name has at least."""


def as_json(found: Lineage) -> str:
    """One document for machines."""
    document = {"schema_version": "1", "exit_code": found.exit_code, "model": {"path": found.path}}
    return dump(document | {"against": [_document(trace) for trace in found.found]})


def _document(trace: Trace) -> dict[str, Any]:
    return {
        "path": trace.path,
        "score": trace.score,
        "chance": trace.chance,
        "verdict": trace.verdict,
        "compared": trace.compared,
        "sketched": trace.sketched,
        "problem": trace.problem,
        "spaces": [
            {
                "id": space.id,
                "name": space.name,
                "units": space.units,
                "upward": space.upward,
                "downward": space.downward,
                "score": space.score,
            }
            for space in trace.spaces
        ],
    }


def unread(path: str, problem: UnreadableModel) -> str:
    """The document where a file could not be read."""
    return dump(
        {
            "schema_version": "1",
            "exit_code": exit_code(problem),
            "model": {"path": path},
            "against": [],
            "problem": {"rule": problem.code, "message": str(problem)},
        }
    )


def as_text(found: Lineage, style: Style) -> str:
    """The document for people."""
    return typeset(_blocks(found, style), style).rstrip("\n") + "\n"


def _blocks(found: Lineage, style: Style) -> Iterator[RenderableType]:
    yield Text(f"{printable(found.path)}\n", style="bold")
    most = max(style.width - _FIGURES, _SHORTEST)
    rows = table("may be derived from", "score", "chance", "compared", "verdict")
    for trace in found.found:
        if trace.problem is None:
            verdict = Text(trace.verdict, style=COLOURS[trace.verdict])
            score = "" if trace.score is None else f"{trace.score:.3f}"
            chance = "" if trace.score is None else f"{trace.chance:.3f}"
            rows.add_row(Text(end(printable(trace.path), most)), score, chance, f"{trace.compared:.0%}", verdict)
    yield rows
    for trace in found.found:
        if trace.problem is not None:
            yield Text(f"{printable(trace.path)}: not read: {printable(trace.problem)}", style="bold red")
    for trace in found.found if style.verbose else found.found[:1]:
        if trace.spaces:
            yield Text(f"\nspaces beside {printable(trace.path)}")
            yield from _spaces(trace, style)


def _spaces(trace: Trace, style: Style) -> Iterator[RenderableType]:
    """Those first that agree the least."""
    rows = table("space", "units", "upward", "downward")
    ordered = sorted(trace.spaces, key=lambda space: space.score)
    shown = ordered if style.verbose else ordered[:ROWS]
    for space in shown:
        name = Text(printable(space.name), overflow="ellipsis", no_wrap=True)
        rows.add_row(name, f"{space.units:,}", *map(_way, (space.upward, space.downward)), style=_style(space))
    yield rows
    if len(shown) < len(trace.spaces):
        yield Text(f"and {len(trace.spaces) - len(shown)} more, which agree better (-v shows them)", style="dim")


def _way(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _style(space: SpaceTrace) -> str:
    return "yellow" if space.score < 0.5 else ""
