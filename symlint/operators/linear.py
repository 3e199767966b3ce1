"""Contractions: matrix products, Gemm and Einsum, convolutions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from symlint.model.operators import op
from symlint.program.lower import Ref, Tracer, Unsupported
from symlint.program.mixing import MixKind
from symlint.program.steps import Middle, Window


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
        y = t.einsum(f"b (g i) {axes} {here}, (g o) i {axes} -> b (g o) {here}", patches, w, g=group)
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
