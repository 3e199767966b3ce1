"""Operators of onnxruntime's own domain other than attention: fused ones, and stand-ins for a few of ONNX's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from symlint.model.operators import op
from symlint.operators.attention import cut, heads, merge, rotate
from symlint.operators.elementwise import clip, prelu
from symlint.operators.layout import gather, known
from symlint.operators.linear import conv, convolve, gemm, matmul, moments, times
from symlint.operators.spatial import first, last, pool
from symlint.program.functions import MixKind
from symlint.program.lower import Ref, Tracer, Unsupported
from symlint.program.steps import NONE, SUM

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


@op("com.microsoft.ExpandDims")
def expand_dims(t: Tracer, x: Ref, axis: Ref) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.ExpandDims"""
    at = int(known(axis).reshape(())) % (x.rank + 1)
    return t.reshape(x, (*x.shape[:at], 1, *x.shape[at:]))


@op("com.microsoft.TorchEmbedding")
def torch_embedding(t: Tracer, table: Ref, indices: Ref) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.TorchEmbedding"""
    return gather(t, table, indices)


@op("com.microsoft.CDist")
def distances(t: Tracer, a: Ref, b: Ref, *, metric: str = "sqeuclidean") -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.CDist"""
    if metric not in ("euclidean", "sqeuclidean"):
        raise Unsupported(f"the metric {metric}")
    apart = t.pointwise(SUM, t.reshape(a, (a.shape[0], 1, a.shape[1])), t.reshape(b, (1, *b.shape)), function="Sub")
    if metric == "euclidean":
        return t.fold(apart, [2], keepdims=False, law=SUM, function="ReduceL2")
    return t.einsum("a b k -> a b", t.multiply(apart, apart))


@op("com.microsoft.MaxpoolWithMask")
def masked_pool(t: Tracer, x: Ref, mask: Ref) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MaxpoolWithMask"""
    if mask.shape != x.shape:
        raise Unsupported("a mask that is repeated")
    return pool(t, t.pointwise(NONE, x, mask, function="Where"))[0]


@op("com.microsoft.CropAndResize")
def crop_and_resize(t: Tracer, x: Ref, boxes: Ref, batch: Ref, size: Ref, *, extrapolation_value: float = 0.0) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.CropAndResize"""
    t.unknown([boxes, batch], [], "it is an index", opaque=False)
    shape = (boxes.shape[0], x.shape[1], *(int(n) for n in known(size)))
    law = NONE if extrapolation_value else SUM
    return t.mix(x, [None, 1, None, None], MixKind.PLACES, law=law, shape=shape)


@op("com.microsoft.UnfoldTensor")
def unfold(t: Tracer, x: Ref, *, size: int, dim: int = -1, step: int = 1) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.UnfoldTensor"""
    at = dim % x.rank
    shape = (*x.shape[:at], (x.shape[at] - size) // step + 1, *x.shape[at + 1 :], size)
    keep = [*(None if k == at else k for k in range(x.rank)), None]
    return t.mix(x, keep, MixKind.OVERLAPPING, shape=shape, steady=True)


@op("com.microsoft.ComplexMul", "com.microsoft.ComplexMulConj")
def complex_product(t: Tracer, a: Ref, b: Ref) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.ComplexMul"""
    (ar, ai), (br, bi) = (cut(t, x, x.rank - 1, (1, 1)) for x in (a, b))
    back = (t.multiply(ar, br), t.multiply(ai, bi)), (t.multiply(ai, br), t.multiply(ar, bi))
    plain = t.node.op.endswith("Mul")
    signs = ("Sub", "Add") if plain else ("Add", "Sub")
    parts = [t.pointwise(SUM, *terms, function=sign) for terms, sign in zip(back, signs, strict=True)]
    return t.concat(parts, parts[0].rank - 1)


@op("com.microsoft.RemovePadding")
def remove_padding(t: Tracer, x: Ref, counts: Ref) -> tuple[Ref, ...]:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.RemovePadding"""
    batch, length, _ = x.shape
    lengths = t.unknown([counts], [(batch, length), (batch + 1,), (1,)], "it is a length", opaque=False)
    return t.mix(x, [None, 2], MixKind.PADDING_LEFT_OUT, steady=True), *lengths


@op("com.microsoft.RestorePadding")
def restore_padding(t: Tracer, x: Ref, offsets: Ref) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.RestorePadding"""
    t.unknown([offsets], [], "it is an index", opaque=False)
    return t.mix(x, [None, None, 1], MixKind.PADDING_PUT_BACK, shape=(*offsets.shape, x.shape[1]))


@op("com.microsoft.GemmaRotaryEmbedding")
def gemma_rotary(t: Tracer, angles: Ref, q: Ref, q_turned: Ref, k: Ref, k_turned: Ref) -> tuple[Ref, ...]:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.GemmaRotaryEmbedding"""
    wide = t.reshape(angles, (angles.shape[0], 1, *angles.shape[1:]))
    cos, sin = t.apply(wide, None, "Cos"), t.apply(wide, None, "Sin")
    return tuple(t.add(t.multiply(x, cos), t.multiply(y, sin)) for x, y in ((q, q_turned), (k, k_turned)))


@op("com.microsoft.MRotaryEmbedding")
def sectioned_rotary(
    t: Tracer,
    x: Ref,
    places: Ref,
    cos: Ref,
    sin: Ref,
    *,
    num_heads: int = 0,
    interleaved: int = 0,
    rotary_embedding_dim: int = 0,
    is_packed_batching: int = 0,
) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MRotaryEmbedding"""
    if is_packed_batching:
        raise Unsupported("packed batches")
    t.unknown([places], [], "it is an index", opaque=False)
    apart = heads(t, x, num_heads or x.shape[-1] // (2 * cos.shape[-1]))
    # Sections of the planes are looked up at places of their own.
    shape = (*places.shape[1:], cos.shape[1])
    c, s = (t.mix(r, [None] * 3, MixKind.LOOKUP, shape=shape, steady=True) for r in (cos, sin))
    made = rotate(t, apart, c, s, interleaved=bool(interleaved), width=rotary_embedding_dim)
    return made if x.rank == 4 else merge(t, made)


@op("com.microsoft.ScaledSiLU")
def scaled_silu(t: Tracer, x: Ref, scale: Ref | None) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.ScaledSiLU"""
    return t.apply(x if scale is None else t.multiply(x, t.reshape(scale, ())), None, "Gate")


@op("com.microsoft.GatedAdd")
def gated_add(t: Tracer, x: Ref, y: Ref, gate: Ref) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.GatedAdd"""
    return t.add(x, t.multiply(y, gate))


@op("com.microsoft.GatedRMSNorm")
def gated_rms_norm(t: Tracer, x: Ref, gain: Ref, gate: Ref) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.GatedRMSNorm"""
    normed = _branchwise(t, x, x.shape[-1] // gain.shape[0], gain)
    return t.multiply(t.reshape(normed, x.shape), t.apply(gate, None, "Gate"))


@op("com.microsoft.BranchwiseRMSNorm")
def branchwise_rms_norm(t: Tracer, x: Ref, gain: Ref | None, *, num_branches: int = 0) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.BranchwiseRMSNorm"""
    return t.reshape(_branchwise(t, x, num_branches, gain), x.shape)


def _branchwise(t: Tracer, x: Ref, count: int, gain: Ref | None = None) -> Ref:
    """The norm of ``... c h``, of which the last two axes may be one, times a gain ``(c h)``, ``c h`` or ``h``."""
    apart = branches(t, x, count)
    normed = t.normalise(apart, [-1], function="rms")
    if gain is None:
        return normed
    return t.multiply(normed, gain if gain.shape[-1] == apart.shape[-1] else t.reshape(gain, apart.shape[-2:]))


def branches(t: Tracer, x: Ref, count: int) -> Ref:
    """``... c h``, of which the last two axes may be one."""
    return t.reshape(x, (*x.shape[:-1], count, x.shape[-1] // count)) if count else x


def _gates(t: Tracer, gate: Ref, streams: Ref) -> Ref:
    """A gate ``... c``, ``... c 1``, ``... c h`` or ``... (c h)``, made to fit streams ``... c h``."""
    if gate.rank == streams.rank:
        return gate
    width = gate.shape[-1] // streams.shape[-2]
    return t.reshape(gate, (*gate.shape[:-1], streams.shape[-2], width))


@op("com.microsoft.HyperConnectionPreMix")
def streams_to_one(t: Tracer, streams: Ref, gate: Ref, *, num_branches: int = 0) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.HyperConnectionPreMix"""
    apart = branches(t, streams, num_branches)
    return t.einsum("... c h -> ... h", t.multiply(apart, _gates(t, gate, apart)))


@op("com.microsoft.HyperConnectionPostMix")
def one_to_streams(t: Tracer, streams: Ref, made: Ref, gate: Ref, mixing: Ref | None, *, num_branches: int = 0) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.HyperConnectionPostMix"""
    apart = branches(t, streams, num_branches)
    added = t.multiply(_gates(t, gate, apart), t.reshape(made, (*made.shape[:-1], 1, made.shape[-1])))
    kept = apart if mixing is None else t.einsum("... c k, ... c h -> ... k h", mixing, apart)
    return t.reshape(t.add(kept, added), streams.shape)


@op("com.microsoft.EngramGate")
def engram_gate(
    t: Tracer, key: Ref, query: Ref, value: Ref, key_gain: Ref, query_gain: Ref, last_gain: Ref | None
) -> tuple[Ref | None, ...]:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.EngramGate"""
    left, right = _branchwise(t, key, 0, key_gain), _branchwise(t, query, 0, query_gain)
    gate = t.apply(t.einsum("b s c h, b s c h -> b s c 1", left, right), None, "Gate")
    made = t.multiply(gate, t.reshape(value, (*value.shape[:2], 1, value.shape[2])))
    return made, last_gain and _branchwise(t, made, 0, last_gain)
