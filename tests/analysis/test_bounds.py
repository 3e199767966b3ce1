"""Bounds hold for what onnxruntime computes; what they prove of units is found, repaired and true in every gauge."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import onnx_ir as ir
import pytest
from bounded_networks import NETWORKS, OFF, UNITS, WIDTH, Net
from corpora import ROOT
from test_planted import SHARED

from symlint.analysis.bounds import certify
from symlint.evidence.context import Context
from symlint.evidence.dead import bounded
from symlint.lint.finding import Finding, Level
from symlint.lint.rule import rules
from symlint.model.load import load
from symlint.model.saving import write
from symlint.program.translate import lower
from symlint.repair.fixing import fix
from symlint.repair.plan import Wish
from symlint.runtime.probe import feeds, save_lifted
from symlint.runtime.runner import Runner
from symlint.symmetry.inference import examine
from symlint.symmetry.motion.teleport import select, teleport

pytestmark = pytest.mark.usefixtures("no_clock")

SCALES = (0.0, 1e-3, 1.0, 1e3, 1e6)
ZOO = (
    *("bert", "gpt2", "llama", "swin_v2", "convnext", "mobilenet_v2", "squeezenet", "lstm", "gru_bidirectional"),
    *("rnn_relu", "lstm_cell_unrolled", "scripted_loop_rnn", "mlp_rmsnorm.dynamo", "mlp_groupnorm", "dcgan_generator"),
    *("mixer", "deepfm", "t5", "rwkv", "unet_transpose", "mlp_relu.int8_qdq", "bert.fp16"),
)
MODELS = ("fastenhancer-b-layernorm", "silero-vad-v3-old", "ultraface-slim-320", "dtln-model-1-lstm", "mjx-g1-policy")
RULES = {rule.code: rule for rule in rules()}
FIXTURES = ROOT / "fixtures" / "rules"


def context(path: Path) -> Context:
    symmetry, structure = examine(load(str(path)))
    return Context(symmetry, structure, judged=structure)


def findings(path: Path, *codes: str) -> list[Finding]:
    there = context(path)
    return [f for code in codes for f in RULES[code].check(there)]


def outside(path: Path, folder: Path, runner: Runner) -> list[str]:
    """The values of a network, for inputs of several sizes, that do not lie where its bounds say."""
    there = context(path)
    model = there.symmetry.model
    found = certify(there.structure, there.values, there.carried, every=True)
    file = folder / "watched.onnx"
    save_lifted(ir.load(path), file)
    watched = onnx.load(file)
    made = {name for node in watched.graph.node for name in node.output}
    names = {v: r.name for v, r in lower(model).values.items() if r.name in found and v in made}
    there_already = {o.name for o in watched.graph.output}
    watched.graph.output.extend(onnx.helper.make_empty_tensor_value_info(v) for v in names if v not in there_already)
    onnx.save(watched, file)
    loaded = runner.load(file)
    inputs = next((i for i in feeds(model, 0) if runner.run(loaded, i).failure is None), None)
    if inputs is None:
        pytest.skip("it does not run with the chosen lengths")
    wrong: list[str] = []
    for feed in trials(path, inputs):
        answer = runner.run(loaded, feed)
        if answer.failure is not None:  # not every length fits
            continue
        for output, y in zip(watched.graph.output, answer.outputs, strict=True):
            bound = found.get(names.get(output.name, ""))
            if bound is None or y.dtype.kind not in "fiub" or not broadcasts(bound.shape, y.shape):
                continue
            out = np.isfinite(y) & ((y < bound.low) | (y > bound.high))
            wrong += [f"{output.name}: {y[out][:3]}"] if out.any() else []
    runner.drop(loaded)
    return wrong


def trials(path: Path, inputs: dict[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    """Inputs of several sizes, and of other lengths where the file leaves them open."""
    for scale in SCALES:
        yield {n: x * np.asarray(scale, x.dtype) if x.dtype.kind == "f" else x for n, x in inputs.items()}
    declared = {v.name: tuple(v.shape) for v in ir.load(path).graph.inputs if v.shape is not None}
    if any(not isinstance(dim, int) for name in inputs for dim in declared.get(name, ())):
        for length in (1, 5):
            shapes = {
                n: [d if isinstance(d, int) else length for d in declared.get(n, x.shape)] for n, x in inputs.items()
            }
            yield {n: np.resize(x, shapes[n]) for n, x in inputs.items()}


def broadcasts(shape: tuple[int, ...], whole: tuple[int, ...]) -> bool:
    """Whether an interval of this shape is one of such a tensor: axes without units may have any length."""
    return len(shape) == len(whole) and all(n in (1, m) for n, m in zip(shape, whole, strict=True))


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    """One child process for all."""
    with Runner() as child:
        yield child


@pytest.fixture(scope="module")
def networks(tmp_path_factory) -> dict[str, Path]:
    """The networks with planted units."""
    folder = tmp_path_factory.mktemp("bounded")
    return {name: build(Net(), folder / f"{name}.onnx") for name, build in NETWORKS.items()}


@pytest.mark.parametrize("name", NETWORKS)
def test_values_lie_within_their_bounds(name, networks, runner, tmp_path):
    assert not outside(networks[name], tmp_path, runner)


@pytest.mark.corpus
@pytest.mark.parametrize("path", [f"zoo/{n}" for n in ZOO] + [f"models/{n}" for n in MODELS])
def test_values_of_published_networks_lie_within_their_bounds(path, shared, runner, tmp_path):
    assert not outside(SHARED / f"{path}.onnx", tmp_path, runner)


@pytest.mark.parametrize("name", NETWORKS)
def test_units_that_are_always_off_are_found(name, networks):
    (found,) = findings(networks[name], "SYM101", "SYM102")
    assert (found.rule, found.evidence, found.units) == ("SYM101", "bounded", OFF)
    assert found.level >= Level.WARNING
    assert found.facts["margin"] >= 1


@pytest.mark.parametrize("name", NETWORKS)
def test_ordinary_networks_have_no_such_unit(name, tmp_path):
    for seed in range(2):
        path = NETWORKS[name](Net(seed, bias=0.1), tmp_path / f"{seed}.onnx")
        assert not [f for f in findings(path, "SYM101", "SYM102", "SYM105", "SYM304") if f.level > Level.NOTE]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_gauge_changes_nothing(name, networks, tmp_path):
    _, structure = examine(load(str(networks[name])))
    out = tmp_path / "model.onnx"
    write(networks[name], teleport(structure, select(structure, None, None), 5), out)
    (found,) = findings(out, "SYM101", "SYM102")
    assert (found.evidence, found.level, len(found.units)) == ("bounded", Level.WARNING, len(OFF))


@pytest.mark.parametrize("name", ["rms_norm", "cnn", "depthwise", "attention", "lstm"])
def test_they_go_where_bounds_are_trusted(name, networks, tmp_path):
    mine = [r for r in RULES.values() if r.repair in ("remove", "fold")]
    kept = fix(str(networks[name]), tmp_path, Wish(mine))
    assert not kept.done
    gone = fix(str(networks[name]), tmp_path, Wish(mine, evidence=("exact", "bounded")))
    assert [(d.rule, d.removed) for d in gone.done] == [("SYM101", len(OFF))]
    assert gone.proof is not None
    assert gone.proof.outcome == "held"


def saturated(activation: str, path: Path) -> Path:
    n = Net(bias=200.0)
    h = n.linear(n.op("Sigmoid", n.linear("x", 5, WIDTH)), WIDTH, UNITS, n.planted())
    h = n.clip(h, -1.0, 6.0) if activation == "Clip" else n.op(activation, h)
    h = n.op("Mul", h, h) if activation == "HardSigmoid" else h
    return n.save(path, n.linear(h, UNITS, 4), [3, 5])


@pytest.mark.parametrize("activation", ["Clip", "HardSigmoid"])
def test_saturated_units_are_constant(activation, tmp_path):
    path = saturated(activation, tmp_path / "model.onnx")
    (found,) = findings(path, "SYM101", "SYM102")
    assert (found.rule, found.evidence, found.units) == ("SYM102", "bounded", OFF)
    gone = fix(str(path), tmp_path, Wish([RULES["SYM101"], RULES["SYM102"]], evidence=("exact", "bounded")))
    assert [(d.rule, d.removed) for d in gone.done] == [("SYM102", len(OFF))]
    assert gone.proof is not None
    assert gone.proof.outcome == "held"


def test_a_unit_that_is_off_at_one_place_alone_is_alive(tmp_path):
    n = Net()
    s = n.op("Sigmoid", n.linear("x", 5, WIDTH))
    x = n.linear(s, WIDTH, UNITS, n.planted())
    y = n.op("Add", n.linear(n.op("Relu", x), UNITS, 4), n.linear(n.op("Tanh", x), UNITS, 4))
    assert not findings(n.save(tmp_path / "model.onnx", y, [3, 5]), "SYM101", "SYM102")


def test_leaky_units_are_not_off(tmp_path):
    n = Net()
    path = n.save(
        tmp_path / "model.onnx", n.feed_forward(n.op("Sigmoid", n.linear("x", 5, WIDTH)), "LeakyRelu"), [3, 5]
    )
    assert not findings(path, "SYM101", "SYM102", "SYM105")


def test_a_sum_over_a_length_that_a_run_tells_has_no_bound(tmp_path):
    text = """<ir_version: 8, opset_import: ["" : 17]>
    agraph (float[N,S,3] x) => (float[N,3] y)
    <float[3,3] w = {1, 0, 0, 0, 1, 0, 0, 0, 1}, int64[1] axis = {1}, float[3] low = {-100, -100, -100}>
    { s = Sigmoid(x)  t = ReduceSum<keepdims = 0>(s, axis)  u = Add(t, low)  r = Relu(u)  y = MatMul(r, w) }"""
    onnx.save(onnx.parser.parse_model(text), tmp_path / "model.onnx")
    found = bounded(context(tmp_path / "model.onnx")).intervals
    assert np.isinf(found["u#0"].high).all()


def watched(runner: Runner, code: str, name: str, folder: Path, scale: float) -> np.ndarray:
    """A value of a fixture for random inputs."""
    model = onnx.parser.parse_model((FIXTURES / f"{code}.flagged.txt").read_text())
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    onnx.save(model, folder / "model.onnx")
    shape = [d.dim_value or 64 for d in model.graph.input[0].type.tensor_type.shape.dim]
    x = scale * np.random.default_rng(1).standard_normal(shape)
    return runner.run(runner.load(folder / "model.onnx"), {"x": x.astype(np.float32)}).outputs[-1]


@pytest.mark.parametrize("scale", SCALES)
def test_flat_heads_average(scale, runner, tmp_path):
    """The weights of the reported head are those of a mean, the other's are not."""
    share = watched(runner, "SYM304", "p", tmp_path, scale)
    apart = np.abs(share * share.shape[-1] - 1).max(axis=(0, 2, 3))
    assert apart[0] < 1e-3
    assert apart[1] > 1e-2 or scale == 0


@pytest.mark.parametrize("scale", SCALES)
def test_units_that_are_always_on_are_on(scale, runner, tmp_path):
    assert (watched(runner, "SYM105", "d", tmp_path, scale)[:, [1, 4]] >= 0).all()
