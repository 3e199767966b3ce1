"""The attention operators of onnxruntime: projected, with caches, grouped heads, packed tokens, sparse.

Mixtures of experts: a router weights what some of them make of each token.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import prod

import numpy as np

from symlint.model.operators import op
from symlint.operators.attention import append, attend, cut, heads, key_mask, looked_up, merge, rotate
from symlint.operators.layout import known
from symlint.operators.quantised import lift, unpack
from symlint.program.functions import MixKind
from symlint.program.lower import Ref, Tracer, Unsupported
from symlint.program.steps import NONE, Law


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
    rotary_embedding_dim: int = 0,
) -> tuple[Ref | None, ...]:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.Attention"""
    if past_length is not None:
        t.unknown([past_length], [], "it is a length", opaque=False)
    whole, sizes = t.add(t.einsum("b s i, i o -> b s o", x, w), bias), qkv_hidden_sizes or (w.shape[1] // 3,) * 3
    planes = (rotary_embedding_dim or sizes[0] // num_heads) // 2 if do_rotary else 0
    shared = past_length is not None
    return projected(
        t, whole, sizes, num_heads, mask, past, extra, ordered=unidirectional, planes=planes, shared=shared
    )


def projected(
    t: Tracer,
    whole: Ref,
    sizes: Sequence[int],
    num_heads: int,
    mask: Ref | None,
    past: Ref | None,
    extra: Ref | None,
    *,
    ordered: int = 0,
    planes: int = 0,
    shared: bool = False,
) -> tuple[Ref | None, ...]:
    """Attention from the queries, keys and values side by side, `planes` of each head being turned by positions."""
    q, k, v = (heads(t, part, num_heads) for part in cut(t, whole, 2, sizes))
    if planes:
        angles = np.outer(np.arange(q.shape[2]) + 1, 10000.0 ** -(np.arange(planes) / planes))
        tables = t.constant(np.cos(angles)), t.constant(np.sin(angles))
        q, k = (rotate(t, x, *tables, interleaved=False, width=2 * planes) for x in (q, k))
    if past is not None and past.shape[3] > 0:
        halves = (t.reshape(t.slice(past, 0, i, i + 1), past.shape[1:]) for i in (0, 1))
        k, v = (append(t, p, x, None, shared=shared) for p, x in zip(halves, (k, v), strict=True))
    masked, places = key_mask(t, mask, (q.shape[0], num_heads, q.shape[2], k.shape[2]))
    places = (0, 2, 3) if shared else places or (2, 3) * ordered
    made = merge(t, attend(t, q, k, v, masked, extra, ordered=places))
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
    past_present_share_buffer: int = 0,
) -> tuple[Ref | None, ...]:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.QAttention"""
    left, right = lift(t, x, x_scale, x_zero, 2), lift(t, w, w_scale, w_zero, 1)
    whole, third = t.add(t.einsum("b s i, i o -> b s o", left, right), bias), w.shape[1] // 3
    planes, shared = third // num_heads // 2 if do_rotary else 0, bool(past_present_share_buffer)
    return projected(
        t, whole, (third,) * 3, num_heads, mask, past, None, ordered=unidirectional, planes=planes, shared=shared
    )


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
        t.unknown([past_length], [], "it is a length", opaque=False)
    shared = past_length is not None
    if k is None and q.rank == 3:
        q, k, v = cut(t, q, 2, (q.shape[2] // 3,) * 3)
    elif k is None:  # b s h (q k v) d
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
    k, v = append(t, past_k, k, 1, shared=shared), append(t, past_v, v, 2, shared=shared)
    masked, ordered = key_mask(t, mask, (q.shape[0], num_heads, q.shape[2], k.shape[2]))
    ordered = (0, 2, 3) if shared else ordered or (2, 3) * unidirectional
    return merge(t, attend(t, q, k, v, masked, extra, ordered=ordered)), k, v


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
    k_scale: Ref | None,
    v_scale: Ref | None,
    q_gain: Ref | None,
    k_gain: Ref | None,
    *,
    num_heads: int,
    kv_num_heads: int,
    do_rotary: int = 0,
    rotary_interleaved: int = 0,
    softcap: float = 0.0,
    smooth_softmax: int = -1,
    sliding_window_cache: int = 0,
) -> tuple[Ref, ...]:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.GroupQueryAttention"""
    if k_scale is not None or v_scale is not None:
        raise Unsupported("a quantised cache")
    t.unknown([x for x in (lengths, total) if x.value is None], [], "it is a length", opaque=False)
    if k is None or v is None:
        width = q.shape[2] // (num_heads + 2 * kv_num_heads)
        q, k, v = cut(t, q, 2, [n * width for n in (num_heads, kv_num_heads, kv_num_heads)])
    q, k, v = heads(t, q, num_heads), heads(t, k, kv_num_heads), heads(t, v, kv_num_heads)
    if q_gain is not None and k_gain is not None:
        q, k = (t.multiply(t.normalise(x, [-1], function="rms"), g) for x, g in ((q, q_gain), (k, k_gain)))
    if do_rotary and cos is not None and sin is not None:
        # Queries and keys look rows up apart: their places are not the same axis.
        pairs = [(x, [looked_up(t, r, places, x.shape[0], x.shape[2]) for r in (cos, sin)]) for x in (q, k)]
        q, k = (rotate(t, x, c, s, interleaved=bool(rotary_interleaved)) for x, (c, s) in pairs)
    shared = bool(sliding_window_cache)
    k, v = append(t, past_k, k, 1, shared=shared), append(t, past_v, v, 2, shared=shared)
    if extra is not None and extra.shape[-1] != k.shape[2]:
        raise Unsupported("a bias of another length than the keys")
    smooth, ordered = smooth_softmax == 1, (0, 2, 3)
    return merge(t, attend(t, q, k, v, extra, ordered=ordered, softcap=softcap, sink=sink, smooth=smooth)), k, v


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


HOMOGENEOUS = {"relu": "Relu", "identity": "Identity"}


@op("com.microsoft.MoE")
def mixture(
    t: Tracer,
    x: Ref,
    router: Ref,
    up: Ref,
    up_bias: Ref | None,
    down: Ref,
    down_bias: Ref | None,
    other: Ref | None,
    other_bias: Ref | None,
    *,
    activation_type: str = "relu",
    activation_beta: float = 0.0,
    swiglu_fusion: int = 0,
    swiglu_limit: float | None = None,
    use_sparse_mixer: int = 0,
) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.MoE"""
    shift = bool(activation_beta) or swiglu_limit is not None
    weights = route(t, router, sparse=bool(use_sparse_mixer))
    matrices, biases = (up, down, other), (up_bias, down_bias, other_bias)
    return expert(t, x, weights, matrices, biases, activation_type, swiglu_fusion, shift)


def route(t: Tracer, router: Ref, *, sparse: bool) -> Ref:
    """The weight of every expert, zero where it is not chosen: a map that commutes with permutations of experts."""
    whole = t.normalise(router, [-1], function="SparseMixer" if sparse else "Softmax")
    return t.normalise(whole, [-1], function="Chosen")


def expert(
    t: Tracer,
    x: Ref,
    weights: Ref,
    matrices: tuple[Ref, Ref, Ref | None],
    biases: tuple[Ref | None, Ref | None, Ref | None],
    activation: str,
    fusion: int,
    shift: bool,
) -> Ref:
    """What all experts make of every token, weighted; `shift`: the linear half of a gate is moved or clipped."""
    tokens = t.reshape(x, (prod(x.shape[:-1]), x.shape[-1]))
    hidden = _project(t, "n k, e m k -> n e m", tokens, matrices[0], biases[0])
    beside = matrices[2] and _project(t, "n k, e m k -> n e m", tokens, matrices[2], biases[2])
    if activation == "swiglu" and fusion:
        hidden, beside = _halves(t, hidden, interleaved=fusion == 1)
    if activation == "swiglu" and shift and beside is not None:
        beside = t.apply(beside, None, "Shifted")
    function = HOMOGENEOUS.get(activation, "Gate")
    hidden = t.apply(hidden, None if function == "Gate" else 1, function)
    hidden = hidden if beside is None else t.multiply(hidden, beside)
    made = _project(t, "n e m, e k m -> n e k", hidden, matrices[1], biases[1])
    return t.reshape(t.einsum("n e, n e k -> n k", weights, made), x.shape)


def _project(t: Tracer, pattern: str, x: Ref, w: Ref, bias: Ref | None) -> Ref:
    return t.add(t.einsum(pattern, x, w), bias)


def _halves(t: Tracer, x: Ref, *, interleaved: bool) -> tuple[Ref, Ref]:
    """The gate and the linear half of a fused projection ``n e (m 2)``, or ``n e (2 m)``."""
    n, e, both = x.shape
    apart, axis = t.reshape(x, (n, e, both // 2, 2) if interleaved else (n, e, 2, both // 2)), 3 if interleaved else 2
    gate, linear = (t.reshape(t.slice(apart, axis, k, k + 1), (n, e, both // 2)) for k in (0, 1))
    return gate, linear


@op("com.microsoft.QMoE")
def quantised_mixture(
    t: Tracer,
    x: Ref,
    router: Ref,
    up: Ref,
    up_scales: Ref | None,
    up_bias: Ref | None,
    down: Ref,
    down_scales: Ref | None,
    down_bias: Ref | None,
    other: Ref | None,
    other_scales: Ref | None,
    other_bias: Ref | None,
    up_zeros: Ref | None,
    down_zeros: Ref | None,
    other_zeros: Ref | None,
    mixing: Ref | None,
    *,
    quant_type: str = "int",
    activation_type: str = "relu",
    activation_beta: float = 0.0,
    swiglu_fusion: int = 0,
    swiglu_limit: float | None = None,
    use_sparse_mixer: int = 0,
) -> Ref:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.QMoE"""
    if quant_type != "int" or up_scales is None or down_scales is None:
        raise Unsupported(f"experts of quantisation {quant_type}")
    shift = bool(activation_beta) or swiglu_limit is not None
    weights = route(t, router, sparse=bool(use_sparse_mixer))
    weights = weights if mixing is None else t.normalise(t.multiply(weights, mixing), [-1], function="Chosen")
    inner = up.shape[1] // (2 if swiglu_fusion else 1)
    return expert(
        t,
        x,
        weights,
        (
            _levels(t, up, up_scales, up_zeros, x.shape[-1]),
            _levels(t, down, down_scales, down_zeros, inner),
            other and _levels(t, other, other_scales, other_zeros, x.shape[-1]),
        ),
        (up_bias, down_bias, other_bias),
        activation_type,
        swiglu_fusion,
        shift,
    )


def _levels(t: Tracer, w: Ref, scales: Ref | None, zeros: Ref | None, width: int) -> Ref:
    """Weights ``e n k`` of several to the byte, with levels per row or per block of a row."""
    each = width // w.shape[-1]
    whole = unpack(t, w, width, each)
    rows, blocks = w.shape[1], width // (scales.shape[2] if scales is not None and scales.rank == 3 else 1)
    if zeros is not None:
        zeros = unpack(t, zeros, rows if zeros.rank == 2 else width // blocks, each)
    scale, zero = (t.reshape(v, (*v.shape, 1)) if v is not None and v.rank == 2 else v for v in (scales, zeros))
    return lift(t, whole, scale, zero, 2, blocks)
