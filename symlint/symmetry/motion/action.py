"""How an element of a generator acts on one tensor: permute its units, or scale them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from symlint.model.graph import Array, Shape
from symlint.model.records import dataclass
from symlint.symmetry.axes.terms import Expansion, Term, together

Index = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Stand:
    """One occurrence of a leaf in a tensor, ready for indexing.

    ``grid`` are the positions along ``axis``, one array axis per leaf of the term; ``place`` is the leaf's. ``copies``
    holds an index per copy factor that broadcasts against ``(other axes..., grid)``, and ``here`` says for which
    elements the occurrence is there at all.
    """

    axis: int
    term: int
    place: int
    grid: Index
    others: tuple[int, ...]
    copies: tuple[Index, ...]
    here: NDArray[np.bool_]

    @property
    def units(self) -> Index:
        """The unit of every grid position, broadcastable to the grid."""
        shape = [1] * self.grid.ndim
        shape[self.place] = self.grid.shape[self.place]
        return np.arange(self.grid.shape[self.place]).reshape(shape)

    def owners(self, sizes: Sequence[int], lead: tuple[int, ...]) -> Index:
        """The copy of each grid line, copy-major, -1 where the occurrence is not there: (others..., rest of the grid).

        Args:
            sizes: of the copy factors, in the order of `copies`.
            lead: the sizes of the other axes.
        """
        index = np.zeros((1,) * self.here.ndim, np.int64)
        for copy, size in zip(self.copies, sizes, strict=True):
            index = index * size + copy
        grid = tuple(1 if k == self.place else n for k, n in enumerate(self.grid.shape))
        found = np.broadcast_to(np.where(self.here, index, -1), (*lead, *grid))
        return found.reshape((*lead, *(n for k, n in enumerate(grid) if k != self.place)))

    def along(self, shape: Shape, grid_values: Any, neutral: Any) -> Any:
        """Values on ``(others..., grid)`` written along the tensor's axis, with the other axes in their places."""
        lead = grid_values.shape[: len(self.others)]
        line = np.broadcast_to(neutral, (*lead, len(neutral))).copy()
        line[..., self.grid.reshape(-1)] = grid_values.reshape(*lead, -1)
        written = [1] * len(shape)
        for axis, size in zip(self.others, lead, strict=True):
            written[axis] = size
        written[self.axis] = len(neutral)
        order = sorted(range(len(self.others) + 1), key=[*self.others, self.axis].__getitem__)
        return line.transpose(order).reshape(written)


def stands(expansion: Expansion, axes: Sequence[int], leaf: int, copies: Sequence[int]) -> Iterator[Stand]:
    """Every occurrence of `leaf` in a tensor with these axes; `copies` are the factors its gauge depends on.

    Where these do not stand beside it, as in another layer that only shares a table, it is not what the gauge is of.
    """
    terms = [expansion.terms(f) for f in axes]
    for k, row in enumerate(terms):
        for t, term in enumerate(row):
            for place, mine in enumerate(term.leaves):
                found = _stand(terms, k, t, place, copies) if mine == leaf else None
                if found is not None:
                    yield found


def _stand(terms: Sequence[Sequence[Term]], k: int, t: int, place: int, copies: Sequence[int]) -> Stand | None:
    term = terms[k][t]
    outside: dict[int, tuple[int, Index]] = {}
    for c in copies:
        if c not in term.leaves:
            beside = _elsewhere(terms, k, term, c)
            if beside is None:
                return None
            outside[c] = beside
    masks = {
        axis: mask
        for axis, row in enumerate(terms)
        if axis != k and not _everywhere(row) and not (mask := _compatible(row, term)).all()
    }
    others = tuple(sorted({*masks, *(axis for axis, _ in outside.values())}))
    rank = len(others) + term.positions.ndim

    def along(place: int, values: Any) -> Any:
        return values.reshape([-1 if d == place else 1 for d in range(rank)])

    found: list[Index] = []
    for c in copies:
        if c in outside:
            axis, values = outside[c]
            found.append(along(others.index(axis), values))
        else:
            own = term.leaves.index(c)
            found.append(along(len(others) + own, np.arange(term.positions.shape[own])))
    here = np.ones((1,) * rank, bool)
    for axis, mask in masks.items():
        here = here & along(others.index(axis), mask)
    return Stand(k, t, place, term.positions, others, tuple(found), here)


def _everywhere(row: Sequence[Term]) -> bool:
    """Whether an axis is one term that asks for nothing, from its first index to its last."""
    return len(row) == 1 and not row[0].condition and row[0].positions.size == _length(row)


def _compatible(row: Sequence[Term], term: Term) -> NDArray[np.bool_]:
    """The indices of an axis for which a term of another axis is there."""
    values = np.zeros(_length(row), bool)
    for t in row:
        if together(t, term) is not None:
            values[t.positions] = True
    return values


def _length(row: Sequence[Term]) -> int:
    return max(int(t.positions.max()) for t in row) + 1


def _elsewhere(terms: Sequence[Sequence[Term]], k: int, term: Term, leaf: int) -> tuple[int, Index] | None:
    """The other axis that holds a copy factor, and its unit at each index there; None where none does."""
    for axis, row in enumerate(terms):
        met = [t for t in row if leaf in t.leaves and together(t, term) is not None]
        if axis == k or not met:
            continue
        values = np.zeros(_length(row), np.int64)
        for t in met:
            place = t.leaves.index(leaf)
            units = np.arange(t.positions.shape[place]).reshape(
                [-1 if d == place else 1 for d in range(t.positions.ndim)]
            )
            values[t.positions] = np.broadcast_to(units, t.positions.shape)
        return axis, values
    return None


def permute(values: Array, found: Sequence[Stand], order: Index) -> Array:
    """Put unit ``order[copies..., u]`` where unit u was, at every occurrence.

    ``order`` has one axis per copy factor and the units last.
    """
    for stand in found:
        chosen = np.where(stand.here, order[(*stand.copies, stand.units)], stand.units)
        shape = np.broadcast_shapes(chosen.shape, (1,) * len(stand.others) + stand.grid.shape)
        grid = np.broadcast_to(stand.grid, shape)
        moved = np.take_along_axis(grid, np.broadcast_to(chosen, shape), axis=len(stand.others) + stand.place)
        source = stand.along(values.shape, moved, np.arange(values.shape[stand.axis]))
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
        chosen = np.where(stand.here, factor[(*stand.copies, stand.units)] ** float(power), 1.0)
        shape = np.broadcast_shapes(chosen.shape, (1,) * len(stand.others) + stand.grid.shape)
        values = values * stand.along(values.shape, np.broadcast_to(chosen, shape), np.ones(values.shape[stand.axis]))
    return values


def transform(
    values: Array, found: Sequence[Stand], matrix: Array, charge: Mapping[tuple[int, int, int], Fraction]
) -> Array:
    """Apply ``matrix[copies..., n, n]`` where the charge is 1, and its inverse transpose where it is -1.

    The units of one grid line become the combinations that the rows of the matrix say.
    """
    dual = np.linalg.inv(matrix).swapaxes(-1, -2) if any(c < 0 for c in charge.values()) else matrix
    for stand in found:
        power = charge.get((stand.axis, stand.term, stand.place))
        if not power:
            continue
        chosen = matrix if power > 0 else dual
        if stand.copies:
            chosen = chosen[tuple(np.squeeze(c, axis=-1) for c in _pushed(stand))]
        else:
            chosen = chosen.reshape((1,) * (len(stand.others) + stand.grid.ndim - 1) + chosen.shape)
        outer = (*stand.others, *(k for k in range(values.ndim) if k not in (*stand.others, stand.axis)))
        lines = values.transpose(*outer, stand.axis)
        block = lines[..., stand.grid]
        lead = len(stand.others)
        rest = values.ndim - 1 - lead
        block = np.moveaxis(block, -stand.grid.ndim + stand.place, -1)
        shape = (*chosen.shape[:lead], *[1] * rest, *chosen.shape[lead:])
        if stand.copies:
            turned = np.einsum("...ij,...j->...i", chosen.reshape(shape), block)
        else:  # one matrix for all lines, which a product of two matrices moves at once
            turned = (block.reshape(-1, block.shape[-1]) @ chosen.reshape(chosen.shape[-2:]).T).reshape(block.shape)
        here = np.squeeze(_moved(stand, stand.here), axis=-1)
        if not here.all():
            turned = np.where(here.reshape(*here.shape[:lead], *[1] * rest, *here.shape[lead:], 1), turned, block)
        made = lines.astype(turned.dtype)
        made[..., stand.grid] = np.moveaxis(turned, -1, -stand.grid.ndim + stand.place)
        values = made.transpose(np.argsort([*outer, stand.axis]))
    return values


def turn(values: Array, found: Sequence[Stand], angle: Array) -> Array:
    """Turn the pairs of elements that consecutive occurrences hold by ``angle[copies..., u]``."""
    for first, second in zip(found[::2], found[1::2], strict=True):
        length = values.shape[first.axis]
        partner = np.arange(length)
        partner[first.grid], partner[second.grid] = second.grid, first.grid
        cosine: Any = 1.0
        sine: Any = 0.0
        for stand, sign in ((first, -1.0), (second, 1.0)):
            chosen = np.where(stand.here, angle[(*stand.copies, stand.units)], 0.0)
            shape = np.broadcast_shapes(chosen.shape, (1,) * len(stand.others) + stand.grid.shape)
            chosen = np.broadcast_to(chosen, shape)
            cosine = cosine * stand.along(values.shape, np.cos(chosen), np.ones(length))
            sine = sine + stand.along(values.shape, sign * np.sin(chosen), np.zeros(length))
        values = cosine * values + sine * values.take(partner, axis=first.axis)
    return values


def _pushed(stand: Stand) -> list[Index]:
    """The indices of the copies with the units' own axis last."""
    shape = np.broadcast_shapes(*(c.shape for c in stand.copies), (1,) * stand.here.ndim)
    return [np.broadcast_to(_moved(stand, c), _moved(stand, np.empty(shape)).shape) for c in stand.copies] or []


def _moved(stand: Stand, values: Array) -> Array:
    return np.moveaxis(values, len(stand.others) + stand.place, -1)
