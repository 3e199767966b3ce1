"""Resized weights: those of which a pruning or a repair has kept some rows and columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from symlint.comparison.change.weights import Change
from symlint.comparison.matching.blocks import Weight
from symlint.comparison.matching.units import Matching


def resized(matching: Matching) -> dict[int, int]:
    """Old weight -> new weight of another size, for those that nothing else matches: by name, else by their order."""
    mine, theirs = ({b.weight for b in side} for side in (matching.blocks, matching.blocks.values()))
    left = {k: w for k, w in enumerate(matching.old.all) if k not in mine}
    right = {k: w for k, w in enumerate(matching.new.all) if k not in theirs}
    names = {weight.name: k for k, weight in right.items()}
    found = {k: names[w.name] for k, w in left.items() if w.name in names and _like(w, right[names[w.name]])}
    if not found and len(left) == len(right):
        one, two = (sorted(side, key=lambda k, side=side: side[k].order) for side in (left, right))  # type: ignore[misc]
        if all(_like(left[a], right[b]) and cut(matching, a, b) for a, b in zip(one, two, strict=True)):
            found = dict(zip(one, two, strict=True))
    return found


EXACT = ("float32", "float64")
"""Of coarser types so few numbers exist that one weight's are another's by chance."""


def _like(old: Weight, new: Weight) -> bool:
    return old.kind == new.kind and len(old.shape) == len(new.shape) and old.shape != new.shape


def cut(matching: Matching, old: int, new: int) -> bool:
    """Whether a new weight is smaller along some axes and holds but numbers of an old one."""
    one, two = matching.old.all[old], matching.new.all[new]
    if (
        one.dtype not in EXACT
        or two.dtype not in EXACT
        or not all(m <= n for m, n in zip(two.shape, one.shape, strict=True))
    ):
        return False
    before, after = matching.old.read(one), matching.new.read(two)
    return before is not None and after is not None and bool(np.isin(after, before).all())


def with_cuts(found: Iterable[Change], matching: Matching, pairs: Mapping[int, int]) -> tuple[Change, ...]:
    """The changes, those of weights that were cut told as such."""
    made = []
    for change in found:
        if change.index in pairs and cut(matching, change.index, pairs[change.index]):
            new = matching.new.all[pairs[change.index]]
            types = change.dtypes[0], new.dtype
            told = replace(change, new=(new.name,), status="cut", matched=new.size, became=new.shape, dtypes=types)
            made.append(told)
        else:
            made.append(change)
    return tuple(made)
