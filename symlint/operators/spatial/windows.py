"""Pooling, resizing and other maps along axes in a fixed order."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from symlint.model.operators import enter, op
from symlint.operators.layout import known
from symlint.operators.linear import seen
from symlint.operators.reduce import averaged
from symlint.program.lower import Ref, Tracer
from symlint.program.mixing import MixKind
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
