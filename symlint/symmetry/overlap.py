"""Overlaps: what of a generator's orbit is part of another's, and how large an orbit is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from math import prod

from symlint.program.steps import Program
from symlint.symmetry.actions.base import Action
from symlint.symmetry.actions.rotation import OrthogonalMap, Rotation
from symlint.symmetry.actions.scaling import Rescaling, Scaling
from symlint.symmetry.actions.translation import Shift, UnseenChange
from symlint.symmetry.axes.terms import Expansion, together
from symlint.symmetry.axes.walk import Axes
from symlint.symmetry.charges.linear_system import independent
from symlint.symmetry.charges.unknowns import ONE, Charge

Row = Mapping[tuple[str, int, int], Fraction]
"""How much a weight is scaled: as a whole (axis -1), or one term of an axis that is a sum."""


class Overlaps:
    """Comparisons between the actions of one program; ``own`` are the weights that make each of its tensors."""

    def __init__(self, program: Program, axes: Axes, expansion: Expansion, own: Mapping[str, tuple[str, ...]]) -> None:
        self.program, self.axes, self.expansion, self.own = program, axes, expansion, own
        self.factors = axes.factors

    def apart(self, actions: Iterable[Action]) -> list[Action]:
        """The actions less those on a factor as a whole that are part of acting on what is nested in it, unit by unit.

        So may be several together; of those that contain each other one less stays, that on the factor within.
        """
        left = {action.id: action for action in actions}
        nested: defaultdict[tuple[str, int], list[str]] = defaultdict(list)
        for action in left.values():
            for leaf in action.copies if isinstance(action, Scaling) else ():
                nested[action.kind, leaf].append(action.id)
        before: defaultdict[tuple[str, int], list[Row]] = defaultdict(list)
        for action in list(left.values()):
            key = action.kind, action.leaf
            others = [left[name] for name in nested[key] if name in left]
            inner = [self._places(other) for other in others if not self._within(action, other)]
            mine = self._places(action) if inner else {}
            if inner and not list(independent([mine], [*inner, *before[key]])):
                del left[action.id]
            elif inner:
                before[key].append(mine)
        return list(left.values())

    def _within(self, action: Action, other: Action) -> bool:
        """Whether each has gauges by the index of the other's factor, and an action's is the inner one of a product."""
        if other.leaf not in action.copies:
            return False
        o = next(o for o in action.charge if o.tensor in self.own)
        leaves = self.expansion.terms(self.axes.of[o.tensor][o.axis])[o.term].leaves if o.axis >= 0 else ()
        return other.leaf in leaves and leaves.index(other.leaf) < leaves.index(action.leaf)

    def beyond(self, scalings: Sequence[Charge], actions: Sequence[Action]) -> Iterator[Charge]:
        """Those scalings of whole weights that are no part of what scales the units of all spaces."""
        rows: list[Row] = [self._places(a) for a in actions if isinstance(a, Rescaling)]
        found = [{(o.tensor, o.axis, o.term): c for o, c in s.items() if o.tensor in self.own} for s in scalings]
        split = {(tensor, axis) for row in (*rows, *found) for tensor, axis, _ in row if axis >= 0}
        for tensor, axis in split:
            terms = self.expansion.terms(self.axes.of[tensor][axis])
            rows.append({(tensor, -1, 0): ONE, **{(tensor, axis, t): -ONE for t in range(len(terms))}})
        for k in independent(found, rows):
            yield scalings[k]

    def _places(self, action: Action) -> dict[tuple[str, int, int], Fraction]:
        """How an action scales each weight as a whole, or each term of an axis that is a sum."""
        made: dict[tuple[str, int, int], Fraction] = {}
        for o, c in action.charge.items():
            if o.tensor in self.own:
                whole = o.axis < 0 or len(self.expansion.terms(self.axes.of[o.tensor][o.axis])) == 1
                name = self.program.composed.get(o.tensor, (o.tensor,))[-1] if whole else o.tensor
                place = (name, -1, 0) if whole else (name, o.axis, o.term)
                made[place] = made.get(place, Fraction(0)) + c
        return {place: c for place, c in made.items() if c}

    @staticmethod
    def free(actions: Sequence[Action]) -> frozenset[str]:
        """Weights of which any change is taken back by others, or seen by nothing."""
        return frozenset(a.translation.weight for a in actions if isinstance(a, Shift) and a.translation.full)

    def inside(self, action: Action, beside: Sequence[Action], free: frozenset[str]) -> bool:
        """Whether other generators, those `beside` it that mix its units, count all of an action's directions already.

        A rescaling is the diagonal of a group of matrices on the same space. A generator that only moves weights of
        which any change is taken back by others adds nothing to those translations.
        """
        if not isinstance(action, Rescaling | Rotation):
            return False
        moved = {t for o in action.charge for t in self.own.get(o.tensor, ())}
        if moved <= free:
            return True
        return isinstance(action, Rescaling) and any(
            set(action.copies) <= set(other.copies) and self._pattern(other) == self._pattern(action)
            for other in beside
        )

    def _pattern(self, action: Action) -> frozenset[tuple[str, int, int, Fraction]]:
        """Where an action acts on weights, up to a common factor."""
        moved = {(o.tensor, o.axis, o.term): c for o, c in action.charge.items() if o.tensor in self.own}
        unit = moved[min(moved)]
        return frozenset((*place, c / unit) for place, c in moved.items())

    def orbit(self, action: Action, actions: Sequence[Action], free: frozenset[str]) -> int:
        """The dimension of the orbit of one copy, of those whose group does not tell it.

        For GL(n), n^2 - max(n - p, 0) max(n - q, 0) for a space written with rank p and read with rank q, without the
        weights of which any change is a translation, which are `free`.
        """
        size = self.factors.size(action.leaf)
        match action:
            case OrthogonalMap():
                return action.degrees(size)
            case UnseenChange():
                return self._unseen(action, actions)
        p, q = widths(action, self.program, self.axes, self.expansion, free).values()
        return size * size - max(size - p, 0) * max(size - q, 0)

    def _unseen(self, action: UnseenChange, actions: Sequence[Action]) -> int:
        """The directions of one copy that a side of a space has beyond what its matrices move: (n - p) (q - n).

        They are counted once, with the first weight of the side.
        """
        side = [a for a in actions if isinstance(a, UnseenChange) and a.across == action.across]
        size, beside = self.factors.size(action.leaf), action.copies
        across = rows(action.leaf, beside, action.across, self.program, self.axes, self.expansion)
        if action.pattern is not None:
            return (size - across) * (prod(action.pattern.shape) - self._shifted(action, actions)) // size
        mine = sum(rows(action.leaf, beside, a.charge, self.program, self.axes, self.expansion) for a in side)
        known = sum(self._shifted(a, actions) for a in side) // size // action.count(self.factors)
        return (size - across) * (mine - size - known) if action is side[0] else 0

    def _shifted(self, action: UnseenChange, actions: Sequence[Action]) -> int:
        """The directions of translations of the weight of an action that have any change of its units."""
        axes = {o.axis for o in action.charge}
        found = (a.translation for a in actions if isinstance(a, Shift) and a.translation.weight == action.weight)
        return sum(t.dimension for t in found if all(t.shape[k] == len(t.wave.partitions[k]) for k in axes))


def widths(
    action: Action, program: Program, axes: Axes, expansion: Expansion, but: Collection[str] = ()
) -> dict[Fraction, int]:
    """How many rows over the units of one copy the writers (1) and the readers (-1) of a space have.

    Weights to be left out are in `but`.
    """
    held = {sign: {o: c for o, c in action.charge.items() if c == sign and o.tensor not in but} for sign in (ONE, -ONE)}
    return {sign: rows(action.leaf, action.copies, charge, program, axes, expansion) for sign, charge in held.items()}


def rows(leaf: int, copies: Sequence[int], charge: Charge, program: Program, axes: Axes, expansion: Expansion) -> int:
    """How many rows over the units of one copy of a leaf there are at the places of a charge."""
    beside, size = prod(axes.factors.size(x) for x in copies), axes.factors.size(leaf)
    found = 0
    for o in charge:
        if o.tensor in program.weights:
            terms = [expansion.terms(f) for f in axes.of[o.tensor]]
            term = terms[o.axis][o.term]
            # Where a term is there only for some indices of other axes, it has no rows for the rest.
            others = prod(
                sum(t.positions.size for t in row if len(row) == 1 or together(t, term) is not None)
                for k, row in enumerate(terms)
                if k != o.axis
            )
            found += max(others * term.positions.size // size // beside, 1)
    return found
