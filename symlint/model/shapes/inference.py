"""Shapes by onnx's own inference, one call at a time, and what runtimes refuse although that inference lets it pass."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import defs, helper, numpy_helper, shape_inference

from symlint.model.graph import Array, Graph, Node
from symlint.model.operators import known
from symlint.model.shapes import rules  # noqa: F401 - they enter their operators
from symlint.model.shapes.known import GRID, Call, Found, Kind, Refused
from symlint.model.stored import CODES, WORDS

_SCALED = frozenset({"Resize", "Upsample", "Range"})
HALVES = frozenset({"float16", "bfloat16"})
RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
WINDOWED = frozenset({"Conv", "ConvInteger", "QLinearConv", "MaxPool", "AveragePool", "ConvTranspose"})


class Inference:
    """Shapes of operator calls; remembers equal calls, of which repeated layers have many."""

    def __init__(self) -> None:
        self.memory: dict[Any, list[Found] | None] = {}
        self.prepared: dict[Any, tuple[defs.OpSchema, onnx.NodeProto] | None] = {}

    def __call__(self, call: Call) -> list[Found] | None:
        """Dtype and shape of every output, or None where nothing is known. Raises Refused."""
        op = call.node.op
        if rule := known(op).shape:
            try:
                result = rule(call)
            except (LookupError, TypeError, ZeroDivisionError):
                return None
            return self.borrowed(call, result) if isinstance(result, Call) else list(result)
        return self.standard(call)

    def borrowed(self, call: Call, other: Call) -> list[Found] | None:
        """What the standard operator makes of it, with the element type of the quantised one."""
        found = self(other)
        first = call.kinds[2] if call.node.op.endswith("QLinearConcat") else call.kinds[0]
        if found is None or first is None or first.dtype not in GRID or other.node.op == "Gather":
            return found
        return [item and (first.dtype, item[1]) for item in found]

    def standard(self, call: Call) -> list[Found] | None:
        """Onnx's own inference for an operator with a schema. Raises Refused."""
        prepared = self.prepare(call.node)
        if prepared is None:
            return None
        schema, proto = prepared
        known: list[tuple[int, Kind, Array | None]] = []
        key: list[Any] = [id(proto)]
        for index, kind in enumerate(call.kinds):
            if not call.has(index):
                continue
            if kind is None or kind.dtype not in CODES:
                return None
            value = call.value(index) if _wanted(call.node.op, index, kind) else None
            key.append((index, kind.dtype, kind.shape, None if value is None else value.tobytes()))
            known.append((index, kind, value))
        remembered = tuple(key)
        if remembered not in self.memory:
            _admissible(call)
            self.memory[remembered] = _infer(schema, proto, known)
        return self.memory[remembered]

    def prepare(self, node: Node) -> tuple[defs.OpSchema, onnx.NodeProto] | None:
        """Schema and protobuf of a node, with neutral names so that equal calls share them."""
        present = tuple(bool(name) for name in node.inputs)
        plain = {name: _frozen(value) for name, value in node.attributes.items() if not isinstance(value, Graph)}
        key = (node.op, node.opset, present, tuple(map(bool, node.outputs)), tuple(sorted(plain.items())))
        if key not in self.prepared:
            self.prepared[key] = _prepare(node)
        return self.prepared[key]


def _frozen(value: Any) -> Any:
    return (value.tobytes(), value.dtype.name, value.shape) if isinstance(value, np.ndarray) else value


def _prepare(node: Node) -> tuple[defs.OpSchema, onnx.NodeProto] | None:
    domain, _, op = node.op.rpartition(".")
    schema = None
    for version in (node.opset, defs.onnx_opset_version()):  # some converters use an operator before its time
        try:
            schema = schema or defs.get_schema(op, version, domain)
        except defs.SchemaError:
            continue
    if schema is None:
        return None
    inputs = [f"i{index}" if name else "" for index, name in enumerate(node.inputs)]
    outputs = [f"o{index}" if name else "" for index, name in enumerate(node.outputs)]
    proto = helper.make_node(op, inputs, outputs, domain=domain)
    for name, value in node.attributes.items():
        if name not in schema.attributes or isinstance(value, Graph):
            continue
        plain = _message(value) if isinstance(value, np.ndarray) else value
        # The schema's type matters for empty lists, whose type their elements cannot tell.
        kind: Any = schema.attributes[name].type
        proto.attribute.append(helper.make_attribute(name, plain, attr_type=kind.value))
    return schema, proto


def _message(value: Array, name: str = "") -> onnx.TensorProto:
    """As onnx writes it, which imports the types that numpy lacks whatever the type is."""
    if value.dtype.kind not in "biuf":
        return numpy_helper.from_array(value, name)
    plain = value.astype(value.dtype.newbyteorder("<"), copy=False)
    return onnx.TensorProto(name=name, data_type=CODES[value.dtype.name], dims=value.shape, raw_data=plain.tobytes())


def _infer(
    schema: defs.OpSchema, proto: onnx.NodeProto, known: Sequence[tuple[int, Kind, Array | None]]
) -> list[Found]:
    types: dict[str, onnx.TypeProto] = {}
    data: dict[str, onnx.TensorProto] = {}
    for index, kind, value in known:
        name = proto.input[index]
        types[name] = helper.make_tensor_type_proto(CODES[kind.dtype], kind.shape)
        if value is not None:
            data[name] = _message(value.reshape(kind.shape), name)
    try:
        inferred = shape_inference.infer_node_outputs(schema, proto, types, data)
    except (shape_inference.InferenceError, RuntimeError, ValueError) as error:
        if half := next((kind.dtype for _, kind, _ in known if kind.dtype in HALVES), None):
            # Some operators learn of half precision late; their shapes do not depend on it.
            wide = [(k, replace(kind, dtype="float32") if kind.dtype == half else kind, x) for k, kind, x in known]
            made = _infer(schema, proto, wide)
            return [item and (half if item[0] == "float32" else item[0], item[1]) for item in made]
        raise Refused(str(error)) from error
    found: list[Found] = []
    for name in proto.output:
        result = inferred[name].tensor_type if name in inferred else None
        if result is None or not result.HasField("shape"):
            found.append(None)
            continue
        dims = tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in result.shape.dim)
        if any(dim is not None and dim < 0 for dim in dims):
            raise Refused("negative size")
        found.append((WORDS.get(result.elem_type, ""), dims))
    return found


def _wanted(op: str, index: int, kind: Kind) -> bool:
    """Whether the shape inference may look at the value of this input."""
    if op == "Gather" and index:  # only its data carry on a known value, never its indices
        return False
    return math.prod(kind.shape) <= 4096 and (kind.dtype in {"int64", "int32"} or op in _SCALED)


def _admissible(call: Call) -> None:
    """What a runtime refuses and onnx's inference lets pass."""
    for one, other in contracted(call):
        if one != other:
            raise Refused(f"{one} against {other} in one dimension")


def contracted(call: Call) -> list[tuple[int, int]]:
    """The sizes that a contraction, or the initial states of a recurrence, need equal."""
    op = call.node.op
    if op in RECURRENT:
        batch = 0 if call.attribute("layout", 0) else 1
        states = (k for k in (5, 6)[: 1 + (op == "LSTM")] if call.has(k))
        return [(call.shape(0)[batch], call.shape(k)[batch]) for k in states]
    if op in ("Conv", "ConvInteger", "QLinearConv", "BatchNormalization"):
        x, w = call.shape(0), call.shape(3 if op == "QLinearConv" else 1)
        if op == "BatchNormalization":
            return [(x[1], w[0])] if len(x) > 1 else []
        return [(x[1], w[1] * call.attribute("group", 1))] if min(len(x), len(w)) > 1 else []
    if op == "MatMul" and len(call.shape(1)) > 1 and call.shape(0):
        return [(call.shape(0)[-1], call.shape(1)[-2])]
    if op == "Gemm":
        return [(call.shape(0)[not call.attribute("transA", 0)], call.shape(1)[bool(call.attribute("transB", 0))])]
    return []


def shrunk(call: Call, found: Sequence[Found]) -> bool:
    """Whether a window did not fit: an output without elements from an input that has some."""
    kind = call.kinds[0] if call.kinds else None
    empty = any(item is not None and 0 in item[1] for item in found)
    return call.node.op in WINDOWED and empty and kind is not None and 0 not in kind.shape
