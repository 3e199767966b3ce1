"""Networks whose equivariance is known, and a public one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from corpora import FIXTURES
from onnx import TensorProto, helper, numpy_helper
from onnx.parser import parse_graph

import symlint
from symlint.cli.main import cli
from symlint.lint.configuration import read
from symlint.model.load import load
from symlint.runtime.equivariance import Measured, Wanted, measure

Shape = tuple[object, ...]


def saved(
    path: Path, text: str, stored: dict[str, object], inputs: dict[str, Shape], outputs: dict[str, Shape]
) -> Path:
    """A network of nodes in ONNX's notation; inputs that begin with ``index`` are integers."""
    rng = np.random.default_rng(3)
    arrays = {n: rng.normal(size=v) if isinstance(v, tuple) else np.asarray(v) for n, v in stored.items()}
    floats = {n: v.astype(np.float32) if v.dtype == np.float64 else v for n, v in arrays.items()}
    kinds = {n: TensorProto.INT64 if n.startswith("index") else TensorProto.FLOAT for n in {**inputs, **outputs}}
    infos = [
        [helper.make_tensor_value_info(n, kinds[n], shape) for n, shape in those.items()] for those in (inputs, outputs)
    ]
    graph = helper.make_graph(
        list(parse_graph(f"small () => () {{ {text} }}").node),
        "small",
        *infos,
        [numpy_helper.from_array(v, n) for n, v in floats.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def rows(path: Path, **wanted: object) -> dict[tuple[str, str, int | None, str], Measured]:
    table = measure(load(str(path)), Wanted(**wanted))  # type: ignore[arg-type]
    assert not table.failure
    return {(r.name, r.input, r.axis, r.output): r for r in table.rows}


def proven(path: Path, **wanted: object) -> set[tuple[str, str, int | None, str]]:
    return {key for key, row in rows(path, **wanted).items() if row.proven}


def answers(found: dict[tuple[str, str, int | None, str], Measured]) -> dict[tuple[str, str, int | None, str], str]:
    return {key: row.action if row.outcome == "held" else row.outcome for key, row in found.items()}


WRAPPED = "a = Slice(x, last, end, two) b = Slice(x, start, one, two) c = Concat<axis=2>(a, x, b) "
ENDS = {"last": [-1], "end": [2**31], "start": [0], "one": [1], "two": [2]}


def test_global_pooling_is_invariant_and_its_channels_are_not(tmp_path):
    text = "p = GlobalAveragePool(x) f = Flatten(p) y = MatMul(f, w)"
    found = rows(saved(tmp_path / "m.onnx", text, {"w": (3, 4)}, {"x": (1, 3, 8, 8)}, {"y": (1, 4)}))
    told = answers(found)
    assert {told[name, "x", axis, "y"] for name in ("flip", "shift", "permutation") for axis in (2, 3)} == {"invariant"}
    assert told["turn", "x", 2, "y"] == "invariant"
    assert {told[name, "x", 1, "y"] for name in ("flip", "shift", "permutation")} == {"broken"}
    assert told["sign", "x", None, "y"] == "equivariant"  # it is linear
    assert {key for key, row in found.items() if row.proven} == {k for k, v in told.items() if v != "broken"}


@pytest.mark.parametrize(("stride", "step"), [(1, 1), (2, 2)])
def test_a_circular_convolution_goes_along_with_shifts(tmp_path, stride, step):
    text = f"{WRAPPED} k = Conv<strides=[{stride}]>(c, w, b1) y = Relu(k)"
    path = saved(
        tmp_path / "m.onnx", text, {**ENDS, "w": (4, 3, 3), "b1": (4,)}, {"x": (1, 3, 12)}, {"y": (1, 4, 12 // stride)}
    )
    found = rows(path)
    told = answers(found)
    assert told["shift", "x", 2, "y"] == "equivariant"
    assert found["shift", "x", 2, "y"].step == step
    assert found["shift", "x", 2, "y"].proven
    assert {word for key, word in told.items() if key[:3] != ("shift", "x", 2)} == {"broken"}


def test_a_function_of_a_set(tmp_path):
    text = "h = MatMul(x, w1) r = Relu(h) s = ReduceSum<keepdims=0>(r, one) y = MatMul(s, w2)"
    stored = {"w1": (5, 8), "w2": (8, 3), "one": [1]}
    told = answers(rows(saved(tmp_path / "m.onnx", text, stored, {"x": ("batch", "set", 5)}, {"y": ("batch", 3)})))
    assert told["permutation", "x", 1, "y"] == "invariant"
    assert told["permutation", "x", 0, "y"] == "equivariant"
    assert told["permutation", "x", 2, "y"] == told["sign", "x", None, "y"] == "broken"


def test_nodes_of_a_graph_move_in_all_inputs_at_once(tmp_path):
    text = "m = MatMul(a, x) h = MatMul(m, w1) r = Relu(h) m2 = MatMul(a, r) y = MatMul(m2, w2)"
    path = saved(tmp_path / "m.onnx", text, {"w1": (5, 8), "w2": (8, 3)}, {"x": (6, 5), "a": (6, 6)}, {"y": (6, 3)})
    found = rows(path, names=("permutation",))
    told = answers(found)
    for key in (("permutation", "x", 0, "y"), ("permutation", "a", 0, "y"), ("permutation", "a", 1, "y")):
        assert told[key] == "equivariant"
        assert {(p.tensor, p.axes) for p in found[key].moved} == {("x", (0,)), ("a", (0,)), ("a", (1,))}
        assert [p.axes for p in found[key].answer] == [(0,)]
        assert found[key].proven
    assert told["permutation", "x", 1, "y"] == "broken"


def test_nodes_move_in_lists_of_edges_too(tmp_path):
    text = (
        "from = Gather<axis=0>(index, zero) to = Gather<axis=0>(index, one) m = Gather<axis=0>(x, from) "
        'u = Unsqueeze(to, two) z = Mul(x, nothing) s = ScatterND<reduction="add">(z, u, m) h = MatMul(s, w) '
        "y = Tanh(h)"
    )
    stored = {"zero": 0, "one": 1, "two": [1], "nothing": 0.0, "w": (5, 3)}
    inputs = {"x": ("nodes", 5), "index": (2, "edges")}
    found = rows(saved(tmp_path / "m.onnx", text, stored, inputs, {"y": ("nodes", 3)}), names=("permutation",))
    told = answers(found)
    assert told["permutation", "x", 0, "y"] == "equivariant"
    assert [p.tensor for p in found["permutation", "x", 0, "y"].moved if p.indices] == ["index"]
    assert told["permutation", "index", 1, "y"] == "invariant"
    assert told["permutation", "index", 0, "y"] == "broken"


KERNEL = np.random.default_rng(0).normal(size=(4, 1, 3, 3))
IMAGES = "c = Conv<pads=[1,1,1,1]>(x, w, b) r = Relu(c) y = MaxPool<kernel_shape=[2,2],strides=[2,2]>(r)"


def test_what_follows_from_the_weights_is_proven(tmp_path):
    """Kernels that are their own mirror images, up to the last places; windows that see the same from both ends."""

    def of(w: np.ndarray, text: str = IMAGES) -> set[tuple[str, int | None]]:
        stored = {"w": w, "b": (4,)}
        path = saved(tmp_path / "m.onnx", text, stored, {"x": (1, 1, 8, 8)}, {"y": (1, 4, 4, 4)})
        return {key[::2] for key in proven(path, names=("flip", "turn", "sign"))}

    turned = sum(np.rot90(KERNEL, k, (2, 3)) for k in range(4))
    assert of(KERNEL + KERNEL[..., ::-1]) == {("flip", 3)}
    assert of(turned + turned[..., ::-1]) == {("flip", 2), ("flip", 3), ("turn", 2)}
    assert of(KERNEL + KERNEL[..., ::-1] + 1e-5 * KERNEL) == set()
    uneven = "c = Conv<pads=[1,1,1,1],strides=[2,2]>(x, w, b) y = Relu(c)"
    assert of(turned + turned[..., ::-1], uneven) == set()
    odd = "c = Conv<pads=[1,1,1,1]>(x, w) a = AveragePool<kernel_shape=[2,2],strides=[2,2]>(c) y = Tanh(a)"
    assert of(KERNEL, odd) == {("sign", None)}


def test_weights_on_the_surface_of_a_declared_mirror_are_proven_equivariant(tmp_path):
    """O is what a flip of kernels turns around: where O^T theta is zero, and only there, the network goes along."""
    surface = np.concatenate([np.eye(9) - np.eye(9).reshape(9, 3, 3)[..., ::-1].reshape(9, 9)], axis=1)
    np.save(tmp_path / "flip.npy", np.kron(np.eye(4), surface))
    mirror = '[[mirrors]]\nname = "flip"\ntensors = ["w"]\nsurface = "flip.npy"\n'
    (tmp_path / "symlint.toml").write_text(mirror)
    declared = read(tmp_path).mirrors[0]
    directions, length, _ = np.linalg.svd(np.load(declared.surface))
    o = directions[:, length > 1e-9]
    for name, w in {"off": KERNEL, "on": (KERNEL.ravel() - o @ o.T @ KERNEL.ravel()).reshape(KERNEL.shape)}.items():
        path = tmp_path / f"{name}.onnx"
        saved(path, IMAGES, {"w": w, "b": (4,)}, {"x": (1, 1, 8, 8)}, {"y": (1, 4, 4, 4)})
        called = CliRunner().invoke(cli, ["equivariance", str(path), "--only", "flip", "-f", "json"])
        told = json.loads(called.stdout)["transformations"]
        assert {row["axis"] for row in told if row["proven"]} == ({3} if name == "on" else set())


def test_a_set_under_attention_is_proven_and_positions_are_not(tmp_path):
    text = (
        "{} q = MatMul(h, wq) k = MatMul(h, wk) v = MatMul(h, wv) t = Transpose<perm=[0, 2, 1]>(k) s = MatMul(q, t) "
        "a = Softmax(s) o = MatMul(a, v) r = Add(o, h) n = LayerNormalization(r, g, b) m = ReduceMean<axes=[1]>(n) "
        "y = Tanh(m)"
    )
    weights = {**dict.fromkeys(("wq", "wk", "wv"), (5, 5)), "g": (5,), "b": (5,), "p": (7, 5)}
    ends = {"x": (2, 7, 5)}, {"y": (2, 1, 5)}
    plain = proven(saved(tmp_path / "m.onnx", text.format("h = Identity(x)"), weights, *ends), names=("permutation",))
    assert plain == {("permutation", "x", 0, "y"), ("permutation", "x", 1, "y")}
    placed = proven(saved(tmp_path / "m.onnx", text.format("h = Add(x, p)"), weights, *ends), names=("permutation",))
    assert placed == {("permutation", "x", 0, "y")}


@pytest.mark.parametrize(("second", "whole"), [("a", True), ("b", False)])
def test_parts_of_different_rows_are_no_whole(tmp_path, second, whole):
    """Both parts have places of the moved axis, and together all of them, but perhaps of different tensors."""
    text = (
        "a = Slice(x, zero, four, two) b = Slice(x, four, eight, two) l = Slice(a, zero, three, one) "
        f"r = Slice({second}, three, six, one) y = Concat<axis=1>(l, r)"
    )
    stored = {"zero": [0], "one": [1], "two": [2], "three": [3], "four": [4], "six": [6], "eight": [8]}
    path = saved(tmp_path / "m.onnx", text, stored, {"x": (1, 6, 8)}, {"y": (1, 6, 4)})
    assert bool(proven(path, names=("permutation",), axis=1)) is whole


def test_quarter_turns_of_images_of_any_size(tmp_path):
    kernel = np.random.default_rng(0).normal(size=(4, 1, 3, 3))
    stored = {"w": sum(np.rot90(kernel, k, (2, 3)) for k in range(4)), "b": (4,)}
    inputs, outputs = {"x": (1, 1, "h", "w0")}, {"y": (1, 4, "h", "w0"), "p": (1, 4, 1, 1)}
    text = "c = Conv<pads=[1,1,1,1]>(x, w, b) y = Relu(c) p = GlobalMaxPool(y)"
    told = answers(rows(saved(tmp_path / "even.onnx", text, stored, inputs, outputs)))
    assert (told["turn", "x", 2, "y"], told["turn", "x", 2, "p"]) == ("equivariant", "invariant")
    assert (told["shift", "x", 2, "y"], told["shift", "x", 2, "p"]) == ("broken", "broken")
    odd = answers(rows(saved(tmp_path / "odd.onnx", text, {**stored, "w": kernel}, inputs, outputs)))
    assert set(odd.values()) == {"broken"}


def test_the_sign_of_an_odd_network(tmp_path):
    text = "h = MatMul(x, w1) t = Tanh(h) y = MatMul(t, w2) z = Abs(y)"
    stored = {"w1": (5, 8), "w2": (8, 3)}
    path = saved(tmp_path / "m.onnx", text, stored, {"x": ("n", 5)}, {"y": ("n", 3), "z": ("n", 3)})
    told = answers(rows(path, names=("sign",)))
    assert told == {("sign", "x", None, "y"): "equivariant", ("sign", "x", None, "z"): "invariant"}


def test_what_does_not_answer_is_never_invariant(tmp_path):
    text = "h = MatMul(x, w) t = Mul(h, nothing) y = Add(t, w0) q = MatMul(u, w)"
    stored = {"w": (5, 8), "nothing": 0.0, "w0": (8,)}
    path = saved(tmp_path / "m.onnx", text, stored, {"x": ("n", 5), "u": ("n", 5)}, {"y": ("n", 8), "q": ("n", 8)})
    found = rows(path)
    mute = [row for row in found.values() if row.output == "y" or row.input == "x"]
    assert {(row.outcome, row.action, row.error) for row in mute} == {("not tried", None, None)}
    assert found["flip", "u", 0, "q"].outcome == "held"


def test_a_plain_network_from_python_and_the_command_line(tmp_path):
    path = FIXTURES / "healthy_cnn.onnx"
    table = symlint.equivariance(path, only="flip, turn")
    assert {row.outcome for row in table.rows if row.axis != 0} == {"broken"}
    assert "does not hold" in str(table)
    called = CliRunner().invoke(cli, ["equivariance", str(path), "--only", "flip,turn", "-f", "json"])
    assert called.exit_code == 0
    document = json.loads(called.stdout)
    assert document["schema_version"] == "1"
    assert document["transformations"] == table.to_dicts()
    assert {"name", "input", "axis", "output", "action", "error", "noise"} <= document["transformations"][0].keys()


@pytest.mark.parametrize(("arguments", "code"), [(["nothing.onnx"], 3), (["torn.onnx"], 4), (["unrun.onnx"], 4)])
def test_what_cannot_be_run(tmp_path, arguments, code):
    (tmp_path / "torn.onnx").write_bytes(b"\x08\x09")
    saved(tmp_path / "unrun.onnx", "h = Unknown(x) y = Relu(h)", {}, {"x": (2, 5)}, {"y": (2, 5)})
    called = CliRunner().invoke(cli, ["equivariance", str(tmp_path / arguments[0]), "-f", "json"])
    assert called.exit_code == code
    assert json.loads(called.stdout)["transformations"] == []


SET = "h = Add(x, p) q = MatMul(h, w) r = Tanh(q) f = Flatten(r) y = MatMul(f, u) z = MatMul(r, v)"


@pytest.mark.parametrize("batch", ["batch", 2])
@pytest.mark.parametrize(("group", "axis"), [("permutation:x:1", 1), ("shift:x:1", 1), ("sign:x", None)])
def test_behind_a_frame_a_network_goes_along_with_a_large_group(tmp_path, group, axis, batch):
    stored = {"p": (12, 5), "w": (5, 6), "u": (72, 3), "v": (6, 4)}
    path = saved(tmp_path / "m.onnx", SET, stored, {"x": (batch, 12, 5)}, {"y": (batch, 3), "z": (batch, 12, 4)})
    out = tmp_path / "out.onnx"
    done = CliRunner().invoke(cli, ["symmetrise", str(path), "-o", str(out), "--group", group, "--frame"])
    assert done.exit_code == 0, done.output
    name = group.split(":")[0]
    assert answers(rows(path, names=(name,), axis=axis))[name, "x", axis, "z"] == "broken"
    told = answers(rows(out, names=(name,), axis=axis))
    assert told[name, "x", axis, "y"] == "invariant"
    assert told[name, "x", axis, "z"] == ("equivariant" if axis else "invariant")


@pytest.mark.parametrize(
    ("groups", "told"),
    [
        (["permutation:x:1"], "--frame does"),
        (["flip:x:1", "--frame"], "leave --frame out"),
        (["permutation:x:0", "--frame"], "one fixed size"),
        (["sign:x", "--frame", "--group", "shift:x:1"], "of one --group"),
    ],
)
def test_where_there_is_no_frame(tmp_path, groups, told):
    stored = {"p": (12, 5), "w": (5, 6), "u": (72, 3), "v": (6, 4)}
    ends = {"x": ("batch", 12, 5)}, {"y": ("batch", 3), "z": ("batch", 12, 4)}
    path = saved(tmp_path / "m.onnx", SET, stored, *ends)
    done = CliRunner().invoke(cli, ["symmetrise", str(path), "-o", str(tmp_path / "o.onnx"), "--group", *groups])
    assert done.exit_code == 2
    assert told in done.output
