"""Weights of which several share a byte, and rows of them a scale: products with them, and lookups."""

from __future__ import annotations

from math import prod

from symlint.model.operators import op
from symlint.operators.layout import gather, known
from symlint.operators.linear import matmul
from symlint.operators.quantised.grids import lift
from symlint.program.lower import Ref, Tracer, Unsupported
from symlint.program.mixing import MixKind
from symlint.program.steps import NONE


def unpack(t: Tracer, x: Ref, width: int, each: int) -> Ref:
    """`width` numbers along the last axis, of which every byte holds `each`."""
    if each == 1:
        return x
    apart = t.mix(x, [*range(x.rank), None], MixKind.PACKED_BYTES, law=NONE, shape=(*x.shape, each))
    return t.slice(t.reshape(apart, (*x.shape[:-1], x.shape[-1] * each)), x.rank - 1, 0, width)


def blocked(
    t: Tracer, x: Ref, b: Ref, scales: Ref, zeros: Ref | None, bias: Ref | None, k: int, n: int, bits: int, block: int
) -> Ref:
    """The product with a matrix ``n k`` whose rows fall into blocks with a scale and a zero point."""
    if 8 % bits:
        raise Unsupported(f"{bits} bits fill no byte")
    blocks, each = -(-k // block), 8 // bits
    w = unpack(t, t.reshape(b, (n, prod(b.shape) // n)), blocks * block, each)
    if zeros is not None:
        rows = t.reshape(zeros, (n, prod(zeros.shape) // n))
        zeros = unpack(t, rows, blocks, 1 if rows.shape[1] == blocks else each)
    w = lift(t, w, t.reshape(scales, (n, blocks)), zeros, 1, block)
    return t.add(t.einsum("... k, n k -> ... n", x, t.slice(w, 1, 0, k)), bias)


@op("com.microsoft.MatMulNBits")
def matmul_blocks(
    t: Tracer,
    x: Ref,
    b: Ref,
    scales: Ref,
    zeros: Ref | None,
    order: Ref | None,
    bias: Ref | None,
    *,
    K: int,  # noqa: N803
    N: int,  # noqa: N803
    bits: int = 4,
    block_size: int,
) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MatMulNBits"""
    if order is not None:
        raise Unsupported("its rows are grouped by an index")
    return blocked(t, x, b, scales, zeros, bias, K, N, bits, block_size)


def _normed(t: Tracer, x: Ref, skip: Ref | None, gain: Ref | None) -> tuple[Ref, Ref]:
    """The operand of fused products, and the sum before its norm."""
    whole = t.add(x, skip)
    return (whole if gain is None else t.multiply(t.normalise(whole, [-1], function="rms"), gain)), whole


@op("com.microsoft.MatMulNBitsMlp")
def gated_blocks(
    t: Tracer,
    x: Ref,
    skip: Ref | None,
    gain: Ref | None,
    gate: Ref,
    gate_scales: Ref,
    gate_bias: Ref | None,
    up: Ref,
    up_scales: Ref,
    up_bias: Ref | None,
    *,
    K: int,  # noqa: N803
    N: int,  # noqa: N803
    bits: int = 4,
    block_size: int,
) -> tuple[Ref, ...]:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MatMulNBitsMlp"""
    normed, whole = _normed(t, x, skip, gain)
    left = blocked(t, normed, gate, gate_scales, None, gate_bias, K, N, bits, block_size)
    right = blocked(t, normed, up, up_scales, None, up_bias, K, N, bits, block_size)
    return t.multiply(t.apply(left, None, "Gate"), right), whole


@op("com.microsoft.MatMulNBitsQkv")
def qkv_blocks(
    t: Tracer,
    x: Ref,
    skip: Ref | None,
    gain: Ref,
    *parts: Ref | None,
    K: int,  # noqa: N803
    Nq: int,  # noqa: N803
    Nkv: int,  # noqa: N803
    bits: int = 4,
    block_size: int,
) -> tuple[Ref, ...]:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MatMulNBitsQkv"""
    normed, whole = _normed(t, x, skip, gain)
    padded = [*parts, *[None] * (9 - len(parts))]
    made = []
    for n, (b, scales, bias) in zip((Nq, Nkv, Nkv), (padded[:3], padded[3:6], padded[6:]), strict=True):
        if b is None or scales is None:
            raise Unsupported("it lacks a matrix")
        made.append(blocked(t, normed, b, scales, None, bias, K, n, bits, block_size))
    return *made, whole


@op("com.microsoft.MatMulBnb4")
def matmul_bnb4(
    t: Tracer,
    x: Ref,
    b: Ref,
    scales: Ref,
    *,
    K: int,  # noqa: N803
    N: int,  # noqa: N803
    block_size: int,
    transB: int = 1,  # noqa: N803
) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MatMulBnb4"""
    count = prod(scales.shape)
    if count * block_size != K * N:
        raise Unsupported("a block that is not full")
    if not transB:  # onnxruntime multiplies by the transpose all the same, whatever lies behind it
        raise Unsupported("a matrix that is not transposed")
    levels = unpack(t, t.reshape(b, (count, block_size // 2)), block_size, 2)
    w = t.reshape(t.multiply(t.pointwise(NONE, levels), t.reshape(scales, (count, 1))), (N, K))
    return t.einsum("... k, n k -> ... n", x, w)


@op("com.microsoft.MatMulFpQ4")
def matmul_blob(t: Tracer, x: Ref, blob: Ref, shape: Ref) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MatMulFpQ4"""
    made = [int(n) for n in known(shape)]
    return matmul(t, x, t.mix(blob, [None] * len(made), MixKind.PACKED_WEIGHTS, law=NONE, shape=made))


@op("com.microsoft.GatherBlockQuantized")
def gather_blocks(
    t: Tracer,
    x: Ref,
    indices: Ref,
    scales: Ref,
    zeros: Ref | None,
    *,
    bits: int = 4,
    block_size: int = 128,
    quantize_axis: int = 1,
    gather_axis: int = 0,
) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.GatherBlockQuantized"""
    axis, end = quantize_axis % x.rank, x.rank - 1
    size = block_size or x.shape[axis]
    # A byte holds several numbers where the table is shorter than its scales tell.
    each, told = 8 // bits, scales.shape[-1] * (size if axis == end else 1)
    each = each if x.shape[-1] * each <= told else 1
    table = unpack(t, x, x.shape[-1] * each, each)
    if zeros is not None and zeros.shape != scales.shape:
        zeros = unpack(t, zeros, scales.shape[-1], each)
    return gather(t, lift(t, table, scales, zeros, axis, size), indices, axis=gather_axis)
