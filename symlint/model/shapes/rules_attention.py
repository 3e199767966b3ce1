"""Shapes of attention and of recurrences in onnxruntime's own domain, with the caches and states that they hand on."""

from __future__ import annotations

from symlint.model.graph import Shape
from symlint.model.shapes.call import Call, Found
from symlint.model.shapes.parts import Rule, dtype, kind, known, same


def _sizes(call: Call) -> tuple[int, ...]:
    """Widths of queries, keys and values in a projection of all three."""
    return tuple(call.attribute("qkv_hidden_sizes") or (call.shape(1)[-1] // 3,) * 3)


def _attention(call: Call) -> list[Found]:
    (batch, length, _), sizes, heads = call.shape(0), _sizes(call), call.attribute("num_heads")
    quantised = call.node.op.endswith(".QAttention")
    made, past = dtype(call, 2 if quantised else 0), 8 if quantised else 4
    shared = call.attribute("past_present_share_buffer", 0) or (not quantised and call.has(6))
    total = _held(call, past, length, shared=bool(shared), axis=3)
    return [(made, (batch, length, sizes[2])), (made, (2, batch, heads, total, sizes[2] // heads))]


def _held(call: Call, past: int, length: int, *, shared: bool, axis: int = 2) -> int:
    """Places of the cache after this call: a shared buffer has a place for each token that may ever come."""
    if not call.has(past):
        return length
    return call.shape(past)[axis] if shared else call.shape(past)[axis] + length


def _multi_head(call: Call, past: int = 6, told: int = 8) -> list[Found]:
    query, heads, made = call.shape(0), call.attribute("num_heads"), dtype(call, 0)
    batch, length = query[:2]
    if len(query) == 5:  # packed q, k, v: [B, S, heads, 3, d]
        wide, width, keys = heads * query[-1], heads * query[-1], length
    elif not call.has(1):  # side by side: [B, S, q k v]
        wide, width, keys = query[2] // 3, query[2] // 3, length
    elif not call.has(2):  # packed k, v: [B, L, heads, 2, d]
        wide, width, keys = query[2], heads * call.shape(1)[-1], call.shape(1)[1]
    else:
        wide, value = query[2], call.shape(2)
        width, keys = (value[2], value[1]) if len(value) == 3 else (heads * value[-1], value[2])
    shared = call.has(told) or bool(call.attribute("past_present_share_buffer", 0))
    total = _held(call, past, keys, shared=shared)
    caches: list[Found] = [(made, (batch, heads, total, w // heads)) for w in (wide, width)]
    return [(made, (batch, length, width)), *caches, (made, (batch, heads, length, total))]


def _grouped_query(call: Call) -> list[Found]:
    (batch, length, width), heads, groups = call.shape(0), call.attribute("num_heads"), call.attribute("kv_num_heads")
    head = width // heads if call.has(1) else width // (heads + 2 * groups)
    past = call.shape(3)[2] if call.has(3) else 0
    told = call.value(6) if call.has(6) else None
    # Unless the file says that the cache grows, it is a buffer of a fixed length.
    grows = told is not None and told.size == 1 and int(told.reshape(())) == past + length
    total = past + length if grows else max(past, length)
    made, cache = dtype(call, 0), (dtype(call, 3, dtype(call, 0)), (batch, groups, total, head))
    return [(made, (batch, length, heads * head)), cache, cache, (made, (batch, heads, length, total))]


def _packed_multi_head(call: Call) -> list[Found]:
    query = call.shape(0)
    width = query[1] * query[3] if len(query) == 4 else call.shape(2)[1]  # packed q, k, v: [T, heads, 3, d]
    return [(dtype(call, 0), (query[0], width))]


def _relative_bias(call: Call) -> list[Found]:
    lengths = (int(known(call, k).reshape(-1)[0]) for k in (1, 2))
    return [(dtype(call, 0), (1, call.shape(0)[1], *lengths))]


def _gated_bias(call: Call) -> list[Found]:
    batch = call.shape(6 if call.has(6) else 0)[0]  # tokens that are packed have offsets
    return [(dtype(call, 0), (batch, *call.shape(2)[1:]))]


def _embedding(call: Call) -> list[Found]:
    made = dtype(call, 8 if call.node.op.endswith(".QEmbedLayerNormalization") else 2)
    embedded = (made, (*call.shape(0), call.shape(2)[1]))
    return [embedded, ("int32", call.shape(0)[:1]), embedded]


def _quantized_lstm(call: Call) -> list[Found]:
    (length, batch, _), hidden, ways = call.shape(0), call.attribute("hidden_size"), call.shape(1)[0]
    state = (dtype(call, 0), (ways, batch, hidden))
    return [(dtype(call, 0), (length, ways, batch, hidden)), state, state]


def _state(call: Call, past: int, shape: Shape) -> Found:
    """A state like the past one, if there is any; several of them where a window asks for that."""
    if call.has(past):
        return kind(call, past)
    window = call.attribute("state_window", 0)
    return dtype(call, 0), (window, *shape) if window else shape


def _linear_attention(call: Call) -> list[Found]:
    (batch, length, width), queries, groups = (
        call.shape(0),
        call.attribute("q_num_heads"),
        call.attribute("kv_num_heads"),
    )
    value = call.shape(2)[2] // groups
    made = (dtype(call, 0), (batch, length, max(queries, groups) * value))
    return [made, _state(call, 3, (batch, groups, width // queries, value))]


def _causal_conv(call: Call) -> list[Found]:
    x, length = call.shape(0), (call.shape(1)[-1] - 1) * call.attribute("dilation", 1)
    state = (x[0], length, *x[2:]) if call.attribute("channels_last", 0) else (*x[:-1], length)
    return [kind(call, 0), _state(call, 3, state)]


ATTENTION: dict[str, Rule] = {
    "Attention": _attention,
    "QAttention": _attention,
    "MultiHeadAttention": _multi_head,
    "DecoderMaskedMultiHeadAttention": lambda call: _multi_head(call, 5, 7),
    "GroupQueryAttention": _grouped_query,
    "SparseAttention": _grouped_query,
    "PackedAttention": lambda call: [(dtype(call, 0), (call.shape(0)[0], _sizes(call)[2]))],
    "PackedMultiHeadAttention": _packed_multi_head,
    "LongformerAttention": same(0),
    "RelativePositionBias": _relative_bias,
    "GatedRelativePositionBias": _gated_bias,
    "RotaryEmbedding": same(0),
    "MRotaryEmbedding": same(0),
    "GemmaRotaryEmbedding": same(1, 3),
    "EmbedLayerNormalization": _embedding,
    "QEmbedLayerNormalization": _embedding,
    "DynamicQuantizeLSTM": _quantized_lstm,
    "LinearAttention": _linear_attention,
    "LinearAttentionGate": same(0),
    "CausalConvWithState": _causal_conv,
}
"""Operators of com.microsoft: the kinds of their outputs."""
