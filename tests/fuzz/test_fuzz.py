"""A few hundred damaged files, in one process; `run.py` has hours of them.

SYMLINT_FUZZ_SEED takes other ones, SYMLINT_FUZZ_CASES more. A failure says how to make its case again.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import mutations
import numpy as np
import onnx
import own_models
import pytest
from onnx import numpy_helper

SEED = int(os.environ.get("SYMLINT_FUZZ_SEED", "13"))
CASES = int(os.environ.get("SYMLINT_FUZZ_CASES", "300"))

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="cases run in copies of one process")


def test_damaged_files_get_an_ordinary_answer():
    """No traceback, hang, signal, or "clean" for what was not read."""
    script = Path(__file__).with_name("run.py")
    command = [sys.executable, str(script), "--cases", str(CASES), "--seed", str(SEED), "--meanwhile", "0"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    print(f"SYMLINT_FUZZ_SEED={SEED}")  # noqa: T201
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_case_is_made_again_from_its_seed(tmp_path):
    data = own_models.perceptron().SerializeToString()
    for seed in range(30):
        folders = [tmp_path / f"{seed}-{k}" for k in range(2)]
        for folder in folders:
            folder.mkdir()
        first, second = (mutations.mutate(np.random.default_rng(seed), data, folder) for folder in folders)
        assert first == second


def test_the_walk_over_fields_sees_what_protobuf_sees():
    """Put each field in the place of itself: the bytes stay, whatever it lies in."""
    for make in own_models.OWN.values():
        data = make().SerializeToString()
        there = mutations.fields(data)
        assert sum(f.end - f.start for f in there if not f.inside) == len(data)
        for field in there:
            assert mutations._spliced(data, there, field, data[field.start : field.end], honest=True) == data


def test_every_model_of_our_own_is_a_model(tmp_path):
    """And its tensors can be read: what is damaged is whole before."""
    for path in own_models.write_all(tmp_path):
        onnx.checker.check_model(path, full_check=not path.name.startswith("recurrent"))
        for tensor in onnx.load(path).graph.initializer:
            numpy_helper.to_array(tensor)


def test_the_judge_knows_what_cannot_be_read(tmp_path, monkeypatch):
    # Another folder of tests has a script of the same name.
    monkeypatch.syspath_prepend(Path(__file__).parent)
    monkeypatch.delitem(sys.modules, "run", raising=False)
    from run import unread

    path = tmp_path / "model.onnx"
    for make in own_models.OWN.values():
        onnx.save(make(), path)
        assert unread(path) == ""
    model = own_models.perceptron()
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-4]
    onnx.save(model, path)
    assert "bytes for" in unread(path)
    path.write_bytes(path.read_bytes()[:-30])
    assert "protobuf" in unread(path)
