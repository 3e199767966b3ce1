"""The canonical gauge: where two files that differ by a symmetry alone have the same numbers, but for their order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from symlint.comparison.change.weights import Change, Pairs
from symlint.comparison.matching.units import Matching
from symlint.evidence.context import Context
from symlint.model.graph import Array
from symlint.symmetry.gauge.balance import least_norm
from symlint.symmetry.gauge.scales import Scales, two_sided

ALIKE = 1e-4
"""How far sizes may be apart, relative to the largest, in files of float32 that differ by a symmetry."""
SHARE = 1e-3
"""The same, beside how far the weights themselves are apart: a small change of every weight is no symmetry."""
COARSE = {"float16": 50.0, "bfloat16": 400.0}


def canonical(context: Context, *, buried: bool = False) -> Mapping[str, Array]:
    """Stored tensor -> its values in the gauge of least norm, for those that it moves.

    Args:
        context: the network.
        buried: whether what belongs to dead units becomes zero. Scales let it vanish, and no gauge is the least.
    """
    actions = two_sided(context.structure)
    if not actions or not finite(context):
        return {}
    scales = Scales(context.structure, actions)
    try:
        with np.errstate(all="ignore"):
            logs, dead = least_norm(scales)
            found = scales.apply(logs)
    except (ArithmeticError, ValueError, np.linalg.LinAlgError):
        return {}
    if not all(np.isfinite(v).all() for v in found.values()):
        return {}
    return _buried(scales, dead, found) if buried and dead.any() else found


def _buried(scales: Scales, dead: NDArray[np.bool_], found: Mapping[str, Array]) -> Mapping[str, Array]:
    """The same tensors, and others, with zeros where dead scales meet them."""
    program, marks, made = scales.structure.program, np.append(dead, False), dict(found)
    for name in scales.tensors():
        met = [marks[hold.scales] for hold in scales.holds(name) if hold.power]
        if name in program.weights and any(mark.any() for mark in met):
            stored = program.weights[name]
            values = made[stored] if stored in made else program.model.tensors[stored].read().astype(np.float64)
            here = np.any([np.broadcast_to(mark, program.shapes[name]) for mark in met], axis=0)
            made[stored] = np.where(here.reshape(values.shape), 0.0, values)
    return made


def finite(context: Context) -> bool:
    """Whether all stored weights are finite: without that no gauge is the least, and no spectrum can be told."""
    model = context.structure.program.model
    stored = (model.tensors[name] for name in set(context.structure.program.weights.values()))
    return all(model.digests.of(tensor).finite for tensor in stored)


def moved(
    found: Iterable[Change], matching: Matching, old: Mapping[str, Array], new: Mapping[str, Array]
) -> tuple[Change, ...]:
    """The changes, those among them that only permute, scale or flip units called so.

    In the canonical gauge, which no such move of the weights changes, the sizes of a weight's rows and columns are the
    same but for their order. What a rotation or a shift has moved counts as changed.
    """
    pairs, one, two = Pairs(matching), matching.old.at(old), matching.new.at(new)
    made = []
    for change in found:
        if change.status in ("changed", "rescaled") and (values := pairs.values(change.index, one, two)) is not None:
            tolerance = ALIKE * max(COARSE.get(d, 1.0) for d in change.dtypes)
            near = _apart(*values[:2]) <= min(tolerance, SHARE * (change.relative or 0.0))
            made.append(replace(change, status="moved", rank=None) if near else change)
        else:
            made.append(change)
    return tuple(made)


def _apart(before: Array, after: Array) -> float:
    """The largest difference of the sizes of rows and columns, in order of size, relative to the largest.

    Infinite where a number is infinite or NaN: of such numbers no symmetry can be told.
    """
    worst = 0.0
    before, after = before.astype(np.float64, copy=False), after.astype(np.float64, copy=False)
    if not (np.isfinite(before).all() and np.isfinite(after).all()):
        return np.inf
    for power in (2, 4):
        for axis in range(max(before.ndim, 1)):
            others = tuple(k for k in range(before.ndim) if k != axis)
            sizes = [
                np.sort(np.sum(np.abs(x) ** power, axis=others).reshape(-1)) ** (1 / power) for x in (before, after)
            ]
            largest = float(sizes[0].max(initial=0.0)) or 1.0
            worst = max(worst, float(np.abs(sizes[0] - sizes[1]).max(initial=0.0)) / largest)
    return worst
