"""The search: which units of one network are which of the other, space by space.

A space is fitted once all that lies beside its units in enough weights is in place: from what inputs and outputs pin
inwards. Spaces that have a gauge per unit of another (the dimensions of heads) are fitted for every pair of these units
first. Then every space is fitted again to all weights, until nothing comes nearer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import combinations

import numpy as np

from symlint.comparison.alignment.fits import (
    MANY,
    assignment,
    fitted,
    likeness,
    mixed,
    parities,
    rotated,
    scored,
    signed,
)
from symlint.comparison.alignment.gauge import signing
from symlint.comparison.alignment.pair import Evidence, Move, Pair, Piece, Settled, sizes_of
from symlint.model.graph import Array
from symlint.model.records import dataclass
from symlint.symmetry.actions.permutation import UnitPermutation
from symlint.symmetry.actions.rotation import InvertibleMap, OrthogonalMap, PlaneRotation
from symlint.symmetry.actions.scaling import SignFlip
from symlint.symmetry.charges.unknowns import Occurrence
from symlint.symmetry.structure import Action, Structure

ROUNDS = 60
"""Rounds over all spaces, after which the search ends."""
WIDEST = 4096
"""Units of a space beyond which they are not assigned, which takes up to the cube of their number."""
LEAD = 1e-9
"""By how much a sign must fit better than none."""
MATRICES = (InvertibleMap, OrthogonalMap)


@dataclass(frozen=True, eq=False)
class Spaces:
    """The generators that keep lengths, leaf by leaf: what is left to find in the canonical gauge."""

    structure: Structure

    @cached_property
    def of(self) -> dict[int, list[Action]]:
        """Leaf -> what is fitted on it: permutations, then signs, then rotations."""
        found: dict[int, list[Action]] = {}
        for kind in (UnitPermutation, SignFlip, InvertibleMap, OrthogonalMap, PlaneRotation):
            for action in self.structure.actions.values():
                if isinstance(action, kind):
                    found.setdefault(action.leaf, []).append(action)
        # The canonical gauge has found signs that gains say.
        told = signing(self.structure)
        return {
            leaf: [a for a in actions if a.id not in told and not self._inside(a, actions)]
            for leaf, actions in found.items()
        }

    def _inside(self, action: Action, beside: Sequence[Action]) -> bool:
        """Whether rotations do what an order or a sign does: matrices both, half turns of planes signs."""
        if not isinstance(action, UnitPermutation | SignFlip):
            return False
        if any(isinstance(other, MATRICES) for other in beside):
            return True
        turned = (self._met(other) for other in beside if isinstance(other, PlaneRotation))
        return isinstance(action, SignFlip) and any(self._met(action) == met for met in turned)

    def _met(self, action: Action) -> set[Occurrence]:
        """Where a generator meets the weights."""
        return {o for o in action.charge if o.tensor in self.structure.program.weights}

    def signs(self, action: Action) -> list[SignFlip]:
        """The signs of the units that a permutation moves."""
        return [a for a in self.of[action.leaf] if isinstance(a, SignFlip) and a.copies == action.copies]

    def finer(self, action: Action) -> list[SignFlip]:
        """The signs that the units which a permutation moves have in each of more copies."""
        signs = (a for a in self.of[action.leaf] if isinstance(a, SignFlip) and isinstance(action, UnitPermutation))
        return [a for a in signs if set(a.copies) > set(action.copies)]

    def touches(self, action: Action, name: str) -> bool:
        """Whether an action on a leaf that a weight holds moves the weight."""
        return isinstance(action, UnitPermutation) or bool(action.powers(name))


class Search:
    """A pair on its way to the nearest place; `moves` are those of its second network."""

    def __init__(self, pair: Pair, away: Collection[int] = ()) -> None:
        self.pair, self.evidence = pair, Evidence(pair)
        self.spaces = Spaces(pair.structure)
        self.moves: list[Move] = []
        self.order: list[Action] = []
        self.done: set[str] = set()
        self.apart: dict[str, float] = {}
        """Generator -> how far its units were apart before they were matched."""
        self.away = frozenset(away)
        """Leaves that nothing moves and that are not to be used."""

    def settled(self, leaf: int, name: str) -> bool:
        """Whether the units of a leaf are in the places of their counterparts, in some weight."""
        anchored = leaf in self.evidence.anchor
        return leaf not in self.away and all(
            a.id in self.done or not self.spaces.touches(a, name) or (anchored and isinstance(a, SignFlip))
            for a in self.spaces.of.get(leaf, ())
        )

    @property
    def left(self) -> list[Action]:
        """What was not fitted yet."""
        return [a for actions in self.spaces.of.values() for a in actions if a.id not in self.done]

    def inwards(self, far: float = np.inf) -> bool:
        """Fit every space once, those first of which most is known; stop at one that is `far` apart even then."""
        while (chosen := self._next()) is not None:
            self._fit(chosen)
            self.evidence.open = frozenset()
            self.evidence.anchor.clear()
            self.done.add(chosen.id)
            self.order.append(chosen)
            whole = all(a.id in self.done for a in self.spaces.of[chosen.leaf])
            if whole and np.isfinite(far) and self.distance(chosen) > far:
                return False
        return True

    def _next(self) -> Action | None:
        """What is to be fitted next: that of which most is known."""
        ready = [action for action in self.left if self._ready(action)]
        self.evidence.open = frozenset(a.leaf for a in self.left)
        known = self._known(ready)
        if not known:
            self.evidence.open = frozenset()
            known = self._known(ready)
        if not known:
            return next((a for a in ready if not isinstance(a, UnitPermutation) and self._anchored(a)), None)
        chosen = max(known, key=lambda pair: pair[0])[1]
        if isinstance(chosen, UnitPermutation):
            return chosen
        # A sign may tell a rotation from a reflection.
        return next((a for _, a in known if a.leaf == chosen.leaf and isinstance(a, SignFlip)), chosen)

    def _known(self, ready: Collection[Action]) -> list[tuple[float, Action]]:
        """How much is known of each, where something is."""
        return [(share, a) for a in ready if (share := self.evidence.share(a, self._beside(a, self._nested(a)))) > 0]

    def _anchored(self, action: Action) -> bool:
        """Whether something can be fitted to one unit each of other leaves, whose signs are not known.

        The sign of the first unit is then as it is by definition: what is fitted makes up for it.
        """
        open_signs = {a.leaf for a in self.left if isinstance(a, SignFlip) and a.leaf != action.leaf}
        self.evidence.anchor = dict.fromkeys(open_signs, 0)
        if self.evidence.share(action, self._beside(action)) > 0:
            return True
        self.evidence.anchor = {}
        return False

    def _ready(self, action: Action) -> bool:
        """Whether it can be fitted: the order of its units is known, and that of those of which it has copies."""
        before = [a for c in action.copies for a in self.spaces.of.get(c, ()) if isinstance(a, UnitPermutation)]
        if isinstance(action, UnitPermutation):
            if action.shape(self.pair.structure)[-1] > WIDEST:
                return False
        else:
            before += [a for a in self.spaces.of[action.leaf] if isinstance(a, UnitPermutation)]
        return all(a.id in self.done for a in before) and self.away.isdisjoint((action.leaf, *action.copies))

    def _nested(self, action: Action, *, again: bool = False) -> dict[int, Action]:
        """Leaves with a gauge per unit of a space that is not known yet -> what is fitted on them first."""
        found: dict[int, Action] = {}
        for leaf, actions in self.spaces.of.items() if isinstance(action, UnitPermutation | SignFlip) else ():
            for inner in actions:
                if isinstance(action, SignFlip) and not isinstance(inner, UnitPermutation):
                    continue  # a rotation within makes up for a sign, and says nothing of it
                if action.leaf in inner.copies and (again or inner.id not in self.done):
                    found.setdefault(leaf, inner)
        return found

    def _beside(self, action: Action, inner: Collection[int] = ()) -> Settled:
        """What is settled while one action is fitted, whose own leaf only other rotations may disturb."""

        def settled(leaf: int, name: str) -> bool:
            if leaf in inner:
                return True
            if leaf != action.leaf:
                return self.settled(leaf, name)
            others = (
                a for a in self.spaces.of[leaf] if a is not action and not isinstance(a, UnitPermutation | SignFlip)
            )
            return all(a.id in self.done or not self.spaces.touches(a, name) for a in others)

        return settled

    def refine(self) -> None:
        """Fit every space again to all weights, until nothing comes nearer."""
        for _ in range(ROUNDS):
            made = [move for action in self.order for move in self.pair.tried(self._again(action))]
            self.moves += made
            if not made:
                break

    def _again(self, action: Action) -> Iterator[Move]:
        """A better element of one generator, and of those that depend on it; asked for the next once each is made."""
        inner = self._nested(action, again=True)
        yield from self._fitted(action, inner)
        for other in (*self._signs(action), *inner.values()):
            yield from self._fitted(other, {})

    def distance(self, action: Action) -> float:
        """How far the units of an action are apart, relative to their size, in what is settled beside them."""
        gap = size = 0.0
        for piece in self.evidence.pieces(
            action, self._beside(action), charged=not isinstance(action, UnitPermutation)
        ):
            gap += piece.weight * float(np.sum(np.square(piece.one - piece.two)))
            size += piece.weight * float(np.sum(np.square(piece.one)))
        return (gap / size) ** 0.5 if size else 0.0

    def _fit(self, action: Action) -> None:
        self.apart[action.id] = self.distance(action)
        for move in self._fitted(action, self._nested(action)):
            move.apply(self.pair.current)
            self.moves.append(move)

    def _signs(self, action: Action) -> list[SignFlip]:
        return self.spaces.signs(action) if isinstance(action, UnitPermutation) else []

    def _fitted(self, action: Action, inner: Mapping[int, Action]) -> Iterator[Move]:
        """The best element of a generator."""
        if isinstance(action, UnitPermutation) and inner:
            yield from self._joint(action, inner)
        elif isinstance(action, SignFlip):
            yield from self._signed(action, inner)
        else:
            finer = self.spaces.finer(action)
            yield from fitted(self.evidence, action, self._beside(action), self._signs(action), finer)

    def _outside(self, action: Action, inner: Collection[int]) -> Settled:
        plain = self._beside(action)

        def outside(leaf: int, name: str) -> bool:
            return leaf not in inner and plain(leaf, name)

        return outside

    def _joint(self, action: UnitPermutation, inner: Mapping[int, Action]) -> Iterator[Move]:
        """The best order of units each of which has a gauge of its own within."""
        form = action.shape(self.pair.structure)
        outside, signs = self._outside(action, inner), self._signs(action)
        scores = scored(self.evidence, action, outside, signs, self.spaces.finer(action))
        for leaf, other in inner.items():
            extra = [
                found
                for flips in _choices(signs)
                if (found := self._within(action, leaf, other, outside, flips)) is not None
            ]
            if extra:
                scores = scores + np.max(extra, axis=0)
        order = assignment(scores).reshape(form)
        if not (order == np.arange(form[-1])).all():
            yield Move(action, order)

    def _signed(self, action: SignFlip, inner: Mapping[int, Action]) -> Iterator[Move]:
        """The best signs of units, those of a space together; they may have a gauge of their own within."""
        form, outside = action.shape(self.pair.structure), self._outside(action, inner)
        signs = [a for a in self.spaces.of[action.leaf] if isinstance(a, SignFlip)]
        if any(a.copies != action.copies for a in signs):
            ready = [a for a in signs if self._ready(a)]
            closed = {o.tensor for a in signs if a not in ready for o in a.charge}
            alone = lambda leaf, name: name not in closed and outside(leaf, name)  # noqa: E731
            yield from _flips(ready, mixed(self.evidence, ready, alone))
            return
        tables = signed(self.evidence, signs, outside)
        if len(signs) > MANY:
            chosen = parities(tables) if tables else np.zeros((len(signs), *form), bool)
            yield from _flips(signs, chosen)
            return
        best, chosen = np.full(form, -np.inf), np.zeros((len(signs), *form), bool)
        for flips in _choices(signs):
            total, names = np.zeros(form), {sign.id for sign in flips}
            for odd, table in tables.items():
                total += table * (-1) ** sum(there for sign, there in zip(signs, odd, strict=True) if sign.id in names)
            for leaf, other in inner.items():
                found = self._within(action, leaf, other, outside, flips)
                if found is not None:
                    total = total + np.diagonal(found, axis1=-2, axis2=-1).reshape(form)
            better = total > best + LEAD * np.abs(best) if flips else np.ones(form, bool)
            best = np.where(better, total, best)
            for k, sign in enumerate(signs):
                chosen[k] = np.where(better, sign.id in names, chosen[k])
        yield from _flips(signs, chosen)

    def _within(
        self, action: Action, leaf: int, other: Action, outside: Settled, flipped: Collection[SignFlip] = ()
    ) -> Array | None:
        """How well every pair of units fits at the best of the gauges within: (copies, n, n)."""
        structure = self.pair.structure

        def beside(x: int, name: str) -> bool:
            return x in (action.leaf, leaf) or outside(x, name)

        found = self.evidence.pieces(other, beside, charged=not isinstance(other, UnitPermutation))
        pieces = [_flipped(piece, flipped) for piece in found]
        if not pieces:
            return None
        sizes = sizes_of(structure, other)
        place = other.copies.index(action.leaf)
        signs = self.spaces.signs(other) if isinstance(other, UnitPermutation) else []
        kept = [k for k, c in enumerate(other.copies) if c in action.copies]
        summed = [k for k in range(len(sizes)) if k != place and k not in kept]
        order = [*kept, *summed, place]
        form = action.shape(structure)[:-1]
        count, n = int(np.prod(form, dtype=np.int64)), sizes[place]
        if len(kept) != len(action.copies):
            return None

        def apart(values: Array) -> Array:
            """(copies, ...) as (kept, summed, units, rows, inner)."""
            wide = values.reshape(*sizes, *values.shape[1:])
            wide = wide.transpose(*order, len(sizes), len(sizes) + 1)
            return wide.reshape(count, -1, n, *values.shape[1:])

        made = _Pairs(other, pieces, signs, apart).scores()
        return np.asarray(made.sum(axis=1))


def _flips(signs: Sequence[SignFlip], chosen: Iterable[Array]) -> Iterator[Move]:
    for sign, flipped in zip(signs, chosen, strict=True):
        if flipped.any():
            yield Move(sign, np.where(flipped, -1.0, 1.0))


def _choices(signs: Sequence[SignFlip]) -> Iterator[tuple[SignFlip, ...]]:
    """All choices of the signs of a unit, where they are few."""
    kept = signs if len(signs) <= MANY else ()
    for size in range(len(kept) + 1):
        yield from combinations(kept, size)


def _flipped(piece: Piece, signs: Collection[SignFlip]) -> Piece:
    """A piece after some signs of all of the units beside it."""
    odd = sum(c.numerator for s in signs for o, c in s.charge.items() if (o.tensor, o.axis, o.term) == piece.at[:3])
    return replace(piece, two=-piece.two) if odd % 2 else piece


@dataclass(frozen=True, eq=False)
class _Pairs:
    """All pairs of units of a space that have a gauge within."""

    action: Action
    pieces: list[Piece]
    signs: list[SignFlip]
    apart: Callable[[Array], Array]

    def scores(self) -> Array:
        """How well each pair fits at best: (kept, summed, units, units)."""
        if isinstance(self.action, PlaneRotation):
            return self._planes()
        sides = [(self.apart(p.one), self.apart(p.two), p) for p in self.pieces]
        kept, summed, n, _, inner = sides[0][0].shape
        made = np.zeros((kept, summed, n, n))
        for i in range(kept):
            for j in range(summed):
                for u in range(n):
                    made[i, j, u] = self._row([(one[i, j, u], two[i, j], p) for one, two, p in sides], n, inner)
        return made

    def _row(self, sides: list[tuple[Array, Array, Piece]], n: int, inner: int) -> Array:
        """One unit of the first network beside all of the second."""
        crosses = [Piece(p.at, np.broadcast_to(one, two.shape), two, p.others, p.weight) for one, two, p in sides]
        if isinstance(self.action, InvertibleMap | OrthogonalMap):
            cross = np.sum([p.cross for p in crosses], axis=0)
            return np.asarray(np.sum(rotated(cross, self.action) * cross, axis=(-1, -2)))
        scores = likeness(crosses, self.signs, n, inner)
        if isinstance(self.action, UnitPermutation):
            order = assignment(scores)
            return np.asarray(np.take_along_axis(scores, order[..., None], axis=-1)[..., 0].sum(axis=-1))
        return np.asarray(np.abs(np.diagonal(scores, axis1=-2, axis2=-1)).sum(axis=-1))

    def _planes(self) -> Array:
        total = None
        for first, second in zip(self.pieces[::2], self.pieces[1::2], strict=False):
            one, two = (self.apart(getattr(first, k) + 1j * getattr(second, k)) for k in ("one", "two"))
            found = first.weight * np.einsum("abirp,abjrp->abijp", one, two.conj(), optimize=True)
            total = found if total is None else total + found
        assert total is not None
        return np.asarray(np.abs(total).sum(axis=-1))
