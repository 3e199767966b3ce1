"""Findings of two files of one network beside each other: new, gone, worse, better, kept."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from symlint.lint.finding import Finding
from symlint.model.records import dataclass


@dataclass(frozen=True, slots=True)
class Grown:
    """A finding of both files that speaks of other units in the new one."""

    old: Finding
    new: Finding
    added: tuple[int, ...] = ()
    """Units of the new file that were not affected before; empty where units cannot be told apart."""
    removed: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What became of the findings."""

    new: tuple[Finding, ...]
    gone: tuple[Finding, ...]
    worse: tuple[Grown, ...]
    better: tuple[Grown, ...]
    kept: int


def verdicts(
    old: Sequence[Finding], new: Sequence[Finding], spaces: Mapping[str, str], placed: Callable[[str], bool]
) -> Verdicts:
    """Compare the findings of two files.

    Args:
        old, new: findings of the two files.
        spaces: space of the old file -> that of the new one.
        placed: whether the units of a space of the old file stand where they stood. Where they do not, as after a
            permutation or another training, their numbers say nothing and only how many there are is compared.
    """
    mine: dict[tuple[str, str, str], list[Finding]] = defaultdict(list)
    for finding in old:
        mine[_key(finding, spaces.get(finding.space or "", f"old {finding.space}"))].append(finding)
    fresh, worse, better, kept = [], [], [], 0
    for finding in new:
        waiting = mine.get(_key(finding, finding.space or ""))
        if not waiting:
            fresh.append(finding)
            continue
        before = waiting.pop(0)
        grown = _grown(before, finding, in_place=placed(before.space or ""))
        size = finding.amount - before.amount
        if grown.added or size > 0:
            worse.append(grown)
        elif grown.removed or size < 0:
            better.append(grown)
        else:
            kept += 1
    gone = tuple(finding for waiting in mine.values() for finding in waiting)
    return Verdicts(tuple(fresh), gone, tuple(worse), tuple(better), kept)


def _key(finding: Finding, space: str) -> tuple[str, str, str]:
    """What two findings share that speak of one thing."""
    return finding.rule, space if finding.space else "", "" if finding.space else str(finding.facts.get("op", ""))


def _grown(before: Finding, after: Finding, *, in_place: bool) -> Grown:
    if not in_place:
        return Grown(before, after)
    one, two = set(before.units), set(after.units)
    return Grown(before, after, tuple(sorted(two - one)), tuple(sorted(one - two)))
