"""Elementwise functions: what analyses know of each, in one record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from math import inf
from typing import Any

from symlint.model.graph import Array
from symlint.model.records import dataclass

Attributes = Mapping[str, Any]


class Parity(Enum):
    """What a function does to a sign."""

    ODD = "odd"
    EVEN = "even"
    NEITHER = "neither"


@dataclass(frozen=True, slots=True)
class Rising:
    """A function that never falls, with the least and the largest value."""

    of: Callable[[Array, Attributes], Array]
    least: float = -inf
    largest: float = inf


@dataclass(frozen=True, slots=True)
class Dipping:
    """A function that falls to one lowest point and then rises: place and value of that point."""

    of: Callable[[Array], Array]
    place: float
    least: float
    slack: float = 0.0
    """How far versions of the function that go by one name are apart."""


@dataclass(frozen=True, slots=True)
class Within:
    """A function of which only the least and the largest value are told."""

    least: float
    largest: float


Course = Rising | Dipping | Within


@dataclass(frozen=True, slots=True)
class Function:
    """What holds of an elementwise function, whatever it gets."""

    parity: Parity = Parity.NEITHER
    course: Course | None = None
    """None where it is told otherwise, or not at all."""
    sums: bool = False
    """Whether it adds its operands, each perhaps with another sign or divided by their number."""
    passes: bool = False
    """Whether it is its operand, perhaps with another sign."""
    undone: Callable[[Array], Array] | None = None
    """Of a function onto all positive numbers: what makes of its value that of which it is the value."""
    negates: bool = False
    """Whether it turns the sign of what it passes on, or of what it adds to its first operand."""
    averages: bool = False
    """Whether it divides what it adds by the number of its operands."""
    factor: int = 0
    """In which power it multiplies its first operand by the others: 1 or -1; 0 where it does not."""
    power: bool = False
    """Whether it raises its first operand to the power of the second."""
    quantises: bool = False
    """Whether it is the level of a grid that is the nearest to its first operand."""
    largest: bool = False
    """Whether it is the largest or the smallest of its operands."""
    chooses: bool = False
    """Whether its first operand chooses between the others."""
    shares: bool = False
    """Of numbers along axes: whether what it makes of them is positive and sums to one."""
    logarithmic: bool = False
    """Whether it is the logarithm of what it is said to be."""
    picks: bool = False
    """Of numbers along axes: whether it is one where the largest or the smallest stands, and zero elsewhere."""
    relative: bool = False
    """Of numbers along axes: whether it sees only how they differ, and not how large they are."""
    length: bool = False
    """Of numbers along axes: whether it is a norm of them, or its square."""
    turns: bool = False
    """Of numbers along axes: whether it is a length, or its square, that rotations of them keep."""
    extreme: Callable[..., Array] | None = None
    """Of numbers along axes: what it is, where that is always one of them."""

    def sign(self, k: int) -> int:
        """The sign that operand `k` of a sum has, or what is passed on."""
        return -1 if self.negates and (k or self.passes) else 1

    @property
    def copies(self) -> bool:
        """Whether it hands a change of one operand on as it is."""
        return (self.sums or self.passes) and not self.negates and not self.averages


_PLAIN = Function()
_FUNCTIONS: dict[str, Function] = {}


def enter(names: tuple[str, ...], function: Function) -> None:
    """Enter what is known of the functions called `names`."""
    _FUNCTIONS.update(dict.fromkeys(names, function))


def standard(name: str) -> str:
    """ONNX's name for a function that onnxruntime has in its own domain too; one of another domain is another one."""
    return name.removeprefix("com.microsoft.")


def function(name: str) -> Function:
    """What is known of the function of a `Pointwise`."""
    return _FUNCTIONS.get(name, _PLAIN)
