"""Planted flaws are repaired: every unit is gone, the function is the same, and parameters fall by the number expected.

What is expected follows from the planting alone: which units of which space must go, and how many elements of every
stored tensor belong to them.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import planting
import pytest
from corpora import SHARED

from symlint.audit.engine import audit
from symlint.lint.finding import Level
from symlint.lint.rule import rules
from symlint.lint.settings import Settings
from symlint.model.load import load
from symlint.repair.fixing import Fixed, Wish, fix
from symlint.runtime.verify import same_function
from symlint.symmetry.inference import examine

FAST = {
    "mlp_relu", "mlp_prelu", "mlp_crelu", "mlp_gelu", "mlp_batchnorm.raw", "mlp_relu.constant_weights",
    "mlp_relu.function_whole", "mlp_relu.weights_as_inputs", "gated_swiglu", "deep_linear_bias", "lora_linear",
    "ssd_head", "siren", "deep_sets", "deepfm", "neural_ode", "graph_sage", "pointnet", "actor_critic",
    "dueling_dqn", "rnn_relu", "lstm", "gru_bidirectional", "wavenet", "conv_vae", "dcgan_generator",
    "stylegan_synthesis", "resnet18", "squeezenet", "mobilenet_v2", "vgg13_bn.raw", "densenet", "gpt2", "bert",
    "lora_gpt2", "vit_timm", "whisper", "unet_transpose",
}  # fmt: skip
"""Networks of every family; the other architectures are for the slow suite."""
ZOO = [p for p in sorted((SHARED / "zoo").glob("*.onnx")) if "." not in p.stem or p.stem in FAST]
UNSEEN = "the audit does not see it either"
COUNTED = "an average counts the units, so that none can go"
BODY = "the weight that reads equal units lies in the body of a loop"
SPLITS = "units that take turns in one place keep the number that one of their layers needs"
MORE = "it has flaws of its own, which go as well"
MISSED = {
    "gcn": UNSEEN,
    "convnext_v2": COUNTED,
    "scripted_loop_rnn": BODY,
    "resnest": SPLITS,
    **dict.fromkeys(("autoencoder_kl", "conformer"), MORE),
}
"""Networks in which not exactly what was planted is repaired, and why."""
RULES = [r for r in rules() if r.repair and r.repair != "drop"]


pytestmark = pytest.mark.usefixtures("no_clock")


def params(paths: list[Path]) -> list[object]:
    """The networks, of which all but the fast ones are for the slow suite."""
    made = []
    for path in paths:
        marks = [] if path.stem in FAST else [pytest.mark.slow]
        if path.stem in MISSED:
            marks.append(pytest.mark.xfail(strict=True, reason=MISSED[path.stem]))
        made.append(pytest.param(path, id=path.stem, marks=marks))
    return made


def weights(path: Path) -> dict[str, int]:
    """Stored tensor -> its elements, of all that a network computes with; scalars left out."""
    program = examine(load(str(path)))[1].program
    shapes = {stored: program.shapes[name] for name, stored in program.weights.items()}
    return {name: int(np.prod(shape)) for name, shape in shapes.items() if shape}


def findings(path: Path) -> list[tuple[str, int]]:
    """Rule and number of units of every finding above note."""
    report = audit(str(path), Settings().chosen(rules()), Settings())
    assert not report.incomplete, report.incomplete
    return [(f.rule, len(f.units)) for f in report.findings if f.level > Level.NOTE]


def accepted(path: Path) -> bool:
    """Whether the checker of ONNX passes a file, its declared shapes included."""
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError):
        return False
    return True


def repaired(source: Path, folder: Path) -> Fixed:
    """The result of a fix, which holds."""
    folder.mkdir()
    fixed = fix(str(source), folder, Wish(RULES))
    assert fixed.proof is not None, fixed.left
    assert fixed.proof.outcome == "held", fixed.proof
    return fixed


def examine_repair(wreck: planting.Wreck, tmp_path: Path) -> None:
    """Repair a wreck and compare all that its planting tells."""
    source = wreck.save(tmp_path / "planted.onnx")
    before = weights(source)
    fixed = repaired(source, tmp_path / "fixed")
    # Of constants that a border tells from a bias one is left in every copy: that is still a finding, and no more.
    merged = [d for d in wreck.damages if d.kind == "constant" and not d.offsets]
    alone = sum(d.space.copies for d in merged)
    assert all(one.rule == "SYM102" and not one.refuted for one in fixed.left), fixed.left
    after, want = weights(fixed.path), {name: n for name, n in wreck.sizes().items() if name in before}
    filled = sum(n for name, n in after.items() if name not in before and n == 1)
    wrong = {name: (before[name], want[name], after.get(name)) for name in before if after.get(name) != want[name]}
    assert sum(after.values()) - filled == sum(want.values()) + wreck.biases(), (wrong, fixed.left)
    assert sum(want.values()) < sum(before.values())
    trial = same_function(load(str(source)), load(str(fixed.path)))
    assert trial.outcome == "held", trial
    if accepted(source):
        assert accepted(fixed.path)
    left = findings(fixed.path)
    assert {rule for rule, _ in left} <= {"SYM102"}, left
    assert (len(left), sum(units for _, units in left)) == (len(merged), alone), left
    (tmp_path / "again").mkdir()
    again = fix(str(fixed.path), tmp_path / "again", Wish(RULES))
    assert (again.done, again.path) == ((), Path(fixed.path)), again.done


@pytest.mark.corpus
@pytest.mark.parametrize("path", params(ZOO))
def test_what_is_planted_in_many_spaces_is_taken_away(path, shared, tmp_path):
    """Dead, constant and duplicate units and low ranks, in all spaces of a network at once."""
    wreck = planting.wreck(path)
    if not wreck.damages:
        pytest.skip("there is no space to plant in")
    examine_repair(wreck, tmp_path)


TOGETHER = ("mlp_relu", "resnet18", "gpt2", "vgg13_bn.raw", "mobilenet_v2", "squeezenet", "dueling_dqn")


@pytest.mark.corpus
@pytest.mark.parametrize("name", TOGETHER)
def test_flaws_of_one_space_are_taken_away_together(name, shared, tmp_path):
    """Unread, unwritten, constant and equal units side by side."""
    wreck = planting.Wreck(shared / "zoo" / f"{name}.onnx")
    kinds = ("equal", "constant", "unread", "unwritten")
    for site in wreck.network.sites:
        if site.space.size >= 16 and all(wreck.fits(site, kind, 2) for kind in kinds):
            for kind in kinds:
                wreck.plant(site, kind, 2)
    assert wreck.damages
    examine_repair(wreck, tmp_path)


@pytest.mark.slow
@pytest.mark.corpus
def test_flaws_are_planted_in_networks_of_every_kind(shared):
    """Thirty networks at least hold flaws in several spaces, and every kind of flaw fits into thirty."""
    tally: Counter[str] = Counter()
    several = 0
    for path in [p for p in ZOO if "." not in p.stem]:
        wreck = planting.wreck(path)
        tally.update({d.kind for d in wreck.damages})
        several += len(wreck.damages) > 1
    assert several >= 30
    assert min(tally[kind] for kind in (*planting.REPAIRED, "low rank")) >= 10, tally
