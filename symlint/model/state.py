"""A state: an input and an output of a graph between which the caller closes a loop, without looking into it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from symlint.model.records import dataclass

Source = Literal["declared", "sidecar", "name", "structure"]
Start = Literal["zero", "given", "file"]
STARTS: tuple[Start, ...] = get_args(Start)


@dataclass(frozen=True, slots=True)
class State:
    """What leaves a network by an output and comes back by an input at its next step."""

    input: str
    output: str
    axes: tuple[int, ...]
    """Axes that have one size on both sides; the one that is left out grows with time."""
    source: Source
    """Where the pair was found."""
    start: Start = "zero"
    """What comes in at the first step: zeros, or nothing where an axis grows from nothing; else it is given."""
    seen: bool = False
    """Whether the caller reads the output as well."""

    @property
    def closed(self) -> bool:
        """Whether the loop starts by itself and nobody outside ever sees what is in it."""
        return self.start == "zero" and not self.seen


def grows(axes: Sequence[int], shape: Sequence[int]) -> bool:
    """Whether what is kept over these axes of a shape grows along another one."""
    return len(axes) < len(shape)


@dataclass(frozen=True, slots=True)
class Declaration:
    """A pair that a user has declared; without an input, an output that the caller reads as well."""

    input: str
    output: str
    start: Start = "zero"
