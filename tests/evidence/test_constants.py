"""Constant units and multiples are told wherever they come from and whatever passes them on, all of a layer too."""

from __future__ import annotations

import numpy as np
import pytest
import written
from onnx import TensorProto

from symlint.model.load import load
from symlint.runtime.verify import verify
from symlint.symmetry.inference import examine

pytestmark = pytest.mark.usefixtures("no_clock")

RNG = np.random.default_rng(21)
CNN = (
    "h = Conv <pads = [1, 1, 1, 1]> (x, w1, b1) {} c = Conv (r, w2, b2)"
    "m = GlobalAveragePool (x) s = Conv (m, w4) q = Add (c, s) e = Relu (q) y = Conv (e, w3)"
)
POOLS = {
    "MaxPool": "r = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (a)",
    "MaxPool padded": "r = MaxPool <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (a)",
    "AveragePool": "r = AveragePool <kernel_shape = [2, 2]> (a)",
    "GlobalMaxPool": "r = GlobalMaxPool (a)",
    "GlobalAveragePool": "r = GlobalAveragePool (a)",
    "ReduceMax": "r = ReduceMax <axes = [2, 3]> (a)",
    "ReduceMin": "r = ReduceMin <axes = [-1]> (a)",
    "ReduceMean": "r = ReduceMean <axes = [2, 3]> (a)",
    "Resize": 'r = Resize <mode = "nearest"> (a, , scales)',
}


def kernels(hidden: int = 6, kernel: int = 1) -> dict[str, np.ndarray]:
    """Two convolutions, and one behind them."""
    return {
        "w1": RNG.normal(size=(hidden, 3, 3, 3)), "b1": 0.5 + RNG.random(hidden),
        "w2": RNG.normal(size=(5, hidden, kernel, kernel)), "b2": RNG.normal(size=5),
        "w3": RNG.normal(size=(4, 5, 1, 1)), "w4": RNG.normal(size=(5, 3, 1, 1)),
        "scales": np.asarray([1, 1, 2, 2], np.float32),
    }  # fmt: skip


@pytest.mark.parametrize("pool", POOLS)
def test_constants_are_folded_behind_what_passes_them_on(pool, tmp_path):
    """What chooses or averages numbers that are all one makes that one of them; here of some units, there of all."""
    still = range(6) if len(pool) % 2 else (1, 4)
    stored = kernels()
    stored["w1"][list(still)] = 0
    path = written.written(
        tmp_path / "m.onnx", CNN.format(f"a = Relu (h) {POOLS[pool]}"), stored, ("n", 3, 8, 8), (None,) * 4, opset=13
    )
    assert written.units(path) == [("SYM102", list(still))]
    made = written.repaired(path)
    # Where all of a layer goes one unit of it stays, which nothing reads.
    assert [(one.rule, one.removed) for one in made.done][:1] == [("SYM102", min(len(still), 5))]
    assert written.units(made.path) == []


ACTIVATIONS = {
    "Relu": "",
    "Clip": ", activation_params = [0.1, 0.7]",
    "LeakyRelu": ", activation_params = [0.3]",
    "HardSigmoid": ", activation_params = [0.3, 0.4]",
    "Sigmoid": "",
    "Tanh": "",
}


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_constants_of_fused_activations_are_folded(activation, tmp_path):
    """An activation inside of a convolution is computed with its parameters; the reader is fused as well."""
    stored = kernels()
    stored["w1"][[0, 5]] = 0
    stored["b1"][5] = -0.4
    attributes = f'activation = "{activation}"{ACTIVATIONS[activation]}'
    text = (
        f"r = com.microsoft.FusedConv <pads = [1, 1, 1, 1], {attributes}> (x, w1, b1)"
        'e = com.microsoft.FusedConv <activation = "Relu"> (r, w2, b2) y = Conv (e, w3)'
    )
    path = written.written(tmp_path / "m.onnx", text, stored, ("n", 3, 8, 8), (None,) * 4)
    dead = [("SYM101", [5]), ("SYM102", [0])] if activation == "Relu" else [("SYM102", [0, 5])]
    assert written.units(path) == dead
    made = written.repaired(path)
    assert written.shape(made.path, "w1")[0] == 4
    assert written.units(made.path) == []


LAYERS = {
    "gemm": ("h = Gemm (x, w1, b1)", "w1"),
    "gain": ("g = Gemm (x, w1, b1) m = Mul (g, s) h = Add (m, t)", "s"),
    "batch": ("g = Gemm (x, w1, b1) h = BatchNormalization (g, s, t, mean, var)", "s"),
    "fused": ('h = com.microsoft.FusedGemm <activation = "LeakyRelu", activation_alpha = 0.2> (x, w1, b1)', "w1"),
}


def layer(kind: str, activation: str) -> tuple[str, dict[str, np.ndarray]]:
    """A layer that the input does not get through, beside one that it does."""
    text, zero = LAYERS[kind]
    stored = {
        "w1": RNG.normal(size=(4, 7)), "b1": 0.3 + RNG.random(7), "s": RNG.normal(size=7), "t": 0.3 + RNG.random(7),
        "mean": RNG.normal(size=7), "var": 0.5 + RNG.random(7), "w2": RNG.normal(size=(7, 5)),
        "b2": RNG.normal(size=5), "w3": RNG.normal(size=(4, 5)), "w4": RNG.normal(size=(5, 3)),
    }  # fmt: skip
    stored[zero] = np.zeros_like(stored[zero])
    rest = "k = Gemm (r, w2, b2) z = MatMul (x, w3) q = Add (k, z) p = Relu (q) y = Gemm (p, w4)"
    return f"{text} r = {activation} (h) {rest}", stored


@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_of_which_all_units_are_constant_is_told(kind, tmp_path):
    """However the input is lost, all units of the layer are constants, and but one of them go."""
    for activation in ("Relu", "Tanh", "Sigmoid", "Elu"):
        path = written.written(tmp_path / f"{activation}.onnx", *layer(kind, activation), ("n", 4))
        assert written.units(path) == [("SYM102", list(range(7)))]
    made = written.repaired(path)
    assert [(one.rule, one.removed) for one in made.done][:1] == [("SYM102", 6)]
    assert written.units(made.path) == []


def test_what_is_computed_from_weights_alone_is_no_constant_layer(tmp_path):
    """A learned query goes through a layer of its own: no input could reach that."""
    stored = {
        "query": RNG.normal(size=(1, 6)), "w1": RNG.normal(size=(6, 7)), "b1": RNG.normal(size=7),
        "w2": RNG.normal(size=(7, 4)), "w3": RNG.normal(size=(4, 3)),
    }  # fmt: skip
    text = "h = Gemm (query, w1, b1) r = Relu (h) k = MatMul (r, w2) q = Add (x, k) p = Relu (q) y = MatMul (p, w3)"
    assert written.units(written.written(tmp_path / "m.onnx", text, stored, ("n", 4))) == []


def test_a_layer_of_constants_in_front_of_padding_leaves_one(shared, tmp_path):
    """A reader that pads with zeros sees the constant inside only: one unit does the work of all."""
    source = shared / "faults/all_constant_layer/model.onnx"
    path = tmp_path / "m.onnx"
    path.write_bytes(source.read_bytes())
    assert written.units(path) == [("SYM102", list(range(6)))]
    made = written.repaired(path)
    assert [(one.rule, one.removed) for one in made.done] == [("SYM102", 5)]
    assert written.shape(made.path, "w1")[0] == 1
    assert written.units(made.path) == []


SUMS = {
    "mean over tokens": ("m = ReduceMean <axes = [1], keepdims = 0> (a)", -1.0, "Tanh"),
    "sum over tokens": ("t = Transpose <perm = [0, 2, 1]> (a) m = ReduceSum <keepdims = 0> (t, last)", -1.0, "Tanh"),
    "mean of multiples": ("m = ReduceMean <axes = [1], keepdims = 0> (a)", 2.5, "Relu"),
}


@pytest.mark.parametrize("name", SUMS)
def test_multiples_are_seen_through_sums_over_other_axes(name, tmp_path):
    """A sum of what is all multiplied is multiplied, by a sign too."""
    pool, factor, activation = SUMS[name]
    first, second = RNG.normal(size=(5, 7)), RNG.normal(size=(7, 4))
    first[:, 4] = factor * first[:, 1]
    path = written.written(
        tmp_path / "m.onnx",
        f"h = MatMul (x, w1) a = {activation} (h) {pool} y = MatMul (m, w2)",
        {"w1": first, "w2": second, "last": np.asarray([2])},
        ("n", 3, 5),
    )
    assert written.units(path) == [("SYM201", [1, 4])]
    assert written.units(written.repaired(path).path) == []


def test_a_zero_adds_nothing_to_a_length(tmp_path):
    """Units that are zero in front of a norm that divides by a length are dead, and go."""
    first = RNG.normal(size=(5, 8))
    first[:, [2, 6]] = 0
    path = written.written(
        tmp_path / "m.onnx",
        "h = MatMul (x, w1) r = Relu (h) l = LpNormalization <axis = 1, p = 2> (r) y = MatMul (l, w2)",
        {"w1": first, "w2": RNG.normal(size=(8, 3))},
        ("n", 5),
    )
    assert written.units(path) == [("SYM101", [2, 6])]
    assert written.units(written.repaired(path).path) == []


def test_a_constant_that_cancels_is_zero(tmp_path):
    """Weights whose products with a constant cancel to rounding make nothing, in whatever basis they are stored."""
    table, first = RNG.normal(size=(1, 6)), RNG.normal(size=(6, 8))
    first[:, [2, 6]] -= table.T @ (table @ first[:, [2, 6]]) / (table @ table.T)
    enters = RNG.normal(size=(5, 8))
    enters[:, [2, 6]] = 0
    path = written.written(
        tmp_path / "m.onnx",
        "c = MatMul (t, w1) s = Tanh (c) h = MatMul (x, w0) a = Add (h, s) r = Tanh (a) y = MatMul (r, w2)",
        {"t": table, "w0": enters, "w1": first, "w2": RNG.normal(size=(8, 3))},
        ("n", 5),
    )
    assert written.units(path) == [("SYM101", [2, 6])]


TABLES = {
    "GatherElements": "t = GatherElements <axis = 0> (c, each)",
    "GatherND": "t = GatherND (c, which)",
    "Gather": "t = Gather <axis = 0> (c, places)",
}


@pytest.mark.parametrize("op", TABLES)
@pytest.mark.parametrize(
    "waves", ["s = Sin (f) k = Cos (f)", "s = Sin (f) k = Neg (f)", "k = Cos (f) s = Identity (k)"]
)
def test_a_table_of_positions_is_no_layer(op, waves, tmp_path):
    """Distances that come again, and angles that repeat, are equal rows of an architecture, not of what was learned."""
    places = np.maximum(np.arange(4)[:, None] - np.arange(3), 0).reshape(-1)
    stored = {
        "f": np.outer(np.arange(8), np.pi / 2 ** np.arange(4)), "r": RNG.normal(size=(8, 6)),
        "w": RNG.normal(size=(5, 6)), "o": RNG.normal(size=(12, 3)), "places": places, "which": places[:, None],
        "each": np.repeat(places[:, None], 8, 1),
    }  # fmt: skip
    text = f"{waves} c = Concat <axis = -1> (s, k) {TABLES[op]} m = MatMul (t, r) u = Transpose <perm = [1, 0]> (m)"
    rest = "q = MatMul (x, w) a = MatMul (q, u) h = Tanh (a) y = MatMul (h, o)"
    assert written.units(written.written(tmp_path / "m.onnx", f"{text} {rest}", stored, ("n", 5))) == []


LABELS = {
    "looked up": "y = Gather (names, best)",
    "rearranged": "k = Reshape (names, flat) g = Gather (k, best) v = Unsqueeze (g, one) y = Concat <axis = 1> (v, v)",
    "one of two": "g = Gather (names, best) z = Equal (best, one) y = Where (z, g, names1)",
    "written down": 'c = Constant <value_strings = ["cat", "dog", "owl"]> () y = Gather (c, best)',
}


@pytest.mark.parametrize("kind", LABELS)
def test_layers_before_names_of_classes_are_repaired(kind, tmp_path):
    """Text is no number, and stops no rule: dead units are told and go, and the names stay what they are."""
    stored = {
        "w1": RNG.normal(size=(6, 10)), "b1": RNG.normal(size=10), "w2": RNG.normal(size=(10, 3)),
        "b2": RNG.normal(size=3), "names": np.array(["cat", "dog", "owl"], object), "flat": np.array([-1]),
        "names1": np.array(["none"], object), "one": np.array([1]),
    }  # fmt: skip
    stored["w2"][[2, 5]] = 0
    text = "a = Gemm (x, w1, b1) r = Relu (a) p = Gemm (r, w2, b2) best = ArgMax <axis = 1, keepdims = 0> (p)"
    kinds = (TensorProto.FLOAT, TensorProto.STRING)
    shape = ("n",) if kind != "rearranged" else ("n", 2)
    path = written.written(tmp_path / "m.onnx", f"{text} {LABELS[kind]}", stored, ("n", 6), shape, kinds=kinds)
    assert written.units(path) == [("SYM101", [2, 5])]
    assert [one.removed for one in written.repaired(path).done] == [2]
    symmetry, structure = examine(load(str(path)))
    assert {t.outcome for t in verify(structure, [g.id for g in symmetry.generators])} == {"held"}


@pytest.mark.parametrize("adapter", ["t = MatMul(r, p) u = MatMul(t, q) g = Add(c, u)", "g = Identity(c)"])
def test_a_layer_of_equal_units_is_not_constant_because_what_stands_beside_it_is_nothing(adapter, tmp_path):
    """A layer takes in the adapter beside it, which is nothing then: all units are one, and depend on the input."""
    rng = np.random.default_rng(0)
    stored = {"v": rng.normal(size=(5, 9)), "b": rng.normal(size=9), "w": rng.normal(size=(9, 1)).repeat(7, 1)}
    stored |= {"p": rng.normal(size=(9, 2)), "q": rng.normal(size=(2, 1)).repeat(7, 1), "z": rng.normal(size=(7, 3))}
    text = f"a = MatMul(x, v) h = Add(a, b) r = Relu(h) c = MatMul(r, w) {adapter} s = Relu(g) y = MatMul(s, z)"
    path = written.written(tmp_path / "m.onnx", text, stored, ("n", 5))
    assert written.units(path) == [("SYM203", list(range(7)))]
    assert written.shape(written.repaired(path).path, "w") == (9, 1)
