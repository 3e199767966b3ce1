"""Linear attention and causal convolutions, with the states that they hand on."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from symlint.model.operators import op
from symlint.operators.attention.standard import heads, merge
from symlint.program.lower import Ref, Tracer, Unsupported
from symlint.program.mixing import MixKind
from symlint.program.steps import SUM, Law


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
