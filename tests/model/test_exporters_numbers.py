"""Numbers that an exporter writes by itself are no parameters; those that could have been learned are."""

from __future__ import annotations

import numpy as np
import pytest
from written import written

from symlint.model.load import load
from symlint.program.translate import parameters, translate

CASES = {
    "scale": ("k = Constant<value_floats=[8.0]>() z = Div(h, k)", set()),
    "gains of ones": ("k = Constant<value_floats=[1.0, 1.0, 1.0, 1.0, 1.0, 1.0]>() z = Mul(h, k)", set()),
    "decomposed norm": (
        """three = Unsqueeze(h, last) gain = Constant<value_floats=[1.0, 1.0, 1.0, 1.0, 1.0, 1.0]>()
        nought = Constant<value_floats=[0.0, 0.0, 0.0, 0.0, 0.0, 0.0]>()
        n = InstanceNormalization(three, gain, nought) z = Squeeze(n, last)""",
        set(),
    ),
    "learned literal": ("k = Constant<value_floats=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]>() z = Mul(h, k)", {"k"}),
    "stored gains of ones": ("z = Mul(h, ones)", {"ones"}),
    "stored bias of one": ("t = Add(h, ones) z = Mul(t, one)", {"ones", "one"}),
}


@pytest.mark.parametrize("case", CASES)
def test_numbers_between_the_weights(case, tmp_path):
    """One number throughout a Constant node is an exporter's where the weights are stored."""
    text, more = CASES[case]
    rng = np.random.default_rng(1)
    stored = {
        "a": rng.normal(size=(4, 6)), "b": rng.normal(size=(6, 3)), "ones": np.ones(6), "one": np.ones(1),
        "last": np.array([2]),
    }  # fmt: skip
    path = written(tmp_path / "model.onnx", f"h = MatMul(x, a) {text} y = MatMul(z, b)", stored, (2, 4))
    assert parameters(translate(load(path))).keys() == {"a", "b"} | more


def test_where_all_weights_are_constants_they_are_parameters(tmp_path):
    """In a file that stores no weight, Constant nodes are weights, whatever they hold."""
    text = """a = Constant<value_floats=[1.0, 2.0]>() h = Mul(x, a) k = Constant<value_floats=[3.0, 3.0]>()
        y = Mul(h, k)"""
    path = written(tmp_path / "model.onnx", text, {}, (2, 2))
    assert parameters(translate(load(path))).keys() == {"a", "k"}
