"""What was made of a network is told from what was not, whatever was done to it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from corpora import ROOT, SHARED
from onnx import numpy_helper

import symlint
from symlint.cli.main import cli

FIXTURES = ROOT / "fixtures"
HEALTHY, DECAYED = FIXTURES / "healthy_cnn.onnx", FIXTURES / "decayed_cnn.onnx"


def call(*arguments: object):
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def trace(model: Path, *against: object, code: int = 0) -> list[dict[str, Any]]:
    flags = [word for path in against for word in ("--against", path)]
    result = call("trace", model, *flags, "--format", "json")
    assert result.exit_code == code, result.output
    document = json.loads(result.stdout)
    assert (document["exit_code"], document["model"]["path"]) == (code, str(model))
    return document["against"]


def changed(model: Path, out: Path, change: Callable[[str, np.ndarray], np.ndarray]) -> Path:
    """A file with other numbers in its tensors, of the same types."""
    loaded = onnx.load(model)
    for stored in loaded.graph.initializer:
        values = numpy_helper.to_array(stored)
        stored.CopyFrom(numpy_helper.from_array(change(stored.name, values).astype(values.dtype), stored.name))
    onnx.save(loaded, out)
    return out


def teleported(model: Path, out: Path) -> Path:
    assert call("teleport", model, "-o", out, "--seed", 5).exit_code == 0
    return out


def pruned(name: str, values: np.ndarray) -> np.ndarray:
    return np.where(np.abs(values) >= np.median(np.abs(values)), values, 0) if values.ndim > 1 else values


def renamed(model: Path, out: Path) -> Path:
    """All inner names are others, and the tensors stand in another order."""
    loaded = onnx.load(model)
    graph = loaded.graph
    ends = {"", *(value.name for value in (*graph.input, *graph.output))}
    for stored in graph.initializer:
        stored.name = f"t_{stored.name[::-1]}"
    kept = {stored.name for stored in graph.initializer}
    for node in graph.node:
        node.name = ""
        for side in (node.input, node.output):
            side[:] = [n if n in ends else f"t_{n[::-1]}" if f"t_{n[::-1]}" in kept else f"v_{n[::-1]}" for n in side]
    stored = list(graph.initializer)[::-1]
    del graph.initializer[:], graph.value_info[:]
    graph.initializer.extend(stored)
    onnx.save(loaded, out)
    return out


def test_a_copy_that_was_moved_pruned_and_renamed_is_found(tmp_path):
    moved = teleported(changed(HEALTHY, tmp_path / "pruned.onnx", pruned), tmp_path / "moved.onnx")
    first, *others = trace(renamed(moved, tmp_path / "copy.onnx"), FIXTURES)
    assert (first["path"], first["verdict"], first["compared"]) == (str(HEALTHY), "derived", 1)
    assert first["score"] > 0.9
    assert {one["verdict"] for one in others} == {"unrelated", "not comparable"}
    stranger = next(one for one in others if one["path"] == str(DECAYED))
    assert abs(stranger["score"]) < 2 * stranger["chance"] < 0.2


def test_a_new_head_shows_from_above_alone(tmp_path):
    rng = np.random.default_rng(0)

    def anew(name: str, values: np.ndarray) -> np.ndarray:
        return rng.normal(size=values.shape) * values.std() if name == "classes.weight" else values

    (found,) = trace(changed(HEALTHY, tmp_path / "head.onnx", anew), HEALTHY)
    assert found["verdict"] == "derived"
    assert min(space["upward"] for space in found["spaces"]) > 0.8
    assert [space["name"] for space in found["spaces"] if space["downward"] < 0.5] == ["hidden"]


def test_what_is_not_there_not_readable_or_not_alike_is_told(tmp_path):
    assert call("trace", HEALTHY, "--against", tmp_path / "no.onnx").exit_code == 3
    assert "no other *.onnx" in call("trace", HEALTHY, "--against", tmp_path).stderr
    assert call("trace", HEALTHY).exit_code == 2
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    found = trace(HEALTHY, tmp_path, DECAYED, code=4)
    assert [one["problem"] is None for one in found] == [True, False]
    (alone,) = trace(HEALTHY, FIXTURES / "collinear_mlp.onnx", code=4)
    assert (alone["verdict"], alone["score"]) == ("not comparable", None)
    document = json.loads(call("trace", tmp_path / "broken.onnx", "--against", HEALTHY, "-f", "json").stdout)
    assert (document["exit_code"], document["against"]) == (4, [])


def test_the_table_ranks_and_shows_the_spaces_of_the_first():
    result = call("trace", HEALTHY, DECAYED, "--against", HEALTHY)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert [line.split()[-1] for line in lines if ".onnx " in line] == ["derived", "unrelated"]
    assert sum(line.startswith("conv") for line in lines) == 3
    verbose = call("trace", HEALTHY, DECAYED, "--against", HEALTHY, "-v").stdout.splitlines()
    assert sum(line.startswith("conv") for line in verbose) == 6


def test_without_scipy_a_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.optimize", None)
    result = call("trace", HEALTHY, "--against", DECAYED)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "pip install 'symlint[align]'" in result.stderr


def test_from_python_models_may_be_bytes():
    found = symlint.trace(HEALTHY.read_bytes(), [DECAYED, onnx.load(HEALTHY)])
    assert (found.path, found.best.path, found.best.verdict) == ("<bytes>", "<ModelProto>", "derived")
    assert found.best.score == 1


def test_a_sketch_stands_for_a_network(tmp_path):
    folder = tmp_path / "sketches"
    folder.mkdir()
    for model in (HEALTHY, DECAYED):
        result = call("fingerprint", model, "-o", folder / f"{model.stem}.npz")
        assert (result.exit_code, "104 units of 4 spaces" in result.stdout) == (0, True)
    moved = teleported(changed(HEALTHY, tmp_path / "pruned.onnx", pruned), tmp_path / "moved.onnx")
    first, second = trace(renamed(moved, tmp_path / "copy.onnx"), folder)
    assert (first["path"], first["verdict"], first["sketched"]) == (str(folder / "healthy_cnn.npz"), "derived", True)
    assert (second["verdict"], second["compared"]) == ("unrelated", 1)
    same = symlint.trace(moved, [folder / "healthy_cnn.npz", HEALTHY])
    assert [one.sketched for one in same.found] == [False, True]


def test_what_a_symmetry_moves_has_the_same_sketch(tmp_path):
    one = symlint.fingerprint(HEALTHY)
    two = symlint.fingerprint(teleported(HEALTHY, tmp_path / "moved.onnx"), tmp_path / "moved.npz")
    for mine, other in zip(one.spaces, two.spaces, strict=True):
        for a, b in ((mine.upward, other.upward), (mine.downward, other.downward)):
            np.testing.assert_allclose(a[np.argsort(a[:, 0])], b[np.argsort(b[:, 0])], atol=1e-4)


def test_what_is_no_sketch_is_told_in_a_line(tmp_path):
    assert call("fingerprint", HEALTHY, "-o", tmp_path / "a.json").exit_code == 2
    assert call("fingerprint", HEALTHY, "-o", tmp_path / "no" / "a.npz").exit_code == 2
    assert call("fingerprint", tmp_path / "no.onnx", "-o", tmp_path / "a.npz").exit_code == 3
    (tmp_path / "a.npz").write_bytes(b"no archive")
    np.savez(tmp_path / "b.npz", weights=np.zeros(3))
    found = trace(HEALTHY, tmp_path / "a.npz", tmp_path / "b.npz", code=4)
    assert all("no sketch" in one["problem"] for one in found)


# A stream that is rotated with heads within, a tied embedding, a recurrence.
@pytest.mark.corpus
@pytest.mark.parametrize("name", ["vit_timm", "gpt2", "lstm"])
def test_networks_of_every_kind_are_found_where_they_were_moved(name, tmp_path):
    model, rng = SHARED / "zoo" / f"{name}.onnx", np.random.default_rng(0)

    def shaken(name: str, values: np.ndarray) -> np.ndarray:
        return values + 0.1 * values.std() * rng.normal(size=values.shape) if values.dtype == np.float32 else values

    def drawn(name: str, values: np.ndarray) -> np.ndarray:
        large = values.dtype == np.float32 and values.ndim > 1
        return values.std() * rng.normal(size=values.shape) if large else values

    moved = teleported(model, tmp_path / "moved.onnx")
    other = changed(model, tmp_path / "other.onnx", drawn)
    found = trace(changed(moved, tmp_path / "shaken.onnx", shaken), model, other)
    assert [one["verdict"] for one in found] == ["derived", "unrelated"]
