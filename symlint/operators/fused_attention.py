"""The attention operators of onnxruntime: projected from one input, with caches, grouped heads and rotary positions."""

from __future__ import annotations

from collections.abc import Sequence

from symlint.lower import Ref, Tracer, Unsupported
from symlint.operators.heads import append, attend, cut, heads, key_mask, looked_up, merge, rotate
from symlint.operators.quantised import lift
from symlint.registry import op


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
    made = merge(t, attend(t, q, k, v, masked, extra, ordered=ordered or (2, 3) * unidirectional))
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
    return merge(t, attend(t, q, k, v, masked, extra, ordered=ordered or (2, 3) * unidirectional)), k, v


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
    return merge(t, attend(t, q, k, v, extra, ordered=(0, 2, 3), softcap=softcap)), k, v
