"""Nodes: whether two files compute the same with their weights, and which operators and attributes differ."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import onnx

from symlint.graph import Array, Graph, Model, Node

IMPLIED = frozenset(("kernel_shape",))
"""Attributes that a weight's shape says as well."""
SHORT = 40
"""Values that take more characters than this are not written out."""
HALVES = ("float16", "bfloat16")
Parts = dict[str, str]


@dataclass(frozen=True, slots=True)
class Edit:
    """A node that stands where it stood, with another operator, attribute or constant."""

    node: str
    """Its name in the old file, or that of its first output."""
    old: str
    new: str


@dataclass(frozen=True, slots=True)
class Nodes:
    """What became of the graph, weights left aside."""

    same: bool
    """Whether the outputs are computed in the same way."""
    edits: tuple[Edit, ...] = ()
    """Told where the nodes of both files correspond one by one; else the files are wired in different ways."""


def nodes(old: Model, new: Model, weights: tuple[Collection[str], Collection[str]]) -> Nodes:
    """Compare the graphs of two files, whatever things are called.

    Args:
        old, new: the two files.
        weights: the stored tensors of each that are compared as weights; other constants belong to the graph.
    """
    coarse = any(t.dtype in HALVES for model in (old, new) for t in model.tensors.values())
    one, two = (_Reader(m, w, coarse) for m, w in zip((old, new), weights, strict=True))
    if one.outputs(old.graph) == two.outputs(new.graph):
        return Nodes(True)
    mine, theirs = one.computed(old.graph), two.computed(new.graph)
    if one.wiring(mine, old.graph) != two.wiring(theirs, new.graph):
        return Nodes(False)
    pairs = ((x, one.parts(x), two.parts(y)) for x, y in zip(mine, theirs, strict=True))
    return Nodes(False, tuple(_edit(node, a, b) for node, a, b in pairs if a != b))


class _Reader:
    def __init__(self, model: Model, weights: Collection[str], coarse: bool) -> None:
        self.model, self.weights, self.coarse = model, weights, coarse

    def computed(self, graph: Graph) -> list[Node]:
        """The nodes that compute something that is not known beforehand."""
        return [n for n in graph.nodes if not all(out in self.model.constants for out in n.outputs if out)]

    def outputs(self, graph: Graph) -> list[int]:
        """A mark per output, equal where it is computed in the same way from the same inputs."""
        marks = {name: hash(("input", k)) for k, name in enumerate(graph.inputs)}
        for node in self.computed(graph):
            given = tuple(marks.get(n, 0) if n in marks or not n else hash(self._held(n)) for n in node.inputs)
            mark = hash((tuple(sorted(self.parts(node).items())), given))
            marks |= {out: hash((mark, k)) for k, out in enumerate(node.outputs) if out}
        return [marks[n] if n in marks else hash(self._held(n)) for n in graph.outputs]

    def wiring(self, chosen: list[Node], graph: Graph) -> list[Any]:
        """Of which results every node is made, whatever it computes."""
        source: dict[str, Any] = {name: ("input", k) for k, name in enumerate(graph.inputs)}
        source |= {out: (i, k) for i, node in enumerate(chosen) for k, out in enumerate(node.outputs) if out}
        rows: Iterator[tuple[str, ...]] = chain((n.inputs for n in chosen), [graph.outputs])
        return [[source.get(name, "held" if name else "") for name in row] for row in rows]

    def parts(self, node: Node) -> Parts:
        """Operator, attributes and small constants of a node in words."""
        given: dict[str, Any] = {**_defaults(node), **node.attributes}
        found = {name: self._word(value) for name, value in given.items() if name not in IMPLIED}
        held = {f"input {k}": self._held(n) for k, n in enumerate(node.inputs) if n}
        return {"": node.op, **found, **{k: v for k, v in held.items() if v}}

    def _held(self, name: str) -> str:
        """What is known beforehand and is no weight."""
        if name in self.weights or name in self.model.moving:
            return ""
        if name in self.model.constants:
            return self._word(self.model.constants[name])
        stored = self.model.tensors.get(name)
        return "" if stored is None else self._word(stored.read())

    def _word(self, value: object) -> str:
        if isinstance(value, Graph):
            return f"body {hash(tuple(self.outputs(value)))}"
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        if isinstance(value, float):
            return f"{value:.3g}" if self.coarse else f"{value:.7g}"
        if isinstance(value, tuple | list):
            return f"[{', '.join(map(self._word, value))}]"
        return self._numbers(value) if isinstance(value, np.ndarray) else str(value)

    def _numbers(self, values: Array) -> str:
        if values.dtype.kind in "OSU" or values.size <= 4:
            return self._word(values.tolist())
        if self.coarse and values.dtype.kind not in "iub":
            return f"{values.shape} numbers"
        return f"{values.shape} numbers {hash(np.ascontiguousarray(values).tobytes())}"


def _defaults(node: Node) -> Mapping[str, Any]:
    """The attributes that a node has without naming them."""
    domain, _, op = node.op.rpartition(".")
    try:
        schema = onnx.defs.get_schema(op, node.opset, domain)
    except onnx.defs.SchemaError:
        return {}
    given = {name: attribute.default_value for name, attribute in schema.attributes.items()}
    return {
        name: onnx.helper.get_attribute_value(value)
        for name, value in given.items()
        if value.type != onnx.AttributeProto.UNDEFINED
    }


def _edit(node: Node, old: Parts, new: Parts) -> Edit:
    name = node.name or next((out for out in node.outputs if out), "")
    if old[""] != new[""]:
        return Edit(name, old[""], new[""])
    keys = [key for key in sorted(old | new) if old.get(key) != new.get(key)]
    before, after = ([_short(key, side.get(key, "none")) for key in keys] for side in (old, new))
    return Edit(name, f"{old['']} {', '.join(before)}", ", ".join(after))


def _short(key: str, value: str) -> str:
    return f"{key} {value}" if len(value) <= SHORT and "numbers" not in value else f"{key} (other values)"
