"""Merging: of units that are one function, one keeps the work of all; the others are read no more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

import numpy as np

from symlint.evidence.context import Context
from symlint.model.clusters import median
from symlint.model.graph import Array
from symlint.repair.units.readings import Reading, readings
from symlint.symmetry.motion.action import stands, transform
from symlint.symmetry.motion.membership import members
from symlint.symmetry.motion.motion import Weights
from symlint.symmetry.structure import Action

SPREAD = 1e-5
"""How far the multiple of a unit may differ from place to place, relative."""
Group = Sequence[int]


def merge(context: Context, weights: Weights, space: str, groups: Sequence[Group]) -> tuple[int, ...]:
    """Let the first unit of each group do the work of the others; the units that are read no more.

    Args:
        context: the network.
        weights: change in place.
        space: its permutation tells where the units lie.
        groups: units, copy-major, that are multiples of their first wherever they are read.
    """
    action = context.structure.permutation(space)
    size = context.structure.axes.factors.size(action.leaf)
    found = _multiplied(context, action, groups)
    for reading, factor in found:
        shape = [*(context.structure.axes.factors.size(c) for c in action.copies), size, size]
        matrix = np.broadcast_to(np.eye(size), shape).reshape(-1, size, size).copy()
        for group in groups:
            copy, first = divmod(group[0], size)
            for unit in group[1:]:
                matrix[copy, first, unit % size] = factor[unit]
                matrix[copy, unit % size, unit % size] = 0.0
        for name, axis in reading.places:
            weights.put(name, _applied(context, action, weights.get(name), name, axis, matrix.reshape(shape)))
    return _others(groups) if found else ()


def mergeable(context: Context, space: str, groups: Sequence[Group]) -> tuple[int, ...]:
    """The units of which others can do the work, without a change; none where that is not possible."""
    found = _multiplied(context, context.structure.permutation(space), groups)
    return _others(groups) if found else ()


def _others(groups: Sequence[Group]) -> tuple[int, ...]:
    return tuple(sorted(unit for group in groups for unit in group[1:]))


def _multiplied(context: Context, action: Action, groups: Sequence[Group]) -> list[tuple[Reading, Mapping[int, float]]]:
    """The readings of units, with how many times its group's first unit each is there; empty where that fails."""
    found = readings(context.structure, action.leaf, context.moving)
    if not found:
        return []
    size = context.structure.axes.factors.size(action.leaf)
    ones = {unit: 1.0 for group in groups for unit in group}
    # Where a rule says that all units are one, they are equal though chance could have made them so.
    alike = ones if all(len(group) == size for group in groups) else None
    factors = [multiples(context, action, reading, groups) or alike for reading in found]
    told: list[tuple[Reading, Mapping[int, float]]] = [
        (reading, factor) for reading, factor in zip(found, factors, strict=True) if factor is not None
    ]
    return told if len(told) == len(found) and _agree(found, factors) else []


def _agree(found: Sequence[Reading], factors: Sequence[Mapping[int, float] | None]) -> bool:
    """Whether each weight that reads units in several places sees the same multiples everywhere."""
    seen: dict[str, dict[int, float]] = {}
    for reading, factor in zip(found, factors, strict=True):
        for name, _ in reading.places:
            for unit, number in (factor or {}).items():
                known = seen.setdefault(name, {}).setdefault(unit, number)
                if abs(known - number) > SPREAD * abs(known):
                    return False
    return True


def multiples(context: Context, action: Action, reading: Reading, groups: Sequence[Group]) -> dict[int, float] | None:
    """How many times its group's first unit each unit is, as one reading sees it; None where it is no multiple."""
    value = context.values.get(reading.operand)
    rows = None
    if value is not None:
        axes = context.structure.axes.of[reading.operand]
        rows = members(context.structure, context.plain(action), axes, value.shape)
    if value is None or rows is None or context.plain(action).copies != action.copies:
        return None
    labels, scale = value.numbers.reshape(-1)[rows], np.asarray(value.scale, np.float64).reshape(-1)[rows]
    found: dict[int, float] = {}
    for group in groups:
        first = group[0]
        for unit in group[1:]:
            if not np.array_equal(labels[first], labels[unit]) or not scale[first].all():
                return None
            ratio = scale[unit] / scale[first]
            middle = median(ratio)
            if not np.all(np.abs(ratio - middle) <= SPREAD * abs(middle)):
                return None
            found[unit] = middle
    return found


def _applied(context: Context, action: Action, values: Array, name: str, axis: int, matrix: Array) -> Array:
    """A weight whose units along one axis become the combinations that the rows of the matrix say."""
    structure = context.structure
    stood = [
        s for s in stands(structure.expansion, structure.axes.of[name], action.leaf, action.copies) if s.axis == axis
    ]
    return transform(values, stood, matrix, {(s.axis, s.term, s.place): Fraction(1) for s in stood})
