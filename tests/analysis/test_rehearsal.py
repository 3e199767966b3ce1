"""Draws of a network's numbers: they let go of what they hold as soon as nobody needs them."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import onnx
from networks import SMALL

from symlint.analysis.rehearsal import Rehearsal
from symlint.model.load import load
from symlint.program.translate import lower


def test_a_draw_that_is_left_is_freed_at_once(tmp_path: Path) -> None:
    """Draws hold weights as wide as they compute, so they must not wait for the collector of cycles."""
    net = SMALL["attention"]
    onnx.save(net.model("float32", net.values()), tmp_path / "attention.onnx")
    program = lower(load(tmp_path / "attention.onnx")).program
    gc.disable()
    try:
        draw = Rehearsal(program, frozenset(program.dependent), 0)
        for name in program.producers:
            draw.value(name)
        left = weakref.ref(draw)
        del draw
        assert left() is None
    finally:
        gc.enable()
