"""Operators that onnx's reference evaluator computes: pure ones, of which nothing is random and nothing reads files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import defs, helper

from symlint.model.graph import Array

_OTHERS = (
    "Acos Acosh ArgMax ArgMin Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor CastLike "
    "Celu Compress Cosh CumSum DepthToSpace EyeLike GatherElements GatherND Gelu HardSigmoid HardSwish IsInf IsNaN "
    "MatMul Mean Mish NonZero OneHot PRelu Pad ReduceL1 ReduceL2 ReduceMean ReverseSequence ScatterElements "
    "ScatterND Selu Shrink Sinh Softmax Softsign SpaceToDepth Split Swish Tan ThresholdedRelu TopK Trilu Unique"
)
LISTED = frozenset(_OTHERS.split())


def reference(
    op: str, opset: int, attributes: Mapping[str, Any], inputs: Sequence[Array | None], outputs: int
) -> tuple[Array, ...]:
    """The outputs of one call of an operator that is listed here."""
    from onnx.reference import ReferenceEvaluator  # only a few models need it, and it loads every operator

    names = ["" if value is None else f"i{index}" for index, value in enumerate(inputs)]
    values = {name: np.asarray(value) for name, value in zip(names, inputs, strict=True) if value is not None}
    made = [f"o{index}" for index in range(outputs)]
    infos = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for n, v in values.items()
    ]
    results = [helper.make_value_info(name, onnx.TypeProto()) for name in made]
    graph = helper.make_graph([helper.make_node(op, names, made, **attributes)], "one", infos, results)
    version = min(opset, defs.onnx_opset_version())
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)])
    return tuple(np.asarray(value) for value in ReferenceEvaluator(model).run(None, values))
