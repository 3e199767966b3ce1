"""Generators, near: each alone, by a random element, keeps the outputs of a small network in float64."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from networks import SMALL
from onnx.reference import ReferenceEvaluator
from turned_networks import TURNED

from symlint.model.load import load
from symlint.model.saving import write
from symlint.symmetry.inference import examine
from symlint.symmetry.motion.teleport import teleport

TOLERANCE = 1e-8
NETS = {**SMALL, **TURNED}


@pytest.mark.parametrize("name", NETS)
def test_each_generator_keeps_the_outputs(name, tmp_path):
    """Charges, signs, permutations, rotations and translations: what is solved for is what the function has."""
    net, path = NETS[name], tmp_path / "model.onnx"
    onnx.save(net.model("float64", net.values()), path)
    _, structure = examine(load(path))
    feeds = net.feeds(3)
    (before,) = ReferenceEvaluator(str(path)).run(None, feeds)
    for action in structure.actions:
        moved = tmp_path / "moved.onnx"
        write(path, teleport(structure, [action], 3), moved)
        (after,) = ReferenceEvaluator(str(moved)).run(None, feeds)
        assert np.abs(after - before).max() <= TOLERANCE * max(1.0, np.abs(before).max()), action
