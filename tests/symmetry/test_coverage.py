"""Coverage: what is understood of the weights, and why the rest is not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from symlint.cli.main import cli
from symlint.model.load import load
from symlint.symmetry.inference import examine
from symlint.symmetry.spaces import Coverage


def network(
    file: Path, nodes: list, inputs: dict[str, int], outputs: dict[str, int], **weights: tuple[int, ...]
) -> Path:
    rng = np.random.default_rng(1)
    infos = [
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", n]) for name, n in ends.items()]
        for ends in (inputs, outputs)
    ]
    tensors = [numpy_helper.from_array(rng.normal(size=s).astype(np.float32), n) for n, s in weights.items()]
    graph = helper.make_graph(nodes, "g", *infos, tensors)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("custom", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), file)
    return file


def covered(file: Path) -> Coverage:
    return examine(load(str(file)))[0].coverage


def node(op: str, *names: str, **more: object) -> onnx.NodeProto:
    return helper.make_node(op, names[:-1], names[-1:], **more)


@pytest.fixture
def hidden(tmp_path):
    """Two layers with something between them; the weights are 4 x 6 and 6 x 3."""

    def write(*between: onnx.NodeProto, inputs=(), outputs=()) -> Path:
        nodes = [node("MatMul", "x", "w1", "h"), *between, node("MatMul", "r", "w2", "y")]
        ends = {"x": 4, **dict.fromkeys(inputs, 6)}, {"y": 3, **dict.fromkeys(outputs, 6)}
        return network(tmp_path / "m.onnx", nodes, *ends, w1=(4, 6), w2=(6, 3))

    return write


def test_hidden_axes_are_understood_and_ends_are_left_out(hidden):
    found = covered(hidden(node("Relu", "h", "r")))
    assert (found.understood, found.fixed, found.reasons) == (1.0, 0, ())


def test_a_state_is_not_understood(hidden):
    found = covered(hidden(node("Add", "h", "before", "r"), inputs=["before"], outputs=["r"]))
    assert found.understood == 0
    assert found.reasons == (("a state that goes in and comes out", 42.0),)


def test_an_unknown_operator_is_not_understood(hidden):
    found = covered(hidden(node("Riddle", "h", "r", domain="custom")))
    assert found.understood == 0
    assert sum(size for _, size in found.reasons) == 42


def test_what_inputs_and_outputs_hold_is_neither(tmp_path):
    file = network(tmp_path / "m.onnx", [node("MatMul", "x", "w", "y")], {"x": 4}, {"y": 3}, w=(4, 3))
    found = covered(file)
    assert (found.understood, found.fixed, found.audited) == (1.0, 12, 0.0)
    assert "audited 0% of 12 parameters; 100% fixed by inputs and outputs" in words(call(file))


def test_a_model_without_weights_is_told(tmp_path):
    file = network(tmp_path / "m.onnx", [node("Relu", "x", "y")], {"x": 4}, {"y": 4})
    result = call(file, "--min-understood", "100")
    assert result.exit_code == 0
    assert "no weights: there is nothing to audit" in words(result)


def call(*arguments: object):
    return CliRunner().invoke(cli, ["check", *map(str, arguments)])


def words(result) -> str:
    """What is printed, without the ends of lines."""
    return " ".join(result.output.split())


def test_too_little_is_an_incomplete_audit(hidden, monkeypatch, tmp_path):
    file = hidden(node("Add", "h", "before", "r"), inputs=["before"], outputs=["r"])
    assert call(file).exit_code == 0
    result = call(file, "--min-understood", "95%")
    assert result.exit_code == 4
    assert "0.0% is understood, and --min-understood asks for 95%" in words(result)
    assert call(file, "--min-understood", "101").exit_code == 2
    monkeypatch.chdir(tmp_path)
    (tmp_path / "symlint.toml").write_text("min-understood = 50")
    assert call(file).exit_code == 4


def test_reasons_are_in_json_and_with_v(hidden):
    file = hidden(node("Add", "h", "before", "r"), inputs=["before"], outputs=["r"])
    (model,) = json.loads(call(file, "--format", "json").stdout)["models"]
    assert model["coverage"]["understood"] == 0
    assert model["not_understood"] == [{"reason": "a state that goes in and comes out", "parameters": 42.0}]
    assert "not understood: 100%: a state" in words(call(file, "-v"))
    assert "a state" not in words(call(file))
    inspected = json.loads(CliRunner().invoke(cli, ["inspect", str(file), "--format", "json"]).stdout)
    assert inspected["parameters"]["understood"] == 0


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["gpt2", "bert", "resnet18", "vit_timm", "lstm"])
def test_parts_make_a_whole(shared, name):
    found = covered(shared / "zoo" / f"{name}.onnx")
    assert 0 <= found.understood <= 1
    lost = sum(size for _, size in found.reasons)
    assert found.audited + found.fixed + lost == pytest.approx(found.total)
    assert found.understood > 0.9


@pytest.mark.corpus
def test_a_network_held_by_its_cache_does_not_read_as_understood(shared):
    """Its hidden state goes in and comes out of every call."""
    found = covered(shared / "models" / "dtln-model-1-lstm.onnx")
    assert found.understood < 0.1
