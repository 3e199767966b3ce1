"""Copies: the factors on whose index the gauge of a leaf may depend."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from symlint.axes.terms import Expansion, Term, together
from symlint.axes.walk import Axes


def copies(
    axes: Axes, expansion: Expansion, leaf: int, places: Collection[tuple[str, int, int]] | None, first: str
) -> tuple[int, ...]:
    """The factors that stand beside `leaf` wherever it is moved: one independent gauge per index of them.

    Args:
        places: the occurrences (tensor, axis, term) that the gauge moves; all of them when None.
        first: a weight that holds the leaf; its layout orders the answer.
    """
    common: set[int] | None = None
    order: list[int] = []
    names = sorted({p[0] for p in places}) if places is not None else sorted(axes.factors.holders[leaf])
    for name in (first, *names):
        for place, beside in _beside(axes, expansion, axes.of[name], leaf):
            if places is not None and (name, *place) not in places:
                continue
            order = order or beside
            common = set(beside) if common is None else common & set(beside)
        if common is not None and not common:
            return ()
    moved = None if places is None else set(names)
    for context, tensors in axes.contexts_of.get(leaf, {}).items() if common else ():
        if common and (moved is None or not moved.isdisjoint(tensors)):
            common = common.intersection(*(beside for _, beside in _beside(axes, expansion, context, leaf)))
    return tuple(c for c in dict.fromkeys(order) if c in (common or ()))


def _beside(
    axes: Axes, expansion: Expansion, held: tuple[int, ...], leaf: int
) -> list[tuple[tuple[int, int], list[int]]]:
    """The same as `_found`, remembered: most tensors have the axes of others."""
    found = axes.neighbours.get((held, leaf))
    if found is None:
        found = axes.neighbours[held, leaf] = list(_found(axes, expansion, held, leaf))
    return found


def _found(
    axes: Axes, expansion: Expansion, held: Sequence[int], leaf: int
) -> Iterator[tuple[tuple[int, int], list[int]]]:
    """Each occurrence (axis, term) of a leaf in a tensor, with the factors of its own term and then of the other axes.

    What they choose together stands beside the leaf, too.
    """
    terms = [expansion.terms(f) for f in held]
    for k, row in enumerate(terms):
        for t, term in enumerate(row):
            if leaf in term.leaves:
                own = [x for x in term.leaves if x != leaf]
                others = [x for j, other in enumerate(terms) if j != k for x in _always(other, term)]
                outside = [x for x in others if x != leaf and x not in own]
                if term.leaves.count(leaf) > 1:  # what is there twice as well may belong to either
                    own = [x for x in own if x not in others]
                found = [x for x in own if own.count(x) == 1] + [x for x in outside if outside.count(x) == 1]
                chosen = [unit for by, unit in axes.chosen if unit not in (leaf, *found) and by and by <= set(found)]
                yield (k, t), found + chosen


def _always(row: Sequence[Term], term: Term) -> list[int]:
    """Leaves that are on an axis in all of its terms that go with `term`."""
    present = [t.leaves for t in row if together(t, term) is not None]
    return [x for x in (present[0] if present else ()) if all(leaves.count(x) == 1 for leaves in present)]
