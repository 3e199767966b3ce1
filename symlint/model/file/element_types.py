"""The element types of tensors: ONNX's codes, numpy's words, widths, how bytes become numbers and several share one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from symlint.model.graph import Array, Model, Node

STRING = 8
WORDS = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    STRING: "string",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    14: "complex64",
    15: "complex128",
    16: "bfloat16",
    17: "float8_e4m3fn",
    18: "float8_e4m3fnuz",
    19: "float8_e5m2",
    20: "float8_e5m2fnuz",
    21: "uint4",
    22: "int4",
    23: "float4_e2m1fn",
    24: "float8_e8m0fnu",
    25: "uint2",
    26: "int2",
    27: "float6_e2m3fn",
    28: "float6_e3m2fn",
}
"""Code of a type in TensorProto -> its name in numpy, or in ml_dtypes where numpy has none."""
CODES = {word: code for code, word in WORDS.items()}
BITS = {
    code: bits
    for bits, codes in {
        0: (STRING,),
        2: (25, 26),
        4: (21, 22, 23),
        6: (27, 28),
        8: (2, 3, 9, 17, 18, 19, 20, 24),
        16: (4, 5, 10, 16),
        32: (1, 6, 12),
        64: (7, 11, 13, 14),
        128: (15,),
    }.items()
    for code in codes
}
"""Bits of a stored element; types of fewer than eight are packed."""


def numpy_type(code: int) -> np.dtype[Any]:
    """The numpy type of an ONNX type. Raises ValueError for one that has none."""
    word = WORDS.get(code, "string")
    if word == "string":
        raise ValueError(f"the element type {code} has no numbers")
    known: np.dtype[Any]
    try:
        known = np.dtype(word)
    except TypeError:  # one of machine learning's own, whose name numpy knows only once they were imported
        import ml_dtypes

        known = np.dtype(getattr(ml_dtypes, word))
    return known


def decode(data: NDArray[np.uint8], code: int, count: int) -> Array:
    """The numbers in bytes that are stored as in a file (little-endian, packed); a view where that is possible."""
    kind = numpy_type(code)
    if BITS[code] < 8:
        return _UNPACK[BITS[code]](data)[:count].view(kind)
    found = data.view(kind)
    return found.byteswap() if sys.byteorder == "big" else found


def _quarters(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.stack([data >> shift & 0x03 for shift in (0, 2, 4, 6)], -1).reshape(-1)


def _halves(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    found = np.empty(2 * data.size, np.uint8)
    np.bitwise_and(data, 0x0F, out=found[0::2])
    np.right_shift(data, 4, out=found[1::2])
    return found


def _sixths(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    padded = np.zeros((-(-data.size // 3), 3), np.uint8)
    padded.reshape(-1)[: data.size] = data
    first, second, third = padded.T
    parts = (first & 63, first >> 6 | (second & 15) << 2, second >> 4 | (third & 3) << 4, third >> 2)
    return np.stack(parts, -1).reshape(-1)


_UNPACK: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {2: _quarters, 4: _halves, 6: _sixths}


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
