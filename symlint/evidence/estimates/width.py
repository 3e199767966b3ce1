"""The effective width of a space: how many equally strong units would do."""

from __future__ import annotations

import numpy as np

from symlint.evidence.context import Context
from symlint.evidence.estimates.once import estimates
from symlint.model.graph import Array
from symlint.symmetry.spaces import Space


def participation(energy: Array) -> float:
    """How many equal parts would be as evenly spread: the exponential of the entropy of the shares.

    Source: Roy and Vetterli, The Effective Rank (EUSIPCO 2007).
    """
    total = float(np.sum(energy))
    if not total > 0 or not np.isfinite(total):
        return 0.0
    shares = energy[energy > 0] / total
    return float(np.exp(-np.sum(shares * np.log(shares))))


def effective_width(context: Context, space: Space) -> float | None:
    """Of units that may be permuted, by their shares of all paths, over all copies; None where paths do not tell."""
    found = estimates(context)
    share = None if found.loose(space) else found.share(space)
    return None if share is None else participation(share)
