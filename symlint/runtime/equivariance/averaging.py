"""The average of a network over a group of transformations of its inputs, as one network, and a proof that it is that.

The average over g of g^-1 f(g x) goes along with the whole group, whatever f does (Yarotsky, Universal approximations
of invariant maps by neural networks, 2018, Section 2; Puny et al., Frame Averaging, 2022, with the group as its frame).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from symlint.model.errors import UsageProblem
from symlint.model.file.edit import rewrite
from symlint.model.graph import Array, Model
from symlint.model.records import dataclass
from symlint.runtime.equivariance.groups import Element, taken_back, transformed
from symlint.runtime.equivariance.transformations import Place, Transformation
from symlint.runtime.noise import Trial, noise
from symlint.runtime.proof import CAP, FLOOR, MULTIPLE, Proof
from symlint.runtime.runner import Run, Runner
from symlint.runtime.sensitivity import Asking

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
