"""What `symlint fix` promises about files: nothing but the weights changes, nothing is lost, and what fails is told."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import numpy_helper

from symlint.cli.main import cli
from symlint.evidence.context import Context
from symlint.lint.finding import Finding, Level
from symlint.lint.rule import Rule, rules
from symlint.model.load import load
from symlint.repair import fixing
from symlint.runtime.proof import Proof
from symlint.runtime.verify import same_function

Weights = dict[str, np.ndarray]


pytestmark = pytest.mark.usefixtures("no_clock")


def run(*arguments: object) -> Result:
    """`symlint fix` in this process."""
    return CliRunner().invoke(cli, ["fix", *map(str, arguments)])


def written(path: Path, text: str, weights: Mapping[str, np.ndarray], domain: str = "") -> Path:
    """A model in the text format, with these weights and some metadata."""
    more = f', "{domain}": 1' if domain else ""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17{more}]> {text}')
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items())
    model.doc_string, model.producer_name, model.producer_version, model.model_version = "a test", "tests", "2.1", 7
    model.domain = "org.example"
    onnx.helper.set_model_props(model, {"author": "somebody", "symlint": "no reason of a repair"})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def normal(*shape: int) -> np.ndarray:
    """Random weights, the same for the same shape."""
    return np.random.default_rng([4, *shape]).normal(size=shape).astype(np.float32)


def stored(path: Path) -> Weights:
    """Initialisers by name."""
    return {
        t.name: numpy_helper.to_array(t, str(path.parent))
        for t in onnx.load(path, load_external_data=False).graph.initializer
    }


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Their shapes."""
    return {t.name: tuple(t.dims) for t in onnx.load(path, load_external_data=False).graph.initializer}


def difference(one: Path, other: Path) -> float:
    """How far the outputs of two files differ."""
    trial = same_function(load(str(one)), load(str(other)))
    assert trial.difference is not None, trial.reason
    return trial.difference


def repaired(source: Path, *options: object) -> Path:
    """The file that a fix writes, which computes the same function and passes the checker of ONNX."""
    out = source.with_name("out.onnx")
    result = run(source, "-o", out, *options)
    assert result.exit_code == 0, result.output
    assert difference(source, out) < 1e-5
    onnx.checker.check_model(str(out), full_check=True)
    return out


TWO = (
    "g (float[batch, 5] x) => (float[batch, 3] y, float[batch, 2] z) {"
    " a = Gemm<transB = 1>(x, w, b) r = Relu(a) y = Gemm<transB = 1>(r, v, c) z = MatMul(r, u) }"
)


def two(hidden: int = 12, dead: int = 2, constant: int = 1, equal: int = 1) -> Weights:
    """Weights of a layer that two others read: its first units are dead, the next constant, the last are equal."""
    weights = {
        "w": normal(hidden, 5),
        "b": normal(hidden),
        "v": normal(3, hidden),
        "c": normal(3),
        "u": normal(hidden, 2),
    }
    weights["v"][:, :dead], weights["u"][:dead] = 0, 0
    weights["w"][dead : dead + constant], weights["b"][dead : dead + constant] = 0, 0.5
    for k in range(equal):
        weights["w"][-1 - k], weights["b"][-1 - k] = (
            2 * weights["w"][dead + constant],
            2 * weights["b"][dead + constant],
        )
    return weights


@pytest.fixture
def flawed(tmp_path: Path) -> Path:
    """Two dead units, a constant one and a double among twelve."""
    return written(tmp_path / "model.onnx", TWO, two())


# -- what survives ----------------------------------------------------------------------------------------------------
def test_all_but_the_weights_is_as_it_was(flawed):
    """Names, symbolic dimensions, metadata, versions, inputs and outputs in their order."""
    out = repaired(flawed)
    before, after = onnx.load(flawed), onnx.load(out)
    assert list(after.graph.input) == list(before.graph.input)
    assert list(after.graph.output) == list(before.graph.output)
    assert list(after.opset_import) == list(before.opset_import)
    for name in ("ir_version", "doc_string", "producer_name", "producer_version", "model_version", "domain"):
        assert getattr(after, name) == getattr(before, name)
    assert after.graph.name == before.graph.name
    kept = {p.key: p.value for p in after.metadata_props if not p.key.startswith("symlint.fix.")}
    assert kept == {p.key: p.value for p in before.metadata_props}
    assert {n.op_type for n in before.graph.node} <= {n.op_type for n in after.graph.node}
    expected = {"w": (8, 5), "b": (8,), "v": (3, 8), "c": (3,), "u": (8, 2)}
    assert {name: shape for name, shape in shapes(out).items() if name in expected} == expected
    assert sum(np.prod(s) for n, s in shapes(out).items() if n not in expected) == 2, "the bias of the second reader"


def test_every_repair_leaves_its_reason(flawed):
    """In the metadata, numbered; a second fix of another flaw goes on counting."""
    out = repaired(flawed)
    reasons = {p.key: p.value for p in onnx.load(out).metadata_props if p.key.startswith("symlint.fix.")}
    assert sorted(reasons) == [f"symlint.fix.{k}" for k in range(1, len(reasons) + 1)]
    assert {value.split()[0] for value in reasons.values()} == {"SYM101", "SYM102", "SYM201"}
    document = json.loads(run(flawed, "--dry-run", "--format", "json").stdout)
    assert len(document["repairs"]) == len(reasons)
    model = onnx.load(out)
    for tensor in model.graph.initializer:
        if tensor.name in ("v", "u"):
            values = numpy_helper.to_array(tensor).copy()
            values[(slice(None), 4) if tensor.name == "v" else 4] = 0
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    again, last = out.with_name("again.onnx"), out.with_name("last.onnx")
    onnx.save(model, again)
    assert run(again, "-o", last).exit_code == 0
    props = {p.key: p.value for p in onnx.load(last).metadata_props if p.key.startswith("symlint.fix.")}
    assert len(props) == len(reasons) + 1
    assert reasons.items() <= props.items()


def test_dynamic_axes_stay_dynamic(tmp_path):
    """The result runs with other sizes than those that were chosen to look at it."""
    ort = pytest.importorskip("onnxruntime")
    text = (
        "g (float[batch, time, 5] x) => (float[batch, time, 3] y) {"
        " a = MatMul(x, w) h = Add(a, b) r = Relu(h) s = Shape(r) t = Reshape(r, s) y = MatMul(t, v) }"
    )
    weights = {"w": normal(5, 10), "b": normal(10), "v": normal(10, 3)}
    weights["v"][4:6] = 0
    source = written(tmp_path / "m.onnx", text, weights)
    out = repaired(source)
    assert shapes(out)["w"] == (5, 8)
    for batch, time in ((1, 1), (3, 7), (2, 31)):
        x = np.random.default_rng(0).normal(size=(batch, time, 5)).astype(np.float32)
        one, other = (ort.InferenceSession(str(p)).run(None, {"x": x})[0] for p in (source, out))
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def externally(path: Path, data: str, threshold: int = 0) -> Path:
    """The flawed model with its weights in a file of their own."""
    written(path, TWO, two(96, 20, 4, 3))
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location=data, size_threshold=threshold)
    return path


def locations(path: Path) -> dict[str, str]:
    """Initialiser -> the file that holds it."""
    return {
        t.name: next(e.value for e in t.external_data if e.key == "location")
        for t in onnx.load(path, load_external_data=False).graph.initializer
        if t.data_location == onnx.TensorProto.EXTERNAL
    }


@pytest.mark.parametrize("data", ["model.onnx.data", "weights.bin"])
def test_external_data_go_to_a_file_of_the_result(data, tmp_path):
    """Both files of the result can be moved together, and the data of the original are untouched."""
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    source = externally(tmp_path / "in" / "model.onnx", data)
    old = {p.name: p.read_bytes() for p in source.parent.iterdir()}
    out = tmp_path / "out" / "small.onnx"
    assert run(source, "-o", out).exit_code == 0
    assert {p.name: p.read_bytes() for p in source.parent.iterdir()} == old
    assert sorted(p.name for p in out.parent.iterdir()) == ["small.onnx", "small.onnx.data"]
    assert set(locations(out).values()) == {"small.onnx.data"}
    assert {"w", "v", "u"} <= set(locations(out))
    onnx.checker.check_model(str(out), full_check=True)
    moved = tmp_path / "moved"
    out.parent.rename(moved)
    assert difference(source, moved / "small.onnx") < 1e-5
    assert shapes(moved / "small.onnx")["w"] == (96 - 20 - 4 - 3, 5)


def test_a_result_beside_the_original_takes_none_of_its_data(tmp_path):
    """The original goes on working when both lie in one folder."""
    source = externally(tmp_path / "model.onnx", "model.onnx.data")
    reference = externally(tmp_path / "reference.onnx", "reference.onnx.data")
    out = repaired(source)
    assert set(locations(out).values()) == {"out.onnx.data"}
    assert difference(reference, source) == 0.0


@pytest.mark.parametrize("data", ["model.onnx.data", "weights.bin"])
def test_a_copy_of_external_data_is_complete(data, tmp_path):
    """Where nothing is to repair the copy works in another folder, too."""
    source = written(tmp_path / "model.onnx", TWO, two(96, 0, 0, 0))
    onnx.save(onnx.load(source), source, save_as_external_data=True, location=data, size_threshold=0)
    (tmp_path / "out").mkdir()
    assert run(source, "-o", out := tmp_path / "out" / "copy.onnx").exit_code == 0
    assert difference(source, out) == 0.0


def test_small_tensors_stay_in_the_file(tmp_path):
    """What was stored in the file itself is stored there afterwards."""
    source = externally(tmp_path / "model.onnx", "model.onnx.data", threshold=1000)
    out = repaired(source)
    assert set(locations(out)) <= set(locations(source))
    assert "w" in locations(out)


# -- shared tensors ---------------------------------------------------------------------------------------------------
def test_a_weight_and_its_transpose_stay_one(tmp_path):
    """An autoencoder with tied weights: encoder and decoder lose the same units."""
    text = (
        "g (float[n, 6] x) => (float[n, 6] y) {"
        " a = MatMul(x, w) h = Add(a, b) r = Relu(h) t = Transpose<perm = [1, 0]>(w) y = MatMul(r, t) }"
    )
    weights = {"w": normal(6, 9), "b": normal(9)}
    weights["w"][:, [2, 5]] = 0
    out = repaired(written(tmp_path / "m.onnx", text, weights))
    assert shapes(out) == {"w": (6, 7), "b": (7,)}


def test_a_weight_of_two_layers_stays_one(tmp_path):
    """A layer that is applied twice: its units are those that it reads."""
    text = (
        "g (float[n, 4] x) => (float[n, 3] y) { a = MatMul(x, e) f = Relu(a) g1 = MatMul(f, w) h = Relu(g1)"
        " i = MatMul(h, w) j = Relu(i) y = MatMul(j, v) }"
    )
    weights = {"e": normal(4, 8), "w": normal(8, 8), "v": normal(8, 3)}
    weights["e"][:, 3], weights["w"][:, 3] = 0, 0
    out = repaired(written(tmp_path / "m.onnx", text, weights))
    assert shapes(out) == {"e": (4, 7), "w": (7, 7), "v": (7, 3)}


SHARED_BIAS = (
    "g (float[n, 5] x) => (float[n, 8] y) { a = Gemm(x, w0, b) r = Relu(a) c = Gemm(r, w1, b) s = Relu(c)"
    " d = Gemm(s, w2, b) t = Relu(d) y = Gemm(t, w3, b) }"
)


@pytest.mark.parametrize("behind", ["", "Identity"])
def test_a_zero_bias_of_several_layers_is_cut_for_each(behind, tmp_path):
    """Three spaces lose different numbers of units, the outputs none."""
    text = SHARED_BIAS
    if behind:
        text = text.replace("r, w1, b", "r, w1, b1").replace("{ a", "{ b1 = Identity(b) a")
    weights = {"b": np.zeros(8, np.float32)} | {f"w{k}": normal(8 if k else 5, 8) + k for k in range(4)}
    weights["w1"][[0, 3]], weights["w2"][[1]], weights["w3"][[2, 5, 6]] = 0, 0, 0
    out = repaired(written(tmp_path / "m.onnx", text, weights))
    found = shapes(out)
    assert [found[f"w{k}"] for k in range(4)] == [(5, 6), (6, 7), (7, 5), (5, 8)]


def test_a_zero_bias_of_several_layers_takes_constants_for_one(tmp_path):
    """What constant units contribute goes to the layer that reads them and to no other."""
    weights = {"b": np.zeros(8, np.float32)} | {f"w{k}": normal(8 if k else 5, 8) for k in range(4)}
    text = SHARED_BIAS.replace("Gemm(x, w0, b)", "Gemm(x, w0, b0)")
    weights |= {"b0": normal(8)}
    weights["w0"][:, 2], weights["b0"][2] = 0, 1.5
    out = repaired(written(tmp_path / "m.onnx", text, weights))
    assert shapes(out)["w0"] == (5, 7)
    assert not stored(out)["b"].any()


# -- other tools ------------------------------------------------------------------------------------------------------
def test_onnxslim_takes_the_result(flawed):
    """It slims it, and the outputs stay."""
    onnxslim = pytest.importorskip("onnxslim", reason="onnxslim comes with the extra 'compare'")
    out = repaired(flawed)
    slim = out.with_name("slim.onnx")
    onnx.save(onnxslim.slim(str(out)), slim)
    assert difference(flawed, slim) < 1e-5


# -- the command line -------------------------------------------------------------------------------------------------
def listing(folder: Path) -> dict[str, bytes]:
    """File -> its bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_dry_run_writes_nothing(flawed, tmp_path):
    """It tells what would be done."""
    before = listing(tmp_path)
    result = run(flawed, "--dry-run")
    assert result.exit_code == 1  # something could be repaired
    assert all(code in result.output for code in ("SYM101", "SYM102", "SYM201"))
    assert run(flawed, "--dry-run", "-o", tmp_path / "out.onnx").exit_code == 1
    assert listing(tmp_path) == before


def test_in_place_keeps_what_it_was(flawed):
    """The file itself is replaced, and its former bytes are beside it."""
    before = flawed.read_bytes()
    assert run(flawed, "--in-place").exit_code == 0
    assert flawed.with_name("model.onnx.bak").read_bytes() == before
    assert shapes(flawed)["w"] == (8, 5)
    assert sorted(p.name for p in flawed.parent.iterdir()) == ["model.onnx", "model.onnx.bak"]


@pytest.mark.parametrize("data", ["model.onnx.data", "weights.bin"])
def test_in_place_keeps_what_it_was_with_its_data(data, tmp_path):
    """The former file goes on working: its data are not written over."""
    source = externally(tmp_path / "model.onnx", data)
    (tmp_path / "elsewhere").mkdir()
    reference = externally(tmp_path / "elsewhere" / "model.onnx", data)
    assert run(source, "--in-place").exit_code == 0
    assert shapes(source)["w"] == (96 - 20 - 4 - 3, 5)
    assert difference(reference, source) < 1e-5
    source.with_name("model.onnx.bak").rename(back := tmp_path / "back.onnx")
    assert difference(reference, back) == 0.0


def test_a_write_that_fails_leaves_the_model(flawed, monkeypatch):
    """Whatever goes wrong before the last step, the file under its name is whole."""
    before = flawed.read_bytes()

    def refuse(self: Path, target: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    monkeypatch.setattr(Path, "rename", refuse)
    monkeypatch.setattr("os.replace", refuse)
    result = run(flawed, "--in-place")
    assert result.exit_code == 2
    assert flawed.read_bytes() == before


@pytest.mark.parametrize(
    "options",
    [
        (), ("-o", "model.onnx"), ("-o", "no/such/folder/out.onnx"), ("-o", "out.onnx", "--in-place"),
        ("-o", "out.onnx", "--align", "0"), ("-o", "out.onnx", "--select", "SYM999"),
        ("-o", "out.onnx", "--input", "x:missing.npy"), ("-o", "out.onnx", "--safety", "none"),
    ],
)  # fmt: skip
def test_wrong_calls_end_with_2(options, flawed, monkeypatch):
    """One line that says why, and nothing is written."""
    monkeypatch.chdir(flawed.parent)
    result = run("model.onnx", *options)
    assert result.exit_code == 2, result.output
    assert sorted(p.name for p in flawed.parent.iterdir()) == ["model.onnx"]


def test_an_input_that_the_model_lacks_ends_with_2(flawed):
    """A misspelt name is told, not passed over."""
    array = flawed.with_name("x.npy")
    np.save(array, normal(4, 5))
    result = run(flawed, "--dry-run", "--input", f"features:{array}")
    assert result.exit_code == 2
    assert "'features'" in result.output


def test_files_that_are_no_models_end_with_4(tmp_path):
    """As for every command."""
    (tmp_path / "m.onnx").write_bytes(b"no model at all")
    assert run(tmp_path / "m.onnx", "-o", tmp_path / "out.onnx").exit_code == 4
    assert not (tmp_path / "out.onnx").exists()


def test_nothing_to_repair_gives_the_same_bytes(perceptron, tmp_path):
    """A copy, and exit 0."""
    source, out = perceptron(), tmp_path / "out.onnx"
    result = run(source, "-o", out)
    assert result.exit_code == 0
    assert out.read_bytes() == source.read_bytes()


def test_a_second_fix_gives_the_same_bytes(flawed):
    """What a fix wrote has nothing left."""
    out = repaired(flawed)
    assert run(out, "-o", again := out.with_name("again.onnx")).exit_code == 0
    assert again.read_bytes() == out.read_bytes()


REFUTED = Proof("refuted", 0.5, 1e-7, 3, "output 'y' differs")
LOST = Proof("not runnable", reason="nothing runs")


@pytest.mark.parametrize("proof", [REFUTED, LOST, Proof("refuted", trials=3, reason="the new file does not load")])
@pytest.mark.parametrize("where", ["-o", "--in-place"])
def test_when_no_repair_holds_nothing_is_written(proof, where, flawed, monkeypatch):
    """Exit 5; the model is as it was."""
    monkeypatch.setattr(fixing, "prove", lambda *args, **kwargs: proof)
    before = listing(flawed.parent)
    result = run(flawed, where, *([flawed.with_name("out.onnx")] if where == "-o" else []))
    assert result.exit_code == 5, result.output
    assert listing(flawed.parent) == before
    document = json.loads(run(flawed, "--dry-run", "--format", "json").stdout)
    assert document["outcome"] == "failed"
    if proof is not LOST:
        assert {one["rule"] for one in document["left"]} >= {"SYM102"}
        assert all(one["reason"] for one in document["left"])


def test_a_network_that_cannot_run_is_not_written(tmp_path):
    """Without inputs on which the original runs there is no proof."""
    text = (
        "g (int64[n] i) => (float[n, 3] y) { j = Sub(i, far) a = Gather(e, j) h = MatMul(a, w) r = Relu(h)"
        " y = MatMul(r, v) }"
    )
    weights = {"e": normal(6, 5), "w": normal(5, 9), "v": normal(9, 3), "far": np.array([100_000])}
    weights["v"][4] = 0
    source = written(tmp_path / "m.onnx", text, weights)
    result = run(source, "-o", out := tmp_path / "out.onnx")
    assert result.exit_code == 5, result.output
    assert not out.exists()
    np.save(tmp_path / "i.npy", np.array([100_001, 100_004]))
    result = run(source, "-o", out, "--input", f"i:{tmp_path / 'i.npy'}")
    assert result.exit_code == 0, result.output
    assert shapes(out)["w"] == (5, 8)


def liar(context: Context) -> Iterator[Finding]:
    """Says of a unit in use that it is dead, wherever there are twelve."""
    for space in context.symmetry.spaces:
        if space.size == 12:
            tensors = context.tensors(space)
            yield Finding("SYM900", "liar", Level.WARNING, "exact", "unit 7 is dead", space.id, (7,), tensors)


def test_a_wrong_repair_is_left_out_and_told(flawed, monkeypatch):
    """The others of the same space are carried out."""
    every = (*rules(), Rule("SYM900", "liar", Level.WARNING, "exact", "", liar, repair="remove"))
    monkeypatch.setattr("symlint.lint.rule.rules", lambda: every)
    out = flawed.with_name("out.onnx")
    result = run(flawed, "-o", out, "--format", "json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["outcome"] == "fixed"
    assert {one["rule"] for one in document["repairs"]} == {"SYM101", "SYM102", "SYM201"}
    assert [(one["rule"], one["refuted"]) for one in document["left"]] == [("SYM900", True)]
    assert shapes(out)["w"] == (8, 5)
    assert difference(flawed, out) < 1e-5
    text = run(flawed, "--dry-run").output
    assert "SYM900" in text.split("left alone")[1]


@pytest.mark.parametrize(
    ("options", "left"),
    [
        (("--select", "SYM101"), 10),
        (("--select", "SYM101,SYM102"), 9),
        (("--select", "dead-unit", "--select", "duplicate-units"), 9),
        (("--ignore", "SYM101"), 10),
        (("--ignore", "SYM2"), 9),
        (("--ignore", "SYM101,SYM102,SYM201"), 12),
        ((), 8),
    ],
)
def test_rules_are_chosen(options, left, flawed):
    """By code, prefix or name."""
    out = repaired(flawed, *options)
    assert shapes(out)["w"] == (left, 5)
    if left == 12:
        assert out.read_bytes() == flawed.read_bytes()


@pytest.mark.parametrize(("dead", "left"), [(3, 32), (8, 24), (10, 24), (31, 8)])
def test_widths_stay_multiples(dead, left, tmp_path):
    """Of eight, or as they were."""
    source = written(tmp_path / "m.onnx", TWO, two(32, dead, 0, 0))
    out = repaired(source, "--align", 8)
    assert shapes(out)["w"] == (left, 5)
    assert shapes(repaired(source))["w"] == (32 - dead, 5)


def test_ranks_stay_multiples(tmp_path):
    """A product of rank three is carried by four units."""
    text = "g (float[n, 20] x) => (float[n, 18] y) { h = MatMul(x, w) y = MatMul(h, v) }"
    low = normal(20, 3) @ normal(3, 16)
    source = written(tmp_path / "m.onnx", text, {"w": low, "v": normal(16, 18)})
    assert shapes(repaired(source)) == {"w": (20, 3), "v": (3, 18)}
    assert shapes(repaired(source, "--align", 4)) == {"w": (20, 4), "v": (4, 18)}


def test_the_document_for_machines(flawed):
    """Its keys and their types; with -o and without."""
    out = flawed.with_name("out.onnx")
    document = json.loads(run(flawed, "-o", out, "--format", "json").stdout)
    keys = {"schema_version", "model", "output", "outcome", "reason", "repairs", "left", "proof", "before", "after"}
    keys |= {"measured_at", "widths", "states"}
    assert set(document) == keys
    assert document["schema_version"] == "1"
    assert set(document["model"]) == {"path", "sha256"}
    assert (document["output"], document["outcome"]) == (str(out), "fixed")
    for one in document["repairs"]:
        assert set(one) == {"rule", "name", "where", "removed", "units", "reason", "bytes", "gains", "inputs"}
        assert one["bytes"] == 0  # units are counted as units
        assert 0 < one["removed"] < one["units"]
    assert sum(one["removed"] for one in document["repairs"]) == 4
    assert document["proof"]["outcome"] == "held"
    assert document["proof"]["trials"] > 0
    costs = {"nodes", "parameters", "bytes", "multiply_adds", "latency", "spread", "int8_decibels", "float16_lost"}
    assert document["measured_at"] is None or all(document["measured_at"].values())
    assert set(document["before"]) == set(document["after"]) == costs
    assert (document["before"]["parameters"], document["after"]["parameters"]) == (135, 93)
    nothing = run(out, "--dry-run", "--format", "json")
    assert nothing.exit_code == 0
    idle = json.loads(nothing.stdout)
    assert run(out, "-o", out.with_name("same.onnx")).output.endswith("unchanged\n")
    assert (idle["output"], idle["outcome"], idle["repairs"], idle["left"]) == (None, "unchanged", [], [])
    assert set(idle) == keys


def test_a_given_input_is_tried(flawed, tmp_path, monkeypatch):
    """It reaches the proof, by its name."""
    seen: list[Mapping[str, np.ndarray]] = []
    prove = fixing.prove

    def watch(*args: object, given: Mapping[str, np.ndarray], **kwargs: object) -> Proof:
        seen.append(given)
        return prove(*args, given=given, **kwargs)

    monkeypatch.setattr(fixing, "prove", watch)
    np.save(tmp_path / "x.npy", normal(4, 5))
    repaired(flawed, "--input", f"x:{tmp_path / 'x.npy'}")
    assert seen
    assert all(np.array_equal(given["x"], normal(4, 5)) for given in seen)


# -- what others got wrong --------------------------------------------------------------------------------------------
CHAIN = "g (float[n, 5] x) => (float[n, 3] y) { a = Gemm(x, w, b) r = Relu(a) y = Gemm(r, v) }"
IMAGE = "g (float[n, 3, 9, 9] x) => (float[n, 4, h, k] y)"


def dense(**change: object) -> Weights:
    """Weights of the chain; unit 2 has no input and this bias."""
    weights = {"w": normal(5, 8), "b": normal(8), "v": normal(8, 3)}
    weights["w"][:, 2], weights["b"][2] = 0, change["bias"]
    return weights


def image(*names: str, **zero: float) -> Weights:
    """Kernels and biases; channels 1 and 4 of what `zero` names have no input and this bias."""
    made = {
        "w": normal(6, 3, 3, 3), "b": normal(6), "v": normal(4, 6, 3, 3), "c": normal(4), "p": normal(4, 6, 1, 1),
        "s": normal(6, 6, 3, 3), "t": normal(6), "gain": np.abs(normal(6)) + 0.5, "beta": normal(6),
        "mean": normal(6) * 0.5, "var": np.abs(normal(6)) + 0.5, "f": normal(6 * 81, 4),
    }  # fmt: skip
    for name, bias in zero.items():
        made[name][[1, 4]] = 0
        made[{"w": "b", "s": "t"}[name]][[1, 4]] = bias
    return {name: made[name] for name in names}


FAILURES = {
    "a bias that the activation lets through": (CHAIN, dense(bias=0.7), {"w": (5, 7), "v": (7, 3)}),
    "a bias that the activation stops": (CHAIN, dense(bias=-0.7), {"w": (5, 7), "v": (7, 3)}),
    "a bias before a curve": (CHAIN.replace("Relu", "Sigmoid"), dense(bias=0.0), {"w": (5, 7), "v": (7, 3)}),
    "a bias under padding": (
        f"{IMAGE} {{ a = Conv(x, w, b) r = Relu(a) y = Conv<pads = [1, 1, 1, 1]>(r, v, c) }}",
        image("w", "b", "v", "c", w=0.6), {"w": (5, 3, 3, 3), "v": (4, 5, 3, 3), "c": (4,)},
    ),
    "a bias without padding": (
        f"{IMAGE} {{ a = Conv(x, w, b) r = Relu(a) y = Conv(r, v) }}",
        image("w", "b", "v", w=0.6), {"w": (4, 3, 3, 3), "v": (4, 4, 3, 3)},
    ),
    "a normalisation with a shift": (
        (
            f"{IMAGE} {{ a = Conv(x, w, b) n1 = BatchNormalization(a, gain, beta, mean, var) r = Relu(n1)"
            " y = Conv(r, v, c) }"
        ),
        image("w", "b", "gain", "beta", "mean", "var", "v", "c", w=0.0),
        {"w": (4, 3, 3, 3), "gain": (4,), "var": (4,), "v": (4, 4, 3, 3)},
    ),
    "a residual sum with a silent branch": (
        (
            f"{IMAGE} {{ a = Conv<pads = [1, 1, 1, 1]>(x, w, b) r = Relu(a) d = Conv<pads = [1, 1, 1, 1]>(r, s, t)"
            " e = Add(r, d) q = Relu(e) y = Conv(q, v, c) }"
        ),
        image("w", "b", "s", "t", "v", "c", s=0.4), {"w": (6, 3, 3, 3), "s": (6, 6, 3, 3), "v": (4, 6, 3, 3)},
    ),
    "a residual sum of nothing": (
        (
            f"{IMAGE} {{ a = Conv<pads = [1, 1, 1, 1]>(x, w, b) r = Relu(a) d = Conv<pads = [1, 1, 1, 1]>(r, s, t)"
            " e = Add(r, d) q = Relu(e) y = Conv(q, v, c) }"
        ),
        image("w", "b", "s", "t", "v", "c", w=0.0, s=0.0), {"w": (4, 3, 3, 3), "s": (4, 4, 3, 3), "v": (4, 4, 3, 3)},
    ),
    "a residual sum with a constant": (
        (
            f"{IMAGE} {{ a = Conv<pads = [1, 1, 1, 1]>(x, w, b) r = Relu(a) d = Conv<pads = [1, 1, 1, 1]>(r, s, t)"
            " e = Add(r, d) q = Relu(e) y = Conv(q, p, c) }"
        ),
        image("w", "b", "s", "t", "p", "c", w=-0.3, s=0.4), {"w": (4, 3, 3, 3), "s": (4, 4, 3, 3), "p": (4, 4, 1, 1)},
    ),
    "channels that a dense layer reads flat": (
        (
            "g (float[n, 3, 9, 9] x) => (float[n, 4] y) { a = Conv<pads = [1, 1, 1, 1]>(x, w, b) r = Relu(a)"
            " l = Flatten(r) y = Gemm(l, f, c) }"
        ),
        image("w", "b", "f", "c", w=0.6), {"w": (4, 3, 3, 3), "f": (4 * 81, 4), "c": (4,)},
    ),
    "channels that are averaged": (
        (
            "g (float[n, 3, 9, 9] x) => (float[n, 4, 1, 1] y) { a = Conv(x, w, b) r = Relu(a) m = GlobalAveragePool(r)"
            " y = Conv(m, p) }"
        ),
        image("w", "b", "p", w=0.6), {"w": (4, 3, 3, 3), "p": (4, 4, 1, 1)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAILURES)
def test_biases_and_shapes_are_right(name, tmp_path):
    """Where simplifiers of pruned networks lose a bias, get a shape wrong or change the outputs."""
    text, weights, expected = FAILURES[name]
    out = repaired(written(tmp_path / "m.onnx", text, weights))
    found = shapes(out)
    assert {key: found.get(key) for key in expected} == expected
