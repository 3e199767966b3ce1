"""Formats for other tools: what a model calls its layers can neither end a line, a cell, an element nor be a link."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import re
import shutil
import subprocess
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from symlint.audit.outcome import Report, Run
from symlint.cli.main import cli
from symlint.cli.report import FORMATS, Style, reporter
from symlint.lint.finding import Accepted, Finding, Level
from symlint.lint.rule import rules
from symlint.symmetry.spaces import Coverage

HOSTILE = "=cmd|'/c calc'!A1\n::error::x%0A](http://e.org)<img src=x>`\x00\x1b[2J\ufffe\ud800@all,\"&|$x$"


def finding(name: str = "conv1", level: Level = Level.WARNING, **changes: object) -> Finding:
    message = f"3 of 16 units of {name} cannot affect the output"
    made = Finding("SYM101", "dead-unit", level, "exact", message, units=(1, 2, 3), tensors=(name,), saves=30)
    return dataclasses.replace(made, layer=name, node=name, op="Conv", fingerprint="f:1", **changes)


def run(*found: Finding, path: str = "m.onnx", incomplete: str = "") -> Run:
    codes = frozenset(rule.code for rule in rules() if not rule.on_failure)
    item = Report(path, lambda: "ab" * 32, Coverage(300, 300, 0, 0), found, incomplete=incomplete, finished=codes)
    return Run((item, Report("clean.onnx", coverage=Coverage(9, 9, 0, 0), finished=codes)), rules())


def told(form: str, one: Run, **style: bool) -> str:
    return reporter(form)(one, Style(**style))


ANNOTATION = re.compile(r"::(error|warning|notice) (file=[^:,]+,line=1,)?title=[^:,]+::.+")


def test_annotations_are_one_line_each():
    lines = told("github", run(finding(), finding(HOSTILE, Level.ERROR), path=HOSTILE)).splitlines()
    *commands, last = lines
    assert len(commands) == 2
    assert all(ANNOTATION.fullmatch(line) for line in commands)
    assert not any("\x1b" in line or "%0A]" in line for line in commands)
    assert last.startswith("symlint: failed")
    assert "%2C" in commands[0].partition("title")[0]


def test_annotations_of_notes_and_of_what_is_accepted():
    note, known = finding(level=Level.NOTE), finding(accepted=Accepted("baseline"))
    assert told("github", run(note, known)).count("::") == 0
    assert told("github", run(note, known), notes=True).startswith(
        "::notice file=m.onnx,line=1,title=SYM101 dead-unit::"
    )
    assert "::error file=m.onnx,line=1,title=audit incomplete::gone" in told("github", run(incomplete="gone"))
    assert told("github", Run((), rules(), ("x",))).startswith("::error title=no model found::no model found at x")


def test_junit_counts_what_it_holds():
    known = finding(accepted=Accepted("configuration", "known"))
    one = run(finding(), finding(HOSTILE, Level.NOTE), known, path=HOSTILE, incomplete="half\nof it")
    root = ET.fromstring(told("junit", one))  # raises for what is no XML
    suite, clean = root
    cases = suite.findall("testcase")
    assert int(suite.get("tests")) == len(cases)
    assert int(suite.get("failures")) == len(suite.findall("*/failure")) == 1
    assert int(suite.get("errors")) == len(suite.findall("*/error")) == 1
    assert int(suite.get("skipped")) == len(suite.findall("*/skipped")) == 1
    assert "accepted by the configuration (known)" in suite.find("*/skipped").get("message")
    ran = {rule.code for rule in rules() if not rule.on_failure}
    assert {case.get("name")[:6] for case in clean} == ran
    assert clean.get("failures") == "0"


def test_markdown_holds_no_marks_of_others():
    text = told("markdown", run(finding(HOSTILE), path=HOSTILE))
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == 2
    assert all(line.count("|") == 7 for line in rows)
    assert not any(mark in text for mark in ("<img", "](", "http://", "@all", "`", "$x$", "\x1b"))
    assert "3 of 16 units of conv1 cannot affect the output | 1-3 | 30 (10.0%) |" in told("markdown", run(finding()))


def test_csv_has_no_formulas_and_a_line_per_finding():
    one = run(finding(HOSTILE), finding("-1", accepted=Accepted("baseline")), path=HOSTILE)
    lines = list(csv.DictReader(StringIO(told("csv", one), newline="")))
    assert len(lines) == 2
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for line in lines for cell in line.values())
    assert (lines[1]["units"], lines[1]["which"], lines[1]["saves"], lines[1]["share"]) == ("3", "1-3", "30", "0.1")
    assert lines[1]["accepted"] == "accepted by the baseline"


def test_jsonl_is_a_line_per_model():
    one = run(finding(HOSTILE))
    lines = [json.loads(line) for line in told("jsonl", one).splitlines()]
    assert lines == json.loads(told("json", one))["models"]


@given(st.text(max_size=30))
def test_names_break_no_format(name):
    one = run(finding(name), path=f"{name}.onnx")
    assert len(told("github", one).splitlines()) == 2
    assert len(ET.fromstring(told("junit", one))) == 2
    assert len(list(csv.reader(StringIO(told("csv", one), newline="")))) == 2
    assert len(told("jsonl", one).splitlines()) == 2
    assert len([line for line in told("markdown", one).splitlines() if line.startswith("|")]) == 3


@pytest.mark.parametrize("form", FORMATS)
def test_every_format_ends_in_the_same_code(form, root, tmp_path):
    for model, code in (("decayed_cnn", 1), ("healthy_cnn", 0)):
        result = CliRunner().invoke(cli, ["check", str(root / "fixtures" / f"{model}.onnx"), "--format", form])
        assert result.exit_code == code, result.output
    assert CliRunner().invoke(cli, ["check", str(tmp_path), "--format", form]).exit_code == 3


def test_outputs_may_be_stdout_and_never_one_file_twice(root, tmp_path):
    def call(*arguments: str):
        return CliRunner().invoke(cli, ["check", str(root / "fixtures" / "healthy_cnn.onnx"), *arguments])

    assert json.loads(call("-o", "json=-").stdout)["verdict"] == "pass"
    file = tmp_path / "a"
    link = tmp_path / "b"
    link.symlink_to(file)
    for arguments, words in (
        (["-o", f"json={file}", "-o", f"sarif={tmp_path}/../{tmp_path.name}/a"], "named twice"),
        (["-o", f"json={file}", "-o", f"sarif={link}"], "named twice"),
        (["-o", "json=-", "-o", "csv=-"], "named twice"),
        (["-f", "full", "-o", "json=-"], "both want stdout"),
    ):
        result = call(*arguments)
        assert result.exit_code == 2
        assert words in result.stderr


# -- SARIF --------------------------------------------------------------------------------------------------------


def sarif(one: Run, **style: bool) -> dict:
    (only,) = json.loads(told("sarif", one, **style))["runs"]
    return only


def test_alerts_say_units_savings_and_the_command():
    (result,) = sarif(run(finding(fixable=True), path="a b.onnx"))["results"]
    assert result["message"]["text"].endswith("units 1-3; saves 30 parameters, 10.0% of the model")
    (fix,) = result["fixes"]
    assert fix["description"]["text"] == "symlint fix 'a b.onnx' -o OUT"
    assert fix["artifactChanges"][0]["artifactLocation"]["uri"] == "a%20b.onnx"
    assert "fixes" not in sarif(run(finding()))["results"][0]


def test_notes_are_alerts_only_where_they_are_asked_for():
    one = run(finding(level=Level.NOTE))
    assert sarif(one)["results"] == []
    assert len(sarif(one, notes=True)["results"]) == 1
    assert len(sarif(dataclasses.replace(one, fail_on="note"))["results"]) == 1


def test_addresses_are_those_of_the_project_or_none(monkeypatch):
    from email.message import Message

    driver = sarif(run())["tool"]["driver"]
    assert "informationUri" not in driver
    urls = Message()
    urls["Project-URL"] = "Documentation, https://d.example"
    urls["Project-URL"] = "Homepage, https://h.example"
    monkeypatch.setattr("symlint.cli.report.pipelines.metadata", lambda _: urls)
    driver = sarif(run())["tool"]["driver"]
    assert driver["informationUri"] == "https://h.example"
    assert driver["rules"][0]["helpUri"] == f"https://d.example#{driver['rules'][0]['id'].lower()}"


def test_limits_of_code_scanning(monkeypatch):
    monkeypatch.setattr("symlint.cli.report.pipelines._MOST_RESULTS", 2)
    many = [finding(f"conv{k}", level) for k, level in enumerate([Level.WARNING, Level.ERROR, Level.WARNING])]
    only = sarif(run(*many, finding("x" * 5_000, Level.ERROR)))
    assert [result["level"] for result in only["results"]] == ["error", "error"]
    assert max(len(result["message"]["text"]) for result in only["results"]) <= 1_000
    (notification,) = only["invocations"][0]["toolExecutionNotifications"]
    assert "2 findings of the lowest levels left out" in notification["message"]["text"]


POLICY = re.compile(r'(<Properties Key="GH1[^>]*>\s*<Property Key="RuleEnabled" Value=")[^"]*')


def test_the_multitool_finds_no_error(root, tmp_path, monkeypatch):
    """Microsoft's validator with GitHub's rules, where it is installed."""
    names = ("Sarif.Multitool", "sarif-multitool", "sarif")  # of the program, of npm's package, of dotnet's tool
    tool = os.environ.get("SARIF_MULTITOOL") or next(filter(None, map(shutil.which, names)), None)
    if tool is None:
        pytest.skip("npm's @microsoft/sarif-multitool is not installed (or SARIF_MULTITOOL does not name its program)")
    monkeypatch.setenv("DOTNET_SYSTEM_GLOBALIZATION_INVARIANT", "1")
    monkeypatch.chdir(root)
    report, policy = tmp_path / "report.sarif", tmp_path / "policy.xml"
    CliRunner().invoke(cli, ["check", "fixtures", "--notes", "-o", f"sarif={report}"])
    subprocess.run([tool, "export-validation-config", policy], check=True, capture_output=True)
    policy.write_text(POLICY.sub(r"\1Error", policy.read_text()))
    # One by one: npm's program hands its arguments to a shell, which ends them at a semicolon.
    for kind in ("Ghas", "Sarif"):
        answer = tmp_path / f"{kind}.sarif"
        command = [tool, "validate", report, "--config", policy, "--rule-kind", kind, "-o", answer]
        subprocess.run(command, check=True, capture_output=True)
        (only,) = json.loads(Path(answer).read_text(encoding="utf-8-sig"))["runs"]
        results = only.get("results", [])
        assert [result for result in results if result.get("level") == "error"] == []
