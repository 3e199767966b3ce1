"""What `symlint diff` tells: findings that came and went, weights that changed, and the course of each space."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from rich.console import RenderableType
from rich.text import Text

from symlint.cli.report import Style
from symlint.cli.report.differences.weights import ROWS, STATUS, repairs, table, weights
from symlint.cli.report.full import COLOR, block, typeset
from symlint.cli.report.words import count, listed, printable, ranges, share
from symlint.comparison.change.weights import SAME
from symlint.comparison.compare import Comparison
from symlint.comparison.course.course import SpaceChange
from symlint.comparison.matching.blocks import Weight
from symlint.comparison.verdict import Grown
from symlint.lint.finding import Finding, Level

_UNITS, _NAMES, _EDITS = 16, 4, 12
FINE = ("float32", "float64")


def as_text(found: Comparison, style: Style) -> str:
    """The document for people."""
    return typeset(_blocks(found, style), style).rstrip("\n") + "\n"


def _blocks(found: Comparison, style: Style) -> Iterator[RenderableType]:
    yield Text(f"{printable(found.old.path)} -> {printable(found.new.path)}", style="bold")
    yield Text(f"  {_matched(found)}\n", style="dim")
    if found.unrelated:
        other = any(s.new and s.new.units != s.old.units for s in found.spaces)
        why = "the widths differ" if other else "are these two files of one network?"
        words = f"incomplete: less than half is matched; {why}"
        yield Text(f"  {words}\n", style="bold red")
    for report in (found.old, found.new):
        if report.incomplete:
            yield Text(f"  incomplete: {printable(report.path)}: {printable(report.incomplete)}\n", style="bold red")
    yield from _findings(found, style)
    if found.matched or not found.total:
        yield _headline(found)
        yield Text("")
    if found.repairs:
        yield from repairs(found.repairs)
        yield Text("")
    rows = [c for c in found.changes if style.verbose or (c.matched and c.status not in SAME)]
    if rows:
        yield from weights(rows, style)
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
    told = [("new", f) for f in verdicts.new] + [("worse", g.new) for g in verdicts.worse] + list(_good(found))
    notes = Counter(word for word, finding in told if finding.level <= Level.NOTE)
    if notes and not style.verbose:
        words = listed(f"{n} {word}" for word, n in notes.items())
        yield Text(f"{count(notes.total(), 'note')} not shown: {words} (-v shows them)\n", style="dim")


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
        words = f"the two files hold the same {count(found.total, 'weight')}"
        if found.same:
            return Text(f"nothing changed: {words}", style="bold yellow")
        return Text(f"no weight changed: {words}, but {_computed(found)}", style="bold yellow")
    parts = [f"{found.counts[status]} {words}" for status, words in STATUS.items() if found.counts[status]]
    if found.alike:
        nothing = "nothing" if found.nodes.same else "no weight"
        what = f" but the rounding {_rounding(found)}" if found.counts["rounded"] else " in what is matched"
        if folds := sum(map(len, found.folds)):
            what = f" but where {count(folds, 'normalisation')} {'is' if folds == 1 else 'are'} stored"
        tail = f"; {_computed(found)}" if found.nodes.edits else ""
        return Text(f"{nothing} changed{what}: {listed(parts)}{tail}", style="bold yellow")
    return Text(f"of {count(sum(found.counts.values()), 'matched tensor')}: {listed(parts)}", style="bold")


def _computed(found: Comparison) -> str:
    """That the graphs differ, in words."""
    edits = found.nodes.edits
    return f"{count(len(edits), 'node')} changed" if edits else "the graph around them differs"


def _rounding(found: Comparison) -> str:
    """Which file holds the coarser numbers, and of which types; int32 is that of biases beside coarser matrices."""
    pairs = [change.dtypes for change in found.changes if change.status == "rounded"]
    sides = [{name for pair in pairs for name in pair[k].split(", ")} for k in (0, 1)]
    coarse = [{name for name in side if name not in FINE} for side in sides]
    wide = sides[1] - coarse[1] or not coarse[1]
    old = bool(coarse[0] and wide)
    types = coarse[0] if old else coarse[1] or sides[1]
    words = listed(sorted(types - {"int32"} or types))
    return f"that the old file has ({words})" if old else f"to {words}"


def _spaces(spaces: list[SpaceChange], style: Style) -> Iterator[RenderableType]:
    rows = table("space", "units", "live", "effective width", "rank")
    for one in spaces if style.verbose else spaces[:ROWS]:
        name = Text(printable(one.old.name), overflow="ellipsis", no_wrap=True)
        rows.add_row(name, _course(one, "units"), _course(one, "live"), _course(one, "width"), _course(one, "rank"))
    yield rows
    if len(spaces) > ROWS and not style.verbose:
        yield Text(f"and {len(spaces) - ROWS} more (-v shows them)", style="dim")


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
    for edit in found.nodes.edits[:_EDITS]:
        yield printable(f"{edit.node}: {edit.old} -> {edit.new}")
    if len(found.nodes.edits) > _EDITS:
        yield f"and {count(len(found.nodes.edits) - _EDITS, 'more node')} changed"
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
    word = {0: "passed", 1: f"failed on {_failed(found)}", 4: "incomplete"}[found.exit_code]
    return Text.assemble((word, color), f": {listed(parts)}")


def _failed(found: Comparison) -> str:
    """What failed the run; how much where the counts of findings do not say it."""
    tensors = [count(found.changed, "tensor")] if found.changed else []
    edits = [count(len(found.nodes.edits), "node")] if found.nodes.edits else []
    words = {"changed": f"changed ({listed(tensors + edits)})", "unchanged": "unchanged (no tensor changed)"}
    return listed(words.get(name, name) for name in found.failed)
