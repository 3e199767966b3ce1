"""Which stored tensors are parameters: weight elements that could have been learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from symlint.model.graph import Model, Node, Tensor
from symlint.model.operators import known
from symlint.program.functions import function
from symlint.program.steps import Program


def parameters(program: Program) -> dict[str, int]:
    """Stored tensor -> number of weight elements, scales and zero points of quantisers left out.

    Running statistics, masks, scalars, what decides shapes or functions, what results are scattered into and
    numbers that an exporter writes between stored weights are no parameters, nor is what no node reads.
    """
    model = program.model
    nodes, filled = list(model.graph.walk()), buffers(model)
    read = {name for node in nodes if not known(node.op).measures for name in node.inputs}
    read |= set(model.graph.outputs)
    moved = {out: node.inputs[0] for node in nodes if known(node.op).layout and node.inputs for out in node.outputs}
    statistics = {program.weights.get(n) for n in program.statistics}
    statistics |= {n for node in nodes for k in known(node.op).statistics for n in node.inputs[k : k + 1]}
    quantised = {
        name: (node, k)
        for node in nodes
        if (how := known(node.op).quantised) is not None
        for k in how.weights
        if k < len(node.inputs) and (name := _source(node.inputs[k], moved)) in model.tensors
    }
    scales = {name for node in nodes for name in _quantiser(node)}
    scales |= _told(model, nodes) | _fillings(model, nodes)
    found: dict[str, int] = {}
    for name, tensor in model.tensors.items():
        learned = tensor.floating and name not in statistics | scales | filled and not mask(model, tensor)
        if name in read and tensor.shape and (learned or name in quantised):
            found[name] = _elements(model, tensor, *quantised[name]) if name in quantised else tensor.size
    return found


def _fillings(model: Model, nodes: Sequence[Node]) -> set[str]:
    """What an exporter writes between weights that are stored elsewhere: Constant nodes of one number throughout.

    Gains and biases of a normalisation are such whatever their numbers: a change of scale makes any of ones.
    """
    if not any(t.floating and t.size > 1 for name, t in model.tensors.items() if name not in model.literals):
        return set()
    gains = {name for node in nodes if node.op.endswith("Normalization") for name in node.inputs[1:3]}
    return {name for name in model.literals if name in gains or _uniform(model.tensors[name])}


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
    how, attributes = known(node.op).quantised, node.attributes
    assert how is not None
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
    if (how := known(node.op).quantised) is not None:
        return tuple(node.inputs[k] for k in how.levels if k < len(node.inputs))
    return node.inputs if node.op.startswith(("QLinear", "com.microsoft.QLinear")) else ()


FAR = -1000.0
"""A score that a softmax does not see beside others."""
LOWEST = {"float16": -65504.0, "bfloat16": -3.38e38, "float32": -3.40e38, "float64": -1.79e308}
"""The number types of masks, and their lowest numbers."""
LARGE = 1 << 14
"""Elements from which on a digest, which others read too, is cheaper than another reading."""


def mask(model: Model, tensor: Tensor) -> bool:
    """Whether a floating tensor is a mask: it holds the lowest number of its type, or 0 and one number far below."""
    if not 1 < tensor.size <= 1 << 24 or tensor.dtype not in LOWEST:
        return False
    if tensor.size > LARGE and model.digests.of(tensor).most < -FAR:
        return False
    values = tensor.read().reshape(-1)
    least = float(values[:: max(1, values.size // 4096)].min())
    return least <= LOWEST[tensor.dtype] / 4 or (least <= FAR and bool(((values == 0) | (values == least)).all()))


FEW = 16
"""Elements of a stored operand that may decide a shape or a function."""


def settles(node: Node, name: str, tensor: Tensor) -> bool:
    """Whether a small floating operand decides a shape or a function, so that its value is needed."""
    told = known(node.op).told and name != node.inputs[0]
    return told and tensor.size <= FEW and tensor.floating


def buffers(model: Model) -> frozenset[str]:
    """The stored tensors of one number throughout that are read for nothing but to scatter results into them.

    Zeros to which the first of such results is added are no more than that.
    """
    nodes = list(model.graph.walk())
    made = {out for node in nodes if known(node.op).scatters for out in node.outputs}
    other, scattered, summed = set(model.graph.outputs), set[str](), set[str]()
    for node in nodes:
        for k, name in enumerate(node.inputs):
            started = function(node.op).sums and len(node.inputs) == 2 and node.inputs[1 - k] in made
            (scattered if known(node.op).scatters and not k else summed if started else other).add(name)
    found = {name: model.tensors[name] for name in (scattered | summed) - other if name in model.tensors}
    return frozenset(n for n, t in found.items() if _uniform(t) and (n not in summed or not t.read().flat[0]))


def _uniform(tensor: Tensor) -> bool:
    if not tensor.floating or not 0 < tensor.size <= 1 << 24:
        return False
    values = tensor.read().reshape(-1)
    return bool((values == values[0]).all())
