"""What `symlint align` tells: how far two networks are apart before and after, space by space."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from symlint.cli.report import Style
from symlint.cli.report.data import dump
from symlint.cli.report.differences import ROWS, table
from symlint.cli.report.full import typeset
from symlint.cli.report.words import count, listed, printable, share
from symlint.comparison.alignment.align import Alignment, TensorGap
from symlint.model.errors import UnreadableModel, exit_code
from symlint.model.records import dataclass

LARGEST = 5
"""Tensors that are told one by one."""
NAMES = 4


@dataclass(frozen=True, slots=True)
class Told:
    """What is told of a run: one alignment, or those of which an average was made."""

    found: tuple[Alignment, ...]
    written: str | None
    merged: bool = False
    renewed: bool = False
    """Whether running statistics were computed anew on data."""

    @property
    def stale(self) -> bool:
        """Whether an average was written whose running statistics are those of no network."""
        made = self.merged and self.written is not None and not self.renewed
        return made and any(one.statistics for one in self.found)


def as_json(told: Told) -> str:
    """One document for machines; where several were aligned the others are in a list of its own."""
    first, *others = [_document(one) for one in told.found]
    document = {"schema_version": "1", **first, "written": told.written, "merged": told.merged}
    return dump(document | {"stale_statistics": told.stale} | ({"others": others} if others else {}))


def _document(found: Alignment) -> dict[str, Any]:
    proof = found.proof
    return {
        "exit_code": found.exit_code,
        "first": {"path": found.first},
        "second": {"path": found.second},
        "distance": {"before": asdict(found.before), "after": asdict(found.after)},
        "weights": {
            "total": list(found.total),
            "matched": list(found.matched),
            "unmatched_first": list(found.unmatched[0]),
            "unmatched_second": list(found.unmatched[1]),
            "tensors": [asdict(gap) for gap in found.tensors],
        },
        "units": {"matched": found.share},
        "spaces": [asdict(space) for space in found.spaces],
        "unfitted": list(found.left),
        "line": None if found.line is None else {**asdict(found.line), "barrier": found.line.barrier},
        "proof": None
        if proof is None
        else {"outcome": proof.outcome, "difference": proof.difference, "reason": proof.reason},
    }


def unread(first: str, second: str, problem: UnreadableModel) -> str:
    """The document where one of the files could not be read."""
    return dump(
        {
            "schema_version": "1",
            "exit_code": exit_code(problem),
            "first": {"path": first},
            "second": {"path": second},
            "distance": None,
            "problem": {"rule": problem.code, "message": str(problem)},
        }
    )


def as_text(told: Told, style: Style) -> str:
    """The document for people."""
    return typeset(_blocks(told, style), style).rstrip("\n") + "\n"


def _blocks(told: Told, style: Style) -> Iterator[RenderableType]:
    for found in told.found:
        yield from _alignment(found, style)
    if told.written is not None:
        word = "the average, written" if told.merged else "written"
        yield Text(f"{printable(told.written)}: {word}", style="bold green")
    if told.stale:
        yield Text(
            "its running means and variances are averages, too: compute them anew on data (--input) before it is used"
        )


def _alignment(found: Alignment, style: Style) -> Iterator[RenderableType]:
    yield Text(f"{printable(found.second)} -> {printable(found.first)}", style="bold")
    yield Text(f"  {_matched(found)}\n", style="dim")
    if found.unrelated:
        words = "incomplete: less than half of both is matched; are these two files of one network?"
        yield Text(words, style="bold red")
        return
    if found.spaces:
        yield from _spaces(found, style)
        yield Text("")
    yield from _tensors(found, style)
    if found.left:
        names = listed(map(printable, found.left), NAMES)
        yield Text(f"not fitted, since nothing tells how, or they are too many: {names}\n", style="dim")
    yield Text(
        f"distance {found.before.relative:.2g} -> {found.after.relative:.2g} of the norm of the first "
        f"({found.before.spread:.1%} -> {found.after.spread:.1%} of that of unrelated weights); "
        f"{found.share:.1%} of the units matched"
    )
    if found.line is not None:
        losses = ", ".join(f"{value:.4g}" for value in found.line.losses)
        yield Text(f"loss along the line from the first to the second: {losses}; barrier {found.line.barrier:.2g}")
    yield from _proof(found)


def _matched(found: Alignment) -> str:
    words = [f"{share(found.matched[0], found.total[0])} of {count(found.total[0], 'weight')} matched"]
    for word, names in zip(("first", "second"), found.unmatched, strict=True):
        if names:
            words.append(
                f"{count(len(names), 'tensor')} of the {word} unmatched ({listed(map(printable, names), NAMES)})"
            )
    return "; ".join(words)


def _spaces(found: Alignment, style: Style) -> Iterator[RenderableType]:
    rows = table("space", "units", "matched", "distance")
    shown = found.spaces if style.verbose else found.spaces[:ROWS]
    for one in shown:
        name = Text(printable(one.name), overflow="ellipsis", no_wrap=True)
        apart = f"{one.before:.2g} -> {one.after:.2g}"
        rows.add_row(name, f"{one.units:,}", share(one.matched, one.units), apart)
    yield rows
    if len(shown) < len(found.spaces):
        yield Text(f"and {len(found.spaces) - len(shown)} more (-v shows them)", style="dim")


def _tensors(found: Alignment, style: Style) -> Iterator[RenderableType]:
    """What still differs the most."""
    left = sorted((gap for gap in found.tensors if gap.after > 0), key=_relative, reverse=True)
    shown = left if style.verbose else [gap for gap in left[:LARGEST] if _relative(gap) > 1e-4]
    if not shown:
        return
    rows = table("tensor", "distance")
    for gap in shown:
        name = Text(printable(gap.tensor), overflow="ellipsis", no_wrap=True)
        norm = gap.norm or 1.0
        rows.add_row(name, f"{gap.before / norm:.2g} -> {gap.after / norm:.2g}")
    yield rows
    yield Text("")


def _relative(gap: TensorGap) -> float:
    return gap.after / gap.norm if gap.norm else gap.after


def _proof(found: Alignment) -> Iterator[RenderableType]:
    proof = found.proof
    if proof is None:
        return
    apart = "" if proof.difference is None else f": outputs differ by up to {proof.difference:.1e} of the largest"
    if found.exit_code == 0:
        yield Text(f"computes what the second computes{apart}")
    else:
        word = "does not compute" if proof.outcome == "refuted" else "could not be proven to compute"
        reason = f" ({printable(proof.reason)})" if proof.reason else ""
        yield Text(f"{word} what the second computes{apart}{reason}; nothing is written", style="bold red")
