"""Heads, experts, branches and classes: what is planted in published networks is told, in every gauge, and repaired."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

import numpy as np
import onnx
import planting
import pytest
import written
from click.testing import CliRunner
from test_confirmed import NOISE, Trial
from test_every_rule import FIXTURES
from test_planted import SHARED

from symlint.audit.engine import audit
from symlint.cli.main import cli
from symlint.lint.finding import Finding
from symlint.lint.rule import rules
from symlint.lint.settings import Settings
from symlint.model.graph import Array
from symlint.model.load import load
from symlint.model.saving import write
from symlint.runtime.verify import same_function
from symlint.symmetry.actions.permutation import UnitPermutation
from symlint.symmetry.inference import examine
from symlint.symmetry.motion.membership import members
from symlint.symmetry.motion.teleport import select, teleport
from symlint.symmetry.structure import Action, Structure

pytestmark = pytest.mark.usefixtures("no_clock")

ZOO = SHARED / "zoo"
CODES = {"SYM101", "SYM102", "SYM104", "SYM201", "SYM203", "SYM204", "SYM205", "SYM206"}
HEADS = [
    "bert", "vit_timm", "gpt2", "llama", "mistral", "swin_torchvision", "t5", "whisper", "pvt_v2", "xcit", "clip",
    "bart", "bert.ort_transformer", "gpt2.fp16",
]  # fmt: skip
GROUPS = ["resnext"]
EXPERTS = ["mixture_of_experts_dense", "mixtral"]
BRANCHES = {
    "residual": ["resnet18", "mobilenet_v2", "convnext"],
    "attention": ["bert", "gpt2", "vit_timm"],
    "gated": ["llama", "gated_swiglu"],
    "recurrent": ["lstm", "rnn_relu"],
    "plain": ["vgg13_bn", "mlp_gelu"],
}
KINDS = ["rescaling", "sign", "rotation", "permutation"]
"""What leaves a zero where it is: along directions that a normalisation does not see, weights may be anything."""
CLASSES = ["resnet18", "vit_timm", "mobilenet_v2", "gpt2", "lstm", "bert_masked_lm"]


def params(names: Sequence[str], quick: int) -> list[object]:
    """All of them, but only the first few in every run."""
    return [n if k < quick else pytest.param(n, marks=pytest.mark.slow) for k, n in enumerate(names)]


def findings(path: Path) -> list[Finding]:
    report = audit(str(path), [r for r in rules() if r.code in CODES], Settings(select=tuple(CODES)))
    assert not report.incomplete, report.incomplete
    return [f for f in report.findings if f.rule in CODES]


class Garden:
    """A network in whose bundles something is planted."""

    def __init__(self, name: str) -> None:
        self.path = ZOO / f"{name}.onnx"
        self.network = planting.Network(self.path)
        self.structure = self.network.structure
        self.values: dict[str, Array] = {}

    @property
    def bundles(self) -> list[Action]:
        """The permutations of units that are made of units of others."""
        actions = self.structure.actions.values()
        made = {c for action in actions for c in action.copies if action.kind == "permutation"}
        return [a for a in actions if isinstance(a, UnitPermutation) and a.leaf in made and not a.copies]

    def rows(self, action: Action) -> Iterator[tuple[str, Array, Array]]:
        """Every weight that holds units: its name in the program, its values, and the places of each unit."""
        program, of = self.network.program, self.network.axes
        for name, stored in program.weights.items():
            if self.network.holds(name, action.leaf):
                values = self.values.get(stored, program.model.tensors[stored].read())
                places = members(self.structure, action, of[name], values.shape)
                assert places is not None
                yield name, values, places

    def put(self, name: str, values: Array) -> None:
        self.values[self.network.program.weights[name]] = values

    def copied(self, action: Action, one: int, other: int, multiple: float = 1.0) -> None:
        """A unit becomes another, what reads it times a multiple."""
        readers = {name for name, _ in self.network.roles(action).readers}
        for name, values, places in list(self.rows(action)):
            flat = values.reshape(-1).copy()
            flat[places[other]] = flat[places[one]] * (multiple if name in readers else 1)
            self.put(name, flat.reshape(values.shape))

    def silenced(self, action: Action, units: Sequence[int], small: float = 0.0) -> None:
        """Nothing but numbers as small as this reads some units."""
        readers = {name for name, _ in self.network.roles(action).readers}
        assert readers
        for name, values, places in list(self.rows(action)):
            if name in readers:
                flat = values.reshape(-1).copy()
                for unit in units:
                    flat[places[unit]] *= small
                self.put(name, flat.reshape(values.shape))

    def written(self, out: Path) -> Path:
        write(self.path, self.values, out)
        return out


def moved(path: Path, spared: str, seed: int, out: Path, kinds: Sequence[str] | None = None) -> Path:
    """The file in another gauge of everything, or of some kinds, but for the order of some units."""
    structure: Structure = examine(load(str(path)))[1]
    write(path, teleport(structure, [n for n in select(structure, None, kinds) if n != spared], seed), out)
    return out


NORMS = {
    "LayerNormalization": "n{0} = LayerNormalization <axis = -1> (p{0}, gain)",
    "SimplifiedLayerNormalization": "n{0} = SimplifiedLayerNormalization <axis = -1> (p{0}, gain)",
    "LpNormalization": "n{0} = LpNormalization <axis = -1, p = 2> (p{0})",
    "decomposed": "s{0} = Mul (p{0}, p{0}) m{0} = ReduceMean <axes = [-1]> (s{0}) r{0} = Sqrt (m{0}) "
    "n{0} = Div (p{0}, r{0})",
    "Softmax": "n{0} = Softmax <axis = -1> (p{0})",
}


@pytest.mark.parametrize("heads", [2, 4])
@pytest.mark.parametrize("norm", NORMS)
def test_a_norm_over_all_heads_is_no_router(norm, heads, tmp_path):
    """What is divided among heads are their units, not tokens: no head is an expert."""
    rng, wide = np.random.default_rng(heads), 8
    stored = {f"w{name}": rng.normal(size=(wide, wide)) for name in "qkvo"}
    stored |= {"gain": np.ones(wide), "apart": np.array([0, 0, heads, wide // heads]), "whole": np.array([0, 0, wide])}
    stored |= {"a": rng.normal(size=(wide, 12)), "b": rng.normal(size=(12, 5))}
    text = " ".join(f"p{name} = MatMul (x, w{name})" for name in "qkv")
    text += " ".join(["", *(NORMS[norm].format(name) for name in "qk"), "nv = Identity (pv) "])
    text += " ".join(f"h{name} = Reshape (n{name}, apart)" for name in "qkv")
    text += """
        tq = Transpose <perm = [0, 2, 1, 3]> (hq) tk = Transpose <perm = [0, 2, 3, 1]> (hk)
        tv = Transpose <perm = [0, 2, 1, 3]> (hv) scores = MatMul (tq, tk) share = Softmax <axis = -1> (scores)
        mixed = MatMul (share, tv) back = Transpose <perm = [0, 2, 1, 3]> (mixed) flat = Reshape (back, whole)
        o = MatMul (flat, wo) stream = Add (x, o) u = MatMul (stream, a) g = Relu (u) y = MatMul (g, b)
    """
    assert written.told(written.written(tmp_path / "m.onnx", text, stored, ("n", 5, wide), ("n", 5, 5))) == []


# -- heads and groups ------------------------------------------------------------------------------------------------
@pytest.mark.corpus
@pytest.mark.parametrize("name", params([*HEADS, *GROUPS], 6))
def test_planted_heads_are_told_in_every_gauge(name, shared, tmp_path):
    """The last head is made the first one's multiple: that is told and nothing else, also after a random gauge."""
    garden = Garden(name)
    action = garden.bundles[0]
    last = garden.network.factors.size(action.leaf) - 1
    garden.copied(action, 0, last, -1.5)
    path = garden.written(tmp_path / "planted.onnx")
    for file in (path, moved(path, action.id, 1, tmp_path / "moved.onnx")):
        (found,) = findings(file)
        assert (found.rule, found.space, found.units) == ("SYM204", action.space, (0, last))
        assert found.facts["groups"] == [[0, last]]
        assert found.facts["multiples"][0] == pytest.approx([1.0, -1.5], rel=1e-2 if "fp16" in name else 1e-4)


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_what_is_almost_a_head_is_no_twin(name, shared, tmp_path):
    """One weight in a thousand of a head off by a thousandth."""
    garden = Garden(name)
    action = garden.bundles[0]
    garden.copied(action, 0, 3)
    for weight, values, places in list(garden.rows(action)):
        flat = values.reshape(-1).copy()
        flat[places[3][::1000]] *= 1.001
        garden.put(weight, flat.reshape(values.shape))
    assert findings(garden.written(tmp_path / "planted.onnx")) == []


@pytest.mark.slow
@pytest.mark.corpus
@pytest.mark.parametrize(
    ("name", "gauge"),
    [
        ("vit_timm", "plain"),
        ("mistral", "plain"),
        ("gpt2", "moved"),
        ("llama", "moved"),
        ("swin_torchvision", "moved"),
        ("resnext", "moved"),
        ("bert", "moved"),
        ("xcit", "moved"),
    ],
)
def test_twins_are_merged(name, gauge, shared, tmp_path):
    """One of two equal heads is left, and the outputs stay."""
    garden = Garden(name)
    action = garden.bundles[0]
    last = garden.network.factors.size(action.leaf) - 1
    garden.copied(action, 0, last, 0.5)
    path = garden.written(tmp_path / "planted.onnx")
    path = moved(path, action.id, 1, tmp_path / "moved.onnx") if gauge == "moved" else path
    repaired(path, "SYM204", 1, tmp_path)


def repaired(path: Path, code: str, units: int, folder: Path) -> None:
    """What `symlint fix` makes of one rule."""
    out = folder / "fixed.onnx"
    result = CliRunner().invoke(cli, ["fix", str(path), "-o", str(out), "--select", code, "--format", "json"])
    assert result.exit_code == 0, result.output
    made = json.loads(result.stdout)["repairs"]
    assert {one["rule"] for one in made} == {code}
    assert sum(one["removed"] for one in made) == units
    assert same_function(load(str(path)), load(str(out))).difference < 1e-5
    assert not [f for f in findings(out) if f.rule == code]


# -- experts ---------------------------------------------------------------------------------------------------------
@pytest.mark.corpus
@pytest.mark.parametrize("name", EXPERTS)
def test_planted_experts_are_told_in_every_gauge(name, shared, tmp_path):
    """Whether the router tells them apart is told as well."""
    garden = Garden(name)
    action = next(a for a in garden.bundles if garden.network.factors.size(a.leaf) == 4)
    garden.copied(action, 1, 2)
    path = garden.written(tmp_path / "planted.onnx")
    for file in (path, moved(path, action.id, 1, tmp_path / "moved.onnx")):
        (found,) = findings(file)
        assert (found.rule, found.units, found.facts["groups"]) == ("SYM205", (1, 2), [[1, 2]])
        assert found.facts["routed"] == [True]
        assert "router" in found.message


# -- branches and dead heads -----------------------------------------------------------------------------------------
@pytest.mark.corpus
@pytest.mark.parametrize("name", params([*HEADS, *GROUPS], 4))
def test_dead_heads_are_told(name, shared, tmp_path):
    """Nothing reads the second head: SYM104 says so, and no other rule speaks of what is in it."""
    garden = Garden(name)
    action = garden.bundles[0]
    garden.silenced(action, [1])
    path = garden.written(tmp_path / "planted.onnx")
    for file in (path, moved(path, action.id, 1, tmp_path / "moved.onnx", KINDS)):
        (found,) = findings(file)
        assert (found.rule, found.space, found.units) == ("SYM104", action.space, (1,))
        assert str(found.level) == "warning"


def inner(garden: Garden) -> Action:
    """The permutation of a space of units that are no bundles: all of it will be dead."""
    site = next(s for s in reversed(garden.network.sites) if s.roles.readers)
    return site.action


@pytest.mark.corpus
@pytest.mark.parametrize("how", ["zero", "decayed"])
@pytest.mark.parametrize("name", params([name for row in zip_longest(*BRANCHES.values()) for name in row if name], 5))
def test_dead_branches_are_told(name, how, shared, tmp_path):
    """What zeros close is a note, as an initialisation at zero is; what decay closed is a warning."""
    garden = Garden(name)
    action = inner(garden)
    count = int(np.prod([garden.network.factors.size(x) for x in (*action.copies, action.leaf)]))
    garden.silenced(action, range(count), 0.0 if how == "zero" else 1e-39)
    path = garden.written(tmp_path / "planted.onnx")
    for file in (path, moved(path, "", 1, tmp_path / "moved.onnx", KINDS)):
        found = [f for f in findings(file) if f.rule == "SYM104"]
        assert [f for f in findings(file) if f.rule != "SYM104"] == []
        assert action.space in {space for f in found for space in f.facts.get("spaces", [f.space])}
        assert {str(f.level) for f in found} == {"note" if how == "zero" else "warning"}
        assert {f.facts["closed_by"] for f in found} == {"start" if how == "zero" else "weights"}


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["resnet18", "gpt2", "lstm"])
def test_what_is_in_a_dead_branch_may_be_anything(name, shared, tmp_path):
    """Random numbers in what the finding names, but for what it shares with others, leave the outputs."""
    garden = Garden(name)
    action = inner(garden)
    count = int(np.prod([garden.network.factors.size(x) for x in (*action.copies, action.leaf)]))
    garden.silenced(action, range(count))
    path = garden.written(tmp_path / "planted.onnx")
    trial = Trial(path, tmp_path)
    rng = np.random.default_rng(0)
    for found in findings(path):
        for space in found.facts["spaces"]:
            site = trial.site(space)
            edit = planting.Planting(trial.network, site)
            edit.change(
                site.roles.own - site.roles.readers,
                lambda old, own: np.where(own >= 0, rng.normal(size=old.shape), old),
            )
            assert trial.difference(edit.values) <= NOISE


@pytest.mark.slow
@pytest.mark.corpus
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "gpt2", "llama", "convnext"])
def test_dead_branches_go(name, shared, tmp_path):
    """With all their weights, and nothing is left to say."""
    garden = Garden(name)
    action = inner(garden)
    count = int(np.prod([garden.network.factors.size(x) for x in (*action.copies, action.leaf)]))
    garden.silenced(action, range(count))
    path = garden.written(tmp_path / "planted.onnx")
    out = tmp_path / "fixed.onnx"
    result = CliRunner().invoke(cli, ["fix", str(path), "-o", str(out), "--select", "SYM104", "--format", "json"])
    assert result.exit_code == 0, result.output
    # Where all ways to the outputs are dead, they answer to no input, and two networks cannot be told apart.
    tried = same_function(load(str(path)), load(str(out)))
    assert tried.outcome != "refuted"
    assert (tried.difference or 0.0) < 1e-5


@pytest.mark.slow
@pytest.mark.corpus
@pytest.mark.parametrize("name", ["vit_timm", "gpt2", "llama", "mistral", "bert", "swin_torchvision"])
def test_dead_heads_go(name, shared, tmp_path):
    garden = Garden(name)
    garden.silenced(garden.bundles[0], [1])
    repaired(garden.written(tmp_path / "planted.onnx"), "SYM104", 1, tmp_path)


# -- classes ---------------------------------------------------------------------------------------------------------
@pytest.mark.corpus
@pytest.mark.parametrize("name", params(CLASSES, 3))
def test_planted_classes_are_told_in_every_gauge(name, shared, tmp_path):
    """Class 4 is made class 1."""
    garden = Garden(name)
    program, of, factors = garden.network.program, garden.network.axes, garden.network.factors
    (leaf,) = factors.leaves(of[program.outputs[0]][-1])
    for weight, stored in program.weights.items():
        for axis, f in enumerate(of[weight]):
            if list(factors.leaves(f)) == [leaf]:
                values = garden.values.get(stored, program.model.tensors[stored].read()).copy()
                lines = np.moveaxis(values, axis, 0)
                lines[4] = lines[1]
                garden.put(weight, values)
    path = garden.written(tmp_path / "planted.onnx")
    for file in (path, moved(path, "", 1, tmp_path / "moved.onnx", KINDS)):
        (found,) = [f for f in findings(file) if f.rule == "SYM206"]
        assert (found.units, found.facts["groups"], found.facts["axis"]) == (
            (1, 4),
            [[1, 4]],
            len(of[program.outputs[0]]) - 1,
        )


# -- what is small enough for every run -------------------------------------------------------------------------------
@pytest.mark.parametrize(("code", "units"), [("SYM104", 7), ("SYM204", 1)])
def test_the_fixtures_are_repaired(code, units, tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(onnx.parser.parse_model((FIXTURES / f"{code}.flagged.txt").read_text()), path)
    repaired(path, code, units, tmp_path)
