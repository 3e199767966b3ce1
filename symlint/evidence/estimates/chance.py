"""What random weights do by chance: null models for what is only nearly so."""

from __future__ import annotations

import numpy as np

from symlint.model.clusters import ABSENT
from symlint.program.steps import Einsum
from symlint.symmetry.structure import Structure

RARE = 1e-3
"""In how many random spaces one may be found."""
SAMPLE = 1 << 16


def smallest(units: int, weights: float) -> float:
    """The share of fair that the smallest of many random units has once in a thousand spaces.

    A sum of the squares of `weights` Gaussian numbers, relative to its mean, is below t with a probability of at most
    (e t)^(weights / 2).
    """
    return float((RARE / max(units, 1)) ** (2.0 / max(weights, 1.0)) / np.e)


def nearest(pairs: int, distances: np.ndarray, dimensions: float) -> float:
    """The largest distance that is no chance, of sorted distances among random rows in so many dimensions.

    Rows on a sphere are closer than r with a probability of about r^(dimensions - 1). Of the pairs that are told a
    hundredth may be chance (Benjamini and Hochberg, 1995).
    """
    expected = pairs * distances ** max(dimensions - 1.0, 0.0)
    real = np.flatnonzero(expected <= 10 * RARE * np.arange(1, len(distances) + 1))
    return float(distances[real[-1]]) if len(real) else -1.0


def weights(structure: Structure, leaf: int) -> tuple[float, float]:
    """How many weights per unit write a space, at least, and how many read it; infinite where none does."""
    written, read = [np.inf], [np.inf]
    program, factors, of = structure.program, structure.axes.factors, structure.axes.of
    holders = [name for name in structure.axes.holding.get(leaf, ()) if name in program.fixed]
    for step in program.reading(holders):
        if not isinstance(step, Einsum) or step.out in program.fixed:
            continue
        made = step.kept
        moved = {
            x for n, s in zip(step.operands, step.specs, strict=True) if n not in program.fixed for a in s for x in a
        }
        for name, spec in zip(step.operands, step.specs, strict=True):
            if name not in program.fixed:
                continue
            for k, axis in enumerate(spec):
                if leaf in set(factors.leaves(of[name][k])):
                    each = np.prod(program.shapes[name]) / program.shapes[name][k]
                    if made.issuperset(axis) and any(step.sizes[x] > 1 for x in set(axis) - moved):
                        written.append(each * _filled(structure, name))
                    elif made.isdisjoint(axis):
                        read.append(each)
    return float(min(written)), float(min(read))


def _filled(structure: Structure, name: str) -> float:
    """The share of a weight's elements that are not zero."""
    stored = structure.program.weights.get(name)
    if stored is None:
        return 1.0
    flat = structure.program.model.tensors[stored].read().reshape(-1)
    return float(np.mean(np.abs(flat[:: max(1, flat.size // SAMPLE)]) > ABSENT))


def letters(structure: Structure, leaf: int) -> float:
    """Bits per weight of what writes a space: few where rows of a small alphabet collide by pigeonhole."""
    found = [24.0]
    for name in structure.axes.factors.holders.get(leaf, ()):
        stored = structure.program.weights.get(name)
        if stored is None or len(structure.program.shapes[name]) < 2:
            continue
        flat = structure.program.model.tensors[stored].read().reshape(-1)
        flat = flat[:: max(1, flat.size // SAMPLE)].astype(np.float64)
        flat = flat[np.abs(flat) > ABSENT]
        distinct = len(np.unique(np.abs(flat)))
        if 2 * distinct < len(flat):
            found.append(float(np.log2(max(len(np.unique(flat)), 1))))
    return min(found)
