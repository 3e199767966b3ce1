"""The canonical gauge: the place of least norm, from which symmetries lead on by elements that keep lengths alone.

What translations free goes to zero, gains before a rotated space to one, and rescalings and invertible matrices lead to
the least sum of squares, which is unique up to what keeps lengths (Kempf and Ness): permutations, signs, rotations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from symlint.comparison.alignment.pair import Move, changed, grouped, sizes_of, units_norm
from symlint.model.graph import Array
from symlint.program.steps import Affine
from symlint.symmetry.actions.rotation import InvertibleMap, OrthogonalMap
from symlint.symmetry.actions.scaling import PositionRescaling, Rescaling, Scaling, SignFlip, TensorRescaling
from symlint.symmetry.actions.translation import Shift, UnseenChange
from symlint.symmetry.charges.unknowns import ONE
from symlint.symmetry.gauge.scales import Scales, added, gauge, two_sided
from symlint.symmetry.kinds.whole import whole
from symlint.symmetry.motion.action import transform
from symlint.symmetry.motion.motion import Weights
from symlint.symmetry.structure import Action, Structure
from symlint.symmetry.translation.null import direction

ROUNDS, WORK = (12, 400), 1 << 29
"""Rounds of balancing, after which those that still move each other are left: more than the least as long as they visit
less than this many elements in all."""
PASSES = 6
CLOSE, STILL = 1e-9, 1e-10
TINY = 1e-30
NOTHING, LOST = 1e-11, 1e-9
"""Of a Gram matrix relative to its largest eigenvalue: what is below is no direction."""


def canonise(weights: Weights, *, bare: bool = False) -> list[Move]:
    """Bring weights into the canonical gauge, and say by which moves.

    Where directions of a space are read that nothing writes, or written that nothing reads, no place is the least:
    the norm shrinks with them until they are gone. Such weights are made `bare` of them, which is no move.
    """
    structure = weights.structure
    done = list(settle(weights))
    signs, told = [a for a in structure.actions.values() if isinstance(a, SignFlip)], signing(structure)
    free = [a for a in structure.rescalings if not inside(structure, a)]
    gained = [a for a in free if _gains(structure, a)]
    balanced = [a for a in two_sided(structure) if a in free and a not in gained]
    alone = [a for a in free if a not in gained and a not in balanced]
    size = sum(tensor.size for tensor in structure.program.model.tensors.values())
    for _ in range(min(max(WORK // max(size, 1), ROUNDS[0]), ROUNDS[1])):
        made = [move for a in gained for move in _to_one(weights, a)]
        done += [move for a in signs for move in _positive(weights, a, told.get(a.id))]
        made += [move for a in alone for move in _to_length_one(weights, a)]
        made += _least_norm(weights, balanced)
        made += [move for a in structure.actions.values() for move in _least_by_place(weights, a)]
        for action in structure.rotations:
            if isinstance(action, InvertibleMap):
                if bare:
                    _bare(weights, action)
                made += _balance(weights, action)
        done += made
        if all(_near_one(move) for move in made):
            break
        done += settle(weights)
    return done


def settle(weights: Weights) -> Iterator[Move]:
    """Take translations to zero, one after another, until they are all there."""
    for _ in range(PASSES):
        moved = False
        for action in weights.structure.actions.values():
            size = _to_nothing(weights, action)
            if size is None or not np.isfinite(size).all() or not size.any():
                continue
            move = Move(action, size)
            before = dict(weights.now)
            move.apply(weights)
            moved = moved or any(_differ(weights.get(n), before, weights, n) for n in _ends(action))
            yield move
        if not moved:
            return


def _ends(action: Action) -> list[str]:
    assert isinstance(action, Shift | UnseenChange)
    return [action.translation.weight if isinstance(action, Shift) else action.weight]


def _differ(after: Array, before: dict[str, Array], weights: Weights, name: str) -> bool:
    stored = weights.stored(name)
    was = before[stored] if stored in before else weights.start(stored)
    return bool(np.abs(after - was).max(initial=0) > STILL * np.abs(was).max(initial=0))


def _to_nothing(weights: Weights, action: Action) -> Array | None:
    """The element that takes a translation to zero; a bent one, which cannot be zero, to the null along which it is."""
    if isinstance(action, UnseenChange):
        return -weights.get(action.weight)
    if not isinstance(action, Shift):
        return None
    wanted = -weights.get(action.translation.weight)
    if action.translation.bent:
        bent = next(visit.bent for visit in action.translation.visits if visit.bent is not None)
        along = direction(bent.null, weights.numbers, weights.structure.program.shapes[bent.tensor][bent.axis])
        if along.size != wanted.size or not along.any():
            return None
        wanted = wanted + (along / np.linalg.norm(along)).reshape(wanted.shape)
    return projected(weights, action, wanted)


def projected(weights: Weights, action: Shift, wanted: Array) -> Array | None:
    """The size of a shift that comes nearest to a wanted change of its weight; None where it makes none."""
    translation = action.translation
    shape = action.shape(weights.structure)
    name, along = next(iter(changed(weights, action, np.ones(shape))))
    if name != translation.weight or not np.isfinite(along).all():
        return None
    along = np.broadcast_to(along, wanted.shape)
    size, square = along * wanted, along * along
    for axis, classes in enumerate(translation.wave.classes):
        size, square = (_by_class(values, axis, np.asarray(classes)) for values in (size, square))
    return np.asarray(np.where(square > TINY, size / np.maximum(square, TINY), 0.0))


def _by_class(values: Array, axis: int, classes: Array) -> Array:
    """Sums over the indices of each class of an axis."""
    if np.array_equal(classes, np.arange(values.shape[axis])):  # each a class of its own
        return values
    if not classes.any():  # all of one
        return np.asarray(values.sum(axis=axis, keepdims=True))
    made = np.zeros((int(classes.max(initial=-1)) + 1, *np.delete(values.shape, axis)))
    moved = np.moveaxis(values, axis, 0)
    np.add.at(made, classes[classes >= 0], moved[classes >= 0])
    return np.moveaxis(made, 0, axis)


def inside(structure: Structure, action: Rescaling) -> bool:
    """Whether a rescaling is the diagonal of a group of matrices on the same space."""
    return any(
        isinstance(other, InvertibleMap)
        and other.leaf == action.leaf
        and set(action.copies) <= set(other.copies)
        and {o.tensor for o in action.charge} <= {o.tensor for o in other.charge}
        for other in structure.rotations
    )


def _gains(structure: Structure, action: Scaling) -> list[str]:
    """The gains before a rotated space that a scaling moves."""
    frames = {
        gain
        for other in structure.rotations
        if isinstance(other, OrthogonalMap) and other.leaf == action.leaf
        for frame in other.frames.values()
        for gain, _ in frame
    }
    return sorted(frames & {o.tensor for o in action.charge} & structure.program.weights.keys())


def _to_one(weights: Weights, action: Rescaling) -> Iterator[Move]:
    """Gains of size one."""
    name = _gains(weights.structure, action)[0]
    power = float(next(c for o, c in action.charge.items() if o.tensor == name))
    yield from _moved(weights, action, _scale(np.sqrt(units_norm(weights, action, name)), power))


def _positive(weights: Weights, action: SignFlip, told: Affine | None) -> Iterator[Move]:
    """Gains without signs."""
    gains = _gains(weights.structure, action)
    if not gains and told is None:
        return
    name, stored = (gains[0], gains[0]) if told is None else (told.scale, told.gain)
    gain = _per_unit(weights, action, name, weights.get(stored))
    if told is not None and not gain.all():
        # What is not scaled at all has the sign of the largest weight that changes with it.
        held = {o.tensor for o in action.charge} & weights.structure.program.weights.keys()
        largest = max(sorted(held), key=lambda n: weights.get(n).size)
        gain = np.where(gain == 0, _per_unit(weights, action, largest, weights.get(largest)), gain)
    if (gain < 0).any():
        yield from _moved(weights, action, np.where(gain < 0, -1.0, 1.0))


def signing(structure: Structure) -> dict[str, Affine]:
    """Sign -> the batch normalisation whose gain says which one a unit has, since no other sign moves it.

    Trainings leave gains positive, and what else two of them have in common says less.
    """
    signs: dict[str, dict[str, None]] = {}
    for action in structure.actions.values():
        for o in action.charge if isinstance(action, SignFlip) else ():
            signs.setdefault(o.tensor, {})[action.id] = None
    made: dict[str, Affine] = {}
    for step in structure.program.affines.values():
        if len(found := signs.get(step.scale, {})) == 1:
            made.setdefault(next(iter(found)), step)
    return made


def _per_unit(weights: Weights, action: SignFlip, name: str, values: Array) -> Array:
    """The sum of what each unit has in a tensor, as an element of a sign."""
    sizes = sizes_of(weights.structure, action)
    sums = [grouped(values, stand, sizes).sum(axis=1) for stand in action.stands(weights.structure, name)]
    return np.reshape(sum(sums), action.shape(weights.structure))


def _to_length_one(weights: Weights, action: Rescaling) -> Iterator[Move]:
    """What only shrinks or only grows, with a length of one."""
    moved = sorted({o.tensor for o in action.charge} & weights.structure.program.weights.keys())
    if isinstance(action, TensorRescaling):
        for name in [n for n in moved if action.charge.get(whole(n))][:1]:
            size = np.full(1, np.linalg.norm(weights.get(name)))
            yield from _moved(weights, action, _scale(size, float(action.charge[whole(name)])))
    elif moved:
        name = max(moved, key=lambda n: weights.get(n).size)
        power = float(next(c for o, c in action.charge.items() if o.tensor == name))
        yield from _moved(weights, action, _scale(np.sqrt(units_norm(weights, action, name)), power))


def _scale(size: Array, power: float) -> Array:
    """What makes of something of this size and charge something of size one."""
    return np.asarray(np.where(size > TINY, np.maximum(size, TINY) ** (-1 / power), 1.0))


def _moved(weights: Weights, action: Scaling | InvertibleMap, element: Array) -> Iterator[Move]:
    if np.isfinite(element).all():
        move = Move(action, element)
        move.apply(weights)
        yield move


def standing(weights: Weights) -> Structure:
    """The network as its weights are now."""
    program = weights.structure.program

    def there(name: str) -> Array:
        return weights.now[name] if name in weights.now else weights.start(name)

    tensors = {n: replace(tensor, read=partial(there, n)) for n, tensor in program.model.tensors.items()}
    return replace(weights.structure, program=replace(program, model=replace(program.model, tensors=tensors)))


def _least_norm(weights: Weights, actions: Sequence[Rescaling]) -> list[Move]:
    """The least sum of squares that rescalings lead to."""
    if not actions:
        return []
    scales = Scales(standing(weights), actions)
    with np.errstate(all="ignore"):
        logs = gauge(scales, "norm")
    if not np.isfinite(logs).all():
        return []
    moves = [
        Move(a, np.exp(logs[numbers]))
        for a, numbers in zip(actions, scales.numbers, strict=True)
        if logs[numbers].any()
    ]
    for move in moves:
        move.apply(weights)
    return moves


def _least_by_place(weights: Weights, action: Action) -> Iterator[Move]:
    """A step to the least sum of squares that scales of places lead to."""
    if isinstance(action, PositionRescaling):
        summands = added(weights.structure)
        held = [n for n in action.scalings.powers if n in weights.structure.program.weights and n not in summands]
        squares = {name: np.square(weights.get(name).astype(np.float64)) for name in held}
        logs = by_place(action, {name: (-square, 2 * square) for name, square in squares.items()})
        yield from _moved(weights, action, np.exp(logs))


def by_place(action: PositionRescaling, sums: Mapping[str, tuple[Array, Array]]) -> Array:
    """Newton's step to the best logarithms of scales of places.

    Args:
        action: what scales elements where they lie.
        sums: weight -> the slope and the bend along the logarithm of what scales each of its elements.
    """
    count = action.scalings.dimension
    slope, bend = np.zeros(count), np.zeros((count, count))
    for name, (first, second) in sums.items():
        powers = np.broadcast_to(action.scalings.powers[name], (count, *first.shape)).reshape(count, -1)
        slope += powers @ first.reshape(-1)
        bend += (powers * second.reshape(-1)) @ powers.T
    return np.asarray(np.clip(np.linalg.lstsq(bend, slope, rcond=NOTHING)[0], -1.0, 1.0))


def _bare(weights: Weights, action: InvertibleMap) -> None:
    """Take from readers what nothing writes, and from writers what nothing reads."""
    for side in (-1, 1):
        grams = _grams(weights, action)
        apart = []
        for gram in grams[-side]:
            values, basis = np.linalg.eigh(gram)
            held = basis[:, values > NOTHING * values.max(initial=TINY)]
            apart.append(held @ held.T)
        n = grams[1].shape[-1]
        if not grams[-side].any() or all(np.trace(part) > n - 0.5 for part in apart):
            continue
        matrix = np.stack(apart).reshape(*sizes_of(weights.structure, action), n, n)
        for name in dict.fromkeys(o.tensor for o in action.charge):
            if name in weights.structure.program.weights:
                places = {place: ONE for place, c in action.powers(name).items() if c * side > 0}
                if places:
                    stood = action.stands(weights.structure, name)
                    weights.put(name, transform(weights.get(name), stood, matrix, places))


def _grams(weights: Weights, action: InvertibleMap) -> dict[int, Array]:
    """The Gram matrices of what writes a space (1) and of what reads it (-1), copy by copy."""
    structure = weights.structure
    sizes, n = sizes_of(structure, action), structure.axes.factors.size(action.leaf)
    count = int(np.prod(sizes, dtype=np.int64))
    grams = {1: np.zeros((count, n, n)), -1: np.zeros((count, n, n))}
    for name in dict.fromkeys(o.tensor for o in action.charge):
        if name not in structure.program.weights:
            continue
        powers = action.powers(name)
        for stand in action.stands(structure, name):
            power = powers.get((stand.axis, stand.term, stand.place))
            if power:
                rows = grouped(weights.get(name).astype(np.float64), stand, sizes)
                grams[1 if power > 0 else -1] += np.matmul(rows.swapaxes(-1, -2), rows)
    return grams


def _balance(weights: Weights, action: InvertibleMap) -> Iterator[Move]:
    """The least sum of squares that invertible matrices lead to: writers and readers have the same Gram matrix."""
    grams = _grams(weights, action)
    if not grams[1].any() or not grams[-1].any():
        return
    made = np.stack([_mean(p, q) for p, q in zip(grams[1], grams[-1], strict=True)])
    yield from _moved(weights, action, made.reshape(*sizes_of(weights.structure, action), *made.shape[1:]))


def _mean(p: Array, q: Array) -> Array:
    """The symmetric matrix m with m p m = m^-1 q m^-1: m^2 is the geometric mean of p^-1 and q.

    It acts on the directions that are both written and read; where others are written or read, it is the identity.
    """
    n = len(p)
    values, basis = np.linalg.eigh(p)
    held = basis[:, values > NOTHING * values.max(initial=TINY)]
    within = held.T @ q @ held
    if np.trace(q) - np.trace(within) > LOST * np.trace(q) or not held.shape[1]:
        return np.eye(n)
    values = np.linalg.eigvalsh(within)
    if values.min() <= NOTHING * values.max():
        return np.eye(n)
    written = held.T @ p @ held
    root, back = _power(written, 0.5), _power(written, -0.5)
    square = back @ _power(root @ within @ root, 0.5) @ back
    return np.asarray(held @ _power(square, 0.5) @ held.T + np.eye(n) - held @ held.T)


def _power(matrix: Array, exponent: float) -> Array:
    values, basis = np.linalg.eigh((matrix + matrix.T) / 2)
    return np.asarray(basis * np.maximum(values, TINY) ** exponent @ basis.T)


def _near_one(move: Move) -> bool:
    element = np.asarray(move.element)
    if isinstance(move.action, InvertibleMap):
        return bool(np.abs(element - np.eye(element.shape[-1])).max() < CLOSE)
    return bool(np.abs(element - 1).max() < CLOSE)
