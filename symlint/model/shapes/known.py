"""Values that depend on no input and on no weight: what a pass knows, and how it comes to know more."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import field

import numpy as np

from symlint.model.graph import Array, Graph, Node, Shape, Tensor, plausible
from symlint.model.records import dataclass
from symlint.model.shapes.call import Found, Kind
from symlint.model.shapes.evaluate import evaluate, listed

VALUE_LIMIT = 1_000_000
"""Elements of one known value."""
TOTAL_LIMIT = 50_000_000
"""Elements of all values that a pass computes."""
SMALL = 4096
"""Elements of a stored floating tensor that may be read where it says a shape (scales of a Resize)."""
_BY_DATA = frozenset({"NonZero", "Unique", "Compress"})
_STORES_QUANTISED = (
    *("Dequantize", "Quantize", "QLinear", "Integer", "QGemm", "QAttention", "QMoE", "QEmbed"),
    *("NBits", "Bnb4", "FpQ4", "NhwcMaxPool"),
)
_KEEPS = "Transpose Reshape Squeeze Unsqueeze Flatten Identity Slice Cast Split BitShift BitwiseAnd Concat Gather"
_LAYOUT = frozenset(_KEEPS.split())


@dataclass
class Known:
    """Shapes (element counts), dtypes and values found so far, by the name of the value."""

    tensors: Mapping[str, Tensor]
    shapes: dict[str, Shape] = field(default_factory=dict, kw_only=True)
    dtypes: dict[str, str] = field(default_factory=dict, kw_only=True)
    constants: dict[str, Array] = field(default_factory=dict, kw_only=True)
    asides: dict[str, Array | None] = field(default_factory=dict, kw_only=True)
    makers: dict[str, Node] = field(default_factory=dict, kw_only=True)
    computed: int = field(default=0, kw_only=True)

    def begin(self, values: Mapping[str, Array]) -> None:
        """Enter the stored tensors, and those values of them that count as known."""
        for name, tensor in self.tensors.items():
            self.shapes[name], self.dtypes[name] = tensor.shape, tensor.dtype
        self.constants.update(values)

    def kind(self, name: str) -> Kind | None:
        """Dtype and shape of a value, where both are known."""
        if name in self.shapes and name in self.dtypes:
            return Kind(self.dtypes[name], self.shapes[name])
        return None

    def put(self, name: str, kind: Kind | None) -> None:
        """Enter what is known of a value; what nobody can have stays unknown."""
        if name and kind is not None and plausible(kind.shape):
            self.shapes[name], self.dtypes[name] = kind.shape, kind.dtype

    def measure(self, node: Node) -> None:
        """The value of a Shape or Size."""
        shape = self.shapes[node.inputs[0]]
        part = shape[node.attributes.get("start", 0) : node.attributes.get("end")]
        value = np.asarray(part if node.op == "Shape" else math.prod(shape), np.int64)
        self.keep(node.outputs[0], value)

    def keep(self, name: str, value: Array) -> None:
        """Enter a known value."""
        if name:
            self.constants[name] = value
            self.computed += value.size
            self.put(name, Kind(value.dtype.name, value.shape))

    def known(self, node: Node, found: list[Found] | None) -> bool:
        """Evaluate the node if all its inputs are known and the results are small."""
        if not node.inputs or any(name and name not in self.constants for name in node.inputs):
            return False
        values = self.results(node, self.constants, found)
        for name, value in zip(node.outputs, values or (), strict=False):
            self.keep(name, value)
        return values is not None

    def results(self, node: Node, values: Mapping[str, Array], found: list[Found] | None) -> tuple[Array, ...] | None:
        """The values of a call, if its results are known to be small."""
        if not listed(node.op) or self.computed > TOTAL_LIMIT:
            return None
        # NonZero and its like are bounded by their input; all others must say their size before they run.
        if node.op not in _BY_DATA and (found is None or not all(map(_small, found))):
            return None
        try:
            inputs = [values[name] if name else None for name in node.inputs]
            return evaluate(node.op, node.opset, node.attributes, inputs, len(node.outputs))
        except Exception:  # a value that cannot be had is no reason to give up its shape
            return None

    def value(self, name: str, depth: int = 0) -> Array | None:
        """A known value, or one computed aside from small stored tensors because a shape depends on it."""
        if name in self.constants:
            return self.constants[name]
        if name not in self.asides and depth < 64:  # chains of shape arithmetic are short
            self.asides[name] = None
            tensor, node = self.tensors.get(name), self.makers.get(name)
            if tensor is not None and tensor.size <= SMALL and tensor.dtype != "string":
                self.asides[name] = tensor.read()
            elif node is not None and math.prod(self.shapes.get(name, (SMALL + 1,))) <= SMALL:
                self.asides[name] = self.aside(node, name, depth + 1)
        return self.asides.get(name)

    def aside(self, node: Node, name: str, depth: int) -> Array | None:
        """Evaluate one node whose own inputs are small and known, here or aside."""
        if not listed(node.op) or not node.inputs:
            return None
        values: dict[str, Array] = {}
        for source in filter(None, node.inputs):
            value = self.value(source, depth)
            if value is None or value.size > SMALL:
                return None
            values[source] = value
        found: list[Found] = [(k.dtype, k.shape) if (k := self.kind(o)) else None for o in node.outputs if o]
        results = self.results(node, values, found)
        return results[node.outputs.index(name)] if results else None


def _small(item: Found) -> bool:
    return item is not None and None not in item[1] and math.prod(d or 0 for d in item[1]) <= VALUE_LIMIT


def stored_values(graph: Graph, tensors: Mapping[str, Tensor]) -> dict[str, Array]:
    """Stored integers, truth values and single numbers: known values, unless they are quantised weights."""
    quantised = _stored_quantised(graph)
    # Integers of 64 bits are the shapes and indices of quantised operators, never their weights.
    quantised -= {name for name in quantised if name in tensors and tensors[name].dtype == "int64"}
    plain = {n: t for n, t in tensors.items() if t.dtype != "string" and "complex" not in t.dtype}
    return {
        name: tensor.read()
        for name, tensor in plain.items()
        if not tensor.shape or (not tensor.floating and name not in quantised and tensor.size <= VALUE_LIMIT)
    }


def _stored_quantised(graph: Graph) -> set[str]:
    """Names of values that are quantised weights: read by a quantised operator, perhaps after a change of layout."""
    found: set[str] = set()
    graphs = [graph]
    for inner in graphs:
        for node in reversed(inner.nodes):
            graphs += node.bodies
            reads = any(word in node.op for word in _STORES_QUANTISED)
            if reads or (node.op in _LAYOUT and any(name in found for name in node.outputs)):
                found.update(node.inputs if node.op == "Concat" or reads else node.inputs[:1])
    return found
