"""What of a network would be left of its file once nothing reads the rest any more, told without the file."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

from symlint.model.graph import Node


def nested(nodes: Iterable[Node]) -> list[Node]:
    """Nodes, each before those of its bodies."""
    return [inner for node in nodes for inner in (node, *(n for body in node.bodies for n in nested(body.nodes)))]


def reached(
    nodes: Sequence[Node], ends: Sequence[str], spared: Container[str], instead: Mapping[str, str]
) -> tuple[list[Node], set[str]]:
    """The nodes that are left when those that nothing reads go, one after another, and the values that are read.

    Args:
        nodes: of one graph, each after those that it reads from.
        ends: the results of the graph.
        spared: first outputs of nodes that stay though nothing reads them.
        instead: name -> the name that is read in its place.
    """
    left, used = list[Node](), {*ends}
    for node in reversed(nodes):
        if node.first in spared or not used.isdisjoint(node.outputs):
            left.append(node)
            used.update(instead.get(name, name) for name in _read(node) if name)
    return left[::-1], used


def _read(node: Node) -> Iterator[str]:
    """What a node reads; its bodies read and hand out values of outer graphs as well."""
    yield from node.inputs
    for body in node.bodies:
        yield from body.outputs
        for inner in body.nodes:
            yield from _read(inner)
