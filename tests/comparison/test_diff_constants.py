"""Constants of two files of other number types: what a conversion does to them is no change, everything else is one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from symlint.cli.main import cli

Edit = Callable[[np.ndarray], np.ndarray]
CAUSAL = np.where(np.tri(5, dtype=bool), 0.0, -np.inf).astype(np.float32)
TYPES = {
    "float16": (TensorProto.FLOAT16, np.dtype(np.float16)),
    "bfloat16": (TensorProto.BFLOAT16, np.dtype(ml_dtypes.bfloat16)),
    "float32": (TensorProto.FLOAT, np.dtype(np.float32)),
}


def masked(path: Path, kind: str, mask: np.ndarray, scale: float = 0.5, *, wrapped: bool = False) -> Path:
    """An attention of one head with weights, a scale and a mask of one type, between conversions if `wrapped`."""
    code, dtype = TYPES[kind]
    rng = np.random.default_rng(4)
    stored = {name: (rng.normal(size=(6, 6)) / 2).astype(np.float32) for name in ("wq", "wk", "wv")}
    stored |= {"mask": mask, "scale": np.float32(scale)}
    nodes = [
        helper.make_node("MatMul", ["i", "wq"], ["q"]),
        helper.make_node("MatMul", ["i", "wk"], ["k"]),
        helper.make_node("MatMul", ["i", "wv"], ["v"]),
        helper.make_node("Transpose", ["k"], ["t"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["q", "t"], ["s"]),
        helper.make_node("Mul", ["s", "scale"], ["s2"]),
        helper.make_node("Add", ["s2", "mask"], ["s3"], "masking"),
        helper.make_node("Softmax", ["s3"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "v"], ["o"]),
    ]
    ends = TensorProto.FLOAT if wrapped else code
    if wrapped:
        nodes = [
            helper.make_node("Cast", ["x"], ["i"], to=code),
            *nodes,
            helper.make_node("Cast", ["o"], ["y"], to=TensorProto.FLOAT),
        ]
    names = ("x", "y") if wrapped else ("i", "o")
    infos = [helper.make_tensor_value_info(name, ends, ["n", 5, 6]) for name in names]
    with np.errstate(over="ignore"):
        tensors = [numpy_helper.from_array(np.asarray(v).astype(dtype), k) for k, v in stored.items()]
    graph = helper.make_graph(nodes, "attention", infos[:1], infos[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def changed(old: Path, new: Path) -> list[dict[str, Any]]:
    """The nodes that differ; the run fails exactly where there are any."""
    result = CliRunner().invoke(cli, ["diff", str(old), str(new), "--fail-on", "changed", "--format", "json"])
    document = json.loads(result.stdout)
    edits = document["nodes"]["changed"]
    assert result.exit_code == int(bool(edits)), result.output
    assert document["nodes"]["same"] == (not edits)
    return list(edits)


WRONG: dict[str, Edit] = {
    "transposed": np.transpose,
    "strict": lambda m: np.where(np.tri(5, k=-1, dtype=bool), 0.0, -np.inf).astype(np.float32),
    "none": np.zeros_like,
    "small": lambda m: np.where(np.isinf(m), np.float32(-3), m),
    "of both sides": lambda m: m + m[::-1],
}
RIGHT: dict[str, Edit] = {
    "as it was": lambda m: m,
    "large numbers": lambda m: np.where(np.isinf(m), np.float32(-3.4e38), m),
    "clipped": lambda m: np.where(np.isinf(m), np.float32(-1e4), m),
}


@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "wrapped"])
@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
@pytest.mark.parametrize("wrong", WRONG)
def test_another_mask_is_no_rounding(kind, wrapped, wrong, tmp_path):
    old = masked(tmp_path / "old.onnx", "float32", CAUSAL)
    new = masked(tmp_path / "new.onnx", kind, WRONG[wrong](CAUSAL), wrapped=wrapped)
    for pair in ((old, new), (new, old)):
        (edit,) = changed(*pair)
        assert edit["node"] == "masking"


@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "wrapped"])
@pytest.mark.parametrize("right", RIGHT)
def test_what_a_conversion_does_to_a_mask_is_no_change(wrapped, right, tmp_path):
    old = masked(tmp_path / "old.onnx", "float32", RIGHT["large numbers"](CAUSAL))
    new = masked(tmp_path / "new.onnx", "float16", RIGHT[right](CAUSAL), wrapped=wrapped)
    assert changed(old, new) == []
    assert changed(new, old) == []


@pytest.mark.parametrize(("kind", "scale", "differs"), [("float16", 0.12349, False), ("float16", 0.125, True)])
@pytest.mark.parametrize(("old", "wrapped"), [("float32", True), ("float32", False), ("bfloat16", False)])
def test_numbers_of_few_elements_are_compared_as_well(kind, scale, differs, old, wrapped, tmp_path):
    """A scale that is 1.3% larger is another one; that of bfloat16 is told as far as its own rounding goes."""
    one = masked(tmp_path / "old.onnx", old, CAUSAL, 0.12345)
    two = masked(tmp_path / "new.onnx", kind, CAUSAL, scale, wrapped=wrapped)
    assert [e["old"].split()[0] for e in changed(one, two)] == (["Mul"] if differs and old == "float32" else [])


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float32"])
def test_two_files_of_one_type_hold_the_same_constants_or_differ(kind, tmp_path):
    """There a conversion has nothing to round, nor to clip."""
    clipped = np.where(np.isinf(CAUSAL), np.float32(-1e4), CAUSAL)
    old = masked(tmp_path / "old.onnx", kind, CAUSAL, 0.5)
    assert changed(old, masked(tmp_path / "same.onnx", kind, CAUSAL, 0.5)) == []
    for k, (mask, scale, node) in enumerate([(clipped, 0.5, "masking"), (CAUSAL, 0.5 + 2.0**-8, "Mul")]):
        (edit,) = changed(old, masked(tmp_path / f"{k}.onnx", kind, mask, scale))
        assert node in (edit["node"], edit["old"].split()[0])


def test_the_constants_of_bodies_are_compared(tmp_path):
    """A branch of control flow holds the mask."""

    def branched(path: Path, kind: str, mask: np.ndarray) -> Path:
        model = onnx.load(masked(path, kind, mask))
        graph, code = model.graph, TYPES[kind][0]
        add = next(node for node in graph.node if node.op_type == "Add")
        out = helper.make_tensor_value_info("inner", code, None)
        held = next(t for t in graph.initializer if t.name == "mask")
        then = helper.make_graph([helper.make_node("Add", ["s2", "mask"], ["inner"])], "then", [], [out], [held])
        other = helper.make_tensor_value_info("inner2", code, None)
        orelse = helper.make_graph([helper.make_node("Identity", ["s2"], ["inner2"])], "else", [], [other])
        graph.initializer.remove(held)
        graph.input.append(helper.make_tensor_value_info("flag", TensorProto.BOOL, []))
        choice = helper.make_node("If", ["flag"], ["s3"], "choice", then_branch=then, else_branch=orelse)
        where = list(graph.node).index(add)
        graph.node.remove(add)
        graph.node.insert(where, choice)
        onnx.save(model, path)
        return path

    old = branched(tmp_path / "old.onnx", "float32", CAUSAL)
    assert changed(old, branched(tmp_path / "same.onnx", "float16", CAUSAL)) == []
    assert changed(old, branched(tmp_path / "new.onnx", "float16", CAUSAL.T))


def test_the_example_is_told(shared):
    folder = shared / "faults" / "diff_half_constants"
    (edit,) = changed(folder / "model.onnx", folder / "anticausal_fp16.onnx")
    assert edit["old"].startswith("Add")
