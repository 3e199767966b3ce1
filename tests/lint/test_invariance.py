"""Findings speak of the function: moving the weights along a symmetry changes no finding but the names of its units."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import planting
import pytest
from corpora import ROOT
from test_planted import SHARED, ZOO, Found, found, normal, params, written
from turned_networks import MODULATED

from symlint.audit.engine import audit
from symlint.lint.finding import Finding, Level
from symlint.lint.rule import rules
from symlint.lint.settings import Settings
from symlint.model.load import load
from symlint.model.saving import write
from symlint.repair.fixing import Wish, fix
from symlint.symmetry.inference import examine
from symlint.symmetry.motion.teleport import select, teleport
from symlint.symmetry.structure import Structure

FAST = {
    "mlp_relu", "mlp_batchnorm.raw", "mlp_tanh", "gated_reglu", "deep_sets", "dueling_dqn", "vgg13_bn.raw",
    "dcgan_generator", "gpt2", "actor_critic",
}  # fmt: skip
BASES = [p for p in ZOO if "." not in p.stem or p.stem in FAST]
MANY = [p for k, p in enumerate(BASES) if p.stem in FAST or k % 3 == 0]
SOME = [p for k, p in enumerate(BASES) if p.stem in FAST or k % 9 == 0]
"""Enough for one kind alone, as many see every kind at once."""
EXACT = {"SYM101", "SYM102", "SYM104", "SYM201", "SYM203", "SYM204", "SYM205", "SYM301", "SYM302", "SYM303"}
RANKS = ("ranks", "bounds")
"""Facts with a number per copy."""
MIXED = {"SYM301", "SYM302", "SYM303"}
"""Rules whose units are copies of a space."""
GAUGE = ("groups", "kept", "dropped", "tolerance", *RANKS)
"""Facts that are told apart from the others, or that follow the noise."""
KINDS = ["rescaling", "sign", "rotation", "permutation", "translation"]
NESTED = "equal heads and groups are only seen while their own units stand in the same order"


def findings(path: Path) -> list[Finding]:
    """The findings on units, notes included."""
    report = audit(str(path), [rule for rule in rules() if rule.code in EXACT], Settings())
    assert not report.incomplete, report.incomplete
    return [f for f in report.findings if f.evidence == "exact"]


def facts(finding: Finding) -> tuple[object, ...]:
    """All that a finding says, but for its fingerprint and its words."""
    told = {k: v for k, v in finding.facts.items() if k not in GAUGE}
    groups = sorted(sorted(g) for g in finding.facts.get("groups", []))
    ranks = [list(finding.facts[k]) for k in RANKS if k in finding.facts]
    return (
        finding.rule,
        finding.level,
        finding.space,
        finding.units,
        finding.tensors,
        told,
        groups,
        ranks,
        finding.saves,
    )


def drawn(structure: Structure, seed: int, finding: Finding) -> np.ndarray:
    """For every unit that a finding may name, which unit stood there before all permutations of a teleportation."""
    factors = structure.axes.factors
    mine = structure.actions[f"{finding.space}.permutation"]
    leaves = (*mine.copies,) if finding.rule in MIXED else (*mine.copies, mine.leaf)
    shape = tuple(factors.size(x) for x in leaves)
    stood = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    for name in select(structure, None, ["permutation"]):
        action = structure.actions[name]
        if action.leaf not in leaves:
            continue
        order = action.draw(structure, None, np.random.default_rng([seed, *name.encode()]))
        axis = leaves.index(action.leaf)
        held = [leaves.index(c) for c in action.copies]  # the axes on which this permutation depends
        order = np.moveaxis(order, range(order.ndim), np.argsort(np.argsort([*held, axis])))
        for k in range(len(shape)):
            if k not in (*held, axis):
                order = np.expand_dims(order, k)
        stood = np.take_along_axis(stood, np.broadcast_to(order, shape), axis)
    return stood.reshape(-1)


def relabelled(finding: Finding, stood: np.ndarray) -> tuple[object, ...]:
    """A finding in the names that its units have after a permutation."""
    now = np.argsort(stood)
    units = [int(now[u]) for u in finding.units]
    rule, level, space, _, tensors, told, groups, ranks, saves = facts(finding)
    groups = sorted(sorted(int(now[u]) for u in g) for g in groups)
    if units and ranks:
        ranks = [[row[k] for k in np.argsort(units)] for row in ranks]
    return rule, level, space, tuple(sorted(units)), tensors, told, groups, ranks, saves


def moved(path: Path, out: Path, kinds: list[str], seed: int) -> Structure:
    """Write the network at `path`, moved by random elements of all generators of some kinds."""
    _, structure = examine(Settings().with_states(load(str(path))))
    write(path, teleport(structure, select(structure, None, kinds), seed), out)
    return structure


EVERY = planting.FLAWS | planting.TWINS


def every_flaw(path: Path, out: Path, flaws: dict[str, planting.Flaw] = EVERY) -> list[str]:
    """Write a copy of a network with all flaws that fit, each in a space of its own where there are enough."""
    there, taken, names = planting.network(path), set(), []
    whole = planting.Planting(there)
    for name, kind in flaws.items():
        rng = np.random.default_rng([*name.encode(), *path.stem.encode()])
        sites = [s for s in there.sites if not (s.roles.parts & taken) and kind.fits(there, s)]
        if sites:
            site = sites[int(rng.integers(len(sites)))]
            one = planting.Planting(there, site)
            one.values = whole.values
            kind.plant(one, rng)
            taken |= site.roles.parts
            names.append(name)
    for rule in sorted(MIXED):
        for mixture in [m for m in there.mixtures if m.rule == rule]:
            parts = {n for side in (1, -1) for n, _ in there.lines(mixture.action, side)}
            if not parts & taken:
                rng = np.random.default_rng([*rule.encode(), *path.stem.encode()])
                whole.lower(mixture, int(rng.integers(mixture.copies)), int(rng.integers(1, mixture.bound)), rng)
                taken |= parts
                names.append(rule)
                break
    whole.save(out)
    return names


def still(path: Path, kind: str, tmp_path: Path, flaws: dict[str, planting.Flaw] = EVERY) -> None:
    """Findings before and after moving a planted network, where the units stay in place."""
    planted, out = tmp_path / "planted.onnx", tmp_path / "moved.onnx"
    if not every_flaw(path, planted, flaws):
        pytest.skip("no flaw fits")
    before = [facts(f) for f in findings(planted)]
    for seed in (0, 1, 2):
        moved(planted, out, [kind], seed)
        assert [facts(f) for f in findings(out)] == before


@pytest.mark.corpus
@pytest.mark.parametrize("path", params(SOME, {}, FAST))
def test_rescaling_changes_no_finding(path, shared, tmp_path):
    """Same rules, levels, spaces, units, groups and numbers after every scale has moved, for several elements."""
    still(path, "rescaling", tmp_path)


@pytest.mark.corpus
@pytest.mark.parametrize("path", params(SOME, {}, FAST))
def test_signs_change_no_finding(path, shared, tmp_path):
    """The same after half of the units that a sign may change have changed it."""
    still(path, "sign", tmp_path)


@pytest.mark.corpus
@pytest.mark.parametrize("path", params(SOME, {}, FAST))
def test_a_change_of_basis_changes_no_finding(path, shared, tmp_path):
    """The same in another basis of every linear space, and of every stream that norms let turn."""
    still(path, "rotation", tmp_path, EVERY | planting.ROUND)


@pytest.mark.corpus
@pytest.mark.parametrize("path", params(SOME, {}, FAST))
def test_findings_follow_the_relabelling(path, shared, tmp_path):
    """After a permutation of every space the same findings name the same units by their new places."""
    follow(path, ["permutation"], tmp_path)


@pytest.mark.corpus
@pytest.mark.parametrize("path", params(MANY, {}, FAST))
def test_findings_follow_when_everything_moves(path, shared, tmp_path):
    """The same with the scales, the signs and the bases moved as well."""
    follow(path, KINDS, tmp_path, EVERY | planting.ROUND)


@pytest.mark.corpus
@pytest.mark.parametrize("path", params(SOME, {}, FAST))
def test_translations_change_no_finding(path, shared, tmp_path):
    """The same after biases have gone into others, and weights along what a norm or a softmax takes away again."""
    still(path, "translation", tmp_path, EVERY | planting.ROUND)


@pytest.mark.corpus
@pytest.mark.parametrize("path", params(MANY, {}, FAST))
def test_ranks_follow_when_everything_moves(path, shared, tmp_path):
    """What another bias takes over, and the null direction of a norm, is no part of a rank."""
    follow(path, KINDS, tmp_path, {})


@pytest.mark.corpus
def test_multiples_with_biases_are_seen_in_half_precision(shared, tmp_path):
    """Another gauge rounds a bias beside its row: by more there than in float32."""
    follow(SHARED / "zoo" / "resnet18.fp16.onnx", KINDS, tmp_path)


def follow(path: Path, kinds: list[str], tmp_path: Path, flaws: dict[str, planting.Flaw] = EVERY) -> None:
    """Findings before and after moving a planted network, with the units of the first in their new names."""
    planted, out = tmp_path / "planted.onnx", tmp_path / "moved.onnx"
    if not every_flaw(path, planted, flaws):
        pytest.skip("no flaw fits")
    before = findings(planted)
    for seed in (3, 4):
        structure = moved(planted, out, kinds, seed)
        want = [relabelled(f, drawn(structure, seed, f)) for f in before]
        assert [facts(f) for f in findings(out)] == want


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["superres-subpixel-cnn", "mjx-g1-policy"])
def test_findings_on_trained_networks_are_invariant(name, shared, tmp_path):
    """What others' networks are told stays after their weights have moved."""
    path, out = SHARED / "models" / f"{name}.onnx", tmp_path / "moved.onnx"
    before = findings(path)
    assert before
    structure = moved(path, out, KINDS, 5)
    assert [facts(f) for f in findings(out)] == [relabelled(f, drawn(structure, 5, f)) for f in before]


NORMS = {
    "a LayerNorm without a bias": (
        ("g (float[n,5,8] x) => (float[n,5,3] y) { s = LayerNormalization(x, g) a = MatMul(s, w) h = Tanh(a)"
        " m = MatMul(h, v) r = Add(m, x) t = LayerNormalization(r, k) y = MatMul(t, u) }"),
        {"g": (8,), "w": (8, 12), "v": (12, 8), "k": (8,), "u": (8, 3)},
    ),
    "LayerNorms behind sums": (
        ("g (float[n,5,6] x) => (float[n,5,3] y) { e = MatMul(x, i) s = LayerNormalization(e, g, d) a = MatMul(s, w)"
        " f = Add(a, b) h = Relu(f) m = MatMul(h, v) o = Add(m, c) r = Add(o, s) t = LayerNormalization(r, k, l)"
        " z = MatMul(t, u) y = Add(z, q) }"),
        {
            "i": (6, 8), "g": (8,), "d": (8,), "w": (8, 12), "b": (12,), "v": (12, 8), "c": (8,), "k": (8,), "l": (8,),
            "u": (8, 3), "q": (3,),
        },
    ),
    "instances of convolutions": (
        ("g (float[n,4,9,9] x) => (float[n,3,5,5] y) { a = Conv(x, w, b) s = InstanceNormalization(a, g, c) h = Relu(s)"
        " y = Conv(h, v, d) }"),
        {"w": (12, 4, 3, 3), "b": (12,), "g": (12,), "c": (12,), "v": (3, 12, 3, 3), "d": (3,)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NORMS)
def test_norms_hide_no_flaw_in_any_gauge(name, tmp_path):
    """Biases that a norm takes away, directions that it does not see, with and without biases of its own."""
    text, shapes = NORMS[name]
    follow(written(tmp_path / "norms.onnx", text, **{k: normal(*n) for k, n in shapes.items()}), KINDS, tmp_path)


PINNED_GAUGE = {"SYM014", "SYM016"}
"""Rules that speak of the values that are stored: whether a tensor is as it was begun, or is a copy."""
FLAGGED = [
    rule for rule in rules() if rule.evidence == "exact" and not rule.on_failure and rule.code not in PINNED_GAUGE
]


@pytest.mark.parametrize("rule", FLAGGED, ids=lambda rule: rule.code)
def test_every_exact_rule_says_the_same_after_translations(rule, tmp_path):
    """On the example of its manual page."""
    path, out = tmp_path / "flagged.onnx", tmp_path / "moved.onnx"
    text = ROOT / "fixtures" / "rules" / f"{rule.code}.flagged.txt"
    if not text.exists():
        pytest.skip("its example is no network")
    onnx.save(onnx.parser.parse_model(text.read_text()), path)
    before = audit(str(path), [rule], Settings()).findings
    moved(path, out, ["translation"], 1)
    assert [facts(f) for f in audit(str(out), [rule], Settings()).findings] == [facts(f) for f in before]


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["gpt2", "lora_linear", "vgg13_bn.raw"])
def test_a_fix_takes_away_the_same_in_every_gauge(name, shared, tmp_path):
    """What is seen only of settled weights is settled before it goes."""
    planted, out = tmp_path / "planted.onnx", tmp_path / "moved.onnx"
    assert every_flaw(shared / "zoo" / f"{name}.onnx", planted)
    moved(planted, out, ["translation"], 0)
    done = []
    for path in (planted, out):
        folder = tmp_path / path.stem
        folder.mkdir()
        fixed = fix(str(path), folder, Wish([rule for rule in rules() if rule.repair and rule.repair != "drop"]))
        assert fixed.proof is not None
        assert fixed.proof.outcome == "held"
        done.append(sorted((one.rule, one.where, one.removed) for one in fixed.done))
    assert done[0] == done[1] != []


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["gpt2", "vgg13_bn.raw"])
def test_the_planted_flaws_are_what_is_compared(name, shared, tmp_path):
    """The comparison is not of nothing: the planted networks have findings of every rule."""
    planted = tmp_path / "planted.onnx"
    count = len(every_flaw(SHARED / "zoo" / f"{name}.onnx", planted))
    told: Found = found(planted)
    assert len(told) == count > 2
    assert all(f.level > Level.NOTE for f in findings(planted))


CONDITION = 6
"""Numbers that tell a modulated layer its scales: enough that two rows are not alike by chance."""
UNITS: dict[str, dict[str, tuple[int, list[int]]]] = {
    "modulated": {"a": (1, [0]), "p": (0, [0]), "b": (1, [0]), "q": (0, [0]), "c": (1, [0]), "r": (0, [0])},
    "modulated_tokens": {"a": (1, [0]), "p": (0, [0]), "b": (0, [0, 4]), "q": (0, [0, 4])},
    "modulated_channels": {"a": (0, [0]), "p": (0, [0]), "b": (1, [0]), "q": (0, [0])},
}
"""Small networks with a layer that is modulated: weight -> the axis of its units, and where these begin."""


@pytest.mark.parametrize("name", UNITS)
def test_equal_units_of_a_modulated_layer_in_every_gauge(name, tmp_path):
    """A scale that is one more than a bias says is multiplied as a whole: multiples of it are not those of the bias."""
    net = MODULATED[name]
    wide = {w: tuple(CONDITION if n == 2 and w in "bc" else n for n in shape) for w, shape in net.weights.items()}
    net = replace(net, weights=wide, inputs={**net.inputs, "z": (CONDITION,)})
    values = net.values()
    for weight, (axis, starts) in UNITS[name].items():
        units = np.moveaxis(values[weight], axis, 0)
        for start in starts:
            units[start + 1] = units[start]
    onnx.save(net.model("float32", values), tmp_path / "equal.onnx")
    assert [(rule, units) for rule, _, units, _ in found(tmp_path / "equal.onnx")] == [("SYM201", [0, 1])]
    structure = examine(load(str(tmp_path / "equal.onnx")))[1]
    for seed in range(3):
        moved = teleport(structure, select(structure, None, ["rescaling", "sign"]), seed)
        write(tmp_path / "equal.onnx", moved, tmp_path / "moved.onnx")
        assert [(rule, units) for rule, _, units, _ in found(tmp_path / "moved.onnx")] == [("SYM201", [0, 1])]
