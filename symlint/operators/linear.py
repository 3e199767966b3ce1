"""Contractions: matrix products, Gemm and Einsum, convolutions.

Reductions: linear ones are contractions, the others symmetric folds.

Normalisations and softmax: maps along axes that commute with permutations.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import prod

import numpy as np

from symlint.model import operators
from symlint.model.operators import op
from symlint.operators.layout import known
from symlint.program.functions import Function, MixKind, enter
from symlint.program.lower import Ref, Tracer, Unsupported
from symlint.program.steps import CONSTANT, NONE, SUM, Law, Middle, Window


@op("MatMul", exact=True)
def matmul(t: Tracer, a: Ref, b: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__MatMul.html"""
    left, right = ("k" if a.rank == 1 else "... m k"), ("k" if b.rank == 1 else "... k n")
    made = " ".join(x for x, y in (("...", a.rank + b.rank > 2), ("m", a.rank > 1), ("n", b.rank > 1)) if y)
    return t.einsum(f"{left}, {right} -> {made}", a, b)


@op("Gemm", exact=True)
def gemm(
    t: Tracer,
    a: Ref,
    b: Ref,
    c: Ref | None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,  # noqa: N803
    transB: int = 0,  # noqa: N803
) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Gemm.html"""
    y = t.einsum(f"{'k m' if transA else 'm k'}, {'n k' if transB else 'k n'} -> m n", a, b)
    return t.add(times(t, y, alpha), None if c is None else times(t, c, beta))


def times(t: Tracer, x: Ref, number: float) -> Ref:
    """A tensor times a number, which mostly is 1."""
    return x if number == 1 else t.multiply(x, t.constant(np.asarray(number, np.float32)))


@op("Einsum", exact=True)
def einsum(t: Tracer, *operands: Ref, equation: str) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Einsum.html"""
    left, arrow, right = equation.replace(" ", "").partition("->")
    sides = left.split(",")
    if not arrow:
        letters = [c for c in sorted(set(left) - set(",.")) if left.count(c) == 1]
        right = ("..." if "..." in left else "") + "".join(letters)
    if any(len(set(s.replace("...", ""))) < len(s.replace("...", "")) for s in sides):
        raise Unsupported("it reads a diagonal")
    spaced = [" ".join(s.replace("...", ".")).replace(".", "...") for s in (*sides, right)]
    return t.einsum(f"{', '.join(spaced[:-1])} -> {spaced[-1]}", *operands)


@op("Conv", exact=True)
def conv(
    t: Tracer, x: Ref, w: Ref, b: Ref | None, *, group: int = 1, strides: Sequence[int] = (), pads: Sequence[int] = ()
) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Conv.html"""
    return convolve(t, x, w, b, t.result()[2:], group, strides, pads)


def convolve(
    t: Tracer,
    x: Ref,
    w: Ref,
    b: Ref | None,
    places: Sequence[int],
    group: int,
    strides: Sequence[int],
    pads: Sequence[int],
) -> Ref:
    """A convolution of which the output's places are known."""
    patches = windows(t, x, w.shape[2:], places, strides, pads)
    axes = " ".join(f"k{i}" for i in range(w.rank - 2))
    here = " ".join(f"o{i}" for i in range(w.rank - 2))
    if group == 1:
        y = t.einsum(f"b i {axes} {here}, o i {axes} -> b o {here}", patches, w)
    else:
        read, within = ("g", "1") if w.shape[1] == 1 else ("(g i)", "i")
        made = "g" if w.shape[0] == group else "(g o)"
        y = t.einsum(f"b {read} {axes} {here}, {made} {within} {axes} -> b {made} {here}", patches, w, g=group)
    return y if b is None else t.add(y, t.reshape(b, (1, b.shape[0], *[1] * (w.rank - 2))))


@op("com.microsoft.ConvTransposeWithDynamicPads")
def conv_transpose_padded(t: Tracer, x: Ref, w: Ref, pads: Ref | None, b: Ref | None, *, group: int = 1) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.ConvTransposeWithDynamicPads"""
    return conv_transpose(t, x, w, b, group=group)


@op("ConvTranspose", exact=True)
def conv_transpose(t: Tracer, x: Ref, w: Ref, b: Ref | None, *, group: int = 1) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__ConvTranspose.html"""
    spatial = w.rank - 2
    shape = (*x.shape[:2], *w.shape[2:], *t.result()[2:])
    keep = [0, 1, *[None] * (2 * spatial)]
    patches = t.mix(x, keep, MixKind.CONVOLUTION, shape=shape)
    axes = " ".join(f"k{i}" for i in range(spatial))
    here = " ".join(f"o{i}" for i in range(spatial))
    y = t.einsum(f"b (g i) {axes} {here}, (g i) o {axes} -> b (g o) {here}", patches, w, g=group)
    return y if b is None else t.add(y, t.reshape(b, (1, b.shape[0], *[1] * spatial)))


def windows(
    t: Tracer, x: Ref, kernel: Sequence[int], places: Sequence[int], strides: Sequence[int], pads: Sequence[int]
) -> Ref:
    """``b c k0 k1 o0 o1``: for every output place the window that a kernel sees; a 1 x 1 kernel keeps the places."""
    spatial = len(kernel)
    steps, edges = list(strides) or [1] * spatial, list(pads) or [0] * (2 * spatial)
    plain = [k == 1 and n == m and s == 1 for k, n, m, s in zip(kernel, x.shape[2:], places, steps, strict=True)]
    plain = [same and not edges[i] and not edges[i + spatial] for i, same in enumerate(plain)]
    keep = [0, 1, *[None] * spatial, *[2 + i if same else None for i, same in enumerate(plain)]]
    told = t.node.attributes.get("auto_pad", "NOTSET") in ("NOTSET", "VALID")
    apart = list(t.node.attributes.get("dilations", ())) or [1] * spatial
    centre = [Middle(2 + i, 2 + spatial + i, 2 + i, edges[i] // apart[i], steps[i]) for i in range(spatial)]
    whole = told and all(not edges[i] % apart[i] and centre[i].at < kernel[i] for i in range(spatial))
    shape = (*x.shape[:2], *kernel, *places)
    return t.mix(
        *(x, keep, MixKind.CONVOLUTION),
        shape=shape,
        steady=told and not any(pads),
        centre=centre if whole else (),
        windows=seen(t, x, kernel, places, steps, edges, kept=True),
    )


def seen(
    t: Tracer,
    x: Ref,
    kernel: Sequence[int],
    places: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    *,
    kept: bool,
) -> list[Window]:
    """What windows over the axes from the third on see; taps are axes of the result, before its places, or not kept."""
    spatial, mode = len(kernel), str(t.node.attributes.get("auto_pad", "NOTSET"))
    apart = list(t.node.attributes.get("dilations", ())) or [1] * spatial
    found = []
    for i in range(spatial):
        before = pads[i]
        if mode.startswith("SAME"):
            room = max((places[i] - 1) * strides[i] + (kernel[i] - 1) * apart[i] + 1 - x.shape[2 + i], 0)
            before = room // 2 if mode == "SAME_UPPER" else room - room // 2
        place, taps = (2 + spatial + i, 2 + i) if kept else (2 + i, None)
        found.append(Window(2 + i, place, taps, kernel[i], strides[i], apart[i], before))
    return found


operators.enter(("ReduceMean", "GlobalAveragePool", "Mean"), averages=True)
enter(("ReduceL1",), Function(length=True))
enter(("ReduceL2", "ReduceSumSquare"), Function(length=True, turns=True))
enter(("ReduceMax", "GlobalMaxPool", "MaxPool", "com.microsoft.NhwcMaxPool"), Function(extreme=np.max))
enter(("ReduceMin",), Function(extreme=np.min))


def reduced(x: Ref, axes: Ref | None, old: Sequence[int] | None, noop: int) -> list[int]:
    """The axes that a reduction takes away, from its input or its attribute."""
    chosen = list(old or ()) if axes is None else [int(a) for a in known(axes).reshape(-1)]
    if not chosen and not noop:
        chosen = list(range(x.rank))
    return sorted({a % x.rank for a in chosen})


def averaged(t: Tracer, summed: Ref, count: int) -> Ref:
    """A sum of `count` terms as their mean."""
    return t.multiply(summed, t.constant(np.asarray(1 / max(count, 1), np.float32)))


@op("ReduceSum", "ReduceMean", exact=True)
@op("com.microsoft.ReduceSumInteger")
def total(
    t: Tracer,
    x: Ref,
    dims: Ref | None,
    *,
    axes: Sequence[int] | None = None,
    keepdims: int = 1,
    noop_with_empty_axes: int = 0,
) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__ReduceSum.html"""
    along = reduced(x, dims, axes, noop_with_empty_axes)
    labels = [f"a{k}" for k in range(x.rank)]
    made = ["1" if k in along else label for k, label in enumerate(labels) if keepdims or k not in along]
    summed = t.einsum(f"{' '.join(labels)} -> {' '.join(made)}", x)
    return averaged(t, summed, prod(x.shape[k] for k in along)) if t.node.op.endswith("Mean") else summed


@op("ReduceMax", "ReduceMin", exact=True)
@op("ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceProd", "ReduceLogSum", "ReduceLogSumExp")
def fold(
    t: Tracer,
    x: Ref,
    dims: Ref | None,
    *,
    axes: Sequence[int] | None = None,
    keepdims: int = 1,
    noop_with_empty_axes: int = 0,
) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__ReduceMax.html"""
    along = reduced(x, dims, axes, noop_with_empty_axes)
    count = prod(x.shape[k] for k in along)
    laws = {"ReduceSumSquare": Law("product", (Fraction(2),)), "ReduceProd": Law("product", (Fraction(count),))}
    law = NONE if "Log" in t.node.op else laws.get(t.node.op, SUM)
    return t.fold(x, along, keepdims=bool(keepdims), law=law, function=t.node.op)


operators.enter(("BatchNormalization",), statistics=(3, 4))
enter(("Softmax",), Function(shares=True, relative=True))
enter(("LogSoftmax",), Function(shares=True, relative=True, logarithmic=True))
enter(("Hardmax", "Hardmin"), Function(picks=True, relative=True))
enter(("TopK",), Function(relative=True))


@op("Softmax", "LogSoftmax", "Hardmax", exact=True)
def softmax(t: Tracer, x: Ref, *, axis: int | None = None) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__Softmax.html"""
    law = CONSTANT if t.node.op == "Hardmax" else NONE
    if t.node.opset < 13:
        first = (1 if axis is None else axis) % max(x.rank, 1)
        return t.normalise(x, range(first, x.rank), law=law)
    return t.normalise(x, [-1 if axis is None else axis], law=law)


@op("BatchNormalization", exact=True)
def batch_norm(
    t: Tracer, x: Ref, gain: Ref, bias: Ref, mean: Ref, var: Ref, *, epsilon: float = 1e-5, training_mode: int = 0
) -> tuple[Ref, ...]:
    """https://onnx.ai/onnx/operators/onnx__BatchNormalization.html"""
    wide = (1, x.shape[1], *[1] * (x.rank - 2)) if x.rank > 1 else x.shape
    more = t.node.outputs[1:]
    if training_mode or (t.node.opset < 14 and any(more)):  # by moments of what it reads
        normed = t.normalise(x, [k for k in range(x.rank) if k != 1], function="standardise")
        t.unknown([v for v in (mean, var) if v.name not in t.makers], [], "what a batch replaces", opaque=False)
        gone = t.unknown([x], [gain.shape] * len(more), "the moments of a batch", opaque=False) if more else ()
        return (t.add(t.multiply(normed, t.reshape(gain, wide)), t.reshape(bias, wide)), *gone)
    scale, shift = t.affine(gain, bias, mean, var, epsilon)
    return (t.add(t.multiply(x, t.reshape(scale, wide)), t.reshape(shift, wide)),)


@op("LayerNormalization", exact=True)
def layer_norm(t: Tracer, x: Ref, gain: Ref, bias: Ref | None, *, axis: int = -1) -> tuple[Ref | None, ...]:
    """https://onnx.ai/onnx/operators/onnx__LayerNormalization.html"""
    axes = range(axis % x.rank, x.rank)
    return t.add(t.multiply(t.normalise(x, axes, function="standardise"), gain), bias), *moments(t, x, axes, 1, 2)


@op("RMSNormalization", "SimplifiedLayerNormalization", exact=True)
def rms_norm(t: Tracer, x: Ref, gain: Ref, *, axis: int = -1) -> tuple[Ref | None, ...]:
    """https://onnx.ai/onnx/operators/onnx__RMSNormalization.html"""
    axes = range(axis % x.rank, x.rank)
    return t.multiply(t.normalise(x, axes, function="rms"), gain), *moments(t, x, axes, 1)


def moments(t: Tracer, x: Ref, axes: Sequence[int], *outputs: int) -> tuple[Ref | None, ...]:
    """The mean and deviation that a normalisation also hands out, where something reads them."""
    return tuple(
        t.fold(x, axes, keepdims=True, law=NONE, function="moment")
        if k < len(t.node.outputs) and t.node.outputs[k]
        else None
        for k in outputs
    )


@op("InstanceNormalization", exact=True)
def instance_norm(t: Tracer, x: Ref, gain: Ref, bias: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__InstanceNormalization.html"""
    normed = t.normalise(x, range(2, x.rank), function="standardise")
    wide = (1, x.shape[1], *[1] * (x.rank - 2))
    return t.add(t.multiply(normed, t.reshape(gain, wide)), t.reshape(bias, wide))


@op("GroupNormalization", exact=True)
def group_norm(t: Tracer, x: Ref, gain: Ref, bias: Ref, *, num_groups: int) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__GroupNormalization.html"""
    apart = t.reshape(x, (x.shape[0], num_groups, x.shape[1] // num_groups, prod(x.shape[2:])))
    normed = t.reshape(t.normalise(apart, (2, 3), function="standardise"), x.shape)
    if gain.shape[0] != x.shape[1]:
        repeat = (num_groups, x.shape[1] // num_groups)
        gain, bias = (t.reshape(t.expand(t.reshape(v, (num_groups, 1)), repeat), (x.shape[1],)) for v in (gain, bias))
    wide = (1, x.shape[1], *[1] * (x.rank - 2))
    return t.add(t.multiply(normed, t.reshape(gain, wide)), t.reshape(bias, wide))


@op("LpNormalization", "MeanVarianceNormalization", exact=True)
def lp_norm(t: Tracer, x: Ref, *, axis: int = -1, p: int = 2, axes: tuple[int, ...] = (0, 2, 3)) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__LpNormalization.html"""
    if t.node.op == "MeanVarianceNormalization":
        return t.normalise(x, axes, function="standardise")
    return t.normalise(x, [axis], law=CONSTANT, function="l2" if p == 2 else None)


@op("LRN")
def lrn(t: Tracer, x: Ref) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__LRN.html"""
    keep = [0, None, *range(2, x.rank)]
    return t.mix(x, keep, MixKind.NEIGHBOURS, law=NONE, shape=x.shape)
