"""What `check` says that a fix takes away is what a fix takes away."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from symlint.audit import engine, outcome
from symlint.cli.main import cli

FAILING = ["fastestdet-coco", "marabou-cifar-deep-kw", "superres-subpixel-cnn", "picodet-s-320", "ppocrv4-rec"]


def told(file: Path, *flags: str) -> tuple[int, list[str]]:
    """The sum in the report, and the arguments of the command that it shows."""
    text = CliRunner().invoke(cli, ["check", str(file), *flags], env={"COLUMNS": "200"}).output
    total = re.search(r"fix takes away ([\d,]+) parameters? in all", " ".join(text.split()))
    command = re.search(r"symlint (fix .*) -o OUT(.*)$", text, re.MULTILINE)
    assert total, text
    assert command, text
    return int(total[1].replace(",", "")), [*command[1].split(), *command[2].split()]


def taken(arguments: list[str]) -> int:
    document = json.loads(CliRunner().invoke(cli, [*arguments, "--dry-run", "--format", "json"]).stdout)
    return document["before"]["parameters"] - document["after"]["parameters"]


@pytest.mark.parametrize(
    ("model", "expected"), [("decayed_cnn", 7_777), ("collinear_mlp", 110), ("low_rank_encoder", 528)]
)
def test_the_sum_is_what_a_fix_takes_away(root, model, expected, no_clock):
    total, command = told(root / "fixtures" / f"{model}.onnx")
    assert total == taken(command) == expected


@pytest.mark.parametrize("model", ["decayed_cnn", "collinear_mlp", "low_rank_encoder"])
def test_the_sum_costs_no_second_look(root, model, monkeypatch):
    """The file is loaded and examined once, and nothing is written."""
    calls: list[str] = []

    def counted(name, function):
        def call(*arguments, **options):
            calls.append(name)
            return function(*arguments, **options)

        return call

    monkeypatch.setattr(engine, "load", counted("load", engine.load))
    monkeypatch.setattr(engine, "examine", counted("examine", engine.examine))
    monkeypatch.setattr(outcome, "load", counted("load", outcome.load))
    monkeypatch.setattr(outcome, "TemporaryDirectory", counted("folder", outcome.TemporaryDirectory))
    told(root / "fixtures" / f"{model}.onnx")
    assert calls == ["load", "examine"]


def test_the_command_repeats_what_was_asked_for(root, no_clock):
    total, command = told(root / "fixtures" / "collinear_mlp.onnx", "--select", "SYM101")
    assert command[-2:] == ["--select", "SYM101"]
    assert total == taken(command) == 20


@pytest.mark.corpus
@pytest.mark.slow
@pytest.mark.parametrize("model", FAILING)
def test_the_sum_holds_for_published_networks(shared, model, no_clock):
    total, command = told(shared / "models" / f"{model}.onnx")
    assert total == taken(command) > 0


def test_models_that_fail_are_in_a_table_and_clean_ones_are_a_line(root, monkeypatch):
    monkeypatch.chdir(root)
    text = CliRunner().invoke(cli, ["check", "fixtures"]).output
    lines = text.splitlines()
    assert sum("healthy_cnn" in line for line in lines) == 1
    start = next(k for k, line in enumerate(lines) if line.startswith("failing"))
    assert [line.split()[0] for line in lines[start + 1 : start + 4]] == [
        f"fixtures/{name}.onnx" for name in ("collinear_mlp", "decayed_cnn", "low_rank_encoder")
    ]
    assert lines[start + 2].endswith("1         3   7,777 (65.7%)")
    assert "7 findings in 3 models can be repaired; fix takes away 8,415 parameters in all" in text
    assert "failed (--fail-on warning): 3 errors, 4 warnings in 3 of 4 models" in text


def test_several_clean_models_are_a_table_however_narrow_the_terminal(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets").mkdir()
    for name in ("a", "b", "a-network-with-a-name-of-forty-characters"):
        (tmp_path / "nets" / f"{name}.onnx").write_bytes((root / "fixtures" / "healthy_cnn.onnx").read_bytes())
    lines = CliRunner().invoke(cli, ["check", "nets"], env={"COLUMNS": "80"}).output.splitlines()
    assert lines[0].split() == ["clean,", "in", "nets", "parameters", "audited"]
    assert [line.split()[0] for line in lines[1:4]] == [
        "a-network-with-a-name-of-forty-characters.onnx",
        "a.onnx",
        "b.onnx",
    ]
    assert all(line.endswith("11,838    99.9%") for line in lines[1:4])
    assert lines[4:-1] == [""]
    assert lines[-1].startswith("passed: nothing found in 3 models")


def test_why_a_fix_takes_nothing_is_told_with_the_finding(tmp_path):
    """The mean of all units counts them."""
    weights = {"w": np.random.default_rng(3).normal(size=(4, 6)).astype(np.float32)}
    weights["w"][:, 2] = 0
    nodes = [
        onnx.helper.make_node("MatMul", ["x", "w"], ["h"]),
        onnx.helper.make_node("Relu", ["h"], ["r"]),
        onnx.helper.make_node("ReduceMean", ["r"], ["y"], axes=[1]),
    ]
    ends = [onnx.helper.make_tensor_value_info(n, 1, ["n", s]) for n, s in (("x", 4), ("y", 1))]
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    opsets = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "m.onnx")
    text = CliRunner().invoke(cli, ["check", str(tmp_path / "m.onnx")], env={"COLUMNS": "80"}).output
    assert "= repair: none, since an average or a normalisation counts them" in text
    assert "can be repaired" not in text
    document = json.loads(CliRunner().invoke(cli, ["check", str(tmp_path / "m.onnx"), "-f", "json"]).stdout)
    (finding,) = document["models"][0]["findings"]
    assert (finding["fixable"], finding["stays"]) == (False, "an average or a normalisation counts them")


def test_nothing_is_told_under_a_limit(root):
    text = CliRunner().invoke(cli, ["check", str(root / "fixtures" / "decayed_cnn.onnx"), "--time-budget", "5m"]).output
    assert "4 findings can be repaired:" in text
    assert "takes away" not in text


ACCEPTED = '[[accept]]\nrule = "dead-unit"\nlayer = "{}"\nreason = "the runtime wants this width"\n'


def copied(root: Path, folder: Path, model: str, *layers: str) -> Path:
    """A fixture in a folder whose configuration accepts the dead units of some layers."""
    (folder / "symlint.toml").write_text("".join(map(ACCEPTED.format, layers)))
    file = folder / f"{model}.onnx"
    file.write_bytes((root / "fixtures" / file.name).read_bytes())
    return file


def fixed(*arguments: str | Path, code: int = 0) -> dict[str, Any]:
    result = CliRunner().invoke(cli, ["fix", *map(str, arguments), "-f", "json"])
    assert result.exit_code == code, result.output
    document: dict[str, Any] = json.loads(result.stdout)
    return document


@pytest.mark.parametrize(("layers", "expected"), [(["conv2"], 2_497), (["conv1", "hidden"], 7_407)], ids=str)
def test_what_is_accepted_is_neither_counted_nor_taken_away(layers, expected, root, tmp_path, no_clock):
    file, out = copied(root, tmp_path, "decayed_cnn", *layers), tmp_path / "out.onnx"
    total, command = told(file)
    assert total == taken(command) == expected
    document = fixed(file, "-o", out)
    assert [(one["where"], one["reason"]) for one in document["left"]] == [
        (layer, "accepted: the runtime wants this width") for layer in layers
    ]
    before, after = ({t.name: list(t.dims) for t in onnx.load(model).graph.initializer} for model in (file, out))
    for layer in layers:
        assert after[f"{layer}.bias"] == before[f"{layer}.bias"]
    text = CliRunner().invoke(cli, ["fix", str(file), "--dry-run"]).output
    assert "left alone: accepted: the runtime wants this width" in text


def test_a_fix_leaves_alone_what_a_baseline_accepts(root, tmp_path, no_clock):
    file, baseline = copied(root, tmp_path, "collinear_mlp"), tmp_path / "b.json"
    CliRunner().invoke(cli, ["check", str(file), "--select", "SYM101", "--write-baseline", str(baseline)])
    total, command = told(file, "--baseline", str(baseline))
    assert command[-2:] == ["--baseline", str(baseline)]
    assert total == taken(command) == 90
    CliRunner().invoke(cli, ["check", str(file), "--write-baseline", str(baseline)])
    document = fixed(file, "--baseline", baseline, "--dry-run")
    assert document["outcome"] == "unchanged"
    assert {(one["rule"], one["reason"]) for one in document["left"]} == {
        (rule, "accepted by the baseline") for rule in ("SYM101", "SYM201")
    }
    text = CliRunner().invoke(cli, ["fix", str(file), "--baseline", str(baseline), "--dry-run"]).output
    assert "nothing to repair but what is accepted" in text


def test_accepted_dead_units_do_not_go_as_constants(perceptron, tmp_path, no_clock):
    """Settled biases make them dead: as stored they are constants, and the same units."""

    def edit(weights: dict[str, Any]) -> None:
        weights["first.weight"][2], weights["first.bias"][2] = 0, 0.5

    file = perceptron("model.onnx", edit)
    (tmp_path / "symlint.toml").write_text('[[accept]]\nrule = "SYM1"\nreason = "known"\n')
    assert fixed(file, "--dry-run")["outcome"] == "unchanged"
    (tmp_path / "symlint.toml").write_text("")
    assert fixed(file, "--dry-run", code=1)["repairs"]


def test_what_is_stored_for_nothing_and_accepted_stays(perceptron, tmp_path, no_clock):
    file = perceptron("model.onnx")
    model = onnx.load(file)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((64, 64), np.float32), "spare"))
    onnx.save(model, file)
    assert fixed(file, "--dry-run", code=1)["repairs"]
    (tmp_path / "symlint.toml").write_text('[[accept]]\nrule = "unused-initializer"\nreason = "a tool reads it"\n')
    (left,) = fixed(file, "--dry-run")["left"]
    assert (left["where"], left["accepted"]) == ("spare", True)
