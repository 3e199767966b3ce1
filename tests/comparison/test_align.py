"""A network moved along its symmetries comes back; another network comes nearer; and what is written is proven."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from corpora import ROOT, SHARED
from onnx import numpy_helper
from written import written

import symlint
from symlint.cli.main import cli
from symlint.comparison.alignment.fits import parities
from symlint.comparison.alignment.slopes import Course
from symlint.evidence.context import Context
from symlint.model.load import load
from symlint.runtime.runner import run
from symlint.runtime.verify import Trial
from symlint.symmetry.inference import examine

HEALTHY = ROOT / "fixtures" / "healthy_cnn.onnx"
SAME = 1e-4


def call(*arguments: object):
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def align(first: Path, second: Path, *flags: object, code: int = 0) -> dict[str, Any]:
    result = call("align", first, second, *flags, "--format", "json")
    assert result.exit_code == code, result.output
    document = json.loads(result.stdout)
    assert document["exit_code"] == code
    return document


def teleported(model: Path, folder: Path, *flags: object) -> Path:
    out = folder / "moved.onnx"
    assert call("teleport", model, "-o", out, "--seed", 5, *flags).exit_code == 0
    return out


def weights(path: Path) -> dict[str, np.ndarray]:
    return {i.name: numpy_helper.to_array(i) for i in onnx.load(path).graph.initializer}


def test_a_moved_network_comes_back_and_is_proven(tmp_path):
    moved, out = teleported(HEALTHY, tmp_path), tmp_path / "out.onnx"
    found = align(HEALTHY, moved, "-o", out)
    assert found["distance"]["before"]["relative"] > 1 > SAME > found["distance"]["after"]["relative"]
    assert found["units"]["matched"] == 1
    assert (found["proof"]["outcome"], found["written"]) == ("held", str(out))
    for name, values in weights(HEALTHY).items():
        np.testing.assert_allclose(weights(out)[name], values, atol=1e-5 * np.abs(values).max())


# A residual stream that is rotated with heads within, a norm over groups, rank below width, two-sided signs, a bent
# shift, a recurrence, scales of batch normalisations, many signs of one stream, a chain of matrices of which some see
# little of others, signs of planes in each head, and scales of places.
NETWORKS = (
    "vit_timm", "gpt2", "lora_linear", "mlp_tanh", "lstm", "mlp_batchnorm.raw", "convnext_v2", "densenet.raw",
    "rwkv", "deep_linear", "deep_linear_bias", "olmo2_mha", "ddpm_unet",
)  # fmt: skip


@pytest.mark.corpus
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_every_kind_come_back(name, tmp_path):
    model = SHARED / "zoo" / f"{name}.onnx"
    found = align(model, teleported(model, tmp_path))
    assert found["distance"]["after"]["relative"] < SAME
    assert found["units"]["matched"] == 1


def test_a_layer_from_a_stream_to_itself_does_not_say_what_its_units_are(tmp_path):
    rng = np.random.default_rng(0)
    shapes = {"a": (24, 2), "p": (24,), "c": (24, 24), "q": (24,), "d": (24, 8), "e": (8, 3)}
    text = """u = Gemm<transB = 1>(x, a, p)  h = Relu(u)
        v = Gemm(h, c, q)  r = Relu(v)  s = Add(h, r)
        w = MatMul(s, d)  t = Relu(w)  y = MatMul(t, e)"""
    tensors = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    model = written(tmp_path / "model.onnx", text, tensors, x=(None, 2))
    found = align(model, teleported(model, tmp_path))
    assert found["distance"]["after"]["relative"] < SAME
    assert found["units"]["matched"] == 1


def test_inputs_that_are_divided_by_what_they_vary_are_in_one_gauge(tmp_path):
    rng = np.random.default_rng(1)
    shapes = {"m": (6,), "s": (6,), "a": (6, 12), "b": (12,), "c": (12, 4)}
    tensors = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    tensors["s"] = np.exp(4 * tensors["s"])
    text = "u = Sub(x, m) v = Div(u, s) w = MatMul(v, a) p = Add(w, b) h = Relu(p) y = MatMul(h, c)"
    model = written(tmp_path / "model.onnx", text, tensors, x=(None, 6))
    found = align(model, teleported(model, tmp_path))
    assert found["distance"]["after"]["relative"] < SAME
    assert found["units"]["matched"] == 1


def test_another_network_comes_nearer_and_stays_itself(tmp_path):
    decayed, out = ROOT / "fixtures" / "decayed_cnn.onnx", tmp_path / "out.onnx"
    found = align(HEALTHY, decayed, "-o", out)
    before, after = (found["distance"][when]["relative"] for when in ("before", "after"))
    assert after < before
    assert call("verify", decayed, out).exit_code == 0


def _stranger(path: Path, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A ReLU network with scales of its own: how large what writes each unit is, beside what reads it."""
    rng = np.random.default_rng(seed)
    scale = np.exp(rng.normal(size=16))
    into, out = rng.normal(size=(32, 16)) * scale, rng.normal(size=(16, 8)) / scale[:, None]
    text = "h = MatMul(x, a) u = Relu(h) y = MatMul(u, b)"
    written(path, text, {"a": into, "b": out}, x=(None, 32))
    return into, out


def test_of_two_trainings_what_reads_a_unit_is_as_large(tmp_path):
    paths = [tmp_path / f"{k}.onnx" for k in range(2)]
    (_, out), _ = map(_stranger, paths, range(2))
    align(*paths, "-o", tmp_path / "out.onnx")
    moved = weights(tmp_path / "out.onnx")["b"]
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), np.linalg.norm(out, axis=1), rtol=1e-4)


def test_many_signs_are_those_that_the_largest_products_agree_on():
    rng = np.random.default_rng(0)
    patterns = [tuple(map(bool, row)) for row in rng.integers(0, 2, (20, 9))]
    flips = rng.integers(0, 2, (9, 6)).astype(bool)
    wrong = {p: np.logical_xor.reduce(flips[list(p)], axis=0) if any(p) else np.zeros(6, bool) for p in patterns}
    found = parities({p: np.where(wrong[p], -1.0, 1.0) for p in patterns})
    for p in patterns:
        np.testing.assert_array_equal(np.logical_xor.reduce(found[list(p)], axis=0), wrong[p])


def test_networks_of_two_kinds_are_not_aligned(tmp_path):
    out = tmp_path / "out.onnx"
    found = align(HEALTHY, ROOT / "fixtures" / "collinear_mlp.onnx", "-o", out, code=4)
    assert not found["written"]
    assert not out.exists()


def test_nothing_is_written_where_the_proof_fails(tmp_path, monkeypatch):
    refuted = Trial("function", "function", 0.5, "refuted")
    monkeypatch.setattr("symlint.comparison.alignment.align.same_function", lambda *given: refuted)
    out = tmp_path / "out.onnx"
    found = align(HEALTHY, teleported(HEALTHY, tmp_path), "-o", out, code=5)
    assert found["proof"]["outcome"] == "refuted"
    assert not out.exists()
    assert "nothing is written" in call("align", HEALTHY, tmp_path / "moved.onnx", "-o", out).stdout


def test_an_average_is_written_of_what_was_proven(tmp_path):
    moved, out = teleported(HEALTHY, tmp_path), tmp_path / "out.onnx"
    assert align(HEALTHY, moved, "--merge", "0.3", "-o", out)["merged"]
    assert call("verify", HEALTHY, out).exit_code == 0
    decayed = ROOT / "fixtures" / "decayed_cnn.onnx"
    found = align(HEALTHY, moved, decayed, "--merge", "mean", "-o", out)
    assert [one["proof"]["outcome"] for one in (found, *found["others"])] == ["held", "held"]
    third = align(HEALTHY, decayed, "-o", tmp_path / "third.onnx")
    assert third["written"]
    for name, values in weights(out).items():
        mean = (2 * weights(HEALTHY)[name] + weights(tmp_path / "third.onnx")[name]) / 3
        np.testing.assert_allclose(values, mean, atol=1e-5 * max(np.abs(mean).max(), 1))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--merge", "2", "-o", "x.onnx"), "between 0 and 1"),
        (("--merge", "0.5"), "-o OUT"),
        ((HEALTHY, "-o", "x.onnx"), "--merge mean"),
    ],
)
def test_a_merge_that_cannot_be_is_refused_in_a_line(flags, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = call("align", HEALTHY, HEALTHY, *flags)
    assert result.exit_code == 2
    assert words in result.stderr


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["llama", "lora_linear"])
def test_diff_knows_what_teleport_moves(name, tmp_path):
    model = SHARED / "zoo" / f"{name}.onnx"
    result = call("diff", model, teleported(model, tmp_path), "--format", "json")
    found = json.loads(result.stdout)["weights"]
    assert found["changed"] == 0
    assert found["moved"] + found["identical"] + found["rounded"] == len(found["tensors"])


def test_without_scipy_a_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    result = call("align", HEALTHY, HEALTHY)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "pip install 'symlint[align]'" in result.stderr


def test_a_model_is_not_written_over():
    assert call("align", HEALTHY, HEALTHY, "-o", HEALTHY).exit_code == 2


def test_from_python_the_moved_network_is_a_value(tmp_path):
    moved, found = symlint.align(HEALTHY, teleported(HEALTHY, tmp_path))
    assert found.proof is not None
    assert (found.exit_code, found.proof.outcome) == (0, "held")
    name = moved.graph.initializer[0].name
    np.testing.assert_allclose(numpy_helper.to_array(moved.graph.initializer[0]), weights(HEALTHY)[name], atol=1e-5)


def test_nothing_is_near_a_number_that_is_none(tmp_path):
    model = onnx.load(HEALTHY)
    stored = next(t for t in model.graph.initializer if t.name == "conv2.weight")
    values = numpy_helper.to_array(stored).copy()
    values[3, 1] = np.nan
    stored.CopyFrom(numpy_helper.from_array(values, stored.name))
    onnx.save(model, tmp_path / "broken.onnx")
    for pair in ((HEALTHY, tmp_path / "broken.onnx"), (tmp_path / "broken.onnx", HEALTHY)):
        result = call("align", *pair)
        assert (result.exit_code, "broken.onnx: conv2.weight holds NaN" in result.output) == (2, True)


def test_more_units_than_can_be_assigned_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr("symlint.comparison.alignment.search.WIDEST", 24)
    found = align(HEALTHY, teleported(HEALTHY, tmp_path, "--kinds", "permutation"))
    assert [space["units"] for space in found["spaces"]] == [16, 24]
    assert found["unfitted"] == ["S3.permutation", "S4.permutation"]


CLASSES = np.arange(64) % 3


def _normalised(path: Path, seed: int) -> Path:
    """A network whose running statistics are far from what it sees."""
    rng = np.random.default_rng(seed)
    shapes = {"a": (4, 8), "g": (8,), "b": (8,), "m": (8,), "v": (8,), "c": (8, 3)}
    tensors = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    tensors["v"] = np.exp(tensors["v"])
    text = "u = MatMul(x, a) n = BatchNormalization(u, g, b, m, v) h = Relu(n) y = MatMul(h, c)"
    return written(path, text, tensors, x=(None, 4))


def _gained(path: Path, seed: int, gains: np.ndarray) -> Path:
    """A network with other gains, of which what is normalised has a size of one."""
    model, other = onnx.load(_normalised(path, seed)), {"g": gains, "m": np.zeros(8), "v": np.ones(8)}
    for tensor in model.graph.initializer:
        if tensor.name in other:
            tensor.CopyFrom(numpy_helper.from_array(other[tensor.name].astype(np.float32), tensor.name))
    onnx.save(model, path)
    return path


def test_gains_of_two_trainings_have_the_same_signs(tmp_path):
    """What else two trainings have in common says less than that both leave gains positive."""
    rng, came = np.random.default_rng(0), 0
    for seed in range(5):
        gains = rng.uniform(0.5, 1.5, (2, 8)) * [np.ones(8), rng.choice([-1, 1], 8)]
        paths = [_gained(tmp_path / f"{k}.onnx", 5 * k + seed, gains[k]) for k in range(2)]
        found = align(*paths, "-o", tmp_path / "out.onnx")["distance"]
        # Strangers so small may be as near where they are.
        if found["after"]["absolute"] < found["before"]["absolute"]:
            came += 1
            assert (weights(tmp_path / "out.onnx")["g"] > 0).all()
    assert came >= 3


def test_a_unit_without_a_gain_has_its_sign_of_what_writes_it(tmp_path):
    path = _gained(tmp_path / "m.onnx", 2, np.array([0, 0, 0, 1, 1, -1, 1, 1]))
    found = align(path, teleported(path, tmp_path, "--seed", "1"), "-o", tmp_path / "out.onnx")
    assert found["distance"]["after"]["relative"] < 1e-6


@pytest.fixture
def data(tmp_path):
    np.save(tmp_path / "x.npy", np.random.default_rng(3).normal(size=(64, 4)).astype(np.float32))
    np.save(tmp_path / "y.npy", CLASSES)
    return "--input", f"x:{tmp_path / 'x.npy'}"


def test_an_average_has_the_statistics_of_data(tmp_path, data):
    paths, out = [_normalised(tmp_path / f"{k}.onnx", k) for k in range(2)], tmp_path / "out.onnx"
    assert align(*paths, "--merge", "0.5", "-o", out)["stale_statistics"]
    assert not align(*paths, "--merge", "0.5", "-o", out, *data)["stale_statistics"]
    stored = weights(out)
    seen = np.load(tmp_path / "x.npy") @ stored["a"]
    np.testing.assert_allclose(stored["m"], seen.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(stored["v"], seen.var(axis=0), rtol=1e-4)


def test_the_loss_is_told_along_the_line(tmp_path, data):
    paths = [tmp_path / f"{k}.onnx" for k in range(2)]
    rng = np.random.default_rng(2)
    ends = []
    for path in paths:
        a, c = rng.normal(size=(4, 8)), rng.normal(size=(8, 3))
        written(path, "h = MatMul(x, a) u = Relu(h) y = MatMul(u, c)", {"a": a, "c": c}, x=(None, 4))
        scores = np.maximum(np.load(tmp_path / "x.npy") @ a, 0) @ c
        logs = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
        ends.append(-logs[np.arange(64), CLASSES].mean())
    line = align(*paths, *data, "--labels", tmp_path / "y.npy")["line"]
    assert line["points"] == [0, 0.25, 0.5, 0.75, 1]
    np.testing.assert_allclose([line["losses"][0], line["losses"][-1]], ends, rtol=1e-5)
    above = [v - (1 - t) * ends[0] - t * ends[1] for t, v in zip(line["points"], line["losses"], strict=True)]
    assert abs(line["barrier"] - max(above)) < 1e-4
    assert f"barrier {line['barrier']:.2g}" in call("align", *paths, *data, "--labels", tmp_path / "y.npy").stdout


def test_labels_that_do_not_fit_are_refused_in_a_line(tmp_path, data):
    model = _normalised(tmp_path / "0.onnx", 0)
    np.save(tmp_path / "y.npy", CLASSES + 1)
    result = call("align", model, model, *data, "--labels", tmp_path / "y.npy")
    assert (result.exit_code, "classes from 0 to 2" in result.stderr) == (2, True)
    assert call("align", model, model, "--labels", tmp_path / "y.npy").exit_code == 2


@pytest.mark.parametrize("name", ["healthy_cnn", "low_rank_encoder", "collinear_mlp"])
def test_slopes_along_weights_are_those_of_what_comes_out(name):
    path = ROOT / "fixtures" / f"{name}.onnx"
    program = Context(*examine(load(str(path)))).structure.program
    rng = np.random.default_rng(0)
    start = {n: program.model.tensors[stored].read().astype(np.float64) for n, stored in program.weights.items()}
    inputs = {n: rng.normal(size=program.shapes[n]) for n in program.inputs}
    course = Course(program, start, {}, rng)
    outputs = course.outputs(inputs)
    (ran,) = run([path], {n: values.astype(np.float32) for n, values in inputs.items()})
    np.testing.assert_allclose(next(iter(outputs.values())), ran.outputs[0], atol=1e-3 * np.abs(ran.outputs[0]).max())
    ends = {n: rng.normal(size=values.shape) for n, values in outputs.items()}
    slopes = course.slopes(ends)
    assert slopes.keys() == start.keys()
    for weight, slope in slopes.items():
        change, sides = rng.normal(size=slope.shape), []
        for sign in (1e-5, -1e-5):
            moved = Course(program, {**start, weight: start[weight] + sign * change}, course.chosen, rng).outputs(
                inputs
            )
            sides.append(sum(float(np.vdot(ends[n], values)) for n, values in moved.items()))
        assert np.vdot(slope, change) == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-3, abs=1e-5)


def test_an_average_of_two_trainings_puts_out_more_of_what_both_do(tmp_path):
    rng = np.random.default_rng(0)
    shared = [rng.normal(size=shape) / shape[0] ** 0.5 for shape in ((16, 24), (24, 24), (24, 4))]
    paths = [tmp_path / f"{k}.onnx" for k in range(2)]
    for path in paths:
        a, b, c = (w + rng.normal(size=w.shape) / w.shape[0] ** 0.5 for w in shared)
        written(path, "h = MatMul(x, a) u = Relu(h) v = MatMul(u, b) w = Relu(v) y = MatMul(w, c)",
                {"a": a, "b": b, "c": c}, x=(None, 16))  # fmt: skip
    align(*paths, "-o", tmp_path / "near.onnx")
    align(*paths, "--merge", "0.5", "-o", tmp_path / "mean.onnx")
    near = {n: (values + weights(tmp_path / "near.onnx")[n]) / 2 for n, values in weights(paths[0]).items()}

    def put_out(found):
        return np.maximum(np.maximum(x @ found["a"], 0) @ found["b"], 0) @ found["c"]

    x = rng.normal(size=(256, 16))
    sides = [put_out(weights(path)) for path in paths]
    gaps = [np.linalg.norm(put_out(f) - sum(sides) / 2) for f in (near, weights(tmp_path / "mean.onnx"))]
    assert gaps[1] < 0.85 * gaps[0]
