"""Planted flaws are found with exactly their units, lures and random networks are left alone."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import planting
import pytest
from onnx import TensorProto, helper, numpy_helper

from symlint.audit import audit
from symlint.finding import Level
from symlint.rule import rules
from symlint.settings import Settings

SHARED = Path(os.environ.get("SYMLINT_SHARED", Path(__file__).parents[2] / "shared"))
QUANTISED = ("int8", "int4", "fp16")
ZOO = [p for p in sorted((SHARED / "zoo").glob("*.onnx")) if not any(word in p.name for word in QUANTISED)]
FAST = {
    "mlp_relu", "mlp_batchnorm.raw", "mlp_tanh.dynamo", "mlp_crelu", "gated_reglu", "rnn_relu", "deep_sets.dynamo",
    "dueling_dqn", "vgg13_bn.raw", "dcgan_generator", "resnet18", "gpt2", "lora_gpt2", "squeezenet", "tied_autoencoder",
}  # fmt: skip
MISSED = {
    "gcn": "what a scatter reads is written out unit by unit",
    "graph_sage": "what a scatter reads is written out unit by unit",
    "message_passing": "what a scatter reads is written out unit by unit",
    "gru": "a mask over time hides the units of a recurrence",
    "lstm": "a mask over time hides the units of a recurrence",
    "rnn": "a mask over time hides the units of a recurrence",
    "scripted_loop_rnn": "a mask over time hides the units of a recurrence",
    "wavenet": "zeros put before a sequence hide that a unit is constant",
    "mlp_prelu": "multiples do not pass a PRelu",
    "mlp_groupnorm": "a normalised group of zeros is not seen to be zero",
    "autoencoder_kl": "a normalised group of zeros is not seen to be zero",
    "ddpm_unet": "a normalised group of zeros is not seen to be zero",
    "stable_diffusion_unet": "a normalised group of zeros is not seen to be zero",
    "ort_": "what activations beyond ONNX make of a constant is not computed",
}
"""Networks, by part of their name, in which some planted flaw is still missed, and why."""
LEAST = 30
"""Networks in which every kind of flaw must have been planted."""

Found = list[tuple[str, str | None, list[int], list[list[int]]]]


def found(path: Path) -> Found:
    """Rule, space, units and groups of every finding above note."""
    report = audit(str(path), rules(), Settings())
    assert not report.incomplete, report.incomplete
    return [
        (f.rule, f.space, list(f.units), [list(g) for g in f.facts.get("groups", [])])
        for f in report.findings
        if f.level > Level.NOTE
    ]


def expected(rule: str | None, site: planting.Site, groups: list[list[int]]) -> Found:
    """The findings that a planted flaw must give: one, or none for a lure."""
    units = sorted(unit for group in groups for unit in group)
    return [(rule, site.space.id, units, groups if rule == "SYM201" else [])] if rule else []


def surprises(path: Path, out: Path, kinds: dict[str, planting.Flaw]) -> dict[str, object]:
    """Kind of flaw -> what was found instead of what was planted."""
    wrong: dict[str, object] = {}
    for name, kind in kinds.items():
        planted = planting.plant(path, name, out)
        if planted is not None:
            got, want = found(out), expected(kind.rule, *planted)
            if got != want:
                wrong[name] = {"wanted": want or planted, "got": got}
    return wrong


def params(paths: list[Path]) -> list[object]:
    """The networks, of which all but the fast ones are for the slow suite."""
    return [pytest.param(p, id=p.stem, marks=[] if p.stem in FAST else pytest.mark.slow) for p in paths]


@pytest.mark.corpus
@pytest.mark.parametrize("path", params(ZOO))
def test_planted_flaws_are_found_exactly(path, shared, tmp_path):
    """Rule, space and units of every kind of flaw that fits into the network, and nothing else above note."""
    assert surprises(path, tmp_path / "planted.onnx", planting.FLAWS) == {}


@pytest.mark.corpus
@pytest.mark.parametrize("path", params(ZOO))
def test_lures_are_not_reported(path, shared, tmp_path):
    """What looks like a flaw and is none: a change of scale, opposite units, multiples that a curve tells apart."""
    assert surprises(path, tmp_path / "lure.onnx", planting.LURES) == {}


@pytest.mark.slow
@pytest.mark.corpus
def test_flaws_are_planted_in_networks_of_every_kind(shared):
    """Each kind of flaw fits into thirty architectures at least, and the groups of the zoo all take part."""
    index = {entry["name"]: entry for entry in json.loads((shared / "zoo" / "INDEX.json").read_text())}
    tally: Counter[str] = Counter()
    groups: set[str] = set()
    bases = [p for p in ZOO if "." not in p.stem and p.stem in index]
    for path in bases:
        there = planting.Network(path)
        fitting = [name for name, kind in planting.FLAWS.items() if any(kind.fits(there, site) for site in there.sites)]
        tally.update(fitting)
        if fitting:
            groups.add(index[path.stem]["group"])
    assert min(tally[name] for name in planting.FLAWS if name != "multiple") >= LEAST, tally
    assert tally["multiple"] >= LEAST, tally
    assert groups == {index[p.stem]["group"] for p in bases}


@pytest.mark.corpus
@pytest.mark.parametrize("path", params(sorted((SHARED / "zoo").glob("*.onnx"))))
def test_random_networks_are_clean(path, shared):
    """A network with random weights has no finding above note, in any number type."""
    assert found(path) == []


def chain(path: Path, weights: list[np.ndarray], biases: list[np.ndarray], activation: str = "Relu") -> Path:
    """A perceptron with these layers."""
    nodes, values, x = [], {}, "x"
    for k, (w, b) in enumerate(zip(weights, biases, strict=True)):
        values |= {f"w{k}": w.astype(np.float32), f"b{k}": b.astype(np.float32)}
        last = k == len(weights) - 1
        nodes.append(helper.make_node("Gemm", [x, f"w{k}", f"b{k}"], ["y" if last else f"a{k}"], transB=1))
        x = f"h{k}"
        if not last:
            nodes.append(helper.make_node(activation, [f"a{k}"], [x]))
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", weights[0].shape[1]])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", weights[-1].shape[0]])],
        [numpy_helper.from_array(v, k) for k, v in values.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def ternary(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """Rows of -1, 0 and 1, none of them zero."""
    made = rng.integers(-1, 2, (rows, columns))
    while len(empty := np.flatnonzero(~made.any(axis=1))):
        made[empty] = rng.integers(-1, 2, (len(empty), columns))
    return made


@pytest.mark.parametrize("bias", ["none", "random"])
@pytest.mark.parametrize("fan_in", [2, 3, 4, 6, 9])
def test_short_ternary_rows_that_repeat_are_no_finding(fan_in, bias, tmp_path):
    """Rows from a small alphabet repeat by pigeonhole, with one scale per tensor as well as plain."""
    rng = np.random.default_rng(fan_in)
    for scale in (1.0, 0.037):
        first = ternary(rng, 96, fan_in) * scale
        assert fan_in > 6 or len(np.unique(first, axis=0)) < 96
        biases = [np.zeros(96) if bias == "none" else rng.integers(-1, 2, 96), rng.normal(size=5)]
        path = chain(tmp_path / "ternary.onnx", [first, rng.normal(size=(5, 96))], biases)
        assert found(path) == []


@pytest.mark.parametrize("fan_in", [64, 256])
def test_long_ternary_rows_that_repeat_are_found(fan_in, tmp_path):
    """A row of many letters does not repeat by chance."""
    rng = np.random.default_rng(fan_in)
    first = ternary(rng, 96, fan_in)
    first[70] = first[12]
    path = chain(tmp_path / "ternary.onnx", [first, rng.normal(size=(5, 96))], [np.zeros(96), rng.normal(size=5)])
    assert found(path) == [("SYM201", "S1", [12, 70], [[12, 70]])]


@pytest.mark.parametrize(
    ("activation", "factor", "reported"),
    [
        ("Relu", 1.0, True), ("Relu", 2.5, True), ("Relu", 1e-3, True), ("Relu", -1.0, False), ("Relu", -2.5, False),
        ("LeakyRelu", 2.5, True), ("LeakyRelu", -1.0, False), ("Elu", 1.0, True), ("Elu", 2.5, False),
        ("Selu", 2.5, False), ("Softplus", 2.5, False), ("Sigmoid", 1.0, True), ("Sigmoid", 2.5, False),
        ("Tanh", 2.5, False), ("HardSigmoid", 2.5, False), ("HardSwish", 2.5, False), ("Mish", 2.5, False),
        ("Softsign", 2.5, False), ("Identity", 2.5, True),
    ],
)  # fmt: skip
def test_what_the_activation_passes_makes_a_pair(activation, factor, reported, tmp_path):
    """Multiples are one unit under a positively homogeneous activation and two under any other."""
    rng = np.random.default_rng(5)
    weights, biases = [rng.normal(size=(12, 7)), rng.normal(size=(4, 12))], [rng.normal(size=12), rng.normal(size=4)]
    weights[0][9], biases[0][9] = weights[0][3] * factor, biases[0][3] * factor
    path = chain(tmp_path / "pair.onnx", weights, biases, activation)
    assert found(path) == ([("SYM201", "S1", [3, 9], [[3, 9]])] if reported else [])


@pytest.mark.parametrize("value", [0.0, TINY := planting.TINY, -TINY, 1e-36])
def test_what_decayed_to_nothing_is_zero(value, tmp_path):
    """Rows and columns of 1e-39 are dead; a bias on top of such a row makes the unit constant."""
    rng = np.random.default_rng(6)
    weights, biases = [rng.normal(size=(12, 7)), rng.normal(size=(4, 12))], [rng.normal(size=12), rng.normal(size=4)]
    weights[0][2], biases[0][2] = value, value
    weights[1][:, 5] = value
    weights[0][8], biases[0][8] = value, 0.75
    path = chain(tmp_path / "tiny.onnx", weights, biases)
    assert found(path) == [("SYM101", "S1", [2, 5], []), ("SYM102", "S1", [8], [])]
