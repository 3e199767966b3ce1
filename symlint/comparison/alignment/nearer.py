"""Nearer: what is left once the units are matched, in the gauge of the first network as its file has it.

Scales, invertible matrices and translations, one after another, each as near as it can get while the others stay.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from symlint.comparison.alignment.gauge import by_place, inside, projected
from symlint.comparison.alignment.jointly import jointly, sized
from symlint.comparison.alignment.pair import Evidence, Move, Pair, changed, grouped, sizes_of
from symlint.model.graph import Array
from symlint.program.numbers import Unvalued
from symlint.symmetry.actions.rotation import InvertibleMap
from symlint.symmetry.actions.scaling import PositionRescaling, Rescaling, TensorRescaling, UnitRescaling
from symlint.symmetry.actions.translation import Shift, UnseenChange
from symlint.symmetry.gauge.scales import two_sided
from symlint.symmetry.kinds.whole import whole
from symlint.symmetry.motion.motion import Weights
from symlint.symmetry.structure import Action

ROUNDS = 40
"""Rounds over all generators, after which the descent ends."""
SETTLED = 1e-6
"""A round that brings the networks nearer by less than this share of where they are is the last."""
TOGETHER = 8
"""Times that all generators are fitted together, as long as that halves the distance."""
THERE = 1e-13
"""Squares of differences, relative to the squares of either, below which two networks are the same."""
LEVEL = 2.0
"""The readers of a unit are made larger or smaller by no more than this: those of a dead one are of no size."""
STEPS = 30
"""Newton steps to the best scale of a unit."""
WIDEST = 30.0
"""A scale of more than e to this is none."""
TINY = 1e-30
NOTHING = 1e-12
"""Eigenvalues below this share of the largest say nothing of a matrix."""


def approach(pair: Pair) -> list[Move]:
    """Bring the second network of a pair as near to the first as scales, matrices and translations lead."""
    evidence, moves = Evidence(pair), _descent(pair)
    weights = sum(pair.target.get(name).size for name in pair.uses.values())
    for _ in range(TOGETHER):
        before = pair.apart()
        if before <= THERE * weights:
            break
        with np.errstate(all="ignore"):
            made = pair.tried(_together(evidence))
        if not made:
            break
        moves += made + _descent(pair)
        if pair.apart() > before / 2:
            break
    return moves


def levelled(pair: Pair) -> list[Move]:
    """Scale the units of the second network so that what reads each is as large as in the first.

    What writes a unit then says how strong it is. An average of two trainings sees more of the stronger of two units,
    and is less beside either than where writers and readers share the difference.
    """
    moves = []
    for action in two_sided(pair.structure):
        values = sum(c for o, c in action.charge.items() if o.tensor not in pair.structure.program.fixed)
        if values and isinstance(action, UnitRescaling) and not inside(pair.structure, action):
            one, two = (_read(side, action, values > 0) for side in (pair.target, pair.current))
            size = np.clip(np.sqrt((two + TINY) / (one + TINY)), 1 / LEVEL, LEVEL)
            moves.append(Move(action, size if values > 0 else 1 / size))
    for move in moves:
        move.apply(pair.current)
    return moves


def _read(weights: Weights, action: UnitRescaling, grows: bool) -> Array:
    """Sums of squares, unit by unit, of what shrinks as the values of the units grow."""
    structure, total = weights.structure, np.zeros(action.shape(weights.structure))
    for name in dict.fromkeys(o.tensor for o in action.charge):
        values, powers = sized(weights, name), action.powers(name)
        for stand in action.stands(structure, name):
            power = powers.get((stand.axis, stand.term, stand.place), 0)
            if values is not None and power == (-1 if grows else 1):
                rows = grouped(values, stand, sizes_of(structure, action))
                total += np.square(rows).sum(axis=1).reshape(total.shape)
    return total


def _together(evidence: Evidence) -> Iterator[Move]:
    """All scales and matrices, and then what nothing sees, and translations."""
    yield from _finite(jointly(evidence.pair))
    for action in 2 * [*evidence.structure.actions.values()]:
        if isinstance(action, UnseenChange | Shift):
            yield from _finite(_best(evidence, action))


def _descent(pair: Pair) -> list[Move]:
    """One generator after another, until a round comes hardly nearer."""
    evidence, moves, distance = Evidence(pair), list[Move](), pair.apart()
    for _ in range(ROUNDS):
        made = []
        for action in pair.structure.actions.values():
            with np.errstate(all="ignore"):
                made += pair.tried(_finite(_best(evidence, action)))
        moves += made
        after = pair.apart()
        if not made or distance - after <= SETTLED * distance:
            break
        distance = after
    return moves


def _finite(moves: Iterator[Move]) -> list[Move]:
    try:
        return [move for move in moves if np.isfinite(move.element).all()]
    except (Unvalued, np.linalg.LinAlgError):
        return []


def _best(evidence: Evidence, action: Action) -> Iterator[Move]:
    """The element of a generator that comes nearest; none of those that keep lengths, which are found before."""
    match action:
        case PositionRescaling():
            yield Move(action, np.exp(_by_place(evidence.pair, action)))
        case Rescaling():
            yield Move(action, np.exp(_logarithms(evidence, action)))
        case InvertibleMap():
            yield Move(action, _matrices(evidence, action))
        case Shift():
            yield from _shifted(evidence.pair, action)
        case UnseenChange():
            size = evidence.pair.target.get(action.weight) - evidence.pair.current.get(action.weight)
            yield Move(action, size)


def _shifted(pair: Pair, action: Shift) -> Iterator[Move]:
    """A shift that brings its own weight nearest, as far as what takes it back comes nearer with it."""
    name = action.translation.weight
    size = projected(pair.current, action, pair.target.get(name) - pair.current.get(name))
    if size is None or not size.any():
        return
    if action.translation.bent:
        yield Move(action, size)
        return
    ahead = square = 0.0
    for other, change in list(changed(pair.current, action, size)):
        stored = pair.current.stored(other)
        weight = pair.weigh.get(stored, 0.0)
        gap = pair.target.get(other) - pair.current.get(other)
        full = np.broadcast_to(change, gap.shape)
        ahead += weight * float(np.vdot(full, gap))
        square += weight * float(np.vdot(full, full))
    if square > 0:
        yield Move(action, size * (ahead / square))


def _by_place(pair: Pair, action: PositionRescaling) -> Array:
    """The logarithms of the best scales of places."""
    sums = {}
    for stored, name in pair.uses.items():
        if name in action.scalings.powers:
            one, two, weight = pair.target.get(name), pair.current.get(name), pair.weigh[stored]
            sums[name] = weight * two * (one - two), weight * two * two
    return by_place(action, sums)


def _logarithms(evidence: Evidence, action: Rescaling) -> Array:
    """The logarithms of the best scales: Newton's method on sums of squares, unit by unit."""
    structure, pair = evidence.structure, evidence.pair
    form, sizes = action.shape(structure), sizes_of(structure, action)
    count, n = int(np.prod(form[:-1], dtype=np.int64)), form[-1]
    sums: dict[float, tuple[Array, Array]] = {}

    def add(power: float, one: Array, two: Array, weight: float) -> None:
        both, square = sums.get(power, (np.zeros((count, n)), np.zeros((count, n))))
        sums[power] = both + weight * np.sum(one * two, axis=1), square + weight * np.sum(two * two, axis=1)

    for name in dict.fromkeys(o.tensor for o in action.charge):
        one, two = sized(pair.target, name), sized(pair.current, name)
        if one is None or two is None:
            continue
        size = float(np.mean(one * one) + np.mean(two * two)) / 2
        weight = 1 / size if size else 0.0
        if isinstance(action, TensorRescaling):
            power = float(action.charge.get(whole(name), 0))
            if power:
                add(power, one.reshape(1, -1, 1), two.reshape(1, -1, 1), weight)
            continue
        powers = action.powers(name)
        for stand in action.stands(structure, name):
            if power := float(powers.get((stand.axis, stand.term, stand.place), 0)):
                add(power, grouped(one, stand, sizes), grouped(two, stand, sizes), weight)
    logs = np.zeros((count, n))
    for _ in range(STEPS):
        slope, bend = np.full((2, count, n), TINY)
        for c, (both, square) in sums.items():
            grown = np.exp(c * logs)
            slope = slope + c * (grown * grown * square - grown * both)
            bend = bend + c * c * (2 * grown * grown * square - np.minimum(grown * both, grown * grown * square))
        logs = np.clip(logs - np.clip(slope / bend, -1.0, 1.0), -WIDEST, WIDEST)
    return logs.reshape(form)


def _matrices(evidence: Evidence, action: InvertibleMap) -> Array:
    """The matrices m with t = m c for writers and t m = c for readers: least squares, by a Sylvester equation."""
    form = action.shape(evidence.structure)
    count, n = int(np.prod(form[:-1], dtype=np.int64)), form[-1]
    before, behind, cross = (np.zeros((count, n, n)) for _ in range(3))
    for piece in evidence.pieces(action, lambda leaf, name: True, charged=True):
        cross += piece.cross
        side, grams = (piece.two, before) if action.charge[piece.at] > 0 else (piece.one, behind)
        grams += piece.weight * np.matmul(side.swapaxes(-1, -2), side)
    made = np.broadcast_to(np.eye(n), (count, n, n)).copy()
    for k in range(count):
        (left, basis), (right, other) = np.linalg.eigh(behind[k]), np.linalg.eigh(before[k])
        sums = left[:, None] + right[None, :]
        floor = NOTHING * float(sums.max(initial=0.0))
        # What neither side tells stays as it is.
        rest = cross[k] - behind[k] - before[k]
        step = np.where(sums > floor, basis.T @ rest @ other / np.where(sums > floor, sums, 1.0), 0.0)
        made[k] += basis @ step @ other.T
    return made.reshape(*form, n)
