"""Operators from levels to levels: their float counterparts between a lift from one grid and a rounding to another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from symlint.model.operators import op
from symlint.operators.contributed.fused import embedded
from symlint.operators.elementwise.pointwise import prelu
from symlint.operators.linear import convolve, matmul
from symlint.operators.quantised.grids import lift, lift_bias, lower
from symlint.operators.reduce import total
from symlint.operators.spatial.channels import first, last, pool_last
from symlint.operators.spatial.windows import global_average, pool
from symlint.program.lower import Ref, Tracer
from symlint.program.steps import NONE


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
