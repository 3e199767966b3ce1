"""What holds of the units of one space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from symlint.analysis.values.lattice import distinct
from symlint.axes.factor import Factors
from symlint.symmetry.structure import Action


@dataclass(frozen=True, slots=True)
class Units:
    """What holds of the units of one space, by position (copy-major where a space has copies)."""

    dead: NDArray[np.bool_]
    """The unit contributes to no output."""
    constant: NDArray[np.bool_]
    """The unit contributes, but its value is one number whatever the input."""
    constants: Mapping[int, float]
    """That number, as the unit's readers see it first."""
    groups: tuple[tuple[int, ...], ...]
    """Units that are positive multiples of each other wherever they are read."""
    factors: Mapping[int, float]
    """Unit of a group -> its multiple of the group's first unit."""


def spread(found: Units, plain: Action, action: Action, factors: Factors) -> Units:
    """What holds of the units of `plain` in all copies of `action` alike, told for each of them."""
    if plain.copies == action.copies:
        return found
    shape = (*(factors.size(c) for c in action.copies), factors.size(action.leaf))
    flat = [factors.size(c) if c in plain.copies else 1 for c in action.copies]
    units = np.broadcast_to(np.arange(found.dead.size).reshape(*flat, shape[-1]), shape).reshape(-1)
    into = [np.flatnonzero(units == u).tolist() for u in range(found.dead.size)]
    return Units(
        found.dead[units],
        found.constant[units],
        {v: value for u, value in found.constants.items() for v in into[u]},
        tuple(copy for group in found.groups for copy in zip(*(into[u] for u in group), strict=True)),
        {v: factor for u, factor in found.factors.items() for v in into[u]},
    )


def same_units(columns: list[NDArray[np.int64]], eligible: NDArray[np.bool_]) -> tuple[tuple[int, ...], ...]:
    """Eligible units with the same labels everywhere, in the same copy."""
    found = distinct(*columns)
    members: dict[int, list[int]] = {}
    for unit in np.flatnonzero(eligible):
        members.setdefault(int(found[unit]), []).append(int(unit))
    return tuple(tuple(group) for group in members.values() if len(group) > 1)
