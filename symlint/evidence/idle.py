"""Idle activations: those that bounds prove to change nothing of what they get."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from symlint.analysis.bounds.interval import Interval
from symlint.analysis.bounds.ranges import SLOPES
from symlint.evidence.bounded import Bounded
from symlint.model.graph import Array
from symlint.model.naming import Where
from symlint.program.steps import Pointwise
from symlint.symmetry.motion.membership import members
from symlint.symmetry.spaces import Space


def idle(context: Bounded) -> Iterator[tuple[Space, dict[Where, NDArray[np.bool_]]]]:
    """The spaces with such units, and activation -> the units of which it changes nothing, copy-major."""
    structure = context.structure
    axes, factors = structure.axes.of, structure.axes.factors
    found: dict[int, list[tuple[Pointwise, NDArray[np.bool_]]]] = {}
    for step, where in {s.out: (s, where) for s, where in _unchanged(context)}.values():
        for leaf in {x for f in axes[step.out] for x in factors.leaves(f)}:
            found.setdefault(leaf, []).append((step, where))
    for space in context.spaces if found else ():
        action = context.plain(structure.permutation(space.id))
        count = space.size * space.copies
        masks: dict[Where, NDArray[np.bool_]] = {}
        for step, where in found.get(action.leaf, ()):
            rows = members(structure, action, axes[step.out], where.shape)
            if rows is None or len(rows) != count:
                continue
            on = np.asarray(where.reshape(-1)[rows].all(axis=1))
            if on.any():
                masks[Where(step.node.name or step.node.first, step.function)] = on
        if masks:
            yield space, masks


def _unchanged(context: Bounded) -> Iterator[tuple[Pointwise, NDArray[np.bool_]]]:
    """The activations that change nothing of some elements, and of which."""
    for step in context.structure.program.elementwise:
        if step.operands[0] not in context.intervals:
            continue
        x = context.intervals[step.operands[0]]
        where = _where(context, step, x)
        if where is None:
            continue
        where = where & ~x.settled
        if where.any() and x.shape == context.intervals[step.out].shape:
            yield step, where


def _where(context: Bounded, step: Pointwise, x: Interval) -> Array | None:
    """Which elements an activation returns as they are; None where it is no such activation."""
    if step.function in SLOPES:
        return np.asarray(x.low >= 0)
    if step.function != "Clip":
        return None
    ends = [context.exact[name].scale for name in step.operands[1:]]
    attributes = step.node.attributes if not ends else {}
    low = ends[0] if ends else attributes.get("min", -np.inf)
    high = ends[1] if len(ends) > 1 else attributes.get("max", np.inf)
    return np.asarray((x.low >= low) & (x.high <= high))
