"""Weights that no input of ordinary size makes visible: decayed to 1e-20, though not to zero.

A unit is written and read; how much it can add to an output is the product of both, which no rescaling of the unit
changes. Beside units of the same space a product below the rounding noise of the numbers, for inputs as large as asked
for, is nothing. So it is without a rescaling, if the functions between are tame (see `sides`); elsewhere the size of a
weight means something by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from symlint.analysis.sameness import sides
from symlint.evidence.options import Asked
from symlint.model.clusters import median
from symlint.model.graph import Array
from symlint.symmetry.charges.unknowns import Charge, Occurrence
from symlint.symmetry.motion.action import Stand, stands
from symlint.symmetry.structure import Action, Structure

Mask = NDArray[np.bool_]
FLOATING = frozenset({"float16", "bfloat16", "float32", "float64"})
RARE = 1e-3
"""Of the usual size: spaces in which nothing is smaller are passed over."""
Strengths = dict[Occurrence, Array]


def negligible(structure: Structure, asked: Asked) -> dict[str, Mask]:
    """Weight of the program -> its elements that are as good as zero, for weights that have such.

    Args:
        structure: of the network.
        asked: how large inputs may be that must not make them visible.
    """
    found: dict[str, Mask] = {}
    weights = _Weights(structure, asked)
    for action in structure.permutations:
        for name, mask in weights.silent(action):
            found[name] = found[name] | mask if name in found else mask
    return found


class _Weights:
    def __init__(self, structure: Structure, asked: Asked) -> None:
        self.structure, self.asked, self.share = structure, asked, asked.faint

    def silent(self, action: Action) -> Iterator[tuple[str, Mask]]:
        """The elements of weights that belong to units of an action, or to one side of them, and are nothing."""
        places = dict(self._places(action))
        strengths = {place: self._strength(place.tensor, stand, action) for place, stand in places.items()}
        # Most spaces have nothing that is small in any tensor.
        if not any((_small(s, RARE) & (s > 0)).any() for s in strengths.values()):
            return
        scalings = [a.charge for a in self.structure.rescalings if a.leaf == action.leaf]
        if not scalings and (found := sides(self.structure, action, strengths)) is not None:
            scalings = [{place: Fraction(sign) for sign, side in zip((1, -1), found, strict=True) for place in side}]
        for place, units in self._units(strengths, scalings).items():
            if (units & (strengths[place] > 0)).any():
                yield place.tensor, self._mask(place.tensor, places[place], units)

    def _units(self, strengths: Strengths, scalings: list[Charge]) -> Mapping[Occurrence, Mask]:
        """Per occurrence the units of which it holds nothing."""
        usual = median(np.array([s.max() for s in strengths.values()]))
        found = {place: np.zeros(s.shape, bool) for place, s in strengths.items()}
        for place in set(strengths).difference(*scalings):
            found[place] = _small(strengths[place], self.share, usual)
        for charge in scalings:
            sides = [
                {place: s for place, s in strengths.items() if charge.get(place, 0) * sign > 0} for sign in (1, -1)
            ]
            if all(sides):
                self._meet(found, sides, charge)
            elif {1, -1} <= {np.sign(float(c)) for c in charge.values()}:  # the other side is no stored weight
                for place, strength in (sides[0] | sides[1]).items():
                    found[place] |= _small(strength, self.share, usual)
        return found

    def _meet(self, found: dict[Occurrence, Mask], sides: list[Strengths], charge: Charge) -> None:
        """Add the units of which the weights of two sides, that a rescaling moves against each other, make nothing."""
        size = [np.max([s ** (1 / abs(float(charge[p]))) for p, s in side.items()], axis=0) for side in sides]
        powers = [abs(float(charge[p])) for side in sides for p in side]
        product = (size[0] * size[1]) ** max(powers)
        # Where a unit grows with a power of the input, so does what a large input makes of it.
        lost = _small(product, self.share * self.asked.largest ** (1 - max(powers) / min(powers)))
        weak = [_small(s, self.share**0.5) for s in size]
        for side, mine, own, other in zip(sides, size, weak, weak[::-1], strict=True):
            for place, strength in side.items():
                # What is small beside the unit's other weights says nothing, whatever the scale of the unit.
                beside = _small(np.divide(strength, mine, out=np.zeros_like(mine), where=mine > 0), self.share, 1.0)
                found[place] |= (lost & (own | ~other)) | (beside & (strength > 0))

    def _places(self, action: Action) -> Iterator[tuple[Occurrence, Stand]]:
        program, axes = self.structure.program, self.structure.axes
        for name in sorted(axes.factors.holders.get(action.leaf, set()) & program.weights.keys()):
            if program.model.tensors[program.weights[name]].dtype not in FLOATING:
                continue  # an integer level is as far from zero as its zero point says
            for stand in stands(self.structure.expansion, axes.of[name], action.leaf, action.copies):
                yield Occurrence(name, stand.axis, stand.term, stand.place), stand

    def _strength(self, name: str, stand: Stand, action: Action) -> Array:
        """The largest weight of every unit, in the shape (copies..., units)."""
        size = self.structure.axes.factors.size
        found = np.zeros([*(size(c) for c in action.copies), size(action.leaf)])
        largest = self._largest(name, (*stand.others, stand.axis))[..., stand.grid]
        owner = np.broadcast_arrays(*stand.copies, stand.units, stand.here, largest)
        here = owner[-2].astype(bool)
        np.maximum.at(found, tuple(np.asarray(index)[here] for index in owner[:-2]), largest[here])
        return found

    def _largest(self, name: str, kept: tuple[int, ...]) -> Array:
        """The largest absolute value along all axes of a weight but some."""
        model = self.structure.program.model
        size = model.digests.of(model.tensors[self.structure.program.weights[name]]).largest(kept)
        return size.transpose(np.argsort(np.argsort(kept)))

    def _mask(self, name: str, stand: Stand, units: Mask) -> Mask:
        """The elements of a weight that belong to some units."""
        shape = self.structure.program.shapes[name]
        chosen = np.where(stand.here, units[(*stand.copies, stand.units)], False)
        grid = np.broadcast_shapes(chosen.shape, (*(shape[k] for k in stand.others), *stand.grid.shape))
        line = stand.along(shape, np.broadcast_to(chosen, grid), np.zeros(shape[stand.axis], bool))
        return np.broadcast_to(line, shape)


def _small(sizes: Array, share: float, usual: float = 0.0) -> Mask:
    """What is below a share of the median of what is not: however many are small, the others set the measure.

    Args:
        sizes: of the units.
        share: below which a size is small.
        usual: the size to compare with where all units are small.
    """
    counted = sizes[sizes > share * max(sizes.max(initial=0.0), usual)]
    if not np.isfinite(sizes).all():
        return np.zeros(sizes.shape, bool)
    return np.asarray(sizes <= share * (median(counted) if counted.size else usual))
