"""A program as a coloured graph: its automorphisms are the ways to exchange branches that compute alike."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Iterator
from functools import cached_property
from itertools import pairwise

import numpy as np

from symlint.axes.arena import Form
from symlint.axes.walk import Axes
from symlint.model.graph import Array, Graph, Node
from symlint.model.records import dataclass
from symlint.program.functions import dispatched
from symlint.program.steps import (
    Affine,
    Concat,
    Einsum,
    Normalise,
    Pointwise,
    Program,
    Slice,
    Step,
    Unknown,
)

Vertex = tuple[str, str | int]
"""``("tensor", name)``, ``("step", number)``, ``("node", id)``, ``("shapeless", name)`` of a value of the model,
``("factor", root)`` or ``("member", ...)`` of one."""
Edge = tuple[Vertex, Vertex, str]

COMMUTATIVE = frozenset(("Add", "Mul", "Sum", "Max", "Min", "Mean", "And", "Or", "Xor", "Equal"))
ASSOCIATIVE = frozenset(("Add", "Mul", "Sum", "Max", "Min"))
NORMS = ("Norm", "Softmax", "Hardmax")
"""In the names of operators that normalise; a norm that was recognised in others does not keep its epsilon."""
SMALL = 1 << 16
"""Elements of a constant up to which its value is compared, and not its name."""


@dataclass(frozen=True, slots=True)
class Call:
    """A step, or a tree of sums, as a vertex."""

    vertex: Vertex
    step: Step
    operands: tuple[str, ...]
    results: tuple[str, ...]


class Coloured:
    """Tensors, steps and factors as vertices; the colour says all of a vertex that an exchange must keep."""

    def __init__(self, program: Program, axes: Axes) -> None:
        self.program, self.axes, self.factors = program, axes, axes.factors
        self.colours: dict[Vertex, Hashable] = {}
        self.edges: list[Edge] = []
        self.calls = tuple(self._called())
        for name in {name: None for call in self.calls for name in (*call.operands, *call.results)}:
            self._tensor(name)
        for call in self.calls:
            alike = self.commutes(call.step)
            for k, name in enumerate(call.operands):
                self.edges.append((("tensor", name), call.vertex, "reads" if alike else f"reads {k}"))
            self.edges += [(call.vertex, ("tensor", name), f"makes {k}") for k, name in enumerate(call.results)]
            if not call.step.complete:
                # One step of a node may read what decides the values of another: the indices of a lookup.
                node = ("node", id(call.step.node))
                self.colours[node] = "node"
                self.edges += [(call.vertex, node, "of"), *self._shapeless(call.step.node)]
        todo = [root for kind, root in dict.fromkeys(b for _, b, _ in self.edges) if kind == "factor"]
        while todo:
            todo += self._factor(int(todo.pop()))

    def _called(self) -> Iterator[Call]:
        """The steps in order; a sum of sums, or another operation that is associative, is one."""
        program, made = self.program, Counter[int]()
        inner: dict[str, tuple[str, ...]] = {}
        readers = {name: step for step in program.steps for name in step.operands}
        for number, step in enumerate(program.steps):
            made[id(step.node)] += 1
            read = tuple(part for name in step.operands for part in inner.get(name, (name,)))
            if step.function in ASSOCIATIVE:
                (out,) = step.results
                last = out in program.outputs or program.reads[out] != 1
                if not last and out in readers and readers[out].function == step.function:
                    inner[out] = read
                    continue
                colour: Hashable = (step.function, len(read))
            elif step.complete:
                colour = (type(step).__name__, self._kept(step))
            else:
                colour = (type(step).__name__, made[id(step.node)], self._signature(step.node), self._kept(step))
            vertex = ("step", number)
            self.colours[vertex] = colour
            yield Call(vertex, step, read, step.results)

    def free(self, f: int) -> bool:
        """Whether the pieces of a sum may change places: each is told from the others, and none must keep its place."""
        pieces = self.factors.pieces(f)
        loose = self.factors.form(f) is Form.SUM and len(set(pieces)) == len(pieces)
        return loose and not self._fixed.intersection(self.factors.below(f))

    @cached_property
    def _fixed(self) -> set[int]:
        """Factors, single units too, whose order the outside sees, or by which a step acts."""
        program, of = self.program, self.axes.of
        held = [f for name in (*program.inputs, *program.outputs) for f in of.get(name, ())]
        held += [f for step in program.unknowns for name in (*step.operands, *step.outs) for f in of[name]]
        for mix in program.mixes:
            held += [of[mix.x][k] for k in mix.across(len(of[mix.x]))]
            held += [f for k, f in zip(mix.keep, of[mix.out], strict=True) if k is None]
        for name, table in program.tables.items():
            held += [f for k, f in enumerate(of[name]) if table.size and (table != table.take([0], axis=k)).any()]
        return {x for f in held for x in self.factors.below(f)} | set(self.factors.pins)

    def _shapeless(self, node: Node) -> Iterator[Edge]:
        """What joins a node to others by values that are no tensors of the program, since their shape is unknown."""
        model = self.program.model
        for word, names in (("takes", node.inputs), ("gives", node.outputs)):
            for k, name in enumerate(names):
                if name and name not in model.shapes:
                    vertex = ("shapeless", name)
                    self.colours[vertex] = ("outside", name) if name in model.graph.outputs else "shapeless"
                    yield ("node", id(node)), vertex, f"{word} {k}"

    def _tensor(self, name: str) -> None:
        program, vertex = self.program, ("tensor", name)
        colour: tuple[Hashable, ...]
        if name in program.inputs or name in program.outputs:
            colour = ("outside", name)
        elif name in program.detached:
            colour = ("detached", program.detached[name])
        elif name in program.weights:
            stored = program.model.tensors[program.weights[name]]
            colour = ("weight", stored.shape, stored.dtype)
        elif name in program.tables:
            colour = ("table", _digest(program.tables[name]))
        else:
            colour = ("value", program.shapes[name])
        self.colours[vertex] = colour
        self.edges += [
            (vertex, ("factor", self.factors.find(f)), f"axis {k}") for k, f in enumerate(self.axes.of[name])
        ]

    @dispatched
    def commutes(self, step: Step) -> bool:
        """Whether the order of a step's operands is of no account."""
        return step.function in COMMUTATIVE

    @commutes.register
    def _(self, step: Concat) -> bool:
        return self.free(self.axes.of[step.out][step.axis])

    @commutes.register
    def _(self, step: Einsum) -> bool:
        return len(set(step.specs)) == 1

    @dispatched
    def _kept(self, step: Step) -> Hashable:
        """What of a step is neither an operand nor in its node."""
        return tuple(repr(getattr(step, word, None)) for word in ("keep", "axes", "chosen"))

    @_kept.register
    def _(self, step: Concat) -> Hashable:
        return step.axis

    @_kept.register
    def _(self, step: Slice) -> Hashable:
        free = self.free(self.axes.of[step.x][step.axis])
        return step.axis, step.stop - step.start, None if free else step.start

    @_kept.register
    def _(self, step: Einsum) -> Hashable:
        return step.specs, step.result

    @_kept.register
    def _(self, step: Pointwise) -> Hashable:
        return step.function

    @_kept.register
    def _(self, step: Normalise) -> Hashable:
        named = any(word in step.node.op for word in NORMS)
        return step.function, step.axes, None if named else step.out

    @_kept.register
    def _(self, step: Affine) -> Hashable:
        return step.epsilon

    @_kept.register
    def _(self, step: Unknown) -> Hashable:
        return step.missing

    def _signature(self, node: Node) -> Hashable:
        """The operator, its attributes, and the constants that it reads."""
        model = self.program.model
        read = [_digest(np.asarray(model.constants[name])) for name in node.inputs if name in model.constants]
        read += [
            _digest(tensor.read()) if tensor.size <= SMALL else name
            for name in node.inputs
            if (tensor := model.tensors.get(name)) is not None and name not in self.program.weights
        ]
        attributes = tuple((key, _attribute(value)) for key, value in sorted(node.attributes.items()))
        return node.op, node.opset, attributes, tuple(read)

    def _factor(self, root: int) -> list[int]:
        """The vertex of a factor, and the factors under it that have none yet."""
        factors, vertex = self.factors, ("factor", root)
        form = factors.form(root)
        if vertex in self.colours:
            return []
        arranged = tuple(map(bytes, factors.places(root))) if form is Form.ARRANGED else ()
        self.colours[vertex] = ("factor", form, factors.size(root), arranged)
        parts = factors.pieces(root) if form is Form.SUM else factors.parts(root)
        if form is not Form.FAMILY:
            named = form is Form.PRODUCT or not self.free(root)
            self.edges += [(vertex, ("factor", p), f"part {k}" if named else "part") for k, p in enumerate(parts)]
            return list(parts)
        index = factors.index(root)
        self.edges.append((vertex, ("factor", index), "depends"))
        for k, (part, (start, stop)) in enumerate(zip(parts, pairwise(factors.cuts(root)), strict=True)):
            member = ("member", f"{root} {k}")
            self.colours[member] = ("member", stop - start)
            self.edges += [(member, vertex, "of"), (member, ("factor", part), "is")]
            self.edges += [(member, ("factor", p), "where") for p in self._between(index, start, stop)]
        return [index, *parts]

    def _between(self, index: int, start: int, stop: int) -> Iterator[int]:
        """The pieces of a sum that lie between two of its indices."""
        passed = 0
        for piece in self.factors.pieces(index):
            if start <= passed < stop:
                yield piece
            passed += self.factors.size(piece)


def _digest(values: Array) -> str:
    return hashlib.sha256(repr((values.shape, values.dtype.str)).encode() + values.tobytes()).hexdigest()


def _attribute(value: object) -> Hashable:
    if isinstance(value, Graph):
        return id(value)
    return _digest(value) if isinstance(value, np.ndarray) else repr(value)
