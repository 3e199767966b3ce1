"""Heuristic rules: what is planted is found, random networks and small alphabets are silent, no gauge is seen."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
import planting
import pytest
from corpora import SHARED
from onnx import TensorProto, helper, numpy_helper

from symlint.evidence.context import Context
from symlint.evidence.estimates import estimates, nearest, smallest, weights
from symlint.lint.finding import Finding
from symlint.lint.rule import rules
from symlint.model.load import load
from symlint.model.saving import write
from symlint.symmetry.inference import examine
from symlint.symmetry.motion.teleport import select, teleport

HEURISTIC = {rule.code: rule for rule in rules() if rule.evidence == "heuristic"}
NETWORKS = [
    "mlp_relu", "mlp_tanh", "mlp_gelu", "mlp_batchnorm", "gated_swiglu", "resnet18", "vgg13_bn", "densenet",
    "squeezenet", "mobilenet_v2", "shufflenet_v2", "gpt2", "bert", "vit_timm", "convnext", "llama",
    "unet_transpose", "wavenet",
]  # fmt: skip
SOME = [
    "mlp_relu", "gated_reglu", "resnet18", "mobilenet_v2", "efficientnet_b0", "vgg13_bn", "gpt2", "bert",
    "vit_timm", "convnext", "lora_gpt2", "lstm",
]  # fmt: skip


def context(path: Path) -> Context:
    symmetry, structure = examine(load(str(path)))
    return Context(symmetry, structure)


def findings(path: Path, codes: Iterable[str] = HEURISTIC) -> list[Finding]:
    found = context(path)
    return [f for code in codes for f in HEURISTIC[code].check(found)]


def zoo(name: str) -> Path:
    return SHARED / "zoo" / f"{name}.onnx"


def perceptron(path: Path, *layers: np.ndarray, activation: str = "Relu") -> Path:
    """A perceptron without biases."""
    nodes, name = [], "x"
    for k in range(len(layers)):
        out = "y" if k == len(layers) - 1 else f"a{k}"
        nodes.append(helper.make_node("MatMul", [name, f"w{k}"], [out]))
        if out != "y":
            nodes.append(helper.make_node(activation, [out], [f"h{k}"]))
        name = f"h{k}"
    infos = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", w])
        for n, w in (("x", layers[0].shape[0]), ("y", layers[-1].shape[1]))
    ]
    stored = [numpy_helper.from_array(w.astype(np.float32), f"w{k}") for k, w in enumerate(layers)]
    graph = helper.make_graph(nodes, "perceptron", infos[:1], infos[1:], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_opt_in():
    """They run only when they are selected, and never make an error."""
    from symlint.lint.settings import Settings

    assert HEURISTIC.keys() >= {"SYM103", "SYM202", "SYM811", "SYM812", "SYM813", "SYM814"}
    assert not any(rule.evidence == "heuristic" for rule in Settings().chosen(rules()))
    assert all(str(rule.level) != "error" for rule in HEURISTIC.values())


# -- planted ----------------------------------------------------------------------------------------------------------
@pytest.mark.corpus
@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "mobilenet_v2"])
def test_vanishing_units_are_found(name, tmp_path):
    """A unit with a millionth of the share that it had."""
    network = planting.network(zoo(name))
    known = Context(network.symmetry, network.structure)
    spaces = {space.id for space in known.spaces if estimates(known).share(space) is not None}
    for site in network.sites:
        least = min(smallest(site.count, w) for w in weights(network.structure, site.action.leaf))
        if site.space.id in spaces and least > 1e-5:
            unit = site.count // 2
            planted = planting.Planting(network, site)
            planted.multiply(site.roles.writers, unit, 1e-3)
            found = findings(planted.save(tmp_path / "model.onnx"), ["SYM103"])
            assert [(f.space, f.units) for f in found] == [(site.space.id, (unit,))]
            return
    pytest.fail("no space fits")


@pytest.mark.corpus
@pytest.mark.parametrize("name", NETWORKS)
def test_near_duplicates_are_found(name, tmp_path):
    """A copy of a unit with noise of a thousandth, where the space has weights enough to tell."""
    network, rng = planting.network(zoo(name)), np.random.default_rng(3)
    for site in network.sites:
        if site.space.size >= 16 and site.space.copies == 1 and weights(network.structure, site.action.leaf)[0] >= 16:
            planted = planting.Planting(network, site)
            planted.copy(site.roles.own, 2, 5)
            planted.change(
                site.roles.writers,
                lambda old, own: np.where(own == 5, old * (1 + 1e-3 * rng.standard_normal(old.shape)), old),
            )
            found = findings(planted.save(tmp_path / "model.onnx"), ["SYM202"])
            assert [(f.space, f.facts["groups"]) for f in found] == [(site.space.id, [[2, 5]])]
            return
    pytest.fail("no space fits")


@pytest.mark.corpus
@pytest.mark.parametrize("name", NETWORKS)
def test_random_networks_are_silent(name):
    assert findings(zoo(name)) == []


# -- gauges -----------------------------------------------------------------------------------------------------------
@pytest.mark.corpus
@pytest.mark.parametrize("name", SOME)
def test_shares_do_not_depend_on_the_gauge(name, tmp_path):
    """Rescalings, signs, permutations, rotations and translations leave every share, up to the order of units."""
    path, here = zoo(name), context(zoo(name))
    structure = here.structure
    write(path, teleport(structure, select(structure, None, None), 4), tmp_path / "model.onnx")
    there = context(tmp_path / "model.onnx")
    compared = 0
    for space in here.spaces:
        one, other = (estimates(c).share(space) for c in (here, there))
        if one is not None and other is not None:
            compared += 1
            assert np.sort(other) == pytest.approx(np.sort(one), rel=0.02)
    assert compared


@pytest.mark.corpus
@pytest.mark.parametrize("name", SOME)
def test_planted_findings_do_not_depend_on_the_gauge(name, tmp_path):
    network = planting.network(zoo(name))
    site = max(network.sites, key=lambda s: (min(weights(network.structure, s.action.leaf)), s.count))
    planted = planting.Planting(network, site)
    planted.multiply(site.roles.writers, 1, 1e-3)
    planted.copy(site.roles.own, site.count - 1, site.count - 2)
    planted.multiply(site.roles.writers, site.count - 1, 1.0001)
    path = planted.save(tmp_path / "model.onnx")
    structure = context(path).structure
    found = findings(path)
    for seed in (1,):
        write(path, teleport(structure, select(structure, None, None), seed), tmp_path / "moved.onnx")
        moved = findings(tmp_path / "moved.onnx")
        assert [(f.rule, f.space, len(f.units)) for f in moved] == [(f.rule, f.space, len(f.units)) for f in found]


# -- chance -----------------------------------------------------------------------------------------------------------
def test_chance_of_small_shares():
    rng = np.random.default_rng(1)
    for count in (1, 3, 16):
        shares = (rng.standard_normal((400, 64, count)) ** 2).mean(axis=2)
        assert (shares < smallest(64, count)).any(axis=1).mean() <= 5e-3


def test_chance_of_near_units():
    rng = np.random.default_rng(1)
    for size in (3, 6):
        hits = 0
        for _ in range(100):
            rows = rng.standard_normal((30, size))
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            apart = np.linalg.norm(rows[:, None] - rows[None], axis=2)[np.triu_indices(30, 1)]
            hits += nearest(len(apart), np.sort(apart), size) > 0
        assert hits <= 5


@pytest.mark.parametrize("alphabet", ["ternary", "four bits", "sparse", "short", "low rank"])
def test_small_alphabets_are_silent(alphabet, tmp_path):
    """Rows that collide by pigeonhole, or nearly so, are no near duplicates."""
    rng = np.random.default_rng(2)
    first = rng.standard_normal((16, 256))
    if alphabet == "ternary":
        first = np.sign(first[:8]) * (np.abs(first[:8]) > 0.6)
    elif alphabet == "four bits":
        first = np.round(first[:4] * 3).clip(-8, 7)
    elif alphabet == "sparse":
        first = first * (rng.random(first.shape) < 0.05)
    elif alphabet == "short":
        first = first[:2]
    else:
        first = rng.standard_normal((16, 2)) @ rng.standard_normal((2, 256))
    path = perceptron(tmp_path / "model.onnx", first, rng.standard_normal((256, 32)), rng.standard_normal((32, 8)))
    assert findings(path, ["SYM202"]) == []


def test_all_nearly_the_same(tmp_path):
    """A whole layer close to the permutation plane is found although its units lie in few dimensions."""
    rng = np.random.default_rng(2)
    three = rng.standard_normal((32, 3))
    first = np.repeat(three, 12, axis=1) * (1 + 1e-4 * rng.standard_normal((32, 36)))
    path = perceptron(tmp_path / "model.onnx", first, rng.standard_normal((36, 8)))
    (found,) = findings(path, ["SYM202"])
    assert sorted(map(len, found.facts["groups"])) == [12, 12, 12]


def test_exact_duplicates_are_not_repeated(tmp_path):
    rng = np.random.default_rng(2)
    first = rng.standard_normal((32, 16))
    first[:, 3] = first[:, 7]
    path = perceptron(tmp_path / "model.onnx", first, rng.standard_normal((16, 8)))
    assert findings(path, ["SYM202"]) == []


@pytest.mark.parametrize("activation", ["Tanh", "Gelu"])
def test_multiples_are_apart_where_the_activation_bends(activation, tmp_path):
    rng = np.random.default_rng(2)
    first = rng.standard_normal((32, 16))
    first[:, 3] = 1.5 * first[:, 7] * (1 + 1e-4 * rng.standard_normal(32))
    layers = (first, rng.standard_normal((16, 8)))
    assert findings(perceptron(tmp_path / "a.onnx", *layers), ["SYM202"])
    if activation == "Tanh":
        assert findings(perceptron(tmp_path / "b.onnx", *layers, activation=activation), ["SYM202"]) == []


# -- collapse ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("classes", [4, 10, 50])
def test_simplex(classes, tmp_path):
    """A classifier on a simplex is found, in any rotation of its features, and a random one is not."""
    rng = np.random.default_rng(4)
    first = rng.standard_normal((40, 128))
    first /= np.linalg.norm(first, axis=0)
    corners = np.eye(classes) - 1 / classes
    turned = np.linalg.qr(rng.standard_normal((128, classes)))[0] @ corners
    common = rng.standard_normal((128, 1))
    for name, last, count in (("a", turned, 1), ("b", turned + common, 1), ("c", rng.standard_normal(turned.shape), 0)):
        found = findings(perceptron(tmp_path / f"{name}.onnx", first, last), ["SYM811"])
        assert len(found) == count, name
