"""A file beside what `symlint fix` made of it: which units were removed, folded and merged is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import numpy_helper

from symlint.cli.main import cli

TEXT = (
    "g (float[batch, 5] x) => (float[batch, 3] y, float[batch, 2] z) {"
    " a = Gemm<transB = 1>(x, w, b) r = Relu(a) y = Gemm<transB = 1>(r, v, c) z = MatMul(r, u) }"
)


pytestmark = pytest.mark.usefixtures("no_clock")


def network(path: Path, dead: int, constant: int, equal: int, hidden: int = 14) -> Path:
    """A layer that two others read, with so many units that are dead, constant, and multiples of another."""
    rng = np.random.default_rng(2)
    shapes = {"w": (hidden, 5), "b": (hidden,), "v": (3, hidden), "c": (3,), "u": (hidden, 2)}
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    weights["v"][:, :dead], weights["u"][:dead] = 0, 0
    weights["w"][dead : dead + constant], weights["b"][dead : dead + constant] = 0, 0.5
    for k in range(equal):
        weights["w"][-1 - k], weights["b"][-1 - k] = (
            2 * weights["w"][dead + constant],
            2 * weights["b"][dead + constant],
        )
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {TEXT}')
    model.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in weights.items())
    onnx.save(model, path)
    return path


def call(*arguments: object) -> Any:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def compared(old: Path, new: Path) -> dict[str, Any]:
    """What diff tells of the weights."""
    document = json.loads(call("diff", old, new, "--format", "json").stdout)
    assert document["exit_code"] in (0, 1)
    return dict(document["weights"])


@pytest.mark.parametrize("flaws", [(2, 0, 0), (0, 2, 0), (0, 0, 3), (2, 1, 1), (3, 2, 2)], ids=str)
def test_units_are_told_by_what_became_of_them(flaws, tmp_path):
    old = network(tmp_path / "old.onnx", *flaws)
    new = tmp_path / "new.onnx"
    assert call("fix", old, "-o", new).exit_code == 0
    found = compared(old, new)
    assert found["matched"] == found["total"]
    assert found["unmatched_old"] == found["unmatched_new"] == []
    told = {one["verb"]: one["removed"] for one in found["repairs"]}
    words = ("removed", "folded into biases", "merged with others")
    assert told == {word: count for word, count in zip(words, flaws, strict=True) if count}
    statuses = {t["old"]: t["status"] for t in found["tensors"]}
    assert {statuses[name] for name in "wbvu"} == {"cut"}
    assert statuses["c"] == ("merged" if flaws[1] else "identical")
    printed = " ".join(call("diff", old, new).stdout.split())
    assert "the old file as symlint fix repairs it" in printed
    assert f"w: of 14 units {next(n for n in (flaws[1], flaws[0], flaws[2]) if n)}" in printed
    assert "not compared" not in printed


@pytest.mark.parametrize("name", ["w", "v", "c"])
def test_a_result_with_another_number_is_not_that_of_a_repair(name, tmp_path):
    old = network(tmp_path / "old.onnx", 2, 1, 1)
    new = tmp_path / "new.onnx"
    assert call("fix", old, "-o", new).exit_code == 0
    model = onnx.load(new)
    for tensor in model.graph.initializer:
        if tensor.name == name:
            values = numpy_helper.to_array(tensor).copy()
            values.reshape(-1)[1] += 0.1
            tensor.CopyFrom(numpy_helper.from_array(values, name))
    onnx.save(model, new)
    assert "as symlint fix repairs it" not in call("diff", old, new).stdout


def test_a_narrower_pair_of_layers_is_the_old_one_repaired(root, tmp_path):
    old, new = root / "fixtures" / "low_rank_encoder.onnx", tmp_path / "new.onnx"
    assert call("fix", old, "-o", new).exit_code == 0
    found = compared(old, new)
    assert [(one["where"], one["removed"]) for one in found["repairs"]] == [("down", 11)]
    assert found["matched"] == found["total"]
