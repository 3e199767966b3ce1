"""What check calls fixable is what fix does: so many units go, nothing else is touched, and nothing is fixable then."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import planting
import pytest
from click.testing import CliRunner
from corpora import SHARED
from onnx import TensorProto, helper, numpy_helper

from symlint.audit.engine import Report, audit
from symlint.cli.main import cli
from symlint.evidence.context import Context
from symlint.lint.finding import Finding
from symlint.lint.rule import rules
from symlint.lint.settings import Settings
from symlint.repair.fixing import Fixed, Wish, fix
from symlint.repair.promises import Promise

RULES = [r for r in rules() if r.repair and r.repair not in ("drop", "balance")]
Weights = dict[str, np.ndarray]


pytestmark = pytest.mark.usefixtures("no_clock")


def checked(path: Path) -> Report:
    """The audit of a file by the rules that a fix acts on, with the parameters that go where the plan tells them."""

    def planned(report: Report, context: Context, promise: Promise | None) -> int | None:
        return promise and promise.parameters(RULES, ("exact",))

    report = audit(str(path), RULES, Settings(), takes=planned)
    assert not report.incomplete, report.incomplete
    return report


def promised(report: Report) -> Counter[tuple[str, str]]:
    """Rule and space -> the units that a fix is said to take away."""
    exact = [f for f in report.findings if f.evidence == "exact"]
    assert all(bool(f.repairs) <= f.fixable for f in exact)
    found: Counter[tuple[str, str]] = Counter()
    for finding in exact:
        if finding.repairs:
            found[finding.rule, _where(report, finding)] += finding.repairs
    return found


def _where(report: Report, finding: Finding) -> str:
    return report.spaces[finding.space].name if finding.space else ""


def kept(path: Path, folder: Path, align: int = 1, *, more: bool = False) -> Fixed:
    """A fix that does what was promised; with `align` only that it tells what it does.

    With `more` the repairs themselves bring to light what is repaired as well.
    """
    report = checked(path)
    folder.mkdir(exist_ok=True)
    fixed = fix(str(path), folder, Wish(RULES, align))
    assert not any(one.refuted for one in fixed.left), fixed.left
    done: Counter[tuple[str, str]] = Counter()
    for one in fixed.done:
        done[one.rule, one.where] += one.removed
        assert 0 <= one.removed <= one.units
    if report.takes is not None and align == 1 and not any(one.bytes for one in fixed.done):
        assert report.takes == fixed.before.measure.parameters - fixed.after.measure.parameters
    if align == 1:
        told = promised(report)
        assert done >= told if more else done == told, (done - told, told - done, fixed.left)
        assert all(f.fixable == (told[f.rule, _where(report, f)] > 0) for f in report.findings if f.evidence == "exact")
    after = checked(Path(fixed.path))
    if align == 1:
        assert not [f.message for f in after.findings if f.fixable and f.evidence == "exact"]
    return fixed


def units(path: Path, tensor: str, axis: int) -> int:
    """The length of an axis of a stored tensor."""
    return next(t.dims[axis] for t in onnx.load(path).graph.initializer if t.name == tensor)


def saved(path: Path, nodes: list[Any], weights: Weights, x: list[Any], y: list[Any], opset: int = 17) -> Path:
    """A file with one input `x` and one output `y`."""
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", x), ("y", y))]
    tensors = [numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items()]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], tensors)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def normal(*shape: int) -> np.ndarray:
    """Random weights, the same for the same shape."""
    return (np.random.default_rng([5, *shape]).normal(size=shape) / 2).astype(np.float32)


# -- both directions of a recurrence ------------------------------------------------------------------------------
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def both_ways(path: Path, op: str, dead: tuple[list[int], list[int]], hidden: int = 6) -> Path:
    """A recurrence in both directions in which nothing reads these units of each."""
    rows = GATES[op] * hidden
    weights = {"W": normal(2, rows, 5), "U": normal(2, rows, hidden), "B": normal(2, 2 * rows)}
    weights |= {"wo": normal(2 * hidden, 3), "flat": np.asarray([0, 0, -1])}
    for d, gone in enumerate(dead):
        weights["U"][d][:, gone] = 0
        weights["wo"][[d * hidden + k for k in gone]] = 0
    nodes = [
        helper.make_node(op, ["x", "W", "U", "B"], ["h"], direction="bidirectional", hidden_size=hidden),
        helper.make_node("Transpose", ["h"], ["t"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["t", "flat"], ["f"]),
        helper.make_node("MatMul", ["f", "wo"], ["y"]),
    ]
    return saved(path, nodes, weights, ["t", "n", 5], ["t", "n", 3])


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("dead", [([1, 4], []), ([], [0]), ([1, 4], [2, 3]), ([1, 4, 5], [0]), ([2], [1, 3])], ids=str)
def test_the_directions_of_a_recurrence_keep_one_size(op, dead, tmp_path):
    """As many units go as both can do without; a finding tells its direction."""
    path = both_ways(tmp_path / "m.onnx", op, dead)
    fixed = kept(path, tmp_path / "out")
    least = min(map(len, dead))
    assert units(Path(fixed.path), "U", 2) == 6 - least
    found = {_where(report, f): f for report in [checked(path)] for f in report.findings}
    assert set(found) == {f"W ({word})" for word, gone in zip(("forward", "reverse"), dead, strict=True) if gone}
    assert all(f.repairs == least and f"({f.message.partition('(')[2].partition(')')[0]})" for f in found.values())
    assert all(f"of {where}" in f.message for where, f in found.items())
    for one in fixed.left:
        assert one.reason == "others in the same places need as many"


def test_of_a_finding_that_is_repaired_in_part_the_part_is_told(tmp_path):
    path = both_ways(tmp_path / "m.onnx", "LSTM", ([1, 4, 5], [0]))
    printed = CliRunner().invoke(cli, ["check", str(path)]).stdout
    assert printed.count("repair: 1 of them can be taken away") == 1
    document = json.loads(CliRunner().invoke(cli, ["check", str(path), "-f", "json"]).stdout)
    assert [(f["fixable"], f["facts"]["repairs"]) for f in document["models"][0]["findings"]] == [(True, 1)] * 2


@pytest.mark.parametrize(("first", "second"), [([1], [4]), ([1, 2], [0, 5]), ([3], [0, 5]), ([3], [])], ids=str)
def test_constants_of_layers_in_one_tensor_go_together(first, second, tmp_path):
    """Two layers whose weights are stored one behind the other: of both as many go as of the one with fewest."""
    weights = {"w": normal(2, 5, 6), "b": normal(2, 1, 6), "v": normal(2, 6, 3)}
    for d, gone in enumerate((first, second)):
        weights["w"][d][:, gone], weights["b"][d, 0, gone] = 0, 0.5
    nodes = [helper.make_node("Unsqueeze", ["x", "zero"], ["i"])]
    weights |= {"zero": np.asarray([0])}
    nodes += [
        helper.make_node("MatMul", ["i", "w"], ["a"]),
        helper.make_node("Add", ["a", "b"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Split", ["r"], ["r0", "r1"], axis=0),
        helper.make_node("Split", ["v"], ["v0", "v1"], axis=0),
        helper.make_node("MatMul", ["r0", "v0"], ["y0"]),
        helper.make_node("MatMul", ["r1", "v1"], ["y1"]),
        helper.make_node("Add", ["y0", "y1"], ["y"]),
    ]
    fixed = kept(saved(tmp_path / "m.onnx", nodes, weights, ["n", 5], [1, "n", 3]), tmp_path / "out")
    assert units(Path(fixed.path), "w", 2) == 6 - min(len(first), len(second)), fixed.left


# -- constants ----------------------------------------------------------------------------------------------------
def constants(path: Path, values: list[float], hidden: int = 8, **second: Any) -> Path:
    """Two convolutions; the last units of the first are these constants."""
    weights = {"w1": normal(hidden, 3, 3, 3), "b1": normal(hidden), "w2": normal(4, hidden, 3, 3), "b2": normal(4)}
    for k, value in enumerate(values, start=1):
        weights["w1"][-k], weights["b1"][-k] = 0, value
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Conv", ["r", "w2", "b2"], ["y"], **second),
    ]
    return saved(path, nodes, weights, ["n", 3, "h", "w"], ["n", 4, "a", "b"])


@pytest.mark.parametrize(("values", "left"), [([0.7], 8), ([0.7, 0.3], 7), ([0.5, 0.25, 1.0], 6)], ids=str)
def test_a_border_tells_a_constant_from_a_bias(values, left, tmp_path):
    """One alone stays, and is not promised; of several one does the work of all."""
    path = constants(tmp_path / "m.onnx", values, pads=[1, 1, 1, 1])
    fixed = kept(path, tmp_path / "out")
    assert units(Path(fixed.path), "w1", 0) == left
    (after,) = checked(Path(fixed.path)).findings
    assert (after.rule, after.fixable, len(after.units)) == ("SYM102", False, 1)
    printed = CliRunner().invoke(cli, ["check", str(fixed.path)]).stdout
    assert "can be repaired" not in printed


@pytest.mark.parametrize("values", [[0.7], [0.7, 0.3]], ids=str)
def test_without_a_border_all_constants_go(values, tmp_path):
    fixed = kept(constants(tmp_path / "m.onnx", values), tmp_path / "out")
    assert units(Path(fixed.path), "w1", 0) == 8 - len(values)


BEHIND = {
    "MaxPool": ({"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, 6),
    "GlobalMaxPool": ({}, 6),
    "GlobalAveragePool": ({}, 6),
    "AveragePool": ({"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}, 6),
    "AveragePool without a border": ({"kernel_shape": [2, 2], "count_include_pad": 1}, 6),
    "AveragePool that counts its border": ({"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}, 7),
    "ReduceMax": ({"axes": [2, 3]}, 6),
    "ReduceMean": ({"axes": [2, 3]}, 6),
}


@pytest.mark.parametrize("name", BEHIND)
def test_a_constant_behind_what_keeps_it_is_folded(name, tmp_path):
    """One that is no other number at a border is a bias; of two that are, one does the work of both."""
    attributes, left = BEHIND[name]
    weights = {"w1": normal(8, 3, 3, 3), "b1": normal(8), "w2": normal(4, 8, 1, 1), "b2": normal(4)}
    weights["w1"][[2, 5]], weights["b1"][[2, 5]] = 0, [0.7, 0.3]
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node(name.split()[0], ["r"], ["p"], **attributes),
        helper.make_node("Conv", ["p", "w2", "b2"], ["y"]),
    ]
    path = saved(tmp_path / "m.onnx", nodes, weights, ["n", 3, 9, 9], ["n", 4, "a", "b"])
    assert units(Path(kept(path, tmp_path / "out").path), "w1", 0) == left


@pytest.mark.parametrize(
    ("function", "numbers"), [("Relu", []), ("Clip", [0.0, 0.4]), ("LeakyRelu", [0.1]), ("HardSigmoid", [0.2, 0.5])]
)
def test_a_constant_of_a_fused_activation_is_folded(function, numbers, tmp_path):
    """The activation has its parameters."""
    weights = {"w1": normal(8, 3, 3, 3), "b1": normal(8), "w2": normal(4, 8, 1, 1), "b2": normal(4)}
    weights["w1"][[2, 5]], weights["b1"][[2, 5]] = 0, [0.7, -0.3]
    more = {"activation_params": numbers} if numbers else {}
    nodes = [
        helper.make_node("FusedConv", ["x", "w1", "b1"], ["r"], domain="com.microsoft", activation=function, **more),
        helper.make_node("Conv", ["r", "w2", "b2"], ["y"]),
    ]
    path = saved(tmp_path / "m.onnx", nodes, weights, ["n", 3, 9, 9], ["n", 4, "a", "b"])
    assert units(Path(kept(path, tmp_path / "out").path), "w1", 0) == 6


@pytest.mark.parametrize("align", [2, 4, 8])
@pytest.mark.parametrize("count", [1, 2, 3, 5, 9])
def test_with_round_widths_what_goes_is_told(align, count, tmp_path):
    """In the text, the document and the metadata of the result."""
    path = constants(tmp_path / "m.onnx", [0.1 * k for k in range(1, count + 1)], hidden=16)
    fixed = kept(path, tmp_path / "out", align)
    width = units(Path(fixed.path), "w1", 0)
    assert width == -(-(16 - count) // align) * align
    assert sum(one.removed for one in fixed.done) == 16 - width
    out = tmp_path / "fixed.onnx"
    call = ["fix", str(path), "-o", str(out), "--align", str(align)]
    printed, written = CliRunner().invoke(cli, call).stdout, CliRunner().invoke(cli, [*call, "-f", "json"]).stdout
    document = json.loads(written)
    assert sum(one["removed"] for one in document["repairs"]) == 16 - width
    reasons = [p.value for p in onnx.load(out).metadata_props if p.key.startswith("symlint.fix.")]
    if width == 16:
        assert document["repairs"] == reasons == []
        assert [one["reason"] for one in document["left"]] == [f"widths stay multiples of {align}"]
        assert "nothing could be repaired" in printed
    else:
        assert f"{16 - width} of 16" in printed
        assert f"({16 - width} of 16 taken away)" in reasons[0]


def test_what_is_left_for_a_round_width_stays_as_it_was(shared, tmp_path):
    """No constant becomes a bias for nothing: the layer of which nothing goes is not touched."""
    path = shared / "faults" / "align_false_count" / "model.onnx"
    fixed = kept(path, tmp_path, 8)
    assert [(one.where, one.removed, one.units) for one in fixed.done] == [("w2", 8, 24)]
    before, after = (
        {t.name: numpy_helper.to_array(t) for t in onnx.load(p).graph.initializer} for p in (path, fixed.path)
    )
    assert np.array_equal(before["w1"], after["w1"])
    assert np.array_equal(before["b1"], after["b1"])


# -- other reasons ------------------------------------------------------------------------------------------------
def test_equal_units_that_no_weight_reads_are_not_promised(tmp_path):
    """Their sum over pairs is computed: there is no row that one could take over."""
    weights = {"w": normal(5, 6), "b": normal(6)}
    weights["w"][:, 3], weights["b"][3] = weights["w"][:, 1], weights["b"][1]
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("ReduceMax", ["r"], ["y"], axes=[1], keepdims=1),
    ]
    path = saved(tmp_path / "m.onnx", nodes, weights, ["n", 5], ["n", 1])
    fixed = kept(path, tmp_path / "out")
    assert not fixed.done


@pytest.mark.parametrize("name", ["bilstm", "model"])
def test_the_examples_are_not_promised(name, shared, tmp_path):
    path = shared / "faults" / "false_promise" / f"{name}.onnx"
    assert not kept(path, tmp_path).done
    assert "can be repaired" not in CliRunner().invoke(cli, ["check", str(path)]).stdout


# -- planted networks ---------------------------------------------------------------------------------------------
FAST = ("mlp_relu", "gru_bidirectional", "vgg13_bn.raw", "squeezenet", "gpt2", "resnest")
CASCADES = {"conformer"}
"""Networks in which a product turns out to be low in rank once units of it are gone."""
ZOO = [p for p in sorted((SHARED / "zoo").glob("*.onnx")) if "." not in p.stem or p.stem in FAST]


@pytest.mark.corpus
@pytest.mark.parametrize(
    "path", [pytest.param(p, id=p.stem, marks=[] if p.stem in FAST else [pytest.mark.slow]) for p in ZOO]
)
def test_what_is_promised_of_planted_networks_is_kept(path, shared, tmp_path):
    wreck = planting.wreck(path)
    if not wreck.damages:
        pytest.skip("there is no space to plant in")
    kept(wreck.save(tmp_path / "planted.onnx"), tmp_path / "out", more=path.stem in CASCADES)
