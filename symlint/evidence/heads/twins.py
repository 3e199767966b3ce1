"""Twins: heads and groups that are one function, whatever the gauge of what is in them.

What each contributes to where all of them are added up is compared, and before that the scores that each softmax sees.
Contributions may be multiples of each other, and differ by a constant. How far those of one function may be apart is
measured: by what a rounding of every weight changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from symlint.analysis.rehearsal import Unrehearsed
from symlint.evidence.heads.contribution import Contributions
from symlint.model.graph import Array
from symlint.model.records import dataclass
from symlint.symmetry.structure import Action, Structure

LOOSE = 0.02
"""Sketches farther apart, relative to their length, are no candidates; noise beyond hides everything."""
MARGIN = 6.0
"""Times the measured noise: what two sketches of one function may differ by."""
FLOAT = 1e-9
"""The same for what float64 itself rounds."""
PAIRS = 4
"""Of draws that are compared: on one, units that only differ in what they read may be multiples."""
FAINT = 1e-6
"""A contribution below this share of the largest is none."""
Group = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Twins:
    """The units of one space that are the same function."""

    groups: tuple[Group, ...]
    multiples: Mapping[int, float]
    """Unit of a group -> how many times the first one's its contribution is, up to a constant."""
    attends: bool
    """Whether the units compare parts of the input, as heads do."""


def twins(structure: Structure, action: Action, moving: frozenset[str]) -> Twins | None:
    """The units of a permutation that contribute multiples of each other; None where that cannot be told.

    Args:
        structure: of the network.
        action: a permutation without copies, whose units are made of others.
        moving: the tensors that depend on the input.
    """
    try:
        with np.errstate(all="ignore"):
            return _found(Contributions(structure, action, moving))
    except Unrehearsed:
        return None


def same_rows(rows: Array, noise: Array, one: int, other: int) -> bool:
    """Whether two rows differ by no more than the noise of each."""
    slack = MARGIN * np.hypot(noise[one], noise[other]) + FLOAT * np.linalg.norm(rows[one])
    return bool(np.linalg.norm(rows[one] - rows[other]) <= slack)


def close(rows: Array, group: Sequence[int]) -> list[list[int]]:
    """Units of a group whose rows are about equal, as lists of several."""
    square = np.einsum("ij,ij->i", rows, rows)
    apart = np.sqrt(np.maximum(square[:, None] + square - 2 * (rows @ rows.T), 0))
    return _joined(apart <= LOOSE * np.sqrt(np.maximum.outer(square, square)), group)


def _found(sketches: Contributions) -> Twins:
    none = Twins((), {}, sketches.attends)
    groups: list[list[int]] = [list(range(sketches.count))]
    for brief in (True, False):  # most units differ on a few positions
        for sketch in map(sketches.scored, sketches.scores if groups else ()):
            rows = sketch(0, rounded=False, brief=brief)
            groups = [part for group in groups for part in close(rows, group)]
    units = sorted(u for group in groups for u in group)
    if not units:
        return none
    for pairs in (1, PAIRS):  # most units differ on the first
        change = _changes(sketches, units, pairs, rounded=False)
        length = np.linalg.norm(change, axis=1)
        place = {u: k for k, u in enumerate(units) if length[k] > FAINT * length.max()}
        parts = [part for group in groups for part in _parallel(change, [place[u] for u in group if u in place])]
        groups = [[units[k] for k in part] for part in parts]
        if not groups:
            return none
    return _judged(sketches, units, parts, change)


def _changes(sketches: Contributions, units: Sequence[int], pairs: int, *, rounded: bool) -> Array:
    """What the contributions differ by between pairs of draws: what they are whatever the input is not in it."""
    found = [sketches.contributed(units, draw, rounded=rounded) for draw in range(2 * pairs)]
    return np.hstack([one - other for one, other in zip(found[::2], found[1::2], strict=True)])


def _judged(sketches: Contributions, units: Sequence[int], groups: Sequence[Sequence[int]], change: Array) -> Twins:
    """The groups that are left when the noise of a rounding is all that they may differ by."""
    noise = np.linalg.norm(_changes(sketches, units, PAIRS, rounded=True) - change, axis=1)
    scored: list[tuple[Array, Array]] = []
    for sketch in map(sketches.scored, sketches.scores):
        rows = sketch(0, rounded=False)
        scored.append((rows, np.linalg.norm(sketch(0, rounded=True) - rows, axis=1)))
    multiples: dict[int, float] = {}
    kept: list[Group] = []
    for one, *others in groups:
        same = [units[one]]
        multiples[units[one]] = 1.0
        for other in others:
            c = float(change[other] @ change[one] / (change[one] @ change[one]))
            size = np.linalg.norm(change[other])
            slack = MARGIN * np.hypot(noise[other], c * noise[one]) + FLOAT * size
            apart = np.linalg.norm(change[other] - c * change[one])
            equal = all(same_rows(rows, off, units[one], units[other]) for rows, off in scored)
            if equal and apart <= slack <= LOOSE * MARGIN * size:
                same.append(units[other])
                multiples[units[other]] = c
        if len(same) > 1:
            kept.append(tuple(same))
    return Twins(tuple(kept), {u: multiples[u] for group in kept for u in group}, sketches.attends)


def _parallel(rows: Array, group: Sequence[int]) -> list[list[int]]:
    """Units of a group whose rows are about multiples of each other."""
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)
    return _joined(1 - (unit @ unit.T) ** 2 <= LOOSE**2, group)


def _joined(near: Array, group: Sequence[int]) -> list[list[int]]:
    """A group as parts that are near the first of each, those of one unit left out."""
    found: list[list[int]] = []
    for unit in group:
        mine = next((part for part in found if near[part[0], unit]), None)
        if mine is None:
            found.append([unit])
        else:
            mine.append(unit)
    return [part for part in found if len(part) > 1]
