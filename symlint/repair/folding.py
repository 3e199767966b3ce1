"""Folding: what constant units contribute to their readers goes into biases; the units are read no more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from symlint.action import scale, stands
from symlint.evidence import Context
from symlint.graph import Array
from symlint.membership import members
from symlint.motion import Weights
from symlint.program import Einsum
from symlint.repair.merging import multiples
from symlint.repair.readings import Reading, readings
from symlint.structure import Action

SHIFTED = (
    *("Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum", "com.microsoft.FusedConv", "com.microsoft.FusedGemm"),
)
"""Operators whose result can be given a bias."""
BORDER = "padding or a quantiser tells them from a bias"
UNREADABLE = "their readers are no plain weights, which could be added up to a bias"


@dataclass(frozen=True, slots=True)
class Offset:
    """What to add to the contraction that a node makes: an array that broadcasts against its result."""

    step: Einsum
    values: Array


@dataclass(frozen=True, slots=True)
class Fold:
    """Units that go into biases, and groups of which one unit does the work because a border tells them from biases."""

    units: tuple[int, ...]
    groups: tuple[tuple[int, ...], ...]
    reason: str = ""
    """Why there are none."""

    @property
    def spare(self) -> tuple[int, ...]:
        """The units that are read no more once this is done."""
        return tuple(sorted((*self.units, *(unit for group in self.groups for unit in group[1:]))))


def foldable(context: Context, space: str, units: Sequence[int]) -> Fold:
    """What can become of constant units."""
    action = context.structure.actions[f"{space}.permutation"]
    found = readings(context.structure, action.leaf, context.moving)
    if not found:
        return Fold((), (), UNREADABLE)
    numbers = [_numbers(context, action, r) if r.step.node.op in SHIFTED else {} for r in found]
    plain = tuple(u for u in units if all(u in n for n in numbers))
    size = context.structure.axes.factors.size(action.leaf)
    groups: list[list[int]] = []
    for unit in units:
        if unit in plain:
            continue
        for group in groups:
            if group[0] // size == unit // size and all(
                multiples(context, action, r, [(group[0], unit)]) for r in found
            ):
                group.append(unit)
                break
        else:
            groups.append([unit])
    fixed = next((r.step.node for r in found if r.step.node.op not in SHIFTED), None)
    why = BORDER if fixed is None else f"{fixed.op} {fixed.name or fixed.outputs[0]!r} can be given no bias"
    return Fold(plain, tuple(tuple(g) for g in groups if len(g) > 1), why)


def fold(context: Context, weights: Weights, space: str, units: Sequence[int]) -> Iterator[Offset]:
    """Take constant units out of their readers; what they contributed has to be added.

    Args:
        context: the network.
        weights: change in place.
        space: of the units.
        units: copy-major, as `foldable` tells them.
    """
    structure = context.structure
    action = structure.actions[f"{space}.permutation"]
    factors = structure.axes.factors
    shape = [*(factors.size(c) for c in action.copies), factors.size(action.leaf)]
    found = readings(structure, action.leaf, context.moving) or ()
    stay = np.ones(shape)
    stay.reshape(-1)[list(units)] = 0.0
    # One weight may read them in several places: all see it as it was.
    for reading in found:
        numbers = _numbers(context, action, reading)
        constant = np.zeros(shape)
        for unit in units:
            constant.reshape(-1)[unit] = numbers[unit]
        axes = structure.axes.of[reading.operand]
        involved = {action.leaf, *action.copies}
        wide = tuple(factors.size(f) if involved.intersection(factors.leaves(f)) else 1 for f in axes)
        ones = np.ones(wide)
        # Units of other spaces beside these in one axis contribute nothing to the offset.
        filled = _scaled(context, action, axes, ones, constant) - _scaled(context, action, axes, ones, np.zeros(shape))
        made = weights.numbers.apply(reading.step, {reading.operand: filled})[reading.step.out]
        yield Offset(reading.step, made)
    for name, axis in dict.fromkeys(place for reading in found for place in reading.places):
        weights.put(name, _scaled(context, action, structure.axes.of[name], weights.get(name), stay, axis))


def _scaled(
    context: Context, action: Action, axes: Sequence[int], values: Array, factor: Array, axis: int | None = None
) -> Array:
    """Values with every unit times its factor, where they lie along one axis if one is named."""
    stood = [s for s in stands(context.structure.expansion, axes, action.leaf, action.copies) if axis in (None, s.axis)]
    return np.asarray(scale(values, stood, factor, {(s.axis, s.term, s.place): Fraction(1) for s in stood}))


def _numbers(context: Context, action: Action, reading: Reading) -> dict[int, float]:
    """The units that are one known number where they are read."""
    value = context.values.get(reading.operand)
    if value is None or context.plain(action).copies != action.copies:
        return {}
    rows = members(context.structure, action, context.structure.axes.of[reading.operand], value.shape)
    if rows is None:
        return {}
    labels, size = value.numbers.reshape(-1)[rows], np.asarray(value.scale, np.float64).reshape(-1)[rows]
    known = (labels == 0).all(axis=1) & (size == size[:, :1]).all(axis=1)
    return {int(u): float(size[u, 0]) for u in np.flatnonzero(known)}
