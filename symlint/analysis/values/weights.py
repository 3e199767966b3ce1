"""Weights: known numbers that stay where they are stored until somebody reads them, and then are read in blocks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from symlint.model.clusters import ABSENT, BLOCK, Cut, Off, Strip, strips
from symlint.model.graph import Array, Shape, Tensor
from symlint.model.records import dataclass

Mask = NDArray[np.bool_]
Change = Callable[[Array], Array]
BYTES = 256
"""Levels of eight bits: what becomes of each of them is worked out rather than what becomes of each element."""


def slim(array: Array) -> Array:
    """An array with size 1 along the axes along which it is one number by the way it is stored."""
    if 0 not in array.strides:
        return array
    return array[
        tuple(slice(0, 1) if not s and n > 1 else slice(None) for s, n in zip(array.strides, array.shape, strict=True))
    ]


def absent(numbers: Array) -> Mask:
    """Which numbers are zero for every purpose."""
    return np.asarray(np.abs(numbers) < ABSENT)


class Blockwise(ABC):
    """Numbers that are worked out in blocks, each with its place."""

    @property
    @abstractmethod
    def full(self) -> bool:
        """Whether none of them counts as zero."""

    @property
    @abstractmethod
    def present(self) -> Mask:
        """Which of them do not count as zero."""

    @property
    def off(self) -> Off | None:
        """How far they may be off because they are differences of larger ones; None where they are not."""
        return None

    @abstractmethod
    def blocks(self) -> Iterator[tuple[Strip, Array]]:
        """The blocks, in float64."""

    @abstractmethod
    def at(self, place: Cut) -> Array:
        """What stands in some places, in float64."""


@dataclass(frozen=True, slots=True)
class Operand:
    """What levels are changed by, one by one: of their rank, and broadcast against them."""

    function: Any
    """Of two arrays and a number type, as numpy has them."""
    other: Array
    behind: bool
    """Whether it is the second argument."""


@dataclass(frozen=True, slots=True, eq=False)
class Levels(Blockwise):
    """Whole numbers and what a quantiser makes of each, read as float64; calling it reads the whole.

    They are cut, turned and compared with zero as the whole numbers that are stored.
    """

    read: Callable[[], Array]
    shape: Shape
    operands: tuple[Operand, ...] = ()

    def __call__(self) -> Array:
        """All numbers, made anew each time."""
        return self._made(self.read(), self.operands)

    def then(self, operand: Operand) -> Levels:
        """The same, and one more thing done with each number."""
        return Levels(self.read, self.shape, (*self.operands, operand))

    def view(self, shape: Shape, change: Change) -> Levels:
        """The same numbers cut or turned."""
        moved = (replace(o, other=change(np.broadcast_to(o.other, self.shape))) for o in self.operands)
        return Levels(lambda: change(self.read()), shape, tuple(moved))

    @property
    def full(self) -> bool:
        """Whether none of them counts as zero."""
        return bool(self.present.all())

    @property
    def present(self) -> Mask:
        """Which of them do not count as zero."""
        levels = self.read()
        nothing = self._nothing(levels)
        return ~absent(self._made(levels, self.operands)) if nothing is None else np.asarray(levels != nothing)

    def blocks(self) -> Iterator[tuple[Strip, Array]]:
        """The blocks of a table, in float64."""
        levels = self.read()
        for place, room in strips(levels):
            yield place, self._part(levels, place, room)

    def at(self, place: Cut) -> Array:
        """What stands in some places, in float64."""
        return self._part(self.read(), place)

    def _part(self, levels: Array, place: Cut, room: Array | None = None) -> Array:
        here = [replace(o, other=np.broadcast_to(o.other, self.shape)[place]) for o in self.operands]
        return self._made(levels[place], here, room)

    def _nothing(self, levels: Array) -> Array | None:
        """The one level that becomes zero, wherever the operands differ; None where no level is known to be alone."""
        if levels.dtype.kind not in "iu" or levels.dtype.itemsize > 1:
            return None
        operands = [replace(o, other=slim(o.other)) for o in self.operands]
        if sum(o.other.size for o in operands) * BYTES > 16 * BLOCK:
            return None
        low = np.iinfo(levels.dtype).min
        every = np.arange(low, low + BYTES).astype(levels.dtype).reshape(-1, *(1,) * levels.ndim)
        zero = absent(self._made(every, operands))
        one = np.asarray((zero.argmax(axis=0) + low).astype(levels.dtype))
        return one if (zero.sum(axis=0) == 1).all() else None

    @staticmethod
    def _made(levels: Array, operands: Sequence[Operand], room: Array | None = None) -> Array:
        """What becomes of some levels, in the room that there is for it."""
        made = levels if operands else levels.astype(np.float64)
        for o in operands:
            pair = (made, o.other) if o.behind else (o.other, made)
            made = room = o.function(*pair, out=room, dtype=np.float64)
        return made


@dataclass(frozen=True, eq=False)
class Drawn:
    """Random numbers in the place of those of a tensor, drawn when somebody reads them."""

    tensor: Tensor

    def __call__(self) -> Array:
        """The numbers."""
        return self._numbers

    @cached_property
    def _numbers(self) -> Array:
        rng = np.random.default_rng([20231129, *self.tensor.name.encode()])
        return rng.uniform(0.5, 1.5, self.tensor.shape).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Weight:
    """Known numbers that stay where they are stored until somebody reads them."""

    shape: Shape
    dtype: str
    read: Callable[[], Array]
    key: tuple[Hashable, ...]
    """What tells such numbers apart: the stored tensor, and how it was cut and turned since."""
    levels: bool = False
    """Whether they are whole numbers, or what a quantiser makes of such: then they are finite."""
    off: Off | None = None
    """How far they may be off because they are differences of larger ones; None where they are not."""
    random: bool = False
    """Whether they were drawn one by one, so that no line of some length is nothing or a multiple of another."""

    def view(self, shape: Shape, change: Hashable, made: Change) -> Weight:
        """The same numbers cut or turned; `change` tells this apart from other ways."""
        read: object = self.read
        turned = read.view(shape, made) if isinstance(read, Levels) else lambda: made(self.read())
        off = None if self.off is None else self.off.then(made)
        return replace(self, shape=shape, read=turned, key=(*self.key, change), off=off)
