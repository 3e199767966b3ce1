"""Operators of onnxruntime's own that stand in for a few of ONNX's."""

from __future__ import annotations

from symlint.model.operators import op
from symlint.operators.attention.heads import cut, heads, merge, rotate
from symlint.operators.layout import gather, known
from symlint.operators.spatial.windows import pool
from symlint.program.lower import Ref, Tracer, Unsupported
from symlint.program.mixing import MixKind
from symlint.program.steps import NONE, SUM


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
