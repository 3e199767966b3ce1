"""One factor of a product as rows, and the part of it that means nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from symlint.clusters import ABSENT

Matrix = NDArray[np.float64]
SAME = 1e-9
"""Singular values of a change below this, relative to the largest, are rounding."""


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """One factor of a product: rows of weights as stored over the n units."""

    rows: NDArray[Any]
    blocks: NDArray[np.int64]
    """Rows with one number are mixed by a rotation of their own, so that only their common size means something."""
    free: Matrix
    """Columns (rows, t): the factor may change by each of them times any vector, so that they mean nothing."""

    @property
    def lost(self) -> int:
        """By how much the free columns lower the rank that the factor can have."""
        return int(self.free.shape[1])

    @property
    def there(self) -> NDArray[np.bool_]:
        """Rows that are not nothing, or need not be."""
        some = (np.abs(self.rows) > ABSENT).any(axis=1) | self.free.any(axis=1)
        return np.asarray(np.bincount(self.blocks, some)[self.blocks] > 0)

    @property
    def capacity(self) -> int:
        """The rank that the factor could have; where all is nothing every row could have been something."""
        written = (np.abs(self.rows) > ABSENT).any()
        return (int(np.count_nonzero(self.there)) if written else len(self.rows)) - self.lost

    @property
    def unit(self) -> Matrix:
        """Those rows in float64, each block of mean square one, less their part along the free columns."""
        there = self.there | ~np.isfinite(self.rows).all(axis=1)
        wide, blocks = self.rows[there].astype(np.float64), self.blocks[there]
        square = np.einsum("ij,ij->i", wide, wide)
        square = np.bincount(blocks, square)[blocks] / np.bincount(blocks)[blocks]
        size = np.where(square > ABSENT**2, square, square.mean() if square.any() else 1.0) ** -0.5
        basis = orthonormal(self.free[there] * size[:, None])
        wide *= size[:, None]
        return np.asarray(wide - basis @ (basis.T @ wide))


def columns(change: NDArray[Any]) -> Matrix:
    """A basis of the columns w of a change (rows, n) that was drawn at random: shape (rows, t).

    There is none where everything may change, as in a pair of layers beside another: no product is observed there, and
    the one that is stored is as good as any.
    """
    found = orthonormal(change)
    return found if found.shape[1] < change.shape[1] else found[:, :0]


def orthonormal(matrix: NDArray[Any]) -> Matrix:
    """An orthonormal basis of the columns of a matrix."""
    if not matrix.any():
        return np.zeros((len(matrix), 0))
    left, size, _ = np.linalg.svd(matrix, full_matrices=False)
    return np.asarray(left[:, size > SAME * size[0]])
