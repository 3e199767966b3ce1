"""Arrays over the labels of a contraction: one axis per label, and back to the grouping of a tensor."""

from __future__ import annotations

import numpy as np

from symlint.graph import Array, Shape
from symlint.program import Einsum, Spec
from symlint.values import Labels, Names, Value, alike, tidy


def apart(value: Array, spec: Spec, sizes: dict[str, int]) -> tuple[Array, list[str]] | None:
    """An array with one axis per label; an axis of size 1 stands for all its labels. None where it cannot be cut."""
    shape: list[int] = []
    labels: list[str] = []
    for size, axis in zip(value.shape, spec, strict=True):
        full = int(np.prod([sizes[label] for label in axis], dtype=np.int64))
        if size not in (1, full):
            return None
        shape.extend(sizes[label] if size == full else 1 for label in axis)
        labels.extend(axis)
    return value.reshape(shape), labels


def together(names: Names, labels: Labels, scale: Array, order: list[str], step: Einsum, shape: Shape) -> Value:
    """Axes per label, grouped as the result wants them; one without units is written out where its group has some."""
    wanted = [label for axis in step.result for label in axis]
    place = [order.index(label) for label in wanted]
    labels, scale = labels.transpose(place), scale.transpose(place)
    plain = tuple(
        k for j, size in enumerate(shape) if size == 1 for k in _places(step.result, j) if labels.shape[k] > 1
    )
    if plain:
        labels, scale = collapse(names, labels, scale, plain)
    full: list[int] = []
    at = 0
    for axis, size in zip(step.result, shape, strict=True):
        for label in axis:
            full.append(step.sizes[label] if size > 1 else labels.shape[at])
            at += 1
    spread = [k for k, (a, b) in enumerate(zip(labels.shape, full, strict=True)) if a != b]
    if spread:
        places = np.zeros((1,) * len(full), np.int64)
        for k in spread:
            places = places * full[k] + np.arange(full[k]).reshape([-1 if j == k else 1 for j in range(len(full))])
        constant = labels == 0
        labels = np.where(constant, 0, names.derive(np.broadcast_to(labels, full), np.broadcast_to(places, full)))
        scale = np.broadcast_to(scale, full)
    return tidy(labels.reshape(shape), scale.reshape(shape))


def collapse(names: Names, labels: Labels, scale: Array, axes: tuple[int, ...]) -> tuple[Labels, Array]:
    """One base for all elements along axes that no longer carry units: multiples of each other as a whole, or apart."""
    rest = tuple(1 if k in axes else n for k, n in enumerate(labels.shape))
    flat = [np.moveaxis(a, axes, range(len(axes))).reshape(-1, *rest) for a in (labels, scale)]
    if len(flat[0]) > 4096:
        return names.fresh(rest).numbers, np.ones(rest)
    lead = np.take_along_axis(flat[1], (flat[1] != 0).argmax(axis=0)[None], axis=0)[0]
    made = names.derive(*flat[0], *alike(flat[1] / np.where(lead == 0, 1.0, lead)))
    same = (flat[0] == 0).all(axis=0) & (flat[1] == flat[1][:1]).all(axis=0)
    return np.where(same, 0, made), np.where(same, flat[1][0], np.where(lead == 0, 1.0, lead))


def _places(result: Spec, axis: int) -> range:
    before = sum(len(a) for a in result[:axis])
    return range(before, before + len(result[axis]))
