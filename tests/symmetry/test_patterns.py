"""The patterns in which a weight is changed: what not even a change by one number gets through stops all of them."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from networks import SMALL

from symlint.model.load import load
from symlint.program.translate import translate
from symlint.symmetry.axes.terms import Expansion
from symlint.symmetry.axes.walk import walk
from symlint.symmetry.translation.search import Search
from symlint.symmetry.translation.wave import Wave


@pytest.mark.parametrize("name", SMALL)
def test_where_one_number_cannot_be_added_no_other_change_can(name: str, tmp_path: Path) -> None:
    net = SMALL[name]
    onnx.save(net.model("float32", net.values()), tmp_path / "model.onnx")
    program = translate(load(str(tmp_path / "model.onnx")))
    axes = walk(program)
    search = Search(program, axes, Expansion(axes.factors))

    def followed(weight: str, wave: Wave) -> bool:
        return search.following.follow({weight: wave}, lambda _: False) is not None

    for weight in program.weights:
        least = search.patterns.least(weight)
        if least is not None and not followed(weight, least):
            assert not any(followed(weight, wave) for wave in search.patterns.of(weight)), weight
