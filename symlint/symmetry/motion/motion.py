"""Motion: the weights of a network on their way."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from symlint.model.graph import Array
from symlint.program.numbers import Numbers

if TYPE_CHECKING:
    from symlint.symmetry.structure import Structure


class Weights:
    """The weights of a network on their way; ``start`` gives a stored tensor as it was.

    What was moved is kept, in float64 once a number of it has changed: permuted weights stay in their own type.
    """

    def __init__(self, structure: Structure, start: Callable[[str], Array]) -> None:
        self.structure, self.start = structure, start
        self.now: dict[str, Array] = {}

    def get(self, name: str) -> Array:
        """The present value of a weight of the program, in float64 unless its numbers are integers."""
        values = self.narrow(name)
        return values.astype(np.float64, copy=False) if _floating(self.structure, self.stored(name)) else values

    def narrow(self, name: str) -> Array:
        """The same in the narrowest type that holds it, read-only."""
        stored = self.stored(name)
        return self.now[stored] if stored in self.now else self.start(stored)

    def made(self, name: str) -> Array:
        """The present value of what weights make that can be scaled as a weight is."""
        program = self.structure.program
        found = program.lengths.get(name)
        return found.made(*map(self.get, program.composed[name])) if found else self.numbers.value(name)

    def stored(self, name: str) -> str:
        """The stored tensor that is a weight of the program."""
        return self.structure.program.weights[name]

    def put(self, name: str, values: Array) -> None:
        """Replace a weight of the program."""
        self.now[self.structure.program.weights[name]] = values

    @property
    def numbers(self) -> Numbers:
        """The constant tensors that the present weights make."""
        return Numbers(self.structure.program, self.get)


def fresh_weights(structure: Structure) -> Weights:
    """The weights of a network as it has them: as its file stores them, or settled."""
    return Weights(structure, lambda name: structure.program.model.tensors[name].read())


def _floating(structure: Structure, stored: str) -> bool:
    return structure.program.model.tensors[stored].floating
