"""Groups of scales that move together: a small model of what conjugate gradients are slow to find.

Along a chain of layers what one end lacks is known to the other only after as many steps as there are layers between
them. A second derivative between whole groups of scales, one for each space, is as sparse as the network, and solved
by elimination at once; what is left within a space settles in a few steps.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from heapq import heapify, heappop, heappush

import numpy as np

from symlint.model.graph import Array

NOTHING = 1e-12
"""A pivot below this, relative to what it was before elimination, is no direction: nothing is known of it."""


class Coarse:
    """A symmetric matrix between groups, factorised as it is eliminated: the group with the fewest neighbours first."""

    def __init__(self, entries: Iterable[tuple[int, int, float]], count: int) -> None:
        """Of the sums of all entries of a place; every entry off the diagonal is given on both sides."""
        self.count = count
        rows: list[dict[int, float]] = [defaultdict(float) for _ in range(count)]
        for i, j, value in entries:
            rows[i][j] += value
        whole = [row.get(k, 0.0) for k, row in enumerate(rows)]
        self._steps: list[tuple[int, float, list[tuple[int, float]]]] = []
        waiting = [(len(row), k) for k, row in enumerate(rows)]
        heapify(waiting)
        done = [False] * count
        while waiting:
            size, k = heappop(waiting)
            if done[k]:
                continue
            if size != len(rows[k]):
                heappush(waiting, (len(rows[k]), k))
                continue
            done[k] = True
            row = rows[k]
            pivot = row.pop(k, 0.0)
            for j in row:
                del rows[j][k]
            if not pivot > NOTHING * whole[k]:
                continue
            self._steps.append((k, pivot, [(j, value / pivot) for j, value in row.items()]))
            for i, value in row.items():
                mine = rows[i]
                for j, other in row.items():
                    mine[j] -= value * other / pivot

    def solve(self, right: Array) -> Array:
        """The solution for a right side, shape (count,); zero where nothing is known."""
        left, found = right.tolist(), [0.0] * self.count
        for k, _, row in self._steps:
            for j, share in row:
                left[j] -= share * left[k]
        for k, pivot, row in reversed(self._steps):
            found[k] = left[k] / pivot - sum(share * found[j] for j, share in row)
        return np.array(found)
