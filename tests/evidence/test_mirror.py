"""Declared mirrors: what is shown to be a symmetry is one, and a wrong declaration says how to mend it."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from test_planted import SHARED

from symlint.audit.engine import audit
from symlint.evidence.options import Mirror, surface
from symlint.lint.configuration import read
from symlint.lint.finding import Finding, Level
from symlint.lint.rule import rules
from symlint.lint.settings import Settings
from symlint.model.errors import UsageProblem
from symlint.model.load import load
from symlint.model.saving import write
from symlint.runtime.verify import same_function
from symlint.symmetry.actions.permutation import PartExchange
from symlint.symmetry.inference import examine
from symlint.symmetry.motion.motion import Weights
from symlint.symmetry.structure import Action, Structure

NETWORKS = (
    "mlp_relu", "mlp_tanh.dynamo", "siren", "gated_reglu", "resnet18", "squeezenet", "vgg13_bn.raw", "lstm", "rnn_tanh",
    "gpt2", "bert", "t5", "vit_timm", "deep_linear_bias", "lora_gpt2", "mobilenet_v2",
)  # fmt: skip
FAST = {
    "mlp_relu", "mlp_tanh.dynamo", "siren", "gated_reglu", "resnet18", "lstm", "rnn_tanh", "gpt2", "deep_linear_bias",
    "vgg13_bn.raw", "squeezenet",
}  # fmt: skip
SIGNED = {
    "mlp_tanh.dynamo", "siren", "gated_reglu", "lstm", "rnn_tanh", "gpt2", "bert", "t5", "vit_timm", "deep_linear_bias",
    "lora_gpt2", "mobilenet_v2",
}  # fmt: skip
"""Those of them with spaces whose units may change their sign."""


def said(path: Path, *mirrors: Mirror) -> list[Finding]:
    report = audit(str(path), [r for r in rules() if r.code == "SYM801"], Settings(mirrors=mirrors))
    assert not report.incomplete, report.incomplete
    return list(report.findings)


def one(path: Path, tensors: str, surface: str, *axes: int) -> Finding:
    """What is said of one mirror of a file."""
    (finding,) = said(path, Mirror("m", tuple(tensors.split()), surface, axes))
    return finding


ALL = "first.weight first.bias second.weight"


@pytest.fixture
def twins(perceptron: Callable[..., Path]) -> Path:
    """A perceptron of tanh whose units 1 and 3 are equal, and whose unit 4 is zero."""

    def edit(weights: dict[str, np.ndarray]) -> None:
        for name, axis in (("first.weight", 0), ("first.bias", 0), ("second.weight", 1)):
            units = np.moveaxis(weights[name], axis, 0)
            units[3], units[4] = units[1], 0.0

    return perceptron("twins.onnx", edit, "Tanh")


@pytest.mark.parametrize("words", ["swap 1 3", "sign 4", "swap 1 3 of 6"])
def test_a_collapse_is_told(twins, words):
    finding = one(twins, ALL, words)
    assert (finding.level, finding.facts["distance"]) == (Level.WARNING, 0.0)
    assert finding.message == "mirror 'm': the weights of first have collapsed onto this symmetry of the network"
    assert one(twins, ALL, words, 0, 0, 1).message == finding.message


@pytest.mark.parametrize("words", ["swap 0 1", "sign 1", "swap 1 3 0 2"])
def test_weights_off_the_surface_are_a_note(twins, words):
    finding = one(twins, ALL, words)
    assert finding.level is Level.NOTE
    assert 0.1 < finding.facts["distance"] < 1
    assert finding.facts["tolerance"] < 1e-5


def test_the_rounding_of_what_is_compared_counts(perceptron):
    """A difference of a rounding is none, one of a thousand roundings is; both in a unit that is small as a whole."""
    for change, level in ((1.0 + 1e-7, Level.WARNING), (1.0 + 1e-4, Level.NOTE)):

        def edit(weights: dict[str, np.ndarray], change: float = change) -> None:
            for name, axis in (("first.weight", 0), ("first.bias", 0), ("second.weight", 1)):
                units = np.moveaxis(weights[name], axis, 0)
                units[1] *= np.float32(1e-6)
                units[3] = units[1] * np.float32(change)

        assert one(perceptron(edit=edit), ALL, "swap 1 3").level is level


@pytest.mark.parametrize(
    ("tensors", "words", "axes", "message"),
    [
        ("first.weight first.bias", "swap 1 3", (), "it would have to move second.weight (axis 1) as well"),
        ("first.weight", "sign 1", (), "it would have to move first.bias (axis 0) and second.weight (axis 1) as well"),
        (ALL, "swap 1 2", (0, 0, 0), "second.weight (axis 1) as well; second.weight holds these units along axis 1"),
        (ALL, "swap 0 1", (1,), "its units stay in place: a graph input"),
        ("second.weight", "sign 1", (), "the sign of its units is seen"),
    ],
)
def test_a_wrong_declaration_says_what_is_missing(twins, tensors, words, axes, message):
    finding = one(twins, tensors, words, *axes)
    assert finding.level is Level.WARNING
    assert finding.message.startswith("mirror 'm': it is not shown to be a symmetry of this network: ")
    assert message in finding.message


def test_a_rectifier_sees_the_sign(perceptron):
    finding = one(perceptron(), ALL, "sign 1")
    assert (finding.level, finding.message.endswith("the sign of its units is seen")) == (Level.WARNING, True)


@pytest.mark.parametrize(
    ("tensors", "words", "axes", "message"),
    [
        ("first.wieght first.bias", "swap 1 3", (), "no weight 'first.wieght'; did you mean 'first.weight'?"),
        (ALL, "swap 1 6", (), "unit 6 is out of range: axis 0 of first.weight has 6 units"),
        (ALL, "swap 1 6 of 6", (), "unit 6 is out of range: axis 0 of first.weight has 6 units"),
        (ALL, "sign 0 of 5", (), "axis 0 of first.weight holds no space of 5 units: it has 6 units"),
        (ALL, "swap 0 1", (2,), "first.weight has no axis 2: its shape is [6, 4]"),
        (ALL, "swap 0 0", (), "expected the surface as 'swap I J'"),
        (ALL, "nothing.npy", (), "nothing.npy cannot be read"),
    ],
)
def test_a_declaration_without_a_meaning_says_why(twins, tensors, words, axes, message):
    finding = one(twins, tensors, words, *axes)
    assert finding.level is Level.ERROR
    assert message in finding.message
    assert "\n" not in finding.message


def test_what_decayed_is_zero(root):
    """Units of a trained network whose weights are below 1e-38, and so on the surface of every exchange of them."""
    tensors = "conv2.weight conv2.bias conv3.weight"
    model = root / "fixtures" / "decayed_cnn.onnx"
    assert [one(model, tensors, words).level for words in ("swap 0 2", "swap 0 1")] == [Level.WARNING, Level.NOTE]


def test_another_model_has_none_of_the_tensors(twins):
    assert one(twins, "conv.weight conv.bias", "swap 1 3").level is Level.NOTE


# -- directions in a file ---------------------------------------------------------------------------------------------
def of_units(*vectors: list[float]) -> np.ndarray:
    return np.array(vectors, float).T


def of_weights(units: np.ndarray) -> np.ndarray:
    """Directions of the units of the perceptron as directions of all of its weights."""
    blocks = [np.kron(units, np.eye(4)), units, np.kron(np.eye(3), units)]
    made = np.zeros((24 + 6 + 18, sum(b.shape[1] for b in blocks)))
    row = column = 0
    for block in blocks:
        made[row : row + len(block), column : column + block.shape[1]] = block
        row, column = row + len(block), column + block.shape[1]
    return made


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(
    ("directions", "level"),
    [
        (of_units([0, 1, 0, -1, 0, 0]), Level.WARNING),
        (of_units([0, 0, 0, 0, 5, 0]), Level.WARNING),
        (of_units([0, 1, 0, -1, 0, 0], [0, 2, 0, -2, 3, 0]), Level.WARNING),
        (of_units([1, -1, 0, 0, 0, 0]), Level.NOTE),
        (of_units([0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 1, 0]), Level.NOTE),
    ],
)
def test_directions_of_units_and_of_weights(twins, tmp_path, directions, level, whole):
    """The span counts: exchanges, signs and both at once are recognised, and mean the same in either form."""
    np.save(tmp_path / "o.npy", of_weights(directions) if whole else directions)
    finding = one(twins, ALL, str(tmp_path / "o.npy"))
    assert finding.level is level, finding.message
    assert finding.space == "S1"


@pytest.mark.parametrize("whole", [False, True])
def test_directions_that_are_no_symmetry(twins, tmp_path, whole):
    directions = of_units([1, 2, 0, 0, 0, 0])
    np.save(tmp_path / "o.npy", of_weights(directions) if whole else directions)
    finding = one(twins, ALL, str(tmp_path / "o.npy"))
    assert finding.level is Level.WARNING
    assert "not shown" in finding.message


def test_directions_that_treat_weights_apart(twins, tmp_path):
    """One weight alone, and all tensors but one."""
    np.save(tmp_path / "o.npy", np.eye(48)[:, :1])
    assert "not shown" in one(twins, ALL, str(tmp_path / "o.npy")).message
    whole = of_weights(of_units([0, 1, 0, -1, 0, 0]))
    whole[30:] = 0
    np.save(tmp_path / "o.npy", whole)
    assert "not shown" in one(twins, ALL, str(tmp_path / "o.npy")).message


@pytest.mark.parametrize(
    ("directions", "message"),
    [
        (np.ones((7, 1)), "o.npy has 7 rows: axis 0 of first.weight has 6 units, all tensors 48 weights"),
        (np.zeros((6, 1)), "o.npy holds no direction: its numbers are zero or not finite"),
        (np.full((6, 2), np.nan), "o.npy holds no direction"),
        (np.ones((6, 1, 1)), "o.npy is no matrix of numbers"),
        (np.array(["a"] * 6), "o.npy is no matrix of numbers"),
    ],
)
def test_files_that_hold_no_directions(twins, tmp_path, directions, message):
    np.save(tmp_path / "o.npy", directions)
    finding = one(twins, ALL, str(tmp_path / "o.npy"))
    assert finding.level is Level.ERROR
    assert message in finding.message


def between(out: Path, norm: str, edit: Callable[[dict[str, np.ndarray]], None] = lambda values: None) -> Path:
    """Two linear layers with a norm between them, or nothing."""
    rng = np.random.default_rng(5)
    values = {"a": rng.standard_normal((7, 5)), "b": rng.standard_normal((5, 9)), "gain": rng.uniform(0.5, 2.0, 5)}
    edit(values)
    gain = ["gain"] if norm == "RMSNormalization" else []
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"]),
        helper.make_node(norm, ["h", *gain], ["n"], **({} if norm == "Identity" else {"axis": -1})),
        helper.make_node("MatMul", ["n", "b"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "between",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 7])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 9])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in values.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10), out)
    return out


@pytest.mark.parametrize("norm", ["Identity", "LpNormalization"])
def test_directions_of_a_space_that_turns(norm, tmp_path):
    """Any direction of a linear or of a normalised space is a mirror: of its units, and of its two weights."""
    along = np.random.default_rng(1).standard_normal((5, 2))
    basis = np.linalg.qr(along)[0]
    blocks = [np.kron(np.eye(7), basis), np.kron(basis, np.eye(9))]
    whole = np.block([[blocks[0], np.zeros((35, 18))], [np.zeros((45, 14)), blocks[1]]])

    def lose(values: dict[str, np.ndarray]) -> None:
        values["a"] -= values["a"] @ basis @ basis.T
        values["b"] -= basis @ basis.T @ values["b"]

    for number, directions in enumerate((along, whole)):
        np.save(tmp_path / f"{number}.npy", directions)
        for edit, level in ((lambda values: None, Level.NOTE), (lose, Level.WARNING)):
            path = between(tmp_path / "m.onnx", norm, edit)
            finding = one(path, "a b", str(tmp_path / f"{number}.npy"), 1)
            assert finding.level is level
            assert "not shown" not in finding.message
        assert "move b (axis 0) as well" in one(path, "a", str(tmp_path / "0.npy"), 1).message


def test_a_gain_stands_between(tmp_path):
    """Directions across units of a stream whose norm has gains are no reflection of its weights; single units are."""
    path = between(tmp_path / "m.onnx", "RMSNormalization")
    np.save(tmp_path / "o.npy", np.ones((5, 1)))
    assert "the gains of a norm tell the units apart" in one(path, "a b", str(tmp_path / "o.npy"), 1).message
    assert one(path, "a b", "sign 2", 1).level is Level.NOTE


# -- the configuration ------------------------------------------------------------------------------------------------
def test_a_mirror_is_read_from_the_configuration(tmp_path):
    (tmp_path / "symlint.toml").write_text(
        '[[mirrors]]\nname = "a"\ntensors = ["w"]\nsurface = "swap 1 2 of 12"\naxes = [-1]\n'
        '[[mirrors]]\nname = "b"\ntensors = ["w"]\nsurface = "o.npy"\n'
    )
    np.save(tmp_path / "o.npy", np.eye(3))
    first, second = read(tmp_path).mirrors
    assert (first.axes, surface(first.surface).units, surface(first.surface).count) == ((-1,), (1, 2), 12)
    assert second.surface == str(tmp_path / "o.npy")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('surface = "swap 1"', "expected the surface as 'swap I J'"),
        ('surface = "swap 1 1"', "expected the surface as 'swap I J'"),
        ('surface = "turn 1"', "expected the surface as 'swap I J'"),
        ('surface = "sign 1"\naxes = [0, 1]', "mirror 'a': axes has 2 entries, tensors has 1"),
        ('surface = "turn.npy"', "mirror 'a': surface turn.npy: No such file"),
        ('surface = "symlint.toml.npy"', "mirror 'a': surface symlint.toml.npy is no array of numpy"),
        ('surface = "sign 1"\n[[mirrors]]\nname = "a"\ntensors = ["w"]\nsurface = "sign 2"', "two mirrors are called"),
        ('surface = "sign 1"\n[[mirrors]]\nname = "b"\ntensors = []\nsurface = "sign 2"', "tensors is empty"),
        ('surface = "sign 1"\n[[mirrors]]\nname = "b"\ntensors = ["w", "w"]\nsurface = "sign 2"', "'w' twice"),
        ('surface = "sign 1"\naxis = 0', "expected tables with name, tensors, surface (and axes)"),
    ],
)
def test_a_wrong_configuration(tmp_path, line, message):
    (tmp_path / "symlint.toml.npy").write_text("1 0 0")
    (tmp_path / "symlint.toml").write_text(f'[[mirrors]]\nname = "a"\ntensors = ["w"]\n{line}\n')
    with pytest.raises(UsageProblem) as caught:
        read(tmp_path)
    assert message in str(caught.value)


# -- networks ---------------------------------------------------------------------------------------------------------
def reflected(structure: Structure, action: Action, element: np.ndarray) -> dict[str, np.ndarray]:
    """All weights that an element of a generator moves, in float64."""
    tensors = structure.program.model.tensors
    weights = Weights(structure, lambda stored: tensors[stored].read())
    action.move(weights, element)
    return dict(weights.now)


def declared(structure: Structure, kind: str) -> list[tuple[Action, tuple[str, ...], np.ndarray]]:
    """Generators of a kind with what a user would declare: their tensors, the first with the units along one axis."""
    found = []
    for action in structure.actions.values():
        # A batch normalisation takes a sign back with its running mean, which is no reflection of its weights.
        if (
            action.kind != kind
            or isinstance(action, PartExchange)
            or any(o.tensor in structure.program.affines for o in action.charge)
        ):
            continue
        size = structure.axes.factors.size
        form = (*(size(c) for c in action.copies), size(action.leaf))
        if form[-1] < 3:
            continue
        if kind == "permutation":
            element = np.broadcast_to(np.arange(form[-1]), form).copy()
            element.reshape(-1)[[0, 1]] = [1, 0]
        else:
            element = np.ones(form)
            element.reshape(-1)[1] = -1.0
        moved = reflected(structure, action, element)
        stored = {name: structure.program.model.tensors[name].read() for name in moved}
        tensors = tuple(n for n in sorted(moved) if not np.array_equal(moved[n], stored[n].astype(np.float64)))
        if len(tensors) > 1:
            found.append((action, tensors, element))
    return found


def axis_of(structure: Structure, action: Action, tensor: str) -> int:
    factors, program = structure.axes.factors, structure.program
    name = next(n for n, s in program.weights.items() if s == tensor and n not in program.detached)
    return next(k for k, f in enumerate(structure.axes.of[name]) if action.leaf in set(factors.leaves(f)))


@pytest.mark.corpus
@pytest.mark.parametrize("kind", ["permutation", "sign"])
@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in FAST else [pytest.mark.slow]) for n in NETWORKS])
def test_mirrors_of_networks(name, kind, shared, tmp_path):
    """Of two spaces of a network: shown and off its surface; on it once planted; not shown with a tensor less."""
    path, out = SHARED / "zoo" / f"{name}.onnx", tmp_path / "planted.onnx"
    _, structure = examine(load(str(path)))
    found = declared(structure, kind)[:2]
    assert bool(found) == (kind == "permutation" or name in SIGNED)
    for action, tensors, element in found:
        count = element.size
        words = f"swap 0 1 of {count}" if kind == "permutation" else f"sign 1 of {count}"
        axis = axis_of(structure, action, tensors[0])
        mirror = Mirror("m", tensors, words, (axis,))
        (before,) = said(path, mirror)
        assert (before.level, before.space) == (Level.NOTE, action.space), before.message
        image = reflected(structure, action, element)
        stored = {t: structure.program.model.tensors[t].read() for t in tensors}
        planted = {t: ((stored[t] + image[t]) / 2).astype(stored[t].dtype) for t in tensors}
        write(path, planted, out)
        (after,) = said(out, mirror)
        assert after.level is Level.WARNING, after.message
        assert after.facts["distance"] <= after.facts["tolerance"]
        (short,) = said(path, Mirror("m", tensors[:-1], words, (axis,)))
        assert "is not shown" in short.message
        assert tensors[-1] in short.message


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["gpt2", "t5", "gated_swiglu"])
def test_products_of_signs_are_shown(name, shared):
    """What two sign symmetries of one space move, less what they both move."""
    path = SHARED / "zoo" / f"{name}.onnx"
    _, structure = examine(load(str(path)))
    found = declared(structure, "sign")
    pairs = [(a, b) for a, b in combinations(found, 2) if a[0].leaf == b[0].leaf and a[2].shape == b[2].shape]
    told = 0
    for (action, first, element), (_, second, _) in pairs[:3]:
        tensors = tuple(sorted(set(first) ^ set(second)))
        if len(tensors) > 1:
            axis = axis_of(structure, action, tensors[0])
            (finding,) = said(path, Mirror("m", tensors, f"sign 1 of {element.size}", (axis,)))
            assert finding.level is Level.NOTE, finding.message
            told += 1
    assert bool(told) == (name != "gated_swiglu")


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["mlp_tanh.dynamo", "gated_reglu", "resnet18", "gpt2"])
def test_what_is_shown_is_a_symmetry(name, shared, tmp_path):
    """onnxruntime gives the same outputs for the weights on the other side of the mirror."""
    path, out = SHARED / "zoo" / f"{name}.onnx", tmp_path / "other.onnx"
    _, structure = examine(load(str(path)))
    for kind in ("permutation", "sign"):
        for action, tensors, element in declared(structure, kind)[:2]:
            image = reflected(structure, action, element)
            write(path, {t: image[t].astype(structure.program.model.tensors[t].read().dtype) for t in tensors}, out)
            trial = same_function(load(str(path)), load(str(out)))
            assert trial.difference is not None
            assert trial.difference < 1e-5
