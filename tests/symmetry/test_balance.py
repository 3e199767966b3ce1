"""Balance: the function stays, the place depends on the function alone, and rounding costs less."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from corpora import SHARED
from numpy.testing import assert_allclose

from symlint.model.errors import UnreadableModel
from symlint.model.load import load
from symlint.model.saving import write
from symlint.runtime.verify import _Verification, same_function
from symlint.symmetry.gauge import convex
from symlint.symmetry.gauge.convex import Coarse
from symlint.symmetry.gauge.scales import Scales, balanced, two_sided
from symlint.symmetry.inference import examine
from symlint.symmetry.motion.teleport import teleport
from symlint.symmetry.structure import Structure

ZOO = sorted(p for p in (SHARED / "zoo").glob("*.onnx") if "." not in p.stem)
QUICK = ("deep_linear", "gated_reglu", "mlp_batchnorm.raw", "mlp_relu", "rnn_relu", "siamese")
LONGER = ("autoencoder_kl", "lora_gpt2", "mobilenet_v2", "resnext")
SMALL = (*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in LONGER))
AIMS = ("rounding", "norm")


def structure(path: Path) -> Structure:
    return examine(load(path))[1]


def weights(structure: Structure, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All floating tensors, with some replaced."""
    tensors = structure.program.model.tensors
    return {n: values[n] if n in values else t.read() for n, t in tensors.items() if t.floating}


def uneven(stored: dict[str, np.ndarray]) -> None:
    """Scales of six units over five orders of magnitude."""
    scales = np.float32(10.0) ** np.arange(-3, 3)
    stored["first.weight"] *= scales[:, None]
    stored["first.bias"] *= scales
    stored["second.weight"] /= scales


def rounding_error(structure: Structure, values: dict[str, np.ndarray], rng: np.random.Generator) -> float:
    """Of the perceptron's outputs, when each weight is rounded to 8 bits per tensor."""
    w = weights(structure, values)
    x = rng.standard_normal((1000, 4))

    def run(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        return np.maximum(x @ first.T + w["first.bias"], 0) @ second.T

    def rounded(value: np.ndarray) -> np.ndarray:
        step = np.abs(value).max() / 127
        return np.round(value / step) * step

    exact = run(w["first.weight"], w["second.weight"])
    return float(np.linalg.norm(run(rounded(w["first.weight"]), rounded(w["second.weight"])) - exact))


@pytest.mark.parametrize("aim", AIMS)
def test_uneven_scales_are_evened_and_the_function_stays(perceptron, tmp_path, aim):
    path, out = perceptron(edit=uneven), tmp_path / "out.onnx"
    found = structure(path)
    values = balanced(found, aim)
    write(path, values, out)
    assert same_function(load(path), load(out)).difference < 1e-5
    before, after = (rounding_error(found, v, np.random.default_rng(1)) for v in ({}, values))
    assert after < before / 20
    for name, value in values.items():
        assert value.dtype == np.float32
        assert np.array_equal(np.sign(value), np.sign(weights(found, {})[name]))


def test_the_least_norm_has_writers_as_large_as_readers(perceptron):
    """Biases do not count."""
    found = structure(perceptron(edit=uneven))
    w = weights(found, balanced(found, "norm"))
    np.testing.assert_allclose((w["first.weight"] ** 2).sum(1), (w["second.weight"] ** 2).sum(0), rtol=1e-5)


@pytest.mark.parametrize("aim", AIMS)
def test_a_unit_that_nothing_reads_keeps_its_scale(perceptron, aim):
    def kill(stored: dict[str, np.ndarray]) -> None:
        stored["second.weight"][:, 2] = 0
        stored["first.weight"][4] = 0

    found = structure(perceptron(edit=kill))
    before, after = weights(found, {}), weights(found, balanced(found, aim))
    assert np.array_equal(after["first.weight"][2], before["first.weight"][2])
    assert np.array_equal(after["second.weight"][:, 4], before["second.weight"][:, 4])
    assert not np.array_equal(after["first.weight"][0], before["first.weight"][0])


def test_what_would_leave_the_range_of_its_dtype_is_left_alone(perceptron):
    def burst(stored: dict[str, np.ndarray]) -> None:
        stored["first.weight"] *= 1e-6
        stored["second.weight"] *= 1e6
        stored["first.bias"][0] = 1e38

    assert balanced(structure(perceptron(edit=burst))) == {}


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["bert.int8_qdq", "bert.int4_blocks", "llama.int8_dynamic"])
def test_quantised_networks_are_left_alone(shared, name):
    assert balanced(structure(shared / "zoo" / f"{name}.onnx")) == {}


@pytest.mark.corpus
@pytest.mark.parametrize("aim", AIMS)
@pytest.mark.parametrize("name", SMALL)
def test_the_place_depends_on_the_function_alone_and_is_found_once(shared, tmp_path, name, aim):
    path = shared / "zoo" / f"{name}.onnx"
    found = structure(path)
    write(path, teleport(found, [a.id for a in two_sided(found)], 3), tmp_path / "moved.onnx")
    write(path, balanced(found, aim), tmp_path / "balanced.onnx")
    assert balanced(structure(tmp_path / "balanced.onnx"), aim) == {}
    moved = structure(tmp_path / "moved.onnx")
    one, other = weights(found, balanced(found, aim)), weights(moved, balanced(moved, aim))
    for tensor, value in one.items():
        assert np.abs(other[tensor] - value).max(initial=0) <= 1e-5 * np.abs(value).max(initial=0), tensor


@pytest.mark.corpus
@pytest.mark.parametrize("name", SMALL)
def test_no_neighbour_has_a_smaller_norm(shared, name):
    """Recurrent, tied and overlapping scales included."""
    found = structure(shared / "zoo" / f"{name}.onnx")
    scales = Scales(found, two_sided(found))
    w = {n: v.astype(np.float64) for n, v in weights(found, balanced(found, "norm")).items()}

    def norm(values: dict[str, np.ndarray]) -> float:
        total = 0.0
        for tensor in scales.tensors():
            step = found.program.affines.get(tensor)
            stored = found.program.weights[step.gain if step else tensor]
            variance = w[found.program.weights[step.var]] + step.epsilon if step else 1.0
            total += float((values.get(stored, w[stored]) ** 2 / variance).sum())
        return total

    least, rng = norm(w), np.random.default_rng(0)
    for _ in range(5):
        nearby = Scales(_with(found, w), scales.actions).apply(rng.normal(0, 0.05, scales.count))
        assert norm(nearby) > least * (1 - 1e-9)


def _with(found: Structure, values: dict[str, np.ndarray]) -> Structure:
    """The same structure over other weights."""
    tensors = {
        n: replace(t, read=lambda v=values[n]: v) if n in values else t for n, t in found.program.model.tensors.items()
    }
    program = replace(found.program, model=replace(found.program.model, tensors=tensors))
    return replace(found, program=program)


@pytest.mark.slow
@pytest.mark.corpus
@pytest.mark.parametrize("path", ZOO, ids=lambda p: p.stem)
def test_the_function_of_every_network_stays(path, tmp_path):
    """Within 1e-4 of the largest output, or what one unit in the last place of every weight changes 50 times over."""
    try:
        found = structure(path)
    except UnreadableModel as problem:
        pytest.skip(str(problem)[:200])
    values = balanced(found)
    if not values:
        pytest.skip("quantised, or no scale is free")
    write(path, values, tmp_path / "balanced.onnx")
    trial = same_function(found.program.model, load(tmp_path / "balanced.onnx"))
    if trial.outcome == "not runnable":
        pytest.skip(f"not runnable: {trial.reason[:150]}")
    halves = any(v.dtype.itemsize == 2 for v in values.values())
    allowed = 1e-2 if halves else 1e-4
    if trial.difference > allowed:
        trials = _Verification(found, tmp_path, 0)
        assert trials._begin() is None
        allowed = 50 * trials._noise(1, 1)
    assert trial.difference <= allowed


def test_groups_are_solved_as_a_dense_matrix_is():
    rng = np.random.default_rng(0)
    for count in (1, 2, 30):
        root = np.where(rng.random((count, count)) < 0.1, rng.normal(size=(count, count)), 0.0) + np.eye(count)
        matrix, right = root @ root.T, rng.normal(size=count)
        entries = [(int(i), int(j), float(matrix[i, j])) for i, j in np.argwhere(matrix)]
        assert_allclose(Coarse(entries, count).solve(right), np.linalg.solve(matrix, right), rtol=1e-8)
    assert Coarse([(1, 1, 2.0)], 3).solve(np.ones(3)).tolist() == [0.0, 0.5, 0.0]


@pytest.mark.parametrize("logarithms", [False, True])
def test_a_long_chain_takes_as_many_products_as_a_short_one(monkeypatch, logarithms):
    products = []
    real = convex._Model._bent
    monkeypatch.setattr(convex._Model, "_bent", lambda self, step: products.append(1) or real(self, step))
    rng, units, needed = np.random.default_rng(0), 4, []
    for layers in (20, 160):
        count = units * (layers - 1)
        tables = []
        for k in range(layers):
            written = np.arange(k * units, (k + 1) * units)[None, :] if k < layers - 1 else None
            read = np.arange((k - 1) * units, k * units)[:, None] if k else None
            holds = [convex.Hold(h, p) for h, p in ((written, 1.0), (read, -1.0)) if h is not None]
            tables.append(convex.table(rng.uniform(0.5, 1.0, (units, units)) * 10.0 ** rng.normal(), holds, count, 2))
        products.clear()
        logs = convex.minimum(tables, np.repeat(np.arange(layers - 1), units), logarithms=logarithms, pin=1e-4)
        needed.append(len(products))
        grows, shrinks = convex.pulls([t.moved(logs) for t in tables], count)
        if not logarithms:
            assert_allclose(grows + 2e-4 * logs, shrinks, rtol=1e-4)
    assert needed[1] < 2.5 * needed[0]
