"""What the user asks of the rules beyond which of them run: thresholds, purpose, what is declared; and levels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field
from enum import IntEnum
from math import inf
from typing import Literal, get_args

from symlint.model.records import dataclass

TARGETS = ("int8", "int4", "float16")
"""What a model may be meant for: static quantisation with one scale per tensor, weights of 4 bits in blocks of 32 that
share a scale, or half precision."""

Transform = Literal["flip", "turn", "shift", "permutation", "sign"]
TRANSFORMATIONS: tuple[Transform, ...] = get_args(Transform)
"""Of inputs, under which something may be declared of the outputs."""


@dataclass(frozen=True, slots=True)
class Surface:
    """A surface of reflection in parts: the units that change places or signs, or the file of directions."""

    word: Literal["swap", "sign", "file"]
    units: tuple[int, ...] = ()
    count: int = 0
    """How many units the space has, which tells spaces on one axis apart; 0 where it is not said."""
    path: str = ""


@dataclass(frozen=True, slots=True)
class Mirror:
    """A reflection of weights that the user declares: the tensors that it moves, and the directions it turns round.

    ``surface`` is ``swap I J``, ``sign I``, or the path of a ``.npy`` of shape (units, directions) or (weights,
    directions), the weights of all tensors one after another. Units are those of the space that the first axis of the
    first tensor holds, numbered as in findings; ``of N`` behind them chooses the space with N units where an axis holds
    several, such as ``swap 0 1 of 12`` for heads.
    """

    name: str
    tensors: tuple[str, ...]
    surface: str
    axes: tuple[int, ...] = ()
    """The axis of the units in each tensor. Where there are fewer axes than tensors: 0 in the first one, and every axis
    that holds the units in the others."""


@dataclass(frozen=True, slots=True)
class Equivariance:
    """What the user declares of outputs under a transformation of an input: a row of ``symlint equivariance``."""

    name: Transform
    input: str
    axis: int | None = None
    """From 0; None for all of them."""
    output: str = ""
    """Empty for all of them."""
    action: Literal["", "invariant", "equivariant"] = ""
    """Empty for either."""
    tolerance: float = 0.0
    """The error up to which it holds, as a share of the output's largest value; 0 for that of rounding."""

    def __str__(self) -> str:
        """``flip of image[3]``."""
        return f"{self.name} of {self.input}{'' if self.axis is None else f'[{self.axis}]'}"


@dataclass(frozen=True, slots=True)
class Tried:
    """What became of a declared equivariance at one output."""

    output: str
    axis: int | None
    outcome: Literal["held", "broken", "not tried"]
    action: str = ""
    error: float | None = None
    noise: float = 0.0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class InputRange:
    """What the user declares that all numbers of an input lie between, both ends included."""

    name: str
    low: float = -inf
    high: float = inf

    def __str__(self) -> str:
        """``image in [0, 1]``."""
        if self.high == inf:
            return f"{self.name} >= {self.low:g}"
        return f"{self.name} <= {self.high:g}" if self.low == -inf else f"{self.name} in [{self.low:g}, {self.high:g}]"


_WORDS = re.compile(r"(swap|sign)((?: +\d+)+)(?: +of +(\d+))?")


def surface(text: str) -> Surface:
    """The parts of a surface.

    Raises ValueError with what can be said instead.
    """
    if text.endswith(".npy"):
        return Surface("file", path=text)
    found = _WORDS.fullmatch(text.strip())
    units = tuple(map(int, found[2].split())) if found else ()
    even = found is not None and (found[1] == "sign" or len(units) % 2 == 0)
    if found is None or not even or len(set(units)) < len(units):
        forms = "'swap I J' with different units (or pairs of them), 'sign I' or a file 'directions.npy'"
        raise ValueError(f"expected the surface as {forms}, not {text!r}")
    return Surface("swap" if found[1] == "swap" else "sign", units, int(found[3] or 0))


@dataclass(frozen=True, slots=True)
class Asked:
    """The wishes of one run."""

    options: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Code of a rule -> its thresholds that differ from the defaults."""
    target: str = ""
    largest: float = 1e6
    """How large an input may be beside the others: what is below the noise even then counts as zero."""
    mirrors: tuple[Mirror, ...] = ()
    equivariances: tuple[Equivariance, ...] = ()
    inputs: tuple[InputRange, ...] = ()

    @property
    def faint(self) -> float:
        """What a unit may add beside others and still be nothing: a rounding of float32 for the largest input."""
        return 2.0**-24 / self.largest


class Level(IntEnum):
    """How serious a finding is; ordered, so that thresholds compare."""

    NOTE = 1
    WARNING = 2
    ERROR = 3

    def __str__(self) -> str:
        return self.name.lower()
