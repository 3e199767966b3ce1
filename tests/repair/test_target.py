"""Rules that judge the gauge for a target: true numbers, silent without a target, and silent after the repair."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import helper, numpy_helper

from symlint.audit.engine import audit
from symlint.cli.main import cli
from symlint.lint.finding import Finding, Level
from symlint.lint.rule import rules
from symlint.lint.settings import Settings
from symlint.model.errors import UsageProblem
from symlint.model.load import load
from symlint.model.saving import write
from symlint.symmetry.gauge.scales import Scales, balanced, two_sided
from symlint.symmetry.inference import examine

CODES = {"int8": "SYM701", "float16": "SYM702"}
ROOM = (
    *("bert", "conv_vae", "dcgan_generator", "deep_linear", "deep_sets", "dncnn", "gated_reglu", "gpt2", "lora_linear"),
    *("mlp_batchnorm.raw", "mlp_prelu", "mlp_relu", "rnn_relu", "siamese", "wavenet"),
)
NO_ROOM = ("actor_critic", "espcn", "mlp_tanh", "tied_autoencoder")
Weights = dict[str, np.ndarray]


def findings(path: Path, target: str, **settings: object) -> list[Finding]:
    """What the rules of a target say of a file."""
    asked = Settings(target=target, **settings)
    report = audit(str(path), asked.chosen(rules()), asked)
    assert not report.incomplete
    return [f for f in report.findings if f.rule in CODES.values()]


def run(*arguments: str) -> str:
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code in (0, 1), done.output
    return done.output


def weights(path: Path) -> Weights:
    """The initializers of a file, in float64."""
    return {t.name: numpy_helper.to_array(t).astype(np.float64) for t in onnx.load(path).graph.initializer}


def scattered(path: Path, out: Path, size: float, seed: int = 3) -> Path:
    """The same function, with every scale that has two sides drawn log-uniformly within exp(+-size)."""
    structure = examine(load(path))[1]
    tensors = structure.program.model.tensors
    scales = Scales(structure, two_sided(structure))
    moved = scales.apply(np.random.default_rng(seed).uniform(-size, size, scales.count))
    values = {n: np.broadcast_to(v, tensors[n].shape).astype(tensors[n].read().dtype) for n, v in moved.items()}
    write(path, values, out)
    return out


def convolutions(folder: Path) -> Path:
    """Conv, Relu, Conv with random weights."""
    rng = np.random.default_rng(5)
    shapes = {"first.weight": (8, 3, 3, 3), "first.bias": (8,), "second.weight": (4, 8, 3, 3)}
    nodes = [
        helper.make_node("Conv", ["x", "first.weight", "first.bias"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "second.weight"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "convolutions",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3, 9, 9])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1, 4, 5, 5])],
        [numpy_helper.from_array(rng.normal(size=s).astype(np.float32), n) for n, s in shapes.items()],
    )
    file = folder / "convolutions.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file)
    return file


def decibels(stored: Weights) -> float:
    """Signal to noise of two weights that share units, rounded to int8 and seen from where their norms are equal."""
    first, second = stored["first.weight"], stored["second.weight"]
    lines = first.reshape(len(first), -1), second.swapaxes(0, 1).reshape(len(first), -1)
    level = np.sqrt(np.linalg.norm(lines[1], axis=1) / np.linalg.norm(lines[0], axis=1))[:, None]
    total = 0.0
    for values, scale in zip(lines, (level, 1 / level), strict=True):
        step = np.abs(values).max() / 127
        error = np.round(values / step) * step - values
        total += np.square(error * scale).sum() / np.square(values * scale).sum()
    return float(-10 * np.log10(total))


@pytest.fixture(params=["perceptron", "convolutions"])
def network(request, perceptron, tmp_path) -> Path:
    """A network with one space of ReLU units."""
    return perceptron() if request.param == "perceptron" else convolutions(tmp_path)


def test_not_a_word_without_the_target(network, tmp_path):
    file = scattered(network, tmp_path / "scattered.onnx", 3)
    for settings in (Settings(), Settings(select=("ALL",)), Settings(target="float16", select=("SYM7",))):
        assert not {"SYM701"} & {rule.code for rule in settings.chosen(rules())}
    for settings in (Settings(select=("SYM7",)), Settings(target="float16", select=("SYM701",))):
        with pytest.raises(UsageProblem, match="only with --target int8"):
            settings.chosen(rules())
    assert findings(file, "") == []


def test_the_numbers_are_those_of_rounding(network, tmp_path):
    file, out = scattered(network, tmp_path / "scattered.onnx", 3), tmp_path / "fixed.onnx"
    (found,) = findings(file, "int8")
    assert (found.rule, found.level, found.fixable) == ("SYM701", Level.WARNING, True)
    assert found.facts["before_db"] == pytest.approx(decibels(weights(file)), abs=0.02)
    run("fix", "--target", "int8", str(file), "-o", str(out))
    assert found.facts["after_db"] == pytest.approx(decibels(weights(out)), abs=0.5)
    assert found.facts["after_db"] > found.facts["before_db"] + 20


@pytest.mark.parametrize("target", CODES)
def test_silent_after_the_repair_that_check_names(perceptron, tmp_path, target):
    def edit(stored: dict[str, np.ndarray]) -> None:
        scales = np.float32(10.0) ** np.array([7, 7, 5, 1, 0, -6], np.float32)
        stored["first.weight"] *= scales[:, None]
        stored["first.bias"] *= scales
        stored["second.weight"] /= scales

    file, out, again = perceptron(edit=edit), tmp_path / "fixed.onnx", tmp_path / "again.onnx"
    said = "".join(run("check", "--target", target, str(file)).split())
    assert f"symlintfix{file}-oOUT--target{target}" in said
    told = run("fix", "--target", target, str(file), "-o", str(out))
    assert CODES[target] in told
    assert "same outputs" in told
    assert findings(out, target) == []
    run("fix", "--target", target, str(out), "-o", str(again))
    assert out.read_bytes() == again.read_bytes()


def test_fix_takes_the_target_of_the_configuration(perceptron, tmp_path, monkeypatch):
    file = scattered(perceptron(), tmp_path / "scattered.onnx", 3)
    monkeypatch.chdir(tmp_path)
    assert "SYM701" not in run("fix", str(file), "-o", "plain.onnx")
    (tmp_path / "symlint.toml").write_text('target = "int8"\n')
    assert "SYM701" in run("fix", str(file), "-o", "fixed.onnx")
    assert findings(tmp_path / "fixed.onnx", "int8") == []


def test_thresholds_are_options(perceptron, tmp_path):
    file = scattered(perceptron(), tmp_path / "scattered.onnx", 3)
    (found,) = findings(file, "int8", rules={"SYM701": {"warn-db": 100}})
    assert found.level == Level.NOTE
    assert findings(file, "int8", rules={"SYM701": {"gain-db": 100}}) == []
    assert findings(file, "int8", rules={"SYM701": {"enough-db": -50}}) == []


@pytest.mark.parametrize("target", CODES)
@pytest.mark.parametrize("activation", ["Relu", "Tanh"])
def test_silent_on_even_networks_and_without_rescalings(perceptron, target, activation):
    assert findings(perceptron(activation=activation), target) == []


def test_uneven_units_of_a_tanh_are_no_matter_of_scales(perceptron):
    def edit(stored: dict[str, np.ndarray]) -> None:
        stored["first.weight"] *= np.float32(10.0) ** np.arange(-3, 3)[:, None]

    assert findings(perceptron(edit=edit, activation="Tanh"), "int8") == []


def halves(path: Path, out: Path) -> Path:
    """A file of float32 as one of float16, by nothing but conversion."""
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        with np.errstate(over="ignore"):
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    del model.graph.value_info[:]
    onnx.save(model, out)
    return out


def outputs(path: Path, x: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0], np.float64)


def test_what_float16_cannot_hold_is_found_and_brought_into_range(perceptron, tmp_path):
    """Weights of 1e5 and more on one side of the units, of 1e-9 and less on the other."""

    def edit(stored: dict[str, np.ndarray]) -> None:
        stored["first.weight"] *= np.float32(1e6)
        stored["first.bias"] *= np.float32(1e6)
        stored["second.weight"] *= np.float32(1e-9)

    file, out = perceptron(edit=edit), tmp_path / "fixed.onnx"
    (found,) = findings(file, "float16")
    assert (found.rule, found.level, found.fixable) == ("SYM702", Level.ERROR, True)
    stored = weights(file)
    infinite = sum(int((np.abs(stored[n]) >= 65520).sum()) for n in ("first.weight", "first.bias"))
    assert found.facts["overflow"] == infinite > 20
    assert (found.facts["lost"], found.facts["error"]) == (stored["second.weight"].size, 1.0)
    assert (found.facts["after_overflow"], found.facts["after_lost"]) == (0, 0)
    assert found.units == tuple(range(6))
    run("fix", "--target", "float16", str(file), "-o", str(out))
    assert findings(out, "float16") == []
    x = np.random.default_rng(2).normal(size=(50, 4)).astype(np.float32)
    expected = outputs(file, x)
    before, after = (outputs(halves(p, tmp_path / "half.onnx"), x.astype(np.float16)) for p in (file, out))
    assert not np.isfinite(before).all() or np.abs(before - expected).max() > 0.5 * np.abs(expected).max()
    # The outputs themselves are about 1e-3, well within the range of float16.
    assert np.abs(after - expected).max() < 0.01 * np.abs(expected).max()


def test_small_numbers_that_change_nothing_are_no_finding(perceptron):
    """Weights of 1e-9 in units of size 1, a bias of 1e-9, and a unit that decayed on both sides."""

    def edit(stored: dict[str, np.ndarray]) -> None:
        stored["first.weight"][:, 0] *= 1e-9
        stored["first.bias"] *= 1e-9
        stored["first.weight"][3] *= 1e-10
        stored["second.weight"][:, 3] *= 1e-10

    assert findings(perceptron(edit=edit), "float16") == []


def test_what_no_rescaling_cures_is_told_and_not_called_fixable(perceptron, tmp_path):
    def edit(stored: dict[str, np.ndarray]) -> None:
        stored["second.weight"][0, 0] = 1e6

    file = perceptron(edit=edit, activation="Tanh")
    (found,) = findings(file, "float16")
    assert (found.level, found.space, found.fixable) == (Level.ERROR, None, False)
    assert found.tensors == ("second.weight",)
    assert found.facts["overflow"] == 1
    assert "can be repaired" not in run("check", "--target", "float16", str(file))
    run("fix", "--target", "float16", str(file), "-o", str(tmp_path / "same.onnx"))


def told(found: Sequence[Finding]) -> list[str]:
    return [f.message for f in found]


@pytest.mark.corpus
@pytest.mark.parametrize("name", ROOM)
def test_scattered_scales_are_found_in_every_architecture(shared, tmp_path, name):
    """And nothing is said of the network as it was initialised, nor of the balanced one."""
    path = shared / "zoo" / f"{name}.onnx"
    assert [f for f in findings(path, "int8") if f.level > Level.NOTE] == []
    file, out = scattered(path, tmp_path / "scattered.onnx", 3), tmp_path / "balanced.onnx"
    found = findings(file, "int8")
    assert any(f.level == Level.WARNING and f.facts["after_db"] > f.facts["before_db"] + 10 for f in found), told(found)
    write(file, balanced(examine(load(file))[1]), out)
    assert told(findings(out, "int8")) == []


@pytest.mark.corpus
@pytest.mark.parametrize("target", CODES)
@pytest.mark.parametrize("name", NO_ROOM)
def test_networks_without_rescalings_are_silent(shared, name, target):
    assert told(findings(shared / "zoo" / f"{name}.onnx", target)) == []


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["bert.int8_qdq", "mlp_relu.int8_qoperator"])
def test_quantised_networks_are_left_alone(shared, name):
    assert told(findings(shared / "zoo" / f"{name}.onnx", "int8")) == []
