"""How far two runs of networks are apart, output by output."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from symlint.model.graph import Array


def differences(before: Sequence[Array], after: Sequence[Array], *, levels: bool = False) -> tuple[float, ...]:
    """The difference of each output; infinite where shape, type or number of outputs differ."""
    if len(before) != len(after):
        return (float("inf"),) * len(before)
    return tuple(difference(x, y, levels=levels) for x, y in zip(before, after, strict=True))


def difference(before: Array, after: Array, *, levels: bool = False) -> float:
    """The largest difference, relative to the largest value of `before`; of integers and text the share that differs.

    Where integers are `levels` of something continuous, they count as other numbers do. Infinite values and NaN must be
    at the same places, else the difference is infinite.
    """
    if before.shape != after.shape or before.dtype != after.dtype:
        return float("inf")
    if not before.size:
        return 0.0
    if levels and before.dtype.kind in "iub":
        before, after = before.astype(np.float64), after.astype(np.float64)
    if before.dtype.kind not in "fc":
        return float(np.mean(before != after))
    finite = np.isfinite(before)
    if not finite.all():
        if not np.array_equal(before[~finite], after[~finite], equal_nan=True):
            return float("inf")
        before, after = before[finite], after[finite]
    if not np.isfinite(after).all():
        return float("inf")
    if not before.size or np.array_equal(before, after):
        return 0.0
    wide = np.complex128 if before.dtype.kind == "c" else np.float64
    gap = np.abs(before.astype(wide) - after.astype(wide)).max()
    # Below the smallest normal number there are no digits left to compare.
    return float(gap / max(np.abs(before).max(), np.finfo(before.dtype).tiny))
