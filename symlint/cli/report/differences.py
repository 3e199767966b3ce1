"""What `symlint diff` tells, for people and for machines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from symlint.cli.report import Style
from symlint.cli.report.data import dump, written
from symlint.cli.report.full import COLOR, block, typeset
from symlint.cli.report.words import count, listed, merged, printable, ranges, share, template
from symlint.comparison.changes import SAME, Change, Status
from symlint.comparison.compare import Comparison, Grown
from symlint.comparison.states import State
from symlint.comparison.trajectory import SpaceChange
from symlint.comparison.weights import Weight
from symlint.lint.finding import Finding, Level
from symlint.lint.rule import rules
from symlint.model.errors import UnreadableModel, exit_code
from symlint.repair.plan import Done

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


def as_json(found: Comparison) -> str:
    """One document for machines."""
    verdicts = found.findings
    return dump(
        {
            "schema_version": "1",
            "verdict": found.verdict,
            "exit_code": found.exit_code,
            "old": {"path": found.old.path, "sha256": found.old.sha256},
            "new": {"path": found.new.path, "sha256": found.new.sha256},
            "findings": {
                "new": [written(f) for f in verdicts.new],
                "gone": [written(f) for f in verdicts.gone],
                "worse": [_grown(g) for g in verdicts.worse],
                "better": [_grown(g) for g in verdicts.better],
                "kept": verdicts.kept,
            },
            "weights": {
                "total": found.total,
                "matched": found.matched,
                "unmatched_old": [weight.name for weight in found.unmatched_old],
                "unmatched_new": [weight.name for weight in found.unmatched_new],
                **{name.replace(" ", "_"): found.counts[name] for name in STATUS},
                "unchanged": found.unchanged,
                "unrelated": found.unrelated,
                "repairs": [asdict(one) | {"verb": verb(one)} for one in found.repairs],
                "tensors": [_change(change) for change in found.changes],
            },
            "spaces": [_space(space) for space in found.spaces],
            "operators": {op: list(pair) for op, pair in found.operators.items() if pair[0] != pair[1]},
            "nodes": {"same": found.nodes.same, "changed": [asdict(edit) for edit in found.nodes.edits]},
        }
    )


def unread(old: str, new: str, problem: UnreadableModel) -> str:
    """The document where one of the files could not be read."""
    empty: dict[str, Any] = {"findings": {"new": [], "gone": [], "worse": [], "better": [], "kept": 0}}
    return dump(
        {
            "schema_version": "1",
            "verdict": "incomplete",
            "exit_code": exit_code(problem),
            "old": {"path": old},
            "new": {"path": new},
        }
        | empty
        | {
            "weights": None,
            "spaces": [],
            "operators": {},
            "nodes": None,
            "problem": {"rule": problem.code, "message": str(problem)},
        }
    )


def _grown(grown: Grown) -> dict[str, Any]:
    return written(grown.new) | {"added": list(grown.added), "removed": list(grown.removed)}


def _change(change: Change) -> dict[str, Any]:
    rank = change.rank
    return {
        "old": change.old,
        "new": list(change.new),
        "shape": list(change.shape),
        "matched": change.matched,
        "status": change.status,
        "relative": change.relative,
        "rank": None if rank is None else rank.numerical,
        "effective_rank": None if rank is None else rank.effective,
        "dtypes": list(change.dtypes),
        "broken": change.broken,
        "new_shape": list(change.became) if change.became else None,
    }


def _space(one: SpaceChange) -> dict[str, Any]:
    return {"name": one.old.name, "old": _state(one.old), "new": None if one.new is None else _state(one.new)}


def _state(state: State) -> dict[str, Any]:
    return {"id": state.id, "units": state.units, "live": state.live, "width": state.width, "rank": state.rank}
