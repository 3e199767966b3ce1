"""What is accepted does not fail: baselines, acceptances of the configuration, and settings per file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from symlint.audit.acceptance import Baseline, Entry, match, read
from symlint.cli.main import cli
from symlint.lint.finding import Finding, Level


def call(*arguments: object):
    return CliRunner().invoke(cli, ["check", *map(str, arguments)])


def document(*arguments: object, code: int):
    result = call(*arguments, "--format", "json")
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def dead(*units: int, reader: int | None = None) -> Callable[[dict[str, np.ndarray]], None]:
    """Makes units of the perceptron dead."""

    def edit(weights: dict[str, np.ndarray]) -> None:
        for unit in units:
            weights["first.weight"][unit] = 0
            weights["first.bias"][unit] = 0
        if reader is not None:
            weights["second.weight"][:, reader] = 0

    return edit


@pytest.fixture
def flawed(perceptron, monkeypatch, tmp_path) -> Path:
    monkeypatch.chdir(tmp_path)
    return perceptron("model.onnx", dead(2)).relative_to(tmp_path)


# -- baselines ----------------------------------------------------------------------------------------------------


def test_what_stands_in_a_baseline_does_not_fail_and_is_reported(flawed):
    assert call(flawed).exit_code == 1
    written = call(flawed, "--write-baseline", "b.json")
    assert written.exit_code == 0
    assert "b.json: 1 finding accepted" in written.stderr
    (finding,) = document(flawed, "--baseline", "b.json", code=0)["models"][0]["findings"]
    assert finding["accepted"] == {"by": "baseline", "reason": None, "expires": None}
    text = " ".join(call(flawed, "--baseline", "b.json").output.split())
    assert "accepted by the baseline: 1 dead-unit (-v shows them)" in text
    assert "cannot affect the output" not in text
    assert "cannot affect the output" in call(flawed, "--baseline", "b.json", "-v").output


def test_other_units_are_as_bad_and_more_are_worse(flawed, perceptron):
    call(flawed, "--write-baseline", "b.json")
    perceptron("model.onnx", dead(4))
    document(flawed, "--baseline", "b.json", code=0)
    perceptron("model.onnx", dead(2, 4))
    (finding,) = document(flawed, "--baseline", "b.json", code=1)["models"][0]["findings"]
    assert finding["accepted"] is None
    assert finding["worse_than"] == "1 unit, warning"
    assert "worse than the baseline has accepted: 1 unit, warning" in call(flawed, "--baseline", "b.json").output


def test_a_higher_level_is_worse(flawed):
    call(flawed, "--write-baseline", "b.json")
    Path("symlint.toml").write_text('levels = { SYM101 = "error" }')
    (finding,) = document(flawed, "--baseline", "b.json", code=1)["models"][0]["findings"]
    assert finding["worse_than"] == "1 unit, warning"


def test_what_is_gone_is_told_and_pruned(flawed, perceptron):
    call(flawed, "--write-baseline", "b.json")
    before = Path("b.json").read_text()
    perceptron("model.onnx")
    (gone,) = document(flawed, "--baseline", "b.json", code=0)["acceptance"]["gone"]
    assert (gone["path"], gone["rule"], gone["amount"]) == ("model.onnx", "SYM101", "1 unit")
    assert "gone: SYM101 at first of model.onnx, 1 unit" in call(flawed, "--baseline", "b.json").output
    assert document(flawed, "--baseline", "b.json", "--ignore", "SYM101", code=0)["acceptance"]["gone"] == []
    assert Path("b.json").read_text() == before
    assert "1 entry taken out" in call(flawed, "--baseline", "b.json", "--prune-baseline").stderr
    assert read(Path("b.json")).models == {}
    perceptron("model.onnx", dead(2))
    assert call(flawed, "--baseline", "b.json").exit_code == 1


def test_pruning_takes_back_what_has_become_better(flawed, perceptron):
    perceptron("model.onnx", dead(1, 2))
    call(flawed, "--write-baseline", "b.json")
    perceptron("model.onnx", dead(1))
    call(flawed, "--baseline", "b.json", "--prune-baseline")
    (entries,) = read(Path("b.json")).models.values()
    assert [entry.units for entry in entries] == [1]
    perceptron("model.onnx", dead(1, 2))
    assert call(flawed, "--baseline", "b.json").exit_code == 1


def test_a_file_that_has_moved_keeps_its_entries(flawed):
    call(flawed, "--write-baseline", "b.json")
    Path("new").mkdir()
    flawed.rename("new/other.onnx")
    assert call("new", "--baseline", "b.json").exit_code == 0
    call("new", "--baseline", "b.json", "--prune-baseline")
    assert set(read(Path("b.json")).models) == {"new/other.onnx"}


def test_words_of_others_stay_in_a_baseline(flawed):
    call(flawed, "--write-baseline", "b.json")
    content = json.loads(Path("b.json").read_text())
    content["models"]["model.onnx"][0] |= {"since": "2020-01-01", "reason": "known", "expires": "2999-12-31"}
    Path("b.json").write_text(json.dumps(content))
    told = " ".join(call(flawed, "--baseline", "b.json").output.split())
    assert "accepted by the baseline until 2999-12-31 (known)" in told
    call(flawed, "--write-baseline", "b.json")
    assert json.loads(Path("b.json").read_text()) == content
    content["models"]["model.onnx"][0]["expires"] = "2020-01-02"
    Path("b.json").write_text(json.dumps(content))
    assert call(flawed, "--baseline", "b.json").exit_code == 1


@pytest.mark.parametrize(
    ("content", "flags", "words"),
    [
        (None, ["--baseline", "b"], "cannot read the baseline"),
        ("{", ["--baseline", "b"], "b is no baseline"),
        ("[]", ["--baseline", "b"], "b is no baseline"),
        ('{"symlint-baseline": 1, "models": {"m": [{}]}}', ["--baseline", "b"], "an entry cannot be read"),
        (None, ["--baseline", "b", "--write-baseline", "c"], "choose one"),
        (None, ["--prune-baseline"], "needs --baseline"),
        (None, ["--write-baseline", "no/b"], "folder does not exist"),
    ],
)
def test_a_wrong_baseline_is_one_line(flawed, content, flags, words):
    if content is not None:
        Path("b").write_text(content)
    result = call(flawed, *flags)
    assert result.exit_code == 2
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_what_was_not_read_is_never_accepted(flawed):
    flawed.write_bytes(flawed.read_bytes()[:100])
    assert call(flawed, "--write-baseline", "b.json").exit_code == 4
    assert read(Path("b.json")).models == {"model.onnx": ()} or read(Path("b.json")).models == {}
    Path("symlint.toml").write_text('accept = [{rule = "SYM001", reason = "never mind"}]')
    assert call(flawed, "--baseline", "b.json").exit_code == 4


def entries(level: Level, *amounts: int) -> list[Entry]:
    return [Entry("SYM101", f"f:{k}", level, amount, 0) for k, amount in enumerate(amounts, 1)]


def findings(level: Level, *amounts: int) -> list[Finding]:
    return [
        Finding("SYM101", "dead-unit", level, "exact", "", units=tuple(range(amount)), fingerprint=f"f:{k}")
        for k, amount in enumerate(amounts, 1)
    ]


@given(st.lists(st.integers(1, 6), max_size=6), st.lists(st.integers(1, 6), max_size=6), st.randoms())
def test_equal_places_are_a_multiset(before, after, random):
    old, new = entries(Level.WARNING, *before), findings(Level.WARNING, *after)
    first = match(new, old)
    random.shuffle(old)
    again = match(new, old)
    assert {k: e.amount for k, e in first.covered.items()} == {k: e.amount for k, e in again.covered.items()}
    assert all(entry.covers(new[k]) for k, entry in first.covered.items())
    assert not any(entry.covers(new[k]) for k, entry in first.worse.items())
    assert len(first.covered) + len(first.worse) + len(first.left) >= len(old)
    assert len(first.left) == max(len(old) - len(new), 0)
    # As many are covered as could be: the largest entries beside the largest findings.
    best = max(
        sum(a >= b for a, b in zip(sorted(before, reverse=True), sorted(after, reverse=True)[skip:], strict=False))
        for skip in range(len(after) + 1)
    )
    assert len(first.covered) >= best


@given(st.lists(st.integers(1, 6), max_size=6), st.randoms())
def test_what_was_recorded_is_covered(amounts, random):
    old = entries(Level.ERROR, *amounts)
    random.shuffle(amounts)
    found = match(findings(Level.ERROR, *amounts), old)
    assert len(found.covered) == len(amounts)
    assert not found.left


def test_a_baseline_is_read_as_it_was_written(tmp_path):
    entry = dataclasses.replace(entries(Level.NOTE, 3)[0], layer='a"\n', reason="r", since="2026-01-01")
    baseline = Baseline(tmp_path / "b", {"b/m.onnx": (entry, entry), "a.onnx": (entry,), "none.onnx": ()})
    baseline.file.write_text(baseline.text())
    assert read(baseline.file).models == {"b/m.onnx": (entry, entry), "a.onnx": (entry,)}


def test_reordered_nodes_keep_their_fingerprints(root, tmp_path):
    """The numbers of equal places follow the wires, not the list of nodes."""
    source = tmp_path / "towers.onnx"
    onnx.save(towers(), source)
    before = document(source, code=1)["models"][0]["findings"]
    onnx.save(towers(swapped=True), source)
    after = document(source, code=1)["models"][0]["findings"]
    assert [f["units"] for f in before] == [[1], [0, 2]]
    assert {tuple(f["units"]): f["fingerprint"] for f in before} == {tuple(f["units"]): f["fingerprint"] for f in after}


def towers(*, swapped: bool = False) -> onnx.ModelProto:
    """Two equal layers, one behind three more operators: both stand in the list of nodes as early as they may."""
    rng = np.random.default_rng(0)
    nodes, weights, last = [], {}, []
    for tower, ways in (("a", 0), ("b", 3)):
        w1, w2 = rng.normal(size=(4, 6)).astype(np.float32), rng.normal(size=(6, 3)).astype(np.float32)
        w1[:, [1] if tower == "a" else [0, 2]] = 0
        weights |= {f"{tower}1": w1, f"{tower}2": w2}
        ends = ["x", *(f"{tower}x{k}" for k in range(ways))]
        mine = [onnx.helper.make_node("Abs", [one], [two]) for one, two in pairwise(ends)]
        x = ends[-1]
        mine.append(onnx.helper.make_node("MatMul", [x, f"{tower}1"], [f"{tower}h"]))
        mine.append(onnx.helper.make_node("Relu", [f"{tower}h"], [f"{tower}r"]))
        mine.append(onnx.helper.make_node("MatMul", [f"{tower}r", f"{tower}2"], [f"{tower}y"]))
        nodes.append(mine)
        last.append(f"{tower}y")
    listed = [node for mine in (nodes[::-1] if swapped else nodes) for node in mine]
    listed.append(onnx.helper.make_node("Add", last, ["y"]))
    infos = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [2, k]) for n, k in (("x", 4), ("y", 3))]
    tensors = [onnx.numpy_helper.from_array(v, n) for n, v in weights.items()]
    graph = onnx.helper.make_graph(listed, "towers", infos[:1], infos[1:], tensors)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


# -- the configuration --------------------------------------------------------------------------------------------


def fingerprint(file: Path) -> str:
    (finding,) = document(file, code=1)["models"][0]["findings"]
    return finding["fingerprint"]


@pytest.mark.parametrize(
    ("table", "code"),
    [
        ('rule = "SYM101"', 0),
        ('rule = "dead-unit"', 0),
        ('rule = "SYM101"\nlayer = "first"', 0),
        ('rule = "SYM101"\nlayer = "fir*"', 0),
        ('rule = "SYM101"\nlayer = "second"', 1),
        ('rule = "SYM102"', 1),
        ('fingerprint = "{}"', 0),
        ('fingerprint = "{}9"', 0),  # another of the same places may be meant
        ('fingerprint = "0{}"', 1),
        ('rule = "SYM101"\nexpires = 2999-12-31', 0),
        ('rule = "SYM101"\nexpires = "2020-01-01"', 1),
    ],
)
def test_the_configuration_accepts(flawed, table, code):
    table = table.format(fingerprint(flawed))
    Path("symlint.toml").write_text(f'[[accept]]\nreason = "because"\n{table}')
    found = document(flawed, code=code)
    (finding,) = found["models"][0]["findings"]
    expired = "2020" in table
    assert len(found["acceptance"]["expired"]) == expired
    assert len(found["acceptance"]["unused"]) == (code == 1 and not expired)
    if code:
        assert finding["accepted"] is None
    else:
        expires = "2999-12-31" if "2999" in table else None
        assert finding["accepted"] == {"by": "configuration", "reason": "because", "expires": expires}


def test_unused_and_expired_acceptances_are_told(flawed):
    tables = ['{rule = "SYM102", reason = "r"}', '{rule = "SYM101", reason = "r", expires = 2020-01-01}']
    Path("symlint.toml").write_text(f"accept = [{', '.join(tables)}]")
    for form in ("full", "concise"):
        output = " ".join(call(flawed, "--format", form).output.split())
        assert "accepted and not found: SYM102" in output
        assert "accepted until 2020-01-01 only: SYM101" in output
    assert "not found" not in call(flawed, "--ignore", "SYM102").output


def test_sarif_has_suppressions_of_all_results_or_of_none(flawed):
    def suppressions() -> Iterator[object]:
        (only,) = json.loads(call(flawed, "--format", "sarif").stdout)["runs"]
        return (result.get("suppressions") for result in only["results"])

    assert list(suppressions()) == [None]
    Path("symlint.toml").write_text('accept = [{rule = "SYM101", reason = "known"}]')
    words = "accepted by the configuration (known)"
    assert list(suppressions()) == [[{"kind": "external", "status": "accepted", "justification": words}]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('accept = [{rule = "SYM101"}]', "SYM101: give a reason"),
        ('accept = [{reason = "r"}]', "either a fingerprint, or a rule"),
        ('accept = [{rule = "SYM101", fingerprint = "x", reason = "r"}]', "either a fingerprint, or a rule"),
        ('accept = [{rule = "SYM101", reasn = "r"}]', "'reasn'; did you mean 'reason'?"),
        ('accept = [{rule = "SYM101", reason = 1}]', "words in quotes"),
        ('accept = [{rule = "SYM101", reason = "r", expires = "soon"}]', "expected a day like"),
        ('accept = [{rule = "SYM101", reason = "r", expires = 2020-01-01T00:00:00}]', "expected a day like"),
        ('accept = [{rule = "SYM999", reason = "r"}]', "accept: no rule 'SYM999'"),
        ("accept = 1", "expected tables"),
        ('exclude = "a"', "expected a list of patterns"),
        ('per-file-ignores = ["a"]', "expected a table with patterns"),
        ('per-file-ignores = {"a" = ["SYM999"]}', "per-file-ignores: no rule 'SYM999'"),
        ('per-file-levels = {"a" = {SYM101 = "fatal"}}', "expected error, warning, note or off"),
    ],
)
def test_a_wrong_table_is_one_line(flawed, text, words):
    Path("symlint.toml").write_text(text)
    result = call(flawed)
    assert result.exit_code == 2
    assert words in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('exclude = ["model.onnx"]', 3),
        ('exclude = ["below"]', 3),
        ('exclude = ["below/"]', 3),
        ('exclude = ["*/model.onnx"]', 3),
        ('exclude = ["elow/*"]', 1),
        ('per-file-ignores = {"below/*.onnx" = ["SYM1"]}', 0),
        ('select = ["SYM101"]\nper-file-ignores = {"model.onnx" = ["SYM1"]}', 0),
        ('per-file-ignores = {"above/*.onnx" = ["SYM1"]}', 1),
        ('per-file-levels = {"below" = {SYM101 = "note"}}', 0),
        ('levels = {SYM101 = "note"}\nper-file-levels = {"below" = {SYM101 = "error"}}', 1),
    ],
)
def test_settings_per_file(perceptron, monkeypatch, tmp_path, text, code):
    monkeypatch.chdir(tmp_path)
    perceptron("below/model.onnx", dead(2))
    Path("symlint.toml").write_text(text)
    assert call(".").exit_code == code
    if code == 3:
        assert call("below/model.onnx").exit_code == 1  # a file that is named is meant


def test_each_model_has_the_configuration_nearest_to_it(perceptron, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for folder in ("a", "b"):
        perceptron(f"{folder}/model.onnx", dead(2))
    Path("a/symlint.toml").write_text('fail-on = "never"')
    assert call("a").exit_code == 0
    assert call("a", "b").exit_code == 1
    Path("symlint.toml").write_text('ignore = ["SYM101"]')
    assert call("a", "b").exit_code == 0
    assert [len(model["findings"]) for model in document(".", code=0)["models"]] == [1, 0]
    Path("other.toml").write_text('levels = { SYM101 = "error" }')
    levels = [f["level"] for m in document(".", "--config", "other.toml", code=1)["models"] for f in m["findings"]]
    assert levels == ["error", "error"]
    assert call(".", "--fail-on", "error").exit_code == 0
    assert call(".", "--config", "none.toml").exit_code == 2
    shown = CliRunner().invoke(cli, ["config", "a/model.onnx"]).output
    assert 'fail-on  = "never"' in shown


def test_one_flaw_is_one_finding(tmp_path, root):
    """Equal classes before a softmax are told by SYM013; SYM206 says so where that is left out."""
    text = (root / "fixtures" / "rules" / "SYM206.flagged.txt").read_text()
    file = tmp_path / "model.onnx"
    onnx.save(onnx.parser.parse_model("\n".join(line for line in text.splitlines() if line[:1] != "#")), file)

    def told(*flags: str) -> list[str]:
        found = document(file, "--select", "SYM013,SYM206", *flags, code=1)["models"][0]["findings"]
        return [finding["rule"] for finding in found]

    assert told() == ["SYM013"]
    assert told("--ignore", "SYM013") == ["SYM206"]
