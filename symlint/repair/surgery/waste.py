"""Waste: nodes and stored tensors that nothing reads any more."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from symlint.model.records import dataclass


@dataclass(frozen=True, slots=True)
class Idle:
    """What had no reader before a change, and is left as it was."""

    nodes: frozenset[ir.Node]
    tensors: frozenset[str]


def idle(file: ir.Model) -> Idle:
    """The nodes and stored tensors that nothing reads."""
    return Idle(frozenset(_nodes(file)), frozenset(_tensors(file)))


def discard(file: ir.Model, spared: Idle) -> None:
    """Remove what nothing reads any more, in place, but for what nothing had read before."""
    while gone := [node for node in _nodes(file) if node not in spared.nodes]:
        for node in gone:
            assert node.graph is not None
            node.graph.remove(node, safe=True)
    for name in [name for name in _tensors(file) if name not in spared.tensors]:
        del file.graph.initializers[name]


def _nodes(file: ir.Model) -> Iterator[ir.Node]:
    outputs = {out for graph in file.graphs() for out in graph.outputs}  # a body may hand out a value of an outer graph
    return (node for node in file.graph if not any(o.uses() or o in outputs for o in node.outputs))


def _tensors(file: ir.Model) -> Iterator[str]:
    ends = {*file.graph.outputs, *file.graph.inputs}
    return (name for name, value in file.graph.initializers.items() if not value.uses() and value not in ends)
