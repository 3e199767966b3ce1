"""Pieces of axes, and what a transformation of the inputs does to each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from symlint.model.graph import Array
from symlint.runtime.equivariance.groups import Transformation

Role = Literal["stays", "alike", "moves", "first", "second"]
"""``alike``: nothing changes along it, so that it may be moved or not; ``first`` and ``second`` are turned together."""


class Piece(NamedTuple):
    """A factor of an axis."""

    size: int
    role: Role = "stays"
    pair: str = ""
    """Of two that are turned together: which two."""
    base: str = ""
    """Of a selection: the tensor of which it has places along this axis."""
    places: tuple[int, ...] = ()
    """Of a selection: those places, in order; a negative number stands for something that is put beside them."""
    of: int = 0
    """Of a selection: the size of the whole axis."""


Axis = tuple[Piece, ...]
Axes = tuple[Axis, ...]


def plain(size: int, role: Role = "stays") -> Axis:
    """An axis of one piece; none of size one."""
    return (Piece(size, role),) if size != 1 else ()


def still(axis: Axis) -> bool:
    """Whether nothing of an axis moves."""
    return all(piece.role in ("stays", "alike") for piece in axis)


def merged(pieces: Iterable[Piece]) -> Axis:
    """Pieces side by side, those that stay as one."""
    made: list[Piece] = []
    for piece in pieces:
        if made and piece.role == made[-1].role and piece.role in ("stays", "alike"):
            made[-1] = Piece(made[-1].size * piece.size, piece.role)
        elif piece.size != 1:
            made.append(piece)
    return tuple(made)


def split(axis: Axis, sizes: Sequence[int]) -> list[Axis] | None:
    """The parts of an axis that is so many sizes, one within another; None where something that moves would be cut."""
    parts: list[Axis] = []
    left = list(axis)
    for size in sizes:
        part: list[Piece] = []
        need = size
        while need > 1:
            if not left:
                return None
            piece = left.pop(0)
            if need % piece.size == 0:
                part.append(piece)
                need //= piece.size
            elif piece.size % need == 0 and piece.role in ("stays", "alike"):
                part.append(Piece(need, piece.role))
                left.insert(0, Piece(piece.size // need, piece.role))
                need = 1
            else:
                return None
        parts.append(merged(part))
    return None if left else parts


def joined(one: Axis, other: Axis) -> Axis | None:
    """What two tensors that meet along an axis have there; None where they do not move alike."""
    if one == other or all(piece.role == "alike" for piece in other):
        return one
    return other if all(piece.role == "alike" for piece in one) else None


def whole(axes: Iterable[Axis]) -> bool:
    """Whether of what is turned both axes are there, and once."""
    roles = [(p.pair, p.role) for axis in axes for p in axis if p.role in ("first", "second")]
    pairs = {pair for pair, _ in roles}
    return sorted(roles) == sorted((pair, role) for pair in pairs for role in ("first", "second"))


def fixed(values: Array, axes: Axes, sign: int, elements: Sequence[Transformation], slack: float) -> bool:
    """Whether transformations of the pieces leave an array as it is, up to a slack.

    Args:
        values: whose axes are those pieces, or have size one.
        axes: the pieces.
        sign: with which it is multiplied as well.
        elements: that generate all transformations.
        slack: absolute.
    """
    pieces = [p for axis, n in zip(axes, values.shape, strict=True) for p in (axis if n > 1 else ())]
    spread = values.reshape([p.size for p in pieces])
    if any(p.places for p in pieces):
        return False
    half = {p.pair for k, p in enumerate(pieces) if p.role in ("first", "second") and _partner(pieces, k) is None}
    for k, piece in enumerate(pieces):
        if piece.pair in half and piece.role in ("first", "second") and not _same(spread, spread.take([0], k), slack):
            return False
    return all(_same(spread, sign * _after(spread, pieces, element, half), slack) for element in elements)


def _partner(pieces: Sequence[Piece], k: int) -> int | None:
    """The place of the other axis of a turn."""
    found = [
        i for i, p in enumerate(pieces) if p.pair == pieces[k].pair and {p.role, pieces[k].role} == {"first", "second"}
    ]
    return found[0] if len(found) == 1 else None


def _after(values: Array, pieces: Sequence[Piece], element: Transformation, half: set[str]) -> Array:
    for k, piece in enumerate(pieces):
        if piece.role == "moves":
            order = element.along(piece.size)
            assert order is not None
            values = values.take(order, k)
        elif piece.role == "first" and piece.pair not in half:
            other = _partner(pieces, k)
            assert other is not None
            values = np.rot90(values, element.step, (k, other))
    return values


def _same(one: Array, other: Array, slack: float) -> bool:
    one, other = np.broadcast_arrays(one, other)
    with np.errstate(invalid="ignore"):
        return bool(((one == other) | (np.abs(one - other) <= slack)).all())
