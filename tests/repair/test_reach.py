"""Float16: networks with values beyond 65,504 inside written-out normalisations compute the same at other scales."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper
from onnx.parser import parse_graph
from onnx.reference import ReferenceEvaluator

from symlint.cli.main import cli
from symlint.model.load import load
from symlint.runtime.precision import Halves

Weights = dict[str, np.ndarray]
WIDTH, HIDDEN = 16, 32


def rms(x: str, y: str, gain: str) -> str:
    return f"""
        {y}_2 = Pow({x}, two) {y}_m = ReduceMean<axes = [-1], keepdims = 1>({y}_2) {y}_e = Add({y}_m, epsilon)
        {y}_s = Sqrt({y}_e) {y}_n = Div({x}, {y}_s) {y} = Mul({y}_n, {gain})"""


def layernorm(x: str, y: str, gain: str, shift: str) -> str:
    """With the variance as a difference of two means, which is NaN where both are infinite.

    Their axes are put in place by operators that onnxruntime has for float16 on every processor.
    """
    means = f"""
        {y}_a = ReduceMean<axes = [-1], keepdims = 0>({x}) {y}_2 = Mul({x}, {x}) {y}_b = Mul({y}_a, {y}_a)
        {y}_m = ReduceMean<axes = [-1], keepdims = 0>({y}_2)"""
    for k in "abm":
        means += f" {y}_{k}0 = Unsqueeze({y}_{k}, one) {y}_{k}1 = Transpose<perm = [0, 2, 1]>({y}_{k}0)"
    return f"""{means} {y}_c = Sub({x}, {y}_a1) {y}_v = Sub({y}_m1, {y}_b1)
        {y}_e = Add(epsilon, {y}_v) {y}_s = Sqrt({y}_e) {y}_n = Div({y}_c, {y}_s) {y}_g = Mul({y}_n, {gain})
        {y} = Add({y}_g, {shift})"""


def drawn(rng: np.random.Generator, *shape: int, size: float = 1.0) -> np.ndarray:
    return size * rng.normal(size=shape) / np.sqrt(shape[0])


def gains(rng: np.random.Generator) -> np.ndarray:
    return 1 + 0.1 * rng.normal(size=WIDTH)


def before(rng: np.random.Generator) -> tuple[str, Weights]:
    """A residual stream with a norm before each block and one in the end."""
    weights = {"embed": drawn(rng, 8, WIDTH, size=9e4), "head": drawn(rng, WIDTH, 5), "last": gains(rng)}
    text = "s0 = MatMul(x, embed)"
    for k in range(2):
        weights |= {
            f"g{k}": gains(rng),
            f"a{k}": drawn(rng, WIDTH, HIDDEN),
            f"b{k}": drawn(rng, HIDDEN, WIDTH, size=6e4),
        }
        text += rms(f"s{k}", f"n{k}", f"g{k}")
        text += f" u{k} = MatMul(n{k}, a{k}) t{k} = Relu(u{k}) v{k} = MatMul(t{k}, b{k}) s{k + 1} = Add(s{k}, v{k})"
    return text + rms("s2", "n", "last") + " y = MatMul(n, head)", weights


def after(rng: np.random.Generator) -> tuple[str, Weights]:
    """A norm after each sum of a block with what went into it."""
    weights = {"embed": drawn(rng, 8, WIDTH, size=900), "head": drawn(rng, WIDTH, 5)}
    text, x = "s = MatMul(x, embed)", "s"
    for k in range(2):
        weights |= {f"a{k}": drawn(rng, WIDTH, HIDDEN), f"b{k}": drawn(rng, HIDDEN, WIDTH, size=900)}
        weights |= {f"c{k}": drawn(rng, HIDDEN), f"g{k}": gains(rng), f"h{k}": 0.1 * drawn(rng, WIDTH)}
        weights[f"d{k}"] = 500 + drawn(rng, WIDTH)
        text += f" u{k} = MatMul({x}, a{k}) w{k} = Add(u{k}, c{k}) t{k} = Relu(w{k}) v{k} = MatMul(t{k}, b{k})"
        text += f" z{k} = Add(v{k}, d{k}) r{k} = Add({x}, z{k})" + layernorm(f"r{k}", f"n{k}", f"g{k}", f"h{k}")
        x = f"n{k}"
    return f"{text} y = MatMul({x}, head)", weights


def gated(rng: np.random.Generator) -> tuple[str, Weights]:
    """A norm before a gated block without a final one: only what is inside the norm is too large."""
    weights = {"embed": drawn(rng, 8, WIDTH, size=2e3), "d": 1000 + drawn(rng, WIDTH)}
    weights |= {"g": gains(rng), "h": drawn(rng, WIDTH)}
    weights |= {"up": drawn(rng, WIDTH, HIDDEN), "gate": drawn(rng, WIDTH, HIDDEN), "down": drawn(rng, HIDDEN, 5)}
    text = "r = MatMul(x, embed) s = Add(r, d)" + layernorm("s", "n", "g", "h")
    text += " u = MatMul(n, up) v = MatMul(n, gate) w = Sigmoid(v) m = Mul(u, w) y = MatMul(m, down)"
    return text, weights


NETWORKS = (before, after, gated)
Built = Callable[[np.random.Generator], tuple[str, Weights]]


def network(build: Built, path: Path) -> Path:
    text, weights = build(np.random.default_rng(3))
    stored = {"two": np.array(2.0), "epsilon": np.array(1e-5), **weights}
    axis = numpy_helper.from_array(np.array([1]), "one")
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3, 5])
    nodes = list(parse_graph(f"g () => () {{ {text} }}").node)
    used = {name for node in nodes for name in node.input}
    tensors = [numpy_helper.from_array(v.astype(np.float32), n) for n, v in stored.items() if n in used]
    graph = helper.make_graph(nodes, "g", [x], [y], [*tensors, *([axis] if "one" in used else [])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def in_half(path: Path, x: np.ndarray) -> tuple[np.ndarray, ...]:
    """What the file computes after a conversion to float16: in onnxruntime, and in onnx's evaluator.

    Without its optimisation onnxruntime rounds on a CPU at least what is moved in float16, the evaluator every result.
    """
    model = onnx.load(path)
    del model.graph.value_info[:]
    for tensor in (*model.graph.initializer, *(a.t for n in model.graph.node for a in n.attribute if a.type == 4)):
        if tensor.data_type == TensorProto.FLOAT:
            with np.errstate(over="ignore"):
                narrow = numpy_helper.to_array(tensor).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(narrow, tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    with np.errstate(all="ignore"):
        return tuple(r.run(None, {"x": x.astype(np.float16)})[0] for r in (session, ReferenceEvaluator(model)))


@pytest.mark.parametrize("build", NETWORKS)
def test_a_network_beyond_float16_comes_within_a_percent_of_float32(build, tmp_path):
    path, out = network(build, tmp_path / "model.onnx"), tmp_path / "out.onnx"
    done = CliRunner().invoke(cli, ["fix", str(path), "--target", "float16", "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert "in float16 the outputs were NaN or infinite, and are off by" in " ".join(done.output.split())
    x = np.random.default_rng(7).normal(size=(4, 3, 8)).astype(np.float32)
    exact, same = (ReferenceEvaluator(str(p)).run(None, {"x": x})[0] for p in (path, out))
    assert np.array_equal(exact, same)  # powers of two alone
    assert not any(np.isfinite(y).all() for y in in_half(path, x))
    assert all(np.abs(y - exact).max() <= 0.01 * np.abs(exact).max() for y in in_half(out, x))
    again = CliRunner().invoke(cli, ["fix", str(out), "--target", "float16", "--dry-run"])
    assert "float16 the outputs" not in again.output


def test_a_stream_that_grows_a_hundred_thousand_times_has_room_from_end_to_end(tmp_path):
    def rising(rng: np.random.Generator) -> tuple[str, Weights]:
        text, weights = before(rng)
        return text, {**weights, "embed": weights["embed"] / 9e4, "b0": weights["b0"] / 60, "b1": weights["b1"] * 1.7}

    path, out = network(rising, tmp_path / "model.onnx"), tmp_path / "out.onnx"
    done = CliRunner().invoke(cli, ["fix", str(path), "--target", "float16", "-o", str(out)])
    assert done.exit_code == 0, done.output
    x = np.random.default_rng(7).normal(size=(4, 3, 8)).astype(np.float32)
    exact = ReferenceEvaluator(str(path)).run(None, {"x": x})[0]
    assert all(np.abs(y - exact).max() <= 0.01 * np.abs(exact).max() for y in in_half(out, x))


def test_what_float16_holds_is_left_alone(tmp_path):
    def small(rng: np.random.Generator) -> tuple[str, Weights]:
        text, weights = gated(rng)
        return text, {**weights, "embed": weights["embed"] / 2e3, "d": weights["d"] / 1e3}

    path = network(small, tmp_path / "model.onnx")
    done = CliRunner().invoke(cli, ["fix", str(path), "--target", "float16", "--dry-run"])
    assert done.exit_code == 0, done.output


def test_rounding_is_that_of_float16(tmp_path):
    """A node that changes nothing, on numbers of all sizes."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [4096])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [4096])
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "model.onnx")
    rng = np.random.default_rng(1)
    values = (rng.choice([-1, 1], 4096) * 2.0 ** rng.uniform(-30, 20, 4096)).astype(np.float32)
    values[:4] = [65519.9, -65520, 0, 2.0**-25]
    with Halves(load(tmp_path / "model.onnx"), 0, {"x": values}) as halves:
        *_, (answer,) = halves._runs(halves._narrow(tmp_path / "model.onnx"))
    with np.errstate(over="ignore"):
        assert np.array_equal(answer, -values.astype(np.float16).astype(np.float32))
