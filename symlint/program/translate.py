"""From a model to its program: every node is lowered by its operator rule, or becomes unknown with a reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, replace
from functools import partial

import numpy as np

from symlint.model.errors import raised
from symlint.model.graph import Graph, Model, Node, Shape
from symlint.model.operators import known
from symlint.model.records import dataclass
from symlint.program.lower import Ref, Tracer, Unsupported
from symlint.program.parameters import buffers, mask, settles
from symlint.program.registry import call
from symlint.program.rewriting.caches import without_caches
from symlint.program.rewriting.recognise import recognise
from symlint.program.steps import Loop, Program, Step

# Pruning: a program without what nothing reads.


def pruned(program: Program) -> Program:
    """The program less its dead steps and tables; a step that reads a weight stays, so that it is accounted for."""
    reads = program.reads.copy()
    reads.update(program.outputs)
    kept, gone = list[Step](), set[str]()
    for step in reversed(program.steps):
        made = step.results
        if made and not any(reads[name] for name in made) and program.weights.keys().isdisjoint(step.operands):
            reads.subtract(step.operands)
            gone.update(made)
        else:
            kept.append(step)
    gone.update(name for name in program.tables if not reads[name])
    return replace(
        program,
        steps=tuple(reversed(kept)),
        shapes={name: shape for name, shape in program.shapes.items() if name not in gone},
        tables={name: value for name, value in program.tables.items() if name not in gone},
    )


def translate(model: Model) -> Program:
    """The program of `model`; never fails: what no rule describes is an `Unknown` step."""
    whole = lower(model)
    return replace(recognise(without_caches(pruned(whole.program))), whole=whole)


@dataclass(frozen=True, slots=True)
class Lowering:
    """A program with every step, and which of its tensors the values of the model are."""

    program: Program
    values: Mapping[str, Ref]
    """Value of the model -> the tensor that it is; constants are told by their uses."""
    uses: Mapping[tuple[str, int], Ref]
    """First named output of a node and position of an operand -> the tensor that is read there."""
    lengths: dict[str, float | None] = field(default_factory=dict, repr=False, compare=False)
    """Output of a written-out normalisation -> the length that it does not exceed, once that was asked for."""


def lowered(program: Program) -> Lowering:
    """What a program was made from."""
    return program.whole or lower(program.model)


def lower(model: Model) -> Lowering:
    """The program of `model` before anything is left out or put otherwise."""
    translation = _Translation(model)
    program = translation.program()
    return Lowering(program, translation.env, translation.uses)


class _Translation:
    def __init__(self, model: Model) -> None:
        self.model = model
        self.env: dict[str, Ref] = {}
        self.uses: dict[tuple[str, int], Ref] = {}
        self.steps: list[Step] = []
        self.makers: dict[str, Step] = {}
        self.shapes: dict[str, Shape] = {}
        self.weights: dict[str, str] = {}
        self.tables: dict[str, np.ndarray] = {}
        self.detached: dict[str, str] = {}
        self.buffers = buffers(model)
        self.tag = ""
        self.passes = 0
        uses = Counter(name for node in model.graph.nodes for name in reads(node))
        self.shared = {name for name in model.tensors if uses[name] > 1 and self._uniform(name)}

    def program(self) -> Program:
        for name in self.model.graph.inputs:
            if name in self.model.shapes:
                self._define(name, Ref(name, self.model.shapes[name]))
        self._nodes(self.model.graph)
        read = set(self.weights.values())
        stray = tuple(name for name in self.model.tensors if name not in read)
        outputs = [self.env[name] for name in self.model.graph.outputs if name in self.env]
        return Program(
            self.model,
            tuple(self.steps),
            self.shapes,
            tuple(n for n in self.model.graph.inputs if n in self.env),
            # Of a sequence, its elements leave.
            tuple(y.name for x in outputs for y in (x.items if x.items is not None else (x,))),
            self.weights,
            self.tables,
            self.detached,
            stray,
            loops=tuple(self._loops()),
        )

    def _loops(self) -> Iterator[Loop]:
        """The states whose loop is closed, and whose values nobody outside sees under another name."""
        outer = [n for n in self.model.graph.outputs if n not in {s.output for s in self.model.states if s.closed}]
        seen = {y.name for n in outer if (x := self.env.get(n)) is not None for y in (x.items or (x,))}
        for state in self.model.states:
            one, other = self.env.get(state.input), self.env.get(state.output)
            if not state.closed or one is None or other is None or other.items is not None:
                continue
            if seen.isdisjoint((one.name, other.name)):
                yield Loop(one.name, other.name, state.axes)

    def _nodes(self, graph: Graph) -> None:
        for node in graph.nodes:
            if not all(name in self.model.constants for name in node.outputs if name):
                self._node(node)

    def _body(self, tracer: Tracer, graph: Graph, inputs: Mapping[str, Ref]) -> tuple[Ref, ...]:
        """Lower a body inside of the node of `tracer`, what that has made so far coming first."""
        self._commit(tracer)
        tracer.steps.clear()
        self.env.update(inputs)
        self.passes += 1
        tag, self.tag = self.tag, f"@{self.passes}"
        self._nodes(graph)
        self.tag = tag
        made = tuple(self._operand(tracer, name) for name in graph.outputs)
        return tuple(ref for ref in made if ref is not None)

    def _uniform(self, name: str) -> bool:
        """Whether a stored tensor has one value throughout, so that permutations of its uses need not agree."""
        tensor = self.model.tensors[name]
        if not tensor.floating or not 1 < tensor.size <= 1 << 20:
            return False
        values = tensor.read().reshape(-1)
        return bool(np.all(values == values[0]))

    def _define(self, name: str, ref: Ref) -> Ref:
        self.env[name] = ref
        self.shapes[ref.name] = ref.shape
        return ref

    def _operand(self, tracer: Tracer, name: str) -> Ref | None:
        if name in self.env:
            return self.env[name]
        if name in self.model.constants:
            return tracer.constant(self.model.constants[name], fixed=name not in self.model.moving)
        tensor = self.model.tensors.get(name)
        if tensor is None:
            raise Unsupported(f"the shape of its operand {name!r} is unknown")
        if tensor.dtype == "string":
            raise Unsupported("it reads text", opaque=False)
        if name in self.buffers or mask(self.model, tensor) or settles(tracer.node, name, tensor):
            return tracer.constant(tensor.read())
        if name in self.shared:
            alias = f"{name}#{len(self.detached)}"
            self.detached[alias] = name
        else:
            alias = name
        self.weights[alias] = name
        self.shapes[alias] = tensor.shape
        ref = Ref(alias, tensor.shape)
        return ref if name in self.shared else self._define(name, ref)

    def _note(self, node: Node, inputs: Sequence[Ref | None]) -> None:
        """Remember what a node reads; of a body that is walked several times, the first time counts."""
        for k, ref in enumerate(inputs):
            if ref is not None and node.first:
                self.uses.setdefault((node.first, k), ref)

    def _node(self, node: Node) -> None:
        results = [self.model.shapes.get(name) for name in node.outputs]
        tracer = Tracer(node, results, self.tag)
        tracer.makers = self.makers
        tracer.body = partial(self._body, tracer)
        operator = known(node.op)
        made: tuple[Ref | None, ...]
        try:
            if operator.rule is None:
                raise Unsupported(f"no rule for operator {node.op}")
            inputs = tuple(self._operand(tracer, name) if name else None for name in node.inputs)
            empty = any(ref is not None and ref.rank > 1 and 0 in ref.shape for ref in inputs)
            if empty and node.op != "Concat":
                raise Unsupported("an operand has no elements")
            made = call(operator, tracer, node, inputs)
            for ref, shape in zip(made, results, strict=False):
                if ref is not None and shape is not None and ref.shape != shape:
                    raise Unsupported(f"its rule makes {list(ref.shape)} where {list(shape)} is inferred")
        except MemoryError:
            raise
        except Exception as problem:
            # An operand may be absent, or an attribute of another type, where a rule takes them for granted; and a
            # package's own rule may fail in any way.
            made = self._unknown(node, problem, operator.rule)
        else:
            self._commit(tracer)
            self._note(node, inputs)
        for name, ref in zip(node.outputs, made, strict=False):
            if name and ref is not None:
                self.env[name] = ref

    def _unknown(self, node: Node, problem: Exception, rule: object) -> tuple[Ref | None, ...]:
        self.passes += 1
        tracer = Tracer(node, [self.model.shapes.get(name) for name in node.outputs], f"{self.tag}?{self.passes}")
        known: dict[str, Ref] = {}
        missing: list[str] = []
        for name in dict.fromkeys(reads(node)):
            try:
                ref = self._operand(tracer, name)
            except Unsupported:
                missing.append(name)
                continue
            if ref is not None:
                known[name] = ref
        expected = isinstance(problem, Unsupported)
        opaque = problem.opaque if isinstance(problem, Unsupported) else True
        reason = str(problem) if expected else f"its rule raised {raised(problem, rule)}"
        shapes = [shape for shape in tracer.results if shape is not None]
        refs = iter(tracer.unknown(list(known.values()), shapes, reason, opaque=opaque, missing=missing))
        self._commit(tracer)
        # What the rule has read is forgotten with its steps.
        self._note(node, [known.get(name) for name in node.inputs])
        return tuple(next(refs) if shape is not None else None for shape in tracer.results)

    def _commit(self, tracer: Tracer) -> None:
        self.steps.extend(tracer.steps)
        self.makers |= {name: step for step in tracer.steps for name in step.results}
        self.shapes.update(tracer.shapes)
        self.tables.update(tracer.tables)


def reads(node: Node) -> Iterator[str]:
    """Every name that a node reads, bodies of control flow included."""
    yield from (name for name in node.inputs if name)
    for body in node.bodies:
        for inner in body.nodes:
            yield from reads(inner)
