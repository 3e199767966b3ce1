"""Rules for operators without a schema of ONNX's own: fused and quantised ones, removed ones, those of runtimes.

Sources: the operator pages of onnxruntime (ContribOperators.md), of ONNX 1.4 for removed experimental operators.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from math import prod
from typing import Any

import numpy as np

from symlint.model.graph import Shape
from symlint.model.operators import enter
from symlint.model.shapes.known import Call, Found, Refused, Rule, dtype, kind, known, like, same, together


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


# Shapes of operators of ONNX itself of which its own inference says nothing, or less than their inputs tell.


def told(call: Call, index: int) -> np.ndarray | None:
    """The value of an input that may decide a shape, in one row, if it is known."""
    value = call.value(index) if call.has(index) else None
    return None if value is None else value.reshape(-1)


def between(call: Call) -> list[Found]:
    """A range, whatever its number type."""
    start, limit = told(call, 0), told(call, 1)
    step = told(call, 2) if call.has(2) else np.ones(1)
    if start is None or limit is None or step is None:
        return [(dtype(call, 0), (None,))]
    if start.dtype.kind in "iu" and step.dtype.kind in "iu":
        return [(start.dtype.name, (max(0, -((int(start[0]) - int(limit[0])) // int(step[0]))),))]
    return [(dtype(call, 0), (max(0, math.ceil((float(limit[0]) - float(start[0])) / float(step[0]))),))]


def _one_hot(call: Call) -> list[Found]:
    indices, depth = call.shape(0), told(call, 1)
    at = call.attribute("axis", -1) % (len(indices) + 1)
    return [(dtype(call, 2), (*indices[:at], None if depth is None else int(depth[0]), *indices[at:]))]


def _compressed(call: Call) -> list[Found]:
    x, kept, axis = call.shape(0), told(call, 1), call.attribute("axis")
    shape = (prod(x),) if axis is None else x
    at = 0 if axis is None else axis % len(x)
    count = None if kept is None else int(np.count_nonzero(kept[: shape[at]]))
    return [(dtype(call, 0), (*shape[:at], count, *shape[at + 1 :]))]


def _unpooled(call: Call) -> list[Found]:
    (batch, channels, *sizes), kernel = call.shape(0), call.attribute("kernel_shape")
    if call.has(2):
        return [(dtype(call, 0), tuple(int(n) for n in known(call, 2)))]
    strides, pads = call.attribute("strides") or [1] * len(sizes), call.attribute("pads") or [0] * (2 * len(sizes))
    widths = ((n - 1) * strides[k] + kernel[k] - pads[k] - pads[k + len(sizes)] for k, n in enumerate(sizes))
    return [(dtype(call, 0), (batch, channels, *widths))]


def _spectra(call: Call) -> list[Found]:
    """Frames of a signal, the frequencies of each, and the parts of a complex number."""
    batch, length, _ = call.shape(0)
    step, told_width = int(known(call, 1).reshape(-1)[0]), told(call, 3)
    width = call.shape(2)[0] if told_width is None else int(told_width[0])
    if width > length:
        raise Refused("a window does not fit its input")
    bins = width // 2 + 1 if call.attribute("onesided", 1) else width
    return [(dtype(call, 0), (batch, (length - width) // step + 1, bins, 2))]


def _blocks(call: Call) -> list[Found]:
    """Blocks of a picture as channels, or back."""
    (batch, channels, *sizes), block = call.shape(0), call.attribute("blocksize")
    if call.node.op == "DepthToSpace":
        if channels % block**2:
            raise Refused("the channels are no blocks")
        return [(dtype(call, 0), (batch, channels // block**2, *(n * block for n in sizes)))]
    if any(n % block for n in sizes):
        raise Refused("a side is no whole number of blocks")
    return [(dtype(call, 0), (batch, channels * block**2, *(n // block for n in sizes)))]


def _encoded(call: Call) -> list[Found]:
    """Labels for labels; attributes tell their type."""
    kinds = {"int64s": "int64", "floats": "float32", "strings": "string"}
    made = next((word for name, word in kinds.items() if call.attribute(f"values_{name}") is not None), None)
    table = call.attribute("values_tensor")
    return [(made or (table.dtype.name if isinstance(table, np.ndarray) else "float32"), call.shape(0))]


def _targets(call: Call) -> list[Found]:
    count = call.attribute("targets") or call.attribute("n_targets") or 1
    return [("float32", (call.shape(0)[0], int(count)))]


def _trees(call: Call) -> list[Found]:
    rows = call.shape(0)[0]
    integers = call.attribute("classlabels_int64s")
    classes = len(integers or call.attribute("classlabels_strings") or ())
    return [("int64" if integers else "string", (rows,)), ("float32", (rows, classes))]


def _vectorized(call: Call) -> list[Found]:
    return [("float32", (call.shape(0)[0], sum(int(n) for n in call.attribute("inputdimensions"))))]


STANDARD: dict[str, Rule] = {
    **dict.fromkeys(("GroupNormalization", "MeanVarianceNormalization", "Scatter", "ScatterElements"), same(0)),
    **dict.fromkeys(("ScatterND", "TensorScatter"), same(0)),
    **dict.fromkeys(("SpaceToDepth", "DepthToSpace"), _blocks),
    "Compress": _compressed,
    "MaxUnpool": _unpooled,
    "OneHot": _one_hot,
    "Range": between,
    "STFT": _spectra,
    "ai.onnx.ml.Imputer": same(0),
    "ai.onnx.ml.LabelEncoder": _encoded,
    "ai.onnx.ml.FeatureVectorizer": _vectorized,
    "ai.onnx.ml.TreeEnsembleClassifier": _trees,
    **dict.fromkeys(("ai.onnx.ml.Scaler", "ai.onnx.ml.Normalizer"), lambda call: [("float32", call.shape(0))]),
    **dict.fromkeys(
        ("ai.onnx.ml.LinearRegressor", "ai.onnx.ml.SVMRegressor", "ai.onnx.ml.TreeEnsembleRegressor"), _targets
    ),
}
"""Operators of ONNX's own domains: the kinds of their outputs."""


# Shapes of onnxruntime's own convolutions and poolings, whose channels may come last, and of what cuts pictures.


def _slid(call: Call, size: int, axis: int, kernel: int) -> int:
    """How many windows fit along a spatial axis."""
    stride, dilation = (_of(call, name, axis, 1) for name in ("strides", "dilations"))
    auto = call.attribute("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        return -(-size // stride)
    pads = call.attribute("pads") or ()
    padded = size + (pads[axis] + pads[axis + len(pads) // 2] if pads and auto == "NOTSET" else 0)
    room = padded - dilation * (kernel - 1) - 1
    if room < 0:
        raise Refused("a window does not fit its input")
    if not call.attribute("ceil_mode", 0):
        return room // stride + 1
    count = -(-room // stride) + 1
    begin = pads[axis] if pads and auto == "NOTSET" else 0
    # The last window starts in the picture or in the padding before it.
    return count - ((count - 1) * stride >= size + begin)


def _of(call: Call, name: str, axis: int, default: int) -> int:
    values: Any = call.attribute(name)
    return int(values[axis]) if values else default


def _slides(call: Call, sizes: Iterable[int], kernel: Iterable[int]) -> Shape:
    return tuple(_slid(call, n, axis, k) for axis, (n, k) in enumerate(zip(sizes, kernel, strict=True)))


def _conv_last(call: Call, weight: int) -> list[Found]:
    x, w = call.shape(0), call.shape(weight)
    if len(x) != len(w) or x[-1] != w[1] * call.attribute("group", 1):
        raise Refused("channels differ")
    return [(dtype(call, 0), (x[0], *_slides(call, x[1:-1], w[2:]), w[0]))]


def _pool_last(call: Call) -> list[Found]:
    (batch, *sizes, channels), kernel = call.shape(0), call.attribute("kernel_shape")
    return [(dtype(call, 0), (batch, *_slides(call, sizes, kernel), channels))]


def _global_last(call: Call) -> list[Found]:
    (batch, *sizes, channels) = call.shape(0)
    return [(dtype(call, 0), (batch, *[1] * len(sizes), channels))]


def _either(last: Rule, first: Rule) -> Rule:
    """By where the channels come."""
    return lambda call: (last if call.attribute("channels_last", 0) else first)(call)


def _transposed(call: Call) -> Call:
    return call.like("ConvTranspose", (0, 1), pads=tuple(int(n) for n in known(call, 2)))


def _resized(call: Call) -> list[Found]:
    sizes = [int(n) for n in known(call, 3)]
    return [(dtype(call, 0), (call.shape(1)[0], call.shape(0)[1], *sizes))]


def _crop(call: Call) -> list[Found]:
    *outer, height, width = call.shape(0)
    left, top, right, bottom = call.attribute("border")
    scale = call.attribute("scale") or (height - top - bottom, width - left - right)
    return [(dtype(call, 0), (*outer, *scale))]


def _unfolded(call: Call) -> list[Found]:
    x, size = call.shape(0), call.attribute("size")
    at = call.attribute("dim", -1) % len(x)
    count = (x[at] - size) // call.attribute("step", 1) + 1
    if count < 1:
        raise Refused("a window does not fit its input")
    return [(dtype(call, 0), (*x[:at], count, *x[at + 1 :], size))]


WINDOWS: dict[str, Rule] = {
    "Crop": _crop,
    "com.microsoft.FusedConv": like("Conv", 0, 1, 2),
    "com.microsoft.QLinearConv": _either(lambda call: _conv_last(call, 3), like("Conv", 0, 3)),
    "com.microsoft.NhwcConv": lambda call: _conv_last(call, 1),
    "com.microsoft.NhwcFusedConv": lambda call: _conv_last(call, 1),
    "com.microsoft.NhwcMaxPool": _pool_last,
    "com.microsoft.MaxpoolWithMask": like("MaxPool", 0),
    "com.microsoft.QLinearAveragePool": _either(_pool_last, like("AveragePool", 0)),
    "com.microsoft.QLinearGlobalAveragePool": _either(_global_last, like("GlobalAveragePool", 0)),
    "com.microsoft.ConvTransposeWithDynamicPads": _transposed,
    "com.microsoft.CropAndResize": _resized,
    "com.microsoft.GridSample": like("GridSample", 0, 1),
    "com.microsoft.UnfoldTensor": _unfolded,
}
"""Operators without a schema of ONNX's own: the kinds of their outputs, or the standard call they equal."""


def _retyped(index: int, default: str) -> Rule:
    return lambda call: [(dtype(call, index, default), call.shape(0))]


def _product(call: Call, a: Shape, b: Shape, made: str) -> list[Found]:
    for name, turned in (("transA", "a"), ("transB", "b")):
        shape = a if turned == "a" else b
        if call.attribute(f"transBatch{turned.upper()}", 0):
            shape = (*shape[1:-1], shape[0], shape[-1])
        if call.attribute(name, 0) and len(shape) > 1:
            shape = (*shape[:-2], shape[-1], shape[-2])
        a, b = (shape, b) if turned == "a" else (a, shape)
    if not a or not b or a[-1] != (b[-2] if len(b) > 1 else b[0]):
        raise Refused("inner dimensions differ")
    return [(made, (*together((a[:-2], b[:-2])), *a[-2:-1], *(b[-1:] if len(b) > 1 else ())))]


def _matmul(call: Call) -> list[Found]:
    return _product(call, call.shape(0), call.shape(1), dtype(call, 0))


def _n_bits(*widths: str) -> Rule:
    """Products with packed matrices of so many rows, and the sum before a norm."""

    def rule(call: Call) -> list[Found]:
        x, made = call.shape(0), dtype(call, 0)
        if x[-1] != call.attribute("K"):
            raise Refused("inner dimensions differ")
        return [*((made, (*x[:-1], int(call.attribute(n)))) for n in widths), (made, x)]

    return rule


def _bnb4(call: Call) -> list[Found]:
    inner, outer = ("K", "N") if call.attribute("transB", 1) else ("N", "K")
    if call.shape(0)[-1] != call.attribute(inner):
        raise Refused("inner dimensions differ")
    return [(dtype(call, 0), (*call.shape(0)[:-1], int(call.attribute(outer))))]


def _looked_up(call: Call) -> list[Found]:
    stored, table = kind(call, 0)
    if stored == "uint8":  # a byte holds several numbers
        table = (*table[:-1], table[-1] * (8 // call.attribute("bits", 4)))
    at = call.attribute("gather_axis", 0) % len(table)
    return [(dtype(call, 2), (*table[:at], *call.shape(1), *table[at + 1 :]))]


def _reduced(call: Call, made: str) -> list[Found]:
    x = call.shape(0)
    axes = {axis % len(x) for axis in call.attribute("axes") or range(len(x))}
    kept = ((1 if k in axes else n, k) for k, n in enumerate(x))
    return [(made, tuple(n for n, k in kept if k not in axes or call.attribute("keepdims", 1)))]


def _broadcast(made: str, *inputs: int) -> Rule:
    return lambda call: [(made or dtype(call, 1), together(call.shape(k) for k in inputs))]


def _split_gelu(call: Call) -> list[Found]:
    return [(dtype(call, 0), (*call.shape(0)[:-1], call.shape(0)[-1] // 2))]


def _dropout(call: Call) -> list[Found]:
    old = not call.node.op.startswith("com.") and call.node.opset < 10
    return [kind(call, 0), (dtype(call, 0) if old else "bool", call.shape(0))]


def _bitmask(call: Call) -> list[Found]:
    count = 1
    for n in call.shape(0):
        count *= n
    return [kind(call, 0), ("uint32", (-(-count // 32),))]


def _normed(call: Call) -> list[Found]:
    """The norm of a sum, the moments of each row, and the sum."""
    moment = ("float32", (*call.shape(0)[:-1], 1))
    return [kind(call, 0), moment, moment, kind(call, 0)]


def _streams(call: Call) -> list[Found]:
    x, count = call.shape(0), call.attribute("num_branches", 0)
    return [(dtype(call, 0), (*x[:-1], x[-1] // count) if count else (*x[:-2], x[-1]))]


def _padded(call: Call) -> list[Found]:
    pads, x = known(call, 1).reshape(-1), call.shape(0)
    return [(dtype(call, 0), tuple(n + int(pads[k] + pads[k + len(x)]) for k, n in enumerate(x)))]


def _widened(call: Call) -> list[Found]:
    x, at = call.shape(0), int(known(call, 1).reshape(-1)[0]) % (len(call.shape(0)) + 1)
    return [(dtype(call, 0), (*x[:at], 1, *x[at:]))]


def _transformed(call: Call) -> list[Found]:
    """Complex numbers have an axis for their two parts."""
    x = call.shape(0)
    back = call.node.op.endswith("Irfft")
    return [(dtype(call, 0), (*x[:-2], 2 * (x[-2] - 1)) if back else (*x[:-1], x[-1] // 2 + 1, 2))]


def _unpadded(call: Call) -> list[Found]:
    batch, length, width = call.shape(0)
    numbers: list[Found] = [("int32", shape) for shape in ((batch, length), (batch + 1,), (1,))]
    return [(dtype(call, 0), (None, width)), *numbers]


_SAME = (
    *("Gelu", "BiasGelu", "FastGelu", "QuickGelu", "ScaledSiLU", "BiasSoftmax", "BiasAdd", "GatedAdd"),
    *("LayerNormalization", "SimplifiedLayerNormalization", "GroupNorm", "SkipGroupNorm"),
    *("GatedRMSNorm", "BranchwiseRMSNorm", "HyperConnectionPostMix", "EngramGate", "MoE", "QMoE"),
    *("QLinearLeakyRelu", "QLinearSigmoid", "QLinearSoftmax", "Inverse", "Trilu"),
)
_MICROSOFT: dict[str, Rule] = {
    **dict.fromkeys(_SAME, same(0)),
    **ATTENTION,
    "QuantizeLinear": _retyped(2, "uint8"),
    "DequantizeLinear": _retyped(1, "float32"),
    "FusedMatMul": _matmul,
    "TransposeMatMul": _matmul,
    "FusedMatMulActivation": _matmul,
    "GemmFastGelu": _matmul,
    "DynamicQuantizeMatMul": lambda call: _product(call, call.shape(0), call.shape(1), "float32"),
    "MatMulIntegerToFloat": lambda call: _product(call, call.shape(0), call.shape(1), dtype(call, 2)),
    "MatMulInteger16": lambda call: _product(call, call.shape(0), call.shape(1), "int32"),
    "QGemm": lambda call: _product(
        call, call.shape(0), call.shape(3), "float32" if not call.has(7) else dtype(call, 8, "uint8")
    ),
    "MatMulNBits": _n_bits("N"),
    "MatMulNBitsMlp": _n_bits("N"),
    "MatMulNBitsQkv": _n_bits("Nq", "Nkv", "Nkv"),
    "MatMulBnb4": _bnb4,
    "MatMulFpQ4": lambda call: _product(call, call.shape(0), tuple(map(int, known(call, 2))), dtype(call, 0)),
    "FusedGemm": like("Gemm", 0, 1, 2),
    "GatherBlockQuantized": _looked_up,
    "GatherND": like("GatherND", 0, 1),
    "TorchEmbedding": like("Gather", 0, 1),
    "QLinearAdd": like("Add", 0, 3),
    "QLinearMul": like("Mul", 0, 3),
    "QLinearWhere": _broadcast("", 0, 1, 4),
    "QLinearReduceMean": lambda call: _reduced(call, dtype(call, 0)),
    "QLinearConcat": lambda call: call.like("Concat", range(2, len(call.kinds), 3)),
    "MulInteger": _broadcast("int32", 0, 2),
    "ReduceSumInteger": lambda call: _reduced(call, dtype(call, 0).replace("int8", "int32")),
    "ComplexMul": like("Mul", 0, 1),
    "ComplexMulConj": like("Mul", 0, 1),
    "Rfft": _transformed,
    "Irfft": _transformed,
    "CDist": lambda call: [(dtype(call, 0), (call.shape(0)[0], call.shape(1)[0]))],
    "BiasSplitGelu": _split_gelu,
    "BiasDropout": _dropout,
    "BitmaskDropout": _bitmask,
    "BitmaskBiasDropout": _bitmask,
    "SkipLayerNormalization": _normed,
    "SkipSimplifiedLayerNormalization": _normed,
    "HyperConnectionPreMix": _streams,
    "Pad": _padded,
    "ExpandDims": _widened,
    "Range": between,
    "RemovePadding": _unpadded,
    "RestorePadding": lambda call: [(dtype(call, 0), (*call.shape(1), call.shape(0)[1]))],
    "NGramRepeatBlock": same(1),
    "MurmurHash3": lambda call: [("uint32" if call.attribute("positive", 1) else "int32", call.shape(0))],
    "IsAllFinite": lambda call: [("bool", ())],
    "DynamicTimeWarping": lambda call: [("int32", (2, None))],
    "Unique": lambda call: [(dtype(call, 0), (None,)), ("int64", call.shape(0)), ("int64", (None,))],
    "BifurcationDetector": lambda call: [("int64", (None,)), ("int64", call.shape(2))],
}
_RULES: dict[str, Rule] = {
    **{f"com.microsoft.{op}": rule for op, rule in _MICROSOFT.items()},
    **WINDOWS,
    **STANDARD,
    **dict.fromkeys(
        (
            "SimplifiedLayerNormalization",
            "ImageScaler",
            "Affine",
            "ParametricSoftplus",
            "ScaledTanh",
            "ThresholdedRelu",
            "finn.custom_op.general.MultiThreshold",
            "qonnx.custom_op.general.MultiThreshold",
        ),
        same(0),
    ),
    "GreaterOrEqual": like("Less", 0, 1),  # functions without inference in their first version
    "LessOrEqual": like("Less", 0, 1),
    "Dropout": _dropout,
}
"""Operators without a schema of ONNX's own: the kinds of their outputs, or the standard call they equal."""
for _name, _rule in _RULES.items():
    enter((_name,), shape=_rule)
