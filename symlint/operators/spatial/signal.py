"""Sampling, transforms and old image operators: maps along places in a fixed order that keep the channels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from symlint.model.operators import op
from symlint.operators.linear import convolve
from symlint.program.lower import Ref, Tracer, Unsupported
from symlint.program.mixing import MixKind
from symlint.program.steps import NONE


@op("GridSample", "RoiAlign", "MaxRoiPool", "com.microsoft.GridSample")
def sample(t: Tracer, x: Ref, places: Ref, batch: Ref | None) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__GridSample.html"""
    t.unknown([r for r in (places, batch) if r is not None], [], "it is an index", opaque=False)
    linear = t.node.op != "MaxRoiPool" and t.node.attributes.get("mode") != "max"
    shape = (*x.shape[:2], *places.shape[1:-1]) if t.node.op.endswith("GridSample") else None
    return t.mix(x, [None, 1, *[None] * (x.rank - 2)], MixKind.PLACES, linear=linear, shape=shape)


@op("AffineGrid")
def affine_grid(t: Tracer, theta: Ref, size: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__AffineGrid.html"""
    return t.mix(theta, [0, *[None] * (theta.shape[1]), 1], MixKind.GRID)


@op("CenterCropPad")
def center(t: Tracer, x: Ref, shape: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__CenterCropPad.html"""
    made = t.result()
    return t.mix(x, [k if n == m else None for k, (n, m) in enumerate(zip(x.shape, made, strict=True))], MixKind.CROP)


@op("DFT")
def fourier(t: Tracer, x: Ref, length: Ref | None, place: Ref | None, *, axis: int | None = None) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__DFT.html"""
    if place is not None and place.value is None:
        raise Unsupported("its axis is computed at run time", opaque=False)
    default = 1 if t.node.opset < 20 else -2
    along = int(place.value.reshape(())) if place is not None and place.value is not None else axis
    along = (default if along is None else along) % x.rank
    return t.mix(x, [None if k in (along, x.rank - 1) else k for k in range(x.rank)], MixKind.FOURIER)


@op("com.microsoft.Rfft", "com.microsoft.Irfft")
def real_fourier(t: Tracer, x: Ref) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.Rfft"""
    made, ends = t.result(), 1 if t.node.op.endswith("Rfft") else 2
    return t.mix(x, [k if k < x.rank - ends else None for k in range(len(made))], MixKind.FOURIER)


@op("STFT")
def short_fourier(t: Tracer, x: Ref, step: Ref, window: Ref | None, length: Ref | None) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__STFT.html"""
    if window is not None:
        t.unknown([window], [], "a window in a fixed order", opaque=False)
    return t.mix(x, [0, None, None, None], MixKind.FOURIER)


@op("Det")
def determinant(t: Tracer, x: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Det.html"""
    return t.mix(x, list(range(x.rank - 2)), MixKind.DETERMINANT, law=NONE, shape=x.shape[:-2])


@op("com.microsoft.Inverse")
def inverse(t: Tracer, x: Ref) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.Inverse"""
    return t.mix(x, [*range(x.rank - 2), None, None], MixKind.INVERSE, law=NONE, shape=x.shape)


@op("Col2Im")
def fold_columns(t: Tracer, x: Ref, image: Ref, block: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Col2Im.html"""
    made = t.result()
    apart = t.reshape(x, (x.shape[0], made[1], x.shape[1] // made[1], x.shape[2]))
    return t.mix(apart, [0, 1, *[None] * (len(made) - 2)], MixKind.OVERLAPPING)


@op("DeformConv")
def deform_conv(
    t: Tracer,
    x: Ref,
    w: Ref,
    offset: Ref,
    bias: Ref | None,
    mask: Ref | None,
    *,
    group: int = 1,
    offset_group: int = 1,
) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__DeformConv.html"""
    t.unknown([r for r in (offset, mask) if r is not None], [], "places computed at run time", opaque=False)
    # Each group of offsets looks at places of its own.
    apart = t.reshape(x, (x.shape[0], offset_group, x.shape[1] // offset_group, *x.shape[2:]))
    moved = t.mix(apart, [None, None, 2, *[None] * (x.rank - 2)], MixKind.PLACES, shape=apart.shape)
    return convolve(t, t.reshape(moved, x.shape), w, bias, t.result()[2:], group, (), (1,) * (2 * x.rank - 4))


@op("Crop")
def crop(t: Tracer, x: Ref, *, border: Sequence[int], scale: Sequence[int] = ()) -> Ref:
    """https://github.com/onnx/onnx/blob/v1.2.1/docs/Operators.md#Crop"""
    left, top, right, bottom = border
    high, wide = scale or (x.shape[2] - top - bottom, x.shape[3] - left - right)
    return t.slice(t.slice(x, 2, top, top + high), 3, left, left + wide)


@op("ImageScaler")
def image_scaler(t: Tracer, x: Ref, *, bias: Sequence[float] = ()) -> Ref:
    """https://github.com/onnx/onnx/blob/v1.2.1/docs/Operators.md#ImageScaler"""
    return t.add(x, t.constant(np.asarray(bias, np.float32).reshape(1, -1, 1, 1)) if bias else None)


@op("Affine", "ScaledTanh", "ParametricSoftplus")
def old_pointwise(t: Tracer, x: Ref, *, beta: float = 0.0) -> Ref:
    """https://github.com/onnx/onnx/blob/v1.2.1/docs/Operators.md#Affine"""
    return t.apply(x, 1 if t.node.op == "Affine" and not beta else None, t.node.op)


@op("SwiGLU")
def swiglu(t: Tracer, a: Ref, b: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__SwiGLU.html"""
    return t.multiply(t.apply(a, None, "Swish"), b)


@op("CumProd")
def cumulative_product(t: Tracer, x: Ref, axis: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__CumProd.html"""
    if axis.value is None:
        raise Unsupported("its axis is computed at run time", opaque=False)
    along = int(axis.value.reshape(-1)[0]) % x.rank
    return t.mix(x, [None if k == along else k for k in range(x.rank)], MixKind.PRODUCT, law=NONE)
