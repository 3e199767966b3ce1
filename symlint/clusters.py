"""Grouping of rows that are equal or proportional to the precision of their numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from symlint.graph import Array

ROUNDING = 8.0
"""How many roundings of its dtype an element of a row may have gone through."""
ABSENT = np.float64(1e-30)  # a number of Python would be rounded to zero beside half precision
"""Weights below this are zero for every purpose: no input of a network makes them visible."""


@dataclass(frozen=True, slots=True)
class Grouping:
    """Rows by direction: ``group[i]`` is the first row that row i is a multiple of, ``factor[i]`` the multiple."""

    group: NDArray[np.int64]
    factor: Array


def precision(dtype: str) -> float:
    """Half a unit in the last place of a number type, relative."""
    return {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float64": 2.0**-53}.get(dtype, 2.0**-24)


def proportional(keys: NDArray[np.int64], rows: Array, tolerance: float) -> Grouping:
    """Group rows with one key whose values are multiples of each other, element by element within `tolerance`.

    Args:
        keys: one per row; rows with different keys never meet.
        rows: shape (rows, columns), any floating dtype.
        tolerance: relative, on every element.

    Rows that random rows of that length and alphabet would often repeat are left apart.
    """
    count = len(rows)
    group = np.arange(count)
    if rows.ndim != 2 or not rows.shape[1]:
        return Grouping(group, np.ones(count))
    weights = np.random.default_rng(20231129).uniform(1.0, 2.0, (2, rows.shape[1]))
    sketch = np.stack([_dot(rows, w) for w in weights])
    norm = np.sqrt(_squares(rows))
    sign = np.where(sketch[0] < 0, -1.0, 1.0)
    safe = np.where(norm > 0, norm, 1.0)
    direction = np.stack([sketch[0] * sign / safe, sketch[1] * sign / safe])
    factor = sign * norm
    order = np.lexsort((direction[0], keys))
    gap = tolerance * np.sqrt(rows.shape[1]) * 8
    left, right = order[:-1], order[1:]
    near = (keys[left] == keys[right]) & (np.abs(direction[:, left] - direction[:, right]) <= gap).all(axis=0)
    near &= (norm[left] > 0) & (norm[right] > 0)
    if near.any():
        letters, gaps = _letters(rows[[order[0], *right[~near]]])
        for a, b in zip(left[near], right[near], strict=True):
            first = group[a]
            telling = np.count_nonzero(rows[b]) * letters + rows.shape[1] * gaps > 2 * np.log2(count) + 20
            if telling and _multiple(rows[first], rows[b], factor[b] / factor[first], tolerance):
                group[b] = first
    real = np.isfinite(norm) & (norm > 0)
    unit = np.where(real, factor[group], 1.0)
    return Grouping(group, np.where(real, factor / unit, np.where(norm == 0, 0.0, 1.0)))


def _letters(rows: Array) -> tuple[float, float]:
    """Bits that a weight tells that is not zero, and bits that any place tells by being zero or not.

    Rows from a small alphabet (ternary, 4 bits) collide by pigeonhole, the shorter the sooner. Each row is meant to be
    here once: repeating ones make any alphabet small.
    """
    sample = rows.reshape(-1)[:: max(1, rows.size // 65536)]
    share = float(np.clip(np.mean(sample == 0), 1e-9, 1 - 1e-9))
    gaps = -share * np.log2(share) - (1 - share) * np.log2(1 - share)
    sample = sample[sample != 0]
    distinct = len(np.unique(np.abs(sample)))
    letters = 24.0 if 2 * distinct >= len(sample) else float(np.log2(max(len(np.unique(sample)), 1)))
    return letters, float(gaps)


def _dot(rows: Array, weights: Array) -> Array:
    """Rows times a vector in float64, in blocks of bounded memory."""
    step = max(1, (1 << 22) // max(rows.shape[1], 1))
    return np.concatenate([rows[k : k + step].astype(np.float64) @ weights for k in range(0, len(rows), step)])


def _squares(rows: Array) -> Array:
    step = max(1, (1 << 22) // max(rows.shape[1], 1))
    blocks = (rows[k : k + step].astype(np.float64) for k in range(0, len(rows), step))
    return np.concatenate([np.einsum("ij,ij->i", block, block) for block in blocks])


def _multiple(a: Array, b: Array, factor: float, tolerance: float) -> bool:
    """Whether b is `factor` times a, element by element."""
    x, y = a.astype(np.float64) * factor, b.astype(np.float64)
    return bool(np.all(np.abs(x - y) <= tolerance * (np.abs(x) + np.abs(y))))
