"""Files become models: what is refused, what is unified, which shapes and values are known."""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from corpora import ROOT, SHARED
from onnx import TensorProto, helper, numpy_helper

from symlint.audit.engine import Run, audit
from symlint.cli.main import cli
from symlint.lint.finding import Level
from symlint.lint.rule import Rule
from symlint.lint.settings import Settings
from symlint.model.errors import UnreadableModel
from symlint.model.graph import Graph, Model
from symlint.model.load import load
from symlint.model.shapes.known import evaluate, reference
from symlint.model.stored import Reader

FLOAT = TensorProto.FLOAT
Save = Callable[..., Path]


def value(name: str, shape: Sequence[int | str | None] | None, dtype: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def stored(name: str, shape: Sequence[int], dtype: type = np.float32) -> onnx.TensorProto:
    size = int(np.prod(shape))
    return numpy_helper.from_array(np.arange(1, size + 1).reshape(shape).astype(dtype), name)


def network(
    nodes: Iterable[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[str],
    tensors: Sequence[onnx.TensorProto] = (),
    opset: int = 17,
    **more: Any,
) -> onnx.ModelProto:
    graph = helper.make_graph(list(nodes), "g", inputs, [value(name, None) for name in outputs], tensors)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10, **more)


def linear() -> onnx.ModelProto:
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "product")
    return network([node], [value("x", ["batch", 4])], ["y"], [stored("w", (4, 3))])


@pytest.fixture
def save(tmp_path: Path) -> Save:
    def write(model: onnx.ModelProto | bytes, name: str = "model.onnx") -> Path:
        path = tmp_path / name
        path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
        return path

    return write


def refusal(path: Path) -> UnreadableModel:
    with pytest.raises(UnreadableModel) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return caught.value


def ops(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes]


def test_a_small_model(save: Save) -> None:
    path = save(linear())
    model = load(path)
    assert (model.path, model.opset) == (str(path), 17)
    assert model.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert model.shapes == {"x": (7, 4), "w": (4, 3), "y": (7, 3)}
    assert model.dtypes["y"] == "float32"
    assert model.symbols == {"batch": 7}
    assert model.notes == ()
    assert not model.constants
    np.testing.assert_array_equal(model.tensors["w"].read(), np.arange(1, 13).reshape(4, 3))
    (node,) = model.graph.nodes
    assert (node.op, node.name, node.inputs, node.outputs, node.opset) == ("MatMul", "product", ("x", "w"), ("y",), 17)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "JPEG"),
        (b"PK\x03\x04rest of an archive", "zip"),
        (pickle.dumps({"weight": [1.0, 2.0]}), "pickle"),
        (b"just some words\n", "text"),
        (bytes(np.random.default_rng(0).integers(0, 256, 4096, np.uint8)), "could not be parsed as ONNX"),
        (helper.make_model(helper.make_graph([], "g", [], [])).SerializeToString(), "no output"),
        (onnx.ModelProto(ir_version=8).SerializeToString(), "no graph"),
    ],
)
def test_what_is_no_model_is_named(save: Save, content: bytes, words: str) -> None:
    error = refusal(save(content))
    assert words in error.reason
    assert error.code == ("SYM002" if "lfs" in words else "SYM001")


def test_paths_that_are_no_file(tmp_path: Path) -> None:
    assert "directory" in refusal(tmp_path).reason
    assert refusal(tmp_path / "absent.onnx").reason == "no such file"


def test_every_truncation_is_refused(save: Save) -> None:
    model = linear()
    del model.opset_import[1:]  # a file that ends between two of these is whole
    data = model.SerializeToString()
    for end in range(1, len(data)):
        refusal(save(data[:end]))
    assert "ends early" in refusal(save(data[:60])).reason


def test_damage_never_escapes_as_another_error(save: Save) -> None:
    data, random = bytearray(linear().SerializeToString()), np.random.default_rng(1)
    for _ in range(300):
        damaged = bytearray(data)
        for place in random.integers(0, len(data), 3):
            damaged[place] = random.integers(0, 256)
        try:
            load(save(bytes(damaged)))
        except UnreadableModel:
            continue


def _undefined(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = "nowhere"


def _cycle(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Relu", ["b"], ["a"]))
    model.graph.node.append(helper.make_node("Relu", ["a"], ["b"]))


def _two_outputs(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Relu", ["x"], ["y"]))


def _two_initializers(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(stored("w", (4, 3)))


def _negative(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[:] = [-4, -3]


def _short(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-4]


def _long(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].raw_data += b"\0" * 4


def _huge(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].dims[:] = [2**40, 2**40]
    model.graph.initializer[0].ClearField("raw_data")


def _undefined_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].name = "nowhere"


def _element_type(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].data_type = 99


def _no_opset(model: onnx.ModelProto) -> None:
    del model.opset_import[:]


def _recursion(model: onnx.ModelProto) -> None:
    call = helper.make_node("Again", ["a"], ["b"], domain="own")
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    model.functions.append(helper.make_function("own", "Again", ["a"], ["b"], [call], imports))


def _explosion(model: onnx.ModelProto) -> None:
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    for level in range(40):
        inner = ("Relu", "") if not level else (f"F{level - 1}", "own")
        calls = [helper.make_node(inner[0], [a], [b], domain=inner[1]) for a, b in (("a", "m"), ("m", "b"))]
        model.functions.append(helper.make_function("own", f"F{level}", ["a"], ["b"], calls, imports))
    model.graph.node.append(helper.make_node("F39", ["y"], ["z"], domain="own"))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_undefined, "'nowhere'"),
        (_undefined_output, "'nowhere'"),
        (_cycle, "cycle"),
        (_two_outputs, "'y' twice"),
        (_two_initializers, "named 'w'"),
        (_negative, "negative"),
        (_short, "44 bytes; expected 48"),
        (_long, "52 bytes; expected 48"),
        (_huge, "0 numbers"),
        (_element_type, "type 99"),
        (_no_opset, "opset_import"),
        (_recursion, "circle"),
        (_explosion, "unfold"),
    ],
)
def test_a_flawed_structure_is_refused(save: Save, damage: Callable[[onnx.ModelProto], None], words: str) -> None:
    model = linear()
    damage(model)
    assert words in refusal(save(model)).reason


def external(save: Save, location: str, **entries: int) -> Path:
    model = linear()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, text in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(text))
    return save(model)


def test_external_data_are_read(save: Save, tmp_path: Path) -> None:
    path = external(save, "w.bin", offset=8, length=48)
    weights = np.arange(12, dtype=np.float32)
    (tmp_path / "w.bin").write_bytes(b"\0" * 8 + weights.tobytes())
    os.link(tmp_path / "w.bin", tmp_path / "w.again")  # caches hold hard links
    tensor = load(path).tensors["w"]
    np.testing.assert_array_equal(tensor.read(), weights.reshape(4, 3))
    assert not tensor.read().flags.writeable


def test_missing_external_data(save: Save) -> None:
    error = refusal(external(save, "w.bin"))
    assert error.code == "SYM003"
    assert "'w.bin'" in error.reason


@pytest.mark.parametrize("location", ["../w.bin", "sub/../../w.bin", "/etc/hostname", "", "..\\w.bin"])
def test_external_data_outside_of_the_folder(save: Save, location: str) -> None:
    assert refusal(external(save, location)).code == "SYM001"


def test_a_link_out_of_the_folder(save: Save, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "w.bin"
    outside.write_bytes(b"\0" * 48)
    (tmp_path / "w.bin").symlink_to(outside)
    error = refusal(external(save, "w.bin"))
    assert error.code == "SYM001"
    assert "outside" in error.reason


@pytest.mark.parametrize("entries", [{"offset": 4}, {"offset": -4}, {"length": 44}, {"offset": 2**62}])
def test_external_data_of_another_size(save: Save, tmp_path: Path, entries: dict[str, int]) -> None:
    (tmp_path / "w.bin").write_bytes(b"\0" * 48)
    assert "external" in refusal(external(save, "w.bin", **entries)).reason


def test_identities_are_followed(save: Save) -> None:
    nodes = [
        helper.make_node("Identity", ["w"], ["v"]),
        helper.make_node("Identity", ["v"], ["u"]),
        helper.make_node("MatMul", ["x", "u"], ["m"]),
        helper.make_node("Identity", ["m"], ["y"]),
        helper.make_node("Relu", ["y"], ["z"]),
    ]
    model = load(save(network(nodes, [value("x", [2, 3])], ["y", "z"], [stored("w", (3, 3))])))
    assert ops(model.graph) == ["MatMul", "Identity", "Relu"]
    assert model.graph.nodes[0].inputs == ("x", "w")
    assert model.graph.nodes[2].inputs == ("m",)


def test_weights_among_the_inputs(save: Save) -> None:
    model = linear()
    model.graph.input.append(value("w", [4, 3]))
    loaded = load(save(model))
    assert loaded.graph.inputs == ("x",)
    assert list(loaded.tensors) == ["w"]


def test_weights_in_constant_nodes(save: Save) -> None:
    nodes = [
        helper.make_node("Constant", [], ["w"], value=stored("inner", (4, 3))),
        helper.make_node("Constant", [], ["half"], value_float=0.5),
        helper.make_node("Constant", [], ["axes"], value_ints=[0]),
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Mul", ["m", "half"], ["n"]),
        helper.make_node("Unsqueeze", ["n", "axes"], ["y"]),
    ]
    model = load(save(network(nodes, [value("x", [2, 4])], ["y"])))
    assert ops(model.graph) == ["MatMul", "Mul", "Unsqueeze"]
    assert {name: tensor.shape for name, tensor in model.tensors.items()} == {"w": (4, 3), "half": (), "axes": (1,)}
    assert set(model.constants) == {"half", "axes"}
    assert model.shapes["y"] == (1, 2, 3)


def test_functions_are_inlined_with_their_own_opset(save: Save) -> None:
    body = [
        helper.make_node("Constant", [], ["axes"], value_ints=[0]),
        helper.make_node("MatMul", ["a", "b"], ["m"]),
        helper.make_node("ReduceSum", ["m", "axes"], ["c"], keepdims=0),
    ]
    function = helper.make_function("own", "Layer", ["a", "b"], ["c"], body, [helper.make_opsetid("", 13)])
    calls = [
        helper.make_node("Layer", ["x", "w"], ["p"], domain="own"),
        helper.make_node("Layer", ["x", "w"], ["q"], domain="own"),
        helper.make_node("Add", ["p", "q"], ["y"]),
    ]
    model = load(save(network(calls, [value("x", ["n", 4])], ["y"], [stored("w", (4, 3))], functions=[function])))
    assert ops(model.graph) == ["MatMul", "ReduceSum", "MatMul", "ReduceSum", "Add"]
    assert [node.opset for node in model.graph.nodes] == [13, 13, 13, 13, 17]
    assert model.shapes["y"] == (3,)


def test_nodes_out_of_order(save: Save) -> None:
    nodes = [
        helper.make_node("Relu", ["b"], ["y"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Relu", ["x"], ["a"]),
    ]
    model = load(save(network(nodes, [value("x", [2])], ["y"])))
    assert [node.outputs[0] for node in model.graph.nodes] == ["a", "b", "y"]


def test_shape_arithmetic_is_folded(save: Save) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"]),
        helper.make_node("Unsqueeze", ["n", "axis"], ["n1"]),
        helper.make_node("Concat", ["n1", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["r"]),
        helper.make_node("Transpose", ["r"], ["y"], perm=[0, 2, 1]),
    ]
    integers = {"zero": np.array(0), "axis": np.array([0]), "rest": np.array([2, -1])}
    tensors = [numpy_helper.from_array(array.astype(np.int64), name) for name, array in integers.items()]
    model = load(save(network(nodes, [value("x", [None, 6])], ["y"], tensors)))
    assert model.shapes["y"] == (7, 3, 2)
    assert model.symbols == {"x[0]": 7}
    np.testing.assert_array_equal(model.constants["target"], [7, 2, -1])


def test_primes_divide_no_weight_dimension(save: Save) -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    model = load(save(network([node], [value("x", ["batch", 77])], ["y"], [stored("w", (77, 13))])))
    assert model.symbols == {"batch": 17}


def test_a_dimension_that_the_network_ties(save: Save) -> None:
    nodes = [helper.make_node("Add", ["x", "table"], ["a"]), helper.make_node("Add", ["a", "z"], ["y"])]
    inputs = [value("x", ["batch", "tokens", 4]), value("z", ["other", 1, 4])]
    model = load(save(network(nodes, inputs, ["y"], [stored("table", (10, 4))])))
    assert model.symbols == {"batch": 7, "tokens": 10, "other": 7}
    assert model.shapes["y"] == (7, 10, 4)


def test_a_dimension_that_is_a_formula(save: Save) -> None:
    node = helper.make_node("Concat", ["past", "x"], ["y"], axis=1)
    inputs = [value("past", ["b", "p", 4]), value("x", ["b", "s", 4]), value("mask", ["b", "p + s"])]
    model = load(save(network([node], inputs, ["y"])))
    assert model.shapes["mask"] == model.shapes["y"][:2]


def test_a_flattened_picture_needs_one_size(save: Save) -> None:
    nodes = [
        helper.make_node("MaxPool", ["x"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w"], ["y"]),
    ]
    model = load(save(network(nodes, [value("x", ["n", 1, "h", "w_"])], ["y"], [stored("w", (64, 5))])))
    assert model.symbols == {"n": 7, "h": 16, "w_": 16}
    assert model.shapes["y"] == (7, 5)


def test_a_network_that_fits_no_size_is_read_all_the_same(save: Save) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["m"]), helper.make_node("Relu", ["x"], ["y"])]
    model = load(save(network(nodes, [value("x", ["n", 5])], ["m", "y"], [stored("w", (4, 3))])))
    assert model.shapes["y"] == (7, 5)
    assert "m" not in model.shapes
    assert "MatMul" in model.notes[0]


def test_dimensions_that_depend_on_data(save: Save) -> None:
    nodes = [helper.make_node("NonZero", ["x"], ["i"]), helper.make_node("Transpose", ["i"], ["y"])]
    model = load(save(network(nodes, [value("x", [3, 3])], ["y"])))
    assert model.shapes["y"] == (7, 2)
    assert model.symbols == {"i[1]": 7}
    assert "depends on data" in model.notes[0]


def listed(count: str, sizes: Sequence[int]) -> list[onnx.NodeProto]:
    """The places of what is not zero in x, split as the file says, and their number."""
    return [
        helper.make_node("NonZero", ["x"], [f"i{count}"]),
        helper.make_node("Transpose", [f"i{count}"], [f"t{count}"]),
        helper.make_node("Split", [f"t{count}", f"s{count}"], [f"p{count}{k}" for k in range(len(sizes))], axis=0),
        helper.make_node("Shape", [f"i{count}"], [f"n{count}"]),
    ]


def test_what_reads_them_says_dimensions_that_depend_on_data(save: Save) -> None:
    sizes = {"a": [1, 2], "b": [1, 1, 1, 1], "c": [5]}
    nodes = [node for count, parts in sizes.items() for node in listed(count, parts)]
    tensors = [numpy_helper.from_array(np.array(parts, np.int64), f"s{count}") for count, parts in sizes.items()]
    model = load(save(network(nodes, [value("x", [3, 3])], ["pa0", "nb"], tensors)))
    assert model.symbols == {f"i{count}[1]": sum(parts) for count, parts in sizes.items()}
    assert [model.shapes[name] for name in ("pa0", "pa1", "pb3", "pc0")] == [(1, 2), (2, 2), (1, 2), (5, 2)]
    assert len(model.notes) == len(sizes)


def test_numbers_that_data_tell_are_known_at_run_time_only(save: Save) -> None:
    nodes = [helper.make_node("NonZero", ["x"], ["i"]), helper.make_node("Shape", ["i"], ["n"])]
    nodes += [helper.make_node("Shape", ["x"], ["fixed"]), helper.make_node("Concat", ["n", "fixed"], ["y"], axis=0)]
    model = load(save(network(nodes, [value("x", [3, 3])], ["y"])))
    assert model.constants["n"].tolist() == [2, 7]
    assert model.moving == {"n", "y"}


def test_floating_weights_are_no_constants(save: Save) -> None:
    nodes = [helper.make_node("Sqrt", ["w"], ["r"]), helper.make_node("Add", ["x", "r"], ["y"])]
    model = load(save(network(nodes, [value("x", [3])], ["y"], [stored("w", (3,))])))
    assert not model.constants


def test_small_floats_may_say_a_shape(save: Save) -> None:
    nodes = [
        helper.make_node("Mul", ["scales", "scales"], ["squared"]),
        helper.make_node("Resize", ["x", "", "squared"], ["y"], mode="nearest"),
    ]
    scales = numpy_helper.from_array(np.array([1, 1, 2, 3], np.float32), "scales")
    model = load(save(network(nodes, [value("x", [1, 2, 5, 5])], ["y"], [scales])))
    assert model.shapes["y"] == (1, 2, 20, 45)
    assert "squared" not in model.constants


def test_quantised_weights_are_no_constants(save: Save) -> None:
    nodes = [
        helper.make_node("Transpose", ["q"], ["t"]),
        helper.make_node("DequantizeLinear", ["t", "scale"], ["w"]),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    scale = numpy_helper.from_array(np.array(0.1, np.float32), "scale")
    model = load(save(network(nodes, [value("x", [2, 4])], ["y"], [stored("q", (3, 4), np.int8), scale])))
    assert set(model.constants) == {"scale"}
    assert (model.dtypes["t"], model.shapes["y"]) == ("int8", (2, 3))


@pytest.mark.parametrize(
    ("op", "tensors", "known"),
    [
        ("QEmbedLayerNormalization", {"words": (5, 4), "places": (6, 4), "gain": (4,), "shift": (4,)}, set()),
        ("MatMulFpQ4", {"blob": (160,), "size": np.array([32, 6])}, {"size"}),
        ("NhwcMaxPool", {"picture": (1, 4, 4, 3)}, set()),
    ],
)
def test_weights_of_onnxruntime_are_no_constants(save: Save, op: str, tensors: dict[str, Any], known: set[str]) -> None:
    """What it packs or looks up is learned; the shape of a packed matrix is known."""
    held = [
        numpy_helper.from_array(item, name) if isinstance(item, np.ndarray) else stored(name, item, np.uint8)
        for name, item in tensors.items()
    ]
    node = helper.make_node(op, ["x", *tensors], ["y"], domain="com.microsoft")
    assert set(load(save(network([node], [value("x", [1, 3])], ["y"], held))).constants) == known


def test_large_results_are_not_computed(save: Save) -> None:
    nodes = [helper.make_node("ConstantOfShape", ["s"], ["big"]), helper.make_node("Add", ["x", "big"], ["y"])]
    sizes = numpy_helper.from_array(np.array([2**20, 2**20], np.int64), "s")
    model = load(save(network(nodes, [value("x", [1])], ["y"], [sizes])))
    assert model.shapes["y"] == (2**20, 2**20)
    assert set(model.constants) == {"s"}


def test_bodies_are_graphs_with_unique_names(save: Save) -> None:
    branches = {}
    for key, width in (("then_branch", 3), ("else_branch", 3)):
        nodes = [helper.make_node("Identity", ["w"], ["v"]), helper.make_node("MatMul", ["x", "v"], ["out"])]
        tensors = [stored("w", (4, width))]
        branches[key] = helper.make_graph(nodes, key, [], [value("out", None)], tensors)
    nodes = [
        helper.make_node("If", ["c"], ["i"], "choice", **branches),
        helper.make_node("Add", ["i", "w"], ["y"]),
    ]
    inputs = [value("x", ["n", 4]), value("c", [], TensorProto.BOOL)]
    model = load(save(network(nodes, inputs, ["y"], [stored("w", (3,))])))
    assert set(model.tensors) == {"w", "choice/then_branch/w", "choice/else_branch/w"}
    body = model.graph.nodes[0].attributes["else_branch"]
    assert isinstance(body, Graph)
    assert body.nodes[0].inputs == ("x", "choice/else_branch/w")
    assert model.shapes[body.outputs[0]] == model.shapes["y"] == (7, 3)


def test_loops(save: Save) -> None:
    nodes = [
        helper.make_node("MatMul", ["state", "w"], ["next"]),
        helper.make_node("Identity", ["go"], ["on"]),
        helper.make_node("Relu", ["next"], ["seen"]),
    ]
    types = [value("i", [], TensorProto.INT64), value("go", [], TensorProto.BOOL), value("state", None)]
    body = helper.make_graph(nodes, "body", types, [value(name, None) for name in ("on", "next", "seen")])
    loop = helper.make_node("Loop", ["trips", "", "x"], ["last", "all"], body=body)
    trips = numpy_helper.from_array(np.array(5, np.int64), "trips")
    tensors = [trips, stored("w", (4, 4))]
    model = load(save(network([loop], [value("x", ["n", 4])], ["last", "all"], tensors)))
    assert (model.shapes["last"], model.shapes["all"]) == ((7, 4), (5, 7, 4))


def test_fused_and_unknown_operators(save: Save) -> None:
    nodes = [
        helper.make_node("FusedMatMul", ["x", "w"], ["a"], domain="com.microsoft", transB=1),
        helper.make_node("Gelu", ["a"], ["b"], domain="com.microsoft"),
        helper.make_node("Strange", ["b"], ["c"], domain="own"),
        helper.make_node("Strange", ["b"], ["d"], domain="own"),
    ]
    proto = network(nodes, [value("x", ["n", 4])], ["c", "d"], [stored("w", (3, 4))])
    proto.graph.output[0].CopyFrom(value("c", ["n", 9]))
    model = load(save(proto))
    assert ops(model.graph)[:3] == ["com.microsoft.FusedMatMul", "com.microsoft.Gelu", "own.Strange"]
    assert (model.shapes["b"], model.shapes["c"]) == ((7, 3), (7, 9))
    assert "d" not in model.shapes
    assert len(model.notes) == 1


def test_an_output_that_is_a_table_is_audited_proven_and_written(save: Save, tmp_path: Path) -> None:
    """Classifiers of scikit-learn give their probabilities by name."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("MatMul", ["h", "v"], ["s"]),
        helper.make_node("ZipMap", ["s"], ["y"], domain="ai.onnx.ml", classlabels_int64s=[0, 1, 2]),
    ]
    model = network(nodes, [value("x", ["n", 4])], ["y"], [stored("w", (4, 5)), stored("v", (5, 3))])
    model.opset_import.add(domain="ai.onnx.ml", version=1)
    table = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(FLOAT, []))
    model.graph.output[0].type.CopyFrom(helper.make_sequence_type_proto(table))
    path = save(model)
    assert load(path).shapes["s"] == (7, 3)
    out, mended = tmp_path / "out.onnx", tmp_path / "mended.onnx"
    for command in (["verify"], ["teleport", "-o", str(out)], ["verify", str(out)], ["fix", "-o", str(mended)]):
        done = CliRunner().invoke(cli, [*command, str(path)])
        assert done.exit_code == 0, done.output
    for written in map(onnx.load, (out, mended)):
        assert written.graph.output == model.graph.output
        onnx.checker.check_model(written)


def test_an_opset_from_the_future(save: Save) -> None:
    model = linear()
    model.opset_import[0].version = 999
    loaded = load(save(model))
    assert loaded.shapes["y"] == (7, 3)
    assert "999" in loaded.notes[0]


def large(rows: int = 64) -> onnx.ModelProto:
    """A product with a table that is large enough to stay in the file."""
    tensors = [stored("w", (4, rows)), stored("v", (rows, 8))]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("MatMul", ["h", "v"], ["y"])]
    return network(nodes, [value("x", ["batch", 4])], ["y"], tensors)


def test_large_weights_are_read_when_asked_for_and_once(save: Save) -> None:
    model = load(save(large()))
    assert model.weights is not None
    assert model.weights.bytes_read == 0
    for _ in range(3):
        np.testing.assert_array_equal(model.tensors["v"].read(), np.arange(1, 513).reshape(64, 8))
        assert not model.tensors["v"].read().flags.writeable
    assert list(model.weights.reads.values()) == [1]
    assert model.weights.bytes_read == 4 * 512


def test_weights_beyond_the_budget_are_not_kept(save: Save) -> None:
    model = load(save(large()), budget=2048)
    assert model.weights is not None
    for name in ("w", "v", "w", "v", "v"):
        model.tensors[name].read()
    assert sorted(model.weights.reads.values()) == [2, 2]
    model = load(save(large()), budget=0)
    assert model.weights is not None
    for _ in range(2):
        model.tensors["v"].read()
    assert list(model.weights.reads.values()) == [2]


@pytest.mark.parametrize(
    ("field", "dtype", "code"),
    [
        ("float_data", np.float32, TensorProto.FLOAT),
        ("double_data", np.float64, TensorProto.DOUBLE),
        ("float_data", np.complex64, TensorProto.COMPLEX64),
        ("int32_data", np.int32, TensorProto.INT32),
        ("int32_data", np.float16, TensorProto.FLOAT16),
        ("int32_data", np.uint8, TensorProto.UINT8),
        ("int64_data", np.int64, TensorProto.INT64),
        ("uint64_data", np.uint32, TensorProto.UINT32),
    ],
)
def test_numbers_in_fields_of_their_type(save: Save, field: str, dtype: type, code: int) -> None:
    values = np.arange(600).astype(dtype)
    held = {
        "float_data": np.float32,
        "double_data": np.float64,
        "int32_data": np.uint16 if dtype is np.float16 else dtype,
    }.get(field, dtype)
    tensor = TensorProto(name="t", dims=[30, 20], data_type=code, **{field: values.view(held).tolist()})
    model = network([helper.make_node("Relu", ["x"], ["y"])], [value("x", [2])], ["y"], [tensor])
    loaded = load(save(model))
    assert loaded.weights is not None
    np.testing.assert_array_equal(loaded.tensors["t"].read(), values.reshape(30, 20))
    assert bool(loaded.weights.bytes_read) == (field in ("float_data", "double_data"))


@pytest.mark.parametrize("code", [TensorProto.INT4, TensorProto.UINT4, TensorProto.BFLOAT16, TensorProto.FLOAT8E4M3FN])
@pytest.mark.parametrize("shape", [(41, 83), (3, 5)])
def test_narrow_types(save: Save, code: int, shape: tuple[int, int]) -> None:
    tensor = helper.make_tensor("t", code, shape, np.arange(shape[0] * shape[1]) % 7)
    packed = numpy_helper.to_array(tensor)
    for raw in (numpy_helper.from_array(packed, "t"), tensor):
        model = network([helper.make_node("Relu", ["x"], ["y"])], [value("x", [2])], ["y"], [raw], opset=21)
        found = load(save(model)).tensors["t"]
        assert (found.shape, found.read().dtype) == (shape, packed.dtype)
        np.testing.assert_array_equal(found.read(), packed)


def test_a_file_that_shrinks_is_told_of(save: Save) -> None:
    path = save(large())
    model = load(path)
    with path.open("r+b") as file:
        file.truncate(1500)
    with pytest.raises(UnreadableModel, match="changed"):
        model.tensors["v"].read()
    with pytest.raises(UnreadableModel, match="changed"):
        _ = model.sha256


def test_a_file_that_is_replaced_or_removed_is_told_of(save: Save, tmp_path: Path) -> None:
    path = save(large())
    model = load(path)
    save(large(), "other.onnx").replace(path)
    with pytest.raises(UnreadableModel, match="changed"):
        model.tensors["v"].read()
    model = load(path)
    path.unlink()
    with pytest.raises(UnreadableModel, match="changed"):
        model.tensors["v"].read()
    if hasattr(os, "mkfifo"):  # nobody will ever write into it
        os.mkfifo(path)
        with pytest.raises(UnreadableModel, match="changed"):
            model.tensors["v"].read()


def test_external_data_that_change_are_told_of_by_name(save: Save, tmp_path: Path) -> None:
    path = external(save, "w.bin")
    (tmp_path / "w.bin").write_bytes(b"\0" * 48)
    model = load(path)
    (tmp_path / "w.bin").write_bytes(b"\0" * 40)
    with pytest.raises(UnreadableModel, match=r"'w\.bin' has changed"):
        model.tensors["w"].read()


def test_a_file_that_shrinks_while_it_is_loaded(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(large(4096))
    read = Reader.fill

    def cut(reader: Reader, offset: int, view: memoryview) -> None:
        read(reader, offset, view)
        os.truncate(path, 9000)

    monkeypatch.setattr(Reader, "fill", cut)
    assert "changed" in refusal(path).reason


def test_a_rule_that_finds_the_file_changed_ends_the_audit(save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(large())

    def check(context: Any) -> Iterable[Any]:
        path.write_bytes(b"\0" * 10)
        yield context.symmetry.model.tensors["v"].read()

    found = Rule("SYM999", "cuts", Level.ERROR, "exact", "", check)
    monkeypatch.setattr("symlint.model.load.default_budget", lambda size: 0)
    report = audit(str(path), [found], Settings())
    assert "changed" in report.incomplete
    assert Run((report,), (found,)).exit_code == 4


def _varint(number: int) -> bytes:
    parts = [number >> shift & 127 | 128 for shift in range(0, max(1, number.bit_length()), 7)]
    return bytes([*parts[:-1], parts[-1] & 127])


def _framed(number: int, content: bytes, length: int | None = None) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content) if length is None else length) + content


@pytest.mark.parametrize("length", [2000, 2**31, 2**32 + 7, 2**63, 2**69])
@pytest.mark.parametrize("levels", [(7,), (7, 5), (7, 5, 9), (7, 1, 5, 5, 9)])
def test_lying_lengths(save: Save, levels: tuple[int, ...], length: int) -> None:
    data = b"\0" * 1500
    for number in reversed(levels):
        data = _framed(number, data, length) if number == levels[-1] else _framed(number, data)
    assert "could not be parsed" in refusal(save(b"\x08\x0a" + data)).reason


@pytest.mark.parametrize(
    "ending", [b"\xff" * 12, b"\x0b" * 3, b"\x0e\x01", b"\x00\x01", b"\xba\x80\x80\x80\x80\x80\x01\x01a", b"\x3a"]
)
def test_damaged_fields(save: Save, ending: bytes) -> None:
    assert "could not be parsed" in refusal(save(large().SerializeToString() + ending)).reason


def test_names_that_are_no_text(save: Save) -> None:
    data = linear().SerializeToString()
    assert load(save(data.replace(b"product", b"prod\xffct"))).graph.nodes[0].name == "prod\\xffct"
    assert "UTF-8" in refusal(save(data.replace(b"\x01w", b"\x01\xff"))).reason
    assert "UTF-8" in refusal(save(data.replace(b"batch", b"bat\xffh"))).reason


def test_unknown_fields_and_groups_are_passed_over(save: Save) -> None:
    data = large().SerializeToString()
    for extra in (_framed(1000, b"x" * 5000), b"\xc3\x3e\x08\x01\xc4\x3e", _varint(999 << 3) + b"\xff" * 9 + b"\x01"):
        tensors = load(save(data + extra)).tensors
        np.testing.assert_array_equal(tensors["v"].read(), np.arange(1, 513).reshape(64, 8))


@pytest.mark.parametrize("depth", [20, 40, 2000])
def test_deep_nesting(save: Save, depth: int) -> None:
    graph = helper.make_graph([], "g", [], [], [stored("w", (64, 8))]).SerializeToString()
    for _ in range(depth):
        graph = _framed(1, _framed(5, b"\x0a\x01b\xa0\x01\x05" + _framed(6, graph)))
    with pytest.raises(UnreadableModel):
        load(save(b"\x08\x0a" + _framed(7, graph)))


def test_a_graph_in_two_parts_is_merged(save: Save) -> None:
    whole = large()
    first, second = onnx.ModelProto(), onnx.ModelProto()
    first.CopyFrom(whole)
    del first.graph.initializer[1:]
    second.graph.initializer.append(whole.graph.initializer[1])
    tensors = load(save(first.SerializeToString() + second.SerializeToString())).tensors
    np.testing.assert_array_equal(tensors["v"].read(), np.arange(1, 513).reshape(64, 8))


def test_no_file_can_name_itself_as_its_external_data(save: Save) -> None:
    model = linear()
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, text in (("location", "\0model:0"), ("offset", "0"), ("length", "48")):
        tensor.external_data.add(key=key, value=text)
    assert "usable name" in refusal(save(model)).reason


@pytest.mark.parametrize(("form", "hashed"), [("full", 0), ("concise", 0), ("json", 1), ("sarif", 1)])
def test_a_file_is_hashed_once_and_only_for_reports_that_show_it(
    save: Save, form: str, hashed: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    taken, made = hashlib.sha256, []

    def counted(data: bytes = b"") -> Any:
        if not data:  # only a file is hashed block by block
            made.append(form)
        return taken(data)

    monkeypatch.setattr(hashlib, "sha256", counted)
    arguments = ["check", str(save(large())), "--format", form]
    if hashed:
        arguments += ["--output", f"json={tmp_path / 'second.json'}"]
    CliRunner().invoke(cli, arguments)
    assert len(made) == hashed


def test_onnxruntime_is_never_imported(save: Save) -> None:
    code = "import sys; from symlint.model.load import load; load(sys.argv[1]); assert 'onnxruntime' not in sys.modules"
    root = ROOT
    subprocess.run([sys.executable, "-c", code, str(save(linear()))], check=True, cwd=root)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
@pytest.mark.parametrize(
    ("op", "opset", "attributes", "limits"),
    [
        *((op, 17, {}, []) for op in ("Relu", "Sigmoid", "Tanh", "Erf", "Softplus", "LeakyRelu", "Elu")),
        ("LeakyRelu", 17, {"alpha": 0.25}, []),
        ("Elu", 17, {"alpha": 0.5}, []),
        *(("Clip", 17, {}, limits) for limits in ([0.0, 6.0], [None, 6.0], [0.0])),
        *(("Clip", 6, attributes, []) for attributes in ({"min": 0.0, "max": 6.0}, {"max": 6.0})),
    ],
)
def test_plain_operators_give_the_bits_of_the_reference_evaluator(op, opset, attributes, limits, dtype) -> None:
    edges = [0.0, -0.0, 1e39, -1e39, np.inf, -np.inf, np.nan, 100.0, -100.0]
    with np.errstate(all="ignore"):
        x = np.concatenate([np.random.default_rng(0).normal(size=50) * 3, edges]).astype(dtype).reshape(1, -1)
        inputs = [x, *(None if limit is None else np.asarray(limit, dtype) for limit in limits)]
        (expected,) = reference(op, opset, attributes, inputs, 1)
    (found,) = evaluate(op, opset, attributes, inputs) or ()
    assert (found.dtype, found.shape, found.tobytes()) == (expected.dtype, expected.shape, expected.tobytes())


def _bodies(graph: Graph) -> Iterable[Graph]:
    yield graph
    for node in graph.nodes:
        for body in node.attributes.values():
            if isinstance(body, Graph):
                yield from _bodies(body)


def _unknown(model: Model) -> list[str]:
    nodes = [node for graph in _bodies(model.graph) for node in graph.nodes if "Sequence" not in node.op]
    return [name for node in nodes for name in node.outputs if name and name not in model.shapes]


@pytest.mark.corpus
@pytest.mark.parametrize("path", sorted(SHARED.glob("*/*.onnx")), ids=lambda path: path.name)
def test_real_files_have_shapes(path: Path) -> None:
    model = load(path)
    # Branches that shapes rule out are never walked with shapes that fit them.
    assert len(_unknown(model)) <= (8 if path.name == "silero-vad-v5-if.onnx" else 0)
