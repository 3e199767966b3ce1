"""Interleaving: units that a lookup chose one by one are units of one space, wherever they lie on an axis.

A lookup at fixed indices cuts an axis into single units. Those of them that are always together, all chosen or none,
may change places among each other as the units of any space: they become one factor, of which the units lie at places
of their own among those of others.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from symlint.axes.arena import Form
from symlint.axes.factor import Factors

Parents = Counter[int]
"""The sums in which a piece lies, with how many times."""


def interleave(
    factors: Factors, of: Mapping[str, Sequence[int]], tensors: Iterable[Sequence[int]], chosen: Iterable[int]
) -> None:
    """Join what was cut, once the walk is over.

    Args:
        factors: change in place.
        of: the axes of every tensor.
        tensors: all axes that count.
        chosen: the axes of which units were chosen.
    """
    candidates = {p for f in chosen if _plain(factors, f) for p in factors.pieces(f)}
    candidates = {p for p in candidates if factors.form(p) is Form.LEAF and p not in {**factors.pins, **factors.rigid}}
    if not candidates:
        return
    parents, alone = _parents(factors, {factors.find(f) for axes in tensors for f in axes}, candidates)
    groups: defaultdict[tuple[tuple[int, int], ...], list[int]] = defaultdict(list)
    for piece in candidates - alone:
        groups[tuple(sorted(parents[piece].items()))].append(piece)
    joined: dict[int, int] = {}
    order: dict[int, dict[int, int]] = {}
    for held, pieces in groups.items():
        if len(pieces) > 1 and held:
            first = factors.pieces(held[0][0])
            pieces.sort(key=first.index)
            leaf = factors.leaf(sum(map(factors.size, pieces)))
            order[leaf] = dict(zip(pieces, factors.boundaries_of(map(factors.size, pieces)), strict=False))
            joined |= dict.fromkeys(pieces, leaf)
    roots = {root for piece in joined for root in parents[piece]}
    for root in roots:
        factors.become(root, _arranged(factors, root, joined, order))
    for name, axes in of.items():
        for leaf in order.keys() & {x for f in axes for x in factors.leaves(f)}:
            factors.holders.setdefault(leaf, set()).add(name)
    for piece, leaf in joined.items():
        for reason in factors.why.get(piece, ()):
            factors.explain(leaf, reason)


def _plain(factors: Factors, f: int) -> bool:
    """Whether a factor is a sum of pieces that nothing depends on."""
    return factors.form(f) is Form.SUM and not any(factors.indexes(s) for s in factors.sums(f))


def _parents(factors: Factors, roots: Iterable[int], candidates: set[int]) -> tuple[dict[int, Parents], set[int]]:
    """The sums of each candidate, and those candidates that also lie elsewhere."""
    parents: dict[int, Parents] = {p: Counter() for p in candidates}
    alone = set[int]()
    seen, waiting = set[int](), list(roots)
    while waiting:
        root = waiting.pop()
        if root in seen:
            continue
        seen.add(root)
        if root in candidates:
            alone.add(root)
        if not _plain(factors, root):
            waiting += factors.parts(root)
            continue
        for piece in factors.pieces(root):
            if piece in candidates:
                parents[piece][root] += 1
            else:
                waiting.append(piece)
    return parents, alone


def _arranged(factors: Factors, root: int, joined: Mapping[int, int], order: Mapping[int, Mapping[int, int]]) -> int:
    """A sum of pieces as what they were joined to; what lies there several times has so many parts."""
    parts: dict[tuple[int, int], NDArray[np.int64]] = {}
    times, start = Counter[int](), 0
    for piece in factors.pieces(root):
        size = factors.size(piece)
        leaf, here = joined.get(piece, piece), np.arange(start, start + size)
        where = parts.setdefault((leaf, times[piece]), np.zeros(factors.size(leaf), np.int64))
        at = order[leaf][piece] if piece in joined else 0
        where[at : at + size] = here
        times[piece] += 1
        start += size
    return factors.arranged((leaf for leaf, _ in parts), parts.values())
