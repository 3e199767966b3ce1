"""Axes written out: each as a sum of terms, each term a product of leaves with the positions that it covers.

Copies: the factors on whose index the gauge of a leaf may depend.

Recurrences in both directions: which of the two a space belongs to, where one tensor holds both.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from symlint.model.operators import known
from symlint.model.records import dataclass
from symlint.program.steps import Program
from symlint.symmetry.axes.arena import Form
from symlint.symmetry.axes.factor import Factors
from symlint.symmetry.axes.walk import Axes

Positions = NDArray[np.int64]
LONGEST = 1 << 28
"""Units of an axis that are written out at most; positions of more need gigabytes for one axis alone."""
Condition = Mapping[int, tuple[int, int]]
"""Sum -> the interval of its indices for which a term is there."""


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """One summand of an axis: ``positions`` has one axis per leaf and says where each unit lies."""

    condition: Condition
    leaves: tuple[int, ...]
    positions: Positions
    own: frozenset[int] = frozenset()
    """The sums of the condition that stand on this axis; on the others its families depend."""

    @property
    def first(self) -> int:
        """The position of the term's first unit; zero where it has none."""
        return int(self.positions.flat[0]) if self.positions.size else 0


@dataclass(frozen=True, slots=True, eq=False)
class Pattern:
    """The leaves of an axis, term by term; axes with the same leaves share one."""

    leaves: tuple[tuple[int, ...], ...]
    flat: tuple[int, ...]
    """The leaves of all terms, one term behind the other."""
    starts: tuple[int, ...]
    """Where each term begins there."""


def meet(a: Condition, b: Condition) -> Condition | None:
    """Both conditions at once; None where they exclude each other."""
    if not b:
        return a
    both = dict(a)
    for key, (start, stop) in b.items():
        low, high = both.get(key, (start, stop))
        both[key] = (max(low, start), min(high, stop))
        if both[key][0] >= both[key][1]:
            return None
    return both


def together(a: Term, b: Term) -> tuple[Condition, frozenset[int]] | None:
    """What terms at two places ask for at once, and the sums that stand at one; None where they clash.

    Of a sum that stands at both, a piece at one place says nothing of the other.
    """
    twice = a.own & b.own
    if not twice:
        both = meet(a.condition, b.condition)
        return None if both is None else (both, a.own | b.own)
    kept = [{key: span for key, span in t.condition.items() if key not in twice} for t in (a, b)]
    both = meet(*kept)
    return None if both is None else (both, (a.own | b.own) - twice)


class Expansion:
    """The terms of factors, remembered; to be made when the walk is over."""

    def __init__(self, factors: Factors) -> None:
        self.factors = factors
        self._known: dict[int, tuple[Term, ...]] = {}
        self._patterns: dict[tuple[tuple[int, ...], ...], Pattern] = {}
        self._pattern_of: dict[int, Pattern] = {}
        self._groupings: dict[tuple[int, tuple[int, ...]], tuple[int, ...] | None] = {}
        self._ends: dict[int, Positions] = {}

    def terms(self, f: int) -> tuple[Term, ...]:
        """`f` as a sum of terms, by first position.

        Raises:
            MemoryError: The axis has more than `LONGEST` units.
        """
        root = self.factors.find(f)
        if (known := self._known.get(root)) is not None:
            return known
        todo = [root]
        while todo:  # children first, on a stack of our own: factor trees may be deeper than Python's
            top = todo[-1]
            needed = self.factors.pieces(top) if self.factors.form(top) is Form.SUM else self.factors.parts(top)
            missing = [p for p in needed if p not in self._known] if top not in self._known else []
            todo.extend(missing)
            if not missing:
                todo.pop()
                if top not in self._known:
                    self._known[top] = tuple(sorted(self._expand(top), key=lambda term: term.first))
        return self._known[root]

    def standing(self, f: int, place: int) -> Sequence[int]:
        """The numbers of the terms of `f` that have a unit at `place`."""
        root = self.factors.find(f)
        if root not in self._ends:
            ends = [(p.min(), p.max()) if p.size else (1, 0) for p in (term.positions for term in self.terms(root))]
            self._ends[root] = np.array(ends, np.int64).reshape(-1, 2)
        low, high = self._ends[root].T
        near = np.flatnonzero((low <= place) & (place <= high)).tolist()
        return [k for k in near if low[k] == place or (self.terms(root)[k].positions == place).any()]

    def pattern(self, f: int) -> Pattern:
        """The leaves of the terms of `f`."""
        root = self.factors.find(f)
        found = self._pattern_of.get(root)
        if found is None:
            leaves = tuple(term.leaves for term in self.terms(root))
            if leaves not in self._patterns:
                starts = self.factors.boundaries_of(map(len, leaves))[:-1]
                self._patterns[leaves] = Pattern(leaves, tuple(x for term in leaves for x in term), starts)
            found = self._pattern_of[root] = self._patterns[leaves]
        return found

    def grouping(self, f: int, sizes: tuple[int, ...]) -> tuple[int, ...] | None:
        """`f` as a row-major grouping of factors of these sizes; None where it has no such grouping."""
        root = self.factors.find(f)
        if (root, sizes) not in self._groupings:
            self._groupings[root, sizes] = self._grouped(root, sizes)
        return self._groupings[root, sizes]

    def _grouped(self, rest: int, sizes: tuple[int, ...]) -> tuple[int, ...] | None:
        parts: list[int] = []
        for size in sizes[:-1]:
            halves = self.factors.split(rest, size)
            if halves is None:
                return None
            parts.append(halves[0])
            rest = halves[1]
        return (*parts, rest) if sizes else ()

    def _expand(self, root: int) -> list[Term]:
        factors, form, size = self.factors, self.factors.form(root), self.factors.size(root)
        if size > LONGEST:
            raise MemoryError(f"an axis of {size} units; up to {LONGEST} are written out")
        if form is Form.LEAF:
            return [Term({}, (root,), np.arange(size))] if size > 1 else [Term({}, (), np.zeros((), np.int64))]
        if form is Form.SUM:
            return list(self._summed(root))
        parts = factors.parts(root)
        if form is Form.ARRANGED:
            return [
                Term(t.condition, t.leaves, places[t.positions])
                for part, places in zip(parts, factors.places(root), strict=True)
                for t in self.terms(part)
            ]
        if form is Form.FAMILY:
            key, cuts = factors.index(root), factors.cuts(root)
            return [
                Term(both, t.leaves, t.positions, t.own - {key})
                for a, b, part in zip(cuts, cuts[1:], parts, strict=False)
                for t in self.terms(part)
                if (both := meet(t.condition, {key: (a, b)})) is not None
            ]
        return reduce(self._times, ((list(self.terms(p)), factors.size(p)) for p in parts))[0]

    def _summed(self, root: int) -> Iterator[Term]:
        """The pieces of a sum in order, each under its place in every sum on the way that something depends on."""
        factors = self.factors
        todo: list[tuple[int, int, tuple[tuple[int, int], ...]]] = [(root, 0, ())]
        while todo:
            piece, start, above = todo.pop()
            if factors.form(piece) is not Form.SUM:
                stop = start + factors.size(piece)
                place = {key: (start - base, stop - base) for key, base in above}
                for t in self.terms(piece):
                    yield Term({**t.condition, **place}, t.leaves, t.positions + start, t.own.union(place))
                continue
            if factors.indexes(piece):
                above = (*above, (piece, start))
            parts = factors.parts(piece)
            ends = factors.boundaries_of(factors.size(p) for p in parts)
            todo.extend((p, start + a, above) for p, a in reversed(list(zip(parts, ends, strict=False))))

    @staticmethod
    def _times(left: tuple[list[Term], int], right: tuple[list[Term], int]) -> tuple[list[Term], int]:
        made = [
            Term(both[0], a.leaves + b.leaves, np.add.outer(a.positions * right[1], b.positions), both[1])
            for a in left[0]
            for b in right[0]
            if (both := together(a, b)) is not None
        ]
        return made, left[1] * right[1]


def joint(parts: Sequence[Sequence[Term]], sizes: Sequence[int]) -> list[tuple[tuple[int, ...], int, Condition]]:
    """The consistent choices of one term per part of a grouped axis, with first position in the group and condition."""
    nothing = np.zeros((), np.int64)
    chosen: list[tuple[tuple[int, ...], Term, int]] = [((), Term({}, (), nothing), 0)]
    for terms, size in zip(parts, sizes, strict=True):
        chosen = [
            ((*picks, k), Term(both[0], (), nothing, both[1]), first * size + term.first)
            for picks, whole, first in chosen
            for k, term in enumerate(terms)
            if (both := together(whole, term)) is not None
        ]
    return [(picks, first, whole.condition) for picks, whole, first in chosen]


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


DIRECTIONS = {(0, 1): "forward", (1, 2): "reverse"}
"""The interval of the first axis of a weight -> the direction whose weights are there, in ONNX's words."""


def directions(program: Program, axes: Axes, expansion: Expansion) -> Mapping[int, str]:
    """Leaf -> its direction, for the hidden units of recurrences whose weights hold two."""
    both = {
        name
        for node in program.model.graph.walk()
        if known(node.op).recurrent and node.attributes.get("direction") in ("bidirectional", b"bidirectional")
        for name in node.inputs[1:3]
    }
    found: dict[int, set[str]] = {}
    for name, stored in program.weights.items() if both else ():
        if stored not in both and name not in both:
            continue
        first, *others = axes.of[name]
        keys = {key for term in expansion.terms(first) for key in term.condition}
        for f in others:
            for term in expansion.terms(f):
                words = {DIRECTIONS.get(term.condition.get(key, (0, 2)), "") for key in keys}
                for leaf in term.leaves:
                    found.setdefault(leaf, set()).update(words)
    return {leaf: words.pop() for leaf, words in found.items() if len(words) == 1}
