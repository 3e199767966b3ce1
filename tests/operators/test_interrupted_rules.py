"""Operator rules that stop half-way, and text among the numbers: the rest of the network is audited all the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from written import repaired, shape, told, units, written

from symlint.model.load import load
from symlint.model.operators import _TABLE as TABLE
from symlint.model.operators import operators
from symlint.program.lower import Ref, Tracer, Unsupported
from symlint.program.translate import lower
from symlint.runtime.verify import verify
from symlint.symmetry.inference import examine

CASES = {
    "Clip": ("c = Clip(r, low, high)", 8),
    "Pad": ("c = Pad(r, amounts, low)", 10),
    "Slice": ("c = Slice(r, from, to, axis)", 7),
    "Gather": ("c = Gather<axis=1>(r, some)", 2),
    "Reshape": ("c = Reshape(r, long)", 8),
    "Expand": ("e = Unsqueeze(r, axis) x3 = Expand(e, wide) c = Squeeze(x3, axis)", 8),
    "Add": ("c = Add(r, table)", 8),
    "Concat": ("c = Concat<axis=1>(r, table2)", 10),
    "Where": ("c = Where(chosen, r, low)", 8),
}
"""An operator with constant operands behind a layer of eight units, and how wide it makes it."""
REASONS = [Unsupported("a case"), KeyError("k"), StopIteration(), AssertionError(), RecursionError()]


def layered(path: Path, op: str) -> Path:
    """A layer whose unit 3 is never on, an operator, and a layer that reads what it makes."""
    rng = np.random.default_rng(2)
    text, width = CASES[op]
    stored = {
        "w1": rng.normal(size=(6, 8)), "b1": rng.normal(size=8), "w2": rng.normal(size=(width, 3)),
        "low": np.array(0.0), "high": np.array(6.0), "amounts": np.array([0, 1, 0, 1]), "from": np.array([1]),
        "to": np.array([8]), "axis": np.array([1]), "some": np.array([2, 5]), "long": np.array([0, 8]),
        "wide": np.array([1, 1, 8]), "chosen": np.arange(8) % 2 == 0, "table": np.linspace(0, 1, 8).reshape(1, 8),
        "table2": np.ones((2, 2)),
    }  # fmt: skip
    stored["w1"][:, 3], stored["b1"][3] = 0.0, -1.0
    return written(path, f"h = MatMul(x, w1) a = Add(h, b1) r = Relu(a) {text} y = MatMul(c, w2)", stored, (2, 6))


def stopping(rule: Callable[..., object], op: str, problem: Exception) -> Callable[..., object]:
    """A rule that records something of each operand and then stops, for nodes that read more than weights and sums."""

    def stopped(t: Tracer, *inputs: Ref | None, **attributes: object) -> object:
        if {"r", "e"} & set(t.node.inputs):
            for x in inputs:
                if x is not None and x.value is not None:
                    t.constant(x.value)
            raise problem
        return rule(t, *inputs, **attributes)

    return stopped


@pytest.mark.parametrize("problem", REASONS, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("op", CASES)
def test_what_a_stopped_rule_has_read_is_known(op, problem, tmp_path, monkeypatch):
    """Every operand that a lowering tells of is one of its tensors, however the rule ended."""
    path = layered(tmp_path / "model.onnx", op)
    known = operators()[op]
    monkeypatch.setitem(TABLE, op, replace(known, rule=stopping(known.rule, op, problem)))
    lowering = lower(load(path))
    shapes = lowering.program.shapes
    assert {ref.name for ref in (*lowering.values.values(), *lowering.uses.values())} <= shapes.keys()
    assert {name for step in lowering.program.steps for name in step.operands} <= shapes.keys()
    node = next(n for n in lowering.program.model.graph.nodes if n.op == op and {"r", "e"} & set(n.inputs))
    assert {k for out, k in lowering.uses if out == node.outputs[0]} == set(range(len(node.inputs)))


DETECTOR = """h = MatMul(x, w1) a = Add(h, b1) r = Relu(a) boxes = MatMul(r, wb) s = MatMul(r, ws) q = Sigmoid(s)
    t = Transpose<perm=[0, 2, 1]>(q)"""
FOUND = {
    "suppression": "y = NonMaxSuppression(boxes, t, most, iou, least)",
    "of some": "n = NonMaxSuppression(boxes, t, most, iou, least) y = Gather<axis=1>(n, some)",
    "other layout": "n = NonMaxSuppression<center_point_box=1>(boxes, t, most, iou, least) y = Cast<to=7>(n)",
}


@pytest.mark.parametrize("end", FOUND)
def test_detectors_are_repaired(end, tmp_path):
    """Units in front of a suppression of boxes go, which reads numbers that no rule has seen."""
    rng = np.random.default_rng(3)
    stored = {
        "w1": rng.normal(size=(6, 8)), "b1": rng.normal(size=8), "wb": rng.normal(size=(8, 4)),
        "ws": rng.normal(size=(8, 2)), "most": np.array([3]), "iou": np.array([0.5], np.float32),
        "least": np.array([0.3], np.float32), "some": np.array([0, 2]),
    }  # fmt: skip
    stored["w1"][:, [1, 4]], stored["b1"][[1, 4]] = 0.0, -1.0
    kinds = (TensorProto.FLOAT, TensorProto.INT64)
    path = written(tmp_path / "model.onnx", DETECTOR + FOUND[end], stored, (1, 5, 6), kinds=kinds)
    assert units(path) == [("SYM101", [1, 4])]
    fixed = repaired(path)
    assert shape(fixed.path, "w1") == (6, 6)


CLASSES = [b"cat", b"dog", "tiger \u2192".encode()]
TEXTS = {
    "table": "label = Gather(classes, best)",
    "Constant": 'all = Constant<value_strings=["cat", "dog", "tiger"]>() label = Gather(all, best)',
    "single": 'all = Constant<value_string="cat">() label = Identity(all)',
    "chosen": "one = Gather(classes, best) same = Cast<to=9>(best) label = Where(same, one, none)",
    "grouped": """rows = Unsqueeze(classes, zero) two = Concat<axis=0>(rows, rows) row = Gather<axis=1>(two, best)
        label = Identity(row)""",
    "encoded": 'label = ai.onnx.ml.LabelEncoder<keys_int64s=[0, 1, 2], values_strings=["cat", "dog", "tiger"]>(best)',
}


def labelled(path: Path, text: str) -> Path:
    """A classifier that tells the name of the class; units 2 and 5 are never on."""
    rng = np.random.default_rng(4)
    w1, b1 = rng.normal(size=(6, 10)).astype(np.float32), rng.normal(size=10).astype(np.float32)
    w1[:, [2, 5]], b1[[2, 5]] = 0.0, -1.0
    nodes = onnx.parser.parse_graph(
        f"""small () => () {{ h = MatMul(x, w1) a = Add(h, b1) r = Relu(a) p = MatMul(r, w2)
        best = ArgMax<axis=1, keepdims=0>(p) {text} }}"""
    ).node
    stored = {"w1": w1, "b1": b1, "w2": rng.normal(size=(10, 3)).astype(np.float32), "zero": np.array([0])}
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 6])],
        [
            helper.make_tensor_value_info("p", TensorProto.FLOAT, ["n", 3]),
            helper.make_tensor_value_info("label", TensorProto.STRING, None),
        ],
        [
            *(numpy_helper.from_array(v, k) for k, v in stored.items()),
            helper.make_tensor("classes", TensorProto.STRING, [3], CLASSES),
            helper.make_tensor("none", TensorProto.STRING, [], [b"none"]),
        ],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path


@pytest.mark.parametrize("text", TEXTS)
def test_text_takes_nothing_from_an_audit(text, tmp_path):
    """Class names are stored, computed and given out; the units before them are found, tried and removed."""
    path = labelled(tmp_path / "model.onnx", TEXTS[text])
    assert units(path) == [("SYM101", [2, 5])]
    symmetry, structure = examine(load(path))
    assert symmetry.coverage.opaque == 0
    trials = verify(structure, [g.id for g in symmetry.generators if g.exact])
    assert {t.outcome for t in trials} == {"held"}
    assert shape(repaired(path).path, "w1") == (6, 8)


EMPTY = {
    "split": "p, q = Split<axis=1>(h, all_of_it) z = Identity(p)",
    "split of nothing first": "p, q = Split<axis=1>(h, none_of_it) z = Identity(q)",
    "slice": "s = Slice(h, last, last, axis) z = Concat<axis=1>(h, s)",
    "concatenation": "z = Concat<axis=1>(h, empty)",
    "lookup": "g = Gather<axis=1>(h, nothing) z = Concat<axis=1>(g, h)",
    "sum of a lookup": "g = Gather<axis=1>(h, nothing) r = ReduceSum<keepdims=1>(g) z = Add(h, r)",
    "lookup in a weight": "g = Gather<axis=0>(b, nothing) r = ReduceSum<keepdims=1>(g) s = MatMul(r, e3) z = Add(h, s)",
    "crop": "p = Pad(h, away) z = Concat<axis=1>(h, p)",
    "sequence": "s = SplitToSequence<axis=1>(h, none_of_it) z = SequenceAt(s, second)",
}
"""What takes nothing of a layer, beside it."""


@pytest.mark.parametrize("way", EMPTY)
@pytest.mark.parametrize("opset", [13, 18])
def test_what_takes_nothing_costs_nobody_the_audit(way, opset, tmp_path):
    """Slices, lookups, splits and crops of no units, and tensors without elements, are walked or named."""
    rng = np.random.default_rng(8)
    stored = {
        "a": rng.normal(size=(4, 8)), "b": rng.normal(size=(8, 3)), "e3": rng.normal(size=(3, 8)),
        "all_of_it": np.array([8, 0]), "none_of_it": np.array([0, 8]), "last": np.array([8]), "axis": np.array([1]),
        "empty": np.zeros((2, 0)), "nothing": np.zeros(0, np.int64),
        "away": np.array([0, -8, 0, 0]), "second": np.array(1),
    }  # fmt: skip
    text = f"h = MatMul(x, a) {EMPTY[way]} y = MatMul(z, b)"
    path = written(tmp_path / "model.onnx", text, stored, (2, 4), opset=opset)
    told(path)
    symmetry, structure = examine(load(path))
    trials = verify(structure, [g.id for g in symmetry.generators if g.exact])
    assert "refuted" not in {t.outcome for t in trials}
