"""Operators that only rearrange: regrouping, reordering, repeating, joining and cutting axes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from symlint.model.graph import Array
from symlint.model.operators import enter, op
from symlint.operators.indices import choice, looked_up
from symlint.program.lower import Ref, Tracer, Unsupported
from symlint.program.mixing import MixKind


def known(x: Ref | None) -> Array:
    """The value of an operand that decides a layout.

    Raises `Unsupported`, not as opaque, where it is computed at run time.
    """
    if x is None or x.value is None:
        raise Unsupported("its layout is computed at run time", opaque=False)
    return x.value


enter(("Gather", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Split"), layout=True)
enter(("Pad",), told=True)


@op("Reshape", "Flatten", "Squeeze", "Unsqueeze", exact=True)
def reshape(t: Tracer, x: Ref, shape: Ref | None) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Reshape.html"""
    return t.reshape(x, t.result())


@op("Transpose", exact=True)
def transpose(t: Tracer, x: Ref, *, perm: Sequence[int] | None = None) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Transpose.html"""
    return t.transpose(x, perm if perm is not None else range(x.rank)[::-1])


@op("Expand", exact=True)
def expand(t: Tracer, x: Ref, shape: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Expand.html"""
    return t.expand(x, t.result())


@op("Tile", exact=True)
def tile(t: Tracer, x: Ref, repeats: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Tile.html"""
    times = known(repeats)
    apart = t.reshape(x, [n for size in x.shape for n in (1, size)])
    return t.reshape(
        t.expand(apart, [n for r, size in zip(times, x.shape, strict=True) for n in (int(r), size)]), t.result()
    )


@op("DepthToSpace", exact=True)
def depth_to_space(t: Tracer, x: Ref, *, blocksize: int, mode: str = "DCR") -> Ref:
    """https://onnx.ai/onnx/operators/onnx__DepthToSpace.html"""
    inner = "(u v c)" if mode == "DCR" else "(c u v)"
    return t.einsum(f"b {inner} h w -> b c (h u) (w v)", x, u=blocksize, v=blocksize)


@op("SpaceToDepth", exact=True)
def space_to_depth(t: Tracer, x: Ref, *, blocksize: int, mode: str = "DCR") -> Ref:
    """https://onnx.ai/onnx/operators/onnx__SpaceToDepth.html"""
    inner = "(u v c)" if mode == "DCR" else "(c u v)"
    return t.einsum(f"b c (h u) (w v) -> b {inner} h w", x, u=blocksize, v=blocksize)


@op("Concat", exact=True)
def concat(t: Tracer, *parts: Ref, axis: int) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Concat.html"""
    return t.concat(parts, axis % parts[0].rank)


@op("Split", exact=True)
def split(
    t: Tracer, x: Ref, sizes: Ref | None, *, axis: int = 0, split: Sequence[int] | None = None
) -> tuple[Ref, ...]:
    """https://onnx.ai/onnx/operators/onnx__Split.html"""
    along = axis % x.rank
    shapes = [t.result(k) for k in range(len(t.node.outputs))]
    if sizes is not None and (sizes.value is None or not sizes.fixed):
        keep = [None if k == along else k for k in range(x.rank)]
        t.unknown([sizes], [], "it is an index", opaque=False)
        return tuple(t.mix(x, keep, MixKind.SPLIT, shape=shape) for shape in shapes)
    ends = np.cumsum([0, *(shape[along] for shape in shapes)])
    return tuple(t.slice(x, along, int(a), int(b)) for a, b in pairwise(ends))


@op("Slice", exact=True)
def slice_(
    t: Tracer,
    x: Ref,
    starts: Ref | None,
    ends: Ref | None,
    axes: Ref | None,
    steps: Ref | None,
) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Slice.html"""
    old = t.node.attributes
    first = known(starts).tolist() if starts else list(old["starts"])
    last = known(ends).tolist() if ends else list(old["ends"])
    along = known(axes).tolist() if axes else list(old.get("axes", range(len(first))))
    stride = known(steps).tolist() if steps else [1] * len(first)
    for axis, start, stop, step in zip(along, first, last, stride, strict=True):
        a, b, c = slice(start, stop if step > 0 or stop >= -x.shape[axis] else None, step).indices(x.shape[axis])
        if len(range(a, b, c)) == 0:
            raise Unsupported("it takes nothing", opaque=False)
        moving = any(bound is not None and not bound.fixed for bound in (starts, ends))
        if c < 0 or (moving and len(range(a, b, c)) < x.shape[axis]):
            keep = [None if k == axis % x.rank else k for k in range(x.rank)]
            shape = list(x.shape)
            shape[axis] = len(range(a, b, c))
            x = t.mix(x, keep, MixKind.MOVING_CUT if moving else MixKind.REVERSED_AXIS, shape=shape)
        else:
            x = t.slice(x, axis % x.rank, a, b, c)
    return x


@op("Gather", exact=True)
def gather(t: Tracer, x: Ref, indices: Ref, *, axis: int = 0) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Gather.html"""
    along = axis % x.rank
    if indices.value is not None and indices.fixed:
        return t.take(x, along, indices.value)
    if (chosen := choice(t, indices)) is not None and chosen.shape[-1] == x.shape[along]:
        return looked_up(t, x, along, chosen)
    if indices.value is None:
        t.unknown([indices], [], "it is an index", opaque=False)
    keep = [*range(along), *[None] * indices.rank, *range(along + 1, x.rank)]
    shape = (*x.shape[:along], *indices.shape, *x.shape[along + 1 :])
    return t.mix(x, keep, MixKind.LOOKUP, steady=True, shape=shape)


_PADDINGS = {
    "edge": MixKind.PADDING_EDGE,
    "reflect": MixKind.PADDING_REFLECT,
    "wrap": MixKind.PADDING_WRAP,
}
"""What is made of the values beside the padding, by mode; a constant is put there by a concatenation."""
_MOVING_PADDINGS = {
    "constant": MixKind.MOVING_PADDING_CONSTANT,
    "edge": MixKind.MOVING_PADDING_EDGE,
    "reflect": MixKind.MOVING_PADDING_REFLECT,
    "wrap": MixKind.MOVING_PADDING_WRAP,
}
"""The same where the length is known at run time."""


@op("Pad", "com.microsoft.Pad", exact=True)
def pad(
    t: Tracer,
    x: Ref,
    pads: Ref | None,
    value: Ref | None,
    axes: Ref | None,
    *,
    mode: str = "constant",
) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Pad.html"""
    old = t.node.attributes
    amounts = known(pads).tolist() if pads else list(old.get("pads", old.get("paddings", ())))
    along = [int(a) % x.rank for a in known(axes)] if axes else list(range(x.rank))
    fill = t.constant(np.asarray(old.get("value", 0.0), np.float32)) if value is None else t.reshape(value, ())
    fill = fill if value is None or value.value is None else t.constant(value.value.astype(np.float32).reshape(()))
    if mode not in _MOVING_PADDINGS:
        raise Unsupported(f"it pads in the mode {mode!r}")
    kinds = _PADDINGS if pads is None or pads.fixed else _MOVING_PADDINGS
    for k, axis in enumerate(along):
        before, after = amounts[k], amounts[k + len(along)]
        if mode in kinds and (before or after):
            keep = [None if a == axis else a for a in range(x.rank)]
            shape = (*x.shape[:axis], x.shape[axis] + before + after, *x.shape[axis + 1 :])
            x = t.mix(x, keep, kinds[mode], shape=shape)
            continue
        x = t.slice(x, axis, max(-before, 0), x.shape[axis] - max(-after, 0))
        parts = [_filled(t, fill, (*x.shape[:axis], n, *x.shape[axis + 1 :])) for n in (before, after) if n > 0]
        x = t.concat([*parts[: before > 0], x, *parts[before > 0 :]], axis)
    return x


def _filled(t: Tracer, value: Ref, shape: Sequence[int]) -> Ref:
    """One number throughout a shape."""
    return t.expand(value, shape) if value.value is None else t.constant(np.broadcast_to(value.value, tuple(shape)))
