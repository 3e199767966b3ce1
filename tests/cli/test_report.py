"""Reporters and fingerprints on runs made by hand."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
import shutil
import subprocess
from io import StringIO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from symlint.audit.engine import Report, Run
from symlint.cli.report import Style, inspection, overview, reporter
from symlint.cli.report.inspection import Pinned, readable
from symlint.cli.report.words import count, merged, ranges, share
from symlint.lint.finding import Finding, Level
from symlint.lint.places import stamp
from symlint.lint.rule import rules
from symlint.model.graph import Graph, Model, Node, Tensor
from symlint.symmetry.axes.arena import OUTPUT, Pin, PinKind
from symlint.symmetry.spaces import Coverage, Generator, Opaque, Place, Space, Symmetry

JOINED = tuple(Pin(PinKind.JOINED, op="Gemm", node=name) for name in ("fc1", "fc2"))
SPACE = Space("s0", 64, 1, "fc1", (Place("fc1.weight", 0, "n"), Place("fc2.weight", 1, "n")), JOINED)
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
    layer="fc1",
    node="/fc1/Gemm",
    op="Gemm",
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
    layer="fc1",
    node="Gemm -> 12",
    op="Gemm",
)
NOTE = Finding(
    "SYM004", "opaque-parameters", Level.NOTE, "exact", "nothing is known of 9 parameters", fingerprint="a:1"
)
LOST = Finding(
    "SYM002", "lfs-pointer", Level.ERROR, "exact", "a Git LFS pointer: run `git lfs pull`", fingerprint="b:1"
)
COVERAGE = Coverage(1_234_567, 1_212_345, 22_213, 9, 0.99, 22_213, (("a state", 12_123.54),))


def run(*reports: Report, fail_on: str = "warning", missing: tuple[str, ...] = ()) -> Run:
    return Run(reports, rules(), missing, fail_on, seconds=0.84)


MODEL = Report("nets/a model.onnx", lambda: "ab" * 32, COVERAGE, (NOTE, DEAD, SAME), {"s0": SPACE})
CLEAN = Report("clean.onnx", lambda: "cd" * 32, Coverage(10, 10, 0, 0))
UNREAD = Report("lost.onnx", findings=(LOST,), incomplete=LOST.message)

GOLDEN = """\
nets/a model.onnx
  audited 97.2% of 1,234,567 parameters; 1.8% fixed by inputs and outputs; 1.0%
    not understood

error[duplicate-units] SYM201: 2 groups of units [say](https://example.org) the
  same\\x1b[2J
  --> fc1 (Gemm -> 12)
    = tensors: fc1.weight
    = evidence: exact
    = units: {1, 9}, {2, 8, 10}
    = help: symlint rule SYM201

warning[dead-unit] SYM101: 5 of 64 units cannot affect the output
  --> fc1 (Gemm /fc1/Gemm)
    = tensors: fc1.bias, fc1.weight, fc2.weight
    = evidence: exact; tolerance 1.19e-07
    = units: 3, 17, 40-42
    = saves: 4,000 parameters (0.3% of the model)
    = help: symlint rule SYM101

  1 note not shown: 1 opaque-parameters (-v shows them)

lost.onnx

error[lfs-pointer] SYM002: a Git LFS pointer: run `git lfs pull`
    = help: symlint rule SYM002

clean.onnx: audited 100% of 10 parameters; nothing found

failing            errors  warnings  fix takes away
nets/a model.onnx       1         1
lost.onnx               1         0

1 finding can be repaired:
  symlint fix 'nets/a model.onnx' -o OUT
incomplete, 1 audit not finished: 2 errors, 1 warning in 2 of 3 models, 0.8 s; 1
  note
"""


def test_full_text():
    assert reporter("full")(run(MODEL, CLEAN, UNREAD), Style()) == GOLDEN


CONCISE = """\
nets/a model.onnx: SYM101 [warning] 5 of 64 units cannot affect the output
nets/a model.onnx: SYM201 [error] 2 groups of units [say](https://example.org) the same\\x1b[2J
lost.onnx: SYM002 [error] a Git LFS pointer: run `git lfs pull`
incomplete, 1 audit not finished: 2 errors, 1 warning in 2 of 3 models, 0.8 s; 1 note
"""


def test_concise_is_a_line_per_finding_however_long():
    assert reporter("concise")(run(MODEL, CLEAN, UNREAD), Style(width=40)) == CONCISE
    quiet = reporter("concise")(run(MODEL, CLEAN, UNREAD), Style(quiet=True))
    assert quiet == "".join(CONCISE.splitlines(keepends=True)[:-1])
    assert reporter("concise")(run(CLEAN), Style(quiet=True)) == ""
    assert "SYM004 [note] nothing is known of 9 parameters\n" in reporter("concise")(run(MODEL), Style(verbose=True))


def test_concise_says_what_stopped_an_audit():
    half = dataclasses.replace(MODEL, path="half\x1b.onnx", incomplete="SYM101 stopped")
    assert "half\\x1b.onnx: incomplete: SYM101 stopped\n" in reporter("concise")(run(half), Style())


def facts(level: Level = Level.NOTE) -> Report:
    bias = Finding("SYM401", "inert-key-bias", level, "exact", "softmax ignores this bias", "s0", saves=64)
    value = Finding("SYM402", "foldable-value-bias", level, "exact", "the reader's bias can hold it", "s0", saves=32)
    findings = (NOTE, *[bias] * 12, *[value] * 3)
    return dataclasses.replace(MODEL, findings=findings, coverage=Coverage(8_640, 8_640, 0, 0))


def test_facts_of_an_architecture_are_not_told_unasked():
    text = " ".join(reporter("full")(run(facts()), Style()).split())
    assert "1 note not shown: 1 opaque-parameters (-v shows them)" in text
    assert "-bias" not in text
    assert "SYM40" not in text
    assert text.endswith("passed: 1 note in 1 model, 0.8 s")
    assert "SYM40" not in reporter("concise")(run(facts()), Style())


def test_facts_are_listed_when_they_are_asked_for():
    text = reporter("full")(run(facts()), Style(verbose=True))
    assert text.rstrip().endswith("passed: 16 notes in 1 model, 0.8 s")
    assert text.count("note[inert-key-bias] SYM401") == 12
    assert text.count("by architecture, whatever the weights: nothing need be done") == 15
    assert reporter("full")(run(facts(Level.WARNING)), Style()).count("warning[inert-key-bias] SYM401") == 12


def test_notes_that_can_fail_a_run_are_shown():
    text = " ".join(reporter("full")(run(facts(), fail_on="note"), Style()).split())
    assert "note[opaque-parameters] SYM004" in text
    assert "not shown" not in text
    assert text.count("note[inert-key-bias] SYM401") == 12


@pytest.mark.parametrize(
    ("result", "words"),
    [
        (run(MODEL), "failed (--fail-on warning): 1 error, 1 warning, 1 note in 1 model, 0.8 s"),
        (run(MODEL, fail_on="never"), "passed: 1 error, 1 warning, 1 note in 1 model, 0.8 s"),
        (run(CLEAN), "passed: nothing found in 1 model, 0.8 s"),
        (run(missing=("x",)), "no model found at x"),
    ],
)
def test_last_line(result, words):
    assert reporter("full")(result, Style()).splitlines()[-1] == words


@pytest.mark.parametrize("form", ["full", "concise"])
def test_colours_change_no_character(form):
    plain = reporter(form)(run(MODEL), Style())
    colored = reporter(form)(run(MODEL), Style(color=True))
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
    document = json.loads(reporter("sarif")(run(*arguments, **keywords), Style(notes=True)))
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
        assert location["physicalLocation"]["region"] == {"startLine": 1}
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
    model = Model("m.onnx", None, 17, "", graph, tensors, {}, {}, {}, {})
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


# -- inspect ------------------------------------------------------------------------------------------------------


def transformer(blocks: int, stem: str = "h.") -> Symmetry:
    """As many equal blocks of attention with a fused input, on a stream that stays in place; some names are missing."""
    shapes, nodes, spaces, generators = {}, [], [], []

    def tensor(name: str, shape: tuple[int, ...], module: str, op: str = "MatMul") -> str:
        shapes[name] = shape
        nodes.append(Node(op, f"/net/{module}/{op}", ("x", name), (f"{name}/y",), {}, 17))
        return name

    def acts(space: str, kind: str, group: str, dimension: int, tensors: list[str], *, exact: bool = True) -> None:
        generators.append(Generator(f"{space}.{kind}", kind, space, group, dimension, exact, tuple(tensors)))

    stream = [Place(tensor("wte", (50, 8), "wte"), 1, "S1")]
    for k in range(blocks):
        h, dk, dv = (f"S{3 * k + j}" for j in (2, 3, 4))
        fused = f"({h} {dk})+({h} {dk})+({h} {dv})"
        qkv = tensor(f"{stem}{k}.attn.qkv.weight", (8, 24), f"{stem}{k}/attn/qkv")
        bias = tensor(f"{stem}{k}.attn.qkv.bias", (24,), f"{stem}{k}/attn/qkv", "Add")
        out = tensor(f"onnx::MatMul_{100 + k}", (8, 8), f"{stem}{k}/attn/proj")
        stream += [Place(qkv, 0, "S1"), Place(out, 1, "S1")]
        both = [Place(qkv, 1, fused), Place(bias, 0, fused)]
        read = Place(out, 0, f"({h} {dv})")
        name = f"{stem}{k}.attn.qkv"
        spaces += [
            Space(h, 2, 1, name, (*both, read), ()),
            Space(dk, 4, 2, name, tuple(both), ()),
            Space(dv, 4, 2, name, (*both, read), ()),
        ]
        acts(h, "permutation", "S_2", 0, [qkv, bias, out])
        acts(dk, "rotation", "GL(4)^2", 32, [qkv, bias])
        acts(dv, "rotation", "O(4)^2", 12, [qkv, bias, out], exact=False)
    spaces.insert(0, Space("S1", 8, 1, "wte", tuple(stream), (), OUTPUT))
    acts("S1", "rotation", "Stab(1) of O(8)", 21, ["wte"])
    acts("", "translation", "R^8", 8, [bias])
    graph = Graph(tuple(nodes), ("x",), ())
    tensors = {n: Tensor(n, s, "float32", lambda s=s: np.ones(s, np.float32)) for n, s in shapes.items()}
    model = Model("m.onnx", None, 17, "me", graph, tensors, {}, {}, {}, {})
    opaque = tuple(Opaque(f"{stem}{k}.odd", 70, f"/net/{stem}{k}/Odd", "Odd", "no rule") for k in range(blocks))
    coverage = Coverage(1_000 * blocks, 900 * blocks, 30 * blocks, 70 * blocks, 90 / 97, 30 * blocks)
    return Symmetry(model, coverage, 5_000, tuple(spaces), tuple(generators), opaque)


def roles(symmetry: Symmetry) -> dict[tuple[str, int], frozenset[str]]:
    """Matrices are read along their first axis."""
    return {
        (p.tensor, p.axis): frozenset(["reads" if (p.axis, p.tensor[:4]) == (0, "onnx") else "writes"])
        for space in symmetry.spaces
        for p in space.places
    }


OVERVIEW = """\
m.onnx
  opset 17, from me; 37 nodes
  understood 90.0% of 12,000 parameters; 3.0% fixed by inputs and outputs; 7.0%
not understood
  5,000 continuous directions (41.7% of all)
  generators: 12 permutation, 25 rotation, 1 translation

spaces: units that must be transformed together
n   S1  8 units, pinned  wte
    rotation Stab(1) of O(8), dim 21
h   S2, S5, S8, .., S35  2 units  h.{0..11}.attn.qkv
    permutation S_2
dk  S3, S6, S9, .., S36  4 units in 2 copies  h.{0..11}.attn.qkv
    rotation GL(4)^2, dim 32
dv  S4, S7, S10, .., S37  4 units in 2 copies  h.{0..11}.attn.qkv
    rotation O(4)^2, dim 12 (approximate)

elsewhere: symmetries that need no space of their own
translation R^8, dim 8  h.11.attn.qkv.bias

weights: axis by axis; (h d) is a product, q+k a sum
wte                              50, n
h.{0..11}.attn.qkv.weight        n, q(h dk)+k(h dk)+v(h dv)
h.{0..11}.attn.qkv.bias          q(h dk)+k(h dk)+v(h dv)
net.h.{0..11}.attn.proj.weight*  (h dv), n
  h heads, dk query-key dimensions, dv value dimensions, n neurons
  * named after the node that reads it (-v shows how it is stored)

pinned: 360 parameters whose units stay where they are
360  a graph output
     h.{0..11}.ln.bias

opaque: 840 parameters that no rule for an operator reaches
840  no rule
     at Odd /net/h.{0..11}/Odd
     h.{0..11}.odd
"""


def test_blocks_that_repeat_are_one_line():
    symmetry = transformer(12)
    pinned = [Pinned(f"h.{k}.ln.bias", 30, "a graph output") for k in range(12)]
    assert overview.table(symmetry, Style(), roles(symmetry), pinned) == OVERVIEW


def test_verbose_shows_every_id_and_every_stored_name():
    symmetry = transformer(12)
    text = overview.table(symmetry, Style(verbose=True), roles(symmetry))
    words = set(re.findall(r"[^\s,]+", text))
    assert {generator.id for generator in symmetry.generators if generator.space} <= words
    assert {space.id for space in symmetry.spaces} <= words
    assert set(symmetry.model.tensors) <= words
    assert {item.tensor for item in symmetry.opaque} <= words


def test_spaces_that_differ_are_not_merged():
    symmetry = transformer(3)
    odd = tuple(dataclasses.replace(g, group="O(4)^2") if g.id == "S6.rotation" else g for g in symmetry.generators)
    text = overview.table(dataclasses.replace(symmetry, generators=odd), Style(), roles(symmetry))
    assert "S3, S9  4 units in 2 copies  h.{0,2}.attn.qkv" in text
    assert "S6  4 units in 2 copies  h.1.attn.qkv" in text
    assert "q(h dk1)+k(h dk1)+v(h dv)" in text
    assert "q(h dk2)+k(h dk2)+v(h dv)" in text


def test_two_spaces_of_one_row_in_a_square_matrix_are_told_apart():
    symmetry = chain(["fc.0", "fc.1", "fc.2", "fc.3"], [3, 8, 8, 8, 2])
    spaces = tuple(
        dataclasses.replace(
            space, id=space.id.upper(), places=tuple(Place(p.tensor, p.axis, space.id.upper()) for p in space.places)
        )
        for space in symmetry.spaces
    )
    text = overview.table(dataclasses.replace(symmetry, spaces=spaces), Style())
    assert "n  S1, S2, S3  8 units  fc.{0..2}" in text
    assert "fc.{1,2}  n', n" in text


@given(st.lists(st.text(alphabet="ab.01", max_size=8), max_size=24))
def test_patterns_hold_every_name_once(names):
    found = merged(names)
    assert sorted(name for members in found.values() for name in members) == sorted(set(names))
    for pattern, members in found.items():
        assert ("{" in pattern) == (len(members) > 1)


def test_numbers_without_end_are_no_trouble():
    assert len(merged(["9" * 5_000, "8" * 5_000])) in (1, 2)


def test_names_that_exporters_lose_are_found_again():
    shown = readable(transformer(2).model)
    assert shown["onnx::MatMul_101"] == "net.h.1.attn.proj.weight*"
    assert shown["h.0.attn.qkv.weight"] == "h.0.attn.qkv.weight"


HOSTILE = '=1+\x1b]0;"\\\n\u202e,</'


def test_names_reach_no_document_as_they_are():
    symmetry = transformer(2, HOSTILE)
    pinned = [Pinned(f"{HOSTILE}1.ln", 1, "a graph output")]
    for text in (
        overview.table(symmetry, Style(), roles(symmetry), pinned),
        overview.table(symmetry, Style(verbose=True), roles(symmetry), pinned),
        inspection.as_csv(symmetry, roles(symmetry)),
        inspection.as_dot(symmetry, roles(symmetry)),
    ):
        assert not set(text) & {"\x1b", "\u202e", "\r"}
    assert max(map(len, overview.table(symmetry, Style(), roles(symmetry)).splitlines())) <= 80


def test_csv_has_a_line_per_generator():
    symmetry = transformer(3, HOSTILE)
    text = inspection.as_csv(symmetry, roles(symmetry))
    lines = list(csv.DictReader(StringIO(text, newline="")))
    assert tuple(lines[0]) == inspection.COLUMNS
    assert [line["generator"] for line in lines] == [generator.id for generator in symmetry.generators]
    assert len(text.splitlines()) == len(lines) + 1
    assert not any(cell.startswith(("=", "+", "-", "@")) for line in lines for cell in line.values())
    first, last = lines[0], lines[-1]
    assert (first["symbol"], first["size"], first["writers"], first["readers"]) == ("h1", "2", "2", "1")
    assert (last["kind"], last["space"], last["dimension"]) == ("translation", "", "8")
    assert first["parameters"] == str(8 * 24 + 24 + 8 * 8)


STRING = r'"(?:[^"\\]|\\.)*"'
ATTRIBUTE = rf"\w+=(?:{STRING}|[\w.]+)"
STATEMENT = re.compile(rf"  (?:{ATTRIBUTE}|(?:{STRING}|node|edge)(?: -> {STRING})? \[{ATTRIBUTE}(?:, {ATTRIBUTE})*\]);")


@pytest.mark.parametrize("stem", ["h.", HOSTILE, "\\"])
def test_dot_is_a_graph(tmp_path, stem):
    symmetry = transformer(2, stem)
    text = inspection.as_dot(symmetry, roles(symmetry))
    head, *statements, end = text.splitlines()
    assert (head, end) == ("digraph symlint {", "}")
    assert all(STATEMENT.fullmatch(line) for line in statements)
    arrows = [line for line in statements if " -> " in line]
    assert len(arrows) == len({(p.tensor, p.axis, s.id) for s in symmetry.spaces for p in s.places})
    if shutil.which("dot"):
        subprocess.run(["dot", "-Tsvg", "-o", tmp_path / "graph.svg"], input=text, text=True, check=True)
