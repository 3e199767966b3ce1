"""Gauges for int8 and int4: what onnxruntime's own quantisers make of a network gains, or nothing is moved."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper
from onnx.parser import parse_graph
from stateful_networks import STATEFUL

from symlint.cli.main import cli
from symlint.model.load import load
from symlint.repair.rounding import _descended, _hadamard, _noise, _smoothed, sought
from symlint.runtime.precision import BITS, Quantiser
from symlint.runtime.proof import prove
from symlint.symmetry.inference import examine

WIDTH = 64


def network(path: Path, text: str, weights: Mapping[str, np.ndarray]) -> Path:
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", WIDTH]) for n in "xy"]
    nodes = list(parse_graph(f"g () => () {{ {text} }}").node)
    tensors = [numpy_helper.from_array(v.astype(np.float32), n) for n, v in weights.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def drawn(seed: int, *names: str, rows: int = WIDTH) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=(rows, WIDTH)) / np.sqrt(rows) for name in names}


def uneven(path: Path) -> Path:
    """Two linear maps, between which some coordinates are a hundred times as large as others."""
    weights = drawn(1, "a", "b")
    sizes = np.exp(np.random.default_rng(2).normal(0, 2, WIDTH))
    basis, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(WIDTH, WIDTH)))
    weights["a"], weights["b"] = weights["a"] * sizes, (weights["b"].T / sizes).T
    weights["c"] = basis * np.where(np.arange(WIDTH) % 16 == 0, 20.0, 1.0)[:, None]
    return network(path, "u = MatMul(x, a) v = MatMul(u, b) w = Relu(v) y = MatMul(w, c)", weights)


def fixed(path: Path, target: str) -> tuple[dict[str, object], Path]:
    out = path.with_name(f"{target}.onnx")
    done = CliRunner().invoke(cli, ["fix", str(path), "--target", target, "-o", str(out), "-f", "json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.output), out


class Weights:
    """A judge that runs nothing: signal to noise of the worst weight, or worse whatever is moved, or uneven gains."""

    def __init__(self, target: str, *, spoils: bool = False, wavers: bool = False) -> None:
        self.target, self.spoils, self.wavers, self.count = target, spoils, wavers, 0

    def decibels(self, path: Path) -> tuple[float, ...]:
        self.count += 1
        weights = [numpy_helper.to_array(t).astype(float) for t in onnx.load(path).graph.initializer]
        worst = min(_noise(weight, self.target) for weight in weights)
        return (worst, -self.count if self.spoils else worst * (10 if self.wavers else 1))

    def sizes(self, path: Path, values: Mapping[str, int]) -> dict[str, np.ndarray]:
        return {}


@pytest.mark.parametrize("target", BITS)
def test_moves_keep_the_function_and_are_made_where_both_sets_of_inputs_gain(target, tmp_path):
    path = uneven(tmp_path / "model.onnx")
    found = sought(path, {}, Weights(target), tmp_path)
    assert found.after > found.before + 1
    assert prove(load(str(path)), found.path).outcome == "held"
    assert found.layers
    assert any(made for _, _, made in found.tried)
    for judge in (Weights(target, spoils=True), Weights(target, wavers=True)):
        refused = sought(path, {}, judge, tmp_path)
        assert refused.path == path
        assert refused.after == refused.before
        assert not any(made for _, _, made in refused.tried)


@pytest.mark.slow
@pytest.mark.parametrize("target", BITS)
def test_a_move_is_made_because_the_quantiser_rounds_less(target, tmp_path):
    path = uneven(tmp_path / "model.onnx")
    told, out = fixed(path, target)
    gains = told["repairs"][-1]["gains"]
    assert gains[0].startswith("quantised, the outputs have ")
    assert told["proof"]["outcome"] == "held"
    with Quantiser(load(str(path)), target, 77, {}) as judge:  # on inputs that the search has not seen
        assert min(judge.decibels(out)) > max(judge.decibels(path)) + 1


@pytest.mark.slow
def test_where_nothing_can_be_gained_nothing_is_moved(tmp_path):
    path = network(tmp_path / "model.onnx", "u = MatMul(x, a) t = Tanh(u) y = MatMul(t, b)", drawn(5, "a", "b"))
    told, out = fixed(path, "int4")
    if not told["repairs"]:
        assert out.read_bytes() == path.read_bytes()
    else:  # an order of units may gain by chance, and then has to have gained
        assert "(not made)" not in told["repairs"][-1]["gains"][1].split(", ")[-1]


@pytest.mark.slow
def test_a_network_of_which_int4_rounds_nothing_is_told(tmp_path):
    path = network(tmp_path / "model.onnx", "u = Gemm(x, a) y = Relu(u)", drawn(5, "a"))
    done = CliRunner().invoke(cli, ["fix", str(path), "--target", "int4", "--dry-run"])
    assert "onnxruntime quantises nothing of the network (it rounds weights of MatMul alone)" in " ".join(
        done.output.split()
    )


def test_check_takes_the_target_and_judges_nothing_by_it(tmp_path):
    path = uneven(tmp_path / "model.onnx")
    done = CliRunner().invoke(cli, ["check", str(path), "--target", "int4"])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("n", [1, 6, 8, 48])
def test_rotations_are_orthogonal_and_descend(n):
    rng = np.random.default_rng(n)
    rows = rng.standard_t(3, (200, n))
    start = _hadamard(n, rng)
    there = _descended(rows, start)
    for turn in (start, there):
        assert np.allclose(turn.T @ turn, np.eye(n))
    assert ((rows @ there) ** 4).sum() <= ((rows @ start) ** 4).sum()


class Seen(Weights):
    """A judge that has seen some channels to be large."""

    def sizes(self, path: Path, values: Mapping[str, int]) -> dict[str, np.ndarray]:
        return {name: np.where(np.arange(WIDTH) % 16 == 3, 25.0, 1.0) for name in values}


def test_large_channels_of_a_normalisation_go_into_the_weights_that_read_them(tmp_path):
    weights = {**drawn(1, "a", "b"), "g": np.ones(WIDTH), "h": np.zeros(WIDTH)}
    text = "n = LayerNormalization(x, g, h) u = MatMul(n, a) r = Sigmoid(u) y = MatMul(r, b)"
    structure = examine(load(str(network(tmp_path / "m.onnx", text, weights))))[1]
    moved = _smoothed(structure, Seen("int8"))
    assert set(moved) == {"g", "a"}
    assert np.allclose(moved["g"][:, None] * moved["a"], weights["a"], rtol=1e-5)
    ratio = np.sqrt(np.abs(weights["a"]).max(1) / np.where(np.arange(WIDTH) % 16 == 3, 25.0, 1.0))
    assert np.allclose(moved["g"] / moved["g"][0], ratio / ratio[0], rtol=1e-5)


@pytest.mark.slow
def test_channels_are_scaled_where_given_inputs_show_that_it_pays(tmp_path):
    weights = {**drawn(1, "a", "b"), "g": np.ones(WIDTH), "h": np.zeros(WIDTH)}
    text = "n = LayerNormalization(x, g, h) u = MatMul(n, a) r = Relu(u) y = MatMul(r, b)"
    path = network(tmp_path / "model.onnx", text, weights)
    sizes = np.where(np.arange(WIDTH) % 16 == 3, 30.0, 1.0)
    one, other = ((np.random.default_rng(k).normal(size=(256, WIDTH)) * sizes).astype(np.float32) for k in (0, 1))
    with Quantiser(load(str(path)), "int4", 0, {"x": one}) as judge:
        found = sought(path, {}, judge, tmp_path)
    assert {name for name, _, made in found.tried if made} == {"channels"}
    with Quantiser(load(str(path)), "int4", 77, {"x": other}) as judge:
        assert min(judge.decibels(found.path)) > max(judge.decibels(path)) + 1


@pytest.mark.slow
def test_a_network_with_closed_loops_is_judged_with_its_states_as_inputs(tmp_path):
    """What is left alone is told, with the figures."""
    path, out = tmp_path / "model.onnx", tmp_path / "out.onnx"
    onnx.save(STATEFUL["rectified"].model(), path)
    called = CliRunner().invoke(
        cli, ["fix", str(path), "--states", "auto", "--target", "int8", "-o", str(out), "-f", "json"]
    )
    told = json.loads(called.output)
    (row,) = (one for one in (*told["left"], *told["repairs"]) if one["name"] == "rounding-gauge")
    assert "dB of signal to noise" in (row["reason"] if "gains" not in row else row["gains"][0])
