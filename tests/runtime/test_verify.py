"""A comparison must be able to fail: what does not answer to its inputs could not be tried, and never holds."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import TensorProto, helper, numpy_helper
from onnx.parser import parse_graph

from symlint.cli.main import cli
from symlint.model.load import load
from symlint.program import numbers
from symlint.runtime.probe import jolted
from symlint.runtime.proof import prove
from symlint.runtime.verify import Trial, same_function, verify
from symlint.symmetry.inference import examine

Weights = Mapping[str, np.ndarray]
KINDS = {"z": TensorProto.INT64}
"""Types of outputs that are no floats, by their name."""


def weights(seed: int = 0, **others: np.ndarray) -> dict[str, np.ndarray]:
    """Of a perceptron with six hidden units."""
    rng = np.random.default_rng(seed)
    drawn = {"a": rng.normal(size=(4, 6)), "p": rng.normal(size=6), "b": rng.normal(size=(6, 3)), "q": np.zeros(3)}
    return {n: v.astype(np.float32) for n, v in {**drawn, **others}.items()}


BODY = "h = Gemm(x, a, p) r = Relu(h) l = Gemm(r, b, q) "


def saved(path: Path, text: str, stored: Weights, outputs: str = "y") -> Path:
    """A network of nodes in ONNX's notation with the input x."""
    nodes = parse_graph(f"small () => () {{ {BODY}{text} }}").node
    tensors = [numpy_helper.from_array(v, n) for n, v in stored.items()]
    made = [
        helper.make_tensor_sequence_value_info(n, TensorProto.FLOAT, None)
        if n == "s"
        else helper.make_tensor_value_info(n, KINDS.get(n, TensorProto.FLOAT), None)
        for n in outputs.split()
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])
    model = helper.make_model(
        helper.make_graph(list(nodes), "small", [x], made, tensors),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.save(model, path)
    return path


@pytest.fixture
def pair(tmp_path: Path) -> Callable[..., Trial]:
    """Compares two networks with the same nodes."""

    def compare(text: str, one: Weights, other: Weights, outputs: str = "y", **options: object) -> Trial:
        files = [saved(tmp_path / f"{k}.onnx", text, w, outputs) for k, w in enumerate((one, other))]
        return same_function(load(files[0]), load(files[1]), **options)  # type: ignore[arg-type]

    return compare


def scaled(stored: Weights, factor: float = 2.0) -> dict[str, np.ndarray]:
    """The same function by a rescaling of its hidden units."""
    factor32 = np.float32(factor)
    return {**stored, "a": stored["a"] * factor32, "p": stored["p"] * factor32, "b": stored["b"] / factor32}


FAR = {"q": np.full(3, -1e4)}
"""A last bias that no input drawn reaches past."""
ENDS = {
    "y = Identity(l)": "y",
    "z = ArgMax<axis = -1, keepdims = 0>(l)": "z",
    "y, z = TopK<axis = -1>(l, two)": "y z",
    "t = Tanh(l) s = SequenceConstruct(l, t)": "s",
    "t = Tanh(l) k = Sigmoid(l) y = Concat<axis = -1>(t, k)": "y",
}
"""How a network ends."""


@pytest.mark.parametrize("text", ENDS)
def test_networks_are_told_apart_whatever_they_end_in(text, pair):
    """The same function holds, another one is refuted."""
    one = weights()
    stored = [{**w, "two": np.array([2], np.int64)} for w in (one, scaled(one), weights(1))]
    assert pair(text, stored[0], stored[1], ENDS[text]).outcome == "held"
    assert pair(text, stored[0], stored[2], ENDS[text]).outcome == "refuted"


@pytest.mark.parametrize("end", ["Relu", "Sigmoid"])
def test_what_is_zero_or_saturated_is_compared_before_its_last_operator(end, pair):
    """The same function holds there; another one could not be tried, since its outputs are the same on all inputs."""
    one = weights(**FAR)
    same, other = (pair(f"y = {end}(l)", one, w) for w in (scaled(one), weights(1, **FAR)))
    assert same.outcome == "held"
    assert (other.outcome, other.difference) == ("not runnable", None)


def test_a_shift_before_a_softmax_is_not_seen(pair):
    """Of a saturated softmax the logits are compared, but for what it does not see of them."""
    one = weights(q=np.array([1e4, 0, 0]))
    shifted = {**one, "q": one["q"] + np.float32(64)}
    assert pair("y = Softmax<axis = -1>(l)", one, shifted).outcome == "held"


def test_constant_outputs_could_not_be_tried(pair, tmp_path):
    """Neither alone nor beside another network, and one that answers does not answer for one that does not."""
    one = weights()
    for text, outputs in (("y = Mul(l, nil)", "y"), ("n = Mul(r, nil) y = Identity(l)", "y n")):
        stored = {**one, "nil": np.zeros(1, np.float32)}
        trial = pair(text, stored, scaled(stored), outputs)
        assert (trial.outcome, trial.difference) == ("not runnable", None)
    symmetry, structure = examine(load(saved(tmp_path / "nil.onnx", "y = Mul(l, nil)", stored)))
    trials = verify(structure, [g.id for g in symmetry.generators])
    assert {t.outcome for t in trials} <= {"not runnable"}


@pytest.mark.parametrize("axis", [1, 2])
def test_outputs_that_answer_by_rounding_alone_could_not_be_tried(axis, tmp_path):
    """A mean of what was normalised is the same for all inputs, but for what rounding leaves of large ones."""
    rng = np.random.default_rng(2)
    stored = {**weights(), "s": rng.normal(size=4), "t": rng.normal(size=4), "shape": np.array([1, 4, -1])}
    stored = {n: v.astype(np.int64 if n == "shape" else np.float32) for n, v in stored.items()}
    text = "i = Reshape(x, shape) n = InstanceNormalization(i, s, t) "
    end = "m = ReduceMean<axes = [2], keepdims = 0>(n) y = Gemm(m, a, p)"
    if axis == 1:
        end = "m = ReduceMean<axes = [1], keepdims = 0>(n) o = ReduceMean<axes = [1], keepdims = 0>(m) y = Add(o, p)"
    path = saved(tmp_path / "mean.onnx", text + end, stored)
    symmetry, structure = examine(load(path))
    trials = verify(structure, [g.id for g in symmetry.generators])
    assert trials
    assert {t.outcome for t in trials} == {"not runnable"}
    assert same_function(load(path), load(path)).outcome == "not runnable"


def test_jolted_inputs_move_by_a_rounding_alone(tmp_path):
    """Of every size, and zeros too; integers stay."""
    model = load(saved(tmp_path / "plain.onnx", "y = Identity(l)", weights()))
    drawn = {"x": np.array([[0.0, 1e-20, -3.0, 1e30]], np.float32), "k": np.arange(3)}
    moved = jolted(model, drawn, 0)
    assert (moved["x"] != drawn["x"]).all()
    np.testing.assert_allclose(moved["x"], drawn["x"], rtol=2e-7, atol=1e-40)
    assert moved["k"] is drawn["k"]


def test_a_generator_behind_a_silent_output_could_not_be_tried(tmp_path):
    """It holds where outputs answer, and says that nothing was seen of what moves others."""
    rng = np.random.default_rng(5)
    stored = {**weights(), "c": rng.normal(size=(4, 5)), "d": np.zeros((5, 2)), "e": np.full(5, -1e6)}
    stored = {n: v.astype(np.float32) for n, v in stored.items()}
    text = "y = Identity(l) u = Gemm(x, c, e) v = Relu(u) w = MatMul(v, d)"
    symmetry, structure = examine(load(saved(tmp_path / "two.onnx", text, stored, "y w")))
    moved = {g.id: set(g.tensors) for g in symmetry.generators}
    found = {t.id: t.outcome for t in verify(structure, list(moved))}
    assert {o for g, o in found.items() if moved[g] & {"a", "b"}} == {"held"}
    assert {o for g, o in found.items() if moved[g] & {"c", "e"}} == {"not runnable"}


def called(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["verify", *map(str, arguments)])


def test_what_follows_from_a_constant_without_a_value_could_not_be_tried(tmp_path, monkeypatch):
    """It stays where it is, and all others are tried and moved; an audit goes on without it."""
    other = {name.upper(): values for name, values in weights(1).items()}
    stored = {**weights(), **other, "g": np.linspace(-1, 1, 6, dtype=np.float32)}
    text = "e = Exp(g) u = MatMul(x, A) v = Add(u, P) w = Mul(v, e) o = MatMul(w, B) y = Add(o, Q)"
    path = saved(tmp_path / "gain.onnx", text, stored)
    monkeypatch.setattr(numbers, "compute", lambda *_, **__: None)
    document = json.loads(called(path, "--format", "json").stdout)
    found = {row["id"]: row for row in document["generators"]}
    claimed = examine(load(path))[0].generators
    moved = {g.id for g in claimed if g.kind == "translation" and "P" in g.tensors}
    others = {g.id for g in claimed if {"A", "B"} <= {*g.tensors} and g.kind in ("permutation", "sign")}
    assert others
    assert moved
    assert {found[name]["outcome"] for name in moved} == {"not runnable"}
    assert "Exp" in found[min(moved)]["reason"]
    assert {found[name]["outcome"] for name in others} == {"held"}
    out = tmp_path / "moved.onnx"
    done = CliRunner().invoke(cli, ["teleport", str(path), "-o", str(out)])
    assert done.exit_code == 0
    assert f"{min(moved)} stays" in done.stderr
    assert same_function(load(path), load(out)).outcome == "held"
    assert CliRunner().invoke(cli, ["check", str(path)]).exit_code in (0, 1)
    assert CliRunner().invoke(cli, ["inspect", str(path)]).exit_code == 0


def test_given_inputs_stand_in_for_drawn_ones(tmp_path):
    """They wake what noise does not, hold or refute alone, and a name that is no input is told."""
    far = {"q": np.full(3, -3e3)}
    files = [
        saved(tmp_path / f"{k}.onnx", "y = Relu(l)", w)
        for k, w in enumerate((weights(**far), scaled(weights(**far)), weights(1, **far)))
    ]
    np.save(tmp_path / "x.npy", np.random.default_rng(1).normal(size=(64, 4)).astype(np.float32) * 3e3)
    given = ("--input", f"x:{tmp_path / 'x.npy'}")
    assert called(files[0], files[1], *given).exit_code == 0
    assert called(files[0], files[2]).exit_code == 4
    assert called(files[0], files[2], *given).exit_code == 1
    assert called(files[0], *given).exit_code == 0
    assert called(files[0], "--input", f"other:{tmp_path / 'x.npy'}").exit_code == 2


def test_the_document_of_two_networks(tmp_path):
    """Outcome, difference and reason stand at its top."""
    one, other = (saved(tmp_path / f"{k}.onnx", "y = Identity(l)", weights(k)) for k in range(2))
    held, refuted = (json.loads(called(one, b, "--format", "json").output) for b in (one, other))
    assert (held["outcome"], held["difference"], held["reason"]) == ("held", 0.0, "")
    assert refuted["outcome"] == "refuted"
    assert refuted["difference"] > 0.01


def test_nothing_that_is_reached_is_nothing_that_is_tried(tmp_path):
    """`fix` and `verify` end as `check` does where no operator of a network is known."""
    model = onnx.load(saved(tmp_path / "known.onnx", "y = Identity(l)", weights()))
    for node in model.graph.node:
        node.domain = "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    onnx.save(model, tmp_path / "model.onnx")
    for arguments in (["check"], ["verify"], ["fix", "-o", str(tmp_path / "out.onnx")]):
        result = CliRunner().invoke(cli, [*arguments, str(tmp_path / "model.onnx")])
        assert result.exit_code == 4, result.output
        assert "could be reached" in result.output


@pytest.mark.parametrize("end", ["Sigmoid", "Relu", "HardSigmoid"])
def test_a_repair_is_proven_on_a_saturated_output(end, tmp_path):
    """A unit that is zero goes; what computes something else is not proven."""
    one = weights(**FAR)
    one["b"][2] = 0
    cut = {n: np.delete(v, 2, {"a": 1, "p": 0, "b": 0}.get(n, 0)) if n != "q" else v for n, v in one.items()}
    files = [saved(tmp_path / f"{k}.onnx", f"y = {end}(l)", w) for k, w in enumerate((one, cut, weights(1, **FAR)))]
    model = load(files[0])
    assert prove(model, files[1]).outcome == "held"
    assert prove(model, files[2]).outcome == "not runnable"


def test_sums_of_bytes_are_exact(tmp_path):
    """Units before a product of bytes may change places, though on some processors two of its terms saturate."""
    stored = weights() | {"w": np.full((6, 3), 127, np.int8) * np.array([[1, -1, 1]] * 3 + [[-1, 1, 1]] * 3, np.int8)}
    text = "u, v, o = DynamicQuantizeLinear(r) i = MatMulInteger(u, w, o) c = Cast<to = 1>(i) y = Mul(c, v)"
    path = saved(tmp_path / "bytes.onnx", text, stored)
    symmetry, structure = examine(load(path))
    trials = verify(structure, [g.id for g in symmetry.generators if g.kind == "permutation"])
    assert {t.outcome for t in trials} == {"held"}
