"""A profile is a function of the network: the same table in every gauge, and the same numbers as the other commands."""

from __future__ import annotations

import csv
import json
from io import StringIO

import numpy as np
import pytest
from click.testing import CliRunner
from corpora import FIXTURES, ROOT, SHARED
from written import written

from symlint.cli.main import cli
from symlint.cli.report import Style
from symlint.cli.report.profile_records import COLUMNS, as_csv, as_json, records
from symlint.cli.report.profile_tables import as_text
from symlint.comparison.compare import compare
from symlint.comparison.trajectory import trajectory
from symlint.evidence.context import Context
from symlint.lint.rule import rules
from symlint.lint.settings import Settings
from symlint.model.load import load
from symlint.model.saving import write
from symlint.symmetry.inference import examine
from symlint.symmetry.motion.teleport import select, teleport

OWN = sorted(FIXTURES.glob("*.onnx"))
ZOO = [  # one of each kind of architecture: convolutions, normalisations, attention, rotary planes, experts, recurrence
    *("resnet18", "densenet", "mobilenet_v2", "gpt2", "bert", "llama", "mixtral", "lstm", "gated_reglu", "deep_linear"),
    *("resnest", "stylegan_synthesis", "llama.int4_blocks"),  # split attention, computed constants, blocks
    *("hubert", "pit.dynamo", "pvt_v2", "swin_torchvision"),  # means over groups and over parts, gains between norms
]
SEEDS = [*((name, 1) for name in ZOO), ("funnel", 2), ("llama_gqa_sdpa", 3)]  # a choice of two; planes of shared keys
CLOSE = 3e-3
"""What float32 weights in a gauge of condition number 1,000 leave of a number."""


def profile(*paths, settings=None):
    return trajectory([str(path) for path in paths], rules(), [settings or Settings()] * len(paths))


def rows(path):
    return [{k: v for k, v in row.items() if k not in ("model", "noise")} for row in records(profile(path))]


def assert_invariant(path, folder, seed=1):
    _, structure = examine(load(path))
    write(path, teleport(structure, select(structure, None, None), seed), folder / "moved.onnx")
    before, after = rows(path), rows(folder / "moved.onnx")
    assert len(before) == len(after)
    for one, other in zip(before, after, strict=True):
        for name, value in one.items():
            if isinstance(value, float) and isinstance(other[name], float):
                assert other[name] == pytest.approx(value, rel=CLOSE), (one["layer"], name)
            elif name == "ranks":  # the order of copies is a gauge, too
                assert sorted(other[name]) == sorted(value)
            else:
                assert other[name] == value, (one["layer"], name)


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.stem)
def test_a_profile_is_the_same_in_every_gauge(path, tmp_path):
    assert_invariant(path, tmp_path)


@pytest.mark.corpus
@pytest.mark.slow
@pytest.mark.parametrize(("name", "seed"), SEEDS)
def test_a_profile_of_a_published_architecture_is_the_same_in_every_gauge(name, seed, tmp_path):
    assert_invariant(SHARED / "zoo" / f"{name}.onnx", tmp_path, seed)


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.stem)
def test_every_space_adds_up_and_says_what_the_audit_says(path):
    context = Context(*examine(load(path)))
    spaces = {space.id: space for space in context.symmetry.spaces}
    plain = {space.id for space in context.spaces}
    for row in rows(path):
        space = spaces[row["space"]]
        assert row["units"] == space.size * space.copies
        assert (row["live"] is not None) == (space.id in plain)
        if space.id in plain:
            units = context.units(space)
            assert row["live"] + int(units.dead.sum()) == row["units"]
            assert 0 <= row["distinct"] <= row["live"] - row["constant"]
            assert row["effective_width"] <= row["live"] * (1 + 1e-9)
            assert row["rank"] <= row["live"]
        assert row["stable_rank"] <= row["effective_rank"] * (1 + 1e-9) <= row["rank"] * (1 + 1e-6)
        assert row["rank"] == sum(row["ranks"] or [row["rank"]])


def test_one_effective_width_everywhere():
    (decayed,) = (p for p in OWN if p.stem == "decayed_cnn")
    (healthy,) = (p for p in OWN if p.stem == "healthy_cnn")
    course = profile(healthy, decayed)
    found = compare(str(healthy), str(decayed), rules(), Settings())
    for number, change in enumerate(found.spaces):
        old, new = course.course(number)
        assert (old.state, new.state) == (change.old, change.new)
    asked = Settings(select=("SYM812",), rules={"SYM812": {"share": 1.0}})
    report = profile(decayed, settings=asked).portraits[0].report
    told = {f.space: f.facts["effective_width"] for f in report.findings}
    widths = {row["space"]: row["effective_width"] for row in rows(decayed)}
    assert len(told) == 4
    assert told == {space: float(f"{widths[space]:.2g}") for space in told}


def test_saves_are_those_of_the_findings():
    for path in OWN:
        found = profile(path)
        saves = {}
        for finding in found.portraits[0].report.findings:
            saves[finding.space] = saves.get(finding.space, 0) + finding.saves
        assert {row["space"]: row["saves"] for row in records(found) if row["saves"]} == {
            k: v for k, v in saves.items() if v
        }


def network(folder, hidden, rank):
    """Two layers whose units compute `rank` different things, linearly."""
    rng = np.random.default_rng(hidden)
    first = rng.normal(size=(9, rank)) @ rng.normal(size=(rank, hidden))
    stored = {"v": first, "w": rng.normal(size=(hidden, 3))}
    return written(folder / "rank.onnx", "a = MatMul(x, v) h = Tanh(a) y = MatMul(h, w)", stored, (None, 9))


def test_a_mask_of_infinities_hides_no_width(tmp_path):
    rng = np.random.default_rng(0)
    stored = {"v": rng.normal(size=(9, 16)), "w": rng.normal(size=(16, 3)), "m": np.array([0.0, -np.inf, 0.0])}
    path = written(
        tmp_path / "mask.onnx",
        "a = MatMul(x, v) h = Tanh(a) z = MatMul(h, w) s = Add(z, m) y = Softmax(s)",
        stored,
        (None, 9),
    )
    (row,) = rows(path)
    assert 1 < row["effective_width"] <= 16
    assert row["rank"] == 9


def test_what_nothing_reads_is_in_no_norm(tmp_path):
    rng = np.random.default_rng(0)
    v, w = rng.normal(size=(9, 16)), rng.normal(size=(16, 3))
    w[2] = 0
    told = []
    for scale in (1.0, 1000.0):
        v[:, 2] *= scale
        path = written(
            tmp_path / "dead.onnx", "a = MatMul(x, v) h = Relu(a) y = MatMul(h, w)", {"v": v, "w": w}, (None, 9)
        )
        told += [(row["written_norm"], row["read_norm"]) for row in rows(path)]
    assert told[0] == told[1]
    assert told[0][0] == pytest.approx(told[0][1], rel=1e-3)


def test_one_tensor_for_several_fresh_normalisations_is_a_tensor_for_each(tmp_path):
    rng = np.random.default_rng(0)
    stored = {"v": rng.normal(size=(9, 16)), "u": rng.normal(size=(16, 16)), "w": rng.normal(size=(16, 3))}
    stored |= {"d": rng.normal(size=16), "e": rng.normal(size=3)}
    found = []
    for names in ("gbgb", "gbhc"):
        fresh = {name: np.full(16, float(name in "gh")) for name in set(names)}
        g, b, h, c = names
        path = written(
            tmp_path / f"{names}.onnx",
            f"a = MatMul(x, v) n = LayerNormalization(a, {g}, {b}) m = Gemm(n, u, d) "
            f"o = LayerNormalization(m, {h}, {c}) y = Gemm(o, w, e)",
            {**stored, **fresh},
            (None, 9),
        )
        assert compare(str(path), str(path), rules(), Settings()).unchanged
        found.append([{k: v for k, v in row.items() if k != "parameters"} for row in rows(path)])
    assert found[0] == found[1]


def test_numbers_of_a_narrow_table_are_never_cut(tmp_path):
    found = profile(network(tmp_path, 24, 4))
    for width in (72, 80, 140):
        last = as_text(found, Style(width=width)).splitlines()[-1]
        assert " units  " in last
        assert last.split()[-6:-4] == ["24", "24"]


@pytest.mark.parametrize("rank", [1, 4, 9])
def test_the_rank_is_that_of_what_is_written(tmp_path, rank):
    (row,) = rows(network(tmp_path, 24, rank))
    assert (row["live"], row["rank"]) == (24, rank)


def test_formats_agree():
    found = profile(*OWN)
    expected = list(records(found))
    read = list(csv.DictReader(StringIO(as_csv(found))))
    assert tuple(read[0]) == COLUMNS
    assert as_csv(found).startswith("model,layer,op,role,units,live,constant,distinct,effective_width,rank,")
    spaces = [{"model": m["path"], **s} for m in json.loads(as_json(found))["models"] for s in m["spaces"]]
    for row, line, space in zip(expected, read, spaces, strict=True):
        assert {k: space[k] for k in COLUMNS} == row
        assert line == {
            k: "" if v is None else " ".join(map(str, v)) if k == "ranks" else str(v) for k, v in row.items()
        }


def test_the_table_shows_the_rows_and_of_several_files_their_ends(tmp_path, monkeypatch):
    monkeypatch.chdir(FIXTURES)
    shown = CliRunner().invoke(cli, ["profile", "decayed_cnn.onnx"]).stdout
    for row in records(profile("decayed_cnn.onnx")):
        width = f"{row['effective_width']:.1f}"
        (line,) = (line.split() for line in shown.splitlines() if line.startswith(f"{row['layer']} "))
        assert line[1:6] == ["units", str(row["units"]), str(row["live"]), width, str(row["rank"])]
    monkeypatch.chdir(ROOT)
    shown = CliRunner().invoke(cli, ["profile", "fixtures/healthy_cnn.onnx", "fixtures/decayed_cnn.onnx"]).stdout
    assert f"```\n{shown}```" in (ROOT / "README.md").read_text(encoding="utf-8"), f"it should show:\n{shown}"
    out = tmp_path / "out.csv"
    assert (
        CliRunner().invoke(cli, ["profile", str(FIXTURES / "healthy_cnn.onnx"), "-f", "csv", "-o", str(out)]).exit_code
        == 0
    )
    assert out.read_text() == as_csv(profile(FIXTURES / "healthy_cnn.onnx"))
    other, page = tmp_path / "other.csv", tmp_path / "page.html"
    done = CliRunner().invoke(cli, ["profile", "fixtures/healthy_cnn.onnx", "-o", f"csv={other}", "-o", f"html={page}"])
    assert done.stdout.startswith("fixtures/healthy_cnn.onnx\n")
    assert other.read_text() == as_csv(profile("fixtures/healthy_cnn.onnx"))
    assert page.read_text().startswith("<!doctype html>")
    assert CliRunner().invoke(cli, ["profile", "fixtures/healthy_cnn.onnx", "-o", "csv=-"]).stdout == other.read_text()
    for wrong in ([f"csv={tmp_path / 'no' / 'x'}"], [f"csv={out}", f"html={out}"]):
        assert CliRunner().invoke(cli, ["profile", "none.onnx", *(w for o in wrong for w in ("-o", o))]).exit_code == 2
    assert CliRunner().invoke(cli, ["profile", "none.onnx"]).exit_code == 3
    (tmp_path / "broken.onnx").write_text("none")
    assert CliRunner().invoke(cli, ["profile", str(tmp_path / "broken.onnx")]).exit_code == 4
