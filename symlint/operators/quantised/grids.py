"""Quantisation and operators on integers: nothing is scaled across them, scales and zero points are permuted along."""

from __future__ import annotations

from collections.abc import Sequence

from symlint.model.operators import op
from symlint.operators.linear import conv, matmul
from symlint.program.functions import Function, enter
from symlint.program.lower import Ref, Tracer, Unsupported
from symlint.program.steps import GRID, NONE, RANGE


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
