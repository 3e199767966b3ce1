"""Settling: weights without what no output sees of them, so that a zero in the function is a zero in the file.

A translation may add to a weight whatever a normalisation takes away again, and to logits whatever a softmax does. What
is settled is the smallest weight; where logits may be shifted alike, the one in which entries that go along with each
other stay at zero.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from symlint.clusters import ROUNDING, precision
from symlint.graph import Array
from symlint.motion import Weights
from symlint.structure import Structure
from symlint.translation.course import Translation
from symlint.translation.element import changes, written
from symlint.unseen import hidden


def settled(structure: Structure, names: Collection[str], logits: Collection[int]) -> dict[str, Array]:
    """Stored tensor -> its values in float64, for those of the weights `names` that a translation moves.

    Args:
        structure: of the network.
        names: weights of the program.
        logits: leaves of outputs: a shift along them is chosen so that rows that are alike vanish.
    """
    tensors, stored = structure.program.model.tensors, structure.program.weights
    weights = Weights(structure, lambda name: tensors[name].read())
    for action in structure.actions.values():
        translation = action.translation
        if translation is not None and translation.weight in names:
            name = translation.weight
            size = _size(structure, translation, weights, logits, precision(tensors[stored[name]].dtype))
            for moved, change in list(changes(translation, weights.numbers, -size)):
                weights.put(moved, _added(weights.get(moved), change, precision(tensors[stored[moved]].dtype)))
        elif action.across and (name := next(iter(action.charge)).tensor) in names:
            before = weights.get(name)
            change = -hidden(structure, action, before, weights.get)
            weights.put(name, _added(before, change, precision(tensors[stored[name]].dtype)))
    return weights.now


def _added(values: Array, change: Array, rounding: float) -> Array:
    """A sum in which zero is what may be left by the rounding of the change, as large as it is along some axis."""
    made = values + change
    size = np.abs(np.broadcast_to(change, made.shape))
    lines = [np.broadcast_to(size.max(axis=k, keepdims=True), made.shape) for k in range(made.ndim)]
    floor = ROUNDING * rounding * np.minimum.reduce([*lines, np.full(made.shape, np.inf)])
    return np.where((np.abs(made) <= floor) & np.isfinite(floor), 0.0, made)


def _size(
    structure: Structure, translation: Translation, weights: Weights, logits: Collection[int], rounding: float
) -> Array:
    """How much of the translation a weight holds: one number per class."""
    values = weights.get(translation.weight)
    _, unit = next(changes(translation, weights.numbers, np.ones(translation.shape)))
    unit = np.broadcast_to(unit, values.shape)
    count = translation.dimension
    cells = np.broadcast_to(
        written(np.arange(1, count + 1).reshape(translation.shape), translation.wave), values.shape
    ).astype(np.int64)
    factors, of = structure.axes.factors, structure.axes.of[translation.weight]
    if translation.nowhere is None:
        for axis, classes in enumerate(translation.wave.classes):
            shared = len(classes) > 1 and not classes.any()
            if shared and not set(logits).isdisjoint(factors.leaves(of[axis])):
                chosen = _repeated(np.moveaxis(values, axis, 0).reshape(len(classes), -1), ROUNDING * rounding)
                if chosen is not None:
                    values, unit, cells = (a.take([chosen], axis=axis) for a in (values, unit, cells))
    flat = cells.reshape(-1)
    held = np.bincount(flat, (values * unit).reshape(-1), count + 1)[1:]
    square = np.bincount(flat, (unit * unit).reshape(-1), count + 1)[1:]
    return np.asarray(held / np.where(square > 0, square, 1.0)).reshape(translation.shape)


def _repeated(rows: Array, tolerance: float) -> int | None:
    """A row of those that agree with most others; None where all differ."""
    sketch = rows @ np.random.default_rng(20231129).uniform(1.0, 2.0, rows.shape[1])
    order = np.argsort(sketch, kind="stable")
    size = np.abs(rows).max(axis=1)
    left, right = order[:-1], order[1:]
    near = np.abs(rows[left] - rows[right]).max(axis=1) <= tolerance * size[left]
    starts = np.concatenate([[True], ~near])
    groups = np.cumsum(starts) - 1
    counts = np.bincount(groups)
    if counts.max(initial=0) < 2:
        return None
    return int(min(order[groups == counts.argmax()]))
