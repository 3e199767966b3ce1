"""Names of layers and nodes: every finding has them, and none is a number or a word that says nothing."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from symlint.cli.main import cli
from symlint.model.graph import Graph, Model, Node, Tensor
from symlint.model.naming import Names, stem


def model(*nodes: Node, tensors: tuple[str, ...]) -> Model:
    stored = {name: Tensor(name, (2, 2), "float32", lambda: None) for name in tensors}
    return Model("m.onnx", None, 17, "", Graph(nodes, ("x",), ("y",)), stored, {}, {}, {}, {})


def node(op: str, name: str, *inputs: str, output: str = "out") -> Node:
    return Node(op, name, inputs, (output,), {}, 17)


@pytest.mark.parametrize(
    ("tensor", "reader", "layer"),
    [
        ("net.conv1.weight", "", "net.conv1"),
        ("onnx::Conv_202", "/net/layer1/layer1.1/conv1/Conv", "net.layer1.1.conv1"),
        ("onnx::Conv_202", "Conv_12", "Conv_12"),
        ("onnx::Conv_202", "", "Conv onnx::Conv_202"),
        ("0", "", "Conv 0"),
        ("0", "7", "Conv 0"),
        ("units", "", "Conv units"),
        ("weight", "Conv_3", "Conv_3"),
        ("units.weight", "units", "Conv units"),
        ("conv2d_5.w_0", "p2o.Conv.3", "conv2d_5"),
        ("model/dense/MatMul/ReadVariableOp/resource:0", "", "model/dense/MatMul"),
        ("dense/kernel:0", "", "dense"),
    ],
)
def test_layers_have_names(tensor, reader, layer):
    names = Names(model(node("Conv", reader, "x", tensor), tensors=(tensor,)))
    assert names.layer(tensor) == layer
    where = names.where(tensor)
    assert where is not None
    assert where == (reader or "Conv -> out", "Conv")


def test_two_tensors_of_one_module_are_two_layers():
    nodes = [node("MatMul", f"/net/attn/MatMul{k}", "x", str(k), output=f"y{k}") for k in range(2)]
    names = Names(model(*nodes, tensors=("0", "1")))
    assert [names.layer("0"), names.layer("1")] == ["net.attn", "net.attn.MatMul1"]
    assert names.borrowed == {"0": "net.attn.weight", "1": "net.attn.MatMul1.weight"}


def test_a_node_is_told_behind_what_hands_its_weight_on():
    nodes = [node("Transpose", "t", "kernel", output="w'"), node("MatMul", "product", "x", "w'", output="y")]
    names = Names(model(*nodes, tensors=("kernel",)))
    assert names.where("kernel") == ("product", "MatMul")
    assert names.layer("kernel") == "product"
    assert names.spoken("kernel") == "kernel"
    assert names.written("y") == ("product", "MatMul")
    assert names.where("nothing") is None


def test_stems_are_never_empty():
    for name in ("weight", ".weight", "/ReadVariableOp:0", ":0", ""):
        assert stem(name) or not name


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["fastestdet-coco", "marabou-cifar-deep-kw", "deeploy-cct2-op20", "picodet-s-320"])
def test_findings_name_layers_as_inspect_does_and_nodes(shared, name):
    file = str(shared / "models" / f"{name}.onnx")
    checked = CliRunner().invoke(cli, ["check", file, "--fail-on", "never", "--format", "json"])
    (report,) = json.loads(checked.stdout)["models"]
    spaces = json.loads(CliRunner().invoke(cli, ["inspect", file, "--format", "json"]).stdout)["spaces"]
    layers = {space["id"]: space["name"] for space in spaces}
    assert report["findings"]
    for finding in report["findings"]:
        assert finding["node"]
        assert finding["op"]
        assert finding["layer"] == layers.get(finding["space"], finding["layer"])
        assert "of onnx::" not in finding["message"]
