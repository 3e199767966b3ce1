"""Results that are scattered into a place for them: no parameter, and written elsewhere when units go."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import Net

from symlint.lint.rule import rules
from symlint.model.load import load
from symlint.program.translate import parameters, translate
from symlint.repair.fixing import Wish, fix
from symlint.runtime.verify import same_function
from symlint.symmetry.inference import infer

GRID = np.stack(np.meshgrid(np.arange(2), np.arange(3), np.arange(4), indexing="ij"), -1)
"""Where the first four of six units of two batches of three tokens are written."""


def joined(front: np.ndarray, back: np.ndarray) -> Net:
    """Two halves of a hidden layer, written side by side into a buffer as exporters write assignments to slices."""
    return Net(
        """
        u = MatMul(x, a) v = Relu(u) w = MatMul(x, b) z = Relu(w)
        one = ScatterND(buffer, front, v) two = ScatterND(one, back, z) y = MatMul(two, c)
        """,
        {"a": (3, 4), "b": (3, 2), "c": (6, 2)},
        {"x": (3, 3)},
        3,
        6,
        {"buffer": np.zeros((2, 3, 6), np.float32), "front": front, "back": back},
    )


NET = joined(GRID, np.add(GRID, [0, 0, 4])[:, :, :2])


def save(net: Net, path: Path, dead: dict[str, list[int]]) -> Path:
    """Write a network whose units are not written where a tensor's columns are said to be dead."""
    values = net.values()
    for name, columns in dead.items():
        values[name][:, columns] = 0.0
    model = net.model("float32", values)
    for value in model.graph.input:
        value.type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(model, path)
    return path


def test_a_buffer_is_no_parameter(tmp_path: Path) -> None:
    model = load(save(NET, tmp_path / "net.onnx", {}))
    assert parameters(translate(model)) == {"a": 12, "b": 6, "c": 12}
    assert infer(model).dimension == 6


@pytest.mark.parametrize("dead", [{"a": [1]}, {"b": [0]}, {"a": [0, 3], "b": [1]}], ids=str)
def test_units_go_from_both_sides_of_a_buffer(dead: dict[str, list[int]], tmp_path: Path) -> None:
    source = save(NET, tmp_path / "net.onnx", dead)
    fixed = fix(str(source), tmp_path, Wish(rules()))
    assert fixed.proof is not None
    assert fixed.proof.outcome == "held"
    assert not fixed.left
    smaller = load(fixed.path)
    count = {name: len(columns) for name, columns in dead.items()}
    assert smaller.tensors["a"].shape == (3, 4 - count.get("a", 0))
    assert smaller.tensors["b"].shape == (3, 2 - count.get("b", 0))
    assert smaller.tensors["c"].shape == (6 - sum(count.values()), 2)
    assert same_function(load(source), smaller).outcome == "held"
