"""From the intermediate representation to plain nodes: unique names, Constants stored, Identities followed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from symlint.concrete import Dim
from symlint.files import data_file
from symlint.graph import Array, Graph, Node, Tensor

_WORDS = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}


def plain_domain(domain: str) -> str:
    """The domain with ONNX's own written one way, as nothing."""
    return "" if domain == "ai.onnx" else domain


class Converter:
    """Turns the intermediate representation into plain nodes: unique names, Constants stored, Identities followed."""

    def __init__(self, path: str, folder: Path, versions: dict[str, int]) -> None:
        self.path = path
        self.folder = folder
        self.versions = versions
        self.tensors: dict[str, Tensor] = {}
        self.types: dict[str, tuple[str, tuple[Dim, ...]]] = {}
        self.names: dict[ir.Value, str] = {}
        self.taken: set[str] = set()
        self.alias: dict[str, str] = {}
        self.called: dict[tuple[str, int], str] = {}
        self.literals: set[str] = set()

    def graph(self, graph: ir.Graph, prefix: str = "") -> Graph:
        """One graph and the bodies inside of it; ``prefix`` is for names that an outer graph has taken."""
        self.declare(graph, prefix)
        outputs = set(graph.outputs)
        for value in graph.initializers.values():
            if value.const_value is not None:
                self.store(self.names[value], value.const_value)
        nodes = []
        for node in graph:
            op = node.op_type if not plain_domain(node.domain) else f"{node.domain}.{node.op_type}"
            if op == "Constant" and self.constant(node):
                self.literals.add(self.names[node.outputs[0]])
                continue
            inputs = tuple("" if value is None else self.source(value) for value in node.inputs)
            if op == "Identity" and inputs and inputs[0]:
                self.alias[self.names[node.outputs[0]]] = inputs[0]
                if node.outputs[0] not in outputs:
                    continue
            results = tuple(self.names[value] if value.name else "" for value in node.outputs)
            for k, read in enumerate(node.inputs):
                if read is not None and results and inputs[k] in self.tensors and self.names[read] != inputs[k]:
                    self.called[results[0], k] = self.names[read]
            version = node.version or self.versions.get(plain_domain(node.domain), 1)
            nodes.append(Node(op, node.name or "", inputs, results, self.attributes(node, prefix), version))
        return Graph(
            nodes=tuple(nodes),
            inputs=tuple(self.names[value] for value in graph.inputs if self.names[value] not in self.tensors),
            # A body may hand through a value of an outer graph, and that one may be an alias.
            outputs=tuple(self.names[v] if v.graph is graph else self.source(v) for v in graph.outputs),
        )

    def declare(self, graph: ir.Graph, prefix: str) -> None:
        """Give every value of one graph its name; a name that an outer or sibling scope has taken gets a prefix."""
        for value in _values(graph):
            if value in self.names or not value.name:
                continue
            name = _free(value.name, prefix, self.taken)
            self.taken.add(name)
            self.names[value] = name
            if value.shape is not None and isinstance(value.type, ir.TensorType) and value.type.dtype.value:
                self.types[name] = (_word(value.type.dtype), tuple(_dim(dim) for dim in value.shape))

    def source(self, value: ir.Value) -> str:
        """The name of a value, or of what it is an Identity of."""
        name = self.names[value]
        return self.alias.get(name, name)

    def store(self, name: str, tensor: Any) -> None:
        """Enter a stored tensor, to be read later."""
        shape = tuple(int(dim) for dim in tensor.shape)
        read: Callable[[], Array] = tensor.numpy
        if isinstance(tensor, ir.ExternalTensor):
            read = self.external(tensor)
        self.tensors[name] = Tensor(name, shape, _word(tensor.dtype), read)

    def external(self, tensor: ir.ExternalTensor) -> Callable[[], Array]:
        """A reader that maps an external tensor. Raises UnreadableModel."""
        # The guard has resolved and measured this file; naming it absolutely here keeps that answer.
        found = str(data_file(self.folder, os.fspath(tensor.location), self.path))

        def read() -> Array:
            shape = ir.Shape(tensor.shape)
            return ir.ExternalTensor(
                found, tensor.offset, tensor.length, tensor.dtype, shape=shape, name=tensor.name or ""
            ).numpy()

        return read

    def constant(self, node: ir.Node) -> bool:
        """Store the value of a Constant node; False where it is no tensor of numbers."""
        name = self.names[node.outputs[0]]
        for key, attribute in node.attributes.items():
            if key == "value" and attribute.value is not None:
                self.store(name, attribute.value)
                return True
            if key in _WORDS:
                array = np.asarray(attribute.value, _WORDS[key])
                self.tensors[name] = Tensor(name, array.shape, array.dtype.name, array.copy)
                return True
        return False

    def attributes(self, node: ir.Node, prefix: str) -> dict[str, Any]:
        """The attributes of a node as Python values; sparse tensors and types are left out."""
        found: dict[str, Any] = {}
        for key, attribute in node.attributes.items():
            kind, value = attribute.type, attribute.value
            inner = f"{prefix}{node.name or node.op_type}/{key}/"
            if kind == ir.AttributeType.GRAPH:
                found[key] = self.graph(attribute.as_graph(), inner)
            elif kind == ir.AttributeType.GRAPHS:
                found[key] = tuple(self.graph(graph, inner) for graph in attribute.as_graphs())
            elif kind == ir.AttributeType.TENSOR:
                found[key] = attribute.as_tensor().numpy()
            elif kind in (ir.AttributeType.INTS, ir.AttributeType.FLOATS, ir.AttributeType.STRINGS):
                found[key] = tuple(value)
            elif kind in (ir.AttributeType.INT, ir.AttributeType.FLOAT, ir.AttributeType.STRING):
                found[key] = value
        return found


def distinguish(graph: ir.Graph, prefix: str = "", taken: set[str] | None = None) -> None:
    """Give every value of a file, in place, the name that a `Model` has for it: those of sibling bodies differ."""
    taken = set[str]() if taken is None else taken
    for value in dict.fromkeys(_values(graph)):
        if value.name:
            value.name = _free(value.name, prefix, taken)
            taken.add(value.name)
    for node in graph:
        for key, attribute in node.attributes.items():
            inner = f"{prefix}{node.name or node.op_type}/{key}/"
            if attribute.type == ir.AttributeType.GRAPH:
                distinguish(attribute.as_graph(), inner, taken)
            elif attribute.type == ir.AttributeType.GRAPHS:
                for body in attribute.as_graphs():
                    distinguish(body, inner, taken)


def _free(name: str, prefix: str, taken: set[str]) -> str:
    if name not in taken:
        return name
    found, count = f"{prefix}{name}", 2
    while found in taken:
        found, count = f"{prefix}{name}_{count}", count + 1
    return found


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs


def _word(dtype: ir.DataType) -> str:
    return "string" if dtype == ir.DataType.STRING else str(dtype.numpy().name)


def _dim(dim: Any) -> Dim:
    """An integer, a symbol's name, or None; exporters also write -1 and 0 for "any size"."""
    if isinstance(dim, int):
        return dim if dim > 0 else None
    return str(dim.value) if getattr(dim, "value", None) else None
