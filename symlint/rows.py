"""Rows of known weights over unknown bases, and the bases that they make."""

from __future__ import annotations

import numpy as np

from symlint.clusters import ABSENT, proportional
from symlint.graph import Array
from symlint.values import Labels, Names


def combine(names: Names, labels: Labels, scale: Array, columns: Array, tolerance: float) -> tuple[Labels, Array]:
    """Labels and scales ``b p o`` from bases ``b p r`` (passing labels p) and weights ``b o r a`` (read along a)."""
    batch, many, read = labels.shape
    out, along = columns.shape[1], columns.shape[3]
    if read == 1:
        rows = (columns[:, None] * scale[:, :, None, :, None]).reshape(-1, along)
        keys = np.broadcast_to(labels, (batch, many, out)).reshape(-1)
        fixed = np.where(keys == 0, rows.sum(axis=1, dtype=np.float64), 0.0)
        return _finish(names, keys, np.where((keys == 0)[:, None], 0.0, rows), fixed, (batch, many, out), tolerance)
    keys_of: dict[bytes, int] = {}
    keys_found: list[Labels] = []
    rows_of: list[Array] = []
    fixed_of: list[Array] = []
    for b in range(batch):
        for p in range(many):
            distinct, inverse = np.unique(labels[b, p], return_inverse=True)
            key = keys_of.setdefault(distinct.tobytes(), len(keys_of) + 1)
            block = columns[b] if np.all(scale[b, p] == 1) else columns[b] * scale[b, p][None, :, None]
            constant = distinct[0] == 0
            fixed_of.append(
                block[:, labels[b, p] == 0].sum(axis=(1, 2), dtype=np.float64) if constant else np.zeros(out)
            )
            if len(distinct) < read or constant:
                merged = np.zeros((len(distinct), out, along))
                np.add.at(merged, inverse.reshape(-1), block.transpose(1, 0, 2))
                block = merged[1 if constant else 0 :].transpose(1, 0, 2)
            elif not np.array_equal(inverse.reshape(-1), np.arange(read)):
                block = block[:, np.argsort(labels[b, p])]
            only = np.array([x in names.uniform for x in distinct if x], bool)
            moving = not only.all() if len(only) else True
            keys_found.append(np.full(out, key if moving else -key))
            rows_of.append(block.reshape(out, -1))
    width = max(r.shape[1] for r in rows_of)
    padded = [r if r.shape[1] == width else np.pad(r, ((0, 0), (0, width - r.shape[1]))) for r in rows_of]
    rows = padded[0] if len(padded) == 1 else np.concatenate(padded)
    return _finish(names, np.concatenate(keys_found), rows, np.concatenate(fixed_of), (batch, many, out), tolerance)


def _finish(
    names: Names, keys: Labels, rows: Array, fixed: Array, dims: tuple[int, int, int], tolerance: float
) -> tuple[Labels, Array]:
    """Rows to labels: multiples of one row are one base; a row of zeros is a number."""
    if fixed.any():
        rows = np.concatenate([rows, fixed[:, None]], axis=1)
    grouping = proportional(keys, rows, tolerance)
    base = names.derive(grouping.group)
    largest = np.abs(rows).max(axis=1) if rows.shape[1] else np.zeros(len(rows))
    still = np.abs(rows[:, : rows.shape[1] - int(fixed.any())]).max(axis=1, initial=0.0) < ABSENT
    names.uniform.update(base[(keys < 0) & ~still].tolist())
    labels = np.where(still, 0, base)
    scale = np.where(still, fixed, np.where(largest < ABSENT, 0.0, grouping.factor))
    return labels.reshape(dims), scale.reshape(dims)
