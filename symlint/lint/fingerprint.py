"""Fingerprints of findings: the same for the same place of the same architecture.

A fingerprint is made of the rule's code and of the structure of the space: sizes, shapes, layouts and the operators
around it. Names, weights, units, paths and messages are left out, so that it outlives an exporter that renames and a
training that starts again. Places that look alike are numbered in the order of the spaces, whether or not they have a
finding, so that one place's repair does not rename another.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

from symlint.lint.finding import Finding
from symlint.model.graph import Graph, Node
from symlint.symmetry.spaces import Space, Symmetry

SCHEME = "1"
_WORD = re.compile(r"[^\W\d]\w*")


def stamp(findings: Sequence[Finding], symmetry: Symmetry | None = None) -> tuple[Finding, ...]:
    """The findings with their fingerprints: 16 hexadecimal digits, a colon, and the number among equals."""
    places = _places(symmetry) if symmetry and any(finding.space for finding in findings) else {}
    seen: dict[str, int] = defaultdict(int)
    stamped = []
    for finding in findings:
        structure, ordinal = places.get(finding.space or "", (str(finding.facts.get("op", "")), 1))
        key = f"{_digest([SCHEME, finding.rule, structure])}:{ordinal}"
        seen[key] += 1
        stamped.append(replace(finding, fingerprint=key if seen[key] == 1 else f"{key}.{seen[key]}"))
    return tuple(stamped)


def _places(symmetry: Symmetry) -> dict[str, tuple[str, int]]:
    """Structure of each space and its number among those of equal structure."""
    surroundings = _surroundings(symmetry.model.graph)
    counts: dict[str, int] = defaultdict(int)
    places = {}
    for space in symmetry.spaces:
        structure = _structure(space, symmetry, surroundings)
        counts[structure] += 1
        places[space.id] = structure, counts[structure]
    return places


def _structure(space: Space, symmetry: Symmetry, surroundings: dict[str, list[str]]) -> str:
    places = []
    for place in space.places:
        tensor = symmetry.model.tensors.get(place.tensor)
        shape = list(tensor.shape) if tensor else []
        places.append([place.axis, _WORD.sub("_", place.layout), shape, sorted(surroundings.get(place.tensor, ()))])
    return _digest([space.size, space.copies, sorted(places, key=json.dumps)])


def _surroundings(graph: Graph) -> dict[str, list[str]]:
    """For each value, the nodes that read it, each with the operators before and after it."""
    nodes = list(_walk(graph))
    writer = {output: node.op for node in nodes for output in node.outputs if output}
    readers: dict[str, list[Node]] = defaultdict(list)
    for node in nodes:
        for name in filter(None, node.inputs):
            readers[name].append(node)
    around: dict[str, list[str]] = defaultdict(list)
    for node in nodes:
        before = sorted(writer.get(name, "") for name in node.inputs)
        after = sorted(reader.op for output in node.outputs for reader in readers.get(output, ()))
        for slot, name in enumerate(node.inputs):
            if name:
                around[name].append(f"{','.join(before)}>{node.op}[{slot}]>{','.join(after)}")
    return around


def _walk(graph: Graph) -> Iterator[Node]:
    """Every node, those of bodies included."""
    graphs = [graph]
    while graphs:
        for node in graphs.pop().nodes:
            yield node
            graphs += [value for value in node.attributes.values() if isinstance(value, Graph)]


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
