"""Streams: directions that nothing writes or reads are told with their number; random networks are left alone."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import onnx
import planting
import pytest
from networks import SMALL
from onnx import TensorProto, helper, numpy_helper
from test_planted import SHARED
from turned_networks import LENGTHS

from symlint.audit.engine import audit
from symlint.evidence.streams import roles
from symlint.lint.rule import rules
from symlint.lint.settings import Settings
from symlint.model.load import load
from symlint.model.saving import write
from symlint.runtime.verify import same_function
from symlint.symmetry.actions.rotation import OrthogonalMap
from symlint.symmetry.charges.unknowns import Occurrence
from symlint.symmetry.inference import examine
from symlint.symmetry.motion.action import stands, transform
from symlint.symmetry.motion.teleport import select, teleport

ENDS = {"SYM601": "read", "SYM602": "written"}
LOST = 3
NETWORKS = {
    "clip": 1, "gemma": 1, "gpt2": 1, "gpt2_past": 1, "llama": 1, "llama_gqa_sdpa": 1, "lora_gpt2": 1, "mistral": 1,
    "mixtral": 1, "pvt_v2": 3, "qwen2": 1, "stable_diffusion_unet": 4, "swin_torchvision": 1, "t5": 1, "vit_timm": 1,
    "vit_transformers": 1, "whisper": 1,
}  # fmt: skip
"""Networks with streams, and how many."""
FAST = ("clip", "gpt2", "llama", "lora_gpt2", "mistral", "mixtral", "qwen2", "t5", "vit_timm", "whisper")
"""Those of the quick suite, small or of a kind of their own."""
EXPERTS = "gate_up_proj"
"""Weights that are looked up at run time and read the stream."""


def streams(path: Path) -> list[OrthogonalMap]:
    """The orthogonal actions of a network."""
    return [a for a in planting.network(path).structure.actions.values() if isinstance(a, OrthogonalMap)]


class Projection:
    """A random subspace of a stream, and the weights of a network without it or changed along it."""

    def __init__(self, path: Path, action: OrthogonalMap, lost: int = LOST) -> None:
        self.path, self.action, self.there = path, action, planting.network(path)
        self.roles = self.there.roles(action)
        chosen = {place for place in self.roles.writers if EXPERTS in place[0]}
        self.roles.writers -= chosen
        self.roles.readers |= chosen
        n = self.there.factors.size(action.leaf)
        basis = np.random.default_rng(n).standard_normal((n, lost))
        basis -= basis.mean(axis=0) * action.fixes_ones
        self.basis = np.linalg.qr(basis)[0]
        self.across = np.eye(n) - self.basis @ self.basis.T
        self.values: dict[str, np.ndarray] = {}

    def places(self, end: str) -> list[Occurrence]:
        """Where the weights of one end hold the stream; ``shifts`` are biases behind a norm."""
        roles = self.roles
        behind = {o for o in self.action.charge if any(power > 0 for _, power in self.action.frames.get(o, ()))}
        wanted = roles.readers if end == "read" else roles.writers | roles.adders | roles.others
        shifts = behind if end != "read" else set()
        mine = [
            o for o in self.action.charge if (o.tensor, o.axis) in wanted and o.tensor in self.there.program.weights
        ]
        return sorted((o for o in mine if (o in shifts) == (end == "shifts") or end == "read"), key=repr)

    def apply(self, end: str, matrix: np.ndarray) -> None:
        """Multiply the rows of one end by a matrix, in the frame of each."""
        for o in self.places(end):
            frame = np.ones(len(matrix))
            for name, power in self.action.frames.get(o, ()):
                frame = frame * self.there.read(name).astype(np.float64) ** power
            stored = self.there.program.weights[o.tensor]
            old = self.values.get(stored, self.there.read(o.tensor).astype(np.float64))
            stood = list(stands(self.there.structure.expansion, self.there.axes[o.tensor], self.action.leaf, ()))
            turn = frame[:, None] * matrix / frame
            self.values[stored] = transform(old, stood, turn, {(o.axis, o.term, o.place): Fraction(1)})

    def save(self, out: Path) -> Path:
        """The network with these weights, rounded once."""
        tensors = self.there.program.model.tensors
        write(self.path, {k: v.astype(tensors[k].read().dtype) for k, v in self.values.items()}, out)
        return out


def said(path: Path) -> list[tuple[str, str | None, list[int], list[int]]]:
    """Rule, space, ranks and bounds of what is said of streams."""
    report = audit(str(path), [r for r in rules() if r.code in ENDS], Settings())
    assert not report.incomplete, report.incomplete
    return [(f.rule, f.space, f.facts["ranks"], f.facts["bounds"]) for f in report.findings]


def wanted(rule: str, projection: Projection) -> list[object]:
    """What the audit has to say of a stream that lost directions at one end."""
    n = len(projection.basis) - projection.action.fixes_ones
    return [(rule, projection.action.space, [n - LOST], [n])]


PATHS = [
    pytest.param(SHARED / "zoo" / f"{name}.onnx", id=name, marks=[] if name in FAST else [pytest.mark.slow])
    for name in NETWORKS
]


@pytest.mark.corpus
@pytest.mark.parametrize("path", PATHS)
def test_lost_directions_are_found_exactly(path, shared, tmp_path):
    """In every stream of a network, at either end; nothing is said of the network as it was."""
    assert said(path) == []
    found = streams(path)
    assert len(found) == NETWORKS[path.stem]
    for action in found:
        for rule, end in ENDS.items():
            projection = Projection(path, action)
            projection.apply(end, projection.across)
            assert said(projection.save(tmp_path / "lost.onnx")) == wanted(rule, projection)


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["gpt2", "llama", "vit_timm"])
def test_the_gauge_is_not_seen(name, shared, tmp_path):
    """Random elements of all generators leave ranks and bounds as they were."""
    path = SHARED / "zoo" / f"{name}.onnx"
    (action,) = streams(path)
    for rule, end in ENDS.items():
        projection = Projection(path, action)
        projection.apply(end, projection.across)
        lost = projection.save(tmp_path / "lost.onnx")
        structure = examine(load(str(lost)))[1]
        for seed in range(2):
            write(lost, teleport(structure, select(structure, None, None), seed), tmp_path / "moved.onnx")
            assert said(tmp_path / "moved.onnx") == wanted(rule, projection)


@pytest.mark.corpus
@pytest.mark.parametrize("name", ["gpt2", "llama", "mixtral", "vit_timm"])
def test_what_is_not_written_is_zero(name, shared, tmp_path):
    """Whatever the readers do along such directions, onnxruntime gives the same outputs; along others it does not."""
    path = SHARED / "zoo" / f"{name}.onnx"
    (action,) = streams(path)
    projection = Projection(path, action)
    for end in ("written", "shifts"):
        projection.apply(end, projection.across)
    before = load(str(projection.save(tmp_path / "lost.onnx")))
    projection.apply("read", np.eye(len(projection.basis)) + 3.0 * projection.basis @ projection.basis.T)
    noise = np.random.default_rng(3).standard_normal((len(projection.basis), len(projection.basis)))
    projection.apply("read", np.eye(len(noise)) + projection.basis @ projection.basis.T @ noise)
    after = same_function(before, load(str(projection.save(tmp_path / "after.onnx"))))
    assert after.difference is not None
    assert after.difference < 1e-4
    other = Projection(path, action)
    other.apply("read", np.eye(len(noise)) + 0.1 * noise)
    changed = same_function(load(str(path)), load(str(other.save(tmp_path / "other.onnx"))))
    assert changed.difference is not None
    assert changed.difference > 1e-2


# -- small networks ---------------------------------------------------------------------------------------------------
WIDE = 16


def mixer(out: Path, seed: int = 0, **how: object) -> Path:
    """Two feed-forward blocks over words of a table, in random weights.

    Options: ``words``, ``norm`` (``LayerNormalization`` or ``RMSNormalization``), ``tied`` head, ``young`` branches
    (zero projections), ``places`` (a table of positions), ``token`` (one row that is repeated for all), ``hidden``
    units, ``shared`` (one block twice).
    """
    rng = np.random.default_rng(seed)
    words, norm, hidden = int(str(how.get("words", 40))), str(how.get("norm", "LayerNormalization")), how.get("hidden")
    units = int(str(hidden)) if hidden else 3 * WIDE
    values = {"table": rng.standard_normal((words, WIDE))}
    nodes, x = [helper.make_node("Gather", ["table", "ids"], ["x0"])], "x0"
    if how.get("places"):
        values["places"] = rng.standard_normal((6, WIDE))
        nodes.append(helper.make_node("Add", [x, "places"], ["x1"]))
        x = "x1"

    if how.get("token"):
        values["token"] = rng.standard_normal((1, WIDE))
        nodes.append(helper.make_node("Constant", [], ["often"], value_ints=[6, WIDE]))
        nodes += [
            helper.make_node("Expand", ["token", "often"], ["tokens"]),
            helper.make_node("Add", [x, "tokens"], ["x2"]),
        ]
        x = "x2"

    def normed(name: str, source: str) -> str:
        values[f"{name}.gain"] = rng.uniform(0.5, 2.0, WIDE)
        given = [source, f"{name}.gain"]
        if norm == "LayerNormalization":
            values[f"{name}.shift"] = rng.standard_normal(WIDE)
            given.append(f"{name}.shift")
        nodes.append(helper.make_node(norm, given, [f"{name}.out"], axis=-1, epsilon=1e-5))
        return f"{name}.out"

    for k in range(2):
        block = "b0" if how.get("shared") else f"b{k}"
        values[f"{block}.in"] = rng.standard_normal((WIDE, units))
        values[f"{block}.out"] = rng.standard_normal((units, WIDE)) * (not how.get("young"))
        values[f"{block}.bias"] = rng.standard_normal(WIDE) * (not how.get("young"))
        nodes += [
            helper.make_node("MatMul", [normed(f"n{k}", x), f"{block}.in"], [f"i{k}"]),
            helper.make_node("Relu", [f"i{k}"], [f"h{k}"]),
            helper.make_node("MatMul", [f"h{k}", f"{block}.out"], [f"m{k}"]),
            helper.make_node("Add", [f"m{k}", f"{block}.bias"], [f"o{k}"]),
            helper.make_node("Add", [x, f"o{k}"], [f"y{k}"]),
        ]
        x = f"y{k}"
    last = normed("last", x)
    if how.get("tied"):
        nodes.append(helper.make_node("Transpose", ["table"], ["head"], perm=[1, 0]))
    else:
        values["head"] = rng.standard_normal((WIDE, 50))
    nodes.append(helper.make_node("MatMul", [last, "head"], ["y"]))
    return saved(out, nodes, values, words if how.get("tied") else 50)


def saved(out: Path, nodes: list[onnx.NodeProto], values: dict[str, np.ndarray], classes: int) -> Path:
    """A network over six words."""
    graph = helper.make_graph(
        nodes,
        "mixer",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 6, classes])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in values.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10), out)
    return out


@pytest.mark.parametrize("norm", ["LayerNormalization", "RMSNormalization"])
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"words": 5},
        {"words": 5, "young": True},
        {"words": 5, "young": True, "token": True},
        {"words": WIDE, "young": True, "places": True},
        {"words": WIDE - 1, "places": True, "tied": True, "young": True},
        {"tied": True, "places": True},
        {"words": 8, "places": True, "hidden": 2},
        {"words": 8, "places": True, "hidden": 4, "shared": True, "tied": True},
    ],
    ids=str,
)
def test_random_networks_are_left_alone(how, norm, tmp_path):
    """Few words, zero branches, tables of positions, tied heads, shared layers: all as they were drawn."""
    for seed in range(5):
        path = mixer(tmp_path / "m.onnx", seed, norm=norm, **how)
        assert len(streams(path)) == (not how.get("tied"))
        assert said(path) == []
        planting.network.cache_clear()


@pytest.mark.parametrize("norm", ["LayerNormalization", "RMSNormalization"])
@pytest.mark.parametrize("end", ["written", "read"])
def test_small_streams_in_every_gauge(end, norm, tmp_path):
    """A vector that may go from all words to all positions is no direction, nor is a mean that a norm subtracts."""
    path = mixer(tmp_path / "m.onnx", norm=norm, places=True, hidden=5)
    (action,) = streams(path)
    projection = Projection(path, action)
    projection.apply(end, projection.across)
    rule = {v: k for k, v in ENDS.items()}[end]
    lost = projection.save(tmp_path / "lost.onnx")
    expected = wanted(rule, projection)
    assert said(lost) == expected
    structure = examine(load(str(lost)))[1]
    for seed in range(10):
        write(lost, teleport(structure, select(structure, None, None), seed), tmp_path / "moved.onnx")
        assert said(tmp_path / "moved.onnx") == expected


def test_gains_of_zero_are_read_by_nothing(tmp_path):
    """A unit that every norm multiplies by zero; one that is zero in one norm alone is read by the others."""
    path = mixer(tmp_path / "m.onnx", norm="RMSNormalization")
    zeros = {f"{n}.gain": np.where(np.arange(WIDE) == 4, 0.0, 1.0).astype(np.float32) for n in ("n0", "n1", "last")}
    write(path, zeros, tmp_path / "zero.onnx")
    assert said(tmp_path / "zero.onnx") == [("SYM601", "S1", [WIDE - 1], [WIDE])]
    write(path, {"n0.gain": zeros["n0.gain"]}, tmp_path / "one.onnx")
    assert said(tmp_path / "one.onnx") == []


MEETINGS = {
    **{name: LENGTHS[name] for name in ("angles_shifted", "angles_written", "distances")},
    "siamese": SMALL["siamese"],
}
"""Networks in which units meet in a length or a product, and pass no norm."""


@pytest.mark.parametrize("name", MEETINGS)
def test_lost_directions_are_found_without_a_norm(name, tmp_path):
    """What writes the units that meet has lost a direction; random weights have lost none."""
    net, path = MEETINGS[name], tmp_path / "net.onnx"
    values = net.values()
    onnx.save(net.model("float32", values), path)
    assert said(path) == []
    (action,) = streams(path)
    structure = planting.network(path).structure
    found = roles(structure, action)
    assert found is not None
    assert not found.closed
    n = structure.axes.factors.size(action.leaf)
    line = np.linalg.qr(np.random.default_rng(n).standard_normal((n, 1)))[0]
    for o in found.writers:
        stood = list(stands(structure.expansion, structure.axes.of[o.tensor], action.leaf, ()))
        across = np.eye(n) - line @ line.T
        values[o.tensor] = transform(values[o.tensor], stood, across, {(o.axis, o.term, o.place): Fraction(1)})
    onnx.save(net.model("float32", values), path)
    assert said(path) == [("SYM602", action.space, [n - 1], [n])]
