"""Teleport: move the weights by random elements of the claimed groups; the function must stay the same."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from symlint.elements import draw
from symlint.errors import UsageProblem
from symlint.graph import Array
from symlint.motion import Weights, move
from symlint.structure import Structure

HALVES = ("float16", "bfloat16")


def select(structure: Structure, only: Collection[str] | None, kinds: Collection[str] | None) -> list[str]:
    """The generators that a user names, in order; a kind that the model lacks is no error.

    Those that an epsilon breaks have to be named.

    Raises UsageProblem for a generator that does not exist.
    """
    named = structure.actions | (structure.approximate if only else {})
    unknown = set(only or ()) - set(named)
    if unknown:
        raise UsageProblem(f"no generator {min(unknown)!r} in this model: see symlint inspect")
    return [
        name for name, action in named.items() if (not only or name in only) and (not kinds or action.kind in kinds)
    ]


def teleport(
    structure: Structure, generators: Collection[str], seed: int, *, wrong: bool = False, lifted: bool = False
) -> dict[str, Array]:
    """New values of every stored tensor that the generators move, in their stored dtype or with halves `lifted`.

    Elements are drawn from `seed` and applied one after another in float64, each computed from the weights that the
    last one left, and rounded once. Permutations have no fixed point. A `wrong` element moves the first tensor of each
    generator alone, which is no symmetry: it shows that a comparison of outputs has the power to refute.
    """
    tensors = structure.program.model.tensors
    weights = Weights(structure, lambda stored: tensors[stored].read())
    for name in generators:
        action = structure.action(name)
        element = draw(structure, action, weights.numbers, np.random.default_rng([seed, *name.encode()]))
        move(weights, action, element, wrong=wrong)
    dtypes = {name: tensors[name].read().dtype for name in weights.now}
    if lifted:
        dtypes = {n: np.dtype(np.float32) if tensors[n].dtype in HALVES else d for n, d in dtypes.items()}
    return {name: np.broadcast_to(v, tensors[name].shape).astype(dtypes[name]) for name, v in weights.now.items()}
