"""Contractions of second moments: each weight counts twice, once for either element of a pair."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from symlint.analysis.paths.squares import Layout
from symlint.model.graph import Array, Shape
from symlint.program.steps import Spec

Part = tuple[Array, list[str]]


def contract(
    layout: Layout,
    target: tuple[str, Spec],
    squares: Sequence[tuple[str, Spec, Array]],
    fixed: Sequence[tuple[Array, Spec]],
    sizes: Mapping[str, int],
    result: Collection[str],
) -> Array:
    """Second moments of a contraction, or what its result says of one operand: in the layout of the target.

    Args:
        target: the tensor that is wanted, and its labels.
        squares: the tensors whose moments are known; each is independent of the others.
        fixed: weights.
        sizes: of the labels.
        result: the labels that the contraction leaves.

    What is summed over along axes without units is alike.
    """
    wanted, parts = (
        _labels(layout, *target),
        [_part(layout.shape(n), layout.doubled(n), spec, a, sizes) for n, spec, a in squares],
    )
    held = [own for _, own in parts] + [wanted]
    tied = {x for own in held for x in own if not x.endswith("'") and f"{x}'" not in own}
    pairs = {x[:-1] for own in held for x in own if x.endswith("'")} - tied
    found: list[Part] = [(a, [x[:-1] if x.endswith("'") and x[:-1] in tied else x for x in own]) for a, own in parts]
    for value, spec in fixed:
        labels = [x for axis in spec for x in axis]
        array = value.astype(np.float64).reshape([sizes[x] for x in labels])
        if pairs.isdisjoint(labels):
            found.append((array * array, labels))
        else:
            found += [(array, labels), (array, [f"{x}'" if x in pairs else x for x in labels])]
    made, got = _einsum(found, [x for x in wanted if not (x.endswith("'") and x[:-1] in tied)])
    wide = [x for axis in target[1] for x in axis]
    count = np.prod([sizes[x] for x in wide if x not in wanted and any(x in own for _, own in found)])
    alike = np.prod([float(sizes[x]) ** 2 for x in sizes if x not in result and not any(x in own for _, own in found)])
    return layout.masked(target[0], _placed(layout, target, made * (alike / count), got, sizes))


def _labels(layout: Layout, name: str, spec: Spec) -> list[str]:
    shape = layout.shape(name)
    lines = [list(axis) if shape[k] > 1 else [] for k, axis in enumerate(spec)]
    return [x for line in lines for x in line] + [f"{x}'" for k in layout.doubled(name) for x in lines[k]]


def _placed(
    layout: Layout, target: tuple[str, Spec], made: Array, got: Sequence[str], sizes: Mapping[str, int]
) -> Array:
    """An array over some of the labels of the target, in its layout."""
    name, spec = target
    wanted = _labels(layout, name, spec)
    made = made.reshape([made.shape[got.index(x)] if x in got else 1 for x in wanted])
    full = [sizes[x.removesuffix("'")] for x in wanted]
    for k, x in enumerate(wanted):
        if x.endswith("'") and x not in got and x[:-1] in got:
            place = wanted.index(x[:-1])
            made = made * np.eye(full[k]).reshape([full[k] if j in (k, place) else 1 for j in range(len(full))])
    shape = layout.shape(name)
    return np.broadcast_to(made, full).reshape([*shape, *(shape[k] for k in layout.doubled(name))])


def _part(shape: Shape, twice: Sequence[int], spec: Spec, square: Array, sizes: Mapping[str, int]) -> Part:
    """An array with one axis per label; axes without units have none."""
    lines = [list(axis) if shape[k] > 1 else [] for k, axis in enumerate(spec)]
    labels = [x for line in lines for x in line] + [f"{x}'" for k in twice for x in lines[k]]
    return square.reshape([sizes[x.removesuffix("'")] for x in labels]), labels


def _einsum(parts: Sequence[Part], wanted: Sequence[str]) -> tuple[Array, list[str]]:
    """The sum of products over all labels that are not wanted, with the wanted ones that some part has."""
    number: dict[str, int] = {}
    arguments: list[object] = []
    for array, labels in parts:
        arguments += [array, [number.setdefault(x, len(number)) for x in labels]]
    got = [x for x in wanted if x in number]
    return np.asarray(np.einsum(*arguments, [number[x] for x in got], optimize="greedy")), got  # type: ignore[call-overload]
