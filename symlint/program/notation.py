"""Factor notation: parse ``b (h d), (h d) n -> b n`` and find the sizes of its labels."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from math import prod

from symlint.model.graph import Shape
from symlint.program.steps import Spec


@cache
def parse(pattern: str) -> tuple[tuple[Spec, ...], Spec]:
    """The operand specs and the result spec of `pattern`.

    ``1`` is an axis of size 1 and ``...`` any number of leading axes, which broadcast.

    Raises ValueError when there is no arrow.
    """
    left, arrow, right = pattern.partition("->")
    if not arrow:
        raise ValueError(f"a pattern reads 'inputs -> output', not {pattern!r}")
    return tuple(_spec(side) for side in left.split(",")), _spec(right)


def _spec(side: str) -> Spec:
    tokens = re.findall(r"\(([^)]*)\)|(\S+)", side)
    return tuple(tuple(group.split()) if group or not single else _single(single) for group, single in tokens)


def _single(token: str) -> tuple[str, ...]:
    return () if token == "1" else (token,)


def spread(specs: Sequence[Spec], shapes: Sequence[Shape], result: Spec) -> tuple[list[Spec], Spec]:
    """Write ``...`` out as labels, aligned from the right; an axis of size 1 there broadcasts."""
    ranks = [len(shape) - len(spec) + 1 for spec, shape in zip(specs, shapes, strict=True) if ("...",) in spec]
    most = max(ranks, default=0)
    written: list[Spec] = []
    wide: set[str] = set()
    for spec, shape in zip(specs, shapes, strict=True):
        if ("...",) not in spec:
            written.append(spec)
            continue
        at, rank = spec.index(("...",)), len(shape) - len(spec) + 1
        labels = [f".{most - rank + k}" for k in range(rank)]
        wide.update(label for k, label in enumerate(labels) if shape[at + k] > 1)
        middle = tuple((label,) if shape[at + k] > 1 else () for k, label in enumerate(labels))
        written.append((*spec[:at], *middle, *spec[at + 1 :]))
    if ("...",) in result:
        at = result.index(("...",))
        middle = tuple((f".{k}",) if f".{k}" in wide else () for k in range(most))
        result = (*result[:at], *middle, *result[at + 1 :])
    return written, result


def measure(specs: Sequence[Spec], shapes: Sequence[Shape], known: Mapping[str, int]) -> dict[str, int]:
    """The size of every label, from the shapes of the operands and what is `known`.

    Raises ValueError where the shapes contradict the pattern.
    """
    sizes = dict(known)
    pending = [
        (axis, size) for spec, shape in zip(specs, shapes, strict=True) for axis, size in zip(spec, shape, strict=True)
    ]
    while pending:
        left: list[tuple[tuple[str, ...], int]] = []
        for axis, size in pending:
            unknown = [label for label in axis if label not in sizes]
            rest, over = divmod(size, max(prod(sizes[label] for label in axis if label in sizes), 1))
            if over:
                raise ValueError(f"axis {' '.join(axis)} has size {size}, its labels say otherwise: {sizes}")
            if len(unknown) == 1:
                sizes[unknown[0]] = rest
            elif unknown:
                left.append((axis, size))
            elif prod(sizes[label] for label in axis) != size:
                raise ValueError(f"axis {' '.join(axis) or '1'} has size {size}, its labels say otherwise: {sizes}")
        if len(left) == len(pending):
            raise ValueError(f"sizes of {left} cannot be told apart")
        pending = left
    return sizes


def regroup(before: Shape, after: Shape) -> tuple[Spec, Spec, dict[str, int]] | None:
    """Labels that write a reshape as a regrouping; None where one side's axes do not refine the other's."""
    if 0 in before or 0 in after:
        return None
    old: list[list[str]] = [[] for _ in before]
    new: list[list[str]] = [[] for _ in after]
    sizes: dict[str, int] = {}
    i = j = 0
    left, right = 1, 1
    while True:
        while left == 1 and i < len(before):
            left, i = before[i], i + 1
        while right == 1 and j < len(after):
            right, j = after[j], j + 1
        if left == 1 or right == 1:
            return (tuple(map(tuple, old)), tuple(map(tuple, new)), sizes) if left == right else None
        step = min(left, right)
        if max(left, right) % step:
            return None
        label = f"r{len(sizes)}"
        sizes[label] = step
        old[i - 1].append(label)
        new[j - 1].append(label)
        left, right = left // step, right // step
