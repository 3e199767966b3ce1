"""Folding: what constant units contribute to their readers goes into biases; the units are read no more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from symlint.evidence.context import Context
from symlint.model.graph import Array
from symlint.model.records import dataclass
from symlint.program.steps import Einsum
from symlint.repair.units.merging import Reading, multiples, readings
from symlint.symmetry.motion.action import scale, stands
from symlint.symmetry.motion.membership import members
from symlint.symmetry.motion.motion import Weights
from symlint.symmetry.structure import Action

PLAIN = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Einsum")
SHIFTED = (*PLAIN, "com.microsoft.FusedConv", "com.microsoft.FusedGemm")
"""Operators whose result can be given a bias."""
SLOTS = {"Conv": 2, "ConvTranspose": 2, "Gemm": 2, "FusedConv": 2, "FusedGemm": 2}
"""Operator -> the operand that is its bias."""
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
    action = context.structure.permutation(space)
    found = readings(context.structure, action.leaf, context.moving)
    if not found:
        return Fold((), (), UNREADABLE)
    constants = [_constants(context, action, r) if r.step.node.op in SHIFTED else None for r in found]
    plain = tuple(u for u in units if all(c is not None and u in c.units for c in constants))
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
    action = structure.permutation(space)
    factors = structure.axes.factors
    shape = [*(factors.size(c) for c in action.copies), factors.size(action.leaf)]
    found = readings(structure, action.leaf, context.moving) or ()
    stay = np.ones(shape)
    stay.reshape(-1)[list(units)] = 0.0
    # One weight may read them in several places: all see it as it was.
    for reading in found:
        constants = _constants(context, action, reading)
        assert constants is not None  # such units are not chosen
        made = weights.numbers.apply(reading.step, {reading.operand: constants.of(units)})[reading.step.out]
        yield Offset(reading.step, made)
    for name, axis in dict.fromkeys(place for reading in found for place in reading.places):
        weights.put(name, _scaled(context, action, structure.axes.of[name], weights.get(name), stay, axis))


def _scaled(
    context: Context, action: Action, axes: Sequence[int], values: Array, factor: Array, axis: int | None = None
) -> Array:
    """Values with every unit times its factor, where they lie along one axis if one is named."""
    stood = [s for s in stands(context.structure.expansion, axes, action.leaf, action.copies) if axis in (None, s.axis)]
    return np.asarray(scale(values, stood, factor, {(s.axis, s.term, s.place): Fraction(1) for s in stood}))


@dataclass(frozen=True, slots=True, eq=False)
class _Constants:
    """The units that are known numbers where they are read: one, or one for each of the places that they have."""

    values: Array
    """What is read, with size 1 along axes along which it is the same."""
    rows: NDArray[np.int64]
    """For every unit, where in it that stands."""
    units: frozenset[int]
    """The units that are."""

    def of(self, units: Sequence[int]) -> Array:
        """Of some units, and zero of all that stands beside them."""
        filled, chosen = np.zeros(self.values.shape), self.rows[list(units)]
        filled.reshape(-1)[chosen] = self.values.reshape(-1)[chosen]
        return filled


def _constants(context: Context, action: Action, reading: Reading) -> _Constants | None:
    value, axes = context.values.get(reading.operand), context.structure.axes.of[reading.operand]
    if value is None or context.plain(action).copies != action.copies:
        return None
    leaves, involved = context.structure.axes.factors.leaves, {action.leaf, *action.copies}
    shape = tuple(n if involved.intersection(leaves(f)) else 1 for f, n in zip(axes, value.shape, strict=True))
    first = tuple(slice(0, n) for n in shape)
    numbers = np.array(value.scale[first], np.float64)
    alike = (value.constant & (value.scale == numbers)).all(
        axis=tuple(k for k, n in enumerate(shape) if n == 1), keepdims=True
    )
    rows = members(context.structure, action, axes, shape)
    if rows is None:
        return None
    return _Constants(numbers, rows, frozenset(np.flatnonzero(alike.reshape(-1)[rows].all(axis=1)).tolist()))
