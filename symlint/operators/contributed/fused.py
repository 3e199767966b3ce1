"""Fused operators of onnxruntime other than attention: an operator with its bias, activation or normalisation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from symlint.model.operators import op
from symlint.operators.elementwise.pointwise import clip, prelu
from symlint.operators.linear import conv, convolve, gemm, matmul, times
from symlint.operators.normal import moments
from symlint.operators.spatial.channels import first, last
from symlint.program.lower import Ref, Tracer
from symlint.program.mixing import MixKind

DEFAULTS = {"LeakyRelu": (0.01,), "HardSigmoid": (0.2, 0.5)}
"""Activation of a fused operator -> its parameters where none are given."""


@op("com.microsoft.BiasGelu", "com.microsoft.FastGelu", exact=True)
@op("com.microsoft.BiasSoftmax")
def bias_gelu(t: Tracer, x: Ref, bias: Ref | None, *, axis: int = 1) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.BiasGelu"""
    if t.node.op.endswith("Softmax"):
        return t.normalise(t.add(x, bias), range(axis % x.rank, x.rank), function="Softmax")
    return t.apply(t.add(x, bias), None, "Gelu")


@op("com.microsoft.BiasSplitGelu")
def bias_split_gelu(t: Tracer, x: Ref, bias: Ref) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.BiasSplitGelu"""
    y, last, half = t.add(x, bias), x.rank - 1, x.shape[-1] // 2
    return t.multiply(t.slice(y, last, 0, half), t.apply(t.slice(y, last, half, 2 * half), None, "Gelu"))


@op("com.microsoft.BiasAdd", "com.microsoft.BiasDropout", "com.microsoft.BitmaskBiasDropout")
def bias_add(t: Tracer, x: Ref, bias: Ref, skip: Ref | None) -> tuple[Ref, ...]:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.BiasAdd"""
    return (t.add(t.add(x, bias), skip),)


@op("com.microsoft.SkipLayerNormalization", exact=True)
def skip_layer_norm(
    t: Tracer, x: Ref, skip: Ref, gain: Ref, beta: Ref | None, bias: Ref | None
) -> tuple[Ref | None, ...]:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.SkipLayerNormalization"""
    whole = t.add(t.add(x, skip), bias)
    normed = t.normalise(whole, [-1], function="standardise")
    return t.add(t.multiply(normed, gain), beta), *moments(t, whole, [-1], 1, 2), whole


@op("com.microsoft.SkipSimplifiedLayerNormalization", exact=True)
def skip_rms_norm(t: Tracer, x: Ref, skip: Ref, gain: Ref, bias: Ref | None) -> tuple[Ref | None, ...]:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.SkipSimplifiedLayerNormalization"""
    whole = t.add(t.add(x, skip), bias)
    return t.multiply(t.normalise(whole, [-1], function="rms"), gain), *moments(t, whole, [-1], 1, 2), whole


@op("com.microsoft.EmbedLayerNormalization", exact=True)
def embed_layer_norm(
    t: Tracer,
    words: Ref,
    segments: Ref | None,
    word_table: Ref,
    place_table: Ref,
    segment_table: Ref | None,
    gain: Ref,
    beta: Ref,
    mask: Ref | None,
    places: Ref | None,
    *,
    mask_index_type: int = 1,
) -> tuple[Ref, ...]:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.EmbedLayerNormalization"""
    return embedded(t, words, segments, [word_table, place_table, segment_table], gain, beta, mask, places)


def embedded(
    t: Tracer,
    words: Ref,
    segments: Ref | None,
    tables: Sequence[Ref | None],
    gain: Ref,
    beta: Ref,
    mask: Ref | None,
    places: Ref | None,
) -> tuple[Ref, ...]:
    """The normalised sum of looked up rows, the index of the mask, and the sum."""
    indices = [x for x in (words, segments, mask, places) if x is not None]
    batch, length = words.shape
    index = t.unknown(indices, [(batch,)], "it is an index", opaque=False)[0]
    looked = [
        t.mix(table, [None, None, 1], MixKind.LOOKUP, shape=(batch, length, table.shape[1]), steady=True)
        for table in tables
        if table is not None
    ]
    whole = t.add(*looked)
    return t.add(t.multiply(t.normalise(whole, [-1], function="standardise"), gain), beta), index, whole


@op("com.microsoft.FusedGemm")
def fused_gemm(
    t: Tracer,
    a: Ref,
    b: Ref,
    c: Ref | None,
    *,
    transA: int = 0,  # noqa: N803
    transB: int = 0,  # noqa: N803
    alpha: float = 1.0,
    beta: float = 1.0,
    activation: str = "",
) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.FusedGemm"""
    return _activate(t, gemm(t, a, b, c, alpha=alpha, beta=beta, transA=transA, transB=transB), activation)


@op("com.microsoft.FusedConv", exact=True)
@op("com.microsoft.NhwcFusedConv", "com.microsoft.NhwcConv")
def fused_conv(
    t: Tracer,
    x: Ref,
    w: Ref,
    bias: Ref | None,
    skip: Ref | None,
    *,
    activation: str = "",
    group: int = 1,
    strides: Sequence[int] = (),
    pads: Sequence[int] = (),
) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.FusedConv"""
    if ".Nhwc" in t.node.op:
        made = last(t, convolve(t, first(t, x), w, bias, t.result()[1:-1], group, strides, pads))
    else:
        made = conv(t, x, w, bias, group=group, strides=strides, pads=pads)
    return _activate(t, t.add(made, skip), activation)


@op("com.microsoft.FusedMatMul", "com.microsoft.TransposeMatMul", "com.microsoft.FusedMatMulActivation")
def fused_matmul(
    t: Tracer,
    a: Ref,
    b: Ref,
    *,
    transA: int = 0,  # noqa: N803
    transB: int = 0,  # noqa: N803
    transBatchA: int = 0,  # noqa: N803
    transBatchB: int = 0,  # noqa: N803
    alpha: float = 1.0,
    activation: str = "",
) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.FusedMatMul"""
    # With transBatch the rows come first, and the batch after them.
    a = t.transpose(a, [*range(1, a.rank - 1), 0, a.rank - 1]) if transBatchA else a
    b = t.transpose(b, [*range(1, b.rank - 1), 0, b.rank - 1]) if transBatchB else b
    left = "k" if a.rank == 1 else "... k m" if transA else "... m k"
    right = "k" if b.rank == 1 else "... n k" if transB else "... k n"
    made = " ".join(x for x, y in (("...", a.rank + b.rank > 2), ("m", a.rank > 1), ("n", b.rank > 1)) if y)
    return _activate(t, times(t, t.einsum(f"{left}, {right} -> {made}", a, b), alpha), activation)


@op("com.microsoft.GemmFastGelu")
def matmul_gelu(t: Tracer, x: Ref, w: Ref, bias: Ref | None) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.GemmFastGelu"""
    return t.apply(t.add(matmul(t, x, w), bias), None, "Gelu")


def _activate(t: Tracer, x: Ref, activation: str) -> Ref:
    """The function that a fused operator ends with: an operator of ONNX's, which may have parameters of its own."""
    given, defaults = t.node.attributes, DEFAULTS.get(activation, ())
    named = [given.get(f"activation_{word}", d) for word, d in zip(("alpha", "beta"), defaults, strict=False)]
    numbers = [t.constant(np.asarray(n, np.float32)) for n in (*given.get("activation_params", ()), *named)]
    if activation == "Clip" and len(numbers) > 1:
        return clip(t, x, *numbers[:2])
    if activation == "LeakyRelu":
        return prelu(t, x, numbers[0])
    if activation == "HardSigmoid":
        line = t.add(t.multiply(x, numbers[0]), numbers[1])
        return clip(t, line, *(t.constant(np.asarray(n, np.float32)) for n in (0, 1)))
    plain = activation in ("Relu", "Tanh", "Sigmoid", "Gelu", "Softsign", "Softplus")
    made = activation if plain or not activation else f"Fused{activation}"
    return t.apply(x, 1 if activation == "Relu" else None, made) if activation else x
