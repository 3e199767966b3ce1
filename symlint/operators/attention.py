"""ONNX's attention and rotary positions, and the parts of which every attention is made.

Linear attention and causal convolutions, with the states that they hand on.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

import numpy as np

from symlint.model.operators import op
from symlint.program.functions import MixKind
from symlint.program.lower import Ref, Tracer, Unsupported
from symlint.program.steps import NONE, SUM, Law


def attend(
    t: Tracer,
    q: Ref,
    k: Ref,
    v: Ref,
    *biases: Ref | None,
    ordered: Sequence[int] = (),
    softcap: float = 0.0,
    sink: Ref | None = None,
    smooth: bool = False,
) -> Ref:
    """``b h s e`` from queries ``b h s d``, keys ``b g t d`` and values ``b g t e``: h = (g r) shares keys by groups.

    ``ordered`` are the axes of the scores ``b h s t`` whose positions decide what is masked. A ``sink`` is one more
    score per head, whose value is zero, and attention that is ``smooth`` has one of zero.
    """
    scores = t.einsum("b (g r) s d, b g t d -> b (g r) s t", q, k)
    scores = t.apply(scores, None, "Tanh") if softcap else scores
    if ordered:
        places = np.indices([n if k in ordered else 1 for k, n in enumerate(scores.shape)]).sum(0)
        masked = t.constant(np.array(np.finfo(np.float32).min))
        scores = t.pointwise(
            Law("sum", (None, Fraction(1), Fraction(1))), t.constant(places), scores, masked, function="Where"
        )
    scores = t.add(scores, *biases)
    if sink is not None:
        scores = t.pointwise(SUM, scores, t.reshape(sink, (sink.shape[0], 1, 1)), function="Sub")
    scores = t.normalise(scores, [-1], function="Softmax" if sink is None and not smooth else "SoftmaxAndOne")
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


def append(t: Tracer, past: Ref | None, x: Ref, k: int | None, *, shared: bool = False) -> Ref:
    """Keys or values behind those of the past; a buffer of a fixed length, as output `k` may be, pins their places."""
    handed = k is not None and k < len(t.results) and len(t.node.outputs) > k and t.node.outputs[k]
    total = t.results[k] if k is not None and handed else None
    if past is None or past.shape[2] == 0:
        made = x
    elif shared or (total is not None and total[2] == past.shape[2]):
        placed = [t.mix(rows, [0, 1, None, 3], MixKind.CACHE, shape=past.shape) for rows in (x, past)]
        made = t.pointwise(NONE, *placed)
    else:
        made = t.concat([past, x], 2)
    return made


def key_mask(t: Tracer, mask: Ref | None, scores: Sequence[int]) -> tuple[Ref | None, tuple[int, ...]]:
    """A mask as a bias of the scores ``b h s t``, or else the axes along which it depends on positions."""
    if mask is None:
        return None, ()
    if mask.rank == 1 or (mask.rank == 4 and mask.shape[-1] != scores[3]):
        t.unknown([mask], [], "lengths, or a mask of another length than the keys", opaque=False)
        return None, (0, 2, 3)
    wide = {2: (mask.shape[0], 1, 1, mask.shape[-1]), 3: (mask.shape[0], 1, *mask.shape[1:])}
    return t.reshape(t.pointwise(NONE, mask), wide.get(mask.rank, mask.shape)), ()


def rotate(t: Tracer, x: Ref, cos: Ref, sin: Ref, *, interleaved: bool, width: int = 0) -> Ref:
    """Rotary embedding of ``b h s d`` by tables of ``b s p``; d is (2 p), or (p 2) where interleaved."""
    planes = cos.shape[-1]
    width = width or 2 * planes
    head, *tail = cut(t, x, 3, [width, x.shape[3] - width]) if width < x.shape[3] else [x]
    c, s = (t.reshape(r, (*(r.shape[:1] if r.rank == 3 else ()), 1, *r.shape[-2:])) for r in (cos, sin))
    apart = t.reshape(head, (*x.shape[:3], planes, 2) if interleaved else (*x.shape[:3], 2, planes))
    axis = 4 if interleaved else 3
    one, two = (t.reshape(t.slice(apart, axis, k, k + 1), (*x.shape[:3], planes)) for k in (0, 1))
    real = t.pointwise(SUM, t.multiply(one, c), t.multiply(two, s), function="Sub")
    made = (real, t.add(t.multiply(two, c), t.multiply(one, s)))
    thin = (*x.shape[:3], planes, 1) if interleaved else (*x.shape[:3], 1, planes)
    stacked = t.concat([t.reshape(m, thin) for m in made], axis)
    return t.concat([t.reshape(stacked, head.shape), *tail], 3)


def looked_up(t: Tracer, table: Ref, places: Ref | None, batch: int, length: int) -> Ref:
    """Rows of a table of rotations for every position."""
    if table.rank == 3:
        return table
    if places is not None and places.rank == 1:  # where all sequences begin
        batch = 1
    if places is not None:
        t.unknown([places], [], "it is an index", opaque=False)
    return t.mix(table, [None, None, 1], MixKind.LOOKUP, shape=(batch, length, table.shape[1]), steady=True)


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
    left_window_size: int = -1,
    right_window_size: int = -1,
) -> tuple[Ref | None, ...]:
    """https://onnx.ai/onnx/operators/onnx__Attention.html"""
    if len(t.node.outputs) > 3 and t.node.outputs[3]:
        raise Unsupported("it hands out its scores")
    if lengths is not None:
        t.unknown([lengths], [], "it is a length", opaque=False)
    windowed = is_causal or max(left_window_size, right_window_size) >= 0
    ordered = (0, 2, 3) if lengths is not None else (2, 3) if windowed else ()
    flat = q.rank == 3
    q, k, v = heads(t, q, q_num_heads), heads(t, k, kv_num_heads), heads(t, v, kv_num_heads)
    k, v = append(t, past_k, k, 1), append(t, past_v, v, 2)
    if mask is not None and mask.shape[-1] not in (1, k.shape[2]):
        raise Unsupported("a mask of another length than the keys")
    bias = t.pointwise(NONE, mask) if mask is not None else None
    made = attend(t, q, k, v, bias, ordered=ordered, softcap=softcap)
    return (merge(t, made) if flat else made), k, v


@op("LinearAttention", "com.microsoft.LinearAttention")
def linear_attention(
    t: Tracer,
    q: Ref,
    k: Ref,
    v: Ref,
    past: Ref | None,
    decay: Ref | None,
    beta: Ref | None,
    *,
    q_num_heads: int,
    kv_num_heads: int,
    update_rule: str = "gated_delta",
    state_window: int = 0,
) -> tuple[Ref, ...]:
    """https://onnx.ai/onnx/operators/onnx__LinearAttention.html"""
    if state_window:
        raise Unsupported("states of several places")
    counts = (q_num_heads, kv_num_heads, kv_num_heads)
    q, k, v = (_still(t, heads(t, x, n)) for x, n in zip((q, k, v), counts, strict=True))
    shape = (*k.shape[:3], k.shape[3] if decay is not None and decay.shape[2] > kv_num_heads else 1, 1)
    if decay is not None:
        decay = t.apply(t.reshape(_still(t, heads(t, decay, kv_num_heads)), shape), None, "Exp")
    if beta is not None:
        beta = _still(t, heads(t, beta, beta.shape[2]))
    decay, beta = decay if "gated" in update_rule else None, beta if "delta" in update_rule else None
    # Two steps, as in a recurrent layer, each for all places at once.
    start = past and t.reshape(past, (*past.shape[:2], 1, *past.shape[2:]))
    start = start and t.expand(start, (*start.shape[:2], k.shape[2], *start.shape[3:]))
    first = _step(t, k, v, start, decay, beta, update_rule)
    later = t.constant((np.arange(k.shape[2]) > 0).reshape(-1, 1, 1))
    second = _step(t, k, v, first, decay, beta, update_rule)
    states = t.pointwise(Law("sum", (None, Fraction(1), Fraction(1))), later, second, first, function="Where")
    few, many = ("h", "(h r)") if q_num_heads >= kv_num_heads else ("(h r)", "h")
    made = t.einsum(f"b {many} s k, b {few} s k v -> b (h r) s v", q, states, h=min(q_num_heads, kv_num_heads))
    return merge(t, made), t.mix(states, [0, 1, 3, 4], MixKind.LAST_STATE, shape=_less(states.shape, 2))


def _step(t: Tracer, k: Ref, v: Ref, state: Ref | None, decay: Ref | None, beta: Ref | None, rule: str) -> Ref:
    """The state ``b h s k v`` that keys and values make of another."""
    kept = state if state is None or decay is None else t.multiply(state, decay)
    if "delta" in rule and kept is not None:
        v = t.pointwise(SUM, v, t.einsum("b h s k, b h s k v -> b h s v", k, kept), function="Sub")
    v = v if beta is None else t.multiply(v, beta)
    return t.add(kept, t.einsum("b h s k, b h s v -> b h s k v", k, v))


def _still(t: Tracer, x: Ref) -> Ref:
    """``b h s d`` whose places have their order."""
    return t.mix(x, [0, 1, None, 3], MixKind.RECURRENCE, shape=x.shape)


def _less(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return (*shape[:axis], *shape[axis + 1 :])


@op("CausalConvWithState", "com.microsoft.CausalConvWithState")
def causal_conv(
    t: Tracer,
    x: Ref,
    w: Ref,
    bias: Ref | None,
    past: Ref | None,
    *,
    activation: str = "none",
    dilation: int = 1,
    channels_last: int = 0,
    state_window: int = 0,
) -> tuple[Ref, ...]:
    """https://onnx.ai/onnx/operators/onnx__CausalConvWithState.html"""
    if channels_last or state_window:
        raise Unsupported("states of several places, or channels that come last")
    whole = x if past is None else t.concat([past, x], x.rank - 1)
    spatial = x.rank - 2
    shape = (*x.shape[:2], *w.shape[2:], *x.shape[2:])
    patches = t.mix(whole, [0, 1, *[None] * (2 * spatial)], MixKind.CONVOLUTION, shape=shape)
    axes, here = " ".join(f"k{i}" for i in range(spatial)), " ".join(f"o{i}" for i in range(spatial))
    made = t.einsum(f"b c {axes} {here}, c 1 {axes} -> b c {here}", patches, w)
    made = t.add(made, bias and t.reshape(bias, (1, w.shape[0], *[1] * spatial)))
    made = made if activation == "none" else t.apply(made, None, "Swish")
    state = (*x.shape[:-1], (w.shape[-1] - 1) * dilation)
    return made, t.mix(whole, [*range(x.rank - 1), None], MixKind.LAST_STATE, shape=state)


@op("com.microsoft.LinearAttentionGate")
def linear_attention_gate(t: Tracer, a: Ref, bias: Ref, scale: Ref, b: Ref | None) -> tuple[Ref | None, ...]:
    """https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md#com.microsoft.LinearAttentionGate"""
    decay = t.multiply(t.apply(t.add(a, bias), None, "Softplus"), scale)
    return decay, b and t.apply(b, None, "Sigmoid")
