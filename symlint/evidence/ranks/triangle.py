"""The rank of many rows that are looked at one block after another."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from symlint.evidence.ranks.side import Matrix, Side
from symlint.evidence.ranks.spectrum import Rank, rank, surely_full


@dataclass
class Triangle:
    """Rows below each other, brought to a triangle as they come; in front the columns that mean nothing.

    A QR decomposition takes the part along the columns in front away from the others.
    """

    free: int
    rows: Matrix
    """Shape (up to free + n, free + n)."""
    present: int = 0
    """Rows that are not nothing."""
    seen: set[bytes] = field(default_factory=set)
    """What has been there already, number by number: exporters repeat what is shared."""

    def put(self, rows: Matrix, free: Matrix, given: NDArray[Any], *, stored: bool) -> None:
        """More rows (p, n) of size one, with the columns (p, t) along which they may change at will.

        ``given`` are the rows as they came. Where those are not `stored` so, rows may be repeated, which gives no rank.
        """
        there = (rows != 0).any(axis=1) | (free != 0).any(axis=1)
        keys = {given.tobytes()} if stored else {row.tobytes() for row in given[there]}
        fresh = keys - self.seen
        self.present += int(np.count_nonzero(there)) * len(fresh) if stored else len(fresh)
        self.seen |= fresh
        self.rows = np.asarray(np.linalg.qr(np.vstack([self.rows, np.hstack([free, rows])[there]]), mode="r"))

    def low(self, unit: float) -> Rank | None:
        """The rank, where it is below what rows and width allow; `unit` is half a unit in the last place."""
        rows = self.rows[self.free :, self.free :]
        bound = min(rows.shape[1], self.present - self.free)
        if bound <= 0 or not rows.any() or not np.isfinite(rows).all():
            return None
        found = rank(_plain(rows), _plain(np.eye(rows.shape[1])), bound, unit * _shrunk(rows, self.present))
        return found if found.low else None


def spanning(rows: Matrix, unit: float) -> bool:
    """Whether rows (p, n) that were of size one before they lost a part have rank n beyond doubt."""
    return surely_full(_plain(rows), _plain(np.eye(rows.shape[1])), unit * _shrunk(rows, len(rows)))


def _plain(rows: Matrix) -> Side:
    """Rows among which sizes mean something, so that they are one block."""
    return Side(rows, np.zeros(len(rows), np.int64), np.zeros((len(rows), 0)))


def _shrunk(rows: Matrix, count: int) -> float:
    """By how much more the rounding of rows weighs that lost a part: they will be brought to size one again."""
    size = float(np.linalg.norm(rows))
    return max(1.0, count**0.5 / size) if size else 1.0
