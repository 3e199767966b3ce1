"""Sampling, transforms and old image operators: maps along places in a fixed order that keep the channels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from symlint.lower import Ref, Tracer, Unsupported
from symlint.operators.linear import windows
from symlint.program import NONE
from symlint.registry import op


@op("GridSample", "RoiAlign", "MaxRoiPool")
def sample(t: Tracer, x: Ref, places: Ref, batch: Ref | None) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__GridSample.html"""
    t.unknown([r for r in (places, batch) if r is not None], [], "it is an index", opaque=False)
    linear = t.node.op != "MaxRoiPool" and t.node.attributes.get("mode") != "max"
    return t.mix(x, [None, 1, *[None] * (x.rank - 2)], "places computed at run time", linear=linear)


@op("CenterCropPad")
def center(t: Tracer, x: Ref, shape: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__CenterCropPad.html"""
    made = t.result()
    return t.mix(x, [k if n == m else None for k, (n, m) in enumerate(zip(x.shape, made, strict=True))], "a cut")


@op("DFT")
def fourier(t: Tracer, x: Ref, length: Ref | None, place: Ref | None, *, axis: int | None = None) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__DFT.html"""
    if place is not None and place.value is None:
        raise Unsupported("its axis is computed at run time", opaque=False)
    default = 1 if t.node.opset < 20 else -2
    along = int(place.value.reshape(())) if place is not None and place.value is not None else axis
    along = (default if along is None else along) % x.rank
    return t.mix(x, [None if k in (along, x.rank - 1) else k for k in range(x.rank)], "a Fourier transform")


@op("STFT")
def short_fourier(t: Tracer, x: Ref, step: Ref, window: Ref | None, length: Ref | None) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__STFT.html"""
    if window is not None:
        t.unknown([window], [], "a window in a fixed order", opaque=False)
    return t.mix(x, [0, None, None, None], "a Fourier transform")


@op("Det")
def determinant(t: Tracer, x: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Det.html"""
    return t.mix(x, list(range(x.rank - 2)), "a determinant", law=NONE, shape=x.shape[:-2])


@op("Col2Im")
def fold_columns(t: Tracer, x: Ref, image: Ref, block: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Col2Im.html"""
    made = t.result()
    apart = t.reshape(x, (x.shape[0], made[1], x.shape[1] // made[1], x.shape[2]))
    return t.mix(apart, [0, 1, *[None] * (len(made) - 2)], "overlapping windows")


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
    if offset_group > 1 or w.rank != 4:
        raise Unsupported("offsets of several groups")
    t.unknown([r for r in (offset, mask) if r is not None], [], "places computed at run time", opaque=False)
    still = t.mix(x, [None, 1, None, None], "places computed at run time", shape=x.shape)
    patches = windows(t, still, w.shape[2:], t.result()[2:], (), (1,))
    y = t.einsum("b (g i) u v h w, (g o) i u v -> b (g o) h w", patches, w, g=group)
    return y if bias is None else t.add(y, t.reshape(bias, (1, bias.shape[0], 1, 1)))


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
    return t.mix(x, [None if k == along else k for k in range(x.rank)], "an ordered product", law=NONE)
