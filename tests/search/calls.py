"""Single calls of operators as blocks beside a stream of channels: every operator of the table, in many of its forms.

The calls are those of ONNX's own test cases and of the tables of the operators' tests; what has no case there is below.
A call is fed by a layer over the channels, or by weights of its own, and what comes of it is added to the stream again.
"""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import onnx
from builder import TYPES, Builder, Unfit, Value
from grammar import Block, Inside
from onnx import TensorProto, defs, helper, numpy_helper

PREFIX = "call "
LARGEST = 64
"""Elements that a layer makes for a call."""
FLOATS = (np.float32, np.float64, np.float16)
POSITIVE = frozenset({"Log", "Sqrt", "Pow", "BatchNormalization", "ReduceLogSum", "Acosh"})
"""Operators whose inputs stay what their cases say, since others are not valid."""
STAY = POSITIVE | {
    "Acos", "Asin", "Atanh", "AffineGrid", "DeformConv", "GridSample", "MaxRoiPool", "NonMaxSuppression", "Range",
    "RandomUniform", "Resize", "RoiAlign", "Upsample", "com.microsoft.CropAndResize", "com.microsoft.Range",
    "com.microsoft.GridSample", "QuantizeLinear", "DequantizeLinear", "QLinearConv", "QLinearMatMul", "Det", "Mod",
    "com.microsoft.Inverse", "DynamicQuantizeLinear", "Multinomial", "Bernoulli", "com.microsoft.QuantizeLinear",
}  # fmt: skip
"""Operators of which only some inputs, if any, may be what a layer makes: they keep the values of their cases."""


NOWHERE = frozenset({
    "Affine", "Crop", "GlobalLpPool", "ImageScaler", "ImageDecoder", "MaxRoiPool", "Multinomial", "OptionalGetElement",
    "OptionalHasElement", "ParametricSoftplus", "RandomNormal", "RandomNormalLike", "RandomUniform",
    "RandomUniformLike", "RoiAlign", "ScaledTanh", "Swish", "ai.onnx.ml.CastMap", "ai.onnx.ml.DictVectorizer",
    "ai.onnx.ml.SVMClassifier", "ai.onnx.ml.SVMRegressor", "ai.onnx.ml.TreeEnsembleClassifier",
    "finn.custom_op.general.MultiThreshold", "qonnx.custom_op.general.MultiThreshold",
    *(
        f"com.microsoft.{name}"
        for name in (
            "BiasAdd", "BiasDropout", "BiasSoftmax", "BiasSplitGelu", "FusedMatMulActivation", "IsAllFinite",
            "SparseAttention", "BitmaskBiasDropout", "BitmaskDropout", "ComplexMul",
            "ComplexMulConj", "GatedRelativePositionBias", "GemmFastGelu", "GemmaRotaryEmbedding", "GroupNorm", "Irfft",
            "LongformerAttention", "MatMulFpQ4", "MatMulNBitsMlp", "MatMulNBitsQkv", "MulInteger", "NhwcConv",
            "NhwcFusedConv", "PackedAttention", "PackedMultiHeadAttention", "QLinearReduceMean", "ReduceSumInteger",
            "RelativePositionBias", "RemovePadding", "RestorePadding", "Rfft", "SkipGroupNorm", "TorchEmbedding",
        )
    ),
})  # fmt: skip
"""Operators without a kernel on ordinary machines: they have networks of their own, which are read and not run."""


@dataclass(frozen=True)
class Call:
    """An operator with values for its inputs, and the shapes of its outputs where they are known."""

    node: onnx.NodeProto
    values: Mapping[str, Any]
    opset: int
    shapes: Sequence[tuple[int, ...] | None] = ()
    kinds: Sequence[int] = ()
    domains: Mapping[str, int] = field(default_factory=dict)

    @property
    def op(self) -> str:
        """Its name in the table."""
        return (
            f"{self.node.domain}.{self.node.op_type}" if self.node.domain not in ("", "ai.onnx") else self.node.op_type
        )


@cache
def calls() -> Mapping[str, Sequence[Call]]:
    """Operator -> its calls."""
    found: defaultdict[str, list[Call]] = defaultdict(list)
    for made in (*_cases(), *_tables(), *_more()):
        found[made.op].append(made)
    return found


def _cases() -> list[Call]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        collected = collect_testcases(None)
    found = []
    for case in collected:
        graph = case.model.graph
        if len(graph.node) != 1 or not case.data_sets:
            continue
        given, made = case.data_sets[0][0], case.data_sets[0][1]
        values = {i.name: _array(v) for i, v in zip(graph.input, given, strict=False)}
        if any(v is None for v in values.values()):
            continue
        outputs = [_array(v) for v in made]
        shapes = [None if y is None or y.dtype.kind in "OSU" else y.shape for y in outputs]
        kinds = [o.type.tensor_type.elem_type for o in graph.output]
        opsets = {o.domain: o.version for o in case.model.opset_import}
        node = graph.node[0]
        found.append(Call(node, values, opsets.pop("", 0), shapes, kinds, opsets))
    return found


def _array(value: object) -> np.ndarray | None:
    """An input of a case as an array; None for sequences and optional values."""
    if isinstance(value, TensorProto):
        return numpy_helper.to_array(value)
    if isinstance(value, (np.ndarray, np.generic)):
        return np.asarray(value)
    return None


def _tables() -> list[Call]:
    import test_contributed_operators as contributed
    from test_every_operator import WIDER
    from test_shapes import ML

    found = []
    every = [(call, None) for call in (*contributed.CALLS, *contributed.SHAPED)]
    every += list(contributed.ELSEWHERE)
    for made, shapes in every:
        found.append(_call(f"com.microsoft.{made.op}", made.attributes, made.inputs, made.outputs, shapes))
    for op, attributes, arguments in WIDER:
        outputs = {"Split": 3, "TopK": 2}.get(op, 1)
        found.append(_call(op, attributes, arguments, outputs, None))
    for op, attributes in ML:
        # Labels may be texts.
        labels = [None] if op.endswith("Classifier") else []
        found.append(_call(f"ai.onnx.ml.{op}", attributes, [(5, 4)], 1 + len(labels), labels))
    return found


def _call(op: str, attributes: Mapping[str, Any], inputs: Sequence[Any], outputs: int, shapes: Any) -> Call:
    rng = np.random.default_rng(len(op))
    domain, _, kind = op.rpartition(".")
    names = [f"in{k}" if a is not None else "" for k, a in enumerate(inputs)]
    values = {
        n: rng.normal(size=a).astype(np.float32) if isinstance(a, tuple) else np.asarray(a)
        for n, a in zip(names, inputs, strict=True)
        if n
    }
    node = helper.make_node(kind, names, [f"out{k}" for k in range(outputs)], domain=domain, **attributes)
    return Call(node, values, 0, shapes or (), (), {domain: 3 if domain == "ai.onnx.ml" else 1} if domain else {})


X = (2, 3, 4, 4)


def _more() -> list[Call]:
    """Operators of which the other tables have no case."""
    strings = np.array(["a", "b"], object)
    rows: list[tuple[str, dict[str, Any], list[Any], list[tuple[int, ...] | None]]] = [
        ("Affine", {"alpha": 2.0, "beta": 0.5}, [(2, 3)], [(2, 3)]),
        ("Crop", {"border": [1, 1, 1, 1]}, [X], [(2, 3, 2, 2)]),
        ("ImageScaler", {"scale": 2.0, "bias": [0.1, 0.2, 0.3]}, [X], [X]),
        ("ParametricSoftplus", {"alpha": 1.5, "beta": 0.5}, [(2, 3)], [(2, 3)]),
        ("ScaledTanh", {"alpha": 1.5, "beta": 0.5}, [(2, 3)], [(2, 3)]),
        ("SimplifiedLayerNormalization", {"axis": -1}, [(2, 3), (3,)], [(2, 3)]),
        ("GlobalLpPool", {"p": 2}, [X], [(2, 3, 1, 1)]),
        ("MaxRoiPool", {"pooled_shape": [2, 2]}, [X, np.float32([[0, 0, 0, 3, 3]])], [(1, 3, 2, 2)]),
        ("RandomNormal", {"shape": [2, 3]}, [], [(2, 3)]),
        ("RandomUniform", {"shape": [2, 3]}, [], [(2, 3)]),
        ("RandomNormalLike", {}, [(2, 3)], [(2, 3)]),
        ("RandomUniformLike", {}, [(2, 3)], [(2, 3)]),
        ("Multinomial", {"sample_size": 4}, [(2, 3)], [(2, 4)]),
        ("com.microsoft.BiasSoftmax", {"axis": 1, "is_inner_broadcast": 1}, [(2, 3), (1, 3)], [(2, 3)]),
        ("com.microsoft.BiasDropout", {}, [(2, 3), (3,)], [(2, 3)]),
        (
            "com.microsoft.FusedMatMulActivation",
            {"activation": "Relu"},
            [(2, 3), (3, 4)],
            [(2, 4)],
        ),
        ("com.microsoft.IsAllFinite", {}, [(2, 3)], [()]),
        (
            "com.microsoft.QLinearReduceMean",
            {"axes": [1], "keepdims": 1},
            [np.uint8([[1, 2, 3]]), np.float32(0.5), np.uint8(3), np.float32(0.5), np.uint8(3)],
            [(1, 1)],
        ),
        *(
            (f"{domain}.custom_op.general.MultiThreshold", {"out_dtype": "UINT2"}, [(2, 3), (3, 3)], [(2, 3)])
            for domain in ("finn", "qonnx")
        ),
        ("ai.onnx.ml.CastMap", {"cast_to": "TO_FLOAT", "map_form": "DENSE"}, [(1, 3)], [(1, 3)]),
        ("ai.onnx.ml.CategoryMapper", {"cats_int64s": [1, 2], "cats_strings": ["a", "b"]}, [[1, 2]], [None]),
        ("ai.onnx.ml.DictVectorizer", {"int64_vocabulary": [1, 2, 3]}, [(1, 3)], [(1, 3)]),
        ("ai.onnx.ml.SVMClassifier", {"classlabels_ints": [0, 1]}, [(2, 3)], [None, (2, 2)]),
        ("ai.onnx.ml.SVMRegressor", {"coefficients": [1.0]}, [(2, 3)], [(2, 1)]),
        ("ai.onnx.ml.TreeEnsembleClassifier", {"classlabels_int64s": [0, 1]}, [(2, 3)], [None, (2, 2)]),
        ("ai.onnx.ml.OneHotEncoder", {"cats_int64s": [1, 2, 3]}, [[1, 2]], [(2, 3)]),
        ("ai.onnx.ml.ZipMap", {"classlabels_int64s": [1, 2, 3]}, [(2, 3)], [None]),
        ("ConcatFromSequence", {}, [], []),
        ("RegexFullMatch", {"pattern": "a+"}, [strings], [(2,)]),
        ("StringConcat", {}, [strings, strings], []),
        ("StringNormalizer", {}, [strings], []),
        ("StringSplit", {}, [strings], [None, None]),
    ]
    return [
        _call(op, attributes, inputs, max(len(shapes), 1), shapes)
        for op, attributes, inputs, shapes in rows
        if inputs or shapes
    ]


def call(name: str) -> Block:
    """The block of a call: ``call`` and the operator."""
    op = name.removeprefix(PREFIX)
    if not name.startswith(PREFIX) or op not in calls():
        raise KeyError(name)

    def block(b: Builder, x: Value, inside: Inside) -> Value:
        there = [one for one in calls()[op] if fits(one, b.opset)]
        if not there:
            raise Unfit
        return Caller(b, there[int(b.rng.integers(len(there)))]).behind(x)

    return block


class Caller:
    """Puts one call beside a stream."""

    def __init__(self, b: Builder, call: Call) -> None:
        self.b, self.call = b, call

    def behind(self, x: Value) -> Value:
        """The stream, with what the call makes of it added."""
        b, call = self.b, self.call
        # The batch is averaged too: a call has the sizes of its case.
        mean = b.mean(x, [k for k in range(len(x.shape)) if k != x.axis], keep=False)
        source = Value(b.reshape(mean, [1, x.width]), "flat", (1, x.width))
        floats = [n for n, v in call.values.items() if v.dtype in FLOATS and v.ndim and 0 < v.size <= LARGEST]
        free = [] if call.op in STAY else floats
        made = {n: self._given(n, v, source, free) for n, v in call.values.items()}
        outs = [b.fresh("made") if o else "" for o in call.node.output]
        node = onnx.NodeProto()
        node.CopyFrom(call.node)
        node.name = b.fresh(call.node.op_type)
        del node.input[:], node.output[:]
        node.input.extend(made.get(n, "") for n in call.node.input)
        node.output.extend(outs)
        b.nodes.append(node)
        b.domains.update({d: max(v, b.domains.get(d, 0)) for d, v in call.domains.items()})
        return self._added(x, outs)

    def _given(self, name: str, value: np.ndarray, x: Value, free: Sequence[str]) -> str:
        b = self.b
        kind = helper.np_dtype_to_tensor_dtype(value.dtype) if value.dtype.kind not in "OSU" else TensorProto.STRING
        if name in free:
            if b.chance(0.65):
                size = int(np.prod(value.shape))
                made = b.reshape(b.linear(x, size, bias=b.chance(0.5)).name, value.shape)
                return made if kind == TYPES[b.dtype] else b.node("Cast", made, to=kind)
            fan = value.shape[0] if value.ndim > 1 else 1
            return b.stored((b.values.normal(size=value.shape) / np.sqrt(fan)).astype(value.dtype), "w")
        if value.dtype == bool and value.ndim and value.size <= LARGEST and b.chance(0.5):
            made = b.reshape(b.linear(x, value.size).name, value.shape)
            return b.node("Greater", made, b.numbers(0.0))
        if kind == TensorProto.STRING:
            stored = b.fresh("text")
            tensor = helper.make_tensor(stored, kind, value.shape, [str(s).encode() for s in value.ravel()])
            b.tensors.append(tensor)
            return stored
        return b.stored(value)

    def _added(self, x: Value, outs: Sequence[str]) -> Value:
        b, call, made = self.b, self.call, []
        for k, out in enumerate(outs):
            shape = call.shapes[k] if k < len(call.shapes) else ...
            kind = call.kinds[k] if k < len(call.kinds) else 0
            if not out or shape is None or kind in (TensorProto.STRING, TensorProto.COMPLEX64, TensorProto.COMPLEX128):
                continue
            number = out if kind == TYPES[b.dtype] else b.node("Cast", out, to=TYPES[b.dtype])
            if shape is ... or call.op in ("NonZero", "Unique", "Compress", "NonMaxSuppression") or 0 in shape:
                size = 1
                number = b.reshape(b.reduce("ReduceSum", b.reshape(number, [-1]), [0]), [1, 1])
            else:
                size = int(np.prod(shape))
                number = b.reshape(number, [1, size])
            if size <= 4 * LARGEST:
                made.append(b.node("MatMul", number, b.weight(size, x.width)))
        if not made:
            return x
        total = made[0]
        for one in made[1:]:
            total = b.add(total, one)
        # Small, so that what is large in a case does not drown the stream.
        total = b.node("Mul", b.node("Tanh", total), b.gain(1, x.width))
        return x.of(b.add(x.name, b.reshape(total, b.along(x))))


KERNELS = 23
"""The opset up to which onnxruntime has most kernels."""
OPSETS = tuple(range(9, defs.onnx_opset_version() + 1))


@cache
def opset(op: str) -> int:
    """The newest opset in which some call of an operator is what it was written for; 0 for any."""
    if "." in op:
        return 0
    there = [v for v in OPSETS if any(fits(call, v) for call in calls()[op])]
    return max((v for v in there if v <= KERNELS), default=max(there, default=0))


def fits(call: Call, version: int) -> bool:
    """Whether an operator is in an opset what it was when the call was written."""
    if call.node.domain:
        return True
    try:
        schema = defs.get_schema(call.node.op_type, version, "")
    except defs.SchemaError:
        return call.op not in _known()  # never in any opset, and read all the same
    if call.opset:
        return defs.get_schema(call.node.op_type, call.opset, "").since_version == schema.since_version
    named = {a.name for a in call.node.attribute} <= set(schema.attributes)
    return named and len(call.node.input) <= schema.max_input


@cache
def _known() -> frozenset[str]:
    return frozenset(s.name for s in defs.get_all_schemas_with_history() if s.domain == "")
