"""What the exact rules say is tried in onnxruntime: the unit is edited away and the outputs stay."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import planting
import pytest
from test_planted import SHARED

from symlint.audit.engine import audit
from symlint.lint.finding import Finding
from symlint.lint.rule import rules
from symlint.lint.settings import Settings
from symlint.model.graph import Array
from symlint.model.saving import rewrite
from symlint.program.steps import Einsum
from symlint.runtime.probe import feeds, save_lifted
from symlint.runtime.runner import run
from symlint.runtime.verify import compare

MODELS = sorted((SHARED / "models").rglob("*.onnx"))
EXACT = {"SYM101", "SYM102", "SYM104", "SYM201", "SYM203"}
PRODUCTS = {"SYM301", "SYM302", "SYM303"}
NOISE = 2e-6
"""Of the largest output: what the order of float32 sums changes."""
LARGEST = 40_000_000
PLANTED = [
    "mlp_relu",
    "mlp_batchnorm.raw",
    "vgg13_bn.raw",
    "resnet18",
    "gpt2",
    "rnn_relu",
    "gated_reglu",
    "dcgan_generator",
]


class Trial:
    """A model on inputs on which it runs, and edits of it."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.network, self.folder = planting.Network(path), folder
        plain = self._file({}, "plain")
        for inputs in feeds(self.network.program.model, 0):
            answer = run([plain], inputs)[0]
            if answer.failure is None and all(np.isfinite(y).all() for y in answer.outputs if y.dtype.kind == "f"):
                self.inputs, self.outputs = inputs, answer.outputs
                return
        pytest.skip(f"not runnable: {answer.failure}")

    def _file(self, values: dict[str, Array], name: str) -> Path:
        out = self.folder / f"{name}.onnx"
        save_lifted(rewrite(self.network.path, values), out)
        return out

    def difference(self, values: dict[str, Array]) -> float:
        """How far new weights move the outputs, relative to the largest."""
        return compare(self.outputs, run([self._file(values, "edited")], self.inputs)[0])

    def site(self, space: str) -> planting.Site:
        """A space with the roles of its tensors."""
        found = next(s for s in self.network.symmetry.spaces if s.id == space)
        action = self.network.structure.permutation(space)
        return planting.Site(found, action, self.network.roles(action))

    def removed(self, site: planting.Site, units: list[int]) -> dict[str, Array]:
        """The units without any weight."""
        edit = planting.Planting(self.network, site)
        edit.put(site.roles.own | site.roles.readers, units, 0.0)
        return edit.values

    def scrambled(self, site: planting.Site, units: list[int]) -> dict[str, Array]:
        """The units that nothing reads write, and those that nothing writes are read by, random numbers."""
        rng, roles = np.random.default_rng(0), site.roles
        edit = planting.Planting(self.network, site)
        for places, others in (
            (roles.readers, roles.writers | roles.adders),
            (roles.writers | roles.adders, roles.readers),
        ):
            silent = [u for u in units if self.silent(site, places, u)]
            edit.change(
                others, lambda old, own, s=silent: np.where(np.isin(own, s), 0.1 * rng.standard_normal(old.shape), old)
            )
        return edit.values

    def silent(self, site: planting.Site, places: set[planting.Place], unit: int) -> bool:
        """Whether all elements of a unit at some places are nothing."""
        return bool(places) and all(
            np.all(np.abs(self.network.read(p[0])[own == unit].astype(np.float64)) < 1e-30)
            for p in places
            for own in self.network.elements(site, p)
        )

    def merged(self, site: planting.Site, group: list[int]) -> dict[str, Array]:
        """One unit of a group reads for all: the others' readers, times their multiple, are added to its own."""
        first, edit = group[0], planting.Planting(self.network, site)
        for unit in group[1:]:
            factor = self.factor(site, first, unit)

            def fill(old: Array, own: Array, unit: int = unit, factor: float = factor) -> Array:
                new = old.astype(np.float64)
                new[own == first] += new[own == unit] * factor
                return np.where(own == unit, 0.0, new)

            edit.change(site.roles.readers, fill)
        edit.put(site.roles.writers, group[1:], 0.0)
        return edit.values

    def factor(self, site: planting.Site, first: int, unit: int) -> float:
        """How many times the first unit's last writer row another's is, behind a normalisation if there is one."""
        rows = {}
        for u in (first, unit):
            parts = [
                self.network.read(p[0])[own == u].astype(np.float64)
                for p in sorted(site.roles.writers)
                for own in self.network.elements(site, p)
            ]
            rows[u] = np.concatenate(parts)
            for step in {id(s): s for s in self.network.program.affines.values()}.values():
                gain = (step.gain, 0)
                if site.roles.statistics.get(gain) == "gain":
                    (own,) = self.network.elements(site, gain)
                    scale = self.network.read(step.gain) / np.sqrt(self.network.read(step.var) + step.epsilon)
                    rows[u] = rows[u] * float(scale[own == u][0])
        largest = np.abs(rows[first]).argmax()
        return float(rows[unit][largest] / rows[first][largest])

    def narrowed(self, space: str, copies: dict[int, int]) -> dict[str, Array]:
        """The writers of a product, copy by copy with what only so many directions of it need."""
        there = self.network
        action = next(
            a for a in there.structure.actions.values() if planting.invertible(a) and a.id.startswith(f"{space}.")
        )
        size = there.factors.size(action.leaf)
        values: dict[str, Array] = {}
        for copy, rank in copies.items():
            units = range(copy * size, copy * size + size)
            lines = {side: there.lines(action, side) for side in (1, -1)}
            a, b = (
                np.concatenate([np.stack([there.read(n)[own == u] for u in units], 1) for n, own in lines[side]])
                for side in (1, -1)
            )
            left, scale, right = np.linalg.svd(b.astype(np.float64) @ a.T.astype(np.float64), full_matrices=False)
            keep = a.T @ right[:rank].T / scale[:rank] @ left[:, :rank].T @ b
            for name, own in lines[1]:
                stored = there.program.weights[name]
                new = values.get(stored, there.read(name).astype(np.float64)).copy()
                for u, row in zip(units, keep @ np.stack([new[own == u] for u in units]), strict=True):
                    new[own == u] = row
                values[stored] = new
        return {n: v.astype(there.program.model.tensors[n].read().dtype) for n, v in values.items()}

    def watched(self, site: planting.Site, seed: int) -> list[Array]:
        """What the readers of a space receive, by unit, for other inputs."""
        program, leaf = self.network.program, site.action.leaf
        names = {stored for weight, _ in site.roles.readers for stored in [program.weights[weight]]}
        model = onnx.load(self.folder / "plain.onnx")
        axes: list[int] = []
        for node in model.graph.node:
            hit = [k for k, name in enumerate(node.input) if name in names]
            if hit and node.op_type in ("Conv", "ConvTranspose", "MatMul", "Gemm"):
                flipped = any(a.name == "transA" and a.i for a in node.attribute)
                axes.append(1 if node.op_type.startswith("Conv") else 0 if flipped else -1)
                model.graph.output.append(onnx.helper.make_empty_tensor_value_info(node.input[1 - hit[0]]))
        assert axes, f"no plain reader of {site.space.name}"
        assert any(self.network.holds(o, leaf) for s in program.steps if isinstance(s, Einsum) for o in s.operands)
        onnx.save(model, self.folder / "watched.onnx")
        inputs = next(iter(feeds(program.model, seed)))
        answer = run([self.folder / "watched.onnx"], inputs)[0]
        assert answer.failure is None, answer.failure
        seen = answer.outputs[-len(axes) :]
        return [np.moveaxis(y, axis, 0).reshape(y.shape[axis], -1) for y, axis in zip(seen, axes, strict=True)]


def findings(path: Path) -> list[Finding]:
    """The exact findings on units, at default settings."""
    report = audit(str(path), [rule for rule in rules() if rule.code in EXACT | PRODUCTS], Settings())
    return [f for f in report.findings if f.evidence == "exact"]


def edits(trial: Trial, finding: Finding) -> Iterator[tuple[str, dict[str, Array]]]:
    """Edits that a finding says to be without effect."""
    site = trial.site(finding.space or "")
    if finding.rule in ("SYM101", "SYM104"):
        yield "removed", trial.removed(site, list(finding.units))
        if scrambled := trial.scrambled(site, list(finding.units)):
            yield "scrambled", scrambled
    elif finding.rule in ("SYM201", "SYM203"):
        for group in finding.facts["groups"]:
            yield f"merged {group}", trial.merged(site, list(group))


def confirm(path: Path, folder: Path) -> None:
    """Try every finding of a model, and the same edits on units that are not reported."""
    told = findings(path)
    if not told:
        return
    trial = Trial(path, folder)
    for finding in [f for f in told if f.rule in PRODUCTS]:
        ranks = dict(zip(finding.units or (0,), finding.facts["ranks"], strict=True))
        same, less = (trial.narrowed(finding.space or "", {c: r - d for c, r in ranks.items()}) for d in (0, 1))
        assert trial.difference(same) <= NOISE, finding
        assert trial.difference(less) > 10 * NOISE or min(ranks.values()) == 0, finding
    for finding in [f for f in told if f.rule in EXACT]:
        site = trial.site(finding.space or "")
        for what, values in edits(trial, finding):
            difference = trial.difference(values)
            assert difference <= NOISE, f"{finding.rule} {finding.space} {what}: {difference:.1e}"
        if finding.rule == "SYM102":
            runs = [trial.watched(site, seed) for seed in (1, 2)]
            for one, other in zip(*runs, strict=True):
                rows = [u % site.count for u in finding.units]
                assert np.array_equal(one[rows], other[rows])
                still = [u for u in range(site.count) if np.array_equal(one[u], other[u])]
                assert len(still) < site.count
        healthy = [u for u in range(site.count) if not any(u in f.units for f in told if f.space == finding.space)]
        if healthy and finding.rule != "SYM102":
            moved = [
                trial.difference(
                    trial.removed(site, [u])
                    if finding.rule in ("SYM101", "SYM104")
                    else trial.merged(site, [u, healthy[-1]])
                )
                for u in healthy[:4]
            ]
            assert max(moved) > 10 * NOISE, f"{finding.rule} {finding.space}: the edit of a healthy unit has no effect"


@pytest.mark.corpus
@pytest.mark.parametrize("path", [pytest.param(p, id=p.stem) for p in MODELS])
def test_findings_on_trained_networks_hold_in_onnxruntime(path, shared, tmp_path):
    """Deleting or merging what is reported leaves the outputs; the same edit of another unit does not."""
    if path.stat().st_size > LARGEST:
        pytest.skip("too large for a test")
    confirm(path, tmp_path)


@pytest.mark.slow
@pytest.mark.corpus
@pytest.mark.parametrize("how", planting.RANKS)
@pytest.mark.parametrize("rule", sorted(PRODUCTS))
@pytest.mark.parametrize("name", ["gpt2", "bert", "vit_timm", "lora_linear", "mobilenet_v2", "deep_linear_bias", "t5"])
def test_planted_ranks_hold_in_onnxruntime(name, rule, how, shared, tmp_path):
    """As many directions as the finding says give the same outputs, and one less does not."""
    path = tmp_path / "flat.onnx"
    if planting.flatten(SHARED / "zoo" / f"{name}.onnx", rule, how, path) is None:
        pytest.skip("the network has no such product")
    assert [f.rule for f in findings(path)] == [rule]
    confirm(path, tmp_path)


@pytest.mark.slow
@pytest.mark.corpus
@pytest.mark.parametrize("kind", [k for k in planting.FLAWS if not k[-1].isdigit()])
@pytest.mark.parametrize("name", PLANTED)
def test_planted_flaws_hold_in_onnxruntime(name, kind, shared, tmp_path):
    """What is planted is what the rules say: the same edits, on flaws whose units are known."""
    path = tmp_path / "planted.onnx"
    planted = planting.plant(SHARED / "zoo" / f"{name}.onnx", kind, path)
    if planted is None:
        pytest.skip("the flaw fits nowhere")
    confirm(path, tmp_path)
    site, groups = planted
    trial, rule = Trial(path, tmp_path), planting.FLAWS[kind].rule
    mine = trial.site(site.space.id)
    if rule == "SYM101":
        assert trial.difference(trial.removed(mine, groups[0])) <= NOISE
    elif rule == "SYM201":
        assert trial.difference(trial.merged(mine, groups[0])) <= NOISE
