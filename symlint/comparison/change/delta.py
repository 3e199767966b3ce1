"""The rank of a difference of two matrices: what an adapter that was merged has added has few directions."""

from __future__ import annotations

import numpy as np

from symlint.evidence.estimates.width import participation
from symlint.model.graph import Array
from symlint.model.records import dataclass

PROBES = 72
"""Directions that a first look draws; up to a rank below this no singular values of a wide matrix are needed."""
SMALL = 256
"""Up to this width all singular values are computed at once."""
WIDEST = 4096
"""Beyond this a rank that a first look does not show is not told."""
CLEAR = 4.0
"""Singular values above this many times the noise of rounding are real."""
SHARP = 2.0**-26
"""What a Gram matrix in float64 tells from zero, relative to the largest singular value."""


@dataclass(frozen=True, slots=True)
class Rank:
    """How many directions a matrix has, and how many of them matter."""

    numerical: int | None
    """Singular values above what rounding alone makes; None where it is too wide to be told."""
    effective: float | None
    """The exponential of the entropy of the squared singular values' shares."""
    full: int


def rank(matrix: Array, noise: float) -> Rank:
    """The rank of a matrix in float64, each element of which carries noise of this standard deviation."""
    rows, columns = matrix.shape
    full = min(rows, columns)
    floor = CLEAR * noise * (np.sqrt(rows) + np.sqrt(columns))
    if not np.isfinite(matrix).all():
        return Rank(None, None, full)
    if full > SMALL:
        found = _sketched(matrix)
        rest = max(float(np.sum(np.square(matrix)) - np.sum(found**2)), 0.0)
        if found[-1] <= floor and rest <= max(4 * noise**2 * matrix.size, 1e-20 * float(np.sum(found**2))):
            return _told(found, floor, full)
    if full > WIDEST:
        return Rank(None, None, full)
    if full > SMALL:
        gram = matrix @ matrix.T if rows <= columns else matrix.T @ matrix
        values = np.sqrt(np.maximum(np.linalg.eigvalsh(gram)[::-1], 0.0))
        return _told(values, max(floor, SHARP * float(values[0])), full)
    return _told(np.linalg.svd(matrix, compute_uv=False), floor, full)


def _sketched(matrix: Array) -> Array:
    """The largest singular values, by a random sketch; exact for a matrix of low rank."""
    probes = np.random.default_rng(20231129).normal(size=(matrix.shape[1], PROBES))
    basis, _ = np.linalg.qr(matrix @ probes)
    return np.asarray(np.linalg.svd(basis.T @ matrix, compute_uv=False))


def _told(values: Array, floor: float, full: int) -> Rank:
    kept = values[values > max(floor, 1e-12 * float(values[0]))]
    return Rank(len(kept), participation(kept**2) if len(kept) else 0.0, full)
