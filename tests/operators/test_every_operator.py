"""The equivariance law of every operator rule, and the contract between the table of rules and the operators' schemas.

Each case of `onnx.backend.test` becomes a network of its own in which every floating input is a weight and nothing is
pinned at the outputs. Whatever generator is then claimed, for weights and outputs together, must commute with the
operator: f(g x) = g f(x). A new operator rule is tested here without a new line.
"""

from __future__ import annotations

import inspect
import json
import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, defs, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from symlint.model.errors import UnreadableModel
from symlint.model.load import load
from symlint.model.operators import Operator, known, operators
from symlint.program.numbers import Numbers
from symlint.program.steps import Program, Unknown
from symlint.program.translate import _Translation
from symlint.symmetry.axes.terms import Expansion
from symlint.symmetry.axes.walk import walk
from symlint.symmetry.inference import _Report
from symlint.symmetry.motion.action import permute, scale, stands
from symlint.symmetry.structure import Action

Arrays = dict[str, np.ndarray]
TOLERANCE = 1e-4
KINDS = ("permutation", "rescaling", "sign")
"""Generators whose elements are tried here."""
WIDE = {np.dtype(t) for t in ("f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")}
POSITIVE = frozenset({"Log", "Sqrt", "Pow", "ReduceLogSum", "BatchNormalization"})
"""Operators whose inputs are no negative numbers."""
LARGEST = 1000
"""Elements that a case may have where larger groups are tried."""
POWERS = (1, -1, 2, -2, 0.5, -0.5)
"""Degrees in which an output may answer to a scale."""
SPECIFICATION = "https://"
ONNX = sorted(name for name in operators() if "." not in name)

# Not generic: what the law says of almost all inputs fails on these.
DEGENERATE = {"test_hardmax_one_hot"}  # ties, which the position decides

# Operators whose own cases are too narrow: attributes, and the inputs as shapes, or as values where the layout asks.
WIDER: list[tuple[str, dict[str, Any], list[Any]]] = [
    ("Conv", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, [(2, 3, 5, 5), (4, 3, 3, 3), (4,)]),
    ("Conv", {"group": 2, "kernel_shape": [1, 1]}, [(2, 6, 4, 4), (4, 3, 1, 1), (4,)]),
    ("Conv", {"group": 3, "kernel_shape": [3]}, [(2, 3, 7), (6, 1, 3), (6,)]),
    ("Conv", {"kernel_shape": [1, 1], "strides": [2, 2]}, [(2, 3, 5, 5), (4, 3, 1, 1)]),
    ("Conv", {"kernel_shape": [1, 1], "pads": [1, 1, 0, 0], "strides": [1, 1]}, [(2, 3, 4, 4), (4, 3, 1, 1)]),
    ("Conv", {"kernel_shape": [1], "pads": [1, 1], "strides": [2]}, [(2, 3, 3), (4, 3, 1)]),
    ("Conv", {"kernel_shape": [1], "pads": [0, 2], "strides": [1]}, [(2, 3, 3), (4, 3, 1)]),
    ("Conv", {"auto_pad": "SAME_UPPER", "kernel_shape": [3], "dilations": [2]}, [(2, 3, 6), (4, 3, 3)]),
    ("ConvTranspose", {"group": 2}, [(2, 4, 3, 3), (4, 3, 2, 2), (6,)]),
    ("ConvTranspose", {"strides": [2, 1]}, [(2, 4, 3, 3), (4, 3, 2, 2)]),
    ("Pad", {}, [(2, 3, 4), np.array([0, 1, 0, 0, 2, 0])]),
    ("Pad", {}, [(2, 3, 4), np.array([0, 1, 0, 0, 2, 0]), np.float32(1.5)]),
    ("Pad", {}, [(2, 3, 6), np.array([0, 0, -2, 0, 0, -1])]),
    ("Pad", {"mode": "reflect"}, [(2, 3, 4), np.array([0, 1, 0, 0, 2, 0])]),
    ("Pad", {"mode": "edge"}, [(2, 3, 4), np.array([1, 1]), None, np.array([2])]),
    ("CumSum", {}, [(2, 3, 4), np.array(1)]),
    ("CumSum", {"reverse": 1}, [(2, 3, 4), np.array(-1)]),
    ("Cast", {"to": TensorProto.INT32}, [(3, 4)]),
    ("Cast", {"to": TensorProto.DOUBLE}, [(3, 4)]),
    ("Cast", {"to": TensorProto.BOOL}, [(3, 4)]),
    ("CastLike", {}, [(3, 4), np.array(1, np.int64)]),
    ("Equal", {}, [(3, 4), (4,)]),
    ("Greater", {}, [(3, 4), (3, 1)]),
    ("Dropout", {}, [(3, 4)]),
    ("Clip", {}, [(3, 4), np.float32(0), np.float32(0.5)]),
    ("Clip", {}, [(3, 4), np.float32(0)]),
    ("Relu", {}, [(3, 4)]),
    ("Where", {}, [np.array([True, False, True]), (2, 3), (2, 1)]),
    ("Where", {}, [np.array([True, False, True]), (2, 3), np.float32(0)]),
    ("Where", {}, [np.array([True, False, True]), (3,), (2, 1)]),
    ("Max", {}, [(3, 4), (4,), np.float32(0)]),
    ("Min", {}, [(3, 4), (4,)]),
    ("Sum", {}, [(3, 4), (4,), (3, 1)]),
    ("Mean", {}, [(3, 4), (4,)]),
    ("Mean", {}, [(3, 4), np.float32(0)]),
    ("Sub", {}, [(4,), (3, 4)]),
    ("Sub", {}, [np.float32(0), (3, 4)]),
    ("Div", {}, [(4,), (3, 4)]),
    ("Mul", {}, [(3, 1), (4,)]),
    ("Pow", {}, [(3, 4), np.float32(2)]),
    ("Pow", {}, [(3, 4), np.float32(3)]),
    ("Pow", {}, [(3, 4), np.float32(2.0001)]),
    ("Pow", {}, [(3, 4), np.float32(1 / 3)]),
    ("Mod", {"fmod": 1}, [(3, 4), (4,)]),
    ("MatMul", {}, [(2, 3, 4), (4, 5)]),
    ("MatMul", {}, [(4,), (2, 4, 5)]),
    ("MatMul", {}, [(2, 1, 3, 4), (6, 4, 5)]),
    ("Gemm", {"alpha": 0.5, "beta": 2.0, "transB": 1}, [(3, 4), (5, 4), (5,)]),
    ("Gemm", {"transA": 1}, [(4, 3), (4, 5), (3, 1)]),
    ("Einsum", {"equation": "bij,bjk->bik"}, [(2, 3, 4), (2, 4, 5)]),
    ("Einsum", {"equation": "...i,ij"}, [(2, 3, 4), (4, 5)]),
    ("Einsum", {"equation": "ij,ij->i"}, [(3, 4), (3, 4)]),
    ("PRelu", {}, [(2, 3, 4), (3, 1)]),
    ("PRelu", {}, [(2, 3, 4), (1,)]),
    ("BatchNormalization", {}, [(2, 3, 4), (3,), (3,), (3,), np.array([0.5, 1.0, 2.0], np.float32)]),
    ("InstanceNormalization", {}, [(2, 3, 4), (3,), (3,)]),
    ("LayerNormalization", {"axis": 1}, [(2, 3, 4), (3, 4), (3, 4)]),
    ("LayerNormalization", {}, [(2, 3, 4), (4,)]),
    ("GroupNormalization", {"num_groups": 2}, [(2, 6, 4), (6,), (6,)]),
    ("LpNormalization", {"axis": 1, "p": 1}, [(2, 3, 4)]),
    ("MeanVarianceNormalization", {}, [(2, 3, 4, 5)]),
    ("Softmax", {"axis": 1}, [(2, 3, 4)]),
    ("LogSoftmax", {}, [(2, 3, 4)]),
    ("Hardmax", {}, [(2, 3, 4)]),
    ("Reshape", {}, [(2, 12), np.array([2, 3, 4])]),
    ("Reshape", {}, [(2, 12), np.array([-1, 4])]),
    ("Reshape", {}, [(4, 6), np.array([3, 8])]),
    ("Reshape", {}, [(2, 4, 6), np.array([2, 3, 8])]),
    ("Flatten", {"axis": 2}, [(2, 3, 4)]),
    ("Expand", {}, [(3, 1), np.array([2, 1, 4])]),
    ("Tile", {}, [(2, 3), np.array([2, 2])]),
    ("Slice", {}, [(3, 8), np.array([2]), np.array([6]), np.array([1])]),
    ("Slice", {}, [(3, 8), np.array([1]), np.array([8]), np.array([1]), np.array([2])]),
    ("Slice", {}, [(3, 8), np.array([0]), np.array([7]), np.array([1]), np.array([3])]),
    ("Slice", {}, [(3, 8), np.array([-1]), np.array([-20]), np.array([1]), np.array([-1])]),
    ("Gather", {"axis": 1}, [(3, 5, 2), np.array([[0, 2], [2, 4]])]),
    ("Gather", {"axis": 1}, [(3, 5, 2), np.array(3)]),
    ("Gather", {"axis": 0}, [(3, 5), np.array([2, 1, 0])]),
    ("Split", {"axis": 1}, [(2, 7), np.array([2, 2, 3])]),
    ("Concat", {"axis": 1}, [(2, 3), (2, 4), (2, 3)]),
    ("Concat", {"axis": -2}, [(2, 3, 4), (2, 1, 4)]),
    ("Transpose", {}, [(2, 3, 4)]),
    ("ReduceL2", {"keepdims": 0}, [(2, 3, 4), np.array([1])]),
    ("ReduceSumSquare", {}, [(2, 3, 4), np.array([-1])]),
    ("ReduceProd", {"keepdims": 0}, [(2, 3, 4), np.array([0, 2])]),
    ("ReduceMean", {}, [(2, 3, 4), np.array([0, 2])]),
    ("ReduceMax", {"keepdims": 0}, [(2, 3, 4)]),
    ("ReduceLogSumExp", {}, [(2, 3, 4), np.array([1])]),
    ("ArgMax", {"axis": 1, "keepdims": 0}, [(2, 5, 4)]),
    ("TopK", {"axis": 1}, [(2, 5, 4), np.array([3])]),
    ("MaxPool", {"kernel_shape": [2, 2]}, [(2, 3, 4, 4)]),
    ("AveragePool", {"kernel_shape": [2, 2]}, [(2, 3, 4, 4)]),
    ("GlobalAveragePool", {}, [(2, 3, 4, 4)]),
    ("GlobalMaxPool", {}, [(2, 3, 4, 4)]),
    ("DepthToSpace", {"blocksize": 2, "mode": "CRD"}, [(2, 12, 2, 3)]),
    ("SpaceToDepth", {"blocksize": 2}, [(2, 3, 4, 6)]),
    ("Resize", {"mode": "nearest"}, [(2, 3, 2, 2), None, np.array([1, 1, 2, 2], np.float32)]),
    (
        "Resize",
        {"coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 2.0, "mode": "linear"},
        [(2, 3, 2, 2), np.array([0, 0, 0, 0, 1, 1, 1.5, 1], np.float32), np.array([1, 1, 2, 1], np.float32)],
    ),
    ("LRN", {"size": 3}, [(2, 5, 3, 3)]),
]

# Rules whose cases have no axis of more than one unit that is free, or none that the reference evaluator can run.
UNTRIED = {
    "Upsample": "its one case resizes every axis that has more than one unit",
    "Shape": "it reads no value",
    "Size": "it reads no value",
    "Bernoulli": "it is random",
    "GatherElements": "its indices are given at run time, in every axis",
    "ScatterElements": "its indices are given at run time, in every axis",
    "ReverseSequence": "its cases have no axis beside time and batch",
    "Loop": "a body is no single operator",
    "Scatter": "the reference evaluator lacks it",
}


BOTH = "no law says that two operands scaled alike leave the result as it is"
EPSILON = "the scale goes through but for its epsilon"
PLACES = "places computed at run time pin more than the axes that they address"
ONCE = "its cases have one step, which no state precedes"
DEGENERATE_CASE = "one of its cases is degenerate: windows of size 1 or over everything, masked rows, empty products"
# Operators whose rules claim less than what holds, in some case, and why.
TIMID = {
    "ArgMax": "the index of the largest does not see a scale",
    "ArgMin": "the index of the smallest does not see a scale",
    "Attention": DEGENERATE_CASE,
    "AveragePool": DEGENERATE_CASE,
    "BatchNormalization": "its charges act on scale and shift, not on gain and bias",
    "Cast": "rounding towards zero is odd, and a truth value sees no scale",
    "CastLike": "a rule does not see element types",
    "Clip": DEGENERATE_CASE,
    "Col2Im": DEGENERATE_CASE,
    "Conv": DEGENERATE_CASE,
    "DeformConv": PLACES,
    "Det": "a determinant has a degree",
    "Equal": BOTH,
    "GatherND": PLACES,
    "Greater": BOTH,
    "GreaterOrEqual": BOTH,
    "GridSample": PLACES,
    "GroupNormalization": EPSILON,
    "GRU": ONCE,
    "InstanceNormalization": EPSILON,
    "IsInf": "it is even where it detects both infinities",
    "LayerNormalization": EPSILON,
    "Less": BOTH,
    "LessOrEqual": BOTH,
    "LinearAttention": "the places of a recurrence are pinned, whose scales could differ",
    "LpNormalization": "the reference evaluator takes no absolute values where p is 1",
    "LRN": "it is odd, but no linear window",
    "LSTM": ONCE,
    "MeanVarianceNormalization": EPSILON,
    "Mod": BOTH,
    "Pow": "a stored exponent is read as a constant",
    "QuantizeLinear": "a scale that moves with its operand is not sure to round alike",
    "ReduceProd": "the degree of a product along one of its own axes is 1 per unit",
    "ReverseSequence": PLACES,
    "RMSNormalization": EPSILON,
    "RNN": ONCE,
    "RoiAlign": PLACES,
    "Scan": "a body is no single operator",
    "ScatterElements": PLACES,
    "ScatterND": PLACES,
    "TensorScatter": PLACES,
    "ThresholdedRelu": DEGENERATE_CASE,
}


@dataclass(frozen=True)
class Case:
    """One operator call: the model without stored tensors, and its inputs."""

    name: str
    model: onnx.ModelProto
    inputs: Arrays

    @property
    def op(self) -> str:
        node = self.model.graph.node[0]
        return f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type


@cache
def cases() -> Mapping[str, list[Case]]:
    """Operator -> its cases with floating inputs; sequences, strings and narrow floats are left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        collected = collect_testcases(None)
    found: defaultdict[str, list[Case]] = defaultdict(list)
    for case in collected:
        graph = case.model.graph
        if len(graph.node) != 1 or not case.data_sets:
            continue
        values = [numpy_helper.to_array(v) if isinstance(v, TensorProto) else v for v in case.data_sets[0][0]]
        if not all(isinstance(v, np.ndarray) and v.dtype in WIDE for v in values):
            continue
        inputs = {i.name: v for i, v in zip(graph.input, values, strict=False)}
        if any(v.dtype in (np.float32, np.float64) and v.ndim for v in inputs.values()):
            made = Case(case.name, case.model, inputs)
            if case.name not in DEGENERATE:
                found[made.op].append(made)
    for made in wider():
        found[made.op].append(made)
    return found


def wider() -> Iterator[Case]:
    """The cases of `WIDER`, with normal inputs."""
    for k, (op, attributes, arguments) in enumerate(WIDER):
        rng = np.random.default_rng(k)
        names = [f"in{i}" if a is not None else "" for i, a in enumerate(arguments)]
        values = {
            name: rng.normal(size=a).astype(np.float32) if isinstance(a, tuple) else np.asarray(a)
            for name, a in zip(names, arguments, strict=True)
            if a is not None
        }
        outputs = [f"out{i}" for i in range({"Split": 3, "TopK": 2}.get(op, 1))]
        infos = [
            helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
            for n, v in values.items()
        ]
        made = [helper.make_value_info(n, onnx.TypeProto()) for n in outputs]
        graph = helper.make_graph([helper.make_node(op, names, outputs, **attributes)], "wider", infos, made)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
        yield Case(f"wider {op} {attributes} {[np.shape(v) for v in values.values()]}", model, values)


def with_weights(case: Case, stored: Sequence[str]) -> onnx.ModelProto:
    """The case's model with some of its inputs stored."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    kept = [i for i in model.graph.input if i.name not in stored]
    del model.graph.input[:]
    model.graph.input.extend(kept)
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(case.inputs[n]), n) for n in stored)
    return model


@dataclass(frozen=True)
class Open:
    """What the engine infers when the outputs are free."""

    program: Program
    report: _Report
    outputs: Mapping[int, str]
    """Place among the graph's outputs -> tensor of the program."""
    actions: tuple[Action, ...]


def examine_open(model: onnx.ModelProto) -> Open | None:
    """The engine's inference, less the rule that outputs stay as they are; None where the model is refused."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "case.onnx"
        onnx.save(model, file)
        try:
            read = load(file)
        except UnreadableModel:
            return None
        translation = _Translation(read)
        program = replace(translation.program(), outputs=())
        axes = walk(program)
        expansion = Expansion(axes.factors)
        report = _Report(program, axes, expansion)
        outputs = {
            k: translation.env[name].name for k, name in enumerate(read.graph.outputs) if name in translation.env
        }
        return Open(program, report, outputs, tuple(a for a in report.generators.actions() if a.kind in KINDS))


def element(seen: Open, action: Action, rng: np.random.Generator) -> np.ndarray:
    """An element of a generator that moves every unit: a derangement, or factors away from 1."""
    factors = seen.report.factors
    shape = (*(factors.size(c) for c in action.copies), factors.size(action.leaf))
    if action.kind == "permutation":
        rows = rng.permuted(np.broadcast_to(np.arange(shape[-1]), shape), axis=-1)
        order = np.empty(shape, np.int64)
        np.put_along_axis(order, rows, np.roll(rows, 1, axis=-1), axis=-1)
        return order
    if action.kind == "sign":
        return np.full(shape, -1.0)
    return np.exp(rng.choice([-1.0, 1.0], shape) * rng.uniform(0.2, 1.0, shape))


def act(seen: Open, action: Action, g: np.ndarray, name: str, values: np.ndarray) -> np.ndarray:
    """g on one tensor of the program."""
    charge = {(o.axis, o.term, o.place): c for o, c in action.charge.items() if o.tensor == name}
    if action.kind != "permutation" and not charge:
        return values
    found = list(stands(seen.report.expansion, seen.report.axes.of[name], action.leaf, action.copies))
    if action.kind == "permutation":
        return permute(values, found, g)
    return scale(values, found, g, charge)


def moved_inputs(seen: Open, action: Action, g: np.ndarray, inputs: Arrays) -> Arrays:
    """g on all weights; a batch normalisation's gain and bias follow its scale and shift."""
    made = dict(inputs)
    for name, stored in seen.program.weights.items():
        if name not in seen.program.detached and np.asarray(inputs[stored]).dtype.kind == "f":
            made[stored] = act(seen, action, g, name, np.asarray(inputs[stored], np.float64))
        elif action.kind == "permutation":
            made[stored] = act(seen, action, g, name, inputs[stored])
    if action.kind != "permutation":
        for step in {id(s): s for s in seen.program.affines.values()}.values():
            gain, bias, mean, var = (
                inputs[seen.program.weights[n]] for n in (step.gain, step.bias, step.mean, step.var)
            )
            root = np.sqrt(var.astype(np.float64) + step.epsilon)
            slope = act(seen, action, g, step.scale, gain / root)
            shift = act(seen, action, g, step.shift, bias - mean * gain / root)
            made[seen.program.weights[step.gain]] = slope * root
            made[seen.program.weights[step.bias]] = shift + mean * slope
        # What a function makes of a weight is scaled, and the weight follows.
        for name, positive in seen.program.positives.items():
            assert positive.known.undone is not None
            stored = seen.program.weights[positive.operands[0]]
            value = Numbers(seen.program, lambda n: inputs[seen.program.weights[n]]).value(name)
            scaled = act(seen, action, g, name, np.asarray(value, np.float64))
            made[stored] = positive.known.undone(scaled)
    return {name: np.asarray(values, inputs[name].dtype) for name, values in made.items()}


def gap(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference relative to the largest value; NaN and infinities must stand at the same places."""
    if a.shape != b.shape:
        return np.inf
    a, b = a.astype(np.float64), b.astype(np.float64)
    finite = np.isfinite(a)
    if not np.array_equal(finite, np.isfinite(b)) or not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return np.inf
    if not finite.any():
        return 0.0
    return float(np.abs(a[finite] - b[finite]).max() / max(np.abs(a[finite]).max(), 1e-30))


def declined(case: Case) -> bool:
    """Whether the operator's rule says nothing but that its inputs are pinned for a true reason."""
    seen = examine_open(with_weights(case, [n for n, v in case.inputs.items() if v.dtype.kind == "f"]))
    return seen is not None and any(isinstance(s, Unknown) and not s.opaque for s in seen.program.steps)


@dataclass
class Tally:
    """What was tried on one operator."""

    tried: Counter[str]
    cases: int = 0
    pinned: int = 0
    """Cases that the rule declines for a true reason, such as indices computed at run time."""
    broken: tuple[str, ...] = ()


def evaluate(run: Any, inputs: Arrays) -> list[Any]:
    """The operator's outputs."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return run.run(None, inputs)


def attempts(
    case: Case, *, run_time_indices: bool, judge: Callable[[onnx.ModelProto], Any] = ReferenceEvaluator
) -> Iterator[tuple[str, float]]:
    """(generator, how far f(g x) is from g f(x)) for every generator that is claimed, f being run by `judge`."""
    stored = [n for n, v in case.inputs.items() if v.dtype.kind == "f" or not run_time_indices]
    seen = examine_open(with_weights(case, stored))
    if seen is None or not seen.actions:
        return
    if all(isinstance(step, Unknown) for step in seen.program.steps) and seen.program.steps:
        return
    try:
        run = judge(case.model)
        before, again = evaluate(run, case.inputs), evaluate(run, case.inputs)
    except Exception:  # the reference evaluator lacks the operator or fails on it in its own ways
        return
    if (
        not all(isinstance(y, np.ndarray) for y in before)
        or not any(y.dtype in WIDE for y in before)
        or any(gap(y, z) for y, z in zip(before, again, strict=True))
    ):
        return  # a random operator
    for action in seen.actions:
        g = element(seen, action, np.random.default_rng(3))
        worst = 0.0
        moved = moved_inputs(seen, action, g, case.inputs)
        try:
            after = evaluate(run, moved)
        except Exception:  # inputs that are no longer valid break the law like any other
            yield action.kind, np.inf
            continue
        for k, name in seen.outputs.items():
            if before[k].dtype in WIDE and name in seen.report.axes.of:
                worst = max(worst, gap(act(seen, action, g, name, before[k].astype(np.float64)), after[k]))
        yield action.kind, worst


def tally(op: str) -> Tally:
    """The law tried on all cases of an operator."""
    made = Tally(Counter())
    broken: list[str] = []
    for case in cases().get(op, ()):
        tried = 0
        for run_time_indices in (False, True):
            if run_time_indices and all(v.dtype.kind == "f" for v in case.inputs.values()):
                continue
            how = " with indices of the run" if run_time_indices else ""
            try:
                for kind, difference in attempts(case, run_time_indices=run_time_indices):
                    tried += 1
                    made.tried[kind] += 1
                    if not difference < TOLERANCE:
                        broken.append(f"{case.name}{how}: {kind} is off by {difference:.1e}")
                made.pinned += not tried and not run_time_indices and declined(case)
            except Exception as error:  # the engine never raises
                broken.append(f"{case.name}{how}: {error!r}")
        made.cases += tried > 0
    made.broken = tuple(broken)
    return made


@pytest.fixture(scope="session")
def tallied(tmp_path_factory) -> Callable[[str], Tally]:
    """The same, once for all processes that share the tests."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "tallies"
    folder.mkdir(exist_ok=True)

    def made(op: str) -> Tally:
        file = folder / f"{op}.json"
        if not file.exists():
            part = file.with_suffix(f".{os.getpid()}")
            found = tally(op)
            part.write_text(json.dumps([found.tried, found.cases, found.pinned, found.broken]))
            part.replace(file)
        tried, cases, pinned, broken = json.loads(file.read_text())
        return Tally(Counter(tried), cases, pinned, tuple(broken))

    return made


@pytest.mark.parametrize("op", ONNX)
def test_what_is_claimed_commutes_with_the_operator(op, tallied):
    """f(g x) = g f(x) for every claimed generator g, permutations and rescalings, on every case of the operator."""
    made = tallied(op)
    assert not made.broken, "\n".join(made.broken)
    if cases().get(op) and not made.pinned and op not in UNTRIED:
        assert made.cases, f"none of {len(cases()[op])} cases of {op} has a generator to try"


def test_the_law_is_tried_widely(tallied):
    """The number of operators, cases and elements that the law was tried on does not fall."""
    made = [tallied(op) for op in ONNX]
    tried = sum((m.tried for m in made), Counter())
    covered, total = sum(m.cases > 0 for m in made), sum(m.cases for m in made)
    print(f"{covered} operators, {total} cases, {dict(tried)}")  # noqa: T201
    assert covered >= 110
    assert total >= 520
    assert tried["permutation"] >= 1300
    assert tried["rescaling"] >= 800


Place = tuple[str, int]
"""An input and one of its axes."""


def explained(old: np.ndarray, new: np.ndarray, kind: str, g: np.ndarray) -> bool:
    """Whether g on some axis of an output, or nothing at all, makes the new output of the old."""
    if old.shape != new.shape or old.dtype not in WIDE:
        return False
    if gap(old, new) < TOLERANCE:
        return True
    for axis in (k for k, n in enumerate(old.shape) if n == len(g)):
        if kind == "permutation":
            tried = [old.take(g, axis)]
        else:
            wide = g.reshape([-1 if k == axis else 1 for k in range(old.ndim)])
            tried = [old * np.sign(wide) * np.abs(wide) ** p for p in ((1,) if kind == "sign" else POWERS)]
        if any(gap(y.astype(np.float64), new) < TOLERANCE for y in tried):
            return True
    return False


def larger(size: int, kind: str, seed: int) -> np.ndarray:
    """An element of the group that a rule did not claim on an axis."""
    rng = np.random.default_rng([size, seed])
    if kind == "permutation":
        return derangement(rng.permutation(size))
    return np.where(rng.permutation(size) % 2, 1.0, -1.0) if kind == "sign" else rng.uniform(0.3, 2.0, size)


def derangement(order: np.ndarray) -> np.ndarray:
    """The cycle through all units in some order."""
    made = np.empty_like(order)
    made[order] = np.roll(order, 1)
    return made


def unclaimed(seen: Open, kind: str, inputs: Arrays) -> list[Place]:
    """Axes of stored tensors on which a kind is claimed of no unit, or not of all units alike."""
    factors, found = seen.report.factors, []
    moved = {a.leaf for a in seen.actions if a.kind == kind}
    touched = {(o.tensor, o.axis) for a in seen.actions if a.kind == kind and kind != "permutation" for o in a.charge}
    for name, stored in seen.program.weights.items():
        if stored not in inputs or inputs[stored].dtype.kind != "f":
            continue
        for axis, f in enumerate(seen.report.axes.of[name]):
            size = inputs[stored].shape[axis]
            whole = all(leaf in moved and factors.size(leaf) == size for leaf in factors.leaves(f))
            if size > 1 and not (whole if kind == "permutation" else (name, axis) in touched):
                found.append((stored, axis))
    return found


def together(place: Place, inputs: Arrays) -> Iterator[list[Place]]:
    """An axis alone, with an equally long one of another input, and with the same axis of all, counted from the end."""
    size = inputs[place[0]].shape[place[1]]
    yield [place]
    others = [(n, k) for n, v in inputs.items() if n != place[0] for k in range(v.ndim) if v.shape[k] == size]
    yield from ([place, other] for other in others)
    behind = place[1] - inputs[place[0]].ndim
    aligned = [(n, k) for n, k in others if k - inputs[n].ndim == behind]
    if len(aligned) > 1:
        yield [place, *aligned]


def generic(case: Case, seed: int) -> Arrays:
    """Random inputs of the case's shapes: examples are often constant or in order; what decides a layout stays."""
    rng, made = np.random.default_rng(seed), dict(case.inputs)
    for name, v in case.inputs.items():
        if v.dtype.kind == "f" and v.size > 1 and case.op not in ("Resize", "Upsample"):
            drawn = rng.normal(size=v.shape)
            made[name] = (np.abs(drawn) if case.op in POSITIVE else drawn).astype(v.dtype)
    return made


def holds(case: Case, kind: str, places: Sequence[Place]) -> bool:
    """Whether a group on some axes of the inputs commutes with the operator, for inputs of several seeds."""
    run = ReferenceEvaluator(case.model)
    for seed in range(3):
        inputs = generic(case, seed)
        before = evaluate(run, inputs)
        if not all(
            isinstance(y, np.ndarray) and y.size and np.isfinite(np.asarray(y, np.float64)).any() for y in before
        ):
            return False
        g, moved = larger(inputs[places[0][0]].shape[places[0][1]], kind, seed), dict(inputs)
        for n, k in places:
            wide = g.reshape([-1 if i == k else 1 for i in range(moved[n].ndim)])
            made = moved[n].take(g, k) if kind == "permutation" else moved[n] * wide
            moved[n] = made.astype(moved[n].dtype)
        after = evaluate(run, moved)
        if not all(explained(y, z, kind, g) for y, z in zip(before, after, strict=True)):
            return False
    return True


def timid(case: Case) -> Iterator[str]:
    """Groups that are larger than what a rule claims, and hold."""
    if sum(v.size for v in case.inputs.values()) > LARGEST:
        return
    seen = examine_open(with_weights(case, list(case.inputs)))
    if seen is None or all(isinstance(s, Unknown) for s in seen.program.steps):
        return
    for kind in KINDS:
        for place in unclaimed(seen, kind, case.inputs):
            floats = {n: v for n, v in case.inputs.items() if v.dtype.kind == "f"}
            for places in together(place, floats):
                try:
                    held = holds(case, kind, places)
                except Exception:  # inputs that are not valid, or an operator that the evaluator lacks
                    break
                if held:
                    yield f"{case.name}: a {kind} of {places}"
                    break


@pytest.mark.parametrize("op", ONNX)
def test_the_next_larger_group_is_refuted(op):
    """Units that a rule pins or splits do not move, scale or flip freely; where they do, `TIMID` says why."""
    found = [line for case in cases().get(op, ()) for line in timid(case)]
    assert bool(found) is (op in TIMID), "\n".join(found) or f"{op} claims all that holds"


@cache
def schemas() -> Mapping[str, list[defs.OpSchema]]:
    """Operator of ONNX's own domain -> all versions of its schema."""
    found: defaultdict[str, list[defs.OpSchema]] = defaultdict(list)
    for schema in defs.get_all_schemas_with_history():
        if schema.domain == "":
            found[schema.name].append(schema)
    return found


def bound(op: str) -> tuple[Operator, list[defs.OpSchema]]:
    """A rule and the schemas that it has to fit."""
    if op not in schemas():
        pytest.skip(f"{op} has no schema")
    return operators()[op], schemas()[op]


def sharing(entry: Operator) -> list[defs.OpSchema]:
    """All versions of the schemas of all operators that have one rule."""
    return [schema for name, other in operators().items() if other.rule is entry.rule for schema in schemas()[name]]


@pytest.mark.parametrize("op", ONNX)
def test_a_rule_takes_no_more_inputs_than_the_schema_has(op):
    """Every positional parameter of a rule is an input of one of its operators in some version."""
    entry, versions = bound(op)
    if any(i.option is defs.OpSchema.FormalParameterOption.Variadic for schema in versions for i in schema.inputs):
        return
    assert entry.inputs <= max(len(schema.inputs) for schema in sharing(entry))


@pytest.mark.parametrize("op", ONNX)
def test_the_keywords_of_a_rule_are_attributes_of_the_schema(op):
    """Every keyword of a rule is an attribute of one of its operators in some version."""
    entry, _ = bound(op)
    if any("." in name for name, other in operators().items() if other.rule is entry.rule):
        pytest.skip("it is also the rule of an operator outside ONNX")
    assert entry.attributes <= {a for schema in sharing(entry) for a in schema.attributes}


@pytest.mark.parametrize("op", ONNX)
def test_the_defaults_of_a_rule_are_those_of_the_schema(op):
    """A keyword's default is the schema's in some version, or None or empty where the schema derives it."""
    entry, versions = bound(op)
    for name, parameter in inspect.signature(entry.rule).parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.default not in (None, (), parameter.empty):
            stated = [schema.attributes[name].default_value for schema in versions if name in schema.attributes]
            values = [helper.get_attribute_value(value) for value in stated if value.type]
            assert not values or any(same(value, parameter.default) for value in values), name


def same(stated: Any, default: Any) -> bool:
    """Whether a schema's default, in float32 and bytes, is a rule's."""
    if isinstance(stated, bytes):
        return bool(stated.decode() == default)
    return bool(np.allclose(stated, default))


@pytest.mark.parametrize("op", sorted(operators()))
def test_a_rule_is_documented_by_its_specification(op):
    """A rule's docstring is the address of its operator's specification; a family, made by a function, needs none."""
    rule = operators()[op].rule
    if "<locals>" not in rule.__qualname__:
        assert SPECIFICATION in (rule.__doc__ or "")


WHOLE = {"tensor(int64)", "tensor(int32)"}


@pytest.mark.parametrize("op", ONNX)
def test_an_operator_that_is_told_whole_numbers_is_told_new_ones(op):
    """Places, sizes and axes: whoever has such an operand says how it is resized, or that nothing has to be told."""
    import symlint.repair.surgery  # noqa: F401 - enters what resizes operators

    newest = {schema.name: schema for schema in defs.get_all_schemas() if schema.domain == ""}
    operands = newest[op].inputs if op in newest else ()
    assert known(op).resize or not any(operand.types and set(operand.types) <= WHOLE for operand in operands)
