"""Operators along places in a fixed order: windows, signals, and their forms with channels last."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from symlint.model.operators import enter, op
from symlint.operators.layout import known
from symlint.operators.linear import averaged, convolve, group_norm, seen
from symlint.program.functions import MixKind
from symlint.program.lower import Ref, Tracer, Unsupported
from symlint.program.steps import NONE, SUM


@op("MaxPool", "AveragePool", exact=True)
@op("LpPool")
def pool(t: Tracer, x: Ref) -> tuple[Ref, ...]:
    """https://onnx.ai/onnx/operators/onnx__MaxPool.html"""
    op, attributes = t.node.op, t.node.attributes
    padded = any(attributes.get("pads", ())) or str(attributes.get("auto_pad", "NOTSET")).startswith("SAME")
    # A norm grows with the number of what it takes in, and so does an average that counts what lies beyond the border.
    counted = attributes.get("count_include_pad", 0) and (padded or attributes.get("ceil_mode", 0))
    steady = op == "MaxPool" or (op == "AveragePool" and not counted)
    x = t.apply(x, 1, "Abs") if t.node.op == "LpPool" else x
    kernel = list(attributes.get("kernel_shape", ()))
    strides, pads = list(attributes.get("strides", ())), list(attributes.get("pads", ()))
    windows = seen(
        *(t, x, kernel, t.result()[2:], strides or [1] * len(kernel), pads or [0] * (2 * len(kernel))), kept=False
    )
    return (
        t.mix(
            *(x, [0, 1, *[None] * (x.rank - 2)], MixKind.POOLING),
            steady=steady,
            linear=op == "AveragePool",
            # What is counted beyond the border depends on how far its windows reach.
            windows=windows if steady else (),
        ),
    )


enter(("Resize", "Upsample"), told=True)


@op("GlobalAveragePool", exact=True)
def global_average(t: Tracer, x: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__GlobalAveragePool.html"""
    places = " ".join(f"s{k}" for k in range(x.rank - 2))
    summed = t.einsum(f"b c {places} -> b c {' '.join('1' for _ in range(x.rank - 2))}", x)
    return averaged(t, summed, prod(x.shape[2:]))


@op("GlobalMaxPool", exact=True)
@op("GlobalLpPool")
def global_extremum(t: Tracer, x: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__GlobalMaxPool.html"""
    return t.fold(x, range(2, x.rank), keepdims=True, law=SUM, function=t.node.op)


@op("Resize", "Upsample", exact=True)
def resize(
    t: Tracer,
    x: Ref,
    roi: Ref | None,
    *,
    coordinate_transformation_mode: str = "half_pixel",
    extrapolation_value: float = 0.0,
    axes: tuple[int, ...] = (),
) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Resize.html"""
    made = t.result()
    cropped = coordinate_transformation_mode == "tf_crop_and_resize"
    whole = _uncut(roi, [a % x.rank for a in axes] or range(x.rank)) if cropped else range(x.rank)
    keep = [k if n == m and k in whole else None for k, (n, m) in enumerate(zip(x.shape, made, strict=True))]
    # What lies beyond the input is a number of its own, which no scale moves.
    law = NONE if cropped and extrapolation_value else SUM
    return t.mix(x, keep, MixKind.RESIZING, law=law, steady=not cropped)


def _uncut(roi: Ref | None, axes: Sequence[int]) -> frozenset[int]:
    """The axes of which a box takes all, from 0 to 1: first come where it begins, then where it ends."""
    if roi is None or roi.value is None or not roi.fixed:
        return frozenset()
    starts, ends = roi.value.reshape(2, len(axes)).tolist()
    return frozenset(axis for axis, a, b in zip(axes, starts, ends, strict=True) if (a, b) == (0, 1))


@op("CumSum")
def cumulative(t: Tracer, x: Ref, axis: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__CumSum.html"""
    along = int(known(axis).reshape(-1)[0]) % x.rank
    return t.mix(x, [None if k == along else k for k in range(x.rank)], MixKind.SUM)


@op("ReverseSequence", exact=True)
def reverse_sequence(t: Tracer, x: Ref, lengths: Ref, *, batch_axis: int = 1, time_axis: int = 0) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__ReverseSequence.html"""
    keep = [None if k in (batch_axis, time_axis) else k for k in range(x.rank)]
    return t.mix(x, keep, MixKind.REVERSED_SEQUENCE)


def first(t: Tracer, x: Ref) -> Ref:
    """``b c ...`` from ``b ... c``."""
    return t.transpose(x, (0, x.rank - 1, *range(1, x.rank - 1)))


def last(t: Tracer, x: Ref) -> Ref:
    """``b ... c`` from ``b c ...``."""
    return t.transpose(x, (0, *range(2, x.rank), 1))


def pool_last(t: Tracer, x: Ref) -> Ref:
    """Windows over all axes between the first and the last."""
    average = t.node.op.endswith("AveragePool")
    padded = average and any(t.node.attributes.get("pads", ()))
    keep = [0, *[None] * (x.rank - 2), x.rank - 1]
    return t.mix(x, keep, MixKind.POOLING, steady=not padded, linear=average)


@op("com.microsoft.NhwcMaxPool", exact=True)
def max_pool_last(t: Tracer, x: Ref) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.NhwcMaxPool"""
    return pool_last(t, x)


@op("com.microsoft.GroupNorm")
def group_norm_last(
    t: Tracer, x: Ref, gain: Ref, bias: Ref, *, groups: int, channels_last: int = 1, activation: int = 0
) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.GroupNorm"""
    made = group_norm(t, first(t, x) if channels_last else x, gain, bias, num_groups=groups)
    made = t.apply(made, None, "Swish") if activation else made
    return last(t, made) if channels_last else made


@op("com.microsoft.SkipGroupNorm")
def skip_group_norm(
    t: Tracer,
    x: Ref,
    gain: Ref,
    bias: Ref,
    skip: Ref,
    more: Ref | None,
    *,
    groups: int,
    channels_last: int = 1,
    activation: int = 0,
) -> tuple[Ref, ...]:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.SkipGroupNorm"""
    thin = [1] * (x.rank - 2)
    channels = (*thin, x.shape[-1]) if channels_last else (x.shape[1], *thin)
    skip = t.reshape(skip, (skip.shape[0], *channels)) if skip.rank == 2 else skip
    whole = t.add(x, skip, more and t.reshape(more, channels))
    made = group_norm_last(t, whole, gain, bias, groups=groups, channels_last=channels_last, activation=activation)
    return made, whole


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
