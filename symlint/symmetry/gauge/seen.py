"""Weights seen from another gauge, and the spaces that share weights."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from symlint.model.graph import Array
from symlint.model.records import dataclass
from symlint.symmetry.gauge.convex import Hold
from symlint.symmetry.gauge.scales import Scales
from symlint.symmetry.kinds.components import components


@dataclass(frozen=True, slots=True)
class Seen:
    """A weight as it is rounded: sizes of its elements, and where scales meet them."""

    sizes: Array
    holds: tuple[Hold, ...]

    def grown(self, logs: Array) -> Array:
        """How much scales of these logarithms, shape (count,), enlarge each element."""
        padded, total = np.append(logs, 0.0), np.zeros((1,) * self.sizes.ndim)
        for h in self.holds:
            total = total + h.power * padded[h.scales]
        return np.asarray(np.exp(total))

    def live(self, dead: NDArray[np.bool_]) -> Array:
        """Sizes, and zero where a dead scale meets them."""
        marked, met = np.append(dead, False), np.zeros((1,) * self.sizes.ndim, bool)
        for h in self.holds:
            met = met | marked[h.scales]
        return np.where(met, 0.0, self.sizes)


def chains(scales: Scales) -> Iterator[list[int]]:
    """The positions of actions that share weights, chain by chain."""
    count = len(scales.actions)
    neighbours: dict[int | str, list[int | str]] = {k: [] for k in range(count)}
    for k in range(count):
        for name in bearers(scales, k):
            neighbours[k].append(name)
            neighbours.setdefault(name, []).append(k)
    for part in components(neighbours):
        yield sorted(k for k in part if isinstance(k, int))


def bearers(scales: Scales, k: int) -> set[str]:
    """The weights, without biases, that an action moves, by its position."""
    return {o.tensor for o in scales.actions[k].charge} & set(scales.tensors())
