"""The canonical form: wherever symmetries have taken the weights, they come back to one place, and stay there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from networks import SMALL

import symlint
from symlint.cli.main import cli
from symlint.model.load import load
from symlint.model.saving import write
from symlint.repair.canonical import canonical
from symlint.runtime.proof import prove
from symlint.symmetry.inference import examine
from symlint.symmetry.motion.teleport import teleport

QUICK = ("relu", "layernorm", "rms_untied", "temperature", "rotary_half", "batchnorm_before_linear")
STAYS = {
    "group_norm": "the signs of groups and of channels are not told apart",
    "patch_embedding": "a bias that the places of tokens can take over is not brought to rest with them",
    "two_linear_wide": "what lies between is wider than what it writes",
    "linear_chain": "what lies between is wider than what it writes",
    "product_of_layers": "two branches that are multiplied change signs and places together",
}


def at(path: Path) -> dict[str, np.ndarray]:
    """All weights in canonical form."""
    structure = examine(load(path))[1]
    values, tensors = canonical(structure), structure.program.model.tensors
    names = set(structure.program.weights.values())
    return {name: values[name] if name in values else tensors[name].read() for name in names}


def apart(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> float:
    return max(float(np.abs(a[n] - b[n]).max(initial=0) / (np.abs(a[n]).max(initial=0) or 1)) for n in a)


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in SMALL])
def test_wherever_weights_are_taken_their_form_is_the_same(name, tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(SMALL[name].model("float32", SMALL[name].values()), path)
    structure = examine(load(path))[1]
    form = tmp_path / "form.onnx"
    write(path, canonical(structure), form)
    assert prove(load(path), form).outcome == "held"
    if name in STAYS:
        return
    assert not canonical(examine(load(form))[1])
    for seed in (1, 2):
        moved = tmp_path / f"{seed}.onnx"
        write(path, teleport(structure, list(structure.actions), seed), moved)
        assert apart(at(path), at(moved)) < 1e-3


def test_the_command_makes_equal_files_of_permuted_networks(tmp_path):
    path, moved = tmp_path / "model.onnx", tmp_path / "moved.onnx"
    onnx.save(SMALL["relu"].model("float32", SMALL["relu"].values()), path)
    structure = examine(load(path))[1]
    write(path, teleport(structure, [a for a in structure.actions if a.endswith("permutation")], 1), moved)
    made = [symlint.fix(p, canonical=True)[0] for p in (path, moved)]
    a, b = (sorted(t.SerializeToString() for t in m.graph.initializer) for m in made)
    assert a == b
    told = CliRunner().invoke(cli, ["fix", str(path), "--canonical", "-o", str(tmp_path / "out.onnx")])
    assert told.exit_code == 0
    assert "canonical-form" in told.output
    told = CliRunner().invoke(cli, ["fix", str(tmp_path / "out.onnx"), "--canonical", "--dry-run"])
    assert told.exit_code == 0, told.output
    told = CliRunner().invoke(cli, ["fix", str(path), "--canonical", "--balance", "--dry-run"])
    assert told.exit_code == 2
