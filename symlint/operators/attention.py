"""Attention in all its operators: heads split off, scores, softmax over the keys, values, heads merged."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from symlint.lower import Ref, Tracer, Unsupported
from symlint.program import NONE
from symlint.registry import op


def attend(t: Tracer, q: Ref, k: Ref, v: Ref, *biases: Ref | None, ordered: bool = False, softcap: float = 0.0) -> Ref:
    """``b h s e`` from queries ``b h s d``, keys ``b g t d`` and values ``b g t e``: h = (g r) shares keys by groups.

    ``ordered`` says that a key is masked by its position.
    """
    scores = t.einsum("b (g r) s d, b g t d -> b (g r) s t", q, k)
    scores = t.apply(scores, None, "Tanh") if softcap else scores
    if ordered:
        places = np.add.outer(np.arange(scores.shape[2]), np.arange(scores.shape[3]))
        scores = t.pointwise(NONE, scores, t.constant(places), function="Where")
    scores = t.normalise(t.add(scores, *biases), [-1], function="Softmax")
    return t.einsum("b (g r) s t, b g t e -> b (g r) s e", scores, v)


def heads(t: Tracer, x: Ref, count: int) -> Ref:
    """``b h s d`` from ``b s (h d)``; four axes are split already."""
    return x if x.rank == 4 else t.einsum("b s (h d) -> b h s d", x, h=count)


def merge(t: Tracer, x: Ref) -> Ref:
    """``b s (h d)``."""
    return t.einsum("b h s d -> b s (h d)", x)


def cut(t: Tracer, x: Ref, axis: int, sizes: Sequence[int]) -> list[Ref]:
    """Pieces of one axis."""
    ends = np.cumsum([0, *sizes]).tolist()
    return [t.slice(x, axis, a, b) for a, b in pairwise(ends)]


def append(t: Tracer, past: Ref | None, x: Ref, k: int) -> Ref:
    """Keys or values behind those of the past; where output `k` is a buffer of a fixed length, positions are pinned."""
    total = t.results[k] if k < len(t.results) and len(t.node.outputs) > k and t.node.outputs[k] else None
    if past is None or past.shape[2] == 0:
        made = x
    elif total is not None and total[2] == past.shape[2]:
        made = t.mix(t.pointwise(NONE, x, t.slice(past, 2, 0, 1)), [0, 1, None, 3], "a cache", shape=past.shape)
    else:
        made = t.concat([past, x], 2)
    return made


def key_mask(t: Tracer, mask: Ref | None, scores: Sequence[int]) -> tuple[Ref | None, bool]:
    """A mask as a bias that broadcasts over the scores ``b h s t``, or the word that it counts positions."""
    if mask is None:
        return None, False
    if mask.rank == 1:
        t.unknown([mask], [], "it is a length", opaque=False)
        return None, True
    if mask.rank == 4 and mask.shape[-1] != scores[3]:
        t.unknown([mask], [], "a mask cut to the length of the keys", opaque=False)
        return None, True
    wide = {2: (mask.shape[0], 1, 1, mask.shape[-1]), 3: (mask.shape[0], 1, *mask.shape[1:])}
    return t.reshape(t.pointwise(NONE, mask), wide.get(mask.rank, mask.shape)), False


def rotate(t: Tracer, x: Ref, cos: Ref, sin: Ref, *, interleaved: bool, width: int = 0) -> Ref:
    """Rotary embedding of ``b h s d`` by tables of planes ``s p`` or ``b s p``; d is (2 p), or (p 2) where interleaved."""
    planes = cos.shape[-1]
    width = width or 2 * planes
    head, *tail = cut(t, x, 3, [width, x.shape[3] - width]) if width < x.shape[3] else [x]
    c, s = (t.reshape(r, (*(r.shape[:1] if r.rank == 3 else ()), 1, *r.shape[-2:])) for r in (cos, sin))
    apart = t.reshape(head, (*x.shape[:3], planes, 2) if interleaved else (*x.shape[:3], 2, planes))
    axis = 4 if interleaved else 3
    one, two = (t.reshape(t.slice(apart, axis, k, k + 1), (*x.shape[:3], planes)) for k in (0, 1))
    made = (t.add(t.multiply(one, c), t.multiply(two, s)), t.add(t.multiply(two, c), t.multiply(one, s)))
    thin = (*x.shape[:3], planes, 1) if interleaved else (*x.shape[:3], 1, planes)
    stacked = t.concat([t.reshape(m, thin) for m in made], axis)
    return t.concat([t.reshape(stacked, head.shape), *tail], 3)


def looked_up(t: Tracer, table: Ref, places: Ref | None, batch: int, length: int) -> Ref:
    """Rows of a table of rotations for every position."""
    if table.rank == 3:
        return table
    if places is not None:
        t.unknown([places], [], "it is an index", opaque=False)
    return t.mix(table, [None, None, 1], "a lookup computed at run time", shape=(batch, length, table.shape[1]))


@op("com.microsoft.Attention")
def attention(
    t: Tracer,
    x: Ref,
    w: Ref,
    bias: Ref | None,
    mask: Ref | None,
    past: Ref | None,
    extra: Ref | None,
    past_length: Ref | None,
    *,
    num_heads: int,
    qkv_hidden_sizes: Sequence[int] = (),
    unidirectional: int = 0,
    do_rotary: int = 0,
) -> tuple[Ref | None, ...]:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.Attention"""
    if do_rotary or past_length is not None:
        raise Unsupported("rotary positions or a shared cache inside of Attention")
    third = w.shape[1] // 3
    whole = t.add(t.einsum("b s i, i o -> b s o", x, w), bias)
    return _projected(t, whole, qkv_hidden_sizes or (third, third, third), num_heads, mask, past, extra, unidirectional)


def _projected(
    t: Tracer,
    whole: Ref,
    sizes: Sequence[int],
    num_heads: int,
    mask: Ref | None,
    past: Ref | None,
    extra: Ref | None,
    unidirectional: int,
) -> tuple[Ref | None, ...]:
    """Attention from the queries, keys and values side by side."""
    q, k, v = (heads(t, part, num_heads) for part in cut(t, whole, 2, sizes))
    if past is not None and past.shape[3] > 0:
        k, v = (t.concat([t.reshape(t.slice(past, 0, i, i + 1), past.shape[1:]), x], 2) for i, x in enumerate((k, v)))
    masked, ordered = key_mask(t, mask, (q.shape[0], num_heads, q.shape[2], k.shape[2]))
    made = merge(t, attend(t, q, k, v, masked, extra, ordered=ordered or bool(unidirectional)))
    if len(t.node.outputs) < 2 or not t.node.outputs[1]:
        return made, None
    return made, t.concat([t.reshape(y, (1, *y.shape)) for y in (k, v)], 0)


@op("com.microsoft.QAttention")
def qattention(
    t: Tracer,
    x: Ref,
    w: Ref,
    bias: Ref,
    x_scale: Ref,
    w_scale: Ref,
    mask: Ref | None,
    x_zero: Ref | None,
    w_zero: Ref | None,
    past: Ref | None,
    *,
    num_heads: int,
    unidirectional: int = 0,
    do_rotary: int = 0,
) -> tuple[Ref | None, ...]:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.QAttention"""
    from symlint.operators.quantised import lift

    if do_rotary:
        raise Unsupported("rotary positions inside of QAttention")
    left, right = lift(t, x, x_scale, x_zero, 2), lift(t, w, w_scale, w_zero, 1)
    whole, third = t.add(t.einsum("b s i, i o -> b s o", left, right), bias), w.shape[1] // 3
    return _projected(t, whole, (third,) * 3, num_heads, mask, past, None, unidirectional)


@op("com.microsoft.MultiHeadAttention")
def multi_head_attention(
    t: Tracer,
    q: Ref,
    k: Ref | None,
    v: Ref | None,
    bias: Ref | None,
    mask: Ref | None,
    extra: Ref | None,
    past_k: Ref | None,
    past_v: Ref | None,
    past_length: Ref | None,
    *,
    num_heads: int,
    unidirectional: int = 0,
) -> tuple[Ref, ...]:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MultiHeadAttention"""
    if past_length is not None:
        raise Unsupported("a shared cache inside of MultiHeadAttention")
    if k is None:  # b s h (q k v) d
        q, k, v = (t.reshape(r, (*q.shape[:3], q.shape[4])) for r in cut(t, q, 3, (1, 1, 1)))
        q, k, v = (t.reshape(r, (*r.shape[:2], r.shape[2] * r.shape[3])) for r in (q, k, v))
    elif v is None:  # b t h (k v) d
        k, v = (t.reshape(r, (*k.shape[:2], k.shape[2] * k.shape[4])) for r in cut(t, k, 3, (1, 1)))
    parts = [q, k, v]
    if bias is not None:
        sizes = [p.shape[-1] if p.rank == 3 else p.shape[1] * p.shape[3] for p in parts]
        pieces = cut(t, bias, 0, sizes)
        parts = [
            t.add(p, b if p.rank == 3 else t.reshape(b, (1, p.shape[1], 1, p.shape[3])))
            for p, b in zip(parts, pieces, strict=True)
        ]
    q, k, v = (heads(t, p, num_heads) for p in parts)
    k, v = append(t, past_k, k, 1), append(t, past_v, v, 2)
    masked, ordered = key_mask(t, mask, (q.shape[0], num_heads, q.shape[2], k.shape[2]))
    return merge(t, attend(t, q, k, v, masked, extra, ordered=ordered or bool(unidirectional))), k, v


@op("com.microsoft.GroupQueryAttention")
def group_query_attention(
    t: Tracer,
    q: Ref,
    k: Ref | None,
    v: Ref | None,
    past_k: Ref | None,
    past_v: Ref | None,
    lengths: Ref,
    total: Ref,
    cos: Ref | None,
    sin: Ref | None,
    places: Ref | None,
    extra: Ref | None,
    sink: Ref | None,
    *,
    num_heads: int,
    kv_num_heads: int,
    do_rotary: int = 0,
    rotary_interleaved: int = 0,
    softcap: float = 0.0,
) -> tuple[Ref, ...]:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.GroupQueryAttention"""
    if sink is not None:
        raise Unsupported("attention sinks")
    t.unknown([x for x in (lengths, total) if x.value is None], [], "it is a length", opaque=False)
    if k is None or v is None:
        width = q.shape[2] // (num_heads + 2 * kv_num_heads)
        q, k, v = cut(t, q, 2, [n * width for n in (num_heads, kv_num_heads, kv_num_heads)])
    q, k, v = heads(t, q, num_heads), heads(t, k, kv_num_heads), heads(t, v, kv_num_heads)
    if do_rotary and cos is not None and sin is not None:
        c, s = (looked_up(t, table, places, q.shape[0], q.shape[2]) for table in (cos, sin))
        q, k = (rotate(t, x, c, s, interleaved=bool(rotary_interleaved)) for x in (q, k))
    k, v = append(t, past_k, k, 1), append(t, past_v, v, 2)
    if extra is not None and extra.shape[-1] != k.shape[2]:
        raise Unsupported("a bias of another length than the keys")
    return merge(t, attend(t, q, k, v, extra, ordered=True, softcap=softcap)), k, v


@op("com.microsoft.RotaryEmbedding", "RotaryEmbedding")
def rotary_embedding(
    t: Tracer,
    x: Ref,
    a: Ref,
    b: Ref,
    c: Ref | None,
    *,
    num_heads: int = 0,
    interleaved: int = 0,
    rotary_embedding_dim: int = 0,
    is_packed_batching: int = 0,
) -> Ref:
    """https://onnx.ai/onnx/operators/onnx__RotaryEmbedding.html"""
    # onnxruntime's own operator takes the positions first, ONNX's the tables.
    if is_packed_batching or (c is None and t.node.op.startswith("com.")):
        raise Unsupported("packed batches")
    cos, sin, places = (b, c, a) if c is not None and t.node.op.startswith("com.") else (a, b, c)
    count = num_heads or (x.shape[-1] // (2 * cos.shape[-1]) if x.rank == 3 else 0)
    apart = heads(t, x, count)
    c, s = (looked_up(t, table, places, apart.shape[0], apart.shape[2]) for table in (cos, sin))
    made = rotate(t, apart, c, s, interleaved=bool(interleaved), width=rotary_embedding_dim)
    return made if x.rank == 4 else merge(t, made)


@op("Attention")
def onnx_attention(
    t: Tracer,
    q: Ref,
    k: Ref,
    v: Ref,
    mask: Ref | None,
    past_k: Ref | None,
    past_v: Ref | None,
    lengths: Ref | None,
    *,
    q_num_heads: int = 0,
    kv_num_heads: int = 0,
    is_causal: int = 0,
    softcap: float = 0.0,
    qk_matmul_output_mode: int = 0,
) -> tuple[Ref | None, ...]:
    """https://onnx.ai/onnx/operators/onnx__Attention.html"""
    if len(t.node.outputs) > 3 and t.node.outputs[3]:
        raise Unsupported("it hands out its scores")
    if lengths is not None:
        t.unknown([lengths], [], "it is a length", opaque=False)
    flat = q.rank == 3
    q, k, v = heads(t, q, q_num_heads), heads(t, k, kv_num_heads), heads(t, v, kv_num_heads)
    k, v = append(t, past_k, k, 1), append(t, past_v, v, 2)
    if mask is not None and mask.shape[-1] not in (1, k.shape[2]):
        raise Unsupported("a mask of another length than the keys")
    bias = t.pointwise(NONE, mask) if mask is not None else None
    made = attend(t, q, k, v, bias, ordered=bool(is_causal) or lengths is not None, softcap=softcap)
    return (merge(t, made) if flat else made), k, v
