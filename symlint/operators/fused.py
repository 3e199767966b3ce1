"""Fused operators of onnxruntime other than attention: an operator with its bias, activation or normalisation."""

from __future__ import annotations

from collections.abc import Sequence

from symlint.lower import Ref, Tracer, Unsupported
from symlint.operators.linear import conv, gemm
from symlint.program import NONE
from symlint.registry import op


@op("com.microsoft.BiasGelu", "com.microsoft.FastGelu", "com.microsoft.BiasSoftmax")
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


@op("com.microsoft.BiasAdd", "com.microsoft.BiasDropout")
def bias_add(t: Tracer, x: Ref, bias: Ref, skip: Ref | None) -> tuple[Ref, ...]:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.BiasAdd"""
    return (t.add(t.add(x, bias), skip),)


@op("com.microsoft.SkipLayerNormalization", "com.microsoft.SkipGroupNorm")
def skip_layer_norm(
    t: Tracer, x: Ref, skip: Ref, gain: Ref, beta: Ref | None, bias: Ref | None
) -> tuple[Ref | None, ...]:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.SkipLayerNormalization"""
    if t.node.op.endswith("GroupNorm"):
        raise Unsupported("its channels come last")
    whole = t.add(t.add(x, skip), bias)
    normed = t.normalise(whole, [-1], function="standardise")
    return t.add(t.multiply(normed, gain), beta), *_moments(t, whole, 1, 2), whole


@op("com.microsoft.SkipSimplifiedLayerNormalization")
def skip_rms_norm(t: Tracer, x: Ref, skip: Ref, gain: Ref, bias: Ref | None) -> tuple[Ref | None, ...]:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.SkipSimplifiedLayerNormalization"""
    whole = t.add(t.add(x, skip), bias)
    return t.multiply(t.normalise(whole, [-1], function="rms"), gain), *_moments(t, whole, 1, 2), whole


@op("com.microsoft.EmbedLayerNormalization")
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
    batch, length = words.shape
    indices = [x for x in (words, segments, mask, places) if x is not None]
    index = t.unknown(indices, [(batch,)], "it is an index", opaque=False)[0]
    looked = [
        t.mix(
            table, [None, None, 1], "a lookup computed at run time", shape=(batch, length, table.shape[1]), steady=True
        )
        for table in (word_table, place_table, segment_table)
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
    activation: str = "",
) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.FusedGemm"""
    return _activate(t, gemm(t, a, b, c, transA=transA, transB=transB), activation)


@op("com.microsoft.FusedConv", "com.microsoft.NhwcFusedConv")
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
    if t.node.op.endswith("NhwcFusedConv"):
        raise Unsupported("its channels come last")
    return _activate(t, t.add(conv(t, x, w, bias, group=group, strides=strides, pads=pads), skip), activation)


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
    activation: str = "",
) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.FusedMatMul"""
    # With transBatch the first axis of the batch stands just before the last axis.
    a = t.transpose(a, [a.rank - 2, *range(a.rank - 2), a.rank - 1]) if transBatchA else a
    b = t.transpose(b, [b.rank - 2, *range(b.rank - 2), b.rank - 1]) if transBatchB else b
    left = "k" if a.rank == 1 else "... k m" if transA else "... m k"
    right = "k" if b.rank == 1 else "... n k" if transB else "... k n"
    made = " ".join(x for x, y in (("...", a.rank + b.rank > 2), ("m", a.rank > 1), ("n", b.rank > 1)) if y)
    return _activate(t, t.einsum(f"{left}, {right} -> {made}", a, b), activation)


def _activate(t: Tracer, x: Ref, activation: str) -> Ref:
    """The function that a fused operator ends with; it has the name of an operator."""
    return t.apply(x, 1 if activation in ("Relu", "LeakyRelu") else None, activation) if activation else x


def _moments(t: Tracer, x: Ref, *outputs: int) -> tuple[Ref | None, ...]:
    """The mean and deviation that a normalisation also hands out, where something reads them."""
    return tuple(
        t.fold(x, [-1], keepdims=True, law=NONE, function="moment")
        if k < len(t.node.outputs) and t.node.outputs[k]
        else None
        for k in outputs
    )
