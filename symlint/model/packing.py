"""Packing: weights of which several share a byte, as the numbers that they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from symlint.model.graph import Array, Model, Node

PACKED = "com.microsoft.MatMulNBits"
_STORED: Mapping[str, Array] = MappingProxyType({})


def packed(model: Model) -> Mapping[str, Node]:
    """Stored tensor -> the product with blocks of few bits that reads it."""
    return {node.inputs[1]: node for node in model.graph.nodes if node.op == PACKED}


def unpacked(model: Model, node: Node, moved: Mapping[str, Array] = _STORED) -> tuple[Array, Array] | None:
    """The matrix (N, blocks block_size) of such a product, and its steps; None where its parts are not stored.

    Args:
        model: the model that has the parts.
        node: the product.
        moved: stored tensors that have other values.
    """
    bits, rows, block = (
        int(node.attributes.get("bits", 4)),
        int(node.attributes["N"]),
        int(node.attributes["block_size"]),
    )
    names = (*node.inputs[1:4], "")[:3]
    given = [moved[n] if n in moved else model.tensors[n].read() if n in model.tensors else None for n in names]
    if 8 % bits or given[0] is None or given[1] is None:
        return None
    levels = _apart(given[0], bits, rows)
    steps = given[1].astype(np.float64).reshape(rows, -1)
    blocks = steps.shape[1]
    zeros = np.full((rows, blocks), 2.0 ** (bits - 1))
    if len(node.inputs) > 3 and node.inputs[3]:
        if given[2] is None:
            return None
        zeros = _apart(given[2], bits, rows)[:, :blocks] if given[2].dtype == np.uint8 else given[2].reshape(rows, -1)
    wide, offset = np.repeat(steps, block, axis=1), np.repeat(zeros.astype(np.float64), block, axis=1)
    return (levels[:, : wide.shape[1]] - offset) * wide, np.abs(wide)


def _apart(stored: Array, bits: int, rows: int) -> Array:
    """Numbers of some bits, the lowest first, row by row."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    apart = (stored.astype(np.uint8).reshape(rows, -1, 1) >> shifts) & np.uint8(2**bits - 1)
    return apart.reshape(rows, -1).astype(np.float64)
