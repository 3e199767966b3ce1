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


BLOCK = 1 << 16
"""Elements that are in double precision at once: they stay in the processor's cache."""
SKETCHES = 4
"""Random sums in which rows are compared before they are read a second time."""
REACH = 16.0
"""How many tolerances apart such a sum of rows of length 1 may be: that of independent roundings is below 1."""


@dataclass(frozen=True, slots=True)
class Grouping:
    """Rows by direction: ``group[i]`` is the first row that row i is a multiple of, ``factor[i]`` the multiple."""

    group: NDArray[np.int64]
    factor: Array
    norm: Array
    """The length of each row; not a number where an element of it is none."""
    least: float = 0.0
    """The smallest square of an element."""


def precision(dtype: str) -> float:
    """Half a unit in the last place of a number type, relative."""
    return {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float64": 2.0**-53}.get(dtype, 2.0**-24)


def proportional(keys: NDArray[np.int64], rows: Array, tolerance: float, among: int = 0) -> Grouping:
    """Group rows with one key whose values are multiples of each other, element by element within `tolerance`.

    Args:
        keys: one per row; rows with different keys never meet.
        rows: shape (rows, columns), any floating dtype; read once, in blocks, and again where sketches agree.
        tolerance: relative, on every element.
        among: how many rows there are in all, where these are some of them.

    Rows that random rows of that length and alphabet would often repeat are left apart.
    """
    count = len(rows)
    group = np.arange(count)
    if rows.ndim != 2 or not rows.shape[1]:
        return Grouping(group, np.ones(count), np.zeros(count))
    sketch, square, least = _sketched(rows)
    norm = np.sqrt(square)
    sign = np.where(sketch[0] < 0, -1.0, 1.0)
    direction = sketch * (sign / np.where(norm > 0, norm, 1.0))
    factor = sign * norm
    order = np.lexsort((direction[0], keys))
    order = order[(norm[order] > 0) & np.isfinite(norm[order])]
    gap = tolerance * REACH
    suspect = _suspect(keys[order], direction[:, order], gap)
    if suspect.any():
        clear = 2 * np.log2(max(count, among)) + 20
        _meet(rows, order, suspect, keys, direction, factor, gap, tolerance, clear, group)
    real = np.isfinite(norm) & (norm > 0)
    unit = np.where(real, factor[group], 1.0)
    return Grouping(group, np.where(real, factor / unit, np.where(norm == 0, 0.0, 1.0)), norm, least)


def _suspect(keys: NDArray[np.int64], direction: Array, gap: float) -> NDArray[np.bool_]:
    """Which rows, sorted by key and first sketch, agree with another one in every sketch."""
    count = len(keys)
    found = np.zeros(count, bool)
    for far in range(1, count):
        close = (direction[0, far:] - direction[0, :-far] <= gap) & (keys[far:] == keys[:-far])
        if not close.any():
            break
        if far > 64:  # a long run: all of it is looked at
            found[far:] |= close
            found[:-far] |= close
            break
        close &= (np.abs(direction[1:, far:] - direction[1:, :-far]) <= gap).all(axis=0)
        found[far:] |= close
        found[:-far] |= close
    return found


def _meet(
    rows: Array,
    order: NDArray[np.int64],
    suspect: NDArray[np.bool_],
    keys: NDArray[np.int64],
    direction: Array,
    factor: Array,
    gap: float,
    tolerance: float,
    clear: float,
    group: NDArray[np.int64],
) -> None:
    """Compare suspect rows element by element, each with the first of every group in reach; fills in `group`."""
    letters, gaps = _letters(rows, order[~_followers(keys[order], direction[:, order], gap)])
    waiting = order[suspect]
    first = direction[0, waiting]
    # Keys far apart on one line with the first sketches: what is in reach of a row ends at one place.
    line = np.cumsum(np.concatenate([[0], np.diff(keys[waiting]) != 0])) * (np.ptp(first) + 4 * gap) + first
    ends = np.searchsorted(line, line + gap, "right")
    counts = np.array([np.count_nonzero(rows[row]) for row in waiting.tolist()])
    telling = counts * letters + rows.shape[1] * gaps > clear
    taken = np.zeros(len(waiting), bool)
    for k, a in enumerate(waiting.tolist()):
        near = np.arange(k + 1, ends[k])
        near = near[telling[near] & ~taken[near] & ~np.bool_(taken[k])]
        if len(near):
            near = near[(np.abs(direction[1:, waiting[near]] - direction[1:, [a]]) <= gap).all(axis=0)]
        for j in near.tolist():
            b = int(waiting[j])
            if _multiple(rows[a], rows[b], factor[b] / factor[a], tolerance):
                group[b], taken[j] = a, True


def _followers(keys: NDArray[np.int64], direction: Array, gap: float) -> NDArray[np.bool_]:
    """Which of sorted rows look like the one before them: repeating ones would make any alphabet small."""
    near = (keys[1:] == keys[:-1]) & (np.abs(direction[:, 1:] - direction[:, :-1]) <= gap).all(axis=0)
    return np.concatenate([[False], near])


def _letters(rows: Array, chosen: NDArray[np.int64]) -> tuple[float, float]:
    """Bits that a weight tells that is not zero, and bits that any place tells by being zero or not.

    Rows from a small alphabet (ternary, 4 bits) collide by pigeonhole, the shorter the sooner. Each row is meant to be
    here once: repeating ones make any alphabet small.
    """
    size = len(chosen) * rows.shape[1]
    places = np.arange(0, size, max(1, size // 65536))
    sample = rows[chosen[places // rows.shape[1]], places % rows.shape[1]]
    share = float(np.clip(np.mean(sample == 0), 1e-9, 1 - 1e-9))
    gaps = -share * np.log2(share) - (1 - share) * np.log2(1 - share)
    sample = sample[sample != 0]
    distinct = len(np.unique(np.abs(sample)))
    letters = 24.0 if 2 * distinct >= len(sample) else float(np.log2(max(len(np.unique(sample)), 1)))
    return letters, float(gaps)


def _sketched(rows: Array) -> tuple[Array, Array, float]:
    """Products of the rows with some random vectors, the sums of their squares and the least square, read in blocks."""
    count, width = rows.shape
    rng = np.random.default_rng(20231129)
    weights = np.concatenate([rng.uniform(1.0, 2.0, (1, width)), rng.choice([-1.0, 1.0], (SKETCHES - 1, width))])
    sketch, square, least = np.zeros((SKETCHES, count)), np.zeros(count), np.inf
    if abs(rows.strides[1]) <= abs(rows.strides[0]):
        turned, ones = np.ascontiguousarray(weights.T), np.ones(width)
        step = max(1, BLOCK // width)
        wide = np.empty((min(step, count), width))
        for k in range(0, count, step):
            block = wide[: min(step, count - k)]
            block[...] = rows[k : k + step]
            sketch[:, k : k + step] = (block @ turned).T
            np.multiply(block, block, out=block)
            square[k : k + step] = block @ ones
            least = min(least, float(block.min()))
        return sketch, square, least
    lines = rows.T
    step = max(1, BLOCK // count)
    wide = np.empty((min(step, width), count))
    for k in range(0, width, step):
        block = wide[: min(step, width - k)]
        block[...] = lines[k : k + step]
        sketch += weights[:, k : k + step] @ block
        np.multiply(block, block, out=block)
        square += block.sum(axis=0)
        least = min(least, float(block.min()))
    return sketch, square, least


def _multiple(a: Array, b: Array, factor: float, tolerance: float) -> bool:
    """Whether b is `factor` times a, element by element."""
    x, y = a.astype(np.float64) * factor, b.astype(np.float64)
    return bool(np.all(np.abs(x - y) <= tolerance * (np.abs(x) + np.abs(y))))
