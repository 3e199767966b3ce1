"""Fits: the element of one generator that brings a network nearest to another, all others left as they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import product

import numpy as np

from symlint.comparison.alignment.pair import Evidence, Move, Piece, Settled, grouped, sizes_of
from symlint.model.graph import Array
from symlint.symmetry.actions.permutation import UnitPermutation
from symlint.symmetry.actions.rotation import InvertibleMap, OrthogonalMap, PlaneRotation
from symlint.symmetry.actions.scaling import SignFlip
from symlint.symmetry.motion.action import turn
from symlint.symmetry.motion.motion import across_ones
from symlint.symmetry.structure import Action

MANY = 5
"""Signs of one space of which all choices are tried; of more the largest products are made positive."""


def assignment(scores: Array) -> Array:
    """For every place of the first the unit of the second, with the largest sum of scores (..., n, n)."""
    from scipy.optimize import linear_sum_assignment

    flat = scores.reshape(-1, *scores.shape[-2:])
    orders = flat.argmax(axis=-1)
    for k, table in enumerate(flat):
        if len(np.unique(orders[k])) < len(table):  # else every place has what fits it best
            orders[k] = linear_sum_assignment(-table)[1]
    return np.asarray(orders.reshape(scores.shape[:-1]))


def likeness(pieces: Iterable[Piece], signs: Sequence[SignFlip], count: int, n: int) -> Array:
    """How well every unit of one network fits every unit of the other, at the best of its signs: (copies, n, n)."""
    tables: dict[tuple[bool, ...], Array] = {}
    for piece in pieces:
        odd = tuple(_odd(sign, piece) for sign in signs)
        tables[odd] = tables.get(odd, np.zeros((count, n, n))) + piece.cross
    if len(signs) > MANY:  # as if each pattern had signs of its own
        return sum((np.abs(t) if any(odd) else t for odd, t in tables.items()), np.zeros((count, n, n)))
    best = np.full((count, n, n), -np.inf)
    for flips in product((False, True), repeat=len(signs)):
        total = np.zeros((count, n, n))
        for odd, table in tables.items():
            flipped = sum(a and b for a, b in zip(odd, flips, strict=True)) % 2
            total += -table if flipped else table
        best = np.maximum(best, total)
    return best


def scored(
    evidence: Evidence, action: UnitPermutation, settled: Settled, signs: Sequence[SignFlip], finer: Sequence[SignFlip]
) -> Array:
    """How well all pairs of units fit where some signs have more copies than the order: each copy at its own best."""
    form = action.shape(evidence.structure)
    count, n = int(np.prod(form[:-1], dtype=np.int64)), form[-1]
    if not finer:
        return likeness(evidence.pieces(action, settled), signs, count, n)
    touched: dict[str, SignFlip] = {}
    for sign in sorted(finer, key=lambda sign: len(sign.copies)):
        touched |= dict.fromkeys((o.tensor for o in sign.charge), sign)
    plain = {name for _, name, _ in evidence.stands(action)} - touched.keys()
    scores = likeness(evidence.pieces(action, settled, only=plain), signs, count, n)
    tables: dict[tuple[tuple[int, ...], tuple[bool, ...]], Array] = {}
    for name, sign in touched.items():
        for piece in evidence.pieces(sign, settled, only=(name,)):
            key = sign.copies, tuple(_odd(other, piece) for other in (*signs, *finer))
            tables[key] = tables.get(key, 0.0) + piece.cross
    for (copies, odd), table in tables.items():
        sizes = [evidence.axes.factors.size(c) for c in copies]
        wide = (np.abs(table) if any(odd) else table).reshape(*sizes, n, n)
        extra = tuple(k for k, c in enumerate(copies) if c not in action.copies)
        scores = scores + wide.sum(axis=extra).reshape(count, n, n)
    return scores


def _odd(sign: SignFlip, piece: Piece) -> bool:
    power = sign.charge.get(piece.at)
    return power is not None and power.denominator == 1 and power.numerator % 2 == 1


def rotated(cross: Array, action: InvertibleMap | OrthogonalMap) -> Array:
    """The orthogonal matrices nearest to some tables (..., n, n) of products (Procrustes)."""
    n = cross.shape[-1]
    across = across_ones(n) if isinstance(action, OrthogonalMap) and action.fixes_ones else np.eye(n)
    left, _, right = np.linalg.svd(across.T @ cross @ across)
    made = across @ (left @ right) @ across.T
    return np.asarray(made + np.eye(n) - across @ across.T)


def angles(evidence: Evidence, action: PlaneRotation, settled: Settled) -> tuple[Array, Array]:
    """The best angle of every plane, and how well the two fit then."""
    structure, sizes = evidence.structure, sizes_of(evidence.structure, action)
    form = action.shape(structure)
    along, across = (np.zeros((int(np.prod(sizes, dtype=np.int64)), form[-1])) for _ in range(2))
    for stored, name, stands in evidence.stands(action):
        if not action.powers(name):
            continue
        masks = [evidence.mask(name, stand, settled) for stand in stands]
        known = [mask for mask in masks if mask is not None]
        if len(known) < len(stands):
            continue
        one, two = evidence.pair.target.get(name), evidence.pair.current.get(name)
        turned = turn(two, stands, np.full(form, np.pi / 2))
        weight = evidence.pair.weigh[stored]
        for stand, mask in zip(stands, known, strict=True):
            there = grouped(one * mask, stand, sizes)
            along += weight * np.sum(there * grouped(two, stand, sizes), axis=1)
            across += weight * np.sum(there * grouped(turned, stand, sizes), axis=1)
    return np.arctan2(across, along).reshape(form), np.hypot(across, along)


def signed(evidence: Evidence, signs: Sequence[SignFlip], settled: Settled) -> dict[tuple[bool, ...], Array]:
    """How well the units fit as they are: which of the signs change it -> products, in the shape of an element."""
    form = signs[0].shape(evidence.structure)
    tables: dict[tuple[bool, ...], Array] = {}
    for piece in evidence.pieces(signs[0], settled):
        odd = tuple(_odd(sign, piece) for sign in signs)
        if any(odd):
            found = piece.weight * np.sum(piece.one * piece.two, axis=1)
            tables[odd] = tables.get(odd, np.zeros(form)) + found.reshape(form)
    return tables


def mixed(evidence: Evidence, signs: Sequence[SignFlip], settled: Settled) -> list[Array]:
    """Which units to flip, for signs of one space of which some have more copies than others: all together."""
    structure = evidence.structure
    forms = [sign.shape(structure) for sign in signs]
    ends = np.cumsum([int(np.prod(form[:-1], dtype=np.int64)) for form in forms])
    numbers = [
        np.arange(ends[-1])[end - np.prod(f[:-1], dtype=np.int64) : end] for f, end in zip(forms, ends, strict=True)
    ]
    touched: dict[str, SignFlip] = {}
    for sign in sorted(signs, key=lambda sign: len(sign.copies)):
        touched |= dict.fromkeys((o.tensor for o in sign.charge), sign)
    tables: dict[tuple[bool, ...], Array] = {}
    for name, finest in touched.items():
        for piece in evidence.pieces(finest, settled, only=(name,)):
            odd = [k for k, sign in enumerate(signs) if _odd(sign, piece)]
            if not odd or not all(set(signs[k].copies) <= set(finest.copies) for k in odd):
                continue
            found = piece.weight * np.sum(piece.one * piece.two, axis=1)
            for copy, at in enumerate(np.ndindex(*sizes_of(structure, finest))):
                key = np.zeros(ends[-1], bool)
                for k in odd:
                    own = tuple(at[finest.copies.index(c)] for c in signs[k].copies)
                    key[numbers[k].reshape(forms[k][:-1])[own]] = True
                tables[tuple(key)] = tables.get(tuple(key), 0.0) + found[copy]
    if not tables:
        return [np.zeros(form, bool) for form in forms]
    chosen = parities(tables)
    return [chosen[part].reshape(form) for part, form in zip(numbers, forms, strict=True)]


def parities(tables: Mapping[tuple[bool, ...], Array]) -> Array:
    """Which signs to flip, (signs, ...), so that the largest products are positive, as many as agree with each other.

    Every product is an equation over GF(2) in the signs that change it; of equations that contradict larger ones there
    is no solution, and they are left. What no equation tells stays as it is.
    """
    count = len(next(iter(tables)))
    form = next(iter(tables.values())).shape
    masks = [sum(1 << k for k, there in enumerate(odd) if there) for odd in tables]
    values = np.stack([table.reshape(-1) for table in tables.values()])
    made = np.zeros((count, values.shape[1]), bool)
    for unit, column in enumerate(values.T):
        led: dict[int, tuple[int, bool]] = {}
        for k in np.argsort(-np.abs(column), kind="stable"):
            mask, wrong = masks[k], bool(column[k] < 0)
            while mask and (lead := mask.bit_length() - 1) in led:
                mask, wrong = mask ^ led[lead][0], wrong ^ led[lead][1]
            if mask and column[k]:
                led[mask.bit_length() - 1] = mask, wrong
        flips = 0
        for lead in sorted(led):
            mask, wrong = led[lead]
            flips |= (wrong ^ bool((mask & flips).bit_count() % 2)) << lead
        made[:, unit] = [flips >> k & 1 for k in range(count)]
    return made.reshape(count, *form)


def fitted(
    evidence: Evidence,
    action: Action,
    settled: Settled,
    signs: Sequence[SignFlip] = (),
    finer: Sequence[SignFlip] = (),
) -> Iterator[Move]:
    """The best element of a generator that keeps lengths; none where nothing would move."""
    structure = evidence.structure
    form = action.shape(structure)
    count, n = int(np.prod(form[:-1], dtype=np.int64)), form[-1]
    match action:
        case UnitPermutation():
            order = assignment(scored(evidence, action, settled, signs, finer)).reshape(form)
            if not (order == np.arange(n)).all():
                yield Move(action, order)
        case InvertibleMap() | OrthogonalMap():
            cross = np.zeros((count, n, n))
            for piece in evidence.pieces(action, settled, charged=True):
                cross += piece.cross
            if cross.any():
                yield Move(action, rotated(cross, action).reshape(*form, n))
        case PlaneRotation():
            yield Move(action, angles(evidence, action, settled)[0])
