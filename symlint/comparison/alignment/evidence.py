"""Evidence: what two networks hold of the units of one space, line beside line."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from copy import copy
from fractions import Fraction

import numpy as np

from symlint.axes.terms import Term
from symlint.comparison.alignment.pair import Pair
from symlint.model.graph import Array
from symlint.model.records import dataclass
from symlint.symmetry.actions.permutation import UnitPermutation
from symlint.symmetry.actions.rotation import OrthogonalMap
from symlint.symmetry.actions.translation import lines
from symlint.symmetry.charges.unknowns import Occurrence
from symlint.symmetry.motion.action import Stand
from symlint.symmetry.motion.elements import as_divisor
from symlint.symmetry.motion.motion import Weights
from symlint.symmetry.structure import Action, Structure

Settled = Callable[[int, str], bool]
"""Whether the units of a leaf are, in some weight, in the places of their counterparts."""


@dataclass(frozen=True, eq=False)
class Piece:
    """One occurrence of a space in a weight, in both networks: (copies, rows, units) each."""

    at: Occurrence
    one: Array
    two: Array
    others: frozenset[int]
    """The leaves along which the rows lie."""
    weight: float

    @property
    def cross(self) -> Array:
        """The products of all pairs of units, (copies, units, units)."""
        return np.asarray(self.weight * np.matmul(self.one.swapaxes(-1, -2), self.two))


class Evidence:
    """The occurrences of spaces in the weights of a pair."""

    def __init__(self, pair: Pair) -> None:
        self.pair, self.structure = pair, pair.structure
        self.axes, self.expansion = self.structure.axes, self.structure.expansion
        self.anchor: dict[int, int] = {}
        """Leaf -> the one of its units to look at, where the signs of the others are not known."""
        self.open: frozenset[int] = frozenset()
        """The leaves that are not fitted yet: what lies along one on two axes says nothing of it."""
        self._stands: dict[str, list[tuple[str, str, list[Stand]]]] = {}
        self._holding: dict[int, list[tuple[str, str]]] = {}
        for stored, name in pair.uses.items():
            for leaf in self._leaves(name):
                self._holding.setdefault(leaf, []).append((stored, name))

    def on(self, pair: Pair) -> Evidence:
        """The same of another pair in this structure."""
        made = copy(self)
        made.pair = pair
        return made

    def stands(self, action: Action) -> list[tuple[str, str, list[Stand]]]:
        """The stored tensors with a counterpart that hold an action's units: the weight that each is, and where."""
        if action.id not in self._stands:
            # What all copies share, such as the gains of heads, is nothing that an element of one of them moves.
            held = [(s, n) for s, n in self._holding.get(action.leaf, ()) if self._leaves(n).issuperset(action.copies)]
            self._stands[action.id] = [(s, n, action.stands(self.structure, n)) for s, n in held]
        return self._stands[action.id]

    def _leaves(self, name: str) -> set[int]:
        """Of all axes of a weight."""
        return {x for f in self.axes.of[name] for x in self.axes.factors.leaves(f)}

    def share(self, action: Action, settled: Settled) -> float:
        """Of the elements that hold an action's units, the part along settled leaves alone."""
        found = whole = 0.0
        for _, name, stands in self.stands(action):
            if not isinstance(action, UnitPermutation) and not action.powers(name):
                continue
            size = float(np.prod(self.structure.program.shapes[name]))
            for stand in stands:
                whole += size
                mask = self.mask(name, stand, settled)
                found += 0.0 if mask is None else size * float(mask.mean())
        return found / whole if whole else 0.0

    def pieces(
        self, action: Action, settled: Settled, charged: bool = False, only: Collection[str] | None = None
    ) -> Iterator[Piece]:
        """The occurrences of an action's units; what lies along a leaf that is not settled counts as zero.

        Args:
            action: one on units of an axis.
            settled: whether the units of a leaf are in the places of their counterparts; asked of the action's own
                leaf, whether anything else that acts on it leaves the weight as it should be.
            charged: only those on which the action acts by a charge.
            only: the weights to look at; all of them by default.
        """
        sizes = [self.axes.factors.size(c) for c in action.copies]
        for stored, name, stands in self.stands(action):
            if only is not None and name not in only:
                continue
            powers = action.powers(name)
            if charged and not powers:
                continue
            both = self.pair.target.get(name).astype(np.float64), self.pair.current.get(name).astype(np.float64)
            for stand in stands:
                power = powers.get((stand.axis, stand.term, stand.place))
                if charged and not power:
                    continue
                mask = self.mask(name, stand, settled)
                if mask is None:
                    continue
                at = Occurrence(name, stand.axis, stand.term, stand.place)
                one, two = (grouped(side * mask if mask.ndim else side, stand, sizes) for side in both)
                frames = self._frames(action, at, power)
                if frames is not None:
                    one, two = one * frames[0], two * frames[1]
                yield Piece(at, one, two, self._beside(name, stand), self.pair.weigh[stored])

    def _frames(self, action: Action, at: Occurrence, power: Fraction | None) -> tuple[Array, Array] | None:
        """By what the lines of either network are multiplied so that an orthogonal matrix acts on them as it is."""
        if not isinstance(action, OrthogonalMap) or not action.frames.get(at) or not power:
            return None
        made = []
        for side in (self.pair.target, self.pair.current):
            numbers, frame = side.numbers, np.ones(self.axes.factors.size(action.leaf))
            for gain, exponent in action.frames[at]:
                frame = frame * as_divisor(numbers.value(gain)) ** exponent
            made.append(frame ** (-1.0 if power > 0 else 1.0))
        return made[0], made[1]

    def _beside(self, name: str, stand: Stand) -> frozenset[int]:
        """The leaves along which the rows of an occurrence lie."""
        found: set[int] = set()
        for axis, f in enumerate(self.axes.of[name]):
            terms = self.expansion.terms(f)
            if axis == stand.axis:
                leaves = terms[stand.term].leaves
                found |= {x for place, x in enumerate(leaves) if place != stand.place}
            else:
                found |= {x for term in terms for x in term.leaves}
        return frozenset(found)

    def mask(self, name: str, stand: Stand, settled: Settled) -> Array | None:
        """Which elements lie along settled leaves alone, to be multiplied with; None where none does."""
        shape = self.structure.program.shapes[name]
        mask, own = np.ones(()), self._own(name, stand)
        closed = {own} & self.open
        for axis, f in enumerate(self.axes.of[name]):
            terms = self.expansion.terms(f)
            if axis == stand.axis:
                leaves = terms[stand.term].leaves
                beside = [x for place, x in enumerate(leaves) if place != stand.place]
                if not settled(own, name) or not all(settled(x, name) for x in beside):
                    return None
                clear = [True] * len(terms)
            else:
                beside = [x for term in terms for x in term.leaves]
                clear = [closed.isdisjoint(t.leaves) and all(settled(x, name) for x in t.leaves) for t in terms]
            if not any(clear):
                return None
            if not all(clear) or not self.anchor.keys().isdisjoint(beside):
                along = np.zeros(shape[axis])
                for term, there in zip(terms, clear, strict=True):
                    if there:
                        along[self._anchored(term).reshape(-1)] = 1.0
                mask = mask * along.reshape([-1 if k == axis else 1 for k in range(len(shape))])
        return mask

    def _own(self, name: str, stand: Stand) -> int:
        """The leaf of an occurrence."""
        return self.expansion.terms(self.axes.of[name][stand.axis])[stand.term].leaves[stand.place]

    def _anchored(self, term: Term) -> Array:
        """The positions of a term, of the units of an anchored leaf those of one alone."""
        positions = term.positions
        for place, leaf in enumerate(term.leaves):
            if leaf in self.anchor:
                positions = positions.take([self.anchor[leaf]], axis=place)
        return positions


def grouped(values: Array, stand: Stand, sizes: Collection[int]) -> Array:
    """The lines of an occurrence copy by copy, (copies, rows, units), with zeros where a copy has fewer."""
    rows, owner = lines(values, stand, list(sizes))
    count = int(np.prod(list(sizes), dtype=np.int64))
    if count == 1:
        return (rows if (owner >= 0).all() else rows[owner >= 0])[None]
    order = np.argsort(owner, kind="stable")[np.count_nonzero(owner < 0) :]
    each = np.bincount(owner[order], minlength=count)
    if (each == each[0]).all():
        return rows[order].reshape(count, each[0], rows.shape[-1])
    made = np.zeros((count, int(each.max()), rows.shape[-1]))
    ends = np.cumsum(each)
    for k, (end, n) in enumerate(zip(ends, each, strict=True)):
        made[k, :n] = rows[order[end - n : end]]
    return made


def sizes_of(structure: Structure, action: Action) -> tuple[int, ...]:
    """The sizes of an action's copy factors."""
    return tuple(structure.axes.factors.size(c) for c in action.copies)


def units_norm(weights: Weights, action: Action, name: str) -> Array:
    """Sums of squares of a tensor per copy and unit, in the shape of the action's elements."""
    structure = weights.structure
    sizes = sizes_of(structure, action)
    powers: Mapping[tuple[int, int, int], Fraction] = action.powers(name)
    total = np.zeros((int(np.prod(sizes, dtype=np.int64)), structure.axes.factors.size(action.leaf)))
    for stand in action.stands(structure, name):
        if powers.get((stand.axis, stand.term, stand.place)):
            total += np.square(grouped(weights.get(name).astype(np.float64), stand, sizes)).sum(axis=1)
    return total.reshape(*sizes, -1)
