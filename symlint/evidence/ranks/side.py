"""One factor of a product as rows, and the part of it that means nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from symlint.model.clusters import ABSENT
from symlint.model.records import dataclass

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


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """One factor of the products of several copies: rows (copies, p, n), blocks (copies, p), free (copies, p, t).

    The free columns need be neither orthonormal nor independent.
    """

    rows: NDArray[Any]
    blocks: NDArray[np.int64]
    free: Matrix

    def unit(self) -> tuple[Matrix, NDArray[np.int64]]:
        """For every copy what `Side.unit` is, with rows of zeros where nothing is; and how many others there are."""
        wide = self.rows.astype(np.float64)
        square = np.einsum("cij,cij->ci", wide, wide)
        there = (np.abs(self.rows) > ABSENT).any(axis=2) | self.free.any(axis=2)
        copies = len(wide)
        mixed = self.blocks + np.arange(copies)[:, None] * (int(self.blocks.max(initial=0)) + 1)
        names, inverse = np.unique(mixed, return_inverse=True)
        if len(names) < mixed.size:
            inverse = inverse.reshape(-1)
            square = (np.bincount(inverse, square.reshape(-1)) / np.bincount(inverse))[inverse].reshape(square.shape)
            there = (np.bincount(inverse, there.reshape(-1)) > 0)[inverse].reshape(there.shape)
        count = there.sum(axis=1)
        mean = (square * there).sum(axis=1, keepdims=True) / np.maximum(count, 1)[:, None]
        size = np.where(square > ABSENT**2, square, np.where(mean > 0, mean, 1.0)) ** -0.5
        wide *= (size * there)[:, :, None]
        if self.free.shape[2]:
            basis = np.linalg.qr(self.free * size[:, :, None])[0]
            wide -= basis @ (basis.swapaxes(1, 2) @ wide)
        return wide, count


def columns(change: NDArray[Any]) -> Matrix:
    """A basis of the columns w of a change (rows, n) that was drawn at random: shape (rows, t).

    There is none where everything may change, as in a pair of layers beside another: no product is observed there, and
    the one that is stored is as good as any.
    """
    found = orthonormal(change)
    return found if found.shape[1] < change.shape[1] else found[:, :0]


def orthonormal(matrix: NDArray[Any]) -> Matrix:
    """An orthonormal basis of the columns of a matrix that are numbers throughout."""
    matrix = matrix[:, np.isfinite(matrix).all(axis=0)]
    if not matrix.any():
        return np.zeros((len(matrix), 0))
    left, size, _ = np.linalg.svd(matrix, full_matrices=False)
    return np.asarray(left[:, size > SAME * size[0]])
