"""Elements of the groups: drawn at random, or a step along each of their directions.

An element has an axis per copy factor, then the units: a permutation or a factor for each, or a matrix. That of a
translation has one number per class of every axis of the weight that it changes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from symlint.model.graph import Array
from symlint.program.numbers import Numbers
from symlint.symmetry.motion.action import Index
from symlint.symmetry.structure import Action, Structure

SPREAD = float(np.log(3.0))
"""Largest logarithm of a scaling: a unit grows or shrinks at most threefold, and at least by a tenth."""
GRAINS = 512
"""Steps of a translation to its size."""
NARROW = 8.0
"""A rotation mixes only units whose gains are within this factor of the median, so that float32 can take it."""


def shape(structure: Structure, action: Action) -> tuple[int, ...]:
    """The shape of an element, but for the second axis of a matrix."""
    if action.translation is not None:
        return action.translation.shape
    if action.branches is not None:
        return (len(action.branches.images),)
    if action.leaf < 0:
        return (1,)
    if action.across:
        return structure.program.shapes[next(iter(action.charge)).tensor]
    size = structure.axes.factors.size
    return (*(size(c) for c in action.copies), size(action.leaf))


def draw(structure: Structure, action: Action, numbers: Numbers, rng: np.random.Generator) -> Array | Index:
    """A random element away from the neutral one: no fixed points, matrices of condition below 10."""
    form = shape(structure, action)
    if action.kind == "translation":
        weight = numbers.value(action.translation.weight if action.translation else next(iter(action.charge)).tensor)
        return _exact(rng.normal(size=form), 0.5 * float(np.abs(weight).mean()) or 0.1)
    if action.kind == "permutation":
        return _derangements(rng, form)
    if action.kind == "sign":
        return np.where(rng.permuted(np.broadcast_to(np.arange(form[-1]), form), axis=-1) % 2, 1.0, -1.0)
    if action.kind == "rotation" and action.group == "GL":
        basis, _ = np.linalg.qr(rng.standard_normal((*form, form[-1])))
        return basis * np.exp(rng.uniform(-1.0, 1.0, form))[..., None]
    if action.group == "SO2":
        return rng.choice([-1.0, 1.0], form) * rng.uniform(0.3, 2.8, form)
    if action.kind == "rotation":
        return _turn(form, action, numbers, rng)
    return np.exp(rng.choice([-1.0, 1.0], form) * rng.uniform(0.1, SPREAD, form))


def _turn(form: tuple[int, ...], action: Action, numbers: Numbers, rng: np.random.Generator) -> Array:
    """A random rotation of the units whose gains are alike, across the vector of ones where that is fixed."""
    n = form[-1]
    chosen = np.ones(n, bool)
    for gain in {gain for frame in action.frames.values() for gain, _ in frame}:
        size = np.abs(numbers.value(gain)).reshape(-1)
        middle = float(np.median(size))
        chosen &= (size >= middle / NARROW) & (size <= middle * NARROW)
    places = np.flatnonzero(chosen)
    across = _across(len(places)) if action.group == "Stab" else np.eye(len(places))
    inner, _ = np.linalg.qr(rng.standard_normal((*form[:-1], across.shape[1], across.shape[1])))
    kept = np.eye(len(places)) - across @ across.T
    made = np.broadcast_to(np.eye(n), (*form, n)).copy()
    made[..., places[:, None], places] = across @ inner @ across.T + kept
    return made


def _across(n: int) -> Array:
    """An orthonormal basis of the vectors that sum to zero, shape (n, n - 1)."""
    basis, _ = np.linalg.qr(np.column_stack([np.ones(n), np.eye(n)[:, : n - 1]]))
    return np.asarray(basis[:, 1:])


def _exact(numbers: Array, size: float) -> Array:
    """Numbers of about a size that float32 adds and takes away without rounding: a norm of zeros sees no trace."""
    grid = 2.0 ** np.round(np.log2(size))
    return np.round(numbers * GRAINS) / GRAINS * grid


def _derangements(rng: np.random.Generator, form: tuple[int, ...]) -> Index:
    """A permutation without fixed points of the last axis, for every index of the others: a random cycle."""
    rows = rng.permuted(np.broadcast_to(np.arange(form[-1]), form), axis=-1)
    order = np.empty(form, np.int64)
    np.put_along_axis(order, rows, np.roll(rows, -1, axis=-1), axis=-1)
    return order


def directions(structure: Structure, action: Action, step: float) -> Iterator[tuple[Array, Array]]:
    """For every continuous direction of a generator, the elements a `step` ahead and behind."""
    if action.kind in ("permutation", "sign"):
        return
    form = shape(structure, action)
    if action.kind == "translation" or action.group == "SO2":
        for k in range(int(np.prod(form, dtype=np.int64))):
            ahead = np.zeros(form)
            ahead.flat[k] = step
            yield ahead, -ahead
    elif action.kind == "rescaling":
        for k in range(int(np.prod(form, dtype=np.int64))):
            ahead = np.ones(form)
            ahead.flat[k] = np.exp(step)
            yield ahead, 1 / ahead
    else:
        n = form[-1]
        still = np.broadcast_to(np.eye(n), (*form, n))
        for copy in np.ndindex(form[:-1]):
            for tangent in _tangents(n, action.group):
                turn = np.zeros_like(still)
                turn[copy] = tangent * step
                yield still + turn, still - turn


def _tangents(n: int, group: str) -> Iterator[Array]:
    """A basis of the matrices near the identity of a group, less the identity."""
    across = _across(n) if group == "Stab" else np.eye(n)
    m = across.shape[1]
    for i in range(m):
        for j in range(m if group == "GL" else i):
            unit = np.zeros((m, m))
            unit[i, j] = 1.0
            if group != "GL":
                unit[j, i] = -1.0
            yield across @ unit @ across.T
