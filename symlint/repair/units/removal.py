"""Removal: units that contribute nothing are put last, copy by copy, and cut off."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field

import numpy as np
from numpy.typing import NDArray

from symlint.evidence.context import Context
from symlint.model.records import dataclass
from symlint.repair.surgery.narrowing import agreed
from symlint.symmetry.motion.motion import Weights
from symlint.symmetry.structure import Action, Structure

Dead = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Removal:
    """How many units of each leaf are left, and the order that puts those first."""

    widths: Mapping[int, int]
    orders: Mapping[str, NDArray[np.int64]]
    """Permutation -> its element (copies..., units)."""
    refused: Mapping[int, str] = field(default_factory=dict)
    """Why leaves keep their width that could do with less."""


def plan(context: Context, dead: Mapping[str, Dead], align: int = 1) -> Removal:
    """What can go of the units that are dead, by space and copy-major.

    Units that lie in the same tensors as others of one size go together with them or stay.
    """
    structure = context.structure
    kept = agreed(structure, wanted(context, dead, align))
    orders = {}
    for action, rows in _rows(context, dead):
        if action.leaf in kept:
            orders[action.id] = np.argsort(rows, axis=-1, kind="stable")
    return Removal(kept, orders)


def wanted(context: Context, dead: Mapping[str, Dead], align: int = 1) -> dict[int, int]:
    """The widths that spaces could do with, each for itself.

    Every copy of a space loses as many units as the copy with the fewest dead ones. Where all are dead one stays,
    unless every tensor holds other units beside them. Widths that fall are multiples of `align`.
    """
    structure = context.structure
    found: dict[int, int] = {}
    for action, rows in _rows(context, dead):
        size = structure.axes.factors.size(action.leaf)
        least = 0 if _beside(context, action.leaf) else 1
        width = max(least, size - int(rows.sum(axis=-1).min()))
        width = aligned(structure, action.leaf, width, align)
        if width < size:
            found[action.leaf] = width
    return found


def _rows(context: Context, dead: Mapping[str, Dead]) -> Iterator[tuple[Action, Dead]]:
    """The permutations of spaces, and which of their units are dead, shape (copies..., units)."""
    size = context.structure.axes.factors.size
    for space, mask in dead.items():
        action = context.structure.permutation(space)
        yield action, mask.reshape(*map(size, action.copies), size(action.leaf))


def aligned(structure: Structure, leaf: int, width: int, align: int) -> int:
    """A width as the next multiple of `align`; heads and groups are counted, not aligned: what is in them is."""
    size = structure.axes.factors.size(leaf)
    if leaf in structure.nested:
        return width
    return min(size, -(-width // align) * align)


def _beside(context: Context, leaf: int) -> bool:
    """Whether the axes of all weights that hold a leaf hold others beside it."""
    structure = context.structure
    terms, of, factors = structure.expansion.terms, structure.axes.of, structure.axes.factors
    holders = factors.holders.get(leaf, set()) & structure.program.weights.keys()
    held = [terms(f) for name in holders for f in of[name] if leaf in factors.leaves(f)]
    return all(any(leaf not in term.leaves for term in row) for row in held)


def arrange(weights: Weights, removal: Removal) -> None:
    """Put the units that stay first; heads move after what is in them."""
    actions = [weights.structure.actions[name] for name in removal.orders]
    for action in sorted(actions, key=lambda a: -len(a.copies)):
        action.move(weights, removal.orders[action.id])
