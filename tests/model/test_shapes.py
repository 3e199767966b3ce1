"""Shapes: of every operator in a file that declares none, against the runtimes that compute it."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from networks import Net
from onnx import TensorProto, helper, numpy_helper
from test_soundness import refuted

from symlint.model.load import load
from symlint.symmetry.inference import infer

SIZES = frozenset({"Resize", "Upsample", "Range", "OneHot"})
"""Operators of which floating numbers say sizes."""
BY_DATA = frozenset(
    {"NonZero", "Unique", "NonMaxSuppression", "ImageDecoder", "StringNormalizer", "StringSplit", "RegexFullMatch"}
)
"""Operators that make as much as their data tell."""
EMPTY = ("zero", "empty", "allowzero", "loop11", "scan_sum")
"""Cases without elements, those whose state grows, and the batched Scan of opset 8."""
Expected = tuple[onnx.ModelProto, dict[str, tuple[int, ...]]]


@cache
def bare() -> Mapping[str, list[Expected]]:
    """Operator -> calls without declared shapes but for those of the inputs, and the shapes that they make."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        collected = collect_testcases(None)
    found: defaultdict[str, list[Expected]] = defaultdict(list)
    for case in collected:
        (node, *more) = case.model.graph.node
        if more or any(word in case.name for word in EMPTY):
            continue
        model = onnx.ModelProto()
        model.CopyFrom(case.model)
        inputs, outputs = case.data_sets[0]
        _store(model, node.op_type, inputs)
        for info in model.graph.output:
            info.type.tensor_type.ClearField("shape")
        shapes = {info.name: np.shape(v) for info, v in zip(model.graph.output, outputs, strict=True) if _plain(v)}
        found[f"{node.domain}.{node.op_type}" if node.domain else node.op_type].append((model, shapes))
    return found


def _plain(value: Any) -> bool:
    return isinstance(value, (np.ndarray, np.generic))


def _store(model: onnx.ModelProto, op: str, inputs: Sequence[Any]) -> None:
    """Store what says a shape: short lists of integers, and the numbers of operators that are told sizes so."""
    kept = []
    for info, given in zip(list(model.graph.input), inputs, strict=False):
        value = np.asarray(given) if _plain(given) else None
        told = value is not None and value.ndim < 2 and value.size < 20
        if value is not None and told and (value.dtype.kind in "iub" or op in SIZES):
            model.graph.initializer.append(numpy_helper.from_array(value, info.name))
        else:
            kept.append(info)
    del model.graph.input[:], model.graph.value_info[:]
    model.graph.input.extend(kept)


@pytest.mark.parametrize("op", sorted(set(bare()) - BY_DATA))
def test_shapes_of_operators_that_declare_none(op, tmp_path):
    for model, shapes in bare()[op]:
        onnx.save(model, tmp_path / "call.onnx")
        found = load(tmp_path / "call.onnx").shapes
        assert {name: found.get(name) for name in shapes} == shapes


ML: list[tuple[str, dict[str, Any]]] = [
    ("Scaler", {"offset": [0.5], "scale": [2.0]}),
    ("Scaler", {"offset": [0.1, 0.2, 0.3, 0.4], "scale": [1.0, 2.0, 3.0, 0.5]}),
    *(("Normalizer", {"norm": word}) for word in ("MAX", "L1", "L2")),
    ("Imputer", {"imputed_value_floats": [0.5], "replaced_value_float": float("nan")}),
    ("Imputer", {"imputed_value_floats": [1.0, 2.0, 3.0, 4.0], "replaced_value_float": float("nan")}),
    ("Binarizer", {"threshold": 0.1}),
    ("LinearRegressor", {"coefficients": [float(k % 5) for k in range(8)], "intercepts": [0.1, 0.2], "targets": 2}),
    ("LinearRegressor", {"coefficients": [1.0, -1.0, 0.5, 2.0], "post_transform": "LOGISTIC"}),
    (
        "LinearClassifier",
        {
            "coefficients": [float(k % 7) for k in range(12)],
            "intercepts": [0.0, 0.1, 0.2],
            "classlabels_ints": [0, 1, 2],
            "post_transform": "SOFTMAX",
            "multi_class": 1,
        },
    ),
    ("FeatureVectorizer", {"inputdimensions": [4]}),
    (
        "TreeEnsembleRegressor",
        {
            "nodes_treeids": [0, 0, 0],
            "nodes_nodeids": [0, 1, 2],
            "nodes_featureids": [0, 0, 0],
            "nodes_modes": ["BRANCH_LEQ", "LEAF", "LEAF"],
            "nodes_values": [0.0, 0.0, 0.0],
            "n_targets": 1,
            "nodes_truenodeids": [1, 0, 0],
            "nodes_falsenodeids": [2, 0, 0],
            "target_treeids": [0, 0],
            "target_nodeids": [1, 2],
            "target_ids": [0, 0],
            "target_weights": [1.0, 2.0],
        },
    ),
]
"""Operators of ai.onnx.ml on four features."""


def behind(op: str, attributes: dict[str, Any], path: Path) -> Path:
    """Write a perceptron whose four hidden units an operator of ai.onnx.ml reads."""
    rng = np.random.default_rng(3)
    weights = {"a": rng.normal(size=(3, 4)), "b": rng.normal(size=(4, 4)), "c": rng.normal(size=(4,))}
    outputs = ["label", "y"] if op.endswith("Classifier") else ["y"]
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["u"]),
        helper.make_node("Tanh", ["u"], ["v"]),
        helper.make_node("Gemm", ["v", "b", "c"], ["w"]),
        helper.make_node(op, ["w"], outputs, domain="ai.onnx.ml", **attributes),
    ]
    tensors = [numpy_helper.from_array(v.astype(np.float32), n) for n, v in weights.items()]
    infos = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [5, 3])]
    made = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "behind", infos, made, tensors)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), path)
    return path


@pytest.mark.parametrize(("op", "attributes"), ML, ids=lambda x: x if isinstance(x, str) else "")
def test_networks_before_operators_of_classical_learning_are_understood(op, attributes, tmp_path):
    path = behind(op, attributes, tmp_path / "net.onnx")
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    (made,) = session.run(["y"], {"x": np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)})
    model = load(path)
    assert model.shapes["y"] == made.shape
    found = infer(model)
    assert found.coverage.opaque == 0
    assert found.coverage.covered >= 28  # of the bias alone all may be pinned
    assert refuted(path) == []


NORMS = {
    "GroupNormalization": ("n = GroupNormalization<num_groups = 2, epsilon = 0.1>(r, g, h)", {"g": (4,), "h": (4,)}),
    "MeanVarianceNormalization": ("n = MeanVarianceNormalization(r)", {}),
    "LpNormalization": ("n = LpNormalization<axis = 1>(r)", {}),
    "training BatchNormalization": (
        "n, m, s = BatchNormalization<training_mode = 1, epsilon = 0.1>(r, g, h, mean, var)",
        {"g": (4,), "h": (4,), "mean": (4,), "var": (4,)},
    ),
}


@pytest.mark.parametrize("name", NORMS)
def test_what_stands_behind_a_norm_without_declared_shapes_is_reached(name, tmp_path):
    text, more = NORMS[name]
    net = Net(
        f"u = Conv(x, a, p) r = Relu(u) {text} v = Conv(n, b, q) w = Relu(v) y = Conv(w, c)",
        {"a": (4, 2, 3, 3), "p": (4,), **more, "b": (5, 4, 1, 1), "q": (5,), "c": (2, 5, 1, 1)},
        {"x": (2, 7, 7)},
        4,
        0,
    )
    model = net.model("float32", net.values())
    model.opset_import[0].version = 21 if name == "GroupNormalization" else 17
    onnx.save(model, path := tmp_path / "net.onnx")
    coverage = infer(load(path)).coverage
    assert coverage.covered == coverage.total
    assert refuted(path) == []


STANDARDISED = {
    ("training_mode = 1, epsilon = 0.001", 17),
    ("epsilon = 0.001", 9),  # there more outputs than one tell that it learns
}


@pytest.mark.parametrize(("attributes", "opset"), sorted(STANDARDISED))
def test_filters_that_a_batch_normalisation_standardises_are_reached(attributes, opset, tmp_path):
    outputs = "n, m, s" if opset > 13 else "n, m, s, t, o"
    net = Net(
        f"""
        r = Reshape(a, flat) {outputs} = BatchNormalization<{attributes}>(r, g, h, mean, var)
        w = Reshape(n, back) u = Conv(x, w, p) v = Relu(u) y = Conv(v, b, q)
        """,
        {
            "a": (6, 2, 3, 3),
            "g": (6,),
            "h": (6,),
            "mean": (6,),
            "var": (6,),
            "p": (6,),
            "b": (2, 6, 1, 1),
            "q": (2,),
        },
        {"x": (2, 7, 7)},
        4,
        0,
        {"flat": [1, 6, 18], "back": [6, 2, 3, 3]},
    )
    model = net.model("float32", net.values())
    model.opset_import[0].version = opset
    onnx.save(model, path := tmp_path / "net.onnx")
    found = infer(load(path))
    assert (found.coverage.opaque, found.coverage.total - found.coverage.covered) == (0, 2)
    assert {g.kind for g in found.generators} >= {"permutation", "rescaling"}
    assert not {n for g in found.generators for n in g.tensors} & {"mean", "var"}
    if opset > 13:  # what onnxruntime can run
        assert refuted(path) == []


@pytest.mark.parametrize("block", [2, 3])
def test_blocks_of_a_picture_of_any_size_divide_it(block, tmp_path):
    net = Net(
        f"""
        u = Conv(x, a) r = Relu(u) s = SpaceToDepth<blocksize = {block}>(r) v = Conv(s, b) t = Tanh(v)
        w = DepthToSpace<blocksize = {block}, mode = "CRD">(t) y = Conv(w, c)
        """,
        {"a": (3, 2, 1, 1), "b": (4 * block**2, 3 * block**2, 1, 1), "c": (2, 4, 1, 1)},
        {"x": (2, 6, 6)},
        4,
        0,
    )
    model = net.model("float32", net.values())
    for axis, word in ((2, "height"), (3, "width")):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = word
    onnx.save(model, path := tmp_path / "net.onnx")
    found = load(path)
    assert not [name for node in found.graph.nodes for name in node.outputs if name not in found.shapes]
    assert infer(found).coverage.covered == infer(found).coverage.total
    assert refuted(path) == []


def recurrent(op: str, declared: Sequence[int] | None, path: Path) -> Path:
    """Write a recurrence whose states are inputs with dimensions of other names than its batch, which is 1."""
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op]
    rng = np.random.default_rng(2)
    shapes = {"w": (1, gates * 4, 3), "r": (1, gates * 4, 4), "b": (1, gates * 8), "o": (4, 2)}
    states = ["h", "c"] if op == "LSTM" else ["h"]
    nodes = [
        helper.make_node(op, ["x", "w", "r", "b", "", *states], ["z", *(f"{s}n" for s in states)], hidden_size=4),
        helper.make_node("Squeeze", ["z", "one"], ["s"]),
        helper.make_node("MatMul", ["s", "o"], ["y"]),
    ]
    tensors = [numpy_helper.from_array(rng.normal(size=s).astype(np.float32), n) for n, s in shapes.items()]
    tensors.append(numpy_helper.from_array(np.array([1]), "one"))
    kind = TensorProto.FLOAT
    infos = [helper.make_tensor_value_info("x", kind, ["time", 1, 3])]
    infos += [helper.make_tensor_value_info(s, kind, [1, f"batch of {s}", 4]) for s in states]
    made = [helper.make_tensor_value_info("y", kind, ["length", "any", 2])]
    told = [helper.make_tensor_value_info("z", kind, declared)] if declared else []
    graph = helper.make_graph(nodes, "recurrent", infos, made, tensors, value_info=told)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8), path)
    return path


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_every_state_of_a_recurrence_has_its_batch(op, tmp_path):
    model = load(recurrent(op, None, tmp_path / "net.onnx"))
    states = [n for n in model.shapes if n in ("h", "c")]
    assert {model.shapes[n] for n in states} == {(1, 1, 4)}
    assert infer(model).coverage.opaque == 0


def test_what_an_operator_makes_wins_over_what_a_file_declares(tmp_path):
    model = load(recurrent("LSTM", [1, 9, 1, 5], tmp_path / "net.onnx"))
    assert model.shapes["z"][1:] == (1, 1, 4)
    assert infer(model).coverage.opaque == 0
    (note,) = model.notes
    assert note.startswith("the file declares 'z' as [1, 9, 1, 5], and it is [")
    assert load(recurrent("LSTM", [9, 1, 1, 4], tmp_path / "static.onnx")).notes == ()


CUTS = {
    "Split": "rest = Sub(rows, n) sizes = Concat<axis = 0>(n, rest) first, other = Split<axis = 0>(p, sizes)",
    "Pad": "less = Sub(n, rows) pads = Concat<axis = 0>(zero, zero, less, zero) first = Pad(p, pads)",
    "Slice": "first = Slice(p, zero, n, zero)",
    "SplitToSequence": """
        rest = Sub(rows, n) sizes = Concat<axis = 0>(n, rest) parts = SplitToSequence<axis = 0>(p, sizes)
        first = SequenceAt(parts, front)
    """,
}


@pytest.mark.parametrize("op", CUTS)
def test_a_table_that_is_cut_at_a_length_of_the_run_is_not_taken_apart(op, tmp_path):
    """However many rows are summed, those are no units of their own."""
    net = Net(
        f"""
        n = Shape<start = 0, end = 1>(x) {CUTS[op]} s = ReduceSum<keepdims = 0>(first, zero) u = MatMul(x, a)
        y = Add(u, s)
        """,
        {"a": (3, 4), "p": (20, 4)},
        {"x": (3,)},
        2,
        0,
        {"rows": [20], "zero": [0], "front": 0},
    )
    onnx.save(net.model("float32", net.values()), path := tmp_path / "net.onnx")
    assert not [g for g in infer(load(path)).generators if g.kind == "permutation" and "p" in g.tensors]


PLAIN, JOINED = "o = Relu(i)", "o = Concat<axis = 1>(i, v)"
MADE_OF_LISTS = {
    "mapped alike": (f"SequenceMap<body = inner (float[m, n] i) => (float[m, n] o) {{ {PLAIN} }}>(even)", 6),
    "mapped apart": (f"SequenceMap<body = inner (float[m, n] i) => (float[m, n] o) {{ {PLAIN} }}>(odd)", 6),
    "mapped beside a tensor": (
        f"SequenceMap<body = inner (float[m, n] i, float[m, k] v) => (float[m, l] o) {{ {JOINED} }}>(odd, h)",
        18,
    ),
    "erased": ("SequenceErase(odd, place)", 4),
    "last erased": ("SequenceErase(odd)", 2),
}


@pytest.mark.parametrize("name", MADE_OF_LISTS)
def test_what_becomes_of_the_elements_of_a_sequence_is_known(name, tmp_path):
    """Each element has a shape of its own behind a body, and so has what they make together."""
    call, width = MADE_OF_LISTS[name]
    model = onnx.parser.parse_model(
        f"""
        <ir_version: 8, opset_import: ["" : 18]>
        net (float[rows, 5] x) => (float[rows, 3] y)
        <float[5, 6] a, float[{width}, 3] b, int64[2] sizes = {{2, 4}}, int64[2] halves = {{3, 3}}, int64 place = {{0}}>
        {{
            h = MatMul(x, a)
            p, q = Split<axis = 1>(h, sizes)
            r, s = Split<axis = 1>(h, halves)
            odd = SequenceConstruct(p, q)
            even = SequenceConstruct(r, s)
            made = {call}
            z = ConcatFromSequence<axis = 1>(made)
            y = MatMul(z, b)
        }}
        """
    )
    rng = np.random.default_rng(0)
    for tensor in ("a", "b"):
        shape = (5, 6) if tensor == "a" else (width, 3)
        model.graph.initializer.append(numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), tensor))
    onnx.save(model, path := tmp_path / "net.onnx")
    assert infer(load(path)).opaque == ()
    assert refuted(path) == []
