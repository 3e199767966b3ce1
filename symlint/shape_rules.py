"""Rules for operators without a schema of ONNX's own: fused and quantised ones, removed ones, those of runtimes.

Sources: the operator pages of onnxruntime (ContribOperators.md), of ONNX 1.4 for removed experimental operators.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from symlint.call import Call, Found, Refused
from symlint.graph import Shape


def _first(call: Call) -> list[Found]:
    kind = call.kinds[0]
    if kind is None:
        raise LookupError(0)
    return [(kind.dtype, kind.shape)] * len(call.node.outputs)


def _dtype(call: Call, index: int, default: str = "float32") -> str:
    kind = call.kinds[index] if call.has(index) else None
    return kind.dtype if kind else default


def _retyped(index: int, default: str) -> Callable[[Call], list[Found]]:
    return lambda call: [(_dtype(call, index, default), call.shape(0))]


def _product(call: Call, a: Shape, b: Shape, dtype: str) -> list[Found]:
    for name, turned in (("transA", "a"), ("transB", "b")):
        shape = a if turned == "a" else b
        if call.attribute(f"transBatch{turned.upper()}", 0):
            shape = (*shape[1:-1], shape[0], shape[-1])
        if call.attribute(name, 0) and len(shape) > 1:
            shape = (*shape[:-2], shape[-1], shape[-2])
        a, b = (shape, b) if turned == "a" else (a, shape)
    if not a or not b or a[-1] != (b[-2] if len(b) > 1 else b[0]):
        raise Refused("inner dimensions differ")
    try:
        batch = np.broadcast_shapes(a[:-2], b[:-2])
    except ValueError as error:
        raise Refused("batch dimensions differ") from error
    return [(dtype, (*batch, *a[-2:-1], *(b[-1:] if len(b) > 1 else ())))]


def _n_bits(call: Call) -> list[Found]:
    if call.shape(0)[-1] != call.attribute("K"):
        raise Refused("inner dimensions differ")
    return [(_dtype(call, 0), (*call.shape(0)[:-1], int(call.attribute("N"))))]


def _attention(call: Call) -> list[Found]:
    batch, length, _ = call.shape(0)
    sizes = call.attribute("qkv_hidden_sizes") or (call.shape(1)[-1] // 3,) * 3
    heads, past = call.attribute("num_heads"), 8 if call.node.op.endswith(".QAttention") else 4
    total = length + (call.shape(past)[-2] if call.has(past) else 0)
    dtype = _dtype(call, 2) if call.node.op.endswith(".QAttention") else _dtype(call, 0)
    return [(dtype, (batch, length, sizes[2])), (dtype, (2, batch, heads, total, sizes[2] // heads))]


def _multi_head(call: Call) -> list[Found]:
    query, heads, dtype = call.shape(0), call.attribute("num_heads"), _dtype(call, 0)
    batch, length = query[:2]
    if len(query) == 5:  # packed q, k, v: [B, S, heads, 3, d]
        width, keys = heads * query[-1], length
    elif not call.has(2):  # packed k, v: [B, L, heads, 2, d]
        width, keys = heads * call.shape(1)[-1], call.shape(1)[1]
    else:
        value = call.shape(2)
        width, keys = (value[2], value[1]) if len(value) == 3 else (heads * value[-1], value[2])
    past = call.shape(6)[2] if call.has(6) else 0
    cache = (dtype, (batch, heads, past + keys, width // heads))
    return [(dtype, (batch, length, width)), cache, cache]


def _grouped_query(call: Call) -> list[Found]:
    (batch, length, width), heads, groups = call.shape(0), call.attribute("num_heads"), call.attribute("kv_num_heads")
    head = width // heads if call.has(1) else width // (heads + 2 * groups)
    past = call.shape(3)[2] if call.has(3) else 0
    cache = (_dtype(call, 3, _dtype(call, 0)), (batch, groups, max(past, length), head))
    return [(_dtype(call, 0), (batch, length, heads * head)), cache, cache]


def _embedding(call: Call) -> list[Found]:
    ids, table = call.shape(0), call.kinds[2]
    if table is None:
        raise LookupError(2)
    embedded = (table.dtype, (*ids, table.shape[1]))
    return [embedded, ("int32", ids[:1]), embedded]


def _crop(call: Call) -> list[Found]:
    *outer, height, width = call.shape(0)
    left, top, right, bottom = call.attribute("border")
    scale = call.attribute("scale") or (height - top - bottom, width - left - right)
    return [(_dtype(call, 0), (*outer, *scale))]


def _quantized_lstm(call: Call) -> list[Found]:
    (length, batch, _), hidden, ways = call.shape(0), call.attribute("hidden_size"), call.shape(1)[0]
    state = (_dtype(call, 0), (ways, batch, hidden))
    return [(_dtype(call, 0), (length, ways, batch, hidden)), state, state]


def _split_gelu(call: Call) -> list[Found]:
    return [(_dtype(call, 0), (*call.shape(0)[:-1], call.shape(0)[-1] // 2))]


def _dropout(call: Call) -> list[Found]:
    dtype = _dtype(call, 0)
    return [(dtype, call.shape(0)), ("bool" if call.node.opset >= 10 else dtype, call.shape(0))]


def _trees(call: Call) -> list[Found]:
    rows = call.shape(0)[0]
    integers = call.attribute("classlabels_int64s")
    classes = len(integers or call.attribute("classlabels_strings") or ())
    return [("int64" if integers else "string", (rows,)), ("float32", (rows, classes))]


def _as(op: str, *inputs: int) -> Callable[[Call], Call]:
    return lambda call: call.like(op, inputs)


def _concat(call: Call) -> Call:
    return call.like("Concat", range(2, len(call.kinds), 3))


_MS = "com.microsoft."
_SAME = (
    "BiasGelu",
    "FastGelu",
    "QuickGelu",
    "Gelu",
    "BiasDropout",
    "BiasSoftmax",
    "BiasAdd",
    "RotaryEmbedding",
    "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization",
    "SimplifiedLayerNormalization",
    "GroupNorm",
    "SkipGroupNorm",
    "QLinearLeakyRelu",
    "QLinearSigmoid",
    "QLinearSoftmax",
    "QuickGelu",
    "MoE",
    "QMoE",
    "Inverse",
    "Trilu",
    "LayerNormalization",
)
RULES: dict[str, Callable[[Call], Sequence[Found] | Call]] = {
    **{_MS + op: _first for op in _SAME},
    **dict.fromkeys(
        (
            "SimplifiedLayerNormalization",
            "ImageScaler",
            "Affine",
            "ParametricSoftplus",
            "ScaledTanh",
            "ThresholdedRelu",
            "finn.custom_op.general.MultiThreshold",
        ),
        _first,
    ),
    "Crop": _crop,
    "GreaterOrEqual": lambda call: call.like("Less", (0, 1)),  # functions without inference in their first version
    "LessOrEqual": lambda call: call.like("Less", (0, 1)),
    "Dropout": _dropout,
    "ai.onnx.ml.TreeEnsembleClassifier": _trees,
    _MS + "QuantizeLinear": _retyped(2, "uint8"),
    _MS + "DequantizeLinear": _retyped(1, "float32"),
    _MS + "FusedMatMul": lambda call: _product(call, call.shape(0), call.shape(1), _dtype(call, 0)),
    _MS + "FusedMatMulActivation": lambda call: _product(call, call.shape(0), call.shape(1), _dtype(call, 0)),
    _MS + "GemmFastGelu": lambda call: _product(call, call.shape(0), call.shape(1), _dtype(call, 0)),
    _MS + "DynamicQuantizeMatMul": lambda call: _product(call, call.shape(0), call.shape(1), "float32"),
    _MS + "MatMulIntegerToFloat": lambda call: _product(call, call.shape(0), call.shape(1), _dtype(call, 2)),
    _MS + "MatMulInteger16": lambda call: _product(call, call.shape(0), call.shape(1), "int32"),
    _MS + "QGemm": lambda call: _product(
        call, call.shape(0), call.shape(3), "float32" if not call.has(7) else _dtype(call, 8, "uint8")
    ),
    _MS + "MatMulNBits": _n_bits,
    _MS + "MatMulBnb4": _n_bits,
    _MS + "FusedGemm": _as("Gemm", 0, 1, 2),
    _MS + "FusedConv": _as("Conv", 0, 1, 2),
    _MS + "GatherBlockQuantized": lambda call: call.like("Gather", (0, 1), axis=call.attribute("gather_axis", 0)),
    _MS + "QLinearAdd": _as("Add", 0, 3),
    _MS + "QLinearMul": _as("Mul", 0, 3),
    _MS + "QLinearGlobalAveragePool": _as("GlobalAveragePool", 0),
    _MS + "QLinearAveragePool": _as("AveragePool", 0),
    _MS + "QLinearReduceMean": _as("ReduceMean", 0),
    _MS + "QLinearConcat": _concat,
    _MS + "BiasSplitGelu": _split_gelu,
    _MS + "Attention": _attention,
    _MS + "QAttention": _attention,
    _MS + "MultiHeadAttention": _multi_head,
    _MS + "GroupQueryAttention": _grouped_query,
    _MS + "EmbedLayerNormalization": _embedding,
    _MS + "DynamicQuantizeLSTM": _quantized_lstm,
}
"""Operators without a schema of ONNX's own: the kinds of their outputs, or the standard call they equal."""
