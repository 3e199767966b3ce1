"""ONNX's attention and rotary positions."""

from __future__ import annotations

from symlint.model.operators import op
from symlint.operators.attention.heads import append, attend, heads, looked_up, merge, rotate
from symlint.program.lower import Ref, Tracer, Unsupported
from symlint.program.steps import NONE


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
