"""Weights and the blocks of which they are made: a block holds one leaf per dimension."""

from __future__ import annotations

from functools import cached_property
from math import prod
from typing import NamedTuple

import numpy as np

from symlint.model.clusters import precision
from symlint.model.graph import Array, Shape
from symlint.model.records import dataclass


class Dim(NamedTuple):
    """One leaf of a block: what its units do, where it stands, and how many they are."""

    use: str
    axis: int
    place: int
    leaf: int
    size: int
    term: int = 0
    """Which summand of the axis it is."""


@dataclass(frozen=True, eq=False)
class Block:
    """A part of a weight that holds one leaf per dimension; `dims` are sorted, those of size 1 left out."""

    weight: int
    dims: tuple[Dim, ...]
    positions: tuple[Array, ...]
    """Per axis of the weight, the indices of the block."""

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(d.size for d in self.dims)

    def cut(self, values: Array) -> Array:
        """The block's elements with an axis per dimension, in their order."""
        found = values[np.ix_(*self.positions)] if self.positions else values
        return found.reshape([d.size for d in self._stored]).transpose(self._order)

    def lies_as(self, other: Block) -> bool:
        """Whether it is at the same places as a block of another weight, unit by unit."""
        return self._order == other._order and all(
            np.array_equal(p, q) for p, q in zip(self.positions, other.positions, strict=False)
        )

    def place(self, values: Array, block: Array) -> None:
        """Write a block's elements, with an axis per dimension, where they belong."""
        flat = block.transpose(np.argsort(self._order)).reshape([len(p) for p in self.positions])
        values[np.ix_(*self.positions)] = flat

    @cached_property
    def _stored(self) -> list[Dim]:
        return sorted(self.dims, key=lambda d: (d.axis, d.place))

    @property
    def _order(self) -> list[int]:
        return [self._stored.index(d) for d in self.dims]


@dataclass(frozen=True, eq=False)
class Weight:
    """A stored tensor at one of its uses; a quantised one is what it stands for."""

    name: str
    tensor: str
    """Tensor of the program whose values are meant."""
    dtype: str
    shape: Shape
    kind: str
    order: int
    blocks: tuple[Block, ...]
    step: Array | None = None
    """Of a quantised weight, how far apart its numbers are; 1 where a scale comes only later."""
    scaled: bool = True
    """False where the numbers are those of a grid whose scale is applied to what is computed with them."""

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def unit(self) -> float:
        """Half a unit in the last place, relative."""
        return precision(self.dtype)
