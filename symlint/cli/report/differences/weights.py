"""The weights of `symlint diff`: how much each changed, and in how many directions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from symlint.cli.report import Style
from symlint.cli.report.inspection.alike import merged, template
from symlint.cli.report.words import count, listed, printable, share
from symlint.comparison.change.weights import Change, Status
from symlint.lint.rule import rules
from symlint.repair.result import Done

ROWS = 16
STATUS: dict[Status, str] = {
    "identical": "identical",
    "rounded": "equal up to rounding",
    "folded": "folded into its layer",
    "rescaled": "equal up to a factor per unit",
    "moved": "equal up to a symmetry",
    "cut": "cut to some rows or columns",
    "merged": "taking over units that are gone",
    "changed": "changed",
    "not compared": "not compared",
}


VERBS = {
    "fold": "folded into biases",
    "merge": "merged with others",
    "factor": "dropped as directions of no use",
    "share": "shared",
}
"""What a repair does to units; others remove them."""


def verb(done: Done) -> str:
    """What a repair has done to units, in words."""
    return next((VERBS.get(r.repair, "removed") for r in rules() if r.code == done.rule), "removed")


def repairs(done: Sequence[Done]) -> Iterator[Text]:
    """One line per space: how many of its units were removed, folded and merged; and what is stored no more."""
    spaces: dict[tuple[str, int], list[Done]] = {}
    stored = [one for one in done if one.bytes]
    for one in (one for one in done if not one.bytes):
        spaces.setdefault((one.where, one.units), []).append(one)
    yield Text("the old file as symlint fix repairs it", style="bold")
    for (where, units), found in spaces.items():
        parts = listed(f"{one.removed:,} {verb(one)}" for one in found)
        yield Text(f"  {printable(where)}: of {count(units, 'unit')} {parts}")
    for one in stored:
        yield Text(f"  {printable(one.where)}: {count(one.bytes, 'byte')} {verb(one)}")


def weights(changes: list[Change], style: Style) -> Iterator[RenderableType]:
    """One line per weight, or per group of weights that changed in the same way."""
    lines = table("tensor", "change", "rank of\nchange", "effective rank\nof change")
    rows = [(c.old, [c]) for c in changes] if style.verbose else list(_alike(changes))
    for name, group in rows if style.verbose else rows[:ROWS]:
        lines.add_row(Text(printable(name), overflow="ellipsis", no_wrap=True), *_told(group))
    yield lines
    if len(rows) > ROWS and not style.verbose:
        yield Text(f"and {count(len(rows) - ROWS, 'more line')} (-v shows every tensor)", style="dim")


def _alike(changes: list[Change]) -> Iterator[tuple[str, list[Change]]]:
    """Changes of one kind and rank, under a pattern where their names differ in their numbers only."""
    groups: dict[tuple[object, ...], dict[str, list[Change]]] = {}
    for change in changes:
        rank = change.rank and (change.rank.numerical, change.rank.full)
        sizes = (change.shape, change.became) if change.became else ()
        whole = change.matched == change.size
        kind = (template(change.old), change.status, rank, whole, change.broken > 0, sizes)
        groups.setdefault(kind, {}).setdefault(change.old, []).append(change)
    for found in groups.values():
        for pattern, names in merged(found).items():
            yield pattern, [change for name in names for change in found[name]]


def _told(group: list[Change]) -> tuple[Text, Text, Text]:
    """How large a change is, and how many directions it has."""
    first, nothing = group[0], Text("")
    if first.status == "cut":
        one, two = ("x".join(map(str, s)) for s in (first.shape, first.became))
        return Text(f"cut: {one} -> {two}"), nothing, nothing
    if first.status == "merged":
        return Text(STATUS[first.status], style="dim"), nothing, nothing
    if not first.matched or first.relative is None:
        return Text("not compared" if first.matched else "no counterpart", style="dim"), nothing, nothing
    matched, size = sum(c.matched for c in group), sum(c.size for c in group)
    part = "" if matched == size else f" ({share(matched, size)} matched)"
    if first.status != "changed":
        return Text(f"{STATUS[first.status]}{part}", style="dim"), nothing, nothing
    if any(c.broken for c in group):
        numbers = count(sum(c.broken for c in group), "number")
        return Text(f"{numbers} became infinite or NaN{part}", style="red"), nothing, nothing
    told = Text(f"{_span([_percent(c.relative or 0.0) for c in sorted(group, key=_size)])}{part}")
    if first.rank is None or first.rank.numerical is None:
        return told, nothing, nothing
    widths = sorted(c.rank.effective or 0.0 for c in group if c.rank)
    return told, Text(f"{first.rank.numerical:,} of {first.rank.full:,}"), Text(_span([f"{w:.1f}" for w in widths]))


def _size(change: Change) -> float:
    return change.relative or 0.0


def _span(words: list[str]) -> str:
    return words[0] if words[0] == words[-1] else f"{words[0]}..{words[-1]}"


def _percent(part: float) -> str:
    return f"{100 * part:.0f}%" if part >= 0.1 else f"{100 * part:.2g}%"


def table(*words: str) -> Table:
    """A table of numbers behind names."""
    made = Table.grid(padding=(0, 2))
    made.add_column()
    for _ in words[1:]:
        made.add_column(justify="right", no_wrap=True)
    made.add_row(*(Text(word, style="bold") for word in words))
    return made
