"""From a model to its program: every node is lowered by its operator rule, or becomes unknown with a reason.

Which stored tensors are parameters: weight elements that could have been learned.

Caches that grow from nothing: what they hold is what was put into them, at this step or an earlier one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, replace
from functools import partial

import numpy as np

from symlint.model.errors import raised
from symlint.model.graph import Graph, Model, Node, Shape, Tensor
from symlint.model.operators import known
from symlint.model.records import dataclass
from symlint.model.states import grows
from symlint.program.functions import MixKind, function
from symlint.program.lower import Ref, Tracer, Unsupported, call
from symlint.program.recognise import recognise
from symlint.program.steps import SUM, Concat, Loop, Mix, Program, Step, rearranges


def parameters(program: Program) -> dict[str, int]:
    """Stored tensor -> number of weight elements, scales and zero points of quantisers left out.

    Running statistics, masks, scalars, what decides shapes or functions, what results are scattered into and
    numbers that an exporter writes between stored weights are no parameters, nor is what no node reads.
    """
    model = program.model
    nodes, filled = list(model.graph.walk()), buffers(model)
    read = {name for node in nodes if not known(node.op).measures for name in node.inputs}
    read |= set(model.graph.outputs)
    moved = {out: node.inputs[0] for node in nodes if known(node.op).layout and node.inputs for out in node.outputs}
    statistics = {program.weights.get(n) for n in program.statistics}
    statistics |= {n for node in nodes for k in known(node.op).statistics for n in node.inputs[k : k + 1]}
    quantised = {
        name: (node, k)
        for node in nodes
        if (how := known(node.op).quantised) is not None
        for k in how.weights
        if k < len(node.inputs) and (name := _source(node.inputs[k], moved)) in model.tensors
    }
    scales = {name for node in nodes for name in _quantiser(node)}
    scales |= _told(model, nodes) | _fillings(model, nodes)
    found: dict[str, int] = {}
    for name, tensor in model.tensors.items():
        learned = tensor.floating and name not in statistics | scales | filled and not mask(model, tensor)
        if name in read and tensor.shape and (learned or name in quantised):
            found[name] = _elements(model, tensor, *quantised[name]) if name in quantised else tensor.size
    return found


def _fillings(model: Model, nodes: Sequence[Node]) -> set[str]:
    """What an exporter writes between weights that are stored elsewhere: Constant nodes of one number throughout.

    Gains and biases of a normalisation are such whatever their numbers: a change of scale makes any of ones.
    """
    if not any(t.floating and t.size > 1 for name, t in model.tensors.items() if name not in model.literals):
        return set()
    gains = {name for node in nodes if node.op.endswith("Normalization") for name in node.inputs[1:3]}
    return {name for name in model.literals if name in gains or _uniform(model.tensors[name])}


def _told(model: Model, nodes: Sequence[Node]) -> set[str]:
    """The stored tensors that are read for nothing but to decide shapes and functions."""
    reads = [(n, n in model.tensors and settles(node, n, model.tensors[n])) for node in nodes for n in node.inputs]
    return {name for name, told in reads if told} - {name for name, told in reads if not told}


def _source(name: str, moved: Mapping[str, str]) -> str:
    """The tensor of which a value is a row, a part or another layout."""
    while name in moved:
        name = moved[name]
    return name


def _elements(model: Model, tensor: Tensor, node: Node, k: int) -> int:
    """Number of weights in input `k`, where several may share a byte."""
    how, attributes = known(node.op).quantised, node.attributes
    assert how is not None
    at = how.weights.index(k)
    if how.rows and {how.rows[at], "K"} <= set(attributes):
        return int(attributes[how.rows[at]]) * int(attributes["K"])
    if how.shape:
        shape = model.tensors.get(node.inputs[how.shape])
        return int(shape.read().prod()) if shape is not None else tensor.size
    if how.bits and tensor.dtype == "uint8":
        bits = attributes.get(how.bits[at % len(how.bits)]) or attributes.get("expert_weight_bits", 4)
        return tensor.size * 8 // int(bits)
    return tensor.size


def _quantiser(node: Node) -> tuple[str, ...]:
    """Scales and zero points that a node reads."""
    if (how := known(node.op).quantised) is not None:
        return tuple(node.inputs[k] for k in how.levels if k < len(node.inputs))
    return node.inputs if node.op.startswith(("QLinear", "com.microsoft.QLinear")) else ()


FAR = -1000.0
"""A score that a softmax does not see beside others."""
LOWEST = {"float16": -65504.0, "bfloat16": -3.38e38, "float32": -3.40e38, "float64": -1.79e308}
"""The number types of masks, and their lowest numbers."""
LARGE = 1 << 14
"""Elements from which on a digest, which others read too, is cheaper than another reading."""


def mask(model: Model, tensor: Tensor) -> bool:
    """Whether a floating tensor is a mask: it holds the lowest number of its type, or 0 and one number far below."""
    if not 1 < tensor.size <= 1 << 24 or tensor.dtype not in LOWEST:
        return False
    if tensor.size > LARGE and model.digests.of(tensor).most < -FAR:
        return False
    values = tensor.read().reshape(-1)
    least = float(values[:: max(1, values.size // 4096)].min())
    return least <= LOWEST[tensor.dtype] / 4 or (least <= FAR and bool(((values == 0) | (values == least)).all()))


FEW = 16
"""Elements of a stored operand that may decide a shape or a function."""


def settles(node: Node, name: str, tensor: Tensor) -> bool:
    """Whether a small floating operand decides a shape or a function, so that its value is needed."""
    told = known(node.op).told and name != node.inputs[0]
    return told and tensor.size <= FEW and tensor.floating


def buffers(model: Model) -> frozenset[str]:
    """The stored tensors of one number throughout that are read for nothing but to scatter results into them.

    Zeros to which the first of such results is added are no more than that.
    """
    nodes = list(model.graph.walk())
    made = {out for node in nodes if known(node.op).scatters for out in node.outputs}
    other, scattered, summed = set(model.graph.outputs), set[str](), set[str]()
    for node in nodes:
        for k, name in enumerate(node.inputs):
            started = function(node.op).sums and len(node.inputs) == 2 and node.inputs[1 - k] in made
            (scattered if known(node.op).scatters and not k else summed if started else other).add(name)
    found = {name: model.tensors[name] for name in (scattered | summed) - other if name in model.tensors}
    return frozenset(n for n, t in found.items() if _uniform(t) and (n not in summed or not t.read().flat[0]))


def _uniform(tensor: Tensor) -> bool:
    if not tensor.floating or not 0 < tensor.size <= 1 << 24:
        return False
    values = tensor.read().reshape(-1)
    return bool((values == values[0]).all())


def without_caches(program: Program) -> Program:
    """The program in which a growing cache is a map, along time, of what is new at each step.

    What nobody has put there is not in it: what is true of the new at every step is true of the cache.
    """
    found = {loop: place for loop in program.loops if (place := _place(program, loop)) is not None}
    if not found:
        return program
    steps = list(program.steps)
    for k, new, axis in found.values():
        step = steps[k]
        assert isinstance(step, Concat)
        keep = tuple(None if a == axis else a for a in range(len(program.shapes[step.out])))
        steps[k] = Mix(step.out, new, keep, SUM, MixKind.ALL_SO_FAR, steady=False, linear=True, node=step.node)
    loops = tuple(replace(loop, flows=loop in found) for loop in program.loops)
    return replace(program, steps=tuple(steps), loops=loops)


def _place(program: Program, loop: Loop) -> tuple[int, str, int] | None:
    """Where a growing cache is put together: the step, what is new there, and along which axis."""
    if not grows(loop.axes, program.shapes[loop.input]):
        return None
    (end,) = list(_back(program, loop.output))[-1:]
    step = program.producers.get(end)
    if not isinstance(step, Concat) or len(step.operands) != 2:
        return None
    for new, old in (step.operands, step.operands[::-1]):
        way = list(_back(program, old))
        if way[-1] == loop.input and all(program.reads[name] == 1 for name in way):
            return program.places[step.out], new, step.axis
    return None


def _back(program: Program, name: str) -> Iterator[str]:
    """A tensor and what it is only another layout of, backwards."""
    yield name
    while _moves(step := program.producers.get(name)):
        assert step is not None
        (name,) = step.operands
        yield name


def _moves(step: Step | None) -> bool:
    """Whether a step is its operand, in another layout."""
    if step is None or len(step.operands) != 1:
        return False
    if not rearranges(step):
        return step.function == "Identity" or isinstance(step, Concat)
    return {x for axis in step.specs[0] for x in axis} == {x for axis in step.result for x in axis}


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
