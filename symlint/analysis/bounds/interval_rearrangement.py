"""Intervals and balls through contractions of one tensor: rearrangements, repetitions, and sums along axes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from symlint.analysis.bounds.interval import UNIT, Interval, widened
from symlint.model.graph import Array
from symlint.model.operators import known
from symlint.program.numbers import contract as summed
from symlint.program.steps import Einsum, Spec

Free = Callable[[int], bool]
"""Whether a length is one that only a run tells."""


def labels(spec: Spec) -> set[str]:
    """All labels of a spec."""
    return {label for axis in spec for label in axis}


def rearranged(step: Einsum, x: Interval, free: Free) -> Interval:
    """What a contraction of one tensor makes; a sum of a number of terms that only a run tells keeps its sign."""
    lost = labels(step.specs[0]) - labels(step.result)
    made = Interval(_arranged(step, x.low), _arranged(step, x.high))
    if not lost:
        axes = None if x.ball is None else _followed(step.specs[0], step.result, x.ball.axes)
        ball = None if axes is None or x.ball is None else x.ball.moved(lambda a: _arranged(step, a), axes)
        shares = _followed(step.specs[0], step.result, x.shares) if x.shares else None
        return Interval(made.low, made.high, ball, shares or ())
    if not known(step.node.op).averages and any(free(step.sizes[label]) for label in lost):
        return _any_number(made)
    size = _arranged(step, np.where(np.isfinite(x.size), x.size, 0))
    found = widened(made.low, made.high, UNIT * prod(step.sizes[label] for label in lost) * size)
    low = np.where((x.low >= 0).all(), np.maximum(found.low, 0), found.low)
    return Interval(low, np.where((x.high <= 0).all(), np.minimum(found.high, 0), found.high))


def _arranged(step: Einsum, x: Array) -> Array:
    """A rearrangement or sum of numbers; unbounded ones among them stay so."""
    wild = np.isinf(x)
    with np.errstate(invalid="ignore"):
        made = summed(step, [np.where(wild, 0, x)], [0])
        if not wild.any():
            return made
        above, below = (summed(step, [(x == end).astype(float)], [0]) > 0 for end in (np.inf, -np.inf))
    return np.where(below, -np.inf, np.where(above, np.inf, made))


def _followed(before: Spec, after: Spec, axes: Sequence[int]) -> tuple[int, ...] | None:
    """Where axes went; None where what is in them is not kept apart from the rest."""
    mine = {label for k in axes for label in before[k]}
    found = tuple(k for k, axis in enumerate(after) if mine.intersection(axis))
    whole = bool(mine) and {label for k in found for label in after[k]} == mine
    return found if whole and all(any(m in axis for axis in after) for m in mine) else None


def _any_number(x: Interval) -> Interval:
    """A sum of any number of terms."""
    return Interval(np.where(x.low >= 0, 0.0, -np.inf), np.where(x.high <= 0, 0.0, np.inf))
