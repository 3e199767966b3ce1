"""Soundness: every claimed symmetry is tried in onnxruntime, and a wrong one is refuted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from corpora import SHARED
from networks import Net
from routed_networks import ROUTED

from symlint.model.errors import UnreadableModel
from symlint.model.load import load
from symlint.model.saving import write
from symlint.runtime.probe import feeds
from symlint.runtime.runner import run
from symlint.runtime.verify import compare, verify
from symlint.symmetry.inference import examine
from symlint.symmetry.motion.teleport import select, teleport

TRUTH = sorted((SHARED / "truth").glob("*.onnx"))
ZOO = sorted((SHARED / "zoo").glob("*.onnx"))
MODELS = sorted((SHARED / "models").rglob("*.onnx"))
LARGEST = 60_000
SMALL = [p for p in ZOO if p.stat().st_size < LARGEST and p.stem.count(".") == 0][::2][:25]
HEAVY = 100_000_000
"""Files above this size are left to the command line."""


def title(path: object) -> str:
    return f"{path.parent.name}-{path.stem}" if isinstance(path, Path) else str(path)


def refuted(path: Path) -> list[tuple[str, str, float | None]]:
    """The claims about a model that onnxruntime refutes."""
    try:
        symmetry, structure = examine(load(path))
    except UnreadableModel as problem:
        pytest.skip(str(problem)[:200])
    trials = verify(structure, [g.id for g in symmetry.generators if g.exact])
    assert len(trials) == sum(g.exact for g in symmetry.generators)
    if trials and all(t.outcome == "not runnable" for t in trials):
        pytest.skip(f"not runnable: {trials[0].reason[:150]}")
    return [(t.id, t.kind, t.difference) for t in trials if t.outcome == "refuted"]


@pytest.mark.corpus
@pytest.mark.parametrize("path", [*TRUTH, *SMALL], ids=title)
def test_nothing_that_is_claimed_is_refuted(path, shared):
    """The outputs stay when the weights of a small network move by all claimed generators."""
    assert refuted(path) == []


@pytest.mark.parametrize("name", ROUTED)
def test_routed_experts_are_understood_and_nothing_is_refuted(name, tmp_path):
    """Whatever a router sends where, all weights are reached, and what is claimed of them holds."""
    onnx.save(ROUTED[name].model("float32", ROUTED[name].values()), path := tmp_path / "net.onnx")
    coverage = examine(load(path))[0].coverage
    assert coverage.covered == coverage.total
    assert refuted(path) == []


@pytest.mark.slow
@pytest.mark.corpus
@pytest.mark.parametrize("path", [p for p in [*ZOO, *MODELS] if p not in SMALL], ids=title)
def test_nothing_is_refuted_in_the_corpora(path, shared):
    """The outputs stay on every network of the corpora that onnxruntime can run."""
    if path.stat().st_size > HEAVY:
        pytest.skip("too large for a test")
    assert refuted(path) == []


KINDS = ("permutation", "rescaling", "sign", "rotation", "translation")


@pytest.mark.corpus
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", [*TRUTH, *SMALL], ids=title)
def test_each_kind_alone_keeps_every_output_and_a_wrong_element_does_not(path, kind, shared, tmp_path):
    """A wrong element, which moves only a part of what it has to move, changes the outputs a hundred times more."""
    symmetry, structure = examine(load(path))
    chosen = [g.id for g in symmetry.generators if g.kind == kind and g.exact]
    if not chosen:
        pytest.skip(f"no {kind}")
    inputs = next(iter(feeds(structure.program.model, 0)))
    before = run([path], inputs)[0]
    if before.failure is not None:
        pytest.skip(f"not runnable: {before.failure[:150]}")
    several = {g.id for g in symmetry.generators if kind == "translation" or len(g.tensors) > 1}
    files = []
    for wrong in (False, True):
        files.append(tmp_path / f"{kind}-{wrong}.onnx")
        moved = teleport(structure, [g for g in chosen if not wrong or g in several], 1, wrong=wrong)
        write(path, moved, files[-1])
    right, off = (compare(before.outputs, r) for r in run(files, inputs))
    assert right < 1e-3
    if several & set(chosen):
        assert off > 100 * min(right, 1e-5)
        assert off > 1e-3


NEAR = Net(
    "u = Gemm(x, a, p) n = LayerNormalization<axis = -1, epsilon = EPS>(u, g, h) y = Gemm(n, b, q)",
    {"a": (3, 4), "p": (4,), "g": (4,), "h": (4,), "b": (4, 2), "q": (2,)},
    {"x": (3,)},
    2,
    0,
)


@pytest.mark.parametrize(("epsilon", "outcome"), [("1e-14", "held"), ("0.3", "refuted")])
def test_what_an_epsilon_breaks_is_applied_when_named(epsilon, outcome, tmp_path):
    """The length before a norm is listed as not exact, counts for nothing, and is as free as the epsilon is small."""
    net = replace(NEAR, text=NEAR.text.replace("EPS", epsilon))
    onnx.save(net.model("float32", net.values()), tmp_path / "near.onnx")
    symmetry, structure = examine(load(tmp_path / "near.onnx"))
    (near,) = [g for g in symmetry.generators if not g.exact]
    assert (near.kind, near.dimension) == ("rescaling", 1)
    assert symmetry.dimension == sum(g.dimension for g in symmetry.generators if g.exact)
    assert near.id not in select(structure, None, None)
    assert [t.outcome for t in verify(structure, select(structure, [near.id], None))] == [outcome]


POWER = [p for p in TRUTH if p.stem in {"mlp_relu", "conv_bn_relu", "reglu", "attn_bias", "depthwise", "densenet"}]
POWER += [p for p in TRUTH if p.stem in {"attn_rope", "layernorm_mlp", "rmsnorm_swiglu", "lora", "lstm", "mixer"}]


@pytest.mark.corpus
@pytest.mark.parametrize("path", POWER, ids=title)
def test_teleport_moves_every_tensor(path, shared):
    """No tensor that a generator lists stays within 1% of itself, and permutations keep the multiset of values."""
    symmetry, structure = examine(load(path))
    for generator in (g for g in symmetry.generators if g.exact):
        moved = teleport(structure, [generator.id], 2)
        assert set(generator.tensors) <= set(moved)
        for tensor in generator.tensors:
            before = structure.program.model.tensors[tensor].read()
            after = moved[tensor]
            assert (after.shape, after.dtype) == (before.shape, before.dtype)
            assert np.abs(after - before).max() > 0.01 * np.abs(before).max()
            if generator.kind == "permutation":
                assert np.array_equal(np.sort(after, None), np.sort(before, None))
