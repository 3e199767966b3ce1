"""What `symlint diff` tells: findings that came and went, weights that changed, and the course of each space."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from symlint.comparison.blocks import Weight
from symlint.comparison.change import SAME, Change, Status
from symlint.comparison.compare import Comparison
from symlint.comparison.course import SpaceChange
from symlint.comparison.verdict import Grown
from symlint.finding import Finding, Level
from symlint.report import Style
from symlint.report.alike import merged, template
from symlint.report.full import COLOR, block, typeset
from symlint.report.words import count, listed, printable, ranges, share

_ROWS, _UNITS, _NAMES = 16, 16, 4
STATUS: dict[Status, str] = {
    "identical": "identical",
    "rounded": "equal up to rounding",
    "rescaled": "equal up to a factor per unit",
    "moved": "equal up to a symmetry",
    "changed": "changed",
    "not compared": "not compared",
}


def as_text(found: Comparison, style: Style) -> str:
    """The document for people."""
    return typeset(_blocks(found, style), style).rstrip("\n") + "\n"


def _blocks(found: Comparison, style: Style) -> Iterator[RenderableType]:
    yield Text(f"{printable(found.old.path)} -> {printable(found.new.path)}", style="bold")
    yield Text(f"  {_matched(found)}\n", style="dim")
    if 2 * found.matched < found.total:
        yield Text("  most weights have no counterpart: are these two files of one network?\n", style="bold yellow")
    for report in (found.old, found.new):
        if report.incomplete:
            yield Text(f"  incomplete: {printable(report.path)}: {printable(report.incomplete)}\n", style="bold red")
    yield from _findings(found, style)
    yield _headline(found)
    yield Text("")
    rows = [c for c in found.changes if style.verbose or (c.matched and c.status not in SAME)]
    if rows:
        yield from _weights(rows, style)
        yield Text("")
    spaces = [s for s in found.spaces if style.verbose or s.changed]
    if spaces:
        yield from _spaces(spaces, style)
        yield Text("")
    if lines := list(_graph(found)):
        yield Text("\n".join(lines) + "\n", style="dim")
    yield _summary(found)


def _matched(found: Comparison) -> str:
    words = f"{share(found.matched, found.total)} of {count(found.total, 'weight')} matched"
    missing = [
        f"{count(len(side), 'tensor')} of the {word} file unmatched ({_tensors(side)})"
        for word, side in (("old", found.unmatched_old), ("new", found.unmatched_new))
        if side
    ]
    return "; ".join([words, *missing])


def _tensors(side: tuple[Weight, ...]) -> str:
    return listed((printable(weight.name) for weight in side), _NAMES)


def _findings(found: Comparison, style: Style) -> Iterator[RenderableType]:
    verdicts = found.findings
    for finding in sorted(verdicts.new, key=lambda f: -f.level):
        if finding.level > Level.NOTE or style.verbose:
            yield from _headed("new", finding, found)
            yield Text("")
    for grown in verdicts.worse:
        if grown.new.level > Level.NOTE or style.verbose:
            yield from _headed(f"worse ({_more(grown)})", grown.new, found)
            yield Text("")
    quiet = [f"{word}: {_short(f)}" for word, f in _good(found) if f.level > Level.NOTE or style.verbose]
    if quiet:
        yield Text("\n".join(quiet) + "\n", style="green")


def _headed(word: str, finding: Finding, found: Comparison) -> Iterator[RenderableType]:
    first, *others = block(finding, found.new)
    yield Text.assemble((f"{word}: ", "bold"), first) if isinstance(first, Text) else first
    yield from others


def _good(found: Comparison) -> Iterator[tuple[str, Finding]]:
    yield from (("gone", finding) for finding in found.findings.gone)
    yield from (("better", grown.new) for grown in found.findings.better)


def _short(finding: Finding) -> str:
    return f"{finding.level}[{finding.name}] {finding.rule}: {printable(finding.message)}"


def _more(grown: Grown) -> str:
    if grown.added:
        return f"newly affected: {ranges(grown.added, _UNITS)}"
    before, after = len(grown.old.units), len(grown.new.units)
    return f"{before} before, {after} now" if before != after else "it would save more now"


def _headline(found: Comparison) -> Text:
    """What became of the weights in one line: that nothing did is what people look for."""
    if found.unchanged:
        words = f"nothing changed: the two files hold the same {count(found.total, 'weight')}"
        return Text(words, style="bold yellow")
    parts = [f"{found.counts[status]} {words}" for status, words in STATUS.items() if found.counts[status]]
    if found.alike:
        types = sorted({_coarser(change) for change in found.changes if change.status == "rounded"})
        words = (
            f"nothing changed but the rounding to {listed(types)}" if types else "nothing changed in what is matched"
        )
        return Text(f"{words}: {listed(parts)}", style="bold yellow")
    return Text(f"of {count(sum(found.counts.values()), 'matched tensor')}: {listed(parts)}", style="bold")


def _coarser(change: Change) -> str:
    """The number type of the file that was rounded: the old one where the new one has the finer numbers."""
    old, new = change.dtypes
    return old if new in ("float32", "float64") else new


def _weights(changes: list[Change], style: Style) -> Iterator[RenderableType]:
    table = _table("tensor", "change", "its rank", "effective")
    rows = [(c.old, [c]) for c in changes] if style.verbose else list(_alike(changes))
    for name, group in rows if style.verbose else rows[:_ROWS]:
        table.add_row(Text(printable(name), overflow="ellipsis", no_wrap=True), *_told(group))
    yield table
    if len(rows) > _ROWS and not style.verbose:
        yield Text(f"and {count(len(rows) - _ROWS, 'more line')} (-v shows every tensor)", style="dim")


def _alike(changes: list[Change]) -> Iterator[tuple[str, list[Change]]]:
    """Changes of one kind and rank, under a pattern where their names differ in their numbers only."""
    groups: dict[tuple[object, ...], dict[str, list[Change]]] = {}
    for change in changes:
        rank = change.rank and (change.rank.numerical, change.rank.full)
        kind = (template(change.old), change.status, rank, change.matched == change.size)
        groups.setdefault(kind, {}).setdefault(change.old, []).append(change)
    for found in groups.values():
        for pattern, names in merged(found).items():
            yield pattern, [change for name in names for change in found[name]]


def _told(group: list[Change]) -> tuple[Text, Text, Text]:
    """How large a change is, and how many directions it has."""
    first, nothing = group[0], Text("")
    if not first.matched or first.relative is None:
        return Text("not compared" if first.matched else "no counterpart", style="dim"), nothing, nothing
    matched, size = sum(c.matched for c in group), sum(c.size for c in group)
    part = "" if matched == size else f" ({share(matched, size)} matched)"
    if first.status != "changed":
        return Text(f"{STATUS[first.status]}{part}", style="dim"), nothing, nothing
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


def _table(*words: str) -> Table:
    """A table of numbers behind names."""
    table = Table.grid(padding=(0, 2))
    table.add_column()
    for _ in words[1:]:
        table.add_column(justify="right", no_wrap=True)
    table.add_row(*(Text(word, style="bold") for word in words))
    return table


def _spaces(spaces: list[SpaceChange], style: Style) -> Iterator[RenderableType]:
    table = _table("space", "units", "live", "effective width", "rank")
    for one in spaces if style.verbose else spaces[:_ROWS]:
        name = Text(printable(one.old.name), overflow="ellipsis", no_wrap=True)
        table.add_row(name, _course(one, "units"), _course(one, "live"), _course(one, "width"), _course(one, "rank"))
    yield table
    if len(spaces) > _ROWS and not style.verbose:
        yield Text(f"and {len(spaces) - _ROWS} more (-v shows them)", style="dim")


def _course(one: SpaceChange, field: str) -> Text:
    before, after = getattr(one.old, field), getattr(one.new, field) if one.new else None
    words = [_number(before), "not found" if one.new is None and field == "units" else _number(after)]
    if words[0] == words[1]:
        return Text(words[0])
    less = before is not None and after is not None and after < before
    return Text(" -> ".join(word or "?" for word in words), style="red" if less else "")


def _number(value: int | float | None) -> str:
    return "" if value is None else f"{value:.1f}" if isinstance(value, float) else f"{value:,}"


def _graph(found: Comparison) -> Iterator[str]:
    """What an exporter or an optimiser did: names, and operators that came and went."""
    if found.renamed:
        yield f"{found.renamed} of {sum(bool(c.new) for c in found.changes)} tensors have another name"
    gone = [f"{op} {a} -> {b}" for op, (a, b) in found.operators.items() if a != b]
    if gone:
        before, after = (sum(pair[k] for pair in found.operators.values()) for k in (0, 1))
        yield f"nodes {before} -> {after}: {listed(map(printable, gone), 8)}"


def _summary(found: Comparison) -> Text:
    verdicts = found.findings
    parts = [
        count(len(verdicts.new), "new finding"),
        f"{len(verdicts.worse)} worse",
        f"{len(verdicts.better)} better",
        f"{len(verdicts.gone)} gone",
        f"{verdicts.kept} as before",
    ]
    color = COLOR[Level.ERROR] if found.exit_code else "bold green"
    word = {0: "passed", 1: f"failed on {listed(sorted(found.fail_on))}", 4: "incomplete"}[found.exit_code]
    return Text.assemble((word, color), f": {listed(parts)}")
