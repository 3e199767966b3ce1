"""The dimension of a network's continuous symmetry: the rank of all tangent vectors at generic weights."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from symlint.model.graph import Array
from symlint.program.numbers import Unvalued
from symlint.symmetry.actions.rotation import PlaneRotation
from symlint.symmetry.motion.motion import Weights
from symlint.symmetry.structure import Structure

PARAMETERS = 1 << 12
"""Weights beyond which ranks are not taken: what is told then is the sum over generators."""
STEP = 1e-5


def dimension(structure: Structure) -> int | None:
    """How many independent directions the generators have, at random weights.

    None for a large network, and for one that has no numbers there.
    """
    tensors = structure.program.model.tensors
    if sum(tensors[n].size for n in set(structure.program.weights.values())) > PARAMETERS:
        return None
    for positive in (False, True):  # a weight may go through a root or a logarithm, which takes no negative number
        try:
            rows = list(tangents(structure, positive=positive))
        except Unvalued:
            continue
        if not rows:
            return 0
        matrix = np.stack(rows)
        if np.isfinite(matrix).all():
            matrix = matrix / np.maximum(np.linalg.norm(matrix, axis=1, keepdims=True), 1e-30)
            singular = np.linalg.svd(matrix, compute_uv=False)
            return int((singular > 1e-6 * singular[0]).sum())
    return None


def tangents(structure: Structure, seed: int = 0, *, positive: bool = False) -> Iterator[Array]:
    """The change of all weights along every direction of every generator, one vector each, at `positive` weights."""
    start = _generic(structure, seed, positive)
    order = sorted(start)
    for action in structure.actions.values():
        for ahead, behind in action.directions(structure, STEP):
            ends = []
            for element in (ahead, behind):
                weights = Weights(structure, start.__getitem__)
                action.move(weights, element)
                ends.append({**start, **weights.now})
            change = [np.ravel((ends[0][n] - ends[1][n]) / (2 * STEP)) for n in order]
            if any(c.any() for c in change):
                yield np.concatenate(change)


def _generic(structure: Structure, seed: int, positive: bool) -> dict[str, Array]:
    """Random values for all floating weights, a variance positive; integers, single numbers and angles as stored."""
    rng = np.random.default_rng(seed)
    program = structure.program
    variances = {program.weights[s.var] for s in program.batch_norms if s.var in program.weights}
    learned = program.parameters
    turns = [a for a in structure.rotations if isinstance(a, PlaneRotation)]
    angles = {program.weights[n] for turn in turns for n in turn.tables}
    made: dict[str, Array] = {}
    for stored in sorted(set(program.weights.values())):
        tensor = program.model.tensors[stored]
        if not tensor.floating or stored in angles or (tensor.size == 1 and stored not in learned):
            made[stored] = tensor.read()
            continue
        values = rng.uniform(0.5, 1.5, tensor.shape) * rng.choice([-1.0, 1.0], tensor.shape)
        made[stored] = np.abs(values) if positive or stored in variances else values
    return made
