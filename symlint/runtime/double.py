"""A network in float64, by onnx's reference evaluator: what remains of a difference is no rounding of the run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
from onnx import AttributeProto, GraphProto, TensorProto, helper, numpy_helper

from symlint.model.graph import Array
from symlint.model.saving import rewrite

NARROW = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)
TYPES = ("to", "dtype", "output_datatype", "stash_type")
"""Attributes that name an element type."""


def evaluate(path: Path, feeds: Mapping[str, Array]) -> list[Array]:
    """The outputs of a file, with its weights, its inputs and all that it computes in float64.

    Raises whatever the reference evaluator does where it lacks an operator.
    """
    from onnx.reference import ReferenceEvaluator

    proto = ir.serde.serialize_model(rewrite(path, {}))
    _widen_graph(proto.graph)
    wide = {n: x.astype(np.float64) if x.dtype.kind == "f" else x for n, x in feeds.items()}
    with np.errstate(all="ignore"):
        return [np.asarray(y) for y in ReferenceEvaluator(proto).run(None, wide)]


def _widen_graph(graph: GraphProto) -> None:
    for tensor in graph.initializer:
        _widen(tensor)
    for value in [*graph.input, *graph.output, *graph.value_info]:
        if value.type.tensor_type.elem_type in NARROW:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    for node in graph.node:
        for attribute in list(node.attribute):
            if attribute.type == AttributeProto.TENSOR:
                _widen(attribute.t)
            elif attribute.name in TYPES and attribute.i in NARROW:
                attribute.i = TensorProto.DOUBLE
            elif node.op_type == "Constant" and attribute.name in ("value_float", "value_floats"):
                number = attribute.f if attribute.name == "value_float" else list(attribute.floats)
                attribute.CopyFrom(helper.make_attribute("value", numpy_helper.from_array(np.asarray(number, float))))
            for body in [attribute.g, *attribute.graphs] if attribute.type in (5, 10) else []:
                _widen_graph(body)


def _widen(tensor: TensorProto) -> None:
    if tensor.data_type in NARROW:
        tensor.CopyFrom(numpy_helper.from_array(onnx.numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
