"""Quantised operators: grids, operators from levels to levels, and weights of which several share a byte."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from symlint.model.operators import Quantised, op
from symlint.model.operators import enter as enter_operator
from symlint.operators.contributed import embedded
from symlint.operators.elementwise import prelu
from symlint.operators.layout import gather, known
from symlint.operators.linear import conv, convolve, matmul, total
from symlint.operators.spatial import first, global_average, last, pool, pool_last
from symlint.program.functions import Function, MixKind, enter
from symlint.program.lower import Ref, Tracer, Unsupported
from symlint.program.steps import GRID, NONE, RANGE

_LINEAR = Quantised((3,), (1, 2, 4, 5, 6, 7))
_QUANTISED = {
    "QuantizeLinear": Quantised((), (1, 2)),
    "com.microsoft.QuantizeLinear": Quantised((), (1, 2)),
    "DequantizeLinear": Quantised((0,), (1, 2)),
    "com.microsoft.DequantizeLinear": Quantised((0,), (1, 2)),
    "QLinearConv": _LINEAR,
    "com.microsoft.QLinearConv": _LINEAR,
    "QLinearMatMul": _LINEAR,
    "ConvInteger": Quantised((1,), (2, 3)),
    "MatMulInteger": Quantised((1,), (2, 3)),
    "com.microsoft.MatMulInteger16": Quantised((1,)),
    "com.microsoft.QGemm": Quantised((3,), (1, 2, 4, 5, 7, 8)),
    "com.microsoft.DynamicQuantizeMatMul": Quantised((1,), (2, 3)),
    "com.microsoft.MatMulIntegerToFloat": Quantised((1,), (2, 3, 4, 5)),
    "com.microsoft.DynamicQuantizeLSTM": Quantised((1, 2), (8, 9, 10, 11)),
    "com.microsoft.QAttention": Quantised((1,), (3, 4, 6, 7)),
    "com.microsoft.QEmbedLayerNormalization": Quantised((2, 3, 4, 5, 6), tuple(range(8, 18))),
    "com.microsoft.GatherBlockQuantized": Quantised((0,), (2, 3), bits=("bits",)),
    "com.microsoft.QMoE": Quantised(
        (2, 5, 8), (3, 6, 9, 11, 12, 13, *range(15, 21)), bits=tuple(f"fc{k}_expert_weight_bits" for k in (1, 2, 3))
    ),
    "com.microsoft.MatMulNBits": Quantised((1,), (2, 3), rows=("N",)),
    "com.microsoft.MatMulNBitsMlp": Quantised((3, 6), (4, 7), rows=("N", "N")),
    "com.microsoft.MatMulNBitsQkv": Quantised((3, 6, 9), (4, 7, 10), rows=("Nq", "Nkv", "Nkv")),
    "com.microsoft.MatMulBnb4": Quantised((1,), (2,), rows=("N",)),
    "com.microsoft.MatMulFpQ4": Quantised((1,), shape=2),
}
for _name, _how in _QUANTISED.items():
    enter_operator((_name,), quantised=_how)


def spread_along(t: Tracer, x: Ref, level: Ref | None, axis: int, block: int = 0) -> Ref | None:
    """A scale or zero point, which is one number, a number per index of `axis`, or one per block, made to fit `x`."""
    if level is None or all(n == 1 for n in level.shape):
        return None if level is None else t.reshape(level, ())
    if level.rank == 1 and level.shape[0] == x.shape[axis]:
        return t.reshape(level, [n if k == axis else 1 for k, n in enumerate(x.shape)])
    if level.rank != x.rank or level.shape[axis] * block != x.shape[axis]:
        if level.rank == x.rank and all(n in (1, m) for n, m in zip(level.shape, x.shape, strict=True)):
            return level
        raise Unsupported(f"its scale {list(level.shape)} does not fit {list(x.shape)}")
    lead, tail = level.shape[: axis + 1], level.shape[axis + 1 :]
    return t.reshape(t.expand(t.reshape(level, (*lead, 1, *tail)), (*lead, block, *tail)), x.shape)


def lift(t: Tracer, x: Ref, scale: Ref | None, zero: Ref | None, axis: int, block: int = 0) -> Ref:
    """(x - zero) scale."""
    zero, scale = spread_along(t, x, zero, axis, block), spread_along(t, x, scale, axis, block)
    level = t.pointwise(NONE, x, function="Identity") if zero is None else t.pointwise(NONE, x, zero, function="Sub")
    return level if scale is None else t.multiply(level, scale)


def lower(t: Tracer, y: Ref, scale: Ref | None, zero: Ref | None, axis: int = 1, block: int = 0) -> Ref:
    """Rounding to a grid."""
    levels = (spread_along(t, y, level, axis % max(y.rank, 1), block) for level in (scale, zero))
    return t.pointwise(NONE, y, *(r for r in levels if r is not None), function="QuantizeLinear")


def lift_bias(t: Tracer, bias: Ref | None, x_scale: Ref, w_scale: Ref) -> Ref | None:
    """A bias in the levels that a product of levels has."""
    scale = t.multiply(t.reshape(x_scale, ()), w_scale)
    return None if bias is None else lift(t, bias, scale, None, bias.rank - 1)


@op("DequantizeLinear", exact=True)
@op("com.microsoft.DequantizeLinear")
def dequantize(t: Tracer, x: Ref, scale: Ref, zero: Ref | None, *, axis: int = 1, block_size: int = 0) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__DequantizeLinear.html"""
    return lift(t, x, scale, zero, axis % max(x.rank, 1), block_size)


enter(("QuantizeLinear",), Function(quantises=True))


@op("QuantizeLinear", "com.microsoft.QuantizeLinear")
def quantize(t: Tracer, x: Ref, scale: Ref, zero: Ref | None, *, axis: int = 1, block_size: int = 0) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html"""
    return lower(t, x, scale, zero, axis, block_size)


@op("DynamicQuantizeLinear")
def dynamic_quantize(t: Tracer, x: Ref) -> tuple[Ref, ...]:
    """https://onnx.ai/onnx/operators/onnx__DynamicQuantizeLinear.html"""
    scale, zero = (t.fold(x, range(x.rank), keepdims=False, law=NONE, function=RANGE) for _ in range(2))
    # Zero is on every grid, and a level of its own, so that zeros do not widen the range.
    return t.pointwise(NONE, t.pointwise(NONE, x, scale, zero, function=GRID), zero, function="Add"), scale, zero


@op("MatMulInteger", "com.microsoft.MatMulInteger16")
def matmul_integer(t: Tracer, a: Ref, b: Ref, a_zero: Ref | None, b_zero: Ref | None) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__MatMulInteger.html"""
    return matmul(t, lift(t, a, None, a_zero, max(a.rank - 2, 0)), lift(t, b, None, b_zero, b.rank - 1))


@op("com.microsoft.MatMulIntegerToFloat")
def matmul_integer_to_float(
    t: Tracer, a: Ref, b: Ref, a_scale: Ref, b_scale: Ref, a_zero: Ref | None, b_zero: Ref | None, bias: Ref | None
) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MatMulIntegerToFloat"""
    left = lift(t, a, a_scale, a_zero, max(a.rank - 2, 0))
    return t.add(matmul(t, left, lift(t, b, b_scale, b_zero, b.rank - 1)), bias)


@op("com.microsoft.DynamicQuantizeMatMul")
def dynamic_quantize_matmul(t: Tracer, a: Ref, b: Ref, scale: Ref, zero: Ref | None, bias: Ref | None) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.DynamicQuantizeMatMul"""
    level, step, origin = dynamic_quantize(t, a)
    left = lift(t, level, step, origin, max(a.rank - 2, 0))
    return t.add(matmul(t, left, lift(t, b, scale, zero, b.rank - 1)), bias)


@op("ConvInteger")
def conv_integer(
    t: Tracer, x: Ref, w: Ref, x_zero: Ref | None, w_zero: Ref | None, *, group: int = 1, pads: Sequence[int] = ()
) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__ConvInteger.html"""
    return conv(t, lift(t, x, None, x_zero, 1), lift(t, w, None, w_zero, 0), None, group=group, pads=pads)


@op("finn.custom_op.general.MultiThreshold", "qonnx.custom_op.general.MultiThreshold")
def multi_threshold(t: Tracer, x: Ref, thresholds: Ref, *, data_layout: str = "NCHW") -> Ref:
    """https://github.com/fastmachinelearning/qonnx/blob/main/src/qonnx/custom_op/general/multithreshold.py"""
    if data_layout != "NCHW" and x.rank > 2:
        raise Unsupported("its channels come last")
    wide = t.reshape(thresholds, (1, thresholds.shape[0], *[1] * (x.rank - 2), thresholds.shape[1]))
    passed = t.pointwise(NONE, t.reshape(x, (*x.shape, 1)), wide)
    return t.einsum("... n -> ...", passed)


@op("QLinearConv", "com.microsoft.QLinearConv")
def qlinear_conv(
    t: Tracer,
    x: Ref,
    x_scale: Ref,
    x_zero: Ref,
    w: Ref,
    w_scale: Ref,
    w_zero: Ref,
    y_scale: Ref,
    y_zero: Ref,
    bias: Ref | None,
    *,
    group: int = 1,
    strides: Sequence[int] = (),
    pads: Sequence[int] = (),
    channels_last: int = 0,
) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__QLinearConv.html"""
    levels = lift_bias(t, bias, x_scale, w_scale)
    places = t.result()[1:-1] if channels_last else t.result()[2:]
    level = lift(t, first(t, x) if channels_last else x, x_scale, x_zero, 1)
    made = convolve(t, level, lift(t, w, w_scale, w_zero, 0), levels, places, group, strides, pads)
    lowered = lower(t, made, y_scale, y_zero)
    return last(t, lowered) if channels_last else lowered


@op("QLinearMatMul")
def qlinear_matmul(
    t: Tracer, a: Ref, a_scale: Ref, a_zero: Ref, b: Ref, b_scale: Ref, b_zero: Ref, y_scale: Ref, y_zero: Ref
) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__QLinearMatMul.html"""
    left = lift(t, a, a_scale, a_zero, max(a.rank - 2, 0))
    return lower(t, matmul(t, left, lift(t, b, b_scale, b_zero, b.rank - 1)), y_scale, y_zero)


@op("com.microsoft.QGemm")
def qgemm(
    t: Tracer,
    a: Ref,
    a_scale: Ref,
    a_zero: Ref,
    b: Ref,
    b_scale: Ref,
    b_zero: Ref,
    c: Ref | None,
    y_scale: Ref | None,
    y_zero: Ref | None,
    *,
    transA: int = 0,  # noqa: N803
    transB: int = 0,  # noqa: N803
) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.QGemm"""
    left, right = lift(t, a, a_scale, a_zero, 0), lift(t, b, b_scale, b_zero, 0 if transB else 1)
    levels = lift_bias(t, c, a_scale, b_scale)
    made = t.einsum(f"{'k m' if transA else 'm k'}, {'n k' if transB else 'k n'} -> m n", left, right)
    return lower(t, t.add(made, levels), y_scale, y_zero)


@op("com.microsoft.QLinearAdd", "com.microsoft.QLinearMul")
def qlinear_binary(
    t: Tracer, a: Ref, a_scale: Ref, a_zero: Ref | None, b: Ref, b_scale: Ref, b_zero: Ref | None, *rest: Ref | None
) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.QLinearAdd"""
    both = lift(t, a, a_scale, a_zero, 0), lift(t, b, b_scale, b_zero, 0)
    return lower(t, t.pointwise(NONE, *both, function=t.node.op.rpartition("QLinear")[2]), *_two(rest))


@op("com.microsoft.QLinearLeakyRelu", "com.microsoft.QLinearSigmoid", "com.microsoft.QLinearSoftmax")
def qlinear_unary(
    t: Tracer,
    x: Ref,
    x_scale: Ref,
    x_zero: Ref | None,
    y_scale: Ref,
    y_zero: Ref | None,
    *,
    axis: int = -1,
    opset: int = 13,
    alpha: float = 0.01,
) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.QLinearLeakyRelu"""
    level = lift(t, x, x_scale, x_zero, 0)
    if t.node.op.endswith("Softmax"):
        level = t.normalise(level, range(axis % x.rank, x.rank) if opset < 13 else [axis], function="Softmax")
    elif t.node.op.endswith("Relu"):
        level = prelu(t, level, t.constant(np.asarray(alpha, np.float32)))
    else:
        level = t.apply(level, None, "Sigmoid")
    return lower(t, level, y_scale, y_zero)


@op("com.microsoft.QLinearGlobalAveragePool", "com.microsoft.QLinearAveragePool")
def qlinear_pool(
    t: Tracer, x: Ref, x_scale: Ref, x_zero: Ref | None, y_scale: Ref, y_zero: Ref | None, *, channels_last: int = 0
) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.QLinearAveragePool"""
    level = lift(t, x, x_scale, x_zero, 0)
    if "Global" in t.node.op:
        made = last(t, global_average(t, first(t, level))) if channels_last else global_average(t, level)
    else:
        made = pool_last(t, level) if channels_last else pool(t, level)[0]
    return lower(t, made, y_scale, y_zero)


@op("com.microsoft.QLinearWhere")
def qlinear_where(
    t: Tracer,
    condition: Ref,
    x: Ref,
    x_scale: Ref,
    x_zero: Ref,
    y: Ref,
    y_scale: Ref,
    y_zero: Ref,
    z_scale: Ref,
    z_zero: Ref,
) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.QLinearWhere"""
    both = lift(t, x, x_scale, x_zero, 0), lift(t, y, y_scale, y_zero, 0)
    return lower(t, t.pointwise(NONE, condition, *both, function="Where"), z_scale, z_zero)


@op("com.microsoft.QLinearReduceMean")
def qlinear_mean(
    t: Tracer,
    x: Ref,
    x_scale: Ref,
    x_zero: Ref | None,
    y_scale: Ref,
    y_zero: Ref | None,
    *,
    axes: Sequence[int] | None = None,
    keepdims: int = 1,
) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.QLinearReduceMean"""
    summed = total(t, lift(t, x, x_scale, x_zero, 0), None, axes=axes, keepdims=keepdims)
    return lower(t, summed, y_scale, y_zero)


@op("com.microsoft.MulInteger")
def mul_integer(t: Tracer, a: Ref, a_zero: Ref | None, b: Ref, b_zero: Ref | None) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MulInteger"""
    return t.pointwise(NONE, lift(t, a, None, a_zero, 0), lift(t, b, None, b_zero, 0), function="Mul")


@op("com.microsoft.QEmbedLayerNormalization")
def qembed_layer_norm(t: Tracer, words: Ref, segments: Ref | None, *levels: Ref | None) -> tuple[Ref, ...]:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.QEmbedLayerNormalization"""
    # Words, places, segments, gain and bias, then the mask, then as many scales and as many zero points.
    three = zip(levels[:5], levels[6:11], levels[11:], strict=True)
    made: list[Any] = [x and lift(t, x, scale, zero, x.rank - 1) for x, scale, zero in three]
    return embedded(t, words, segments, made[:3], made[3], made[4], levels[5], None)[:2]


@op("com.microsoft.QLinearConcat")
def qlinear_concat(t: Tracer, y_scale: Ref, y_zero: Ref | None, *parts: Ref | None, axis: int) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.QLinearConcat"""
    present: list[Any] = list(parts)
    levels = [lift(t, x, s, z, 0) for x, s, z in zip(present[::3], present[1::3], present[2::3], strict=True)]
    return lower(t, t.concat(levels, axis % levels[0].rank), y_scale, y_zero)


def _two(rest: Sequence[Ref | None]) -> tuple[Ref | None, Ref | None]:
    padded = (*rest, None, None)
    return padded[0], padded[1]


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
