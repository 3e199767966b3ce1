"""Operators that only rearrange: regrouping, reordering, repeating, joining and cutting axes.

Indices: what picks the largest, as one-hot rows, and lookups and writes at indices, whose axes stay in place.

A router that chooses experts permutes with them: TopK writes its indices as choice times 0, 1, 2 ... Where a Gather,
an Equal or a OneHot reads them, the choice stands in for the numbers, which nothing reads any more then.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from typing import TypeGuard

import numpy as np

from symlint.model.graph import Array
from symlint.model.operators import enter, op
from symlint.program.functions import MixKind
from symlint.program.lower import Ref, Tracer, Unsupported
from symlint.program.steps import CONSTANT, NONE, SUM, Einsum, Law, Slice, Step, rearranges

CHOOSERS = ("TopK", "ArgMax", "ArgMin")


@op("TopK")
def top_k(t: Tracer, x: Ref, k: Ref, *, axis: int = -1, sorted: int = 1) -> tuple[Ref, Ref]:
    """https://onnx.ai/onnx/operators/onnx__TopK.html"""
    at = axis % x.rank
    if not sorted:  # in an order that may depend on where the largest stand
        keep = [None if a == at else a for a in range(x.rank)]
        values = t.mix(x, keep, MixKind.UNSORTED, linear=False)
        return values, t.mix(x, keep, MixKind.UNSORTED, law=NONE, shape=t.result(1))
    last = t.transpose(x, [*(a for a in range(x.rank) if a != at), at])
    ranked = t.normalise(last, [-1], law=CONSTANT, function="TopK")
    shape = (*last.shape[:-1], t.result(1)[at], x.shape[at])
    chosen = t.mix(ranked, [*range(x.rank - 1), None, x.rank - 1], MixKind.RANKING, law=NONE, shape=shape)
    order = [*range(at), x.rank - 1, *range(at, x.rank - 1)]
    largest = t.einsum("... k e, ... e -> ... k", chosen, last)
    return t.transpose(largest, order), t.transpose(_numbered(t, chosen), order)


@op("ArgMax", "ArgMin")
def arg_max(t: Tracer, x: Ref, *, axis: int = 0) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__ArgMax.html"""
    at = axis % x.rank
    last = t.transpose(x, [*(a for a in range(x.rank) if a != at), at])
    function = "Hardmax" if t.node.op == "ArgMax" else "Hardmin"
    return t.reshape(_numbered(t, t.normalise(last, [-1], law=CONSTANT, function=function)), t.result())


def _numbered(t: Tracer, chosen: Ref) -> Ref:
    """The indices that are chosen."""
    return t.einsum("... e, e -> ...", chosen, t.constant(np.arange(chosen.shape[-1])))


def choice(t: Tracer, indices: Ref) -> Ref | None:
    """The one-hot rows behind indices that a ranking made and only layout has changed since, units last."""
    step, path = t.makers.get(indices.name), list[Einsum | Slice]()
    while isinstance(step, Slice) or _layout(step):
        path.append(step)
        step = t.makers.get(step.operands[0])
    if not isinstance(step, Einsum) or step.node.op not in CHOOSERS or len(step.operands) < 2:
        return None
    size = step.sizes[step.specs[1][0][0]]
    places = tuple(step.sizes[x] for axis in step.result for x in axis)
    made = Ref(step.operands[0], (*places, size))
    for moved in reversed(path):
        if isinstance(moved, Slice):
            made = t.slice(made, moved.axis, moved.start, moved.stop)
        else:
            spec, result = (*moved.specs[0], ("chosen",)), (*moved.result, ("chosen",))
            made = t.contract([made], [spec], result, {**moved.sizes, "chosen": size})
    return made


def _layout(step: Step | None) -> TypeGuard[Einsum]:
    """Whether a step only rearranges one operand, and sums over nothing."""
    if not rearranges(step):
        return False
    read = sorted(label for axis in step.specs[0] for label in axis)
    return read == sorted(label for axis in step.result for label in axis)


def compared(t: Tracer, a: Ref, b: Ref) -> Ref | None:
    """``a == b`` as a part of the choice behind one of them, where the other is a number or all numbers in order."""
    for indices, number in ((a, b), (b, a)):
        chosen = choice(t, indices) if number.value is not None else None
        if chosen is None or number.value is None:
            continue
        size, values = chosen.shape[-1], number.value.reshape(-1)
        if values.size == 1 and 0 <= values[0] < size:
            chosen = t.slice(chosen, chosen.rank - 1, int(values[0]), int(values[0]) + 1)
        elif not (np.array_equal(values, np.arange(size)) and indices.shape[-1:] == (1,) != number.shape[-1:]):
            continue
        return t.reshape(chosen, np.broadcast_shapes(a.shape, b.shape))
    return None


def looked_up(t: Tracer, x: Ref, along: int, chosen: Ref) -> Ref:
    """Rows of axis `along` of x, as many as are chosen, in its place."""
    labels: Sequence[tuple[str, ...]] = [(f"x{k}",) for k in range(x.rank)]
    rows = [(f"r{k}",) for k in range(chosen.rank - 1)]
    sizes = {f"x{k}": n for k, n in enumerate(x.shape)} | {f"r{k}": n for k, n in enumerate(chosen.shape[:-1])}
    result = (*labels[:along], *rows, *labels[along + 1 :])
    return t.contract([chosen, x], [(*rows, labels[along]), tuple(labels)], result, sizes)


def chosen(t: Tracer, index: Ref, *values: Ref, reduction: str = "none") -> Ref:
    """Values of one shape, chosen by an index element by element."""
    moving = [x for x in values if x.value is None or np.any(x.value)] or list(values[:1])
    law = NONE if reduction == "mul" else Law("sum", (None, *(Fraction(1) for _ in moving)))
    function = "Max" if reduction in ("max", "min") else "Where"
    return t.expand(t.pointwise(law, index, *moving, function=function), values[0].shape)


def _beside(t: Tracer, x: Ref, axis: int, shape: Sequence[int], law: Law = SUM) -> Ref:
    """`x` addressed along `axis`: the axes of another length have been cut as well."""
    if x.value is not None and not np.any(x.value):
        return t.constant(np.zeros(shape, x.value.dtype))
    keep = [k if k != axis and x.shape[k] == n else None for k, n in enumerate(shape)]
    return t.mix(x, keep, MixKind.LOOKUP, law=law, shape=shape)


def _addresses(t: Tracer, indices: Ref, axis: int, shape: Sequence[int]) -> Ref:
    """Indices along `axis`, once for all places of every other axis along which they were repeated."""
    maker, once, full = t.makers.get(indices.name), indices, list(shape)
    for k in range(indices.rank):
        repeated = rearranges(maker) and not _read(maker, maker.result[k])
        if indices.value is not None:
            repeated = bool(np.all(indices.value == indices.value.take([0], axis=k)))
        if k != axis and repeated:
            once, full[k] = t.slice(once, k, 0, 1), 1
    return _beside(t, once, axis, full, NONE)


def _read(step: Einsum, labels: Sequence[str]) -> bool:
    """Whether the only operand of a contraction has one of the labels."""
    return not set(labels).isdisjoint(label for axis in step.specs[0] for label in axis)


enter(("Scatter", "ScatterElements", "ScatterND"), scatters=True)


@op("GatherElements", exact=True)
def gather_elements(t: Tracer, x: Ref, indices: Ref, *, axis: int = 0) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__GatherElements.html"""
    at, shape = axis % x.rank, indices.shape
    if (line := _line(indices, at)) is not None and shape[:at] + shape[at + 1 :] == x.shape[:at] + x.shape[at + 1 :]:
        return t.take(x, at, line)
    return chosen(t, _addresses(t, indices, at, shape), _beside(t, x, at, shape))


@op("ScatterElements", "Scatter", exact=True)
def scatter_elements(t: Tracer, x: Ref, indices: Ref, updates: Ref, *, axis: int = 0, reduction: str = "none") -> Ref:
    """https://onnx.ai/onnx/operators/onnx__ScatterElements.html"""
    at, shape = axis % x.rank, x.shape
    line, beside = _line(indices, at), indices.shape[:at] + indices.shape[at + 1 :]
    if line is not None and reduction == "none" and beside == shape[:at] + shape[at + 1 :]:
        return _written(t, x, at, line, updates)
    index = _addresses(t, indices, at, shape)
    return chosen(t, index, _beside(t, x, at, shape), _beside(t, updates, at, shape), reduction=reduction)


@op("GatherND", exact=True)
@op("com.microsoft.GatherND")
def gather_nd(t: Tracer, x: Ref, indices: Ref, *, batch_dims: int = 0) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__GatherND.html"""
    line = _line(indices, batch_dims) if indices.rank == batch_dims + 2 and indices.shape[-1] == 1 else None
    if line is not None:
        return t.take(x, batch_dims, line)
    t.unknown([indices], [], "it is an index", opaque=False)
    keep = [*[None] * (indices.rank - 1), *range(batch_dims + indices.shape[-1], x.rank)]
    shape = (*indices.shape[:-1], *x.shape[batch_dims + indices.shape[-1] :])
    return t.mix(x, keep, MixKind.LOOKUP, steady=True, shape=shape)


@op("ScatterND", exact=True)
def scatter_nd(t: Tracer, x: Ref, indices: Ref, updates: Ref, *, reduction: str = "none") -> Ref:
    """https://onnx.ai/onnx/operators/onnx__ScatterND.html"""
    deep, lead = indices.shape[-1], indices.rank - 1
    box = _box(indices.value, x.shape) if indices.value is not None and indices.fixed else None
    if box is not None and reduction == "none":
        axis, start, stop = box
        middle = t.reshape(updates, (*x.shape[:axis], stop - start, *x.shape[axis + 1 :]))
        pieces = [t.slice(x, axis, a, b) for a, b in ((0, start), (stop, x.shape[axis])) if b > a]
        return t.concat([*pieces[: start > 0], middle, *pieces[start > 0 :]], axis)
    if reduction == "none" and lead == deep == 1 and (line := _line(indices, 0)) is not None:
        return _written(t, x, 0, line, updates)
    t.unknown([indices], [], "it is an index", opaque=False)
    old = t.mix(x, [*[None] * deep, *range(deep, x.rank)], MixKind.LOOKUP, shape=x.shape) if not _zero(x) else x
    new = t.mix(updates, [*[None] * deep, *range(lead, updates.rank)], MixKind.LOOKUP, shape=x.shape)
    (index,) = t.unknown([], [()], "it is an index", opaque=False)
    return chosen(t, index, old, new, reduction=reduction)


def _line(indices: Ref, axis: int) -> Array | None:
    """Fixed indices along one axis that are the same beside it, one dimension of them; None where they are not."""
    if indices.value is None or not indices.fixed or not indices.value.size:
        return None
    lines = np.moveaxis(indices.value, axis, 0).reshape(indices.shape[axis], -1)
    return np.asarray(lines[:, 0]) if (lines == lines[:, :1]).all() else None


def _written(t: Tracer, x: Ref, axis: int, line: Array, updates: Ref) -> Ref:
    """Updates written over fixed indices of an axis: of old and new ones a choice."""
    size = x.shape[axis]
    places = np.arange(size)
    places[line % size] = size + np.arange(len(line))
    return t.take(t.concat([x, updates], axis), axis, places)


def _zero(x: Ref) -> bool:
    return x.value is not None and not np.any(x.value)


def _box(indices: Array, shape: Sequence[int]) -> tuple[int, int, int] | None:
    """(axis, start, stop) where the indices write all of a tensor but for the rest of one axis, in order."""
    deep = indices.shape[-1]
    flat = indices.reshape(-1, deep)
    if not len(flat):
        return None
    low, high = flat.min(0), flat.max(0) + 1
    partial = [k for k in range(deep) if (low[k], high[k]) != (0, shape[k])] or [0]
    sides = [np.arange(a, b) for a, b in zip(low, high, strict=True)]
    grid = np.stack(np.meshgrid(*sides, indexing="ij"), -1).reshape(-1, deep) if len(partial) == 1 else flat[:0]
    return (partial[0], int(low[partial[0]]), int(high[partial[0]])) if np.array_equal(grid, flat) else None


@op("OneHot")
def one_hot(t: Tracer, indices: Ref, depth: Ref, values: Ref, *, axis: int = -1) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__OneHot.html"""
    at = axis % (indices.rank + 1)
    chosen = choice(t, indices)
    known = values.value is not None and values.value.tolist() == [0, 1]
    if chosen is not None and chosen.shape[-1] == t.result()[at] and known:
        return t.transpose(chosen, [*range(at), indices.rank, *range(at, indices.rank)])
    keep: list[int | None] = list(range(indices.rank))
    keep.insert(at, None)
    t.unknown([values], [], "two numbers", opaque=False)
    return t.mix(indices, keep, MixKind.CLASS_INDEX, law=NONE)


@op("Compress")
def compress(t: Tracer, x: Ref, condition: Ref, *, axis: int | None = None) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Compress.html"""
    if axis is None:
        raise Unsupported("a choice of elements computed at run time", opaque=False)
    if condition.value is not None and condition.fixed:
        return t.take(x, axis % x.rank, np.flatnonzero(condition.value))
    t.unknown([condition], [], "it is an index", opaque=False)
    keep = [None if k == axis % x.rank else k for k in range(x.rank)]
    return t.mix(x, keep, MixKind.CHOICE)


@op("Trilu", exact=True)
@op("com.microsoft.Trilu")
def triangle(t: Tracer, x: Ref, k: Ref | None) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Trilu.html"""
    return t.mix(x, [*range(x.rank - 2), None, None], MixKind.TRIANGLE, shape=x.shape)


@op("TensorScatter")
def tensor_scatter(t: Tracer, x: Ref, updates: Ref, places: Ref | None, *, axis: int = -2) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__TensorScatter.html"""
    if places is not None:
        t.unknown([places], [], "it is an index", opaque=False)
    keep = [None if k in (0, axis % x.rank) else k for k in range(x.rank)]
    old, new = (t.mix(y, keep, MixKind.CACHE, shape=x.shape) for y in (x, updates))
    return chosen(t, t.unknown([], [()], "it is an index", opaque=False)[0], old, new)


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
