"""Stored tensors that nothing reads, and copies of others: told where they are, and taken out with the same outputs."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from symlint.audit.engine import audit
from symlint.cli.main import cli
from symlint.lint.rule import rules
from symlint.lint.settings import Settings
from symlint.repair import cost
from symlint.repair.fixing import fix
from symlint.repair.plan import Fixed, Wish

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
        "c = Cast<to = 10>(x) a = MatMul(c, w) h = Relu(a) b = MatMul(h, v) y = Cast<to = 1>(b)",
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


def repeated(path: Path, *, constants: bool = False) -> Path:
    """Two branches, each with a layer of its own that is the same."""
    bodies = {}
    for key in ("then_branch", "else_branch"):
        name = f"w_{key}"
        layer, rest = helper.make_node("MatMul", ["x", name], [f"a_{key}"]), []
        if constants:
            rest.append(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(V)))
        last = helper.make_node("Relu" if key == "then_branch" else "Tanh", [f"a_{key}"], [key])
        bodies[key] = branch(key, *rest, layer, last, result=key, **({} if constants else {name: V}))
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["which"]),
        helper.make_node("If", ["which"], ["b"], **bodies),
        helper.make_node("MatMul", ["b", "w"], ["y"]),
    ]
    return network(path, nodes, w=W, zero=np.float32(0))


@pytest.mark.parametrize("constants", [False, True])
def test_branches_that_repeat_a_layer_are_told(constants, tmp_path):
    (found,) = told(repeated(tmp_path / "m.onnx", constants=constants))["SYM016"]
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


# -- repairs ----------------------------------------------------------------------------------------------------------
@pytest.fixture
def _no_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is timed, and nothing computed in float64: neither decides what a fix does."""

    def refuse(*args: object, **names: object) -> None:
        raise RuntimeError("no time")

    monkeypatch.setattr(cost, "latency", refuse)
    monkeypatch.setattr("symlint.runtime.proof.SMALL", (0, 0))


def repaired(path: Path, folder: Path) -> Fixed:
    """The file as a fix leaves it: proven, promised, smaller, and with nothing left to take out."""
    chosen = [rule for rule in rules() if rule.repair not in ("", "drop", "balance")]
    findings = audit(str(path), RULES, Settings()).findings
    assert all(finding.fixable for finding in findings)
    folder.mkdir()
    fixed = fix(str(path), folder, Wish(chosen))
    assert told(fixed.path) == {}
    if fixed.done:
        onnx.checker.check_model(str(fixed.path))
        assert fixed.after.measure.bytes < fixed.before.measure.bytes
    return fixed


def outputs(path: Path) -> list[np.ndarray]:
    """As the operators are written: what a runtime fuses depends on who else reads a weight."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options)
    x = np.random.default_rng(1).standard_normal((5, WIDE)).astype(np.float32)
    return [y for sign in (1, -1) for y in session.run(None, {"x": sign * x})]


def assert_lossless(path: Path, folder: Path, *, expected: dict[str, int]) -> Fixed:
    """Rule -> bytes that are stored no more; the outputs are the same to the bit, and a diff says so."""
    fixed = repaired(path, folder)
    assert {one.rule: one.bytes for one in fixed.done} == expected
    assert all(a.tobytes() == b.tobytes() for a, b in zip(outputs(path), outputs(fixed.path), strict=True))
    parts = fixed.before.measure.bytes - fixed.after.measure.bytes
    assert abs(parts - sum(expected.values())) < 1000
    compared = CliRunner().invoke(cli, ["diff", str(path), str(fixed.path), "--fail-on", "changed"])
    assert compared.exit_code == 0, compared.output
    return fixed


@pytest.mark.usefixtures("_no_clock")
class TestRepairs:
    """What is taken out changes no bit of any output."""

    @pytest.mark.parametrize("name", sorted({*COPIES} - {"not a number"}))
    def test_copies_are_shared(self, name, tmp_path):
        nodes, stored = COPIES[name]
        path = network(tmp_path / "m.onnx", nodes, **stored)
        assert_lossless(path, tmp_path / "out", expected={"SYM016": stored["v"].nbytes})

    @pytest.mark.parametrize("constants", [False, True])
    def test_bodies_share_what_is_outside(self, constants, tmp_path):
        path = repeated(tmp_path / "m.onnx", constants=constants)
        fixed = assert_lossless(path, tmp_path / "out", expected={"SYM016": V.nbytes})
        assert len(onnx.load(fixed.path).graph.initializer) == 3

    def test_a_constant_after_its_reader_moves_in_front(self, tmp_path):
        """Of two Constants neither need stand before all readers."""
        made = [helper.make_node("Constant", [], [k], value=numpy_helper.from_array(W)) for k in ("w", "v")]
        layers = [helper.make_node("MatMul", [a, k], [b]) for a, k, b in (("x", "v", "a"), ("h", "w", "y"))]
        nodes = [made[1], layers[0], helper.make_node("Relu", ["a"], ["h"]), made[0], layers[1]]
        assert_lossless(network(tmp_path / "m.onnx", nodes), tmp_path / "out", expected={"SYM016": W.nbytes})

    def test_what_nothing_reads_goes(self, tmp_path):
        lost = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(edited(V, 1, 2.0)))
        nodes = [helper.make_node("MatMul", ["x", "w"], ["a"]), lost, helper.make_node("MatMul", ["a", "v"], ["y"])]
        path = network(tmp_path / "m.onnx", nodes, w=W, v=W, again=W, lost=V)
        fixed = assert_lossless(path, tmp_path / "out", expected={"SYM015": 3 * W.nbytes, "SYM016": W.nbytes})
        assert [t.name for t in onnx.load(fixed.path).graph.initializer] == ["w"]

    def test_external_data_stay_external(self, tmp_path):
        path = network(tmp_path / "m.onnx", TWO, w=W, v=W, lost=V)
        onnx.save(onnx.load(path), path, save_as_external_data=True, location="data", size_threshold=0)
        fixed = assert_lossless(path, tmp_path / "out", expected={"SYM015": V.nbytes, "SYM016": W.nbytes})
        (left,) = onnx.load(fixed.path, load_external_data=False).graph.initializer
        assert left.data_location == TensorProto.EXTERNAL

    @pytest.mark.parametrize("both", [False, True])
    def test_sharing_comes_after_all_other_repairs(self, both, tmp_path):
        """A dead unit leaves one matrix, or both copies; only then is it told whether they still are copies."""
        w = W.copy()
        w[:, 3] = 0
        apart = "a = MatMul(x, w) h = Relu(a) b = MatMul(h, p) k = Relu(b) y = MatMul(k, v)"
        alike = (
            "a = MatMul(x, w) h = Relu(a) b = MatMul(h, p) c = MatMul(x, v) k = Relu(c) y = MatMul(k, q) z = Add(b, y)"
        )
        stored = {"w": w, "v": w, "p": V, **({"q": edited(V, 0, 2.0)} if both else {})}
        path = network(tmp_path / "m.onnx", alike if both else apart, outputs=("z" if both else "y",), **stored)
        fixed = repaired(path, tmp_path / "out")
        assert fixed.proof is not None
        assert fixed.proof.outcome == "held"
        assert ("SYM016" in {one.rule for one in fixed.done}) == both
        assert "SYM101" in {one.rule for one in fixed.done}
        shapes = {t.name: tuple(t.dims) for t in onnx.load(fixed.path).graph.initializer}
        assert shapes["w"] == (WIDE, WIDE - 1)
        assert ("v" in shapes) != both

    def test_what_is_said_of_it(self, tmp_path):
        path, out = network(tmp_path / "m.onnx", TWO, w=W, v=W), tmp_path / "out.onnx"
        done = CliRunner().invoke(cli, ["fix", str(path), "-o", str(out)])
        assert done.exit_code == 0
        assert f"{W.nbytes:,} bytes" in done.output
        assert "identical outputs" in done.output
        kept = CliRunner().invoke(cli, ["fix", str(path), "-o", str(out), "--ignore", "SYM016"])
        assert kept.exit_code == 0
        assert "nothing to repair" in kept.output
