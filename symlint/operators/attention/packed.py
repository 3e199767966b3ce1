"""onnxruntime's attention over packed tokens, one token at a time or sparse, and its biases by relative positions."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from symlint.model.operators import op
from symlint.operators.attention.contributed import group_query_attention, multi_head_attention, projected
from symlint.operators.attention.heads import attend, cut, heads, merge
from symlint.operators.layout import known
from symlint.program.lower import Ref, Tracer, Unsupported
from symlint.program.mixing import MixKind
from symlint.program.steps import NONE, Law


def _packed_bias(t: Tracer, extra: Ref | None, offsets: Ref, ends: Ref, tokens: int) -> Ref | None:
    """A bias ``b h s s`` as one of ``1 h n n`` over the tokens, which lengths group to sequences."""
    t.unknown([offsets, ends], [], "it is an index", opaque=False)
    if extra is None:
        return None
    shape = (1, extra.shape[1], tokens, tokens)
    return t.mix(extra, [None, 1, None, None], MixKind.PACKED_TOKENS, law=NONE, shape=shape)


@op("com.microsoft.PackedAttention")
def packed_attention(
    t: Tracer,
    x: Ref,
    w: Ref,
    bias: Ref,
    offsets: Ref,
    ends: Ref,
    extra: Ref | None,
    *,
    num_heads: int,
    qkv_hidden_sizes: Sequence[int] = (),
) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.PackedAttention"""
    whole = t.add(t.einsum("s i, i o -> 1 s o", x, w), bias)
    wide, sizes = _packed_bias(t, extra, offsets, ends, x.shape[0]), qkv_hidden_sizes or (w.shape[1] // 3,) * 3
    made, _ = projected(t, whole, sizes, num_heads, None, None, wide, ordered=1)
    return t.reshape(made, made.shape[1:]) if made else x


@op("com.microsoft.PackedMultiHeadAttention")
def packed_multi_head_attention(
    t: Tracer,
    q: Ref,
    k: Ref | None,
    v: Ref | None,
    bias: Ref | None,
    offsets: Ref,
    ends: Ref,
    extra: Ref | None,
    *,
    num_heads: int,
) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.PackedMultiHeadAttention"""
    wide = _packed_bias(t, extra, offsets, ends, q.shape[0])
    first = t.reshape(q, (1, *q.shape))
    both = [x and t.reshape(x, (1, *x.shape)) for x in (k, v)]
    rest = (bias, None, wide, None, None, None)
    made = multi_head_attention(t, first, both[0], both[1], *rest, num_heads=num_heads, unidirectional=1)[0]
    return t.reshape(made, made.shape[1:])


@op("com.microsoft.DecoderMaskedMultiHeadAttention")
def decoder_attention(
    t: Tracer,
    q: Ref,
    k: Ref | None,
    v: Ref | None,
    mask: Ref | None,
    extra: Ref | None,
    past_k: Ref | None,
    past_v: Ref | None,
    past_length: Ref | None,
    width: Ref | None,
    beams: Ref | None,
    bias: Ref | None,
    *,
    num_heads: int,
) -> tuple[Ref, ...]:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.DecoderMaskedMultiHeadAttention"""
    t.unknown([x for x in (width, beams) if x is not None], [], "it is an index", opaque=False)
    old_k, old_v = [x and t.mix(x, [None, 1, None, None], MixKind.CACHE, shape=x.shape) for x in (past_k, past_v)]
    return multi_head_attention(t, q, k, v, bias, mask, extra, old_k, old_v, past_length, num_heads=num_heads)


@op("com.microsoft.SparseAttention")
def sparse_attention(
    t: Tracer,
    q: Ref,
    k: Ref | None,
    v: Ref | None,
    past_k: Ref,
    past_v: Ref,
    rows: Ref,
    columns: Ref,
    total: Ref,
    lengths: Ref,
    cos: Ref | None,
    sin: Ref | None,
    *,
    num_heads: int,
    kv_num_heads: int,
    do_rotary: int = 0,
    rotary_interleaved: int = 0,
) -> tuple[Ref, ...]:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.SparseAttention"""
    t.unknown([x for x in (rows, columns) if x.value is None], [], "it is an index", opaque=False)
    # Heads take the layouts in turn.
    layouts = np.arange(num_heads).reshape(-1, 1, 1) % rows.shape[0]
    extra = t.constant(np.broadcast_to(layouts, (num_heads, 1, past_k.shape[2])).astype(np.float32)[None])
    return group_query_attention(
        t,
        *(q, k, v, past_k, past_v, lengths, total, cos, sin, None, extra, None, None, None, None, None),
        num_heads=num_heads,
        kv_num_heads=kv_num_heads,
        do_rotary=do_rotary,
        rotary_interleaved=rotary_interleaved,
        sliding_window_cache=1,
    )


@op("com.microsoft.LongformerAttention")
def longformer_attention(
    t: Tracer, x: Ref, w: Ref, bias: Ref, mask: Ref, far: Ref, far_bias: Ref, flags: Ref, *, num_heads: int
) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.LongformerAttention"""
    made = []
    for matrix, shift in ((w, bias), (far, far_bias)):
        whole = t.add(t.einsum("b s i, i o -> b s o", x, matrix), shift)
        q, k, v = (heads(t, part, num_heads) for part in cut(t, whole, 2, (w.shape[1] // 3,) * 3))
        wide = t.reshape(t.pointwise(NONE, mask), (mask.shape[0], 1, 1, mask.shape[1]))
        made.append(merge(t, attend(t, q, k, v, wide, ordered=(0, 2, 3))))
    chosen = t.reshape(t.pointwise(NONE, flags), (*flags.shape, 1))
    return t.pointwise(Law("sum", (None, Fraction(1), Fraction(1))), chosen, *made, function="Where")


@op("com.microsoft.RelativePositionBias")
def relative_position_bias(t: Tracer, table: Ref, queries: Ref, keys: Ref) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.RelativePositionBias"""
    # Its elements are stored head by head, whatever its shape says.
    count = table.shape[1]
    shape = (1, count, *(int(known(n).reshape(())) for n in (queries, keys)))
    turned = t.reshape(table, (count, table.shape[0]))
    return t.mix(turned, [None, 0, None, None], MixKind.RELATIVE_LOOKUP, shape=shape, steady=True)


@op("com.microsoft.GatedRelativePositionBias")
def gated_relative_position_bias(
    t: Tracer,
    q: Ref,
    q_bias: Ref,
    places: Ref,
    w: Ref,
    bias: Ref,
    eco: Ref,
    offsets: Ref | None,
    *,
    num_heads: int,
) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.GatedRelativePositionBias"""
    if offsets is not None:
        raise Unsupported("packed tokens")
    gates = t.add(t.einsum("b h s d, d k -> b h s k", heads(t, t.add(q, q_bias), num_heads), w), bias)
    halves = [t.einsum("b h s k -> b h s 1", part) for part in cut(t, gates, 3, (w.shape[1] // 2,) * 2)]
    u, r = (t.apply(x, None, "Sigmoid") for x in halves)
    inner = t.apply(t.multiply(r, eco), None, "Shifted")
    return t.multiply(t.apply(t.multiply(u, inner), None, "Shifted"), places)
