"""Which elements of a tensor belong to which unit of a space."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from symlint.model.graph import Shape
from symlint.symmetry.motion.action import stands
from symlint.symmetry.structure import Action, Structure


def members(structure: Structure, action: Action, axes: Sequence[int], shape: Shape) -> NDArray[np.int64] | None:
    """For every unit, copy-major, the flat indices of its elements in a value; None where they cannot be told.

    Args:
        structure, action: the units are those on which the action acts.
        axes: the factor of each axis.
        shape: of the value, which may be written with size 1 along axes without units.
    """
    factors = structure.axes.factors
    size = factors.size(action.leaf)
    alone = _alone(structure, action, axes)
    if alone is not None:
        if shape[alone] != size or 0 in shape:
            return None
        return np.moveaxis(np.arange(prod(shape)).reshape(shape), alone, 0).reshape(size, -1)
    count = size * prod(factors.size(c) for c in action.copies)
    written = [k for k, f in enumerate(axes) if shape[k] == factors.size(f)]
    owner = np.full(shape, -1)
    for stand in stands(structure.expansion, axes, action.leaf, action.copies):
        if any(k not in written for k in (stand.axis, *stand.others)):
            return None
        unit, stride = stand.units, size
        for copy, factor in zip(reversed(stand.copies), reversed(action.copies), strict=True):
            unit = unit + copy * stride
            stride *= factors.size(factor)
        here = np.where(stand.here, unit, -1)
        here = np.broadcast_to(here, np.broadcast_shapes(here.shape, (1,) * len(stand.others) + stand.grid.shape))
        placed = stand.along(shape, here, np.full(shape[stand.axis], -1))
        owner = np.where(placed >= 0, placed, owner)
    flat = owner.reshape(-1)
    order = np.argsort(flat, kind="stable")[np.count_nonzero(flat < 0) :]
    each = len(order) // count
    if not each or np.any(np.bincount(flat[order], minlength=count) != each):
        return None
    return order.reshape(count, -1)


def _alone(structure: Structure, action: Action, axes: Sequence[int]) -> int | None:
    """The axis that is the units themselves, where it alone holds them, whatever stands beside; None where none is."""
    factors, terms = structure.axes.factors, structure.expansion.terms
    held = [k for k, f in enumerate(axes) if action.leaf in factors.leaves(f)]
    if action.copies or len(held) != 1 or factors.find(axes[held[0]]) != action.leaf:
        return None
    plain = all(len(row := terms(f)) == 1 and not row[0].condition for f in axes)
    return held[0] if plain else None
