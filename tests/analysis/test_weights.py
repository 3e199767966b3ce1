"""What is worked out of levels when it is read: the numbers that working all of them out at once gives."""

import json

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from symlint.analysis.values.weights import Levels, Operand, Weight
from symlint.cli.main import cli
from symlint.model.clusters import BLOCK

RNG = np.random.default_rng(3)


def levels(dtype: str, channels: tuple[int, ...], shape: tuple[int, int] = (300, 700)) -> tuple[Levels, np.ndarray]:
    """Dequantised levels, with a zero point and a scale for every one of some channels."""
    info = np.iinfo(dtype)
    stored = RNG.integers(info.min, info.max, shape, endpoint=True).astype(dtype)
    zero = RNG.integers(max(info.min, -9), 9, channels).astype(np.float64)
    scale = RNG.uniform(0.5, 1.5, channels).astype(np.float32).astype(np.float64)
    made = Levels(lambda: stored, shape).then(Operand(np.subtract, zero, behind=True))
    return made.then(Operand(np.multiply, scale, behind=False)), (stored - zero) * scale


KINDS = [
    (dtype, channels) for dtype in ("int8", "uint8", "int16") for channels in ((1, 1), (300, 1), (1, 700), (300, 700))
]


@pytest.mark.parametrize(("dtype", "channels"), KINDS)
def test_levels_are_the_numbers_that_they_stand_for(dtype, channels):
    lazy, whole = levels(dtype, channels)
    assert np.array_equal(lazy(), whole)
    assert np.array_equal(lazy.present, whole != 0)
    assert lazy.full == (whole != 0).all()


@pytest.mark.parametrize(("dtype", "channels"), KINDS)
@pytest.mark.parametrize("turn", ["none", "transposed", "cut", "split"])
def test_a_view_of_levels_is_the_view_of_their_numbers(dtype, channels, turn):
    lazy, whole = levels(dtype, channels)
    views = {
        "none": lambda a: a,
        "transposed": lambda a: a.T,
        "cut": lambda a: a[20:220],
        "split": lambda a: a.reshape(300, 7, 100).transpose(1, 0, 2).reshape(7 * 300, 100),
    }
    wanted = views[turn](whole)
    seen = Weight(lazy.shape, "float64", lazy, ("w",), levels=True).view(wanted.shape, turn, views[turn]).read
    assert isinstance(seen, Levels)
    assert np.array_equal(seen(), wanted)
    assert np.array_equal(seen.present, wanted != 0)
    found = np.zeros(wanted.shape)
    for place, block in seen.blocks():
        assert block.size <= max(BLOCK, *wanted.shape)
        found[place] = block
    assert np.array_equal(found, wanted)


def test_levels_of_which_several_vanish_are_all_absent():
    stored = np.arange(-128, 128).astype(np.int8).reshape(16, 16)
    tiny = Levels(lambda: stored, (16, 16)).then(Operand(np.multiply, np.full((1, 1), 1e-33), behind=True))
    assert not tiny.present.any()
    assert not tiny.full


@pytest.mark.parametrize("each", [False, True], ids=["one scale", "a scale per row"])
def test_a_unit_of_a_quantised_recurrence_that_is_written_with_zeros_is_dead(tmp_path, each):
    width, dead = 12, [3, 7]
    zero = RNG.integers(-5, 5, (1, 4 * width) if each else (1,)).astype(np.int8)
    scale = RNG.uniform(0.01, 0.02, zero.shape).astype(np.float32)
    stored = {"x_s": scale, "x_z": zero, "h_s": scale, "h_z": zero, "out": RNG.normal(size=(width, 3))}
    for name in ("x_w", "h_w"):
        levels = RNG.integers(-127, 128, (1, width, 4, width)).astype(np.int8)
        levels[..., dead] = zero.reshape(1, 1, 4, -1)[..., dead] if each else zero  # all four gates
        stored[name] = levels.reshape(1, width, 4 * width)
    inputs = ["x", "x_w", "h_w", "", "", "", "", "", "x_s", "x_z", "h_s", "h_z"]
    nodes = [
        helper.make_node("DynamicQuantizeLSTM", inputs, ["all"], domain="com.microsoft", hidden_size=width),
        helper.make_node("MatMul", ["all", "out"], ["y"]),
    ]
    values = {name: v.astype(np.float32) if v.dtype == np.float64 else v for name, v in stored.items()}
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", [5, 1, 12]), ("y", [5, 1, 1, 3]))]
    graph = helper.make_graph(
        nodes, "g", ends[:1], ends[1:], [numpy_helper.from_array(v, name) for name, v in values.items()]
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "lstm.onnx")
    run = CliRunner().invoke(cli, ["check", "--select", "SYM101", "--format", "json", str(tmp_path / "lstm.onnx")])
    findings = json.loads(run.stdout)["models"][0]["findings"]
    assert [f["units"] for f in findings if f["rule"] == "SYM101"] == [dead]
