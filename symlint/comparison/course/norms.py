"""Norms: how large what is written to a space and what is read from it are, in the gauge of least norm."""

from __future__ import annotations

import numpy as np

from symlint.comparison.course.state import States
from symlint.comparison.matching.readings import READS, WRITES
from symlint.comparison.matching.weights import VECTORS
from symlint.model.records import dataclass
from symlint.symmetry.gauge.scales import two_sided
from symlint.symmetry.spaces import Space
from symlint.symmetry.structure import Structure


@dataclass(frozen=True, slots=True)
class Norms:
    """Frobenius norms; None where no weight is on that side, or its numbers cannot be told."""

    written: float | None
    read: float | None


def settles(structure: Structure) -> bool:
    """Whether the gauge of least norm is one point, but for the order of units.

    That is where nothing is mixed, no matrix is shifted, and no scale is taken away again, as by a norm.
    """
    shifted = (structure.axes.of[shift.translation.weight] for shift in structure.shifts)
    factors = structure.axes.factors
    scalings = sum(a.kind == "rescaling" for a in structure.actions.values())
    if structure.rotations or len(two_sided(structure)) < scalings:
        return False
    return not any(sum(factors.size(f) > 1 for f in axes) > 1 for axes in shifted)


def norms(states: States, space: Space) -> Norms:
    """The norms of the two sides of a space, of a network in the canonical gauge.

    Gains of normalisations are in what they scale. It means something where that gauge `settles`.
    """
    leaf = states.actions[space.id][0].leaf
    sides = {WRITES: 0.0, READS: 0.0}
    there: set[str] = set()
    for block in states.holders[leaf]:
        weight = states.weights.all[block.weight]
        if weight.kind in VECTORS:
            continue
        values = states.weights.read(weight)
        if values is None:
            return Norms(None, None)
        energy = float(np.sum(np.square(states.spectra.measured(block, values, weight.tensor, leaf))))
        for side in {use for d in block.dims if d.leaf == leaf for use in d.use.split("|")} & sides.keys():
            sides[side] += energy
            there.add(side)
    found = {side: float(np.sqrt(energy)) for side, energy in sides.items()}
    written, read = (found[side] if side in there and np.isfinite(found[side]) else None for side in (WRITES, READS))
    return Norms(written, read)
