"""A law of the surgery: units of which every weight is zero can be cut from any space, wherever it goes."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from corpora import SHARED

from symlint.evidence.context import Context
from symlint.model.load import load
from symlint.model.saving import write
from symlint.repair.narrowing import arrange, plan
from symlint.repair.promises import Forecast
from symlint.repair.storage import save
from symlint.repair.surgery import narrowed, stored
from symlint.runtime.verify import same_function
from symlint.symmetry.inference import examine
from symlint.symmetry.motion.action import scale, stands
from symlint.symmetry.motion.motion import fresh_weights

ZOO, MODELS = ((SHARED / folder).glob("*.onnx") for folder in ("zoo", "models"))
KINDS = ("int8_qdq", "int8_qoperator", "fp16", "ort_transformer", "opset11")
FILES = sorted([*(p for p in ZOO if "." not in p.stem or p.stem.endswith(KINDS)), *MODELS])
"""Every architecture, and the exports that speak of it in operators of their own."""
SLOW = 5
"""One of so many files is not `slow`."""
UNEVEN = {"convnext_v2", "gcn"}
"""Networks of which no space can be cut: an average counts the units, or indices are repeated for each of them."""


def wrecked(path: Path, out: Path) -> int:
    """Write a copy in which 3 of 10 units of every space are zero wherever they are stored; how many spaces."""
    context = Context(*examine(load(path)))
    structure, count = context.structure, 0
    weights, rng = fresh_weights(structure), np.random.default_rng(0)
    for space in context.spaces:
        action = structure.permutation(space.id)
        size = structure.axes.factors.size(action.leaf)
        shape = [*(structure.axes.factors.size(c) for c in action.copies), size]
        names = structure.axes.factors.holders.get(action.leaf, set()) & structure.program.weights.keys()
        kinds = {structure.program.model.tensors[structure.program.weights[n]].dtype for n in names}
        if size < 3 or not kinds <= {"float32", "float16", "int8"} or (("int8" in kinds) and len(kinds) > 1):
            continue
        factor = np.ones(shape)
        rows = rng.permuted(np.broadcast_to(np.arange(size), shape), axis=-1)
        np.put_along_axis(factor, rows[..., : max(1, size * 3 // 10)], 0.0, -1)
        for name in sorted(names - structure.program.detached.keys()):
            stood = list(stands(structure.expansion, structure.axes.of[name], action.leaf, action.copies))
            charge = {(s.axis, s.term, s.place): Fraction(1) for s in stood}
            weights.put(name, scale(weights.get(name), stood, factor, charge))
        count += 1
    write(path, stored(weights), out)
    return count


@pytest.mark.corpus
@pytest.mark.parametrize(
    "path", [pytest.param(p, id=p.stem, marks=[pytest.mark.slow] if k % SLOW else []) for k, p in enumerate(FILES)]
)
def test_dead_units_can_be_cut_from_every_space(path, tmp_path):
    if not wrecked(path, tmp_path / "wrecked.onnx"):
        pytest.skip("no space has three floating units")
    model = load(tmp_path / "wrecked.onnx")
    context = Context(*examine(model))
    dead = {s.id: context.units(s).dead for s in context.spaces}
    removal = plan(context, {s: mask for s, mask in dead.items() if mask.any()})
    forecast = Forecast(context)
    widths, _ = forecast.feasible(removal.widths)
    if not widths:
        assert path.stem in UNEVEN or not removal.widths
        pytest.skip("no space of it can be cut")
    weights = fresh_weights(context.structure)
    arrange(weights, removal)
    out = tmp_path / "narrow.onnx"
    save(narrowed(context.structure, stored(weights), widths, forecast.whole), out, None)
    smaller = load(out)
    assert sum(t.size for t in smaller.tensors.values()) < sum(t.size for t in model.tensors.values())
    trial = same_function(model, smaller)
    if trial.outcome == "not runnable" and same_function(model, model).outcome == "not runnable":
        pytest.skip(trial.reason[:100])
    assert trial.outcome == "held", trial
