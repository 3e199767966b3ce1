"""Motion: the weights of a network on their way.

What elements of groups are made of: random permutations and rotations, and matrices near the identity.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from symlint.model.clusters import median
from symlint.model.graph import Array
from symlint.program.numbers import Numbers
from symlint.symmetry.motion.action import Index

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


GRAINS = 512
"""Steps of a translation to its size."""
NARROW = 8.0
"""A rotation mixes only units whose gains are within this factor of the median, so that float32 can take it."""


def turned(form: tuple[int, ...], gains: Sequence[Array], rng: np.random.Generator, *, fixes_ones: bool) -> Array:
    """A random rotation, shape (*form, n), of the units whose gains are alike; it may fix the vector of ones."""
    n = form[-1]
    chosen = np.ones(n, bool)
    for gain in gains:
        size = np.abs(gain).reshape(-1)
        middle = median(size)
        chosen &= (size >= middle / NARROW) & (size <= middle * NARROW)
    places = np.flatnonzero(chosen)
    across = across_ones(len(places)) if fixes_ones else np.eye(len(places))
    inner, _ = np.linalg.qr(rng.standard_normal((*form[:-1], across.shape[1], across.shape[1])))
    kept = np.eye(len(places)) - across @ across.T
    made = np.broadcast_to(np.eye(n), (*form, n)).copy()
    made[..., places[:, None], places] = across @ inner @ across.T + kept
    return made


def across_ones(n: int) -> Array:
    """An orthonormal basis of the vectors that sum to zero, shape (n, n - 1)."""
    basis, _ = np.linalg.qr(np.column_stack([np.ones(n), np.eye(n)[:, : n - 1]]))
    return np.asarray(basis[:, 1:])


def on_a_grid(numbers: Array, size: float) -> Array:
    """Numbers of about a size that float32 adds and takes away without rounding: a norm of zeros sees no trace."""
    grid = 2.0 ** np.round(np.log2(size))
    return np.round(numbers * GRAINS) / GRAINS * grid


def derangements(rng: np.random.Generator, form: tuple[int, ...]) -> Index:
    """A permutation without fixed points of the last axis, for every index of the others: a random cycle."""
    rows = rng.permuted(np.broadcast_to(np.arange(form[-1]), form), axis=-1)
    order = np.empty(form, np.int64)
    np.put_along_axis(order, rows, np.roll(rows, -1, axis=-1), axis=-1)
    return order


def as_divisor(gain: Array) -> Array:
    """A gain as a divisor; a unit without one is never mixed with others."""
    flat = gain.reshape(-1)
    return np.where(flat == 0, 1.0, flat)


def along_matrices(form: tuple[int, ...], across: Array, step: float, *, skew: bool) -> Iterator[tuple[Array, Array]]:
    """Matrices a step ahead of the identity and behind, copy by copy, that act on the span of `across` (n, m)."""
    n = form[-1]
    still = np.broadcast_to(np.eye(n), (*form, n))
    for copy in np.ndindex(form[:-1]):
        for tangent in _tangents(across, skew=skew):
            turn = np.zeros_like(still)
            turn[copy] = tangent * step
            yield still + turn, still - turn


def _tangents(across: Array, *, skew: bool) -> Iterator[Array]:
    """A basis of the matrices near the identity, less the identity; of orthogonal ones where they are `skew`."""
    m = across.shape[1]
    for i in range(m):
        for j in range(i if skew else m):
            unit = np.zeros((m, m))
            unit[i, j] = 1.0
            if skew:
                unit[j, i] = -1.0
            yield across @ unit @ across.T
