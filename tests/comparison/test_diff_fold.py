"""A normalisation that is folded into its layer is told as such where the fold is right, and as a change where not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from symlint.cli.main import cli

Weights = dict[str, np.ndarray]
LAYERS = ("Conv", "grouped Conv", "ConvTranspose", "grouped ConvTranspose", "Gemm", "Gemm transB", "MatMul")
WRONG = ("mean", "epsilon", "sign", "bias", "one gain", "shift", "weight")
"""What a wrong fold forgets or spoils."""


def layers(kind: str, count: int, *, bias: bool, seed: int = 0) -> tuple[list[Any], Weights, list[Any], list[Any]]:
    """Nodes, weights and the shapes of input and output of layers of one kind, each with a normalisation after it."""
    rng = np.random.default_rng(seed)
    op, *_ = kind.replace("grouped ", "").split()
    flat, groups = op in ("Gemm", "MatMul"), 2 if "grouped" in kind else 1
    nodes, weights, x = [], {}, "x"
    for k in range(count):
        n, m = (6, 8) if k == 0 else (8, 8)
        shape = (n, m) if flat else (n, m // groups, 3, 3) if op == "ConvTranspose" else (m, n // groups, 3, 3)
        shape = shape[::-1] if kind == "Gemm transB" else shape
        weights[f"w{k}"] = rng.normal(size=shape) / 3
        made, given = f"a{k}", [x, f"w{k}"]
        if bias:
            weights[f"b{k}"] = rng.normal(size=m)
            given += [] if op == "MatMul" else [f"b{k}"]
        more = {"transB": 1} if kind == "Gemm transB" else {} if flat else {"pads": [1, 1, 1, 1], "group": groups}
        nodes.append(helper.make_node(op, given, [made], f"layer{k}", **more))
        if bias and op == "MatMul":
            nodes.append(helper.make_node("Add", [made, f"b{k}"], [f"c{k}"], f"add{k}"))
            made = f"c{k}"
        weights |= {f"{word}{k}": rng.normal(size=m) for word in "stm"}
        weights[f"v{k}"] = rng.uniform(0.01, 2, m)
        nodes.append(
            helper.make_node("BatchNormalization", [made, *(f"{p}{k}" for p in "stmv")], [f"n{k}"], f"norm{k}")
        )
        nodes.append(helper.make_node("Relu", [f"n{k}"], [f"r{k}"]))
        x = f"r{k}"
    inputs, outputs = (["n", 6], ["n", 8]) if flat else (["n", 6, 7, 7], ["n", 8, 7, 7])
    return nodes, {name: value.astype(np.float32) for name, value in weights.items()}, inputs, outputs


def stored(path: Path, nodes: list[Any], weights: Weights, x: list[Any], y: list[Any]) -> Path:
    last = nodes[-1].output[0]
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", x), (last, y))]
    tensors = [numpy_helper.from_array(v, k) for k, v in weights.items()]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def folded(kind: str, count: int, wrong: str, *, bias: bool, only: int | None = None) -> tuple[Any, ...]:
    """The same layers with their normalisations in weights and biases; `wrong` spoils the first."""
    nodes, weights, x, y = layers(kind, count, bias=bias)
    groups = 2 if "grouped" in kind else 1
    kept = []
    for node in nodes:
        k = int(node.output[0][1:])
        mine = (only is None or k == only) and node.op_type != "Relu"
        if node.op_type != "BatchNormalization" or not mine:
            given = list(node.input)
            if mine and node.op_type == "MatMul" and not bias:
                kept += [node, helper.make_node("Add", [f"a{k}", f"new{k}"], [f"n{k}"], f"add{k}")]
                continue
            if mine and node.op_type not in ("Add", "MatMul"):
                node.input[:] = [*given[:2], f"b{k}" if bias else f"new{k}"]
            if mine and (node.op_type == "Add" or node.op_type != "MatMul"):
                node.output[0] = f"n{k}"
            kept.append(node)
            continue
        spoilt = wrong if k == (only or 0) else ""
        s, t, m, v = (weights.pop(f"{p}{k}").astype(np.float64) for p in "stmv")
        w, b = weights[f"w{k}"].astype(np.float64), weights.pop(f"b{k}", np.zeros(len(s))).astype(np.float64)
        factor = s / np.sqrt(v + (0.0 if spoilt == "epsilon" else 1e-5))
        factor = np.abs(factor) if spoilt == "sign" else factor
        fresh = (b - (0 if spoilt == "mean" else m)) * factor + (0 if spoilt == "shift" else t)
        if spoilt == "bias":
            fresh[3] += 0.01
        if spoilt == "one gain":
            factor[2] *= 1.01
        if kind.endswith("ConvTranspose"):
            apart = w.reshape(groups, -1, *w.shape[1:]) * factor.reshape(groups, 1, -1, 1, 1)
            w = apart.reshape(w.shape)
        else:
            axis = 1 if kind in ("Gemm", "MatMul") else 0
            w = w * factor.reshape([-1 if a == axis else 1 for a in range(w.ndim)])
        if spoilt == "weight":
            w.reshape(-1)[5] += 0.01
        weights[f"w{k}"] = w.astype(np.float32)
        weights[f"b{k}" if bias else f"new{k}"] = fresh.astype(np.float32)
    return kept, weights, x, y


def compared(old: Path, new: Path) -> tuple[int, dict[str, Any]]:
    result = CliRunner().invoke(cli, ["diff", str(old), str(new), "--fail-on", "changed", "--format", "json"])
    return result.exit_code, json.loads(result.stdout)


@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("kind", LAYERS)
def test_a_right_fold_is_no_change(kind, bias, tmp_path):
    """In either order; every tensor of the unfolded file is told as what it became."""
    raw = stored(tmp_path / "raw.onnx", *layers(kind, 2, bias=bias))
    new = stored(tmp_path / "new.onnx", *folded(kind, 2, "", bias=bias))
    code, document = compared(raw, new)
    assert code == 0, document["weights"]
    told = {t["old"]: t["status"] for t in document["weights"]["tensors"]}
    vectors = {f"{p}{k}" for p in ("stmvb" if bias else "stmv") for k in range(2)}
    assert told == {**dict.fromkeys(vectors, "folded"), "w0": "rescaled", "w1": "rescaled"}
    assert not document["weights"]["unmatched_old"]
    assert not document["weights"]["unmatched_new"]
    assert compared(new, raw)[0] == 0
    assert "stored" in CliRunner().invoke(cli, ["diff", str(raw), str(new)]).stdout


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize(
    ("kind", "bias"), [("Conv", False), ("Conv", True), ("ConvTranspose", True), ("MatMul", False)]
)
def test_a_wrong_fold_is_one(kind, bias, wrong, tmp_path):
    """And it is the wrong tensor that is told."""
    raw = stored(tmp_path / "raw.onnx", *layers(kind, 2, bias=bias))
    new = stored(tmp_path / "new.onnx", *folded(kind, 2, wrong, bias=bias))
    for pair in ((raw, new), (new, raw)):
        code, document = compared(*pair)
        assert code == 1, document["weights"]
        changed = {t["old"] for t in document["weights"]["tensors"] if t["status"] == "changed"}
        assert changed
        assert all(name.endswith("0") for name in changed)


def test_one_of_several_normalisations_is_folded(tmp_path):
    """The others are in both files."""
    raw = stored(tmp_path / "raw.onnx", *layers("Conv", 3, bias=True))
    assert compared(raw, stored(tmp_path / "new.onnx", *folded("Conv", 3, "", bias=True, only=1)))[0] == 0
    assert compared(raw, stored(tmp_path / "bad.onnx", *folded("Conv", 3, "mean", bias=True, only=1)))[0] == 1


@pytest.mark.parametrize("bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("kind", ["Conv", "grouped Conv", "MatMul", "Gemm"])
def test_what_onnxruntime_folds_is_right(kind, bias, tmp_path):
    ort = pytest.importorskip("onnxruntime")
    raw = stored(tmp_path / "raw.onnx", *layers(kind, 2, bias=bias))
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(tmp_path / "new.onnx")
    ort.InferenceSession(str(raw), options, providers=["CPUExecutionProvider"])
    code, document = compared(raw, tmp_path / "new.onnx")
    assert code == 0, document


def test_names_say_nothing_of_a_fold(tmp_path):
    """Five layers of one size, and everything has another name."""
    raw = stored(tmp_path / "raw.onnx", *layers("Conv", 5, bias=False))
    nodes, weights, x, y = folded("Conv", 5, "", bias=False)
    names = {name: f"q{k}" for k, name in enumerate(sorted(weights, reverse=True))}
    for node in nodes:
        node.name = ""
        node.input[:] = [names.get(n, n) for n in node.input]
    new = stored(tmp_path / "new.onnx", nodes, {names[k]: v for k, v in weights.items()}, x, y)
    assert compared(raw, new)[0] == 0


@pytest.mark.parametrize(("name", "code"), [("folded", 0), ("badly_folded", 1)])
def test_the_examples_are_told(name, code, shared):
    folder = shared / "faults" / "diff_bn_fold"
    got, document = compared(folder / "model.onnx", folder / f"{name}.onnx")
    assert got == code
    told = {t["old"]: t["status"] for t in document["weights"]["tensors"]}
    assert told["w1"] == "rescaled"
    assert told["t"] == told["m"] == ("changed" if code else "folded")
