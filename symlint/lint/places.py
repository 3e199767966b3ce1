"""Where findings are: layer and node, and a fingerprint that is the same for the same place of an architecture.

A fingerprint is made of the rule's code and of the structure of the space: sizes, shapes, layouts and the operators
around it. Names, weights, units, paths and messages are left out, so that it outlives an exporter that renames and a
training that starts again. Places that look alike are numbered from the input to the output, whether or not they have a
finding, so that one place's repair does not rename another; that is a matter of the wires, not of the order in which a
file lists its nodes. Which of two that stand side by side comes first says nothing: whoever compares two files counts
the fingerprints that are equal up to their number (`structure`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from symlint.lint.finding import Finding
from symlint.model.graph import Graph, Node
from symlint.model.naming import Names, Where
from symlint.symmetry.spaces import Space, Symmetry


def placed(findings: Iterable[Finding], symmetry: Symmetry) -> list[Finding]:
    """The findings with their places; that of a space is where it is written."""
    names = Names(symmetry.model)
    spaces = {space.id: space for space in symmetry.spaces}
    return [_placed(finding, spaces.get(finding.space or ""), names) for finding in findings]


def _placed(finding: Finding, space: Space | None, names: Names) -> Finding:
    tensor = space.places[0].tensor if space and space.places else names.chief(finding.tensors)
    layer = space.name if space else names.layer(tensor) if tensor else ""
    where = next(_nodes(finding, tensor, names), None)
    if where is None:
        return replace(finding, layer=layer or tensor, node=tensor, op="Initializer" if tensor else "")
    return replace(finding, layer=layer or where.node, node=where.node, op=where.op)


def _nodes(finding: Finding, tensor: str, names: Names) -> Iterator[Where]:
    """Nodes that a finding speaks of, the likeliest first."""
    facts = finding.facts
    if facts.get("op") and facts.get("nodes"):
        yield Where(str(facts["nodes"][0]) or str(facts["op"]), str(facts["op"]))
    if tensor and (where := names.where(tensor)):
        yield where
    if (value := facts.get("input")) is not None:
        yield names.where(str(value)) or Where(str(value), "Input")
    if (value := facts.get("output")) is not None:
        yield names.written(str(value)) or Where(str(value), "Output")


SCHEME = "1"
_WORD = re.compile(r"[^\W\d]\w*")


def stamp(findings: Sequence[Finding], symmetry: Symmetry | None = None) -> tuple[Finding, ...]:
    """The findings with their fingerprints: 16 hexadecimal digits, a colon, and the number among equals."""
    places = _Places(symmetry) if symmetry and findings else None
    seen: dict[str, int] = defaultdict(int)
    stamped = []
    for finding in findings:
        where, ordinal = places.of(finding) if places else ("", 1)
        key = f"{_digest([SCHEME, finding.rule, where])}:{ordinal}"
        seen[key] += 1
        stamped.append(replace(finding, fingerprint=key if seen[key] == 1 else f"{key}.{seen[key]}"))
    return tuple(stamped)


def structure(fingerprint: str) -> str:
    """A fingerprint without its number among equals."""
    return fingerprint.partition(":")[0]


class _Places:
    """What stands around each space and each weight, and its number among its equals."""

    def __init__(self, symmetry: Symmetry) -> None:
        self._symmetry = symmetry
        self._surroundings = _surroundings(symmetry.model.graph)
        self._spaces: dict[str, tuple[str, int]] = {}
        depth = _depths(symmetry.model.graph)
        alike: dict[str, list[Space]] = defaultdict(list)
        for space in symmetry.spaces:
            alike[self._structure(space)].append(space)
        for words, spaces in alike.items():
            spaces.sort(key=lambda space: sorted(depth.get(place.tensor, (0, 0)) for place in space.places))
            self._spaces |= {space.id: (words, number) for number, space in enumerate(spaces, 1)}

    def of(self, finding: Finding) -> tuple[str, int]:
        """The structure around a finding's space, or else around its weights, and the number among equals."""
        if finding.space in self._spaces:
            return self._spaces[finding.space]
        around = [self._weight(name) for name in finding.tensors]
        return _digest([str(finding.facts.get("op", "")), sorted(around, key=json.dumps)]), 1

    def _structure(self, space: Space) -> str:
        places = [[p.axis, _WORD.sub("_", p.layout), *self._weight(p.tensor)] for p in space.places]
        return _digest([space.size, space.copies, sorted(places, key=json.dumps)])

    def _weight(self, name: str) -> list[object]:
        tensor = self._symmetry.model.tensors.get(name)
        return [list(tensor.shape) if tensor else [], sorted(self._surroundings.get(name, ()))]


def _depths(graph: Graph) -> dict[str, tuple[int, int]]:
    """For each value that a node reads, the longest ways from the input and to the output; a body's are its own."""
    found: dict[str, tuple[int, int]] = {}
    graphs = [graph]
    while graphs:
        here = graphs.pop()
        above: dict[str, int] = defaultdict(int)
        below: dict[str, int] = defaultdict(int)
        for node in here.nodes:
            deep = 1 + max((above[name] for name in filter(None, node.inputs)), default=0)
            above.update(dict.fromkeys(filter(None, node.outputs), deep))
            graphs += node.bodies
        for node in reversed(here.nodes):
            rest = 1 + max((below[name] for name in filter(None, node.outputs)), default=0)
            below.update({name: max(below[name], rest) for name in filter(None, node.inputs)})
        for node in here.nodes:
            deep = max((above[name] for name in filter(None, node.outputs)), default=0)
            for name in filter(None, node.inputs):
                found[name] = min(found.get(name, (deep, -below[name])), (deep, -below[name]))
    return found


def _surroundings(graph: Graph) -> dict[str, list[str]]:
    """For each value, the nodes that read it, each with the operators before and after it."""
    nodes = list(graph.walk())
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


def _digest(value: object) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
