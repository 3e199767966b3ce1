"""Certificates: what the bounds of a network prove about its units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from symlint.analysis.bounds.bounds import bounds
from symlint.analysis.bounds.interval import Interval, point
from symlint.analysis.bounds.ranges import ranged
from symlint.analysis.values.lattice import Value
from symlint.model.graph import Array
from symlint.model.records import dataclass
from symlint.program.steps import Pointwise
from symlint.symmetry.structure import Structure

MARGINS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""How much wider an interval is made on both sides, relative to its width, to see how sure a proof is."""


@dataclass(frozen=True, slots=True, eq=False)
class Settled:
    """Elements of a tensor that are one number for every input, because of what an activation gets."""

    where: Array
    number: Array
    margin: Array
    """The largest of `MARGINS` by which its interval could be wider; 0 where none."""


def certify(
    structure: Structure,
    values: Mapping[str, Value],
    carried: Mapping[str, tuple[bool, ...]],
    *,
    every: bool = False,
    given: Mapping[str, tuple[float, float]] | None = None,
) -> dict[str, Interval]:
    """What the computed tensors lie between: of those on which a clamp depends, or of every one.

    ``given`` is what the numbers of some inputs lie between.
    """
    return bounds(structure.program, values, carried, _Mixed(structure).of, every=every, given=given)


def settled(structure: Structure, values: Mapping[str, Value], found: Mapping[str, Interval]) -> dict[str, Settled]:
    """The elements that an activation makes one number, where that is not known from the weights alone."""
    made: dict[str, Settled] = {}
    for step in structure.program.elementwise:
        if step.out in found and found[step.out].settled.any():
            one, value = found[step.out], values[step.out]
            fresh = one.settled & ~value.constant if value.shape == one.shape else one.settled
            if fresh.any():
                made[step.out] = Settled(one.settled, one.low, _margin(step, values, found, one))
    return made


def _margin(step: Pointwise, values: Mapping[str, Value], found: Mapping[str, Interval], one: Interval) -> Array:
    margin = np.zeros(one.shape)
    given = [found[n] if n in found else point(values[n].scale) for n in step.operands]
    for share in MARGINS:
        made = ranged(step, [_wider(x, share) for x in given])
        if made is None or np.broadcast_shapes(made.shape, one.shape) != one.shape:
            break
        margin = np.where(made.settled & one.settled & (margin == _before(share)), share, margin)
    return margin


def _before(share: float) -> float:
    place = MARGINS.index(share)
    return MARGINS[place - 1] if place else 0.0


def _wider(x: Interval, share: float) -> Interval:
    width = np.where(np.isfinite(x.high - x.low), x.high - x.low, np.inf)
    return Interval(x.low - share * width, x.high + share * width)


class _Mixed:
    """Which elements of a tensor a rotation mixes with others."""

    def __init__(self, structure: Structure) -> None:
        self.structure = structure
        self.leaves = frozenset(a.leaf for a in structure.rotations)
        self.masks: dict[int, Array | None] = {}

    def of(self, name: str) -> Sequence[Array | None]:
        """Axis by axis a mask, None where no element is mixed."""
        return [self._mask(factor) for factor in self.structure.axes.of[name]]

    def _mask(self, factor: int) -> Array | None:
        if factor not in self.masks:
            factors, found = self.structure.axes.factors, None
            if self.leaves.intersection(factors.leaves(factor)):
                found = np.zeros(factors.size(factor), bool)
                for term in self.structure.expansion.terms(factor):
                    if self.leaves.intersection(term.leaves):
                        found[term.positions] = True
            self.masks[factor] = found
        return self.masks[factor]
