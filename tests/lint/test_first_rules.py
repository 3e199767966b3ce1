"""SYM004 and SYM005 on models made by hand."""

from __future__ import annotations

import warnings
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest

from symlint.lint.finding import Level
from symlint.lint.rule import rules
from symlint.model.graph import Graph, Model, Node, Tensor
from symlint.symmetry.spaces import Coverage, Opaque, Symmetry

RULES = {rule.code: rule for rule in rules()}
INF = np.inf


class Seen:
    """Stands for the context of a check."""

    def __init__(self, symmetry: Symmetry) -> None:
        self.symmetry = symmetry


def findings(code: str, model: Model, opaque: tuple[Opaque, ...] = ()):
    hidden = sum(item.parameters for item in opaque)
    symmetry = Symmetry(model, Coverage(100, 100 - hidden, 0, hidden), 0, (), (), opaque)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return list(RULES[code].check(Seen(symmetry)))


def model(values: np.ndarray, *nodes: tuple[str, list[str], list[str]], notes: tuple[str, ...] = ()) -> Model:
    tensor = Tensor("w", values.shape, values.dtype.name, lambda: values)
    calls = tuple(Node(op, "", tuple(inputs), tuple(outputs), {}, 17) for op, inputs, outputs in nodes)
    return Model("m", None, 17, "", Graph(calls, ("x",), ("y",)), {"w": tensor}, {}, {}, {}, {}, notes)


def use(op: str) -> tuple[str, list[str], list[str]]:
    return op, ["x", "w"], ["y"]


@pytest.mark.parametrize(
    ("value", "op", "bad"),
    [
        (1.0, "MatMul", False),
        (-INF, "MatMul", True),
        (INF, "MatMul", True),
        (np.nan, "MatMul", True),
        (-INF, "Add", False),
        (INF, "Add", True),
        (np.nan, "Add", True),
        (-INF, "Mul", True),
        (-INF, "Clip", False),
        (INF, "Clip", False),
        (INF, "Min", False),
        (np.nan, "Clip", True),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.float64, ml_dtypes.bfloat16])
def test_what_counts_as_a_number(value, op, bad, dtype):
    values = np.zeros((3, 5), dtype)
    values[1, 2] = value
    assert bool(findings("SYM005", model(values, use(op)))) is bad


def test_a_mask_may_be_rearranged_first():
    mask = np.where(np.tri(4), 0, -INF).astype(np.float32)
    rearranged = [("Unsqueeze", ["w"], ["a"]), ("Slice", ["a"], ["b"]), ("Where", ["c", "b", "x"], ["d"])]
    assert not findings("SYM005", model(mask, *rearranged, ("Add", ["x", "d"], ["y"])))
    assert findings("SYM005", model(mask, *rearranged, ("MatMul", ["x", "d"], ["y"])))
    assert findings("SYM005", model(mask, use("Add"), use("Mul")))


SCORES = ("Where", ["c", "w", "x"], ["s"])
MASKS = {
    "masked_fill, softmax": [SCORES, ("Softmax", ["s"], ["y"])],
    "masked_fill, log_softmax": [SCORES, ("LogSoftmax", ["s"], ["y"])],
    "masked_fill, a scale, softmax": [SCORES, ("Mul", ["s", "k"], ["t"]), ("Softmax", ["t"], ["y"])],
    "masked_fill, a temperature, a cast, softmax": [
        SCORES,
        ("Div", ["s", "k"], ["t"]),
        ("Cast", ["t"], ["u"]),
        ("Softmax", ["u"], ["y"]),
    ],
    "masked_fill, softmax by hand": [
        SCORES,
        ("ReduceMax", ["s"], ["m"]),
        ("Sub", ["s", "m"], ["t"]),
        ("Exp", ["t"], ["y"]),
    ],
    "masked_fill, a choice of the largest": [SCORES, ("TopK", ["s", "k"], ["y", "i"])],
    "masked_fill, a maximum over places": [SCORES, ("ReduceMax", ["s"], ["y"])],
    "masked_fill is the output": [("Where", ["c", "w", "x"], ["y"])],
    "masked_fill, a bias of places, softmax": [SCORES, ("Add", ["s", "b"], ["t"]), ("Softmax", ["t"], ["y"])],
    "scattered into scores": [("ScatterND", ["x", "i", "w"], ["s"]), ("Softmax", ["s"], ["y"])],
    "a mask made of two numbers": [
        ("Where", ["c", "w", "o"], ["m"]),
        ("Expand", ["m", "n"], ["e"]),
        ("Add", ["x", "e"], ["s"]),
        ("Softmax", ["s"], ["y"]),
    ],
    "a mask of scaled distances": [("Mul", ["w", "k"], ["m"]), ("Add", ["x", "m"], ["s"]), ("Softmax", ["s"], ["y"])],
    "the mask of an attention": [("Attention", ["x", "x", "x", "w"], ["y"])],
    "the mask of a fused attention": [("com.microsoft.MultiHeadAttention", ["x", "x", "x", "", "", "w"], ["y"])],
    "the mask of a fused softmax": [("com.microsoft.BiasSoftmax", ["x", "w"], ["y"])],
    "the edge of a max pooling": [("Pad", ["x", "p", "w"], ["e"]), ("MaxPool", ["e"], ["y"])],
    "its shape is asked for": [("Shape", ["w"], ["n"]), ("Where", ["c", "x", "w"], ["s"]), ("Exp", ["s"], ["y"])],
}
BROKEN = {
    "a masked tensor is multiplied": [SCORES, ("MatMul", ["s", "k"], ["y"])],
    "a masked tensor is normalised": [SCORES, ("LayerNormalization", ["s", "k"], ["y"])],
    "a gain": [("Mul", ["x", "w"], ["s"]), ("Softmax", ["s"], ["y"])],
    "a gain before a bias": [("Mul", ["x", "w"], ["s"]), ("Add", ["s", "b"], ["y"])],
    "a mask is multiplied with what a run says": [
        ("Cast", ["x"], ["p"]),
        ("Mul", ["p", "w"], ["m"]),
        ("Add", ["x", "m"], ["y"]),
    ],
    "a divisor": [("Div", ["x", "w"], ["s"]), ("Softmax", ["s"], ["y"])],
    "the other sign": [SCORES, ("Neg", ["s"], ["t"]), ("Softmax", ["t"], ["y"])],
    "weights of a fused attention": [("com.microsoft.Attention", ["x", "w", "b", "m"], ["y"])],
    "a bias of a fused attention": [("com.microsoft.MultiHeadAttention", ["x", "x", "x", "w"], ["y"])],
    "a mask, and a weight as well": [SCORES, ("Softmax", ["s"], ["t"]), ("MatMul", ["t", "w"], ["y"])],
}


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("ways", MASKS.values(), ids=MASKS)
def test_minus_infinity_in_a_mask_is_legal(ways, dtype):
    mask = np.where(np.tri(4), 0, -INF).astype(dtype)
    assert not findings("SYM005", model(mask, *ways))
    assert not findings("SYM005", model(np.array(-INF, dtype), *ways))
    assert not findings("SYM005", model(np.where(np.tri(4), 0, np.finfo(dtype).min).astype(dtype), *ways))
    assert findings("SYM005", model(np.where(np.tri(4), 0, np.nan).astype(dtype), *ways))


@pytest.mark.parametrize("ways", BROKEN.values(), ids=BROKEN)
def test_infinity_elsewhere_is_an_error(ways):
    assert findings("SYM005", model(np.array([0, -INF], np.float32), *ways))


def test_the_largest_number_may_be_what_is_left_out_of_a_minimum():
    far = np.array(INF, np.float32)
    assert not findings("SYM005", model(far, SCORES, ("ReduceMin", ["s"], ["y"])))
    assert not findings("SYM005", model(far, SCORES, ("Neg", ["s"], ["t"]), ("Softmax", ["t"], ["y"])))
    assert findings("SYM005", model(far, SCORES, ("Softmax", ["s"], ["y"])))


def test_scores_of_a_loop_are_followed_into_its_body():
    def looped(op: str) -> Model:
        body = Graph((Node(op, "", ("state", "k"), ("next",), {}, 17),), ("i", "go", "state"), ("go", "next"))
        plain = model(np.array([0, -INF], np.float32))
        loop = Node("Loop", "", ("n", "go", "w"), ("y",), {"body": body}, 17)
        return replace(plain, graph=Graph((loop,), ("x",), ("y",)))

    assert not findings("SYM005", looped("Add"))
    assert findings("SYM005", looped("MatMul"))


def test_every_element_is_counted_across_chunks():
    values = np.zeros(3_000_001, np.float32)
    values[[0, 1 << 20, -1]] = np.nan
    values[5] = -INF
    (finding,) = findings("SYM005", model(values, use("Mul")))
    assert finding.facts == {"NaN": 3, "infinite": 1, "tensors": 1}
    assert finding.level is Level.ERROR
    assert finding.tensors == ("w",)


def test_integers_and_empty_tensors_are_left_alone():
    assert not findings("SYM005", model(np.zeros((2, 2), np.int64), use("Mul")))
    assert not findings("SYM005", model(np.zeros((0, 2), np.float32), use("Mul")))
    assert findings("SYM005", model(np.array(np.nan, np.float32), use("Mul")))


def test_opaque_parameters_are_grouped_by_operator():
    opaque = (
        Opaque("c", 5, "node 3", "GRU", "no rule for GRU"),
        Opaque("a", 30, "node 1", "acme.Magic", "no rule for acme.Magic"),
        Opaque("b", 10, "node 2", "acme.Magic", "no rule for acme.Magic"),
    )
    found = findings("SYM004", model(np.zeros(1), notes=("the size of axis 'n' is unknown",)), opaque)
    assert [finding.facts.get("op") for finding in found] == ["acme.Magic", "GRU", None]
    assert found[0].tensors == ("a", "b")
    assert found[0].message == "40 of 100 parameters were not audited: no rule for acme.Magic (at node 1, node 2)"
    assert "the size of axis 'n' is unknown" in found[2].message
    assert {finding.level for finding in found} == {Level.NOTE}


def test_nothing_opaque_is_no_finding():
    assert not findings("SYM004", model(np.zeros(1)))
