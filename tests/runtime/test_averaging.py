"""The average over a group is the loop that it stands for, and goes along with the whole group."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from corpora import FIXTURES
from onnx import TensorProto
from test_equivariance import answers, rows, saved
from written import written

from symlint.cli.main import cli
from symlint.model.load import load
from symlint.runtime.groups import group
from symlint.runtime.runner import run

TEXT = "c = Conv<pads=[1,1,1,1]>(x, w, b) y = Relu(c) p = GlobalAveragePool(y) f = Flatten(p) z = MatMul(f, v)"
STORED = {"w": (4, 2, 3, 3), "b": (4,), "v": (4, 3)}


def call(*arguments: object):
    return CliRunner().invoke(cli, ["symmetrise", *map(str, arguments)])


@pytest.fixture
def network(tmp_path: Path) -> Path:
    inputs, outputs = {"x": ("n", 2, 6, 6)}, {"y": ("n", 4, 6, 6), "z": ("n", 3)}
    return saved(tmp_path / "m.onnx", TEXT, STORED, inputs, outputs)


def test_the_average_is_a_loop_of_the_original(network, tmp_path):
    out = tmp_path / "out.onnx"
    result = call(network, "-o", out, "--group", "flip:x:3", "--group", "turn:x:2")
    assert result.exit_code == 0, result.output
    assert "average over 8 transformations" in result.output
    x = np.random.default_rng(0).normal(size=(3, 2, 6, 6)).astype(np.float32)
    maps, scores = [], []
    for turns in range(4):
        for mirrored in (False, True):
            moved = np.rot90(x[..., ::-1] if mirrored else x, turns, (2, 3))
            (found,) = run([network], {"x": np.ascontiguousarray(moved)})
            back = np.rot90(found.outputs[0], -turns, (2, 3))
            maps.append(back[..., ::-1] if mirrored else back)
            scores.append(found.outputs[1])
    (made,) = run([out], {"x": x})
    np.testing.assert_allclose(made.outputs[0], np.mean(maps, axis=0), rtol=0, atol=1e-5)
    np.testing.assert_allclose(made.outputs[1], np.mean(scores, axis=0), rtol=0, atol=1e-5)


def test_what_was_broken_holds_in_the_average(network, tmp_path):
    out = tmp_path / "out.onnx"
    assert call(network, "-o", out, "--group", "flip:x:3", "--group", "turn:x:2").exit_code == 0
    assert onnx.load(out).graph.output[0].name == "y"
    wanted = [("flip", "x", 3), ("turn", "x", 2), ("flip", "x", 2)]
    before, after = (answers(rows(path, names=("flip", "turn"))) for path in (network, out))
    assert {before[(*key, "y")] for key in wanted} == {"broken"}
    assert {after[(*key, "y")] for key in wanted} == {"equivariant"}
    assert {after[(*key, "z")] for key in wanted} == {"invariant"}


@pytest.mark.parametrize(
    ("texts", "count"),
    [
        (["flip:x:3"], 2),
        (["flip:x:2", "flip:x:3"], 4),
        (["turn"], 4),
        (["turn:x:2", "flip:x:2", "flip:x:3"], 8),
        (["shift:x:3"], 6),
        (["permutation:x:1", "sign:x"], 4),
    ],
)
def test_a_group_has_every_element_once(network, texts, count):
    assert len(group(load(str(network)), texts)[1]) == count


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("flop:x:3", "no transformation 'flop'; did you mean 'flip'?"),
        ("flip:image:3", "has no input 'image': it takes x"),
        ("flip:x:4", "x has 4 axes, counted from 0"),
        ("flip:x", "expected NAME:INPUT:AXIS"),
        ("flip", "say which axis: flip:x:0, flip:x:1, flip:x:2, flip:x:3"),
        ("shift:x:0", "the axis has no fixed size"),
        ("permutation:x:3", "6 places have more than 64 orders"),
    ],
)
def test_a_group_that_is_none_is_told(network, tmp_path, text, told):
    result = call(network, "-o", tmp_path / "out.onnx", "--group", text)
    assert result.exit_code == 2
    assert told in result.output
    assert not (tmp_path / "out.onnx").exists()


def test_numbers_of_classes_have_no_average(tmp_path):
    path = written(
        tmp_path / "m.onnx",
        "h = MatMul(x, w) y = ArgMax(h)",
        {"w": np.eye(4)},
        (2, 4),
        (1, 4),
        kinds=(1, TensorProto.INT64),
    )
    result = call(path, "-o", tmp_path / "out.onnx", "--group", "flip:x:1")
    assert result.exit_code == 2
    assert "output 'y' is of type int64 and has no average" in result.output


def test_a_classifier_of_images(tmp_path):
    result = call(FIXTURES / "healthy_cnn.onnx", "-o", tmp_path / "out.onnx", "--group", "turn")
    assert result.exit_code == 0, result.output
