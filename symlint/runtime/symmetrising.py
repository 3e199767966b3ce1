"""A network made symmetric, as one network: its average over a group, or itself behind a frame; with a proof.

The average over g of g^-1 f(g x) goes along with the whole group, whatever f does (Yarotsky, Universal approximations
of invariant maps by neural networks, 2018, Section 2; Puny et al., Frame Averaging, 2022, with the group as its frame).

Of a group of permutations, shifts or signs there is no need to run the network for all elements: places are put in the
order of a key of their numbers, or shifted until the largest key is the first, or the sign is chosen that makes a sum
positive. What comes out goes along with the group, at the cost of one run; it is not continuous where keys are equal.

Source: Puny et al., Frame Averaging for Invariant and Equivariant Network Design (ICLR 2022), with a frame of one
element; Kaba et al., Equivariance with Learned Canonicalization Functions (ICML 2023).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from symlint.model.errors import UsageProblem
from symlint.model.graph import Array, Model
from symlint.model.records import dataclass
from symlint.model.saving import rewrite, save
from symlint.runtime.groups import (
    Element,
    Generator,
    Place,
    Places,
    Transformation,
    permuted,
    taken_back,
    transformed,
)
from symlint.runtime.probe import Asking, Trial, difference, noise
from symlint.runtime.proof import CAP, FLOOR, MULTIPLE, Proof
from symlint.runtime.runner import Run, Runner

_DOMAIN, _NAME = "symlint", "Original"
_SLICES = 10
"""The version of ONNX from which on Slice takes steps."""


def averaged(model: Model, elements: Sequence[Element]) -> ir.Model:
    """The network that averages a model over a group.

    Raises UsageProblem for outputs that have no average.
    """
    return _Averaging(model, elements).written(f"over {len(elements)} transformations of the inputs")


class Surrounded(ABC):
    """A graph around calls of the original, which is a function until it is written out."""

    def __init__(self, model: Model) -> None:
        self.model = rewrite(model.path, {})
        self.old = self.model.graph
        self.old.sort()
        self.opset = self.old.opset_imports.get("", 1)
        self.nodes: list[ir.Node] = []
        self.weights: list[ir.Value] = []
        self.shown: list[ir.Value] = []
        """Outputs beside those of the original."""

    @abstractmethod
    def made(self, inputs: Mapping[str, ir.Value], weights: Sequence[ir.Value]) -> list[ir.Value]:
        """The outputs of the graph, made of inputs and weights."""

    def written(self, told: str) -> ir.Model:
        """The whole as one graph; what it is stands in its metadata."""
        old = self.old
        stored = list(old.initializers.values())
        inputs = [x for x in old.inputs if x not in stored]
        outer = {x.name or "": _like(x) for x in inputs}
        weights = [_like(x) for x in stored]
        results = self.made(outer, weights)
        for result, before in zip(results, old.outputs, strict=True):
            result.name, before.name = before.name, f"{before.name}/symlint"
        self._set_apart([*inputs, *stored])
        imports = {**old.opset_imports, _DOMAIN: 1}
        self.model.graph = ir.Graph(
            list(outer.values()),
            [*results, *self.shown],
            nodes=self.nodes,
            initializers=[*weights, *self.weights],
            opset_imports=imports,
            name=old.name,
        )
        self.model.metadata_props["symlint.average"] = told
        InlinePass(criteria=lambda function: function.domain == _DOMAIN)(self.model)
        return self.model

    def _set_apart(self, inputs: Sequence[ir.Value]) -> None:
        """Make the nodes of the model a function."""
        old = self.old
        nodes, outputs = list(old), list(old.outputs)
        old.inputs.clear()
        old.outputs.clear()
        for name in list(old.initializers):
            old.initializers.pop(name)
        old.remove(nodes)
        for value in inputs:
            value.const_value = None
        body = ir.Graph(inputs, outputs, nodes=nodes, opset_imports=dict(old.opset_imports))
        function = ir.Function(_DOMAIN, _NAME, graph=body, attributes=[])
        self.model.functions[function.identifier()] = function

    def called(self, inputs: Mapping[str, ir.Value], weights: Sequence[ir.Value]) -> list[ir.Value]:
        """The outputs of the original."""
        node = ir.Node(_DOMAIN, _NAME, [*inputs.values(), *weights], num_outputs=len(self.old.outputs))
        self.nodes.append(node)
        for made, like in zip(node.outputs, self.old.outputs, strict=True):
            made.shape, made.type = like.shape, like.type
        return list(node.outputs)

    def stored(self, values: Array) -> ir.Value:
        """A constant."""
        name = f"symlint.{len(self.weights)}"
        value = ir.Value(name=name, const_value=ir.Tensor(values, name=name))
        value.shape, value.dtype = ir.Shape(values.shape), ir.DataType.from_numpy(values.dtype)
        self.weights.append(value)
        return value

    def node(
        self,
        op: str,
        inputs: Sequence[ir.Value],
        attributes: Sequence[ir.Attr] = (),
        *,
        like: ir.Value | None = None,
        outputs: int = 1,
    ) -> ir.Value:
        """The last output of a new node."""
        node = ir.Node("", op, inputs, attributes, num_outputs=outputs)
        self.nodes.append(node)
        if like is not None:
            node.outputs[-1].shape, node.outputs[-1].type = like.shape, like.type
        return node.outputs[-1]


class _Averaging(Surrounded):
    def __init__(self, model: Model, elements: Sequence[Element]) -> None:
        super().__init__(model)
        self.elements = elements
        for output in self.old.outputs:
            if output.dtype is None or not output.dtype.is_floating_point():
                kind = "of no known type" if output.dtype is None else f"of type {output.dtype.name.lower()}"
                raise UsageProblem(f"output {output.name!r} is {kind} and has no average: only floating numbers have")

    def made(self, inputs: Mapping[str, ir.Value], weights: Sequence[ir.Value]) -> list[ir.Value]:
        """The averages."""
        calls = [self._call(inputs, weights, element) for element in self.elements]
        return [self._average(k, [call[k] for call in calls]) for k in range(len(self.old.outputs))]

    def _call(self, inputs: Mapping[str, ir.Value], weights: Sequence[ir.Value], element: Element) -> list[ir.Value]:
        """The outputs of the original for moved inputs, moved back."""
        moved = dict(inputs)
        for move in element:
            for place in move.generator.moved:
                moved[place.tensor] = self._moved(moved[place.tensor], place, move.element)
        outputs = []
        for k, made in enumerate(self.called(moved, weights)):
            back = made
            for move in reversed(element):
                for place in move.generator.answers[k]:
                    back = self._moved(back, place, move.element.inverse)
            outputs.append(back)
        return outputs

    def _average(self, k: int, values: Sequence[ir.Value]) -> ir.Value:
        old = self.old.outputs[k]
        assert old.dtype is not None
        total = self.node("Sum", values, like=old)
        share = self.stored(np.asarray(1 / len(values), old.dtype.numpy()))
        return self.node("Mul", [total, share], like=old)

    def _moved(self, x: ir.Value, place: Place, element: Transformation) -> ir.Value:
        if element.name == "sign":
            return self.node("Neg", [x], like=x)
        if element.name != "turn":
            return self._ordered(x, place.axes[0], element)
        a, b = place.axes
        flip = Transformation("flip")
        if element.step == 2:
            return self._ordered(self._ordered(x, a, flip), b, flip)
        order = list(range(len(x.shape or ())))
        order[a], order[b] = b, a
        before = self._ordered(x, b, flip) if element.step == 1 else x
        turned = self.node("Transpose", [before], [ir.AttrInt64s("perm", order)], like=x)
        return turned if element.step == 1 else self._ordered(turned, b, flip)

    def _ordered(self, x: ir.Value, axis: int, element: Transformation) -> ir.Value:
        """A value with the places of one axis in another order."""
        size = x.shape[axis] if x.shape is not None else None
        if isinstance(size, int):
            order = element.along(size)
            assert order is not None
            indices = self.stored(np.ascontiguousarray(order, np.int64))
            return self.node("Gather", [x, indices], [ir.AttrInt64("axis", axis)], like=x)
        if element.name != "flip" or self.opset < _SLICES:
            raise UsageProblem(f"axis {axis} of {x.name!r} has no fixed size, so it cannot be moved in this graph")
        bounds = ([-1], [np.iinfo(np.int64).min], [axis], [-1])
        return self.node("Slice", [x, *(self.stored(np.array(n, np.int64)) for n in bounds)], like=x)


def _like(value: ir.Value) -> ir.Value:
    """A value of the same name, type and number."""
    made = ir.Value(name=value.name, shape=value.shape, type=value.type, const_value=value.const_value)
    value.name = f"{value.name}/symlint"
    return made


@dataclass(frozen=True, slots=True)
class _Loop:
    """What a loop over a group makes of inputs, and the largest number that it adds up, output by output."""

    outputs: tuple[Array, ...]
    scales: tuple[float, ...]


def prove(model: Model, file: Path, elements: Sequence[Element], seed: int = 0) -> Proof:
    """Compare a file with a loop of the model over a group, on random inputs.

    The difference of each output is relative to the largest number that is averaged.
    """
    path = Path(model.path)
    with Runner() as runner:
        original, made = runner.load(path), runner.load(file)
        asking = Asking(model, lambda exposed: None if exposed else path, seed)
        question = next(asking.questions(), None)
        if original.failure is not None or question is None:
            return Proof("not runnable", reason=original.failure or asking.failure)
        if made.failure is not None:
            return Proof("refuted", reason=f"the new file: {made.failure}")
        plain = [Trial(x, runner.run(original, x), Run(failure="not run"), 0.0) for x in question.feeds[:2]]
        rough, apart = max(noise(runner, model, path, plain, seed), default=0.0), 0.0
        for trial in plain:
            answer = runner.run(made, trial.feeds)
            terms = [runner.run(original, transformed(dict(trial.feeds), element)) for element in elements]
            failure = answer.failure or next((term.failure for term in terms if term.failure), None)
            if failure is not None:
                return Proof("refuted", reason=failure)
            loop = _looped([term.outputs for term in terms], elements)
            apart = max(apart, *(_gap(*each) for each in zip(answer.outputs, loop.outputs, loop.scales, strict=True)))
    held = apart <= max(FLOOR["float32"], min(MULTIPLE * rough, CAP))
    reason = "" if held else f"an output differs from a loop over the original by {apart:.1e}"
    return Proof("held" if held else "refuted", apart, rough, len(plain), reason)


def _looped(terms: Sequence[Sequence[Array]], elements: Sequence[Element]) -> _Loop:
    outputs, scales = [], []
    for k in range(len(terms[0])):
        back = [taken_back(term[k], k, element) for term, element in zip(terms, elements, strict=True)]
        outputs.append(np.mean([x.astype(np.float64) for x in back], axis=0))
        scales.append(max((float(np.abs(x).max(initial=0.0)) for x in back), default=0.0))
    return _Loop(tuple(outputs), tuple(scales))


def _gap(answer: Array, expected: Array, scale: float) -> float:
    if answer.shape != expected.shape:
        return float("inf")
    gap = float(np.abs(answer.astype(np.float64) - expected).max(initial=0.0))
    return gap / scale if scale else gap


_ELEMENTS, _AXES = 11, 13
"""Versions of ONNX from which on there is GatherElements, and ReduceSum takes its axes as an input."""
SHOWN = "symlint.frame"
"""The output that shows the frame."""


def framed(model: Model, generators: Sequence[Generator], *, shown: bool = False) -> ir.Model:
    """The network behind a frame of the group that one generator makes; the frame is another output where it is shown.

    Raises UsageProblem for several generators, for flips and turns, which are few, and for what has no fixed size.
    """
    if len(generators) != 1:
        raise UsageProblem("a frame is of one --group: symmetrise what this one has made for the next")
    (generator,) = generators
    if generator.name in ("flip", "turn"):
        raise UsageProblem(f"a {generator.name} has few elements and no frame: leave --frame out")
    moved = [*generator.moved, *(p for answer in generator.answers for p in answer)]
    for size in {model.shapes[p.tensor][p.axes[0]] for p in moved if p.axes}:
        if size != generator.size or size in model.symbols.values():
            raise UsageProblem(f"a frame needs axes of one fixed size, and has {size}")
    return _Framing(model, generator, shown=shown).written(f"a frame of {generator.name}")


class _Framing(Surrounded):
    def __init__(self, model: Model, generator: Generator, *, shown: bool) -> None:
        super().__init__(model)
        if self.opset < _ELEMENTS:
            raise UsageProblem(f"{model.path} is of opset {self.opset}, and a frame needs {_ELEMENTS}")
        self.generator, self.shows = generator, shown
        self.apart = apart(model, generator)

    def made(self, inputs: Mapping[str, ir.Value], weights: Sequence[ir.Value]) -> list[ir.Value]:
        """The outputs of the original behind the frame."""
        first, moved = self.generator.moved[0], dict(inputs)
        there, back = self._frame(inputs[first.tensor], first)
        for place in self.generator.moved:
            moved[place.tensor] = self._placed(moved[place.tensor], place, there)
        outputs = self.called(moved, weights)
        for k, places in enumerate(self.generator.answers):
            for place in places:
                outputs[k] = self._placed(outputs[k], place, back)
        if self.shows:
            kind = inputs[first.tensor].dtype if self._signs else ir.DataType.INT64
            assert kind is not None
            there.name, there.dtype = SHOWN, kind
            self.shown.append(there)
        return outputs

    @property
    def _signs(self) -> bool:
        return self.generator.name == "sign"

    def _frame(self, x: ir.Value, place: Place) -> tuple[ir.Value, ir.Value]:
        """What brings places to where they are wanted, and back: indices, of each example where they are apart."""
        assert x.dtype is not None
        key, kind = self._key(x, place), x.dtype.numpy()
        if self._signs:
            ends = [self.stored(np.full((), n, kind)) for n in (-1, 1)]
            chosen = self.node("Where", [self.node("Less", [key, self.stored(np.zeros((), kind))]), *ends])
            return chosen, chosen
        n = self.stored(np.array([self.generator.size], np.int64))
        if self.generator.name == "shift":
            first = self.node("ArgMax", [key], [ir.AttrInt64("axis", -1), ir.AttrInt64("keepdims", 1)])
            steps = self.stored(np.arange(self.generator.size, dtype=np.int64))
            behind = self.node("Add", [self.node("Sub", [steps, first]), n])
            return self.node("Mod", [self.node("Add", [steps, first]), n]), self.node("Mod", [behind, n])
        least = [ir.AttrInt64("axis", -1), ir.AttrInt64("largest", 0)]
        order = self.node("TopK", [key, n], least, outputs=2)
        return order, self.node("TopK", [order, n], least, outputs=2)

    def _key(self, x: ir.Value, place: Place) -> ir.Value:
        """A sum over the numbers of each place, or of all, with random weights where nothing moves."""
        shape, kept = list(x.shape or ()), [*([0] if self.apart else []), *place.axes]
        moved = {a for p in self.generator.moved if p.tensor == place.tensor for a in p.axes}
        sizes = [n if isinstance(n, int) and k not in {*kept, *moved} else 1 for k, n in enumerate(shape)]
        assert x.dtype is not None
        weights = np.random.default_rng(0).uniform(0.5, 1.5, sizes).astype(x.dtype.numpy())
        weighted = self.node("Mul", [x, self.stored(weights)])
        axes = [k for k in range(len(shape)) if k not in kept]
        if not axes:
            return weighted
        keep = ir.AttrInt64("keepdims", 0)
        if self.opset < _AXES:
            return self.node("ReduceSum", [weighted], [ir.AttrInt64s("axes", axes), keep])
        return self.node("ReduceSum", [weighted, self.stored(np.array(axes, np.int64))], [keep])

    def _placed(self, x: ir.Value, place: Place, frame: ir.Value) -> ir.Value:
        if self.apart:
            spread = [1] * len(x.shape or ())
            spread[0] = -1
            if place.axes:
                spread[place.axes[0]] = self.generator.size
            frame = self.node("Reshape", [frame, self.stored(np.array(spread, np.int64))])
        if self._signs:
            return self.node("Mul", [x, frame], like=x)
        axis = [ir.AttrInt64("axis", place.axes[0])]
        if not self.apart:
            return self.node("Gather", [x, frame], axis, like=x)
        whole = self.node("Expand", [frame, self.node("Shape", [x])])
        return self.node("GatherElements", [x, whole], axis, like=x)


def apart(model: Model, generator: Generator) -> bool:
    """Whether all that moves is a batch of examples, each of which has a frame of its own."""
    moved = [*generator.moved, *(p for answer in generator.answers for p in answer)]
    first = [model.shapes[p.tensor][0] if model.shapes[p.tensor] else 0 for p in moved]
    free = set(model.symbols.values())
    return all(0 not in p.axes for p in moved) and len(set(first)) == 1 and first[0] in free


def proven(model: Model, file: Path, generators: Sequence[Generator], seed: int = 0) -> Proof:
    """Compare a framed file with the model, run where the frame leads, and with itself on inputs that are moved."""
    (generator,) = generators
    showing = file.with_name("shown.onnx")
    save(framed(model, generators, shown=True), showing)
    path, rng = Path(model.path), np.random.default_rng(seed)
    with Runner() as runner:
        original, made, shown = (runner.load(one) for one in (path, file, showing))
        asking = Asking(model, lambda exposed: None if exposed else path, seed)
        question = next(asking.questions(), None)
        if original.failure is not None or question is None:
            return Proof("not runnable", reason=original.failure or asking.failure)
        failure = made.failure or shown.failure
        if failure is not None:
            return Proof("refuted", reason=f"the new file: {failure}")
        plain = [Trial(x, runner.run(original, x), Run(failure="not run"), 0.0) for x in question.feeds[:2]]
        rough, gap = max(noise(runner, model, path, plain, seed), default=0.0), 0.0
        for trial in plain:
            element = _drawn(generator, rng)
            answer, told = runner.run(made, trial.feeds), runner.run(shown, trial.feeds)
            moved = runner.run(made, element.applied(trial.feeds, generator.moved))
            failure = answer.failure or told.failure or moved.failure
            led = {} if failure else _led(dict(trial.feeds), generator.moved, told.outputs[-1])
            there = runner.run(original, led) if not failure else answer
            if failure is not None or there.failure is not None:
                return Proof("refuted", reason=failure or there.failure or "")
            back = _back(told.outputs[-1], generator)
            for k, (one, other) in enumerate(zip(answer.outputs, there.outputs, strict=True)):
                name = model.graph.outputs[k]
                expected = _led({name: other}, generator.answers[k], back)[name]
                goal = element.applied({name: one}, generator.answers[k])[name]
                gap = max(gap, difference(expected, one), difference(goal, moved.outputs[k]))
    held = gap <= max(FLOOR["float32"], min(MULTIPLE * rough, CAP))
    reason = "" if held else f"an output differs from the original run behind the frame by {gap:.1e}"
    return Proof("held" if held else "refuted", gap, rough, len(plain), reason)


def _drawn(generator: Generator, rng: np.random.Generator) -> Transformation:
    """An element that leaves no place where it is."""
    step = int(rng.integers(1, generator.size)) if generator.name == "shift" else 1
    order = permuted(generator.size, rng) if generator.name == "permutation" else ()
    return Transformation(generator.name, generator.size, step, order)


def _led(arrays: dict[str, Array], places: Places, frame: Array) -> dict[str, Array]:
    """Arrays as a frame places them."""
    for place in places:
        x, here = arrays[place.tensor], frame
        if frame.ndim > (0 if not place.axes else 1):
            shape = [1] * x.ndim
            shape[0] = len(frame)
            if place.axes:
                shape[place.axes[0]] = frame.shape[1]
            here = frame.reshape(shape)
        if not place.axes:
            arrays[place.tensor] = x * here
        elif here.ndim == 1:
            arrays[place.tensor] = x.take(here, place.axes[0])
        else:
            arrays[place.tensor] = np.take_along_axis(x, np.broadcast_to(here, x.shape), place.axes[0])
    return arrays


def _back(frame: Array, generator: Generator) -> Array:
    return frame if generator.name == "sign" else np.argsort(frame, axis=-1)
