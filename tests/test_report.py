"""Reporters and fingerprints on runs made by hand."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from symlint.audit import Report, Run
from symlint.finding import Finding, Level
from symlint.fingerprint import stamp
from symlint.graph import Graph, Model, Node, Tensor
from symlint.report import Style, reporter
from symlint.report.words import count, ranges, share
from symlint.rule import rules
from symlint.symmetry import Coverage, Place, Space, Symmetry

SPACE = Space("s0", 64, 1, "fc1", (Place("fc1.weight", 0, "n"), Place("fc2.weight", 1, "n")), ("fc1", "fc2"))
DEAD = Finding(
    rule="SYM101",
    name="dead-unit",
    level=Level.WARNING,
    evidence="exact",
    message="5 of 64 units cannot affect the output",
    space="s0",
    units=(3, 17, 40, 41, 42),
    tensors=("fc1.bias", "fc1.weight", "fc2.weight"),
    facts={"share": 5 / 64, "tolerance": 1.19e-07},
    saves=4_000,
    fixable=True,
    fingerprint="0123456789abcdef:1",
)
SAME = Finding(
    rule="SYM201",
    name="duplicate-units",
    level=Level.ERROR,
    evidence="exact",
    message="2 groups of units [say](https://example.org) the same\x1b[2J",
    space="s0",
    units=(1, 2, 8, 9, 10),
    tensors=("fc1.weight",),
    facts={"groups": [[1, 9], [2, 8, 10]], "worst": float("nan"), "count": np.int64(2)},
    fingerprint="fedcba9876543210:1",
)
NOTE = Finding(
    "SYM004", "opaque-parameters", Level.NOTE, "exact", "nothing is known of 9 parameters", fingerprint="a:1"
)
LOST = Finding(
    "SYM002", "lfs-pointer", Level.ERROR, "exact", "a Git LFS pointer: run `git lfs pull`", fingerprint="b:1"
)
COVERAGE = Coverage(total=1_234_567, covered=1_212_345, pinned=22_213, opaque=9)


def run(*reports: Report, fail_on: str = "warning", missing: tuple[str, ...] = ()) -> Run:
    return Run(reports, rules(), missing, fail_on, seconds=0.84)


MODEL = Report("nets/a model.onnx", "ab" * 32, COVERAGE, (NOTE, DEAD, SAME), {"s0": SPACE})
CLEAN = Report("clean.onnx", "cd" * 32, Coverage(10, 10, 0, 0))
UNREAD = Report("lost.onnx", "", findings=(LOST,), incomplete=LOST.message)

GOLDEN = """\
nets/a model.onnx
  98.2% of 1,234,567 parameters understood, 1.8% pinned, <0.1% opaque

error[duplicate-units] SYM201: 2 groups of units [say](https://example.org) the
same\\x1b[2J
  --> fc1 (fc1.weight)
    = evidence: exact
    = units: {1, 9}, {2, 8, 10}
    = help: symlint rule SYM201

warning[dead-unit] SYM101: 5 of 64 units cannot affect the output
  --> fc1 (fc1.bias, fc1.weight, fc2.weight)
    = evidence: exact; tolerance 1.19e-07
    = units: 3, 17, 40-42
    = saves: 4,000 parameters (0.3% of the model)
    = help: symlint rule SYM101

  1 note not shown: 1 opaque-parameters (-v shows them)

clean.onnx
  100% of 10 parameters understood

lost.onnx

error[lfs-pointer] SYM002: a Git LFS pointer: run `git lfs pull`
    = help: symlint rule SYM002

incomplete, 1 audit not finished: 2 errors, 1 warning, 1 note in 3 models, 0.8 s
"""


def test_full_text():
    assert reporter("full")(run(MODEL, CLEAN, UNREAD), Style()) == GOLDEN


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (run(MODEL), "failed at threshold warning: 1 error, 1 warning, 1 note in 1 model, 0.8 s"),
        (run(MODEL, fail_on="never"), "passed: 1 error, 1 warning, 1 note in 1 model, 0.8 s"),
        (run(CLEAN), "passed: nothing found in 1 model, 0.8 s"),
        (run(missing=("x",)), "no model found at x"),
    ],
)
def test_last_line(result, words):
    assert reporter("full")(result, Style()).splitlines()[-1] == words


def test_colours_change_no_character():
    plain = reporter("full")(run(MODEL), Style())
    colored = reporter("full")(run(MODEL), Style(color=True))
    assert "\x1b[" in colored
    from rich.text import Text

    assert [line.rstrip() for line in Text.from_ansi(colored).plain.splitlines()] == plain.splitlines()


def test_json_is_strict():
    document = json.loads(reporter("json")(run(MODEL, UNREAD), Style()), parse_constant=pytest.fail)
    assert document["verdict"] == "incomplete"
    same = document["models"][0]["findings"][2]
    assert same["facts"] == {"groups": [[1, 9], [2, 8, 10]], "worst": None, "count": 2}


@pytest.fixture
def schema(shared):
    jsonschema = pytest.importorskip("jsonschema")
    text = (shared / "sarif" / "sarif-schema-2.1.0.json").read_text(encoding="utf-8")
    return jsonschema.Draft4Validator(json.loads(text))


def sarif(*arguments, **keywords):
    document = json.loads(reporter("sarif")(run(*arguments, **keywords), Style()))
    (only,) = document["runs"]
    return document, only


@pytest.mark.corpus
@pytest.mark.parametrize("reports", [(MODEL, CLEAN, UNREAD), (CLEAN,), (UNREAD,), ()])
def test_sarif_follows_its_schema(schema, reports):
    schema.validate(sarif(*reports)[0])


def test_sarif_of_a_clean_model_has_results_that_are_empty():
    assert sarif(CLEAN)[1]["results"] == []


def test_sarif_points_where_it_says(tmp_path, monkeypatch):
    (tmp_path / ".git").mkdir()
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    _, only = sarif(MODEL, CLEAN)
    assert [artifact["location"]["uri"] for artifact in only["artifacts"]] == [
        "sub/nets/a%20model.onnx",
        "sub/clean.onnx",
    ]
    assert only["artifacts"][0]["hashes"] == {"sha-256": "ab" * 32}
    listed = only["tool"]["driver"]["rules"]
    for result in only["results"]:
        if "ruleIndex" in result:
            assert listed[result["ruleIndex"]]["id"] == result["ruleId"]
        (location,) = result["locations"]
        artifact = location["physicalLocation"]["artifactLocation"]
        assert only["artifacts"][artifact["index"]]["location"]["uri"] == artifact["uri"]
        for place in location["logicalLocations"]:
            assert only["logicalLocations"][place["index"]]["fullyQualifiedName"] == place["fullyQualifiedName"]
        assert result["partialFingerprints"]["primaryLocationLineHash"]
        assert "region" not in location["physicalLocation"]
    names = [item["fullyQualifiedName"] for item in only["logicalLocations"]]
    assert len(names) == len(set(names))


def test_sarif_messages_hold_no_foreign_links_and_no_controls():
    text = sarif(MODEL)[1]["results"][2]["message"]["text"]
    assert "](" not in text.replace("\\](", "")
    assert "\x1b" not in text


def test_sarif_says_what_was_not_audited():
    _, only = sarif(MODEL, UNREAD)
    (invocation,) = only["invocations"]
    assert invocation["executionSuccessful"] is True
    assert invocation["exitCode"] == 4
    (notification,) = invocation["toolExecutionNotifications"]
    assert notification["level"] == "error"
    assert "lost.onnx" in notification["message"]["text"]
    assert sarif(UNREAD)[1]["invocations"][0]["executionSuccessful"] is False


def test_sarif_outside_a_repository_keeps_the_whole_path(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    _, only = sarif(dataclasses.replace(CLEAN, path="../c#1.onnx"))
    assert only["artifacts"][0]["location"]["uri"] == (tmp_path / "c#1.onnx").as_uri()


def test_words():
    assert ranges([0, 1, 2, 4, 6, 7]) == "0-2, 4, 6, 7"
    assert ranges([0, 2, 4, 6], limit=2) == "0, 2 and 2 more"
    assert share(1, 10**9) == "<0.1%"
    assert share(10**9 - 1, 10**9) == ">99.9%"
    assert count(1, "copy", "copies") + count(2, "copy", "copies") == "1 copy2 copies"


def chain(names: list[str], widths: list[int]) -> Symmetry:
    """Gemm, Relu, Gemm, ... with one space per hidden width; names are the tensors'."""
    tensors, nodes, spaces, flow = {}, [], [], "x"
    for index, name in enumerate(names):
        shape = (widths[index + 1], widths[index])
        tensors[name] = Tensor(name, shape, "float32", lambda shape=shape: np.ones(shape, np.float32))
        nodes.append(Node("Gemm", f"node of {name}", (flow, name), (f"{name}/y",), {}, 17))
        nodes.append(Node("Relu", "", (f"{name}/y",), (flow := f"{name}/relu",), {}, 17))
        if index:
            before = names[index - 1]
            places = (Place(before, 0, f"{before[:1]}n"), Place(name, 1, "n"))
            spaces.append(Space(f"s{index}", widths[index], 1, before, places, ()))
    graph = Graph(tuple(nodes), ("x",), (flow,))
    model = Model("m.onnx", "", 17, "", graph, tensors, {}, {}, {}, {})
    return Symmetry(model, Coverage(1, 1, 0, 0), 0, tuple(spaces), (), ())


def prints(symmetry: Symmetry, *spaces: str, rule: str = "SYM101") -> list[str]:
    findings = [dataclasses.replace(DEAD, space=space, rule=rule, fingerprint="") for space in spaces]
    return [finding.fingerprint for finding in stamp(findings, symmetry)]


def test_fingerprints_outlive_renaming_and_retraining():
    before, after = chain(list("abcd"), [3, 8, 8, 8, 2]), chain(list("pqrs"), [3, 8, 8, 8, 2])
    assert prints(before, "s1", "s2", "s3") == prints(after, "s1", "s2", "s3")
    one = dataclasses.replace(DEAD, units=(1,), message="other", saves=3)
    assert stamp([one], dataclasses.replace(before))[0].fingerprint == prints(before, "s0")[0]


def test_fingerprints_tell_places_apart_and_number_equals_by_place():
    symmetry = chain(list("abcdef"), [3, 8, 8, 8, 8, 8, 2])
    everything = prints(symmetry, *(space.id for space in symmetry.spaces))
    assert len(set(everything)) == len(everything)
    # A finding that is gone elsewhere leaves the others as they were.
    assert prints(symmetry, "s4") == [everything[3]]
    assert prints(symmetry, "s2", rule="SYM102") != prints(symmetry, "s2")
    assert prints(chain(list("abc"), [3, 8, 9, 2]), "s1") != prints(chain(list("abc"), [3, 9, 9, 2]), "s1")
