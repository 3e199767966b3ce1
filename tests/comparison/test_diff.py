"""Two files of one network: what was done to one of them is found, and nothing else, whatever things are called."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from symlint.cli.main import cli
from symlint.comparison.changes import participation, rank
from symlint.evidence.context import Context
from symlint.model.load import load
from symlint.symmetry.inference import examine

pytestmark = pytest.mark.usefixtures("no_clock")

Weights = dict[str, np.ndarray]


def call(*arguments: object):
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def diff(old: Path, new: Path, *flags: object, code: int | None = None) -> dict[str, Any]:
    result = call("diff", old, new, *flags, "--format", "json")
    document = json.loads(result.stdout)
    assert result.exit_code == document["exit_code"], result.output
    if code is not None:
        assert document["exit_code"] == code, result.output
    return document


def statuses(document: dict[str, Any]) -> dict[str, str]:
    return {tensor["old"]: tensor["status"] for tensor in document["weights"]["tensors"]}


def change(source: Path, target: Path, edit: Callable[[Weights], None]) -> Path:
    """A copy of a file with other numbers in its initializers."""
    model = onnx.load(source)
    weights = {i.name: numpy_helper.to_array(i).copy() for i in model.graph.initializer}
    edit(weights)
    for item in model.graph.initializer:
        item.CopyFrom(numpy_helper.from_array(weights[item.name], item.name))
    onnx.save(model, target)
    return target


def rename(source: Path, target: Path, seed: int = 0) -> Path:
    """A copy of a file in which everything has another name, and initializers and value infos another order."""
    model, rng = onnx.load(source), np.random.default_rng(seed)
    graph = model.graph
    names: dict[str, str] = {}

    def new(name: str) -> str:
        return names.setdefault(name, f"t{rng.integers(1 << 40):x}") if name else ""

    for node in graph.node:
        node.name = f"n{rng.integers(1 << 40):x}"
        node.input[:], node.output[:] = [new(n) for n in node.input], [new(n) for n in node.output]
    for item in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        item.name = new(item.name)
    shuffled = [graph.initializer[k] for k in rng.permutation(len(graph.initializer))]
    copies = [TensorProto.FromString(item.SerializeToString()) for item in shuffled]
    del graph.initializer[:]
    graph.initializer.extend(copies)
    onnx.save(model, target)
    return target


@pytest.fixture
def healthy(root: Path) -> Path:
    return root / "fixtures" / "healthy_cnn.onnx"


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    """Four blocks of one shape in a row, each with a branch beside it: only the order tells them apart."""
    rng, nodes, weights = np.random.default_rng(3), [], {}
    x = "x"
    for k in range(4):
        for part, size in (("up", (16, 48)), ("gate", (16, 48)), ("down", (48, 16))):
            weights[f"block.{k}.{part}"] = (rng.normal(size=size) / 4).astype(np.float32)
        nodes += [
            helper.make_node("MatMul", [x, f"block.{k}.up"], [f"u{k}"]),
            helper.make_node("MatMul", [x, f"block.{k}.gate"], [f"g{k}"]),
            helper.make_node("Sigmoid", [f"g{k}"], [f"s{k}"]),
            helper.make_node("Mul", [f"u{k}", f"s{k}"], [f"m{k}"]),
            helper.make_node("MatMul", [f"m{k}", f"block.{k}.down"], [f"d{k}"]),
            helper.make_node("Add", [x, f"d{k}"], [f"y{k}"]),
        ]
        x = f"y{k}"
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 16]) for n in ("x", x)]
    tensors = [numpy_helper.from_array(v, n) for n, v in weights.items()]
    graph = helper.make_graph(nodes, "deep", infos[:1], infos[1:], tensors)
    file = tmp_path / "deep.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file)
    return file


# -- nothing happened ---------------------------------------------------------------------------------------------


def test_the_same_file_has_not_changed(healthy):
    document = diff(healthy, healthy, code=0)
    assert document["weights"]["unchanged"]
    assert set(statuses(document).values()) == {"identical"}
    assert document["weights"]["matched"] == document["weights"]["total"] > 0
    assert "nothing changed: the two files hold the same 11,838 weights" in call("diff", healthy, healthy).stdout


def test_a_merge_that_changed_nothing_can_fail_the_run(healthy, root):
    assert call("diff", healthy, healthy, "--fail-on", "unchanged").exit_code == 1
    decayed = root / "fixtures" / "decayed_cnn.onnx"
    assert call("diff", healthy, decayed, "--fail-on", "unchanged").exit_code == 0
    assert call("diff", healthy, decayed, "--fail-on", "changed").exit_code == 1
    assert call("diff", healthy, healthy, "--fail-on", "changed").exit_code == 0
    changed = call("diff", healthy, decayed, "--fail-on", "changed").stdout
    assert "failed on changed (10 tensors):" in changed


@pytest.mark.parametrize("name", ["healthy_cnn", "decayed_cnn", "collinear_mlp", "low_rank_encoder"])
def test_names_and_orders_say_nothing(root, tmp_path, name):
    file = root / "fixtures" / f"{name}.onnx"
    document = diff(file, rename(file, tmp_path / "renamed.onnx"), code=0)
    assert document["weights"]["unchanged"]
    assert document["findings"]["kept"] >= 0
    assert not any(document["findings"][word] for word in ("new", "gone", "worse", "better"))


def test_blocks_of_one_shape_are_told_apart_by_their_place(deep, tmp_path):
    rng = np.random.default_rng(8)

    def trained(weights: Weights) -> None:
        for name in weights:
            weights[name] += (0.3 * rng.normal(size=weights[name].shape)).astype(np.float32)

    other = change(deep, tmp_path / "trained.onnx", trained)
    plain = diff(deep, other)
    hidden = diff(deep, rename(other, tmp_path / "hidden.onnx"))
    assert [t["new"] for t in plain["weights"]["tensors"]] == [[t["old"]] for t in plain["weights"]["tensors"]]
    assert [t["relative"] for t in hidden["weights"]["tensors"]] == [t["relative"] for t in plain["weights"]["tensors"]]
    assert hidden["weights"]["matched"] == hidden["weights"]["total"]


# -- a symmetry ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["healthy_cnn", "decayed_cnn", "collinear_mlp"])
@pytest.mark.parametrize("seed", [1, 2])
def test_moving_along_a_symmetry_is_told_as_such(root, tmp_path, name, seed):
    file, moved = root / "fixtures" / f"{name}.onnx", tmp_path / "moved.onnx"
    kinds = "permutation,rescaling,sign"
    assert call("teleport", file, "-o", moved, "--seed", seed, "--kinds", kinds).exit_code == 0
    document = diff(file, moved, code=0)
    assert not any(document["findings"][word] for word in ("new", "gone", "worse", "better"))
    if name != "decayed_cnn":
        assert "changed" not in statuses(document).values()
    assert "moved" in statuses(document).values()
    assert all(space["new"]["live"] == space["old"]["live"] for space in document["spaces"])


def widths(document: dict[str, Any], which: str) -> list[float | None]:
    return [space[which]["width"] for space in document["spaces"]]


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "vit_timm", "llama", "gpt2", "bert"])
def test_effective_widths_do_not_depend_on_the_gauge(shared, tmp_path, name):
    file, moved = shared / "zoo" / f"{name}.onnx", tmp_path / "moved.onnx"
    assert call("teleport", file, "-o", moved, "--seed", 3).exit_code == 0
    document = diff(file, moved, code=0)
    assert not any(document["findings"][word] for word in ("new", "gone", "worse", "better"))
    for old, new in zip(widths(document, "old"), widths(document, "new"), strict=True):
        assert new == (old if old is None else pytest.approx(old, rel=3e-3))
    assert any(width is not None for width in widths(document, "old"))
    assert [s["new"]["rank"] for s in document["spaces"]] == [s["old"]["rank"] for s in document["spaces"]]


@pytest.mark.parametrize("name", ["healthy_cnn", "decayed_cnn", "collinear_mlp", "low_rank_encoder"])
def test_no_symmetry_makes_a_finding(root, tmp_path, name):
    file, moved = root / "fixtures" / f"{name}.onnx", tmp_path / "moved.onnx"
    assert call("teleport", file, "-o", moved, "--seed", 5).exit_code == 0
    document = diff(file, moved, code=0)
    assert not any(document["findings"][word] for word in ("new", "gone", "worse", "better"))


def test_a_small_change_of_every_weight_is_no_symmetry(healthy, tmp_path):
    rng = np.random.default_rng(4)

    def shaken(weights: Weights) -> None:
        for name, value in weights.items():
            if value.dtype == np.float32:
                weights[name] = value * (1 + 1e-3 * rng.normal(size=value.shape)).astype(np.float32)

    document = diff(healthy, change(healthy, tmp_path / "shaken.onnx", shaken))
    assert set(statuses(document).values()) == {"changed"}


# -- flaws --------------------------------------------------------------------------------------------------------


def planted(*units: int) -> Callable[[Weights], None]:
    def edit(weights: Weights) -> None:
        for name in ("conv2.weight", "conv2.bias"):
            weights[name][list(units)] = 0

    return edit


def test_units_that_died_are_a_new_finding(healthy, tmp_path):
    dead = change(healthy, tmp_path / "dead.onnx", planted(3, 7, 20))
    document = diff(healthy, dead, code=1)
    (finding,) = document["findings"]["new"]
    assert (finding["rule"], finding["units"]) == ("SYM101", [3, 7, 20])
    assert {s["name"]: s["new"]["live"] for s in document["spaces"]}["conv2"] == 21
    assert diff(healthy, dead, "--fail-on", "never", code=0)["findings"]["new"]
    back = diff(dead, healthy, code=0)
    assert [f["units"] for f in back["findings"]["gone"]] == [[3, 7, 20]]


def test_more_dead_units_make_a_finding_worse(healthy, tmp_path):
    some = change(healthy, tmp_path / "some.onnx", planted(3, 7))
    more = change(healthy, tmp_path / "more.onnx", planted(3, 5, 7, 9))
    document = diff(some, rename(more, tmp_path / "renamed.onnx"), code=1)
    (finding,) = document["findings"]["worse"]
    assert (finding["rule"], finding["added"], finding["removed"]) == ("SYM101", [5, 9], [])
    assert not document["findings"]["new"]
    assert diff(some, more, "--fail-on", "worse", code=1)
    assert diff(more, some, code=0)["findings"]["better"][0]["removed"] == [5, 9]


def test_what_decay_did_is_shown_by_depth(root):
    document = diff(root / "fixtures/healthy_cnn.onnx", root / "fixtures/decayed_cnn.onnx", code=1)
    lost = {s["old"]["id"]: s["old"]["live"] - s["new"]["live"] for s in document["spaces"]}
    found = [len(f["units"]) for f in document["findings"]["new"] if f["rule"] == "SYM101"]
    assert sorted(n for n in lost.values() if n) == sorted(found)
    assert all(s["old"]["live"] == s["old"]["units"] for s in document["spaces"])
    assert all(s["new"]["width"] < 0.6 * s["old"]["width"] for s in document["spaces"])
    assert len(found) >= 3


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_numbers_that_became_infinite_or_nan_are_a_change(healthy, tmp_path, value):
    def broken(weights: Weights) -> None:
        weights["conv2.weight"][3, 1] = value

    new = change(healthy, tmp_path / "broken.onnx", broken)
    document = diff(healthy, new)
    (tensor,) = (t for t in document["weights"]["tensors"] if t["old"] == "conv2.weight")
    assert (tensor["status"], tensor["broken"]) == ("changed", 9)
    assert set(statuses(document).values()) == {"identical", "changed"}
    assert "9 numbers became infinite or NaN" in call("diff", healthy, new).stdout
    assert statuses(diff(new, healthy))["conv2.weight"] == "changed"
    assert diff(new, new)["weights"]["unchanged"]


def test_numbers_beyond_half_precision_are_no_rounding(perceptron, tmp_path):
    def large(weights: Weights) -> None:
        weights["second.weight"][1, 2] = 70000

    old = perceptron("float.onnx", large)
    model = onnx.load(old)
    with np.errstate(over="ignore"):
        for item in model.graph.initializer:
            item.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(item).astype(np.float16), item.name))
    for info in (*model.graph.input, *model.graph.output):
        info.type.tensor_type.elem_type = TensorProto.FLOAT16
    onnx.save(model, tmp_path / "half.onnx")
    found = statuses(diff(old, tmp_path / "half.onnx"))
    assert (found["first.weight"], found["second.weight"]) == ("rounded", "changed")


def rebuilt(source: Path, target: Path, edit: Callable[[onnx.GraphProto], None]) -> Path:
    """A copy of a file with other nodes."""
    model = onnx.load(source)
    edit(model.graph)
    onnx.save(model, target)
    return target


def test_another_operator_or_attribute_is_told(healthy, tmp_path):
    def turned(graph: onnx.GraphProto) -> None:
        next(n for n in graph.node if n.op_type == "Relu").op_type = "Tanh"

    def doubled(graph: onnx.GraphProto) -> None:
        node = next(n for n in graph.node if n.op_type == "Gemm")
        kept = [a for a in node.attribute if a.name != "alpha"]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute("alpha", 2.0)])

    for edit, old, words in ((turned, "Relu", "Tanh"), (doubled, "Gemm alpha 1", "alpha 2")):
        new = rename(rebuilt(healthy, tmp_path / "edited.onnx", edit), tmp_path / "renamed.onnx")
        document = diff(healthy, new, "--fail-on", "changed", code=1)
        (edited,) = document["nodes"]["changed"]
        assert (edited["old"], edited["new"]) == (old, words)
        printed = call("diff", healthy, new, "--fail-on", "changed").stdout
        assert "nothing changed" not in printed
        assert "no weight changed" in printed
        assert f"{old} -> {words}" in printed
        assert "failed on changed (1 node)" in printed


def test_two_networks_that_have_nothing_in_common_are_not_compared(healthy, deep):
    document = diff(healthy, deep, code=4)
    assert (document["verdict"], document["weights"]["unrelated"]) == ("incomplete", True)
    printed = call("diff", healthy, deep).stdout
    assert "are these two files of one network?" in printed
    assert "of 0 matched" not in printed


def test_a_repaired_network_is_the_old_one_cut(root, tmp_path):
    old, new = root / "fixtures" / "decayed_cnn.onnx", tmp_path / "fixed.onnx"
    assert call("fix", old, "-o", new).exit_code == 0
    for other in (new, rename(new, tmp_path / "renamed.onnx")):
        document = diff(old, other, code=0)
        assert set(statuses(document).values()) == {"cut", "identical"}
        assert not document["weights"]["unmatched_old"]
        units = {s["name"]: (s["old"]["units"], s["new"] and s["new"]["units"]) for s in document["spaces"]}
        assert units == {"conv1": (16, 15), "conv2": (24, 9), "conv3": (32, 24), "hidden": (32, 23)}
    assert "cut: 24x16x3x3 -> 9x15x3x3" in call("diff", old, new).stdout


# -- adapters -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [False, True], ids=["names", "renamed"])
def test_a_merged_adapter_has_the_rank_that_it_was_trained_with(deep, tmp_path, hidden):
    rng = np.random.default_rng(6)

    def merged(weights: Weights) -> None:
        for name in ("block.1.up", "block.3.down"):
            rows, columns = weights[name].shape
            factors = rng.normal(size=(rows, 3)), rng.normal(size=(3, columns))
            weights[name] += (0.02 * factors[0] @ factors[1]).astype(np.float32)

    new = change(deep, tmp_path / "merged.onnx", merged)
    document = diff(deep, rename(new, tmp_path / "renamed.onnx") if hidden else new, code=0)
    found = {t["old"]: t["rank"] for t in document["weights"]["tensors"] if t["status"] != "identical"}
    assert found == {"block.1.up": 3, "block.3.down": 3}
    assert not document["weights"]["unchanged"]


@pytest.mark.parametrize(("rows", "columns"), [(40, 60), (500, 700), (700, 300)])
def test_ranks_of_differences(rows, columns):
    rng = np.random.default_rng(2)
    low = rng.normal(size=(rows, 5)) @ rng.normal(size=(5, columns))
    noise = 1e-7 * rng.normal(size=low.shape)
    assert rank(low + noise, 1e-7).numerical == 5
    assert rank(low + noise, 1e-7).effective == pytest.approx(participation(np.linalg.svd(low)[1] ** 2), rel=1e-3)
    assert rank(rng.normal(size=(rows, columns)), 1e-7).numerical == min(rows, columns)


# -- number types -------------------------------------------------------------------------------------------------


def quantise(source: Path, target: Path) -> Path:
    """The matrices of a file as int8 with one scale each, behind DequantizeLinear."""
    model = onnx.load(source)
    graph = model.graph
    for item in list(graph.initializer):
        value = numpy_helper.to_array(item)
        if value.ndim < 2:
            continue
        scale = np.float32(np.abs(value).max() / 127)
        levels = np.clip(np.rint(value / scale), -127, 127).astype(np.int8)
        graph.initializer.remove(item)
        parts = {"q": levels, "s": scale, "z": np.zeros((), np.int8)}
        graph.initializer.extend(numpy_helper.from_array(np.asarray(v), f"{item.name}_{k}") for k, v in parts.items())
        graph.node.insert(
            0, helper.make_node("DequantizeLinear", [f"{item.name}_{k}" for k in parts], [item.name], f"dq_{item.name}")
        )
    onnx.save(model, target)
    return target


def test_a_unit_that_rounding_kills_is_told(perceptron, tmp_path):
    def faint(weights: Weights) -> None:
        weights["first.weight"][4] *= 1e-4
        weights["first.bias"][4] = 0
        weights["second.weight"][:, 4] *= 2

    old = perceptron("float.onnx", faint)
    document = diff(old, quantise(old, tmp_path / "int8.onnx"), code=1)
    (finding,) = document["findings"]["new"]
    assert (finding["rule"], finding["units"]) == ("SYM101", [4])
    assert document["weights"]["matched"] == document["weights"]["total"]
    assert statuses(document) == {"first.weight": "rounded", "first.bias": "identical", "second.weight": "rounded"}
    assert document["spaces"][0]["new"]["live"] == 5
    assert "no weight changed but the rounding to int8" in call("diff", old, tmp_path / "int8.onnx").stdout
    back = call("diff", tmp_path / "int8.onnx", old).stdout
    assert "no weight changed but the rounding that the old file has (int8)" in back


def test_half_precision_is_a_rounding_of_single_and_of_nothing_else(perceptron, tmp_path):
    def halved(source: Path, target: Path) -> Path:
        model = onnx.load(source)
        for item in model.graph.initializer:
            item.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(item).astype(np.float16), item.name))
        for info in (*model.graph.input, *model.graph.output):
            info.type.tensor_type.elem_type = TensorProto.FLOAT16
        onnx.save(model, target)
        return target

    def one_step(weights: Weights) -> None:
        weights["second.weight"][1, 2] = np.nextafter(weights["second.weight"][1, 2], np.float16(9))

    single = perceptron("float.onnx")
    half = halved(single, tmp_path / "half.onnx")
    assert set(statuses(diff(single, half, code=0)).values()) == {"rounded"}
    other = change(half, tmp_path / "other.onnx", one_step)
    assert statuses(diff(half, other))["second.weight"] == "changed"


def test_levels_of_eight_bits_do_not_wrap_round(perceptron, tmp_path):
    """A zero point is subtracted in wider numbers than the levels are stored in."""
    old = perceptron("float.onnx")
    model = onnx.load(quantise(old, tmp_path / "int8.onnx"))
    for item in model.graph.initializer:
        value = numpy_helper.to_array(item)
        if item.name.endswith("_q"):
            item.CopyFrom(numpy_helper.from_array((value.astype(np.int32) + 128).astype(np.uint8), item.name))
        if item.name.endswith("_z"):
            item.CopyFrom(numpy_helper.from_array(np.full((), 128, np.uint8), item.name))
    onnx.save(model, tmp_path / "uint8.onnx")
    document = diff(old, tmp_path / "uint8.onnx", code=0)
    assert statuses(document)["first.weight"] == "rounded"
    values = Context(*examine(load(str(tmp_path / "uint8.onnx")))).values
    first = numpy_helper.to_array(onnx.load(old).graph.initializer[0])
    known = [v.scale for v in values.values() if v.bases is None and v.shape == first.shape]
    assert any(np.abs(v - first).max() < 0.05 for v in known)


# -- the command --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("flags", "code"), [([], 0), (["--fail-on", "sometimes"], 2), (["--select", "SYM9"], 2)])
def test_calls_that_are_wrong(healthy, flags, code):
    assert call("diff", healthy, healthy, *flags).exit_code == code


def test_files_that_cannot_be_read(healthy, tmp_path):
    torn = tmp_path / "torn.onnx"
    torn.write_bytes(healthy.read_bytes()[:100])
    for file, code in ((torn, 4), (tmp_path / "nothing.onnx", 3)):
        document = diff(healthy, file, code=code)
        assert document["verdict"] == "incomplete"
        result = call("diff", file, healthy)
        assert (result.exit_code, result.stdout) == (code, "")
        assert result.stderr.count("\n") == 1


def test_the_readme_shows_its_last_lines(root):
    files = [f"fixtures/{name}_cnn.onnx" for name in ("healthy", "decayed")]
    printed = call("diff", *(root / file for file in files)).stdout
    last = printed[printed.index("space ") :]
    readme = (root / "README.md").read_text(encoding="utf-8")
    assert f"symlint diff {' '.join(files)}\n```\n\n```\n{last}```" in readme, f"it should show:\n{last}"


def test_json_is_the_documented_shape(healthy, root):
    document = diff(healthy, root / "fixtures" / "decayed_cnn.onnx")
    head = ["schema_version", "verdict", "exit_code", "old", "new", "findings", "weights", "spaces"]
    assert list(document) == [*head, "operators", "nodes"]
    assert set(document["findings"]) == {"new", "gone", "worse", "better", "kept"}
    assert {"matched", "total", "unmatched_old", "unmatched_new", "identical", "rounded", "changed"} <= set(
        document["weights"]
    )
    assert document["old"]["sha256"] != document["new"]["sha256"]


@pytest.mark.corpus
def test_notes_that_are_not_shown_are_counted(shared):
    files = [shared / "zoo" / f"{name}.onnx" for name in ("bert", "bert.int8_dynamic")]
    printed = call("diff", *files).stdout
    assert "not shown" in printed
    assert "(-v shows them)" in printed
    assert "not shown" not in call("diff", *files, "-v").stdout


# -- published networks -------------------------------------------------------------------------------------------

PAIRS = [
    ("mlp_relu", "mlp_relu.dynamo", 1.0, {"identical"}),
    ("mlp_relu", "mlp_relu.int8_qdq", 1.0, {"rounded"}),
    ("mlp_relu", "mlp_relu.int8_qoperator", 0.96, {"rounded"}),
    ("mlp_relu", "mlp_relu.fp16", 1.0, {"rounded"}),
    ("gated_swiglu", "gated_swiglu.dynamo", 1.0, {"identical"}),
    ("bert", "bert.ort_extended", 1.0, {"identical"}),
    ("bert", "bert.ort_transformer", 1.0, {"identical"}),
    ("bert", "bert.int4_blocks", 1.0, {"identical", "rounded"}),
    ("bert", "bert.int8_qdq", 1.0, {"rounded"}),
    ("bert", "bert.int8_dynamic", 1.0, {"identical", "rounded"}),
    ("gpt2", "gpt2.fp16", 1.0, {"rounded"}),
    ("lstm", "lstm.dynamo", 1.0, {"identical"}),
    ("lstm", "lstm.int8_dynamic", 1.0, {"identical", "rounded"}),
    ("vit_timm", "vit_timm.ort_extended", 1.0, {"identical"}),
    ("vit_timm", "vit_timm.ort_extended_dynamo", 1.0, {"identical"}),
    ("resnet18", "resnet18.int8_qdq", 1.0, {"rounded"}),
    ("mobilenet_v2", "mobilenet_v2.int8_qdq", 1.0, {"rounded"}),
]


@pytest.mark.corpus
@pytest.mark.parametrize(("old", "new", "least", "allowed"), PAIRS, ids=[new for _, new, *_ in PAIRS])
def test_what_exporters_and_quantisers_write_is_matched(shared, tmp_path, old, new, least, allowed):
    """Under names that say nothing."""
    hidden = rename(shared / "zoo" / f"{new}.onnx", tmp_path / "hidden.onnx")
    document = diff(shared / "zoo" / f"{old}.onnx", hidden)
    weights = document["weights"]
    assert weights["matched"] >= least * weights["total"]
    assert {t["status"] for t in weights["tensors"] if t["matched"]} == allowed
    assert not [f for f in document["findings"]["new"] if f["level"] != "note"]
