"""What a damaged file once broke, on small models of our own: each gets an ordinary answer now."""

from __future__ import annotations

import json
import math

import numpy as np
import onnx
import own_models
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from symlint.cli.main import cli


def check(model: onnx.ModelProto | bytes, tmp_path) -> tuple[int, str]:
    """Exit code and everything that was said."""
    path = tmp_path / "model.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    done = CliRunner().invoke(cli, ["--debug", "check", str(path), "--format", "json"])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert "please report" not in done.output
    json.loads(done.stdout)
    return done.exit_code, done.stdout


@pytest.mark.parametrize(
    "op",
    [
        "Add",
        "Sum",
        "Max",
        "Mean",
        "MatMul",
        "Gemm",
        "Concat",
        "Transpose",
        "Mul",
        "Gather",
        "MaxPool",
        "LayerNormalization",
    ],
)
@pytest.mark.parametrize("operands", [[], [""], ["", ""], ["x"], ["", "w"]])
def test_a_node_without_the_operands_of_its_operator(op, operands, tmp_path):
    model = own_models.perceptron()
    model.graph.node.append(helper.make_node(op, operands, ["z"]))
    model.graph.output.add(name="z")
    assert check(model, tmp_path)[0] in (0, 1, 4)


def test_parts_of_different_ranks_are_put_together(tmp_path):
    model = own_models.perceptron()
    model.graph.initializer.append(numpy_helper.from_array(np.ones((1, 1, 8), np.float32), "deep"))
    model.graph.initializer.append(numpy_helper.from_array(np.ones((1, 8), np.float32), "flat"))
    model.graph.node.append(helper.make_node("Concat", ["flat", "deep"], ["z"], axis=1))
    model.graph.output.add(name="z")
    assert check(model, tmp_path)[0] in (0, 1, 4)


def test_a_stored_tensor_of_a_thousand_axes(tmp_path):
    model = own_models.perceptron()
    model.graph.initializer[0].dims.extend([1] * 1000)
    code, said = check(model, tmp_path)
    assert code == 4
    assert "1002 dimensions" in said


@pytest.mark.parametrize("size", [2**27, 2**31, 2**40, 2**62, 2**63 - 1])
def test_an_axis_that_nobody_has(size, tmp_path):
    declared = own_models.perceptron()
    declared.graph.input[0].type.tensor_type.shape.dim[0].dim_value = size
    assert check(declared, tmp_path)[0] in (0, 4)
    wide = own_models.perceptron()
    wide.graph.input[0].type.tensor_type.shape.dim.add().dim_value = size
    assert check(wide, tmp_path)[0] in (0, 4)
    made = own_models.perceptron()
    made.graph.initializer.append(numpy_helper.from_array(np.int64([size, 8]), "shape"))
    made.graph.node.append(helper.make_node("Expand", ["x", "shape"], ["z"]))
    made.graph.output.add(name="z")
    assert check(made, tmp_path)[0] in (0, 4)


def test_an_axis_without_units(tmp_path):
    model = own_models.perceptron()
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((8, 0), np.float32), "empty"))
    model.graph.node.append(helper.make_node("MatMul", ["x", "empty"], ["z"]))
    model.graph.output.add(name="z")
    assert check(model, tmp_path)[0] in (0, 1)


def test_an_order_that_is_none(tmp_path):
    for order in ([0, 1] * 60, [0, 0], [5, 6], [-1, 0]):
        model = own_models.perceptron()
        model.graph.node.append(helper.make_node("Transpose", ["h"], ["z"], perm=order))
        model.graph.output.add(name="z")
        assert check(model, tmp_path)[0] in (0, 1, 4)


def test_the_name_of_a_dimension_is_no_text(tmp_path):
    data = own_models.perceptron().SerializeToString()
    code, _ = check(data.replace(b"batch", b"\xe2\x28\xa1\xff\xfe"), tmp_path)
    assert code in (0, 4)


def test_an_attribute_of_another_type(tmp_path):
    for name, value in (("axis", "one"), ("axis", [1.5]), ("axis", 2**62), ("perm", "ab"), ("kernel_shape", [])):
        for op in ("Softmax", "Concat", "Transpose", "MaxPool", "Split", "Gather", "Flatten"):
            model = own_models.perceptron()
            node = helper.make_node(op, ["h", "w"] if op in ("Concat", "Gather") else ["h"], ["z"])
            node.attribute.append(helper.make_attribute(name, value, attr_type=6 if value == [] else None))
            model.graph.node.append(node)
            model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, None))
            assert check(model, tmp_path)[0] in (0, 1, 4)


def test_a_window_over_a_vector(tmp_path):
    model = own_models.perceptron()
    model.graph.initializer.append(helper.make_tensor("flat", TensorProto.INT64, [1], [-1]))
    model.graph.node.append(helper.make_node("Reshape", ["h", "flat"], ["row"]))
    model.graph.node.append(helper.make_node("MaxPool", ["row"], ["z"], kernel_shape=[2, 2]))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 1, 2, 2]))
    code, said = check(model, tmp_path)
    assert code in (0, 1, 4)
    assert "internal error" not in said


@pytest.mark.parametrize("epsilon", [[1e-5, 1.0], "small"])
def test_an_epsilon_that_is_no_number(epsilon, tmp_path):
    model = own_models.perceptron()
    model.graph.initializer.append(helper.make_tensor("ones", TensorProto.FLOAT, [8], [1.0] * 8))
    inputs = ["h", "ones", "ones", "ones", "ones"]
    model.graph.node.append(helper.make_node("BatchNormalization", inputs, ["normed"], epsilon=epsilon))
    model.graph.node.append(helper.make_node("Relu", ["normed"], ["z"]))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 8]))
    code, said = check(model, tmp_path)
    assert code in (0, 1, 4)
    assert "internal error" not in said
    assert "this rule stopped" not in said


def test_copies_of_copies(tmp_path):
    model = own_models.perceptron()
    for k in range(12):
        parts = ["h" if not k else f"h{k}"] * 8
        model.graph.node.append(helper.make_node("Concat", parts, [f"h{k + 1}"], axis=1))
    model.graph.output.append(helper.make_tensor_value_info("h12", TensorProto.FLOAT, [1, 8**13]))
    code, said = check(model, tmp_path)
    assert code == 4
    assert "more memory than there is" in said


@pytest.mark.parametrize("op", ["LeakyRelu", "Elu", "Celu", "ThresholdedRelu", "HardSigmoid", "Selu"])
def test_a_slope_that_is_a_list(op, tmp_path):
    model = own_models.perceptron()
    model.graph.node.append(helper.make_node(op, ["h"], ["bent"], alpha=[1.0, 2.0]))
    model.graph.node.append(helper.make_node("Relu", ["bent"], ["z"]))
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 8]))
    code, said = check(model, tmp_path)
    assert code in (0, 1, 4)
    assert "internal error" not in said


@pytest.mark.parametrize("gain", [[1, 8, 1], [8, 1], [4], []])
def test_a_gain_that_is_no_vector_of_the_channels(gain, tmp_path):
    model = own_models.perceptron()
    graph = model.graph
    graph.initializer.append(helper.make_tensor("gain", TensorProto.FLOAT, gain, [1.0] * math.prod(gain)))
    graph.initializer.append(helper.make_tensor("ones", TensorProto.FLOAT, [8], [1.0] * 8))
    graph.node.append(helper.make_node("BatchNormalization", ["ones", "gain", "ones", "ones", "ones"], ["z"]))
    graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, [8]))
    code, said = check(model, tmp_path)
    assert code in (0, 1, 4)
    assert "internal error" not in said


def test_an_output_that_is_a_sequence(tmp_path):
    assert check(own_models.words(), tmp_path)[0] == 0


@pytest.mark.parametrize(
    "kind", [TensorProto.FLOAT8E5M2FNUZ, TensorProto.INT64, TensorProto.DOUBLE, TensorProto.UINT64]
)
def test_numbers_in_the_field_of_another_type_are_no_numbers(kind, tmp_path):
    model = own_models.perceptron()
    model.graph.initializer.append(TensorProto(name="one", data_type=kind, float_data=[1.0]))
    code, said = check(model, tmp_path)
    assert code == 4
    assert "holds 0 numbers; expected 1" in said


@pytest.mark.parametrize("form", ["full", "concise"])
def test_a_name_of_a_million_characters(form, tmp_path):
    model = own_models.perceptron()
    model.graph.node[0].input[0] = "n" * 1_000_000
    onnx.save(model, tmp_path / "model.onnx")
    told = CliRunner().invoke(cli, ["check", str(tmp_path / "model.onnx"), "--format", form])
    assert told.exit_code == 4
    assert len(told.output) < 50_000
