"""Names that people can read for tensors that an exporter has stored without one.

The older torch exporter calls a transposed or folded weight ``onnx::MatMul_350``. The node that reads it still carries
the path of its module, so the tensor is shown as ``encoder.layer.0.attention.self.query.weight*``; the star says that
the file stores it under another name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise

from symlint.cli.report.words import printable
from symlint.model.graph import Graph, Model, Node

MARK = "*"
_NAMELESS = re.compile(r"onnx::.*|\d+|_?(val|v|t|tmp|const|constant)_?\d+", re.IGNORECASE | re.DOTALL)
_PASSING = {"Cast", "DequantizeLinear", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
_AFFINE = {"Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1, "QLinearConv": 3, "QLinearMatMul": 3}
_RECURRENT = {"GRU", "LSTM", "RNN"}


def readable(model: Model) -> dict[str, str]:
    """Stored tensor -> the name to show: its own, or one from the node that reads it, with a star; safe to print."""
    readers = _readers(model.graph)
    shown = {name: printable(name) for name in model.tensors}
    taken = set(shown.values())
    for name in filter(_NAMELESS.fullmatch, model.tensors):
        for called in _called(name, readers):
            if printable(called) + MARK not in taken:
                shown[name] = printable(called) + MARK
                taken.add(shown[name])
                break
    return shown


def nodes(graph: Graph) -> Iterator[Node]:
    """Every node, those of bodies included."""
    graphs = [graph]
    while graphs:
        for node in graphs.pop().nodes:
            yield node
            graphs += [value for value in node.attributes.values() if isinstance(value, Graph)]


def _readers(graph: Graph) -> dict[str, tuple[Node, int]]:
    """Value -> the first node that reads it, and as which input."""
    found: dict[str, tuple[Node, int]] = {}
    for node in nodes(graph):
        for slot, name in enumerate(node.inputs):
            found.setdefault(name, (node, slot))
    return found


def _called(name: str, readers: Mapping[str, tuple[Node, int]]) -> Iterator[str]:
    """The module of the node that reads the tensor, and the part that it plays there; with the node if need be."""
    node, slot = readers.get(name, (None, 0))
    seen = {name}
    while node is not None and slot == 0 and node.op in _PASSING and node.outputs[0] not in seen:
        seen.add(node.outputs[0])
        node, slot = readers.get(node.outputs[0], (None, 0))
    if node is not None and (module := _module(node)):
        yield f"{module}.{_part(node, slot)}"
        yield f"{module}.{node.name.rpartition('/')[2]}.{_part(node, slot)}"


def _module(node: Node) -> str:
    """``/net/layer1/layer1.0/conv1/Conv`` is ``net.layer1.0.conv1``: exporters repeat the parent in the child."""
    path = [step for step in node.name.split("/") if step]
    if "/" not in node.name or len(path) < 2:
        return ""
    kept = [step for step, child in pairwise(path) if not child.startswith(f"{step}.")]
    return ".".join(kept)


def _part(node: Node, slot: int) -> str:
    if node.op in _AFFINE:
        weight = _AFFINE[node.op]
        if slot == weight or (node.op == "MatMul" and slot == 0):
            return "weight"
        if slot > weight:
            return "bias"
    if node.op in _RECURRENT and 1 <= slot <= 3:
        return "WRB"[slot - 1]
    return node.op.rpartition(".")[2]
