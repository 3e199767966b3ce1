"""Rules for operators without a schema of ONNX's own: fused and quantised ones, removed ones, those of runtimes.

Sources: the operator pages of onnxruntime (ContribOperators.md), of ONNX 1.4 for removed experimental operators.
"""

from __future__ import annotations

from symlint.model.graph import Shape
from symlint.model.operators import enter
from symlint.model.shapes.call import Call, Found, Refused
from symlint.model.shapes.parts import Rule, dtype, kind, known, like, same, together
from symlint.model.shapes.rules_attention import ATTENTION
from symlint.model.shapes.rules_standard import STANDARD, between
from symlint.model.shapes.rules_window import WINDOWS


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
