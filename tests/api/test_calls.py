"""The functions of Python: the same answers as the commands, of a path, of bytes and of a parsed model alike."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from corpora import FIXTURES, ROOT
from stateful_networks import STATEFUL

import symlint
from symlint.cli.main import cli
from symlint.model.errors import MissingModel, UnreadableModel, UsageProblem

DECAYED, HEALTHY = FIXTURES / "decayed_cnn.onnx", FIXTURES / "healthy_cnn.onnx"
NAMES = ("check", "inspect", "profile", "fix", "diff")


def sources(path):
    return [path, str(path), path.read_bytes(), onnx.load(path)]


def document(*arguments):
    return json.loads(CliRunner().invoke(cli, [*map(str, arguments), "-f", "json"]).stdout)


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*.onnx")), ids=lambda path: path.stem)
def test_check_says_what_the_command_says_of_whatever_the_model_comes_as(path):
    (expected,) = document("check", path)["models"]
    for model in sources(path):
        report = symlint.check(model)
        assert json.loads(json.dumps(report.to_dicts())) == expected["findings"]
        assert report.run.reports[0].sha256 == expected["sha256"] or isinstance(model, onnx.ModelProto)
        assert report.exit_code == (1 if expected["findings"] and report.verdict == "fail" else 0)


def test_a_parsed_model_stays_as_it_is():
    model = onnx.load(DECAYED)
    before = model.SerializeToString(deterministic=True)
    symlint.check(model)
    symlint.inspect(model)
    symlint.fix(model)
    symlint.diff(model, model)
    assert model.SerializeToString(deterministic=True) == before


def test_files_stay_as_they_are(tmp_path):
    file = tmp_path / "model.onnx"
    file.write_bytes(DECAYED.read_bytes())
    symlint.check(file)
    symlint.fix(file)
    assert file.read_bytes() == DECAYED.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_rules_are_selected_as_on_the_command_line():
    assert {f.rule for f in symlint.check(FIXTURES / "collinear_mlp.onnx").findings} == {"SYM101", "SYM201"}
    assert {f.rule for f in symlint.check(FIXTURES / "collinear_mlp.onnx", select="SYM2").findings} == {"SYM201"}
    assert {f.rule for f in symlint.check(FIXTURES / "collinear_mlp.onnx", ignore=["SYM2"]).findings} == {"SYM101"}
    with pytest.raises(UsageProblem, match="no rule 'SYM9'"):
        symlint.check(DECAYED, select="SYM9")


def test_configurations_are_files_or_settings(tmp_path):
    file = tmp_path / "symlint.toml"
    file.write_text(
        'fail-on = "error"\nlevels = { dead-unit = "note" }\n[[accept]]\nrule = "dead-unit"\nreason = "?"\n'
    )
    report = symlint.check(DECAYED, config=file)
    assert {str(f.level) for f in report.findings} == {"note"}
    assert all(f.accepted for f in report.findings)
    report.assert_clean("note")
    assert symlint.check(DECAYED, config=symlint.Settings(fail_on="never")).verdict == "pass"


def test_clean_is_what_has_nothing_at_the_level():
    symlint.check(HEALTHY).assert_clean("note")
    with pytest.raises(AssertionError, match=r"decayed_cnn.onnx:\n  SYM101 \[warning\] 1 of 16 units"):
        symlint.check(DECAYED).assert_clean()
    with pytest.raises(AssertionError, match="SYM101") as caught:
        symlint.check(DECAYED).assert_clean("error")
    assert "warning" not in str(caught.value)
    symlint.check(DECAYED).assert_clean("never")
    with pytest.raises(ValueError, match="fail_on is 'mild'"):
        symlint.check(DECAYED).assert_clean("mild")


def test_what_cannot_be_read_is_incomplete_and_what_is_not_there_is_raised(tmp_path):
    report = symlint.check(b"no model")
    assert report.verdict == "incomplete"
    assert [f.rule for f in report.findings] == ["SYM001"]
    with pytest.raises(AssertionError, match="audit incomplete"):
        report.assert_clean()
    for call in (symlint.check, symlint.inspect, symlint.fix):
        with pytest.raises(MissingModel):
            call(tmp_path / "none.onnx")
    with pytest.raises(UnreadableModel):
        symlint.inspect(b"no model")


def test_a_report_reads_as_the_command_prints_it():
    shown = str(symlint.check(DECAYED))
    assert "error[dead-unit] SYM101: 15 of 24 units of conv2 cannot affect the output" in shown


def test_a_notebook_shows_names_as_text():
    report = symlint.check(DECAYED)
    (audited,) = report.run.reports
    evil = replace(audited, path="<script>alert(1)</script>\x1b[31m")
    html = symlint.Report(replace(report.run, reports=(evil,)))._repr_html_()
    assert "<script" not in html
    assert "\x1b" not in html
    assert "SYM101" in html


def test_a_frame_has_a_row_for_each_finding():
    pandas = pytest.importorskip("pandas")
    frame = symlint.check(DECAYED).to_frame()
    assert isinstance(frame, pandas.DataFrame)
    assert list(frame["rule"]) == ["SYM101"] * 4


def test_a_frame_says_what_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        symlint.check(DECAYED).to_frame()


def test_symmetries_are_those_of_the_command_and_their_weights_can_be_read():
    for model in sources(DECAYED):
        symmetry = symlint.inspect(model)
        assert symmetry.dimension == document("inspect", DECAYED)["dimension"]
        gc.collect()
        assert symmetry.model.tensors["conv1.weight"].read().shape == (16, 1, 3, 3)


def test_a_repaired_model_is_smaller_and_proven():
    for model in sources(DECAYED)[2:]:
        made, repairs = symlint.fix(model)
        assert isinstance(made, onnx.ModelProto)
        assert repairs.proof is not None
        assert repairs.proof.outcome == "held"
        assert not repairs.failed
        assert sum(np.prod(t.dims) for t in made.graph.initializer) == repairs.after.measure.parameters == 4061
        assert {one["rule"] for one in repairs.to_dicts()} == {"SYM101"}
        assert "same outputs in onnxruntime" in str(repairs)
    symlint.check(made).assert_clean()


def test_states_get_narrower_only_when_that_is_asked_for(no_clock):
    values = STATEFUL["causal"].values()
    values["b"][[1, 5, 9]] = 0
    model = STATEFUL["causal"].model("float32", values)
    assert symlint.fix(model)[0] == model
    made, repairs = symlint.fix(model, shrink_states=True)
    assert [str(one) for one in repairs.states] == ["cache_in: 2 x 4 -> 2 x 3 numbers per sequence"]
    assert made.graph.input[1].type.tensor_type.shape.dim[2].dim_value == 3


def test_a_model_with_nothing_to_repair_comes_back_as_it_was():
    model = onnx.load(HEALTHY)
    made, repairs = symlint.fix(model)
    assert made.SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)
    assert not repairs.done
    assert str(repairs).endswith("nothing to repair")
    with pytest.raises(UsageProblem, match="safety"):
        symlint.fix(model, safety="none")


def test_a_difference_is_that_of_the_command():
    found = symlint.diff(HEALTHY.read_bytes(), onnx.load(DECAYED))
    expected = document("diff", HEALTHY, DECAYED)
    assert found.verdict == expected["verdict"]
    assert [one.new.live for one in found.spaces] == [one["new"]["live"] for one in expected["spaces"]]
    assert (found.old.path, found.new.path) == ("<bytes>", "<ModelProto>")


def test_a_profile_has_the_rows_of_the_command():
    expected = [
        {"model": model["path"], **{k: v for k, v in row.items() if k != "spectrum"}}
        for model in document("profile", HEALTHY, DECAYED)["models"]
        for row in model["spaces"]
    ]
    assert symlint.profile(HEALTHY, DECAYED).to_dicts() == expected
    rows = symlint.profile(HEALTHY.read_bytes(), onnx.load(DECAYED)).to_dicts()
    assert [{**row, "model": ""} for row in rows] == [{**row, "model": ""} for row in expected]
    assert "conv2" in str(symlint.profile(DECAYED))
    assert symlint.profile(DECAYED).to_html() == CliRunner().invoke(cli, ["profile", str(DECAYED), "-f", "html"]).stdout
    assert "15 of 24 units of conv2" in symlint.check(DECAYED).to_html()


def test_importing_is_quick_and_the_names_stay_functions():
    probe = f"""
import sys, symlint
assert not {{"onnx", "onnxruntime", "numpy"}} & sys.modules.keys()
assert {{*{NAMES}}} <= set(dir(symlint))
found = {{name: getattr(symlint, name) for name in {NAMES}}}
import symlint.cli.main, symlint.testing, symlint.comparison.compare, symlint.repair.fixing
assert "onnxruntime" not in sys.modules and "rich" not in sys.modules
assert all(callable(f) and getattr(symlint, name) is f for name, f in found.items())
"""
    subprocess.run([sys.executable, "-c", probe], check=True)


def test_no_module_is_called_as_a_function_is():
    assert not {path.stem for path in (ROOT / "symlint").iterdir()} & {*NAMES}
