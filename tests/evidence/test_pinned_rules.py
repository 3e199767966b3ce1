"""What pinned axes show: ignored inputs, outputs and classes that never change, weights at an initial state."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from corpora import SHARED
from onnx import numpy_helper

from symlint.audit.engine import audit
from symlint.evidence.initial import state
from symlint.lint.finding import Finding
from symlint.lint.rule import rules
from symlint.lint.settings import Settings
from symlint.model.graph import Digest, Tensor
from symlint.model.load import load
from symlint.model.saving import write
from symlint.symmetry.inference import examine
from symlint.symmetry.motion.teleport import select, teleport

ENDS = ("SYM011", "SYM012", "SYM013")
FAST = {
    "conv_vae", "deep_linear", "deep_sets", "gated_glu", "gpt2", "lora_linear", "lstm", "mixture_density",
    "mlp_layernorm", "resnet18", "squeezenet", "unet_transpose", "vit_timm",
}  # fmt: skip
WEIGHT = {"Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1, "LSTM": 1, "GRU": 1, "RNN": 1}
PASSING = {"Transpose", "Gather", "Slice", "Cast", "Identity", "Pad", "Unsqueeze", "Squeeze"}
CLOSING = {"Add", "Sigmoid", "Tanh", "Softmax", "Relu", "Flatten", "GlobalAveragePool", "Identity"}
LIKE = [p for p in sorted((SHARED / "zoo").glob("*.onnx")) if "." not in p.stem]


def found(path: Path, codes: tuple[str, ...] = ENDS) -> list[Finding]:
    """What these rules say of a model."""
    settings = Settings(select=codes)
    report = audit(str(path), settings.chosen(rules()), settings)
    assert not report.incomplete, report.incomplete
    return list(report.findings)


def said(path: Path) -> list[tuple[object, ...]]:
    """Rule, level, input or output, and entries."""
    return [(f.rule, str(f.level), f.facts.get("input") or f.facts.get("output"), f.units) for f in found(path)]


# -- planting: by the nodes of the graph alone ------------------------------------------------------------------------
def readers(graph: onnx.GraphProto, name: str) -> Iterator[tuple[onnx.NodeProto, int]]:
    """The nodes that contract a value with a weight, behind nodes that only move it about, and the input they take."""
    for node in graph.node:
        for k, read in enumerate(node.input):
            if read == name and node.op_type in PASSING and k == 0:
                yield from readers(graph, node.output[0])
            elif read == name and node.op_type != "Shape":
                yield node, k


def rows(node: onnx.NodeProto) -> int:
    """The axis of a node's weight along which it reads its input."""
    if node.op_type == "Gemm":
        return next((1 for a in node.attribute if a.name == "transB" and a.i), 0)
    return {"Conv": 1, "ConvTranspose": 0, "MatMul": 0}.get(node.op_type, 2)


def columns(node: onnx.NodeProto) -> int:
    """The axis of a node's weight along which it writes its output."""
    return {"Conv": 0, "ConvTranspose": 1}.get(node.op_type, 1 - rows(node))


def blank(model: onnx.ModelProto, name: str, axis: int, units: list[int]) -> None:
    """Set units along one axis of an initializer to zero."""
    (tensor,) = (t for t in model.graph.initializer if t.name == name)
    values = numpy_helper.to_array(tensor).copy()
    values[(slice(None),) * axis + (units,)] = 0
    tensor.CopyFrom(numpy_helper.from_array(values, name))


def without_features(model: onnx.ModelProto) -> tuple[str, list[int]] | None:
    """Zero what reads some features or channels of the first floating input; which, or None where that is not plain."""
    stored = {t.name: t for t in model.graph.initializer}
    given = [i for i in model.graph.input if i.name not in stored and i.type.tensor_type.elem_type == 1]
    for value in given[:1]:
        all_of_it = list(readers(model.graph, value.name))
        if any(k or n.op_type not in WEIGHT or n.input[WEIGHT[n.op_type]] not in stored for n, k in all_of_it):
            return None
        names = {n.input[1] for n, _ in all_of_it}
        if not names or sum(name in n.input for n in model.graph.node for name in names) > len(all_of_it):
            return None
        (count,) = {stored[n.input[1]].dims[rows(n)] for n, _ in all_of_it}
        units = [1] if count < 8 else [2, 5]
        if count < 2 or any(a.name == "group" and a.i > 1 for n, _ in all_of_it for a in n.attribute):
            return None
        for node, _ in all_of_it:
            blank(model, node.input[1], rows(node), units)
        return value.name, units
    return None


def without_classes(model: onnx.ModelProto) -> tuple[str, list[int]] | None:
    """Zero what writes some entries of the first output, where a contraction is the last thing but for a bias."""
    stored = {t.name: t for t in model.graph.initializer}
    makers = {out: node for node in model.graph.node for out in node.output}
    output = model.graph.output[0].name
    node, compared = makers[output], False
    while node.op_type in CLOSING:
        compared |= node.op_type == "Softmax"
        moving = [n for n in node.input if n in makers]
        if len(moving) != 1:
            return None
        node = makers[moving[0]]
    if node.op_type not in WEIGHT or node.input[1] not in stored:
        return None
    if sum(node.input[1] in n.input for n in model.graph.node) > 1:
        return None
    count = stored[node.input[1]].dims[columns(node)]
    if count < 3:
        return None
    units = [1, 3] if compared else [1] if count < 8 else [0, 7] if count < 100 else list(range(0, count, 20))
    blank(model, node.input[1], columns(node), units)
    return output, units


def params(paths: list[Path]) -> list[object]:
    return [pytest.param(p, id=p.stem, marks=[] if p.stem in FAST else [pytest.mark.slow]) for p in paths]


@pytest.mark.corpus
@pytest.mark.parametrize("path", params(LIKE))
def test_planted_ends_are_found_exactly(path, shared, tmp_path):
    """Features that nothing reads and classes that nothing writes, with their numbers; and nothing else."""
    model, out = onnx.load(path), tmp_path / "planted.onnx"
    want = []
    if (features := without_features(model)) is not None:
        want.append(("SYM011", "warning", features[0], tuple(features[1])))
    if (classes := without_classes(model)) is not None:
        want.append(("SYM013", "warning", classes[0], tuple(classes[1])))
    if not want:
        pytest.skip("its ends are not plain")
    onnx.save(model, out)
    assert [f for f in said(out) if f[1] != "note"] == want


@pytest.mark.corpus
@pytest.mark.parametrize(
    "name", ["deep_linear", "gated_glu", "lora_linear", "mixture_density", "mlp_layernorm", "vit_timm"]
)
def test_what_is_planted_survives_gauges(name, shared, tmp_path):
    """Entries and constants are the same wherever the weights are moved."""
    model, out, moved = onnx.load(shared / "zoo" / f"{name}.onnx"), tmp_path / "planted.onnx", tmp_path / "moved.onnx"
    assert without_features(model)
    assert without_classes(model)
    onnx.save(model, out)
    before = found(out)
    _, structure = examine(load(str(out)))
    for seed in range(1):
        write(out, teleport(structure, select(structure, None, None), seed), moved)
        after = found(moved)
        assert [(f.rule, f.level, f.units, f.tensors) for f in after] == [
            (f.rule, f.level, f.units, f.tensors) for f in before
        ]
        for a, b in zip(after, before, strict=True):
            assert np.allclose(a.facts.get("constants", []), b.facts.get("constants", []), atol=1e-4)


# -- small networks --------------------------------------------------------------------------------------------------
def normal(*shape: int) -> np.ndarray:
    """Random weights, the same for the same shape."""
    return np.random.default_rng([9, *shape]).normal(size=shape).astype(np.float32)


def without(values: np.ndarray, axis: int, *units: int) -> np.ndarray:
    values = values.copy()
    values[(slice(None),) * axis + (list(units),)] = 0
    return values


def written(path: Path, text: str, **weights: np.ndarray) -> Path:
    """A model in the text format, with these weights."""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17, "com.microsoft": 1]> {text}')
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(v), k) for k, v in weights.items())
    onnx.save(model, path)
    return path


BORDER = np.ones((4, 4), np.float32)
BORDER[1:3, 1:3] = 0
ALONE = (np.arange(4)[:, None] == 2).astype(np.float32)
EDGE = tuple(np.flatnonzero(BORDER).tolist())
SHARED_ROWS = normal(6, 5).copy()
SHARED_ROWS[:, [1, 4]] = SHARED_ROWS[:, [2]]
HIDDEN = "h0 = MatMul(x, w) h1 = Add(h0, b) h = Relu(h1)"
LAYER = {"w": normal(4, 6), "b": np.abs(normal(6)), "v": normal(6, 5)}
HEAD = f"g (float[n,4] x) => (float[n,5] y) {{ {HIDDEN}"
BESIDE = HEAD.replace(") =>", ", float[n,4] s) =>")
WIDER = HEAD.replace("[n,5]", "[n,7]")
CASES = {
    "a feature that only a dead unit reads": (
        f"{HEAD} y = MatMul(h, v) }}",
        LAYER | {"w": without(LAYER["w"], 0, 2) + np.eye(4, 6, 1, np.float32) * ALONE, "v": without(LAYER["v"], 0, 3)},
        [("SYM011", "warning", "x", (2,))],
    ),
    "the border of a flattened image": (
        "g (float[n,1,4,4] x) => (float[n,5] y) { f = Flatten(x) h0 = MatMul(f, w) h = Relu(h0) y = MatMul(h, v) }",
        {"w": normal(16, 6) * (1 - BORDER.reshape(16, 1)), "v": normal(6, 5)},
        [("SYM011", "warning", "x", EDGE)],
    ),
    "a whole input": (
        f"{BESIDE} z = MatMul(s, u) k = MatMul(h, v) y = Add(k, z) }}",
        LAYER | {"u": np.zeros((4, 5), np.float32)},
        [("SYM011", "note", "s", ())],
    ),
    "an input that a part of a weight reads": (
        f"{BESIDE} j = Concat<axis=1>(h, s) y = MatMul(j, v) }}",
        LAYER | {"v": np.concatenate([LAYER["v"], np.zeros((4, 5), np.float32)])},
        [("SYM011", "warning", "s", ())],
    ),
    "a slice": (
        "g (float[n,6] x) => (float[n,5] y) { c = Slice(x, lo, hi, k) a = MatMul(c, w) h = Relu(a) y = MatMul(h, v) }",
        LAYER | {"lo": np.array([0]), "hi": np.array([4]), "k": np.array([1])},
        [("SYM011", "note", "x", (4, 5))],
    ),
    "indices": (
        "g (int64[n] x) => (float[n,5] y) { e = Gather(t, x) h = Relu(e) y = MatMul(h, v) }",
        {"t": normal(7, 6), "v": normal(6, 5)},
        [],
    ),
    "indices that are computed": (
        "g (float[n] x) => (float[n,5] y) { i = Cast<to=7>(x) e = Gather(t, i) h = Relu(e) y = MatMul(h, v) }",
        {"t": normal(7, 6), "v": normal(6, 5)},
        [],
    ),
    "a mask": (
        f"g (float[n,4] x, bool[n,6] m) => (float[n,5] y) {{ {HIDDEN} k = Where(m, h, z) y = MatMul(k, v) }}",
        LAYER | {"z": np.zeros(1, np.float32)},
        [],
    ),
    "a shape": (
        f"{BESIDE} l = Shape(s) k = ConstantOfShape(l) a = ReduceSum(k, one) c = Add(h, a) y = MatMul(c, v) }}",
        LAYER | {"one": np.array([1])},
        [],
    ),
    "a table beside the scores": (
        f"{WIDER} a = MatMul(h, v) k = ReduceSum(a, one) c = Mul(k, zero) y = Concat<axis=1>(a, c, c) }}",
        LAYER | {"one": np.array([1]), "zero": np.zeros(1, np.float32)},
        [],
    ),
    "two classes before an argmax": (
        f"g (float[n,4] x) => (int64[n] y) {{ {HIDDEN} a = MatMul(h, v) y = ArgMax<axis=1, keepdims=0>(a) }}",
        LAYER | {"v": without(LAYER["v"], 1, 0, 3)},
        [("SYM013", "warning", "y", (0, 3))],
    ),
    "classes that share their rows before a softmax": (
        f"{HEAD} a = MatMul(h, v) c = Add(a, d) y = Softmax<axis=1>(c) }}",
        LAYER | {"v": SHARED_ROWS, "d": normal(5)},
        [("SYM013", "warning", "y", (1, 2, 4))],
    ),
    "classes that share their rows as they are": (
        f"{HEAD} a = MatMul(h, v) y = Add(a, d) }}",
        LAYER | {"v": SHARED_ROWS, "d": normal(5)},
        [],
    ),
    "a class before a sigmoid": (
        f"{HEAD} a = MatMul(h, v) c = Add(a, d) y = Sigmoid(c) }}",
        LAYER | {"v": without(LAYER["v"], 1, 3), "d": normal(5)},
        [("SYM013", "warning", "y", (3,))],
    ),
    "one row for all classes before a softmax": (
        f"{HEAD} a = MatMul(h, v) y = Softmax<axis=1>(a) }}",
        LAYER | {"v": np.repeat(normal(6, 1), 5, 1)},
        [("SYM012", "error", "y", ())],
    ),
    "a rectifier that is always off": (
        f"{HEAD} y = MatMul(h, v) }}",
        LAYER | {"w": np.zeros((4, 6), np.float32), "b": -np.abs(normal(6))},
        [("SYM012", "error", "y", ())],
    ),
    "a head that is still at zero, stored the other way round": (
        f"{HEAD} t = Transpose<perm=[1,0]>(v) a = MatMul(h, t) y = Add(a, d) }}",
        LAYER | {"v": np.zeros((5, 6), np.float32), "d": np.zeros(5, np.float32)},
        [("SYM012", "note", "y", ())],
    ),
    "what is multiplied by zero by construction": (
        "g (float[n,4] x) => (float[n,4] y) { a = Mul(x, zero) y = Add(a, t) }",
        {"zero": np.zeros(1, np.float32), "t": normal(4)},
        [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_ends_of_small_networks(name, tmp_path):
    """What is ignored or never changes, and what only looks like it."""
    text, weights, want = CASES[name]
    assert said(written(tmp_path / "m.onnx", text, **weights)) == want


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case[2]])
def test_ends_of_small_networks_survive_gauges(name, tmp_path):
    """Random gauges of all kinds do not hide what is ignored or never changes."""
    text, weights, want = CASES[name]
    path, moved = written(tmp_path / "m.onnx", text, **weights), tmp_path / "moved.onnx"
    _, structure = examine(load(str(path)))
    for seed in range(3):
        write(path, teleport(structure, select(structure, None, None), seed), moved)
        assert said(moved) == want


# -- initial states --------------------------------------------------------------------------------------------------
DELTA = np.zeros((6, 6, 3, 3), np.float32)
DELTA[range(6), range(6), 1, 1] = 1
STATES = {
    "zeros": (np.zeros((4, 5)), ("zero", 0.0)),
    "negative zeros": (-np.zeros(5), ("zero", 0.0)),
    "ones": (np.ones(5), ("one", 1.0)),
    "a small scale": (np.full(5, 0.25), ("constant", 0.25)),
    "an identity": (np.eye(4), ("identity", 1.0)),
    "a scaled identity": (np.eye(4) * -0.5, ("identity", -0.5)),
    "a kernel that passes": (DELTA * 2, ("identity", 2.0)),
    "a kernel in groups": (DELTA.sum(axis=1, keepdims=True), ("identity", 1.0)),
    "one number": (np.zeros(1), None),
    "all but one": (np.array([0, 0, 0, 1e-9]), None),
    "an identity with a slip": (np.eye(4) + np.eye(4, 4, 2) * 1e-6, None),
    "a permutation": (np.eye(4)[[1, 0, 2, 3]], None),
    "a choice of inputs": (np.eye(6)[:4], None),
    "a kernel off its middle": (np.roll(DELTA, 1, axis=-1), None),
}  # fmt: skip


@pytest.mark.parametrize("name", STATES)
def test_initial_states(name):
    """What an initialisation leaves, and what is near it."""
    values, want = STATES[name]
    values = values.astype(np.float32)
    assert state(Digest(Tensor("w", values.shape, "float32", lambda: values))) == want


def test_merged_weights_are_told_apart(tmp_path):
    """Ones that are a gain, a running variance and a mask in one; only the gain is a weight."""
    text = (
        "g (float[n,4,7] x) => (float[n,3,7] y) { a = Conv(x, w) var = Identity(gain) mask = Identity(gain)"
        " c = BatchNormalization(a, gain, b, m, var) h = Relu(c) least = Unsqueeze(mask, one) k = Max(h, least)"
        " y = Conv(k, v) }"
    )
    weights = {
        "w": normal(6, 4, 1),
        "v": normal(3, 6, 1),
        "gain": np.ones(6, np.float32),
        "b": normal(6),
        "m": normal(6),
    }
    path = written(tmp_path / "m.onnx", text, **weights, one=np.array([1]))
    assert [f.facts["names"] for f in found(path, ("SYM014",))] == [["gain"]]
