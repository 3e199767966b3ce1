"""What holds of the units of one space."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from symlint.analysis.values.lattice import distinct
from symlint.axes.factor import Factors
from symlint.model.records import dataclass
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


class Sight:
    """What the tensors that hold the units of a space show of them, one tensor after the other.

    Args:
        count: how many units there are, over all copies.
        size: how many of them one copy has.
    """

    def __init__(self, count: int, size: int) -> None:
        self.count, self.size = count, size
        self.needed, self.still, self.steady = np.zeros(count, bool), np.ones(count, bool), np.zeros(count, bool)
        self.unmoved, self.varied = np.ones(count, bool), False
        """Which move in no tensor; whether units differ in one in which they move."""
        self.numbers = np.zeros(count)
        self.columns: list[NDArray[np.int64]] = []
        self.scales: list[NDArray[np.float64]] = []
        self.seen = self.apart = self.answers = False
        """Whether a tensor holds them at all; holds them all apart; depends on the input."""

    def distinct(self, mask: NDArray[np.bool_]) -> None:
        """Every element of a tensor differs from every other, and moves; `mask` says which an output needs."""
        self.needed |= mask.any(axis=1)
        self.still &= ~mask.any(axis=1)
        self.apart = True

    def told(
        self,
        labels: NDArray[np.int64],
        scale: NDArray[np.float64],
        fixed: NDArray[np.bool_],
        mask: NDArray[np.bool_],
    ) -> None:
        """The labels and scales of a tensor, a row a unit, and which of the elements never move."""
        self.needed |= mask.any(axis=1)
        constant = ((labels == 0) & mask).all(axis=1)
        self.numbers = np.where(constant, scale[:, 0], self.numbers)
        # What is the same for all units (an index repeated along them) is no state of one.
        repeated = self.count > 1 and bool((labels == labels[:1]).all() and (scale == scale[:1]).all())
        moves = (~fixed & mask).any(axis=1)
        self.unmoved &= ~moves
        self.varied |= not repeated and bool(moves.any())
        self.still &= ~moves | repeated
        self.steady |= constant
        self.columns.extend(labels.T)
        self.scales.extend(scale.T)

    def units(self, *, pooled: bool) -> Units:
        """All that was seen; units that are pooled are not told to be equal."""
        # Where units differ nowhere, what repeats along them may be all that they are.
        constant = self.needed & self.steady & (self.still if self.varied or self.apart else self.unmoved)
        if not self.answers:  # computed from the weights alone, like a learned query
            constant = np.zeros(self.count, bool)
        columns = [*self.columns, np.arange(self.count) // self.size]
        eligible = self.needed & ~constant & ~self.still
        groups = () if pooled or self.apart else same_units(columns, eligible)
        last = self.scales[-1] if self.scales else np.ones(self.count)
        multiples = {u: float(last[u] / last[g[0]]) for g in groups for u in g if last[g[0]]}
        found = {int(u): float(self.numbers[u]) for u in np.flatnonzero(constant)}
        return Units(~self.needed & self.seen, constant, found, groups, multiples)


def same_units(columns: list[NDArray[np.int64]], eligible: NDArray[np.bool_]) -> tuple[tuple[int, ...], ...]:
    """Eligible units with the same labels everywhere, in the same copy."""
    found = distinct(*columns)
    members: dict[int, list[int]] = {}
    for unit in np.flatnonzero(eligible):
        members.setdefault(int(found[unit]), []).append(int(unit))
    return tuple(tuple(group) for group in members.values() if len(group) > 1)
