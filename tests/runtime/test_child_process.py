"""Children import from where symlint does, and never from the folder that they are run in."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from symlint.cli.main import cli
from symlint.runtime import child_process
from symlint.runtime.runner import Runner, run

SHADOWS = ("onnxruntime", "numbers", "numpy", "queue", "json", "sitecustomize", "runpy", "symlint")


@pytest.fixture
def trap(tmp_path: Path, perceptron: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model in the working folder, beside scripts that are called like modules and tell when they are executed."""
    folder = tmp_path / "downloaded"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(perceptron().read_bytes())
    for name in SHADOWS:
        (folder / f"{name}.py").write_text(f"import builtins, os\nos.close(os.open({name + '.ran'!r}, os.O_CREAT))\n")
    monkeypatch.chdir(folder)
    return folder


def executed(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.ran"))


@pytest.mark.parametrize("path", ["", os.pathsep, f".{os.pathsep}"])
@pytest.mark.parametrize("arguments", [["verify", "model.onnx"], ["fix", "model.onnx", "-o", "fixed.onnx"]])
def test_nothing_of_the_working_folder_is_executed(trap, arguments, path, monkeypatch):
    # Where the variable ends in a separator, as it does after PATH=/x:$PATH, Python takes the working folder as well.
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.syspath_prepend("")
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    assert executed(trap) == []


def test_nor_by_python_m(trap):
    (trap / "runpy.py").unlink()  # these two Python itself imports before symlint can say a word
    (trap / "symlint.py").unlink()
    done = subprocess.run(
        [sys.executable, "-m", "symlint", "verify", "model.onnx"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert executed(trap) == []


def test_both_ways_to_a_child_work_there(trap):
    feeds = {"x": np.zeros((2, 4), np.float32)}
    [one] = run([Path("model.onnx")], feeds)
    with Runner() as runner:
        loaded = runner.load("model.onnx")
        assert loaded.failure is None, loaded.failure
    assert one.failure is None, one.failure
    assert executed(trap) == []


def test_what_the_parent_can_import_a_child_can_too(tmp_path, monkeypatch):
    """Packages that PYTHONPATH or the program itself have added."""
    added, here = tmp_path / "added", tmp_path / "here"
    added.mkdir()
    here.mkdir()
    for folder, value in ((added, "there"), (here, "here")):
        (folder / "some_child.py").write_text(f"def main(*words):\n    print({value!r}, *words)\n")
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", ["", str(here), *sys.path, os.path.relpath(added)])
    done = subprocess.run(
        child_process.command("some_child", "one", "two words"), capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["there", "one", "two", "words"]


def test_a_folder_that_symlint_itself_came_from_stays(root, monkeypatch):
    monkeypatch.chdir(root)
    monkeypatch.syspath_prepend(str(root))
    assert str(root.resolve()) in child_process.import_path()
