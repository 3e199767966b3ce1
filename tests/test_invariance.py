"""Findings speak of the function: moving the weights along a symmetry changes no finding but the names of its units."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import planting
import pytest
from test_planted import SHARED, ZOO, Found, found, params

from symlint.audit import audit
from symlint.edit import write
from symlint.finding import Finding, Level
from symlint.inference import Action, Structure, examine
from symlint.load import load
from symlint.rule import rules
from symlint.settings import Settings
from symlint.teleport import _derangements, select, teleport

FAST = {
    "mlp_relu", "mlp_batchnorm.raw", "mlp_tanh", "gated_reglu", "deep_sets", "dueling_dqn", "vgg13_bn.raw",
    "dcgan_generator", "gpt2", "actor_critic",
}  # fmt: skip
BASES = [p for p in ZOO if "." not in p.stem or p.stem in FAST]
EXACT = {"SYM101", "SYM102", "SYM201"}
NESTED = "equal heads and groups are only seen while their own units stand in the same order"
MOVED: dict[str, str] = {}
"""Networks in which a permutation changes a finding, and why."""
BOTH: dict[str, str] = {}
"""Networks in which a permutation and a rescaling together do."""


def findings(path: Path) -> list[Finding]:
    """The findings on units, notes included."""
    report = audit(str(path), rules(), Settings())
    assert not report.incomplete, report.incomplete
    return [f for f in report.findings if f.rule in EXACT]


def facts(finding: Finding) -> tuple[object, ...]:
    """All that a finding says, but for its fingerprint and its words."""
    told = {k: v for k, v in finding.facts.items() if k != "groups"}
    groups = sorted(sorted(g) for g in finding.facts.get("groups", []))
    return finding.rule, finding.level, finding.space, finding.units, finding.tensors, told, groups, finding.saves


def drawn(structure: Structure, seed: int, space: str) -> np.ndarray:
    """For every unit of a space, which unit stood there before all permutations of a teleportation."""
    factors = structure.axes.factors
    mine = structure.actions[f"{space}.permutation"]
    shape = (*(factors.size(c) for c in mine.copies), factors.size(mine.leaf))
    stood = np.arange(np.prod(shape)).reshape(shape)
    for name in select(structure, None, ["permutation"]):
        action = structure.actions[name]
        if action.leaf not in (mine.leaf, *mine.copies):
            continue
        order = _order(structure, action, name, seed)
        axis = mine.copies.index(action.leaf) if action.leaf in mine.copies else len(shape) - 1
        held = [mine.copies.index(c) for c in action.copies]  # the axes on which this permutation depends
        order = np.moveaxis(order, range(order.ndim), np.argsort(np.argsort([*held, axis])))
        for k in range(len(shape)):
            if k not in (*held, axis):
                order = np.expand_dims(order, k)
        stood = np.take_along_axis(stood, np.broadcast_to(order, shape), axis)
    return stood.reshape(-1)


def _order(structure: Structure, action: Action, name: str, seed: int) -> np.ndarray:
    factors = structure.axes.factors
    shape = (*(factors.size(c) for c in action.copies), factors.size(action.leaf))
    return _derangements(np.random.default_rng([seed, *name.encode()]), shape)


def relabelled(finding: Finding, stood: np.ndarray) -> tuple[object, ...]:
    """A finding in the names that its units have after a permutation."""
    now = np.argsort(stood)
    units = tuple(sorted(int(now[u]) for u in finding.units))
    rule, level, space, _, tensors, told, groups, saves = facts(finding)
    groups = sorted(sorted(int(now[u]) for u in g) for g in groups)
    return rule, level, space, units, tensors, told, groups, saves


def moved(path: Path, out: Path, kinds: list[str], seed: int) -> Structure:
    """Write the network at `path`, moved by random elements of all generators of some kinds."""
    _, structure = examine(load(str(path)))
    write(path, teleport(structure, select(structure, None, kinds), seed), out)
    return structure


def every_flaw(path: Path, out: Path) -> list[str]:
    """Write a copy of a network with all flaws that fit, each in a space of its own where there are enough."""
    there, taken, names = planting.network(path), set(), []
    whole = planting.Planting(there, there.sites[0]) if there.sites else None
    if whole is None:
        return []
    for name, kind in planting.FLAWS.items():
        rng = np.random.default_rng([*name.encode(), *path.stem.encode()])
        sites = [s for s in there.sites if not (s.roles.parts & taken) and kind.fits(there, s)]
        if sites:
            site = sites[int(rng.integers(len(sites)))]
            one = planting.Planting(there, site)
            one.values = whole.values
            kind.plant(one, rng)
            taken |= site.roles.parts
            names.append(name)
    whole.save(out)
    return names


@pytest.mark.corpus
@pytest.mark.parametrize("path", params(BASES, {}, FAST))
def test_rescaling_changes_no_finding(path, shared, tmp_path):
    """Same rules, levels, spaces, units, groups and numbers after every scale has moved, for several elements."""
    planted, out = tmp_path / "planted.onnx", tmp_path / "moved.onnx"
    if not every_flaw(path, planted):
        pytest.skip("no flaw fits")
    before = [facts(f) for f in findings(planted)]
    for seed in (0, 1, 2):
        moved(planted, out, ["rescaling"], seed)
        assert [facts(f) for f in findings(out)] == before


@pytest.mark.corpus
@pytest.mark.parametrize("path", params(BASES, MOVED, FAST))
def test_findings_follow_the_relabelling(path, shared, tmp_path):
    """After a permutation of every space the same findings name the same units by their new places."""
    follow(path, ["permutation"], tmp_path)


@pytest.mark.corpus
@pytest.mark.parametrize("path", params(BASES, MOVED | BOTH, FAST))
def test_findings_follow_when_everything_moves(path, shared, tmp_path):
    """The same with the scales moved as well."""
    follow(path, ["permutation", "rescaling"], tmp_path)


def follow(path: Path, kinds: list[str], tmp_path: Path) -> None:
    """Findings before and after moving a planted network, with the units of the first in their new names."""
    planted, out = tmp_path / "planted.onnx", tmp_path / "moved.onnx"
    if not every_flaw(path, planted):
        pytest.skip("no flaw fits")
    before = findings(planted)
    for seed in (3, 4):
        structure = moved(planted, out, kinds, seed)
        want = [relabelled(f, drawn(structure, seed, f.space or "")) for f in before]
        assert [facts(f) for f in findings(out)] == want


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["superres-subpixel-cnn", "tanh-mlp-tf2onnx", "mjx-g1-policy"])
def test_findings_on_trained_networks_are_invariant(name, shared, tmp_path):
    """What others' networks are told stays after their weights have moved."""
    path, out = SHARED / "models" / f"{name}.onnx", tmp_path / "moved.onnx"
    before = findings(path)
    assert before
    structure = moved(path, out, ["permutation", "rescaling"], 5)
    assert [facts(f) for f in findings(out)] == [relabelled(f, drawn(structure, 5, f.space or "")) for f in before]


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["gpt2", "vgg13_bn.raw"])
def test_the_planted_flaws_are_what_is_compared(name, shared, tmp_path):
    """The comparison is not of nothing: the planted networks have findings of every rule."""
    planted = tmp_path / "planted.onnx"
    count = len(every_flaw(SHARED / "zoo" / f"{name}.onnx", planted))
    told: Found = found(planted)
    assert len(told) == count > 2
    assert all(f.level > Level.NOTE for f in findings(planted))
