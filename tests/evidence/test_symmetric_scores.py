"""Keys that are the queries, behind a norm that takes a direction from both: told in every gauge."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper

from symlint.audit.engine import audit
from symlint.lint.rule import rules
from symlint.lint.settings import Settings
from symlint.model.load import load
from symlint.model.saving import write
from symlint.symmetry.inference import examine
from symlint.symmetry.motion.teleport import select, teleport


def told(path: Path) -> list[int]:
    settings = Settings(select=("SYM305",))
    return [finding.facts["heads"] for finding in audit(str(path), settings.chosen(rules()), settings).findings]


@pytest.mark.corpus
def test_keys_that_are_the_queries_are_told_in_every_gauge(shared, tmp_path):
    model = onnx.load(shared / "zoo" / "gpt2.onnx")
    for tensor in model.graph.initializer:
        if "c_attn.weight" in tensor.name:
            weights = numpy_helper.to_array(tensor).copy()
            width = len(weights)
            weights[:, width : 2 * width] = weights[:, :width]
            tensor.CopyFrom(numpy_helper.from_array(weights, tensor.name))
    planted, moved = tmp_path / "planted.onnx", tmp_path / "moved.onnx"
    onnx.save(model, planted)
    assert told(shared / "zoo" / "gpt2.onnx") == []
    assert told(planted) == [4, 4]
    _, structure = examine(load(str(planted)))
    write(planted, teleport(structure, select(structure, None, None), 3), moved)
    assert told(moved) == [4, 4]
