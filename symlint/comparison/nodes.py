"""Nodes: whether two files compute the same with their weights, and which operators and attributes differ."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from itertools import chain
from typing import Any

import numpy as np
import onnx

from symlint.model.graph import Array, Graph, Model, Node
from symlint.model.operators import known
from symlint.model.records import dataclass

IMPLIED = frozenset(("kernel_shape",))
"""Attributes that a weight's shape says as well."""
SHORT = 40
"""Values that take more characters than this are not written out."""
EXACT = "iubOSU"
"""Kinds of numpy types that no conversion to half precision changes."""
FLOATS = ("float16", "bfloat16", "float32", "float64")
HALVES = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
"""Types of half precision, and how far rounding to them moves a number, relative."""
ROUNDINGS = 4.0
"""So many may lie between a constant and what a conversion to half precision has made of it."""
SMALLEST = 2.0**-23
"""What a conversion to half precision may make of zero, and what it may make zero."""
FAR, LARGEST = 1e4, 65504.0
"""A conversion to float16 may make any number from FAR on of what is beyond its LARGEST."""
Parts = dict[str, "str | Array"]
"""What is known of a node: words, and numbers that are no weights."""


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
    kinds = [{t.dtype for t in model.tensors.values()} & set(FLOATS) for model in (old, new)]
    # Two files of the same types round nothing to one another.
    unit = 0.0 if kinds[0] == kinds[1] else max(HALVES.get(kind, 0.0) for kind in (*kinds[0], *kinds[1]))
    one, two = (_Reader(m, w, coarse=unit > 0) for m, w in zip((old, new), weights, strict=True))
    return _compared(one, two, old.graph, new.graph, ROUNDINGS * unit)


def _compared(one: _Reader, two: _Reader, old: Graph, new: Graph, margin: float) -> Nodes:
    """Compare two graphs; of constants that no mark holds, those of nodes with the same marks."""
    mine, theirs = one.marks(old), two.marks(new)
    same = one.ends(old, mine) == two.ends(new, theirs)
    if same and not margin:
        return Nodes(True)
    if same:
        pairs = list(_counterparts(one.computed(old), two.computed(new), mine, theirs))
    elif one.wiring(one.computed(old), old) == two.wiring(two.computed(new), new):
        pairs = list(zip(one.computed(old), two.computed(new), strict=True))
    else:
        return Nodes(False)
    edits = tuple(edit for x, y in pairs for edit in _edits(one, two, x, y, margin))
    return Nodes(same and not edits, edits)


def _counterparts(
    old: list[Node], new: list[Node], mine: Mapping[str, int], theirs: Mapping[str, int]
) -> Iterator[tuple[Node, Node]]:
    """Nodes with the same marks, in their order."""
    waiting: dict[int, list[Node]] = defaultdict(list)
    for node in reversed(new):
        waiting[_mark(node, theirs)].append(node)
    for node in old:
        if found := waiting.get(_mark(node, mine)):
            yield node, found.pop()


def _mark(node: Node, marks: Mapping[str, int]) -> int:
    return next((marks[out] for out in node.outputs if out), 0)


def _edits(one: _Reader, two: _Reader, x: Node, y: Node, margin: float) -> Iterator[Edit]:
    """What differs between two nodes, their bodies included."""
    old, new = one.parts(x), two.parts(y)
    words = {k: one.word(v) for k, v in old.items()}, {k: two.word(v) for k, v in new.items()}
    differ = [key for key in sorted(old | new) if words[0].get(key) != words[1].get(key)]
    keys = [key for key in differ if not margin or not _alike(old.get(key, "none"), new.get(key, "none"), margin)]
    if keys:
        name = x.name or next((out for out in x.outputs if out), "")
        yield _edit(name, *words, keys)
        return
    for key, body in x.attributes.items():
        other = y.attributes.get(key)
        if isinstance(body, Graph) and isinstance(other, Graph):
            yield from _compared(one, two, body, other, margin).edits


def _alike(one: str | Array, other: str | Array, margin: float) -> bool:
    """Whether numbers of other types are the same up to what a conversion does to them."""
    if isinstance(one, str) or isinstance(other, str) or one.shape != other.shape:
        return False
    if one.dtype.kind in EXACT or other.dtype.kind in EXACT:
        return bool(np.array_equal(one, other))
    x, y = one.astype(np.float64), other.astype(np.float64)
    size = np.maximum(np.abs(x), np.abs(y))
    same = (x == y) | (np.isnan(x) & np.isnan(y))
    with np.errstate(invalid="ignore"):
        near = np.abs(x - y) <= margin * size + SMALLEST
    beyond = (size > LARGEST) & (np.minimum(np.abs(x), np.abs(y)) >= FAR) & (np.sign(x) == np.sign(y))
    return bool((same | near & np.isfinite(size) | beyond).all())


class _Reader:
    def __init__(self, model: Model, weights: Collection[str], *, coarse: bool) -> None:
        self.model, self.weights, self.coarse = model, weights, coarse

    def computed(self, graph: Graph) -> list[Node]:
        """The nodes that compute something that is not known beforehand."""
        nodes = [n for n in graph.nodes if not all(out in self.model.constants for out in n.outputs if out)]
        return [n for n in nodes if not self._converts(n)]

    def _converts(self, node: Node) -> bool:
        """Whether a node only makes floating-point numbers of another type, where the two files have several."""
        kinds = [self.model.dtypes.get(name, "") for name in (*node.inputs[:1], *node.outputs)]
        return self.coarse and known(node.op).casts and all(kind in FLOATS for kind in kinds)

    def _sources(self, graph: Graph) -> dict[str, str]:
        """What a conversion makes -> what it is made of."""
        found: dict[str, str] = {}
        for node in graph.nodes:
            if self._converts(node):
                found[node.outputs[0]] = found.get(node.inputs[0], node.inputs[0])
        return found

    def marks(self, graph: Graph) -> dict[str, int]:
        """A mark per computed value, equal where it is computed in the same way from the same inputs."""
        marks = {name: hash(("input", k)) for k, name in enumerate(graph.inputs)}
        sources = self._sources(graph)
        for node in self.computed(graph):
            read = [sources.get(n, n) for n in node.inputs]
            given = tuple(marks.get(n, 0) if n in marks or not n else hash(self._marked(n)) for n in read)
            words = tuple(sorted((key, self._sign(value)) for key, value in self.parts(node).items()))
            mark = hash((words, given))
            marks |= {out: hash((mark, k)) for k, out in enumerate(node.outputs) if out}
        return marks | {made: marks[x] for made, x in sources.items() if x in marks}

    def ends(self, graph: Graph, marks: Mapping[str, int]) -> list[int]:
        """The marks of the outputs of a graph."""
        return [marks[n] if n in marks else hash(self._marked(n)) for n in graph.outputs]

    def _marked(self, name: str) -> str:
        held = self._held(name)
        return "" if held is None else self._sign(held)

    def _sign(self, value: str | Array) -> str:
        """What two values share that may be the same."""
        if isinstance(value, str):
            return value
        if self.coarse and value.dtype.kind not in EXACT:
            return f"{value.shape} numbers"
        return self.word(value)

    def wiring(self, chosen: list[Node], graph: Graph) -> list[Any]:
        """Of which results every node is made, whatever it computes."""
        source: dict[str, Any] = {name: ("input", k) for k, name in enumerate(graph.inputs)}
        source |= {out: (i, k) for i, node in enumerate(chosen) for k, out in enumerate(node.outputs) if out}
        rows: Iterator[tuple[str, ...]] = chain((n.inputs for n in chosen), [graph.outputs])
        through = self._sources(graph)
        return [[source.get(through.get(name, name), "held" if name else "") for name in row] for row in rows]

    def parts(self, node: Node) -> Parts:
        """Operator, attributes and constants of a node: words, and numbers."""
        given: dict[str, Any] = {**_defaults(node), **node.attributes}
        found: Parts = {name: self._said(value) for name, value in given.items() if name not in IMPLIED}
        held = {f"input {k}": self._held(n) for k, n in enumerate(node.inputs) if n}
        return {"": node.op, **found, **{k: v for k, v in held.items() if v is not None}}

    def _held(self, name: str) -> Array | None:
        """What is known beforehand and is no weight."""
        if name in self.weights or name in self.model.moving:
            return None
        if name in self.model.constants:
            return np.asarray(self.model.constants[name])
        stored = self.model.tensors.get(name)
        return None if stored is None else stored.read()

    def _said(self, value: object) -> str | Array:
        return value if isinstance(value, np.ndarray) else self.word(value)

    def word(self, value: object) -> str:
        """A value in words."""
        if isinstance(value, Graph):
            return f"body {hash(tuple(self.ends(value, self.marks(value))))}"
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        if isinstance(value, float):
            return f"{value:.7g}"
        if isinstance(value, tuple | list):
            return f"[{', '.join(map(self.word, value))}]"
        return self._numbers(value) if isinstance(value, np.ndarray) else str(value)

    def _numbers(self, values: Array) -> str:
        if values.dtype.kind in "OSU" or values.size <= 4:
            return self.word(values.tolist())
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


def _edit(name: str, old: Mapping[str, str], new: Mapping[str, str], keys: list[str]) -> Edit:
    if old[""] != new[""]:
        return Edit(name, old[""], new[""])
    before, after = ([_short(key, side.get(key, "none")) for key in keys] for side in (old, new))
    return Edit(name, f"{old['']} {', '.join(before)}", ", ".join(after))


def _short(key: str, value: str) -> str:
    return f"{key} {value}" if len(value) <= SHORT and "numbers" not in value else f"{key} (other values)"
