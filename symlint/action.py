"""How an element of a generator acts on one tensor: permute its units, or scale them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from symlint.graph import Array
from symlint.terms import Expansion, Term, meet

Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Stand:
    """One occurrence of a leaf in a tensor, ready for indexing.

    ``grid`` are the positions along ``axis``, one array axis per leaf of the term; ``place`` is the leaf's. ``copies``
    holds an index per copy factor that broadcasts against ``(other axes..., grid)``; -1 marks elements without one.
    """

    axis: int
    term: int
    place: int
    grid: Index
    others: tuple[int, ...]
    copies: tuple[Index, ...]

    @property
    def units(self) -> Index:
        """The unit of every grid position, broadcastable to the grid."""
        shape = [1] * self.grid.ndim
        shape[self.place] = self.grid.shape[self.place]
        return np.arange(self.grid.shape[self.place]).reshape(shape)


def stands(expansion: Expansion, axes: Sequence[int], leaf: int, copies: Sequence[int]) -> Iterator[Stand]:
    """Every occurrence of `leaf` in a tensor with these axes; `copies` are the factors its gauge depends on."""
    terms = [expansion.terms(f) for f in axes]
    for k, row in enumerate(terms):
        for t, term in enumerate(row):
            for place, mine in enumerate(term.leaves):
                if mine == leaf:
                    yield _stand(terms, k, t, place, copies)


def _stand(terms: Sequence[Sequence[Term]], k: int, t: int, place: int, copies: Sequence[int]) -> Stand:
    term = terms[k][t]
    outside: dict[int, tuple[int, Index]] = {}
    for c in copies:
        if c not in term.leaves:
            outside[c] = _elsewhere(terms, k, term, c)
    others = tuple(sorted({axis for axis, _ in outside.values()}))
    rank = len(others) + term.positions.ndim
    found: list[Index] = []
    for c in copies:
        shape = [1] * rank
        if c in outside:
            axis, values = outside[c]
            shape[others.index(axis)] = len(values)
        else:
            own = term.leaves.index(c)
            values = np.arange(term.positions.shape[own])
            shape[len(others) + own] = len(values)
        found.append(values.reshape(shape))
    return Stand(k, t, place, term.positions, others, tuple(found))


def _elsewhere(terms: Sequence[Sequence[Term]], k: int, term: Term, leaf: int) -> tuple[int, Index]:
    """The other axis that holds a copy factor, and its unit at each index there."""
    for axis, row in enumerate(terms):
        if axis == k:
            continue
        values = np.full(sum(t.positions.size for t in row if meet(t.condition, term.condition) is not None), -1)
        hit = False
        for t in row:
            if leaf in t.leaves and meet(t.condition, term.condition) is not None:
                place = t.leaves.index(leaf)
                shape = [1] * t.positions.ndim
                shape[place] = -1
                units = np.broadcast_to(np.arange(t.positions.shape[place]).reshape(shape), t.positions.shape)
                values[t.positions] = units
                hit = True
        if hit:
            return axis, values
    raise ValueError(f"factor {leaf} is no copy of this occurrence")


def permute(values: Array, found: Sequence[Stand], order: Index) -> Array:
    """Put unit ``order[copies..., u]`` where unit u was, at every occurrence.

    ``order`` has one axis per copy factor and the units last.
    """
    for stand in found:
        chosen = order[(*(np.maximum(c, 0) for c in stand.copies), stand.units)]
        for c in stand.copies:
            chosen = np.where(c < 0, stand.units, chosen)
        shape = np.broadcast_shapes(chosen.shape, (1,) * len(stand.others) + stand.grid.shape)
        grid = np.broadcast_to(stand.grid, shape)
        moved = np.take_along_axis(grid, np.broadcast_to(chosen, shape), axis=len(stand.others) + stand.place)
        source = _along(values, stand, moved, np.arange(values.shape[stand.axis]))
        values = np.take_along_axis(values, np.broadcast_to(source, values.shape), axis=stand.axis)
    return values


def scale(
    values: Array, found: Sequence[Stand], factor: Array, charge: Mapping[tuple[int, int, int], Fraction]
) -> Array:
    """Multiply by ``factor[copies..., u]`` to the power of the charge of each occurrence (axis, term, place)."""
    for stand in found:
        power = charge.get((stand.axis, stand.term, stand.place))
        if not power:
            continue
        chosen = factor[(*(np.maximum(c, 0) for c in stand.copies), stand.units)] ** float(power)
        for c in stand.copies:
            chosen = np.where(c < 0, 1.0, chosen)
        shape = np.broadcast_shapes(chosen.shape, (1,) * len(stand.others) + stand.grid.shape)
        values = values * _along(values, stand, np.broadcast_to(chosen, shape), np.ones(values.shape[stand.axis]))
    return values


def _along(values: Array, stand: Stand, grid_values: Any, neutral: Any) -> Any:
    """Grid values written along the tensor's axis, with the other axes in their places."""
    lead = grid_values.shape[: len(stand.others)]
    line = np.broadcast_to(neutral, (*lead, len(neutral))).copy()
    line[..., stand.grid.reshape(-1)] = grid_values.reshape(*lead, -1)
    shape = [1] * values.ndim
    for axis, size in zip(stand.others, lead, strict=True):
        shape[axis] = size
    shape[stand.axis] = len(neutral)
    order = sorted(range(len(stand.others) + 1), key=[*stand.others, stand.axis].__getitem__)
    return line.transpose(order).reshape(shape)
