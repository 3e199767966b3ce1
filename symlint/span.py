"""Spans of sparse rows: their rank, and which rows add to it."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import TypeVar

import numpy as np

from symlint.graph import Array

K = TypeVar("K", bound=Hashable)


def rank(rows: Sequence[Mapping[K, Fraction]]) -> int:
    """The number of independent rows."""
    return len(_basis(_matrix(rows, _columns(rows))))


def independent(rows: Sequence[Mapping[K, Fraction]], known: Sequence[Mapping[K, Fraction]]) -> Iterator[int]:
    """The numbers of those rows that are in the span neither of the known ones nor of the rows before them."""
    columns = _columns([*known, *rows])
    basis = _basis(_matrix(known, columns))
    for k, row in enumerate(_matrix(rows, columns)):
        rest = row - basis.T @ (basis @ row)
        if np.linalg.norm(rest) > 1e-9 * max(float(np.linalg.norm(row)), 1e-9):
            basis = np.vstack([basis, rest / np.linalg.norm(rest)])
            yield k


def _columns(rows: Sequence[Mapping[K, Fraction]]) -> dict[K, int]:
    return {place: k for k, place in enumerate(dict.fromkeys(place for row in rows for place in row))}


def _matrix(rows: Sequence[Mapping[K, Fraction]], columns: Mapping[K, int]) -> Array:
    made = np.zeros((len(rows), len(columns)))
    for k, row in enumerate(rows):
        for place, c in row.items():
            made[k, columns[place]] = float(c)
    return made


def _basis(rows: Array) -> Array:
    """An orthonormal basis of what rows span."""
    if not rows.size:
        return np.zeros((0, rows.shape[1]))
    _, size, across = np.linalg.svd(rows, full_matrices=False)
    return np.asarray(across[size > 1e-9 * max(size[0], 1e-9)])
