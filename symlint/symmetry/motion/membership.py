"""Which elements of a tensor belong to which unit of a space."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from symlint.model.graph import Shape
from symlint.symmetry.axes.arena import ONE, Form
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
    count = size * prod(factors.size(c) for c in action.copies)
    sizes, leaves = _apart(structure, action, axes, shape) or ([], [])
    if all(leaves.count(x) == 1 for x in (*action.copies, action.leaf)) and 0 not in shape:
        seats = [leaves.index(x) for x in (*action.copies, action.leaf)]
        seats += [k for k in range(len(sizes)) if k not in seats]
        return np.arange(prod(shape)).reshape(sizes).transpose(seats).reshape(count, -1)
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


def _apart(
    structure: Structure, action: Action, axes: Sequence[int], shape: Shape
) -> tuple[list[int], list[int]] | None:
    """The shape of a value whose units are on axes that are leaves or row-major groups of them, with these apart.

    With it the leaf of each axis, ONE where that is no matter; None of any other value.
    """
    factors, terms = structure.axes.factors, structure.expansion.terms
    wanted, sizes, leaves = {action.leaf, *action.copies}, list[int](), list[int]()
    for f, n in zip(axes, shape, strict=True):
        if any(term.condition for term in terms(f)):
            return None
        if wanted.isdisjoint(factors.leaves(f)):
            sizes.append(n)
            leaves.append(ONE)
            continue
        parts = factors.parts(f) if factors.form(f) is Form.PRODUCT else (factors.find(f),)
        if n != factors.size(f) or any(factors.form(p) is not Form.LEAF for p in parts):
            return None
        sizes += map(factors.size, parts)
        leaves += parts
    return sizes, leaves
