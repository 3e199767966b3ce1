"""Pairs: two networks in one layout, that of the one which is moved.

Moves: elements of generators that were applied, and can be taken back.

Evidence: what two networks hold of the units of one space, line beside line.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from copy import copy
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np

from symlint.comparison.matching import Matching
from symlint.model.graph import Array
from symlint.model.records import dataclass
from symlint.symmetry.actions.permutation import PartExchange, UnitPermutation
from symlint.symmetry.actions.rotation import InvertibleMap, OrthogonalMap, PlaneRotation
from symlint.symmetry.actions.scaling import Scaling
from symlint.symmetry.actions.translation import Shift, UnseenChange, lines
from symlint.symmetry.axes.terms import Term
from symlint.symmetry.charges.unknowns import Occurrence
from symlint.symmetry.motion.action import Stand
from symlint.symmetry.motion.motion import Weights, as_divisor
from symlint.symmetry.structure import Action, Structure
from symlint.symmetry.translation.element import changes


@dataclass(frozen=True, eq=False)
class Move:
    """An element of a generator."""

    action: Action
    element: Any

    def apply(self, weights: Weights) -> None:
        """Move the weights; of a translation by exactly this element."""
        if isinstance(self.action, Shift | UnseenChange):
            for name, change in list(changed(weights, self.action, self.element)):
                weights.put(name, weights.get(name) + change)
        else:
            self.action.move(weights, self.element)

    @property
    def inverse(self) -> Move:
        """The move that takes it back."""
        match self.action:
            case UnitPermutation() | PartExchange():
                element = np.argsort(self.element, axis=-1)
            case Scaling():
                element = 1.0 / self.element
            case InvertibleMap():
                element = np.linalg.inv(self.element)
            case OrthogonalMap():
                element = self.element.swapaxes(-1, -2)
            case PlaneRotation() | Shift() | UnseenChange():
                element = -self.element
            case _:
                raise TypeError(f"{self.action.id} has no inverse")
        return Move(self.action, element)


def changed(weights: Weights, action: Shift | UnseenChange, size: Array) -> Iterator[tuple[str, Array]]:
    """What a translation of some size adds to which weights."""
    if isinstance(action, Shift):
        return changes(action.translation, weights.numbers, size)
    return action.changes(weights.structure, size, weights.get)


def undo(weights: Weights, moves: Sequence[Move]) -> None:
    """Take moves back, the last one first."""
    for move in reversed(moves):
        move.inverse.apply(weights)


LESS = 1e-12
"""What brings two networks nearer by less than this, relative, brings them no nearer."""


@dataclass(frozen=True, eq=False)
class Pair:
    """The weights of two networks on their way, both in the structure of the second."""

    structure: Structure
    target: Weights
    """Those of the first network; what has no counterpart there is as in the second."""
    current: Weights
    """Those of the second."""
    known: frozenset[str]
    """The stored tensors that have a counterpart."""
    even: bool = False
    """Whether every matrix counts alike, and not every element: what two trainings share is no element of one."""

    @cached_property
    def uses(self) -> Mapping[str, str]:
        """Stored tensor with a counterpart -> the first weight of the program that it is."""
        program = self.structure.program
        found: dict[str, str] = {}
        for name, stored in program.weights.items():
            if stored in self.known and name not in program.detached:
                found.setdefault(stored, name)
        return found

    @cached_property
    def weigh(self) -> Mapping[str, float]:
        """Stored tensor -> so much a square of one of its elements counts.

        In units of the mean square of its elements, so that each says as much; `even` in those of the whole square, so
        that the widest matrix does not decide, with a vector as one of as many rows.
        """
        made = {}
        for stored, name in self.uses.items():
            sides = [side.get(name) for side in (self.target, self.current)]
            square = sum(float(np.mean(np.square(side, dtype=np.float64))) for side in sides) / 2
            count = sides[0].size
            if self.even and max(sides[0].shape, default=1) == count:
                count *= count
            made[stored] = 1.0 / (square * (count if self.even else 1)) if square else 0.0
        return made

    def apart(self, only: Collection[str] | None = None) -> float:
        """How far the two are apart, in all or some tensors: squares of differences, each relative to its tensor's."""
        names = self.uses if only is None else [s for s in self.uses if s in only]
        return sum(self.weigh[s] * float(np.sum(np.square(self._difference(s)))) for s in names)

    def tried(self, moves: Iterable[Move]) -> list[Move]:
        """Make moves of the second network, unless together they bring it no nearer: those that were made."""
        before, made = dict(self.current.now), list[Move]()
        for move in moves:
            move.apply(self.current)
            made.append(move)
        after = self.current.now
        touched = {s for s in after if after[s] is not before.get(s)}
        distance = self.apart(touched)
        self.current.now = before
        if made and distance < self.apart(touched) * (1 - LESS):
            self.current.now = after
            return made
        return []

    def _difference(self, stored: str) -> Array:
        name = self.uses[stored]
        return np.asarray(self.target.get(name).astype(np.float64) - self.current.get(name))

    def distances(self) -> Iterator[tuple[str, float, float]]:
        """Of every stored tensor with a counterpart the norm of the difference, and its own norm in the first."""
        for stored, name in self.uses.items():
            yield stored, float(np.linalg.norm(self._difference(stored))), float(np.linalg.norm(self.target.get(name)))

    def again(self, *, even: bool = False) -> Pair:
        """The same pair where it is, to be moved elsewhere."""
        sides = [Weights(self.structure, side.start) for side in (self.target, self.current)]
        for mine, side in zip(sides, (self.target, self.current), strict=True):
            mine.now = dict(side.now)
        return Pair(self.structure, sides[0], sides[1], self.known, even)


def paired(matching: Matching) -> Pair:
    """The networks of a matching: its old one is moved, its new one stands still."""
    structure = matching.old.context.structure
    tensors = structure.program.model.tensors
    target = {**dict(_constants(matching)), **dict(_counterparts(matching))}

    def start(stored: str) -> Array:
        return tensors[stored].read()

    def there(stored: str) -> Array:
        return target[stored] if stored in target else start(stored)

    return Pair(structure, Weights(structure, there), Weights(structure, start), frozenset(target))


def _counterparts(matching: Matching) -> Iterator[tuple[str, Array]]:
    """Stored tensor of the old network -> what it is in the new one, for those that are matched as a whole."""
    from symlint.comparison.changes import Pairs

    pairs = Pairs(matching)
    for index, weight in enumerate(matching.old.all):
        mine = pairs.blocks.get(index, [])
        tensor = matching.old.program.model.tensors.get(weight.name)
        if tensor is None or tensor.size != weight.size or sum(x.size for x, _ in mine) < weight.size:
            continue
        others = {y.weight: matching.new.all[y.weight] for _, y in mine}
        stored = matching.new.program.model.tensors
        if not tensor.floating and all(
            not stored[w.name].floating and stored[w.name].size == w.size for w in others.values()
        ):
            made = np.empty(weight.shape)
            for x, y in mine:
                x.place(
                    made, y.cut(stored[others[y.weight].name].read().reshape(others[y.weight].shape)).astype(np.float64)
                )
        else:
            found = pairs.values(index, matching.old, matching.new)
            if found is None:
                continue
            made = found[1]
            if not tensor.floating:
                made = made.astype(np.float64)
                size = float(np.linalg.norm(made))
                made = made * (float(np.linalg.norm(tensor.read().astype(np.float64))) / size if size else 1.0)
        if all(np.isfinite(values.astype(np.float64)).all() for values in (made, tensor.read())):
            yield weight.name, made.reshape(tensor.shape)


def _constants(matching: Matching) -> Iterator[tuple[str, Array]]:
    """What nothing has learned, such as the unit gains that an exporter writes, under the same names."""
    mine, theirs = (side.program.model.tensors for side in (matching.old, matching.new))
    learned = {weight.name for weight in matching.old.all}
    for name in set(matching.old.program.weights.values()) - learned:
        if name in theirs and theirs[name].shape == mine[name].shape and theirs[name].floating == mine[name].floating:
            values = theirs[name].read().astype(np.float64)
            if np.isfinite(values).all() and np.isfinite(mine[name].read().astype(np.float64)).all():
                yield name, values


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
                frames = self.frames(action, at, power)
                if frames is not None:
                    one, two = one * frames[0], two * frames[1]
                yield Piece(at, one, two, self._beside(name, stand), self.pair.weigh[stored])

    def frames(self, action: Action, at: Occurrence, power: Fraction | None) -> tuple[Array, Array] | None:
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
