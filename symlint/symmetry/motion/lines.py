"""Lines: a weight as rows over the units of a space, each with the copy that it belongs to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from symlint.model.graph import Array
from symlint.symmetry.motion.action import Index, Stand


def lines(values: Array, stand: Stand, sizes: Sequence[int]) -> tuple[Array, Index]:
    """One occurrence of a space in a weight: (rows, n), and per row the copy, copy-major; -1 where it is not there.

    Args:
        values: the weight.
        stand: the occurrence.
        sizes: of the copy factors, in the order of the stand.
    """
    rest = [k for k in range(values.ndim) if k not in (*stand.others, stand.axis)]
    lead = len(stand.others)
    flat = values.transpose(*stand.others, *rest, stand.axis)
    flat = flat.reshape(*flat.shape[:lead], -1, flat.shape[-1])
    owner = _owners(stand, sizes, flat.shape[:lead])
    block = np.moveaxis(flat[..., stand.grid], lead + 1 + stand.place, -1)
    owner = owner.reshape((*owner.shape[:lead], 1, *owner.shape[lead:]))
    return block.reshape(-1, block.shape[-1]), np.broadcast_to(owner, block.shape[:-1]).reshape(-1)


def _owners(stand: Stand, sizes: Sequence[int], lead: tuple[int, ...]) -> Index:
    """The copy of each grid line: (others..., rest of the grid)."""
    index = np.zeros((1,) * stand.here.ndim, np.int64)
    for copy, size in zip(stand.copies, sizes, strict=True):
        index = index * size + copy
    grid = tuple(1 if k == stand.place else n for k, n in enumerate(stand.grid.shape))
    found = np.broadcast_to(np.where(stand.here, index, -1), (*lead, *grid))
    return found.reshape((*lead, *(n for k, n in enumerate(grid) if k != stand.place)))
