"""The rank of a product of two matrices, judged by the rounding noise of their numbers as stored.

Of a space on which GL(n) acts only the product of readers (Q x n) and writers (n x P) can be observed. Its singular
values are the same in every gauge; what rounding hides of them is not, so the noise is that of the factors, carried
through the product. Rows are brought to one size first, whereby scales outside the space do not count.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from symlint.evidence.ranks.side import Matrix, Side, Stack
from symlint.model.records import dataclass

CLEAR = 4.0
"""Singular values above this many times the noise are real."""
GAP = 16.0
"""How far the smallest kept value must lie above the noise and above the largest dropped one."""
CHANCE = 100.0
"""The same where it is one value that is dropped of a square matrix: in a random one the smallest is often small."""
COARSE_CHANCE = 1e4
"""The same in half precision, whose noise is near to what chance gives."""
SURE = 30.0
"""Directions of one factor alone that are this far above its noise are there in the product as well."""
COARSE = 50.0
"""Where the noise is more than one in this many of the largest value, nothing is said."""
RESOLUTION = 1e-6
"""Singular values relative to the largest that a Gram matrix in float64 tells from zero with a margin."""
LARGE = 1024
"""Above this width the certificate asks each factor for itself: a Cholesky factor is the cheapest proof of rank."""
SEVERAL = 2.0**-20
"""Number types finer than this can show that a product is nothing but noise."""
POINTS = 64
"""Singular values of a spectrum that are shown."""
_UNIFORM = 3.0**-0.5
"""Standard deviation of a number that is uniform in [-1, 1]."""


@dataclass(frozen=True, slots=True)
class Rank:
    """A rank, what it could have been, and the numbers that say so, relative to the largest singular value."""

    rank: int
    bound: int
    kept: float = 0.0
    """Smallest singular value that counts; 0 where none does."""
    dropped: float = 0.0
    """Largest one that does not."""
    tolerance: float = 0.0
    """What rounding alone makes of a zero."""
    values: tuple[float, ...] = ()
    """All singular values, as `few` of them as are drawn, where the rank is below its bound and something is there."""

    @property
    def low(self) -> bool:
        """Whether the rank is below its bound."""
        return self.rank < self.bound


def few(values: Sequence[float]) -> tuple[float, ...]:
    """Of a spectrum as many values as can be seen, at even distances, from the first to the last."""
    last = len(values) - 1
    chosen = range(last + 1) if last < POINTS else (k * last // (POINTS - 1) for k in range(POINTS))
    return tuple(float(f"{values[k]:.3g}") for k in chosen)


def surely_full(writers: Side, readers: Side, unit: float) -> bool:
    """Whether the product of readers (rows, n) and writers (rows, n) has rank n beyond doubt.

    Some of the rows are enough for a certificate: the others can only add to the rank.
    """
    a, b = writers.unit, readers.unit
    n = a.shape[1]
    if min(len(a) - writers.lost, len(b) - readers.lost) < n or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return False
    left, right = a.T @ a, b.T @ b
    if n > LARGE:
        return _beyond(left, unit) and _beyond(right, unit)
    size = np.sqrt(np.sum(np.diag(left) * np.diag(right)))
    noise = unit * _UNIFORM * size * (2.0 + len(a) ** -0.5 + len(b) ** -0.5)
    floor = np.array([max(2 * CLEAR * noise, RESOLUTION * size)])
    return bool(_definite(left[None], right[None], floor)[0])


def surely_full_each(writers: Stack, readers: Stack, unit: float) -> NDArray[np.bool_]:
    """The same for several copies at once."""
    (a, p), (b, q) = writers.unit(), readers.unit()
    n = a.shape[2]
    found = np.minimum(p - writers.free.shape[2], q - readers.free.shape[2]) >= n
    if not found.any() or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return np.zeros(len(a), bool)
    left, right = a.swapaxes(1, 2) @ a, b.swapaxes(1, 2) @ b
    if n > LARGE:
        each = [_beyond(x, unit) and _beyond(y, unit) for x, y in zip(left, right, strict=True)]
        return np.asarray(found & each)
    size = np.sqrt(np.einsum("cii,cii->c", left, right))
    noise = unit * _UNIFORM * size * (2.0 + np.maximum(p, 1) ** -0.5 + np.maximum(q, 1) ** -0.5)
    floor = np.maximum(2 * CLEAR * noise, RESOLUTION * size)
    return np.asarray(found & _definite(left, right, floor))


def _definite(left: Matrix, right: Matrix, floor: Matrix) -> NDArray[np.bool_]:
    """Whether no singular value of the product of two factors with these Gram matrices is below its floor."""
    try:
        root = np.linalg.cholesky(left)
        product = root.swapaxes(1, 2) @ right @ root
        np.linalg.cholesky(product - (floor * floor)[:, None, None] * np.eye(left.shape[1]))
    except np.linalg.LinAlgError:  # of some; there is no telling which
        if len(left) == 1:
            return np.zeros(1, bool)
        parts = [_definite(left[k : k + 1], right[k : k + 1], floor[k : k + 1]) for k in range(len(left))]
        return np.concatenate(parts)
    return np.ones(len(left), bool)


def _beyond(gram: Matrix, unit: float) -> bool:
    """Whether all singular values of a factor with this Gram matrix are far above its noise, by one Cholesky."""
    floor = SURE * unit * _UNIFORM * (1.0 + float(np.sqrt(np.diag(gram).max())))
    floor = max(floor, 10 * RESOLUTION * float(np.sqrt(_norm(gram))))
    return _root(gram - floor * floor * np.eye(len(gram))) is not None


def _root(gram: Matrix) -> Matrix | None:
    """The Cholesky factor; None where the matrix is not positive definite."""
    try:
        return np.asarray(np.linalg.cholesky(gram))
    except np.linalg.LinAlgError:
        return None


def rank(writers: Side, readers: Side, bound: int, unit: float) -> Rank:
    """The rank of the product of readers (rows, n) and writers (rows, n).

    Args:
        writers, readers: rows of nothing are left out.
        bound: what the rank could be.
        unit: half a unit in the last place of the stored numbers, relative.

    The rank is the bound unless a drop is clear: values at the noise, a wide gap, and a noise that resolves something.
    """
    full, a, b = Rank(bound, bound), writers.unit, readers.unit
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return full
    if not a.any() or not b.any():
        return Rank(0, bound)
    n = a.shape[1]
    left, right = _triangle(a), _triangle(b)
    values = np.zeros(max(bound, 1))
    found = _values(right @ left.T)[:bound]
    values[: len(found)] = found
    noise = max(_noise(left, right, len(a), len(b), unit), unit * values[0])
    kept = int(np.count_nonzero(values > CLEAR * noise))
    if kept >= bound:
        return full
    sizes = [n, len(a) - writers.lost, len(b) - readers.lost]
    alone = [(_values(r), _alone(r, unit), size) for r, size in ((left, sizes[1]), (right, sizes[2]))]
    sure = sum(int(np.count_nonzero(s > SURE * floor)) for s, floor, _ in alone) - n
    kept = max(kept, min(sure, int(np.count_nonzero(values > CLEAR * unit * values[0]))))
    if kept == 0:
        return Rank(0, bound, tolerance=1.0) if unit < SEVERAL else full
    if kept >= bound or noise > values[0] / COARSE:
        return full
    chance = CHANCE if unit < SEVERAL else COARSE_CHANCE
    best = _drop(values[:bound], noise, kept, sorted(sizes)[1] - min(sizes), chance) or bound
    for s, floor, count in alone:
        # A factor alone shows a drop that the other's bad gauge hides in the product.
        lower = _drop(s[: min(n, count)], floor, kept, abs(n - count), chance)
        best = min(best, lower) if lower else best
    if best >= bound:
        return full
    top = float(values[0])
    values /= values[0]
    return Rank(best, bound, float(values[best - 1]), float(values[best]), float(noise) / top, few(values.tolist()))


def _drop(values: Matrix, noise: float, kept: int, spare: int, chance: float) -> int | None:
    """Where the widest gap above the noise is, at `kept` or later; None where none is wide enough.

    The d smallest singular values of a random matrix with `spare` dimensions to spare are all below a small x with a
    probability of about x^(d (d + spare)).
    """
    found: dict[int, float] = {}
    for r in range(kept, len(values)):
        gap, dropped = values[r - 1] / max(values[r], noise), len(values) - r
        if values[r] <= CLEAR * noise and gap >= max(GAP, chance ** (1 / (dropped * (dropped + spare)))):
            found[r] = gap
    return max(found, key=found.__getitem__, default=None)


def _noise(left: Matrix, right: Matrix, p: int, q: int, unit: float) -> float:
    """Spectral norm of what independent roundings of all elements change in the product.

    With Z of independent elements of size one, |M Z| is about |M|_F + sqrt(columns) |M|_2; here M is one factor with
    its columns scaled by the lengths of the other's.
    """
    ours, theirs = _lengths(left), _lengths(right)
    size = float(np.linalg.norm(ours * theirs))
    carried = size * (p**-0.5 + q**-0.5) + _norm(right * ours) + _norm(left * theirs)
    return float(unit * _UNIFORM * carried + _computed(left) * _norm(left) * _norm(right))


def _alone(factor: Matrix, unit: float) -> float:
    """Spectral norm of the rounding noise of one factor with rows of one size."""
    return float(unit * _UNIFORM * (1.0 + _lengths(factor).max()) + _computed(factor) * _norm(factor))


def _computed(factor: Matrix) -> float:
    """What float64 itself adds to singular values, relative to the largest."""
    return float(np.finfo(np.float64).eps * factor.shape[1])


def _lengths(rows: Matrix) -> Matrix:
    """The length of every column."""
    return np.asarray(np.sqrt(np.einsum("ij,ij->j", rows, rows)))


def _triangle(rows: Matrix) -> Matrix:
    """A square matrix, or a flat one, with the singular values of the rows."""
    return np.asarray(np.linalg.qr(rows, mode="r"))


def _norm(matrix: Matrix) -> float:
    """The largest singular value, by a few steps of power iteration: a per cent is enough for a noise."""
    if not matrix.any():
        return 0.0
    x = _lengths(matrix) + 1e-300
    for _ in range(12):
        x = matrix.T @ (matrix @ (x / np.linalg.norm(x)))
    return float(np.sqrt(np.linalg.norm(x)))


def _values(matrix: Matrix) -> Matrix:
    return np.asarray(np.linalg.svd(matrix, compute_uv=False))
