"""Which stored tensors are parameters: weight elements that could have been learned."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from symlint.graph import Graph, Node, Tensor
from symlint.program import Affine, Program

QUANTISED = {
    "DequantizeLinear": (0,),
    "QLinearConv": (3,),
    "com.microsoft.QLinearConv": (3,),
    "QLinearMatMul": (3,),
    "ConvInteger": (1,),
    "MatMulInteger": (1,),
    "com.microsoft.QGemm": (3,),
    "com.microsoft.MatMulNBits": (1,),
    "com.microsoft.DynamicQuantizeMatMul": (1,),
    "com.microsoft.MatMulIntegerToFloat": (1,),
    "com.microsoft.DynamicQuantizeLSTM": (1, 2),
    "com.microsoft.QAttention": (1,),
    "com.microsoft.QEmbedLayerNormalization": (2, 3, 4),
    "com.microsoft.QMoE": (2, 5, 8),
    "com.microsoft.GatherBlockQuantized": (0,),
    "com.microsoft.MatMulBnb4": (1,),
    "com.microsoft.MatMulFpQ4": (1,),
    "com.microsoft.MatMulInteger16": (1,),
    "com.microsoft.MatMulNBitsMlp": (3, 6),
    "com.microsoft.MatMulNBitsQkv": (3, 6, 9),
}
"""Operator -> its inputs that are quantised weights."""

LAYOUT = frozenset(("Gather", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Split"))


def parameters(program: Program) -> dict[str, int]:
    """Stored tensor -> number of weight elements, scales and zero points of quantisers left out.

    Running statistics, masks and scalars are no parameters, nor is what no node reads.
    """
    model = program.model
    nodes = list(_all_nodes(model.graph))
    read = {name for node in nodes if node.op not in ("Shape", "Size") for name in node.inputs}
    read |= set(model.graph.outputs)
    moved = {out: node.inputs[0] for node in nodes if node.op in LAYOUT and node.inputs for out in node.outputs}
    statistics = {program.weights.get(n) for s in program.steps if isinstance(s, Affine) for n in (s.mean, s.var)}
    statistics |= {n for node in nodes if node.op == "BatchNormalization" for n in node.inputs[3:5]}
    quantised = {
        name: node
        for node in nodes
        for k in QUANTISED.get(node.op, ())
        if k < len(node.inputs) and (name := _source(node.inputs[k], moved)) in model.tensors
    }
    scales = {name for node in nodes for name in _quantiser(node)}
    found: dict[str, int] = {}
    for name, tensor in model.tensors.items():
        learned = tensor.floating and name not in statistics and name not in scales and not mask(tensor)
        if name in read and tensor.shape and (learned or name in quantised):
            found[name] = _elements(tensor, quantised.get(name))
    return found


def _source(name: str, moved: Mapping[str, str]) -> str:
    """The tensor of which a value is a row, a part or another layout."""
    while name in moved:
        name = moved[name]
    return name


def _elements(tensor: Tensor, node: Node | None) -> int:
    """Number of weights; several are packed into a byte of a block-quantised matrix."""
    if node is not None and node.op == "com.microsoft.MatMulNBits":
        return int(node.attributes["N"]) * int(node.attributes["K"])
    return tensor.size


def _quantiser(node: Node) -> tuple[str, ...]:
    """Scales and zero points that a node reads."""
    if node.op in ("QuantizeLinear", "DequantizeLinear"):
        return node.inputs[1:3]
    if node.op == "com.microsoft.MatMulNBits":
        return node.inputs[2:4]
    if node.op.startswith(("QLinear", "com.microsoft.QLinear", "com.microsoft.QGemm")):
        weights = QUANTISED.get(node.op, ())
        return tuple(name for k, name in enumerate(node.inputs) if k not in weights)
    return ()


FAR = -1000.0
"""A score that a softmax does not see beside others."""


def mask(tensor: Tensor) -> bool:
    """Whether a floating tensor is a mask: it holds the lowest number of its type, or 0 and one number far below."""
    if not 1 < tensor.size <= 1 << 24 or tensor.dtype not in ("float32", "float16", "float64"):
        return False
    values = tensor.read().reshape(-1)
    least = float(values[:: max(1, values.size // 4096)].min())
    return least <= np.finfo(values.dtype).min / 4 or (least <= FAR and bool(((values == 0) | (values == least)).all()))


def _all_nodes(graph: Graph) -> list[Node]:
    """Nodes of a graph and of the bodies in it."""
    found: list[Node] = []
    for node in graph.nodes:
        found.append(node)
        for value in node.attributes.values():
            if isinstance(value, Graph):
                found.extend(_all_nodes(value))
    return found
