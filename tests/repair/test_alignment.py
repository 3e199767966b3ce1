"""Widths: what others would cost is told, the fastest is chosen by what was measured; several models in one call."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import numpy_helper

from symlint.cli.main import cli
from symlint.repair.cost import Timing

DEAD = 13
SIZE = 40


def run(*arguments: object) -> Result:
    """`symlint fix` in this process."""
    return CliRunner().invoke(cli, ["fix", *map(str, arguments)], env={"COLUMNS": "200"})


def document(*arguments: object) -> dict[str, Any]:
    return json.loads(run(*arguments, "--format", "json").stdout)


def network(path: Path, dead: int = DEAD, *, low: bool = False) -> Path:
    """Gemm, Relu, Gemm over 40 units, the first of which nothing reads; with `low` some never rise above zero."""
    rng = np.random.default_rng(3)
    w, v, b = rng.normal(size=(SIZE, 5)), rng.normal(size=(3, SIZE)), rng.normal(size=SIZE)
    v[:, :dead] = 0
    if low:
        b[-2:] = -1000
    text = (
        "g (float[batch, 5] x) => (float[batch, 3] y) {"
        " s = Sigmoid(x) a = Gemm<transB = 1>(s, w, b) r = Relu(a) y = Gemm<transB = 1>(r, v) }"
    )
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]> {text}')
    weights = {"w": w, "v": v, "b": b}
    model.graph.initializer.extend(numpy_helper.from_array(a.astype(np.float32), n) for n, a in weights.items())
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def width(path: Path) -> int:
    (found,) = (t.dims[0] for t in onnx.load(path).graph.initializer if t.name == "w")
    return int(found)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[Mapping[int, float]], None]:
    """Lets runs take as many seconds as is said for the width of a network."""

    def install(seconds: Mapping[int, float]) -> None:
        def latency(paths: Sequence[str | Path], *args: object, **names: object) -> tuple[Timing, ...]:
            noise = np.linspace(-0.01, 0.01, 11)
            runs = [tuple(seconds[width(Path(path))] + noise) for path in paths]
            return tuple(Timing(float(np.median(r)), 0.005, {"x": (1, 5)}, r) for r in runs)

        monkeypatch.setattr("symlint.repair.cost.latency", latency)
        monkeypatch.setattr("symlint.runtime.proof.SMALL", (0, 0))

    return install


def test_what_other_widths_would_cost_is_told(tmp_path, clock):
    """As `--align` would write them; the file is the smallest one."""
    clock({40: 1.0, 27: 1.2, 32: 0.8})
    source, out = network(tmp_path / "m.onnx"), tmp_path / "out.onnx"
    found = document(source, "-o", out)
    assert width(out) == SIZE - DEAD
    told = [(one["align"], one["written"], one["latency"]) for one in found["widths"]]
    assert told == [(1, True, 1.2), (8, False, 0.8)]  # multiples of 16 are the same as of 8
    assert document(source, "-o", out, "--align", 8)["after"]["parameters"] == found["widths"][1]["parameters"]
    assert width(out) == 32


def test_widths_that_would_stay_are_not_tried(tmp_path, clock):
    """Of 40 units 38 are needed: no multiple of 8 or 16 lies between."""
    clock({40: 1.0, 38: 1.0})
    assert document(network(tmp_path / "m.onnx", 2), "--dry-run")["widths"] == []


def test_a_slower_result_is_told_with_what_helps(tmp_path, clock):
    clock({40: 1.0, 27: 1.2, 32: 0.8})
    text = run(network(tmp_path / "m.onnx"), "--dry-run").output
    assert "slower than before: --align 8 is not, and --align auto writes the fastest" in text


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({40: 1.0, 27: 0.7, 32: 0.8}, 27),
        ({40: 1.0, 27: 1.2, 32: 0.8}, 32),
        ({40: 1.0, 27: 0.82, 32: 0.8}, 32),  # in each turn
        ({40: 1.0, 27: 0.801, 32: 0.8}, 27),  # the smaller of two that are as fast
        ({40: 1.0, 27: 1.2, 32: 1.1}, 40),
        ({40: 1.0, 27: 1.0, 32: 1.1}, 27),
    ],
)
def test_the_fastest_is_written(seconds, expected, tmp_path, clock):
    """Never one that is slower than the original."""
    clock(seconds)
    out = tmp_path / "out.onnx"
    found = document(network(tmp_path / "m.onnx"), "-o", out, "--align", "auto")
    assert width(out) == expected
    assert [one["align"] for one in found["widths"]] == [1, 8]
    if expected == SIZE:
        assert (found["outcome"], [one["written"] for one in found["widths"]]) == ("unchanged", [False, False])
        assert [one["reason"] for one in found["left"]] == [
            "at each width that was tried the network takes longer than it does now"
        ]
    else:
        assert next(one for one in found["widths"] if one["written"])["parameters"] == found["after"]["parameters"]


@pytest.mark.parametrize("word", ["0", "-8", "8.5", "fast", "", "99999999999"])
def test_other_words_are_refused(word, tmp_path):
    result = run(network(tmp_path / "m.onnx"), "--dry-run", "--align", word)
    assert result.exit_code == 2
    assert "none or auto" in result.output


def test_differences_are_judged_turn_by_turn():
    """What slows all files down at once is no difference between them, and what differs at random is none."""
    rng = np.random.default_rng(0)
    load = rng.exponential(1.0, 101)
    fast, slow = tuple(1 + load), tuple(1.02 + load)
    timings = [Timing(float(np.median(r)), 0.4, {}, r) for r in (fast, slow)]
    assert timings[1].slower(timings[0])
    assert not timings[0].slower(timings[1])
    assert not timings[0].slower(timings[0])
    noisy = Timing(1.0, 0.1, {}, tuple(1 + load + rng.normal(size=101)))
    assert not noisy.slower(timings[0])


# -- what stays -------------------------------------------------------------------------------------------------------
def test_what_stays_has_its_reason(tmp_path, no_clock):
    """What the audit counts in the result: because of the safety, of the rules chosen, of the widths."""
    source = network(tmp_path / "m.onnx", low=True)
    (tmp_path / "symlint.toml").write_text('levels = { dead-unit = "warning" }\n')
    left = {one["rule"]: one["reason"] for one in document(source, "--dry-run")["left"]}
    assert left == {"SYM101": "this is bounded, not exact: --safety bounded acts on it"}
    assert document(source, "--dry-run", "--safety", "bounded")["left"] == []
    assert document(source, "--dry-run", "--safety", "bounded", "--align", 8)["left"][0]["reason"].startswith("widths")
    ignored = document(source, "--dry-run", "--ignore", "SYM101")
    assert {one["reason"] for one in ignored["left"]} >= {"--select or --ignore leaves this rule out"}
    assert ignored["outcome"] == "unchanged"


@pytest.mark.parametrize("flags", [["--balance"], ["--target", "int8"]])
def test_scales_are_told_in_decibels(flags, tmp_path, no_clock):
    """Before and after, where scales were asked for."""
    source = network(tmp_path / "m.onnx", 0)
    model = onnx.load(source)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor).copy()
        if tensor.name in ("w", "b"):
            values[:20] *= 1000
        elif tensor.name == "v":
            values[:, :20] /= 1000
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, source)
    result = run(source, "--dry-run", *flags)
    before, after = map(
        float, re.search(r"signal to noise in int8 +(-?[\d.]+) dB +(-?[\d.]+) dB", result.output).groups()
    )
    assert after > before + 6


# -- several models ---------------------------------------------------------------------------------------------------
def test_several_models_go_to_a_folder(tmp_path, no_clock):
    """Under their names and below the folder that they were found in; what is clean is copied."""
    models = tmp_path / "models"
    flawed, clean = network(models / "a.onnx"), network(models / "deep" / "b.onnx", 0)
    result = run(models, "--out-dir", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert width(tmp_path / "out" / "a.onnx") == SIZE - DEAD
    assert (tmp_path / "out" / "deep" / "b.onnx").read_bytes() == clean.read_bytes()
    assert "1 fixed, 1 unchanged; 117 parameters taken away in all" in result.output
    found = document(flawed, clean, "--dry-run")
    assert (found["exit_code"], [one["outcome"] for one in found["models"]]) == (1, ["fixed", "unchanged"])


def test_one_that_cannot_be_read_costs_the_others_nothing(tmp_path, no_clock):
    flawed, broken = network(tmp_path / "a.onnx"), tmp_path / "b.onnx"
    broken.write_bytes(b"no model")
    result = run(broken, flawed, "--out-dir", tmp_path / "out", "--format", "json")
    assert result.exit_code == 4
    found = json.loads(result.stdout)
    assert [one["outcome"] for one in found["models"]] == ["unreadable", "fixed"]
    assert width(tmp_path / "out" / "a.onnx") == SIZE - DEAD
    assert run(tmp_path / "none.onnx", "--dry-run").exit_code == 3
    assert run(tmp_path / "none.onnx", flawed, "--dry-run").exit_code == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("-o", "out.onnx"), "--out-dir"),
        (("--out-dir", "."), "is the model itself"),
        (("--out-dir", "out", "--in-place"), "choose one of"),
        (("--out-dir", "a.onnx"), "is no folder"),
        ((), "name where to write"),
    ],
)
def test_where_results_cannot_go(options, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network(Path("a.onnx"))
    network(Path("b.onnx"))
    result = run("a.onnx", "b.onnx", *options)
    assert result.exit_code == 2
    assert words in result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.onnx", "b.onnx"]


def test_two_of_one_name_are_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(network(Path("one/m.onnx")), network(Path("two/m.onnx")), "--out-dir", "out")
    assert result.exit_code == 2
    assert "would both be written to out/m.onnx" in result.output
