"""Which stored tensors are parameters: weight elements that could have been learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from symlint.model.graph import Graph, Model, Node, Tensor
from symlint.program.steps import Affine, Program


@dataclass(frozen=True)
class Quantised:
    """Which inputs of an operator are quantised weights, which are their scales and zero points, and how many it packs.

    Of packed weights, either attributes name the rows of each matrix, which `K` numbers long they are, or the bits of
    a number in a byte; the shape of a layout of a processor's own is an input.
    """

    weights: tuple[int, ...]
    levels: tuple[int, ...] = ()
    rows: tuple[str, ...] = ()
    bits: tuple[str, ...] = ()
    shape: int = 0


_LINEAR = Quantised((3,), (1, 2, 4, 5, 6, 7))
QUANTISED = {
    "DequantizeLinear": Quantised((0,), (1, 2)),
    "com.microsoft.DequantizeLinear": Quantised((0,), (1, 2)),
    "QLinearConv": _LINEAR,
    "com.microsoft.QLinearConv": _LINEAR,
    "QLinearMatMul": _LINEAR,
    "ConvInteger": Quantised((1,), (2, 3)),
    "MatMulInteger": Quantised((1,), (2, 3)),
    "com.microsoft.MatMulInteger16": Quantised((1,)),
    "com.microsoft.QGemm": Quantised((3,), (1, 2, 4, 5, 7, 8)),
    "com.microsoft.DynamicQuantizeMatMul": Quantised((1,), (2, 3)),
    "com.microsoft.MatMulIntegerToFloat": Quantised((1,), (2, 3, 4, 5)),
    "com.microsoft.DynamicQuantizeLSTM": Quantised((1, 2), (8, 9, 10, 11)),
    "com.microsoft.QAttention": Quantised((1,), (3, 4, 6, 7)),
    "com.microsoft.QEmbedLayerNormalization": Quantised((2, 3, 4, 5, 6), tuple(range(8, 18))),
    "com.microsoft.GatherBlockQuantized": Quantised((0,), (2, 3), bits=("bits",)),
    "com.microsoft.QMoE": Quantised(
        (2, 5, 8), (3, 6, 9, 11, 12, 13, *range(15, 21)), bits=tuple(f"fc{k}_expert_weight_bits" for k in (1, 2, 3))
    ),
    "com.microsoft.MatMulNBits": Quantised((1,), (2, 3), rows=("N",)),
    "com.microsoft.MatMulNBitsMlp": Quantised((3, 6), (4, 7), rows=("N", "N")),
    "com.microsoft.MatMulNBitsQkv": Quantised((3, 6, 9), (4, 7, 10), rows=("Nq", "Nkv", "Nkv")),
    "com.microsoft.MatMulBnb4": Quantised((1,), (2,), rows=("N",)),
    "com.microsoft.MatMulFpQ4": Quantised((1,), shape=2),
}
"""The operators that read quantised weights."""

LAYOUT = frozenset(("Gather", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Split"))


def parameters(program: Program) -> dict[str, int]:
    """Stored tensor -> number of weight elements, scales and zero points of quantisers left out.

    Running statistics, masks, scalars, what decides shapes or functions, what results are scattered into and
    numbers that an exporter writes between stored weights are no parameters, nor is what no node reads.
    """
    model = program.model
    nodes, filled = list(_all_nodes(model.graph)), buffers(model)
    read = {name for node in nodes if node.op not in ("Shape", "Size") for name in node.inputs}
    read |= set(model.graph.outputs)
    moved = {out: node.inputs[0] for node in nodes if node.op in LAYOUT and node.inputs for out in node.outputs}
    statistics = {program.weights.get(n) for s in program.steps if isinstance(s, Affine) for n in (s.mean, s.var)}
    statistics |= {n for node in nodes if node.op == "BatchNormalization" for n in node.inputs[3:5]}
    quantised = {
        name: (node, k)
        for node in nodes
        if node.op in QUANTISED
        for k in QUANTISED[node.op].weights
        if k < len(node.inputs) and (name := _source(node.inputs[k], moved)) in model.tensors
    }
    scales = {name for node in nodes for name in _quantiser(node)}
    scales |= _told(model, nodes) | _fillings(model)
    found: dict[str, int] = {}
    for name, tensor in model.tensors.items():
        learned = tensor.floating and name not in statistics | scales | filled and not mask(tensor)
        if name in read and tensor.shape and (learned or name in quantised):
            found[name] = _elements(model, tensor, *quantised[name]) if name in quantised else tensor.size
    return found


def _fillings(model: Model) -> set[str]:
    """What an exporter writes between weights that are stored elsewhere: Constant nodes of one number throughout."""
    stored = any(t.floating and t.size > 1 for name, t in model.tensors.items() if name not in model.literals)
    return {name for name in model.literals if stored and _uniform(model.tensors[name])}


def _told(model: Model, nodes: Sequence[Node]) -> set[str]:
    """The stored tensors that are read for nothing but to decide shapes and functions."""
    reads = [(n, n in model.tensors and settles(node, n, model.tensors[n])) for node in nodes for n in node.inputs]
    return {name for name, told in reads if told} - {name for name, told in reads if not told}


def _source(name: str, moved: Mapping[str, str]) -> str:
    """The tensor of which a value is a row, a part or another layout."""
    while name in moved:
        name = moved[name]
    return name


def _elements(model: Model, tensor: Tensor, node: Node, k: int) -> int:
    """Number of weights in input `k`, where several may share a byte."""
    how, attributes = QUANTISED[node.op], node.attributes
    at = how.weights.index(k)
    if how.rows and {how.rows[at], "K"} <= set(attributes):
        return int(attributes[how.rows[at]]) * int(attributes["K"])
    if how.shape:
        shape = model.tensors.get(node.inputs[how.shape])
        return int(shape.read().prod()) if shape is not None else tensor.size
    if how.bits and tensor.dtype == "uint8":
        bits = attributes.get(how.bits[at % len(how.bits)]) or attributes.get("expert_weight_bits", 4)
        return tensor.size * 8 // int(bits)
    return tensor.size


def _quantiser(node: Node) -> tuple[str, ...]:
    """Scales and zero points that a node reads."""
    if node.op in ("QuantizeLinear", "com.microsoft.QuantizeLinear"):
        return node.inputs[1:3]
    if node.op in QUANTISED:
        return tuple(node.inputs[k] for k in QUANTISED[node.op].levels if k < len(node.inputs))
    return node.inputs if node.op.startswith(("QLinear", "com.microsoft.QLinear")) else ()


FAR = -1000.0
"""A score that a softmax does not see beside others."""
LOWEST = {"float16": -65504.0, "bfloat16": -3.38e38, "float32": -3.40e38, "float64": -1.79e308}
"""The number types of masks, and their lowest numbers."""


def mask(tensor: Tensor) -> bool:
    """Whether a floating tensor is a mask: it holds the lowest number of its type, or 0 and one number far below."""
    if not 1 < tensor.size <= 1 << 24 or tensor.dtype not in LOWEST:
        return False
    values = tensor.read().reshape(-1)
    least = float(values[:: max(1, values.size // 4096)].min())
    return least <= LOWEST[tensor.dtype] / 4 or (least <= FAR and bool(((values == 0) | (values == least)).all()))


SCATTERS = frozenset(("Scatter", "ScatterElements", "ScatterND"))
FEW = 16
"""Elements of a stored operand that may decide a shape or a function."""


def settles(node: Node, name: str, tensor: Tensor) -> bool:
    """Whether a small floating operand decides a shape or a function, so that its value is needed."""
    told = node.op in ("Resize", "Upsample", "Clip", "Pad", "Pow") and name != node.inputs[0]
    return told and tensor.size <= FEW and tensor.floating


def buffers(model: Model) -> frozenset[str]:
    """The stored tensors of one number throughout that are read for nothing but to scatter results into them.

    Zeros to which the first of such results is added are no more than that.
    """
    nodes = _all_nodes(model.graph)
    made = {out for node in nodes if node.op in SCATTERS for out in node.outputs}
    other, scattered, summed = set(model.graph.outputs), set[str](), set[str]()
    for node in nodes:
        for k, name in enumerate(node.inputs):
            started = node.op == "Add" and node.inputs[1 - k] in made
            (scattered if node.op in SCATTERS and not k else summed if started else other).add(name)
    found = {name: model.tensors[name] for name in (scattered | summed) - other if name in model.tensors}
    return frozenset(n for n, t in found.items() if _uniform(t) and (n not in summed or not t.read().flat[0]))


def _uniform(tensor: Tensor) -> bool:
    if not tensor.floating or not 0 < tensor.size <= 1 << 24:
        return False
    values = tensor.read().reshape(-1)
    return bool((values == values[0]).all())


def _all_nodes(graph: Graph) -> list[Node]:
    """Nodes of a graph and of the bodies in it."""
    found: list[Node] = []
    for node in graph.nodes:
        found.append(node)
        for value in node.attributes.values():
            if isinstance(value, Graph):
                found.extend(_all_nodes(value))
    return found
