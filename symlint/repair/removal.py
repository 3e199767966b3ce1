"""Removal: units that contribute nothing are put last, copy by copy, and cut off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from symlint.evidence import Context
from symlint.motion import Weights, move
from symlint.repair.narrowing import agreed
from symlint.structure import Structure

Dead = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Removal:
    """How many units of each leaf are left, and the order that puts those first."""

    widths: Mapping[int, int]
    orders: Mapping[str, NDArray[np.int64]]
    """Permutation -> its element (copies..., units)."""


def plan(context: Context, dead: Mapping[str, Dead], align: int = 1) -> Removal:
    """What can go of the units that are dead, by space and copy-major.

    Every copy of a space loses as many units as the copy with the fewest dead ones. Where all are dead one stays,
    unless every tensor holds other units beside them. Widths that fall are multiples of `align`.
    """
    structure = context.structure
    factors = structure.axes.factors
    widths: dict[int, int] = {}
    masks: dict[int, tuple[str, Dead]] = {}
    for space, mask in dead.items():
        action = structure.actions[f"{space}.permutation"]
        size = factors.size(action.leaf)
        rows = mask.reshape(*(factors.size(c) for c in action.copies), size)
        least = 0 if _beside(context, action.leaf) else 1
        width = max(least, size - int(rows.sum(axis=-1).min()))
        width = aligned(structure, action.leaf, width, align)
        if width < size:
            widths[action.leaf], masks[action.leaf] = width, (action.id, rows)
    kept = agreed(structure, widths)
    orders = {masks[leaf][0]: np.argsort(masks[leaf][1], axis=-1, kind="stable") for leaf in kept}
    return Removal(kept, orders)


def aligned(structure: Structure, leaf: int, width: int, align: int) -> int:
    """A width as the next multiple of `align`; heads and groups are counted, not aligned: what is in them is."""
    size = structure.axes.factors.size(leaf)
    if any(leaf in action.copies for action in structure.actions.values()):
        return width
    return min(size, -(-width // align) * align)


def _beside(context: Context, leaf: int) -> bool:
    """Whether the axes of all weights that hold a leaf hold others beside it."""
    structure = context.structure
    terms, of = structure.expansion.terms, structure.axes.of
    held = [
        terms(f) for name in structure.program.weights for f in of[name] if leaf in structure.axes.factors.leaves(f)
    ]
    return all(any(leaf not in term.leaves for term in row) for row in held)


def arrange(weights: Weights, removal: Removal) -> None:
    """Put the units that stay first; heads move after what is in them."""
    actions = [weights.structure.actions[name] for name in removal.orders]
    for action in sorted(actions, key=lambda a: -len(a.copies)):
        move(weights, action, removal.orders[action.id])
