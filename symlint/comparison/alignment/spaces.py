"""Spaces: how sure the match of every space's units is, and what is left between them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from symlint.comparison.alignment.search import Search
from symlint.model.graph import Array
from symlint.model.records import dataclass
from symlint.symmetry.actions.permutation import UnitPermutation
from symlint.symmetry.spaces import Symmetry
from symlint.symmetry.structure import Action

CHANCE, SURE = 4.0, 0.95
"""A likeness of n elements above ``CHANCE / sqrt(n)``, or above ``SURE``, is none by chance."""
SAME = 1e-3
"""Units nearer to each other than this, relative, are the same, whatever else is like them."""
WIDEST = 4096
"""Units of wider spaces are told as matched where they are the same."""


@dataclass(frozen=True, slots=True)
class SpaceMatch:
    """The units of a space of the second network beside those of the first, in the canonical gauge."""

    id: str
    name: str
    units: int
    matched: int
    """Units that are like their counterparts, more than by chance, and more than any other is."""
    before: float
    """How far they were apart before they were matched, relative to their size."""
    after: float


def space_matches(symmetry: Symmetry, search: Search) -> Iterator[SpaceMatch]:
    """How every space was matched that a search has fitted."""
    names = {space.id: space.name for space in symmetry.spaces}
    told: set[int] = set()
    for action in search.order:
        if action.leaf in told:
            continue
        told.add(action.leaf)
        likeness, sizes, rows = _likeness(search, action)
        count, n = sizes[0].shape
        matched = int(_sure(likeness, sizes, rows).sum())
        after = search.distance(action)
        yield SpaceMatch(
            action.space,
            names.get(action.space, action.space),
            count * n,
            matched,
            search.apart.get(action.id, after),
            after,
        )


def _likeness(search: Search, action: Action) -> tuple[Array, tuple[Array, Array], int]:
    """Products of all pairs of units, the squares of either's, and how many elements a unit has."""
    tables: Array | None = None
    rows = 0
    one: Array = np.zeros(())
    two: Array = np.zeros(())
    for piece in search.evidence.pieces(action, search.settled, charged=not isinstance(action, UnitPermutation)):
        wide = piece.one.shape[-1] > WIDEST
        cross = piece.weight * np.sum(piece.one * piece.two, axis=1) if wide else piece.cross
        tables = cross if tables is None else tables + cross
        one = one + piece.weight * np.sum(piece.one**2, axis=1)
        two = two + piece.weight * np.sum(piece.two**2, axis=1)
        rows += piece.one.shape[1]
    if tables is None:
        form = action.shape(search.pair.structure)
        empty = np.zeros((int(np.prod(form[:-1], dtype=np.int64)), form[-1]))
        return empty, (empty, empty), 0
    return tables, (one, two), rows


def _sure(tables: Array, sizes: tuple[Array, Array], rows: int) -> Array:
    """Which units are like their counterparts, beyond chance and beyond all others."""
    one, two = sizes
    both = tables if tables.ndim == 2 else np.diagonal(tables, axis1=-2, axis2=-1)
    same = one + two - 2 * both <= SAME**2 * np.maximum(one, two)
    if tables.ndim == 2:
        return np.asarray(same)
    scale = np.sqrt(one)[..., :, None] * np.sqrt(two)[..., None, :]
    alike = np.where(scale > 0, tables / np.where(scale > 0, scale, 1.0), 0.0)
    own = np.diagonal(alike, axis1=-2, axis2=-1)
    best = (own >= alike.max(axis=-1)) & (own >= alike.max(axis=-2))
    return np.asarray(same | (best & (own > min(CHANCE / max(rows, 1) ** 0.5, SURE))))
