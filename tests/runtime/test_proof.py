"""A repaired file is held against the original: what is the same passes, what differs is refuted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from symlint.model.load import load
from symlint.model.saving import write
from symlint.repair.cost import latency, measure
from symlint.runtime.probe import difference
from symlint.runtime.proof import choices, inputs, prove
from symlint.runtime.runner import Run, Runner


def saved(path, nodes, inputs, outputs, weights=(), opset=17, **options):
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(*item) for item in inputs],
        [helper.make_tensor_value_info(*item) for item in outputs],
        [numpy_helper.from_array(value, name) for name, value in dict(weights).items()],
    )
    opsets = [helper.make_opsetid("", opset)] + [helper.make_opsetid(d, 1) for d in options.get("domains", ())]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def halved(source: Path, out: Path) -> Path:
    """The same network in float16."""
    model = onnx.load(source)
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for value in [*model.graph.input, *model.graph.output]:
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    onnx.save(model, out)
    return out


def test_a_model_is_the_same_as_itself(perceptron):
    path = perceptron()
    proof = prove(load(path), path)
    assert (proof.outcome, proof.difference, proof.double, proof.trials) == ("held", 0.0, 0.0, 3)
    assert 0 < proof.noise < 1e-5


def test_units_in_another_order_are_the_same_function(perceptron):
    def shuffle(weights):
        order = [3, 1, 5, 0, 2, 4]
        for name in ("first.weight", "first.bias"):
            weights[name] = weights[name][order]
        weights["second.weight"] = weights["second.weight"][:, order]

    proof = prove(load(perceptron()), perceptron("fixed.onnx", shuffle))
    assert proof.outcome == "held"
    assert proof.double < 1e-12


def test_a_single_weight_one_percent_larger_is_refuted(perceptron):
    def grow(weights):
        weights["second.weight"][1, 2] *= 1.01

    proof = prove(load(perceptron()), perceptron("fixed.onnx", grow))
    assert proof.outcome == "refuted"
    assert proof.difference > 1e-5
    assert "'y'" in proof.reason


def test_a_unit_that_only_large_values_reach_may_not_be_taken_away(perceptron):
    def late(weights):
        weights["first.bias"][2] = -np.linalg.norm(weights["first.weight"][2]) * 6

    def gone(weights):
        late(weights)
        weights["first.weight"][2] = 0

    assert prove(load(perceptron(edit=late)), perceptron("fixed.onnx", gone)).outcome == "refuted"


def test_half_precision_is_run_as_it_is(perceptron, tmp_path):
    path = halved(perceptron(), tmp_path / "half.onnx")
    model = load(path)
    assert prove(model, path).outcome == "held"
    write(path, {"first.bias": (model.tensors["first.bias"].read() * 1.5).astype(np.float16)}, tmp_path / "fixed.onnx")
    assert prove(model, tmp_path / "fixed.onnx").outcome == "refuted"


@pytest.mark.parametrize("change", ["shape", "name", "type"])
def test_another_interface_is_refuted(change, tmp_path):
    x = ("x", TensorProto.FLOAT, ["n", 4])
    node = helper.make_node("Relu", ["x"], ["y"])
    original = saved(tmp_path / "a.onnx", [node], [x], [("y", TensorProto.FLOAT, ["n", 4])])
    others = {
        "shape": ([helper.make_node("ReduceMax", ["x"], ["y"], axes=[1])], ("y", TensorProto.FLOAT, ["n", 1])),
        "name": ([helper.make_node("Relu", ["x"], ["z"])], ("z", TensorProto.FLOAT, ["n", 4])),
        "type": ([helper.make_node("Cast", ["x"], ["y"], to=11)], ("y", TensorProto.DOUBLE, ["n", 4])),
    }
    nodes, out = others[change]
    proof = prove(load(original), saved(tmp_path / "b.onnx", nodes, [x], [out]))
    assert proof.outcome == "refuted"
    assert ("shape" if change == "shape" else "names or types") in proof.reason


def test_an_operator_that_onnxruntime_lacks_is_not_runnable(perceptron):
    path = perceptron(activation="some.domain.Activation")
    proof = prove(load(path), path)
    assert (proof.outcome, proof.trials, proof.difference) == ("not runnable", 0, None)
    assert "some.domain" in proof.reason


def test_a_crash_is_an_answer(perceptron, monkeypatch):
    monkeypatch.setattr(Runner, "load", _deadly(Runner.load, 1))
    proof = prove(load(perceptron()), perceptron())
    assert proof.outcome == "not runnable"
    assert "died" in proof.reason


def test_a_new_file_that_kills_onnxruntime_is_refuted(perceptron, monkeypatch):
    monkeypatch.setattr(Runner, "load", _deadly(Runner.load, 3))
    proof = prove(load(perceptron()), perceptron("fixed.onnx"))
    assert (proof.outcome, proof.trials) == ("refuted", 3)
    assert "died" in proof.reason


def _deadly(load, number):
    """A load that kills the child when it is asked for the so many-th time."""
    calls = []

    def answer(self, *arguments, **options):
        calls.append(arguments)
        if len(calls) == number:
            self._begin().kill()
        return load(self, *arguments, **options)

    return answer


def test_a_child_that_died_is_replaced(perceptron):
    feeds = {"x": np.ones((2, 4), np.float32)}
    with Runner() as runner:
        loaded = runner.load(perceptron())
        before = runner.run(loaded, feeds)
        runner._begin().kill()
        assert "died" in (runner.run(loaded, feeds).failure or "")
        again = runner.load(perceptron())
        assert np.array_equal(runner.run(again, feeds).outputs[0], before.outputs[0])


def test_a_child_that_gives_no_answer_is_ended(perceptron):
    with Runner(limit=0.0) as runner:
        assert "within" in (runner.load(perceptron()).failure or "")


def test_given_inputs_are_one_more_trial_and_may_refute(perceptron):
    def late(weights):
        weights["first.bias"][2] = -1000

    def gone(weights):
        late(weights)
        weights["second.weight"][:, 2] = 0

    original, fixed = load(perceptron(edit=late)), perceptron("fixed.onnx", gone)
    assert prove(original, fixed).outcome == "held"
    large = 1e4 * np.sign(original.tensors["first.weight"].read()[2:3])
    proof = prove(original, fixed, given={"x": large})
    assert (proof.outcome, proof.trials) == ("refuted", 4)
    assert "no input 'z'" in prove(original, fixed, given={"z": large}).reason
    proof = prove(original, fixed, given={"x": large[:, :3]})
    assert (proof.outcome, proof.trials) == ("held", 3)
    assert "given inputs" in proof.reason


def test_outputs_that_are_random_prove_nothing(tmp_path):
    x = ("x", TensorProto.FLOAT, ["n", 4])

    def write(name, scale):
        nodes = [
            helper.make_node("RandomNormalLike", ["x"], ["r"], scale=scale),
            helper.make_node("Add", ["x", "r"], ["y"]),
        ]
        return saved(tmp_path / name, nodes, [x], [("y", TensorProto.FLOAT, ["n", 4])])

    proof = prove(load(write("a.onnx", 1.0)), write("b.onnx", 1.2))
    assert proof.outcome == "not runnable"
    assert "rounding" in proof.reason


def test_a_mask_of_the_largest_negative_number_makes_no_noise(tmp_path):
    x = ("x", TensorProto.FLOAT, ["n", 4])
    mask = np.array([0, -3.4028235e38, 0, -3.4028235e38], np.float32)
    nodes = [helper.make_node("Add", ["x", "mask"], ["m"]), helper.make_node("Softmax", ["m"], ["y"])]
    path = saved(tmp_path / "a.onnx", nodes, [x], [("y", TensorProto.FLOAT, ["n", 4])], {"mask": mask})
    assert prove(load(path), path).noise < 1e-5


def test_integers_are_compared_one_by_one(perceptron, tmp_path):
    def ranked(source, name):
        model = onnx.load(source)
        model.graph.node.append(helper.make_node("ArgMax", ["y"], ["best"], axis=1))
        model.graph.output[0].CopyFrom(helper.make_tensor_value_info("best", TensorProto.INT64, ["batch", 1]))
        onnx.save(model, tmp_path / name)
        return tmp_path / name

    def turned(weights):
        weights["second.weight"][:] = weights["second.weight"][[1, 2, 0]]

    original = ranked(perceptron(), "a.onnx")
    assert prove(load(original), original).outcome == "held"
    assert prove(load(original), ranked(perceptron("b.onnx", turned), "c.onnx")).outcome == "refuted"


def test_difference_is_relative_and_knows_values_that_are_not_finite():
    x = np.array([1e30, np.nan, np.inf, 2e30], np.float32)
    assert difference(x, x.copy()) == 0
    assert difference(x, x[:3]) == np.inf
    assert difference(x, x.astype(np.float64)) == np.inf
    assert difference(x, np.array([1e30, np.nan, -np.inf, 2e30], np.float32)) == np.inf
    assert difference(np.float32([1e-20, 0]), np.float32([1.1e-20, 0])) == pytest.approx(0.1, rel=1e-3)
    assert difference(np.array([1, 2, 3, 4]), np.array([1, 2, 3, 5])) == 0.25
    assert difference(np.zeros((0, 3)), np.zeros((0, 3))) == 0


def test_symbols_take_several_numbers_and_formulas_follow(tmp_path):
    nodes = [helper.make_node("Concat", ["past", "x"], ["y"], axis=1)]
    declared = [("past", TensorProto.FLOAT, ["b", "p", 3]), ("x", TensorProto.FLOAT, ["b", "p + 1", 3])]
    path = saved(tmp_path / "a.onnx", nodes, declared, [("y", TensorProto.FLOAT, ["b", "q", 3])])
    model = load(path)
    with Runner() as runner:
        taken = inputs(model, runner.load(path))
    shapes = [taken.shapes(sizes[0]) for sizes in choices(taken)]
    assert [s["x"][0] for s in shapes] == [s["past"][0] for s in shapes] == [1, 2, 5]
    assert len({s["past"][1] for s in shapes}) == 3
    assert all(s["x"][1] == s["past"][1] + 1 for s in shapes)
    assert prove(model, path).trials == 3


def test_the_cost_of_a_network_is_counted(perceptron):
    path = perceptron()
    found = measure(path, load(path))
    assert (found.nodes, found.parameters, found.bytes) == (3, 48, path.stat().st_size)
    assert found.multiply_adds == 4 * 6 + 6 * 3
    assert found.shapes == {"x": (1, 4)}
    timings = latency([path, path], load(path), given={}, lasting=0)
    assert all(0 < timing.seconds < 1 and 0 <= timing.spread < 1 for timing in timings)
    assert all(timing.shapes.keys() == set(load(path).graph.inputs) for timing in timings)


def test_two_networks_are_counted_for_the_same_sizes(tmp_path):
    def write(name, width):
        rng = np.random.default_rng(0)
        weights = {"w": rng.normal(size=(width, 3, 3, 3)).astype(np.float32)}
        nodes = [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])]
        declared = [("x", TensorProto.FLOAT, ["n", 3, "h", "w2"])]
        return saved(tmp_path / name, nodes, declared, [("y", TensorProto.FLOAT, ["n", width, "h", "w2"])], weights)

    wide, narrow = write("a.onnx", 8), write("b.onnx", 7 * 11 * 13 * 17)
    one, other = load(wide), load(narrow)
    assert one.symbols != other.symbols
    first, second = measure(wide, one), measure(narrow, other, like=one)
    assert first.shapes == second.shapes
    assert first.multiply_adds * 7 * 11 * 13 * 17 == second.multiply_adds * 8


def test_external_data_are_part_of_the_size(perceptron, tmp_path):
    path = tmp_path / "external" / "model.onnx"
    path.parent.mkdir()
    onnx.save(onnx.load(perceptron()), path, save_as_external_data=True, location="w.data", size_threshold=0)
    assert measure(path, load(path)).bytes == sum(f.stat().st_size for f in path.parent.iterdir())
    assert prove(load(path), path).outcome == "held"


def test_a_run_without_outputs_is_a_failure():
    assert Run(failure="why").outputs == ()


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["bert", "swin_v2", "lstm", "gpt2_past", "deeplabv3", "gcn", "resnet18.fp16"])
def test_networks_are_tried_at_several_sizes(name, shared):
    path = shared / "zoo" / f"{name}.onnx"
    if not path.exists():
        pytest.skip(f"no {path.name}")
    proof = prove(load(path), path)
    assert (proof.outcome, proof.difference) == ("held", 0.0)
    assert proof.trials >= 3


@pytest.mark.corpus
def test_a_file_that_kills_onnxruntime_when_it_is_optimised_is_proven_without(shared):
    path = shared / "zoo" / "lstm.fp16.onnx"
    assert prove(load(path), path).outcome in ("held", "not runnable")
