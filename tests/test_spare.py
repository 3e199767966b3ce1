"""Stored tensors that nothing reads, and copies of others: told where they are, silent where they only look it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from symlint.audit import audit
from symlint.rule import rules
from symlint.settings import Settings

WIDE = 24
RNG = np.random.default_rng(0)
W, V = (RNG.standard_normal((WIDE, WIDE)).astype(np.float32) for _ in range(2))
RULES = [rule for rule in rules() if rule.code in ("SYM015", "SYM016")]


def network(
    path: Path, nodes: list[onnx.NodeProto] | str, *, outputs: tuple[str, ...] = ("y",), **stored: np.ndarray
) -> Path:
    """A network of units at both ends, and what it stores."""
    made = onnx.parser.parse_graph(f"g () => () {{ {nodes} }}").node if isinstance(nodes, str) else nodes
    graph = helper.make_graph(
        made,
        "spare",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", WIDE])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, WIDE]) for name in outputs],
        [numpy_helper.from_array(values, name) for name, values in stored.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def branch(name: str, *nodes: onnx.NodeProto, result: str, **stored: np.ndarray) -> onnx.GraphProto:
    out = [helper.make_tensor_value_info(result, TensorProto.FLOAT, None)]
    return helper.make_graph(
        list(nodes), name, [], out, [numpy_helper.from_array(values, key) for key, values in stored.items()]
    )


def told(path: Path) -> dict[str, list[list[str]]]:
    """Rule -> the tensors that it names, copies by groups."""
    report = audit(str(path), RULES, Settings())
    assert not report.incomplete, report.incomplete
    return {f.rule: f.facts.get("groups") or [list(f.tensors)] for f in report.findings}


def edited(values: np.ndarray, at: int, number: float) -> np.ndarray:
    found = values.copy()
    found.reshape(-1)[at] = number
    return found


TWO = "a = MatMul(x, w) h = Relu(a) y = MatMul(h, v)"
QUANTISED = "d = DequantizeLinear(w, s) e = DequantizeLinear(v, t) f = Transpose<perm = [1, 0]>(e)"
QUANTISED += " a = MatMul(x, d) y = MatMul(a, f)"
I8 = RNG.integers(-100, 100, (WIDE, 2 * WIDE)).astype(np.int8)
COPIES = {
    "the same": (TWO, {"w": W, "v": W.copy()}),
    "not a number": (TWO, {"w": edited(W, 7, math.nan), "v": edited(W, 7, math.nan)}),
    "half precision": (
        "c = Cast<to = 10>(x) a = MatMul(c, w) b = MatMul(a, v) y = Cast<to = 1>(b)",
        {"w": W.astype(np.float16), "v": W.astype(np.float16)},
    ),
    "eight bits under two scales": (
        QUANTISED,
        {"w": I8, "v": I8.copy(), "s": np.float32(0.1), "t": np.float32(0.2)},
    ),
}


@pytest.mark.parametrize("name", COPIES)
def test_copies_are_told(name, tmp_path):
    nodes, stored = COPIES[name]
    assert told(network(tmp_path / "m.onnx", nodes, **stored)) == {"SYM016": [["w", "v"]]}


DIFFERENT = {
    "one number in the middle of nowhere": {"w": W, "v": edited(W, 133, 0.5)},
    "the sign of a zero": {"w": edited(W, 133, 0.0), "v": edited(W, 133, -0.0)},
    "another order": {"w": W, "v": np.ascontiguousarray(W.T)},
    "one number throughout": {"w": np.full_like(W, 0.5), "v": np.full_like(W, 0.5)},
    "few bytes": {"w": W[:, :1], "v": W[:, :1].reshape(1, -1)},
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_what_differs_is_no_copy(name, tmp_path):
    assert told(network(tmp_path / "m.onnx", TWO, **DIFFERENT[name])) == {}


def test_what_nothing_reads_is_told(tmp_path):
    """A copy that nothing reads is told once, as that; so is a Constant, and a few bytes are not."""
    lost = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(edited(V, 1, 2.0)))
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"]), lost]
    path = network(tmp_path / "m.onnx", nodes, w=W, again=W, lost=V, few=V[:1])
    assert told(path) == {"SYM015": [["again", "c", "lost"]]}


def test_another_name_is_a_reader(tmp_path):
    path = network(tmp_path / "m.onnx", "k = Identity(v) a = MatMul(x, w) y = Relu(a)", w=W, v=V)
    assert told(path) == {}


def test_a_body_reads_what_is_outside_unless_it_has_its_own(tmp_path):
    """Both branches have a tensor that is called as one outside, which only the second network reads."""
    for shadowed, expected in ((True, {"SYM015": [["v"]]}), (False, {})):
        own = {"v": edited(V, 3, 1.0)} if shadowed else {}
        bodies = {
            key: branch(key, helper.make_node("MatMul", ["x", "v"], [key]), result=key, **own)
            for key in ("then_branch", "else_branch")
        }
        if shadowed:
            bodies["else_branch"].initializer[0].CopyFrom(numpy_helper.from_array(edited(V, 3, 4.0), "v"))
        nodes = [
            helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
            helper.make_node("Cast", ["sum"], ["which"], to=TensorProto.BOOL),
            helper.make_node("If", ["which"], ["b"], **bodies),
            helper.make_node("MatMul", ["b", "w"], ["y"]),
        ]
        assert told(network(tmp_path / "m.onnx", nodes, w=W, v=V)) == expected


def test_branches_that_repeat_a_layer_are_told(tmp_path):
    bodies = {
        key: branch(key, helper.make_node(op, ["x", f"w_{key}"], [key]), result=key, **{f"w_{key}": V})
        for key, op in (("then_branch", "MatMul"), ("else_branch", "Gemm"))
    }
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["sum"], ["which"], to=TensorProto.BOOL),
        helper.make_node("If", ["which"], ["b"], **bodies),
        helper.make_node("MatMul", ["b", "w"], ["y"]),
    ]
    (found,) = told(network(tmp_path / "m.onnx", nodes, w=W))["SYM016"]
    assert sorted(found) == ["w_else_branch", "w_then_branch"]


@pytest.mark.parametrize("version", [3, 8])
def test_what_a_caller_may_give_belongs_to_the_interface(version, tmp_path):
    """An initializer that is an input as well is a default."""
    path = network(tmp_path / "m.onnx", TWO, w=W, v=W, lost=V)
    model = onnx.load(path)
    model.ir_version = version
    for name in ("w", "v", "lost"):
        model.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [WIDE, WIDE]))
    onnx.save(model, path)
    assert told(path) == {}


def test_outputs_are_for_the_caller(tmp_path):
    path = network(tmp_path / "m.onnx", TWO, outputs=("y", "v", "lost"), w=W, v=W, lost=V)
    assert told(path) == {}


def test_what_marks_the_range_of_a_value_is_read(tmp_path):
    path = network(tmp_path / "m.onnx", "a = MatMul(x, w) y = Relu(a)", w=W, scales=V)
    model = onnx.load(path)
    mark = model.graph.quantization_annotation.add(tensor_name="a")
    mark.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="scales")
    onnx.save(model, path)
    assert told(path) == {}


def test_a_function_that_is_called_twice_stores_its_constant_once(tmp_path):
    path = tmp_path / "m.onnx"
    stored = helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(V))
    body = [stored, helper.make_node("MatMul", ["p", "k"], ["q"])]
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    nodes = [helper.make_node("Layer", [a], [b], domain="own") for a, b in (("x", "a"), ("a", "y"))]
    model = onnx.load(network(path, nodes))
    model.opset_import.append(sets[1])
    model.functions.append(helper.make_function("own", "Layer", ["p"], ["q"], body, sets[:1]))
    onnx.save(model, path)
    assert told(path) == {}


def test_tensors_in_one_place_of_the_data_are_stored_once(tmp_path):
    """Two names for the same bytes save nothing; two places of the data do."""
    path = network(tmp_path / "m.onnx", TWO, w=W, v=W)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="data", size_threshold=0)
    assert told(path) == {"SYM016": [["w", "v"]]}
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[1].ClearField("external_data")
    model.graph.initializer[1].external_data.extend(model.graph.initializer[0].external_data)
    onnx.save(model, path)
    assert told(path) == {}
