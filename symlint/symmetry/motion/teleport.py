"""Teleport: move the weights by random elements of the claimed groups; the function must stay the same."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from symlint.model.errors import UsageProblem, suggestion
from symlint.model.graph import Array
from symlint.model.records import dataclass
from symlint.model.saving import Lazy
from symlint.model.stored import CODES, numpy_type
from symlint.program.numbers import Unvalued
from symlint.symmetry.motion.motion import Weights, fresh_weights
from symlint.symmetry.spaces import KINDS
from symlint.symmetry.structure import Action, Structure

HALVES = ("float16", "bfloat16")


def select(structure: Structure, only: Collection[str] | None, kinds: Collection[str] | None) -> list[str]:
    """The generators that a user names, in order; a kind that the model lacks is no error.

    Those that an epsilon breaks have to be named.

    Raises UsageProblem for a generator that does not exist, and for a word that is no kind.
    """
    for kind in sorted(set(kinds or ()) - set(KINDS)):
        raise UsageProblem(f"no kind {kind!r}{suggestion(kind, KINDS)}; there are {', '.join(KINDS)}")
    named = structure.actions | (structure.approximate if only else {})
    unknown = set(only or ()) - set(named)
    if unknown:
        near = suggestion(min(unknown), named)
        raise UsageProblem(f"no generator {min(unknown)!r} in this model{near}; `symlint inspect -v` lists them")
    return [
        name for name, action in named.items() if (not only or name in only) and (not kinds or action.kind in kinds)
    ]


def teleport(
    structure: Structure, generators: Collection[str], seed: int, *, wrong: bool = False, lifted: bool = False
) -> Moved:
    """New values of every stored tensor that the generators move, in their stored dtype or with halves `lifted`.

    Elements are drawn from `seed` and applied one after another in float64, each computed from the weights that the
    last one left, and rounded once. Permutations have no fixed point. A `wrong` element moves the first tensor of each
    generator alone, which is no symmetry: it shows that a comparison of outputs has the power to refute.

    Raises Unvalued where an element follows from a constant that has no value; see `stuck`.
    """
    weights = fresh_weights(structure)
    for action, element in _steps(weights, generators, seed):
        action.move(weights, element, wrong=wrong)
    return Moved(weights, lifted=lifted)


def _steps(weights: Weights, generators: Collection[str], seed: int) -> Iterator[tuple[Action, Any]]:
    """Each action with its element, drawn once those before it have moved."""
    for name in generators:
        action = weights.structure.action(name)
        yield action, action.draw(weights.structure, weights.numbers, np.random.default_rng([seed, *name.encode()]))


@dataclass(frozen=True, slots=True)
class Journey:
    """The same move, with what it makes of states."""

    moved: Moved
    steps: tuple[tuple[Action, Any], ...]

    def carried(self, name: str, values: Array) -> Array:
        """The values of a state, a tensor of the program, after the move."""
        after = values.astype(np.float64)
        for action, element in self.steps:
            after = action.carried(self.moved.weights.structure, name, after, element)
        return after


def journey(structure: Structure, generators: Collection[str], seed: int) -> Journey:
    """What `teleport` does with halves lifted, step by step."""
    weights, taken = fresh_weights(structure), list[tuple[Action, Any]]()
    for action, element in _steps(weights, generators, seed):
        action.move(weights, element)
        taken.append((action, element))
    return Journey(Moved(weights, lifted=True), tuple(taken))


def stuck(structure: Structure, generators: Collection[str], seed: int) -> dict[str, str]:
    """Generators that cannot be moved, and why: their elements follow from a constant without a value."""
    found: dict[str, str] = {}
    for name in generators:
        try:
            teleport(structure, [name], seed)
        except Unvalued as error:
            found[name] = str(error)
    return found


class Moved(Lazy):
    """The values of the stored tensors that were moved, each rounded to the type of its file when it is asked for."""

    def __init__(self, weights: Weights, *, lifted: bool) -> None:
        self.weights, self.lifted = weights, lifted
        self.tensors = weights.structure.program.model.tensors

    def __getitem__(self, name: str) -> Array:
        values = np.broadcast_to(self.weights.now[name], self.tensors[name].shape)
        return values.astype(self.dtype(name), copy=False)

    def __iter__(self) -> Iterator[str]:
        return iter(self.weights.now)

    def __len__(self) -> int:
        return len(self.weights.now)

    def forget(self) -> None:
        """Let go of the weights."""
        self.weights.now = {}

    def dtype(self, name: str) -> np.dtype[Any]:
        """The type of the file, float32 for halves that are lifted."""
        tensor = self.tensors[name]
        word = "float32" if self.lifted and tensor.dtype in HALVES else tensor.dtype
        return numpy_type(CODES[word])
