"""Flaws are found in integer files as in the files that they were made from, and taken away where that is exact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import written
from quantised import KERNELS, MATRIX, Form

pytestmark = pytest.mark.usefixtures("no_clock")

ZERO = [7, 9]
UNREAD = [3, 11]
CONSTANT = [5, 6]
EQUAL = [1, 2]


def matrices(path: Path, flaw: str) -> Path:
    """Three matrices with biases, of which units of the first have a flaw."""
    rng = np.random.default_rng(3)
    stored = {
        "w1": rng.normal(size=(16, 32)), "b1": rng.normal(size=32), "w2": rng.normal(size=(32, 16)),
        "b2": rng.normal(size=16), "w3": rng.normal(size=(16, 4)),
    }  # fmt: skip
    flawed(flaw, stored["w1"].T, stored["b1"], stored["w2"])
    text = "h = MatMul(x, w1) a = Add(h, b1) r = Relu(a) k = MatMul(r, w2) c = Add(k, b2) e = Relu(c) y = MatMul(e, w3)"
    return written.written(path, text, stored, ("n", 16))


def kernels(path: Path, flaw: str) -> Path:
    """Three convolutions, of which channels of the first have a flaw."""
    rng = np.random.default_rng(3)
    stored = {
        "w1": rng.normal(size=(12, 3, 3, 3)), "b1": rng.normal(size=12), "w2": rng.normal(size=(6, 12, 3, 3)),
        "b2": rng.normal(size=6), "w3": rng.normal(size=(4, 6, 1, 1)), "b3": rng.normal(size=4),
    }  # fmt: skip
    flawed(flaw, stored["w1"], stored["b1"], stored["w2"].transpose(1, 0, 2, 3))
    text = "h = Conv(x, w1, b1) r = Relu(h) k = Conv(r, w2, b2) e = Relu(k) y = Conv(e, w3, b3)"
    return written.written(path, text, stored, (1, 3, 8, 8), (None,) * 4)


def flawed(flaw: str, writer: np.ndarray, bias: np.ndarray, reader: np.ndarray) -> None:
    """Change units: the first axis of all three."""
    if flaw == "zero":
        writer[ZERO], bias[ZERO] = 0, -0.5
    elif flaw == "unread":
        reader[UNREAD] = 0
    elif flaw == "constant":
        writer[CONSTANT], bias[CONSTANT] = 0, 0.7
    elif flaw == "equal":
        writer[EQUAL[0]], bias[EQUAL[0]] = writer[EQUAL[1]], bias[EQUAL[1]]


def quantised(form: Form, source: Path) -> Path:
    """The same network in another form."""
    target = source.with_name(f"integers.{source.name}")
    form(source, target)
    return target


FORMS = [
    pytest.param(matrices, form, id=f"matrices-{name}") for name, form in MATRIX.items() if "blocks" not in name
] + [pytest.param(kernels, form, id=f"kernels-{name}") for name, form in KERNELS.items()]


@pytest.mark.parametrize(("network", "form"), FORMS)
def test_flaws_are_found_in_every_form(network, form, request, tmp_path):
    """Zero, constant and equal units; and unread ones where they do not widen the grid that a run decides."""
    dynamic = "dynamic" in request.node.name
    wanted = {
        "zero": [("SYM101", ZERO)],
        "unread": [] if dynamic else [("SYM101", UNREAD)],
        # On such a grid a constant is rounded to what others leave of it.
        "constant": [("SYM201" if dynamic else "SYM102", CONSTANT)],
        "equal": [("SYM201", EQUAL)],
    }
    for flaw, units in wanted.items():
        path = quantised(form, network(tmp_path / f"{flaw}.onnx", flaw))
        assert written.units(path) == units, flaw


@pytest.mark.parametrize("name", ["dynamic", "dynamic by channel", "pairs by channel", "operators"])
@pytest.mark.parametrize("network", [matrices, kernels])
def test_zero_units_go_from_integer_files(network, name, tmp_path):
    """They are cut out of integers, scales and zero points, and the levels stay what they were."""
    path = quantised(KERNELS[name], network(tmp_path / "m.onnx", "zero"))
    made = written.repaired(path)
    assert [(one.rule, one.removed) for one in made.done] == [("SYM101", 2)], made.left
    assert written.units(made.path) == []


def test_what_cannot_be_merged_is_not_promised(tmp_path):
    """Rows of integers cannot be added up: equal units are told, and left with the reason."""
    path = quantised(KERNELS["pairs"], matrices(tmp_path / "m.onnx", "equal"))
    (finding,) = written.told(path)
    made = written.repaired(path)
    assert (finding.rule, made.done) == ("SYM201", ())
    assert [left.reason for left in made.left] == ["their readers are no plain weights, whose rows could be added up"]


def test_random_integer_files_are_clean(tmp_path):
    """Rounding to few levels makes nothing equal or constant."""
    for name, form in MATRIX.items():
        path = quantised(form, matrices(tmp_path / "m.onnx", "none"))
        assert written.units(path) == [], name


GRIDS = "q, s1, z1 = DynamicQuantizeLinear (x) {} r = Relu (h) p, s2, z2 = DynamicQuantizeLinear (r)"
PRODUCT = "com.microsoft.MatMulIntegerToFloat"
FUSED = {
    "matrix": "h = {0} (x, w, s, , b) r = Relu (h) y = {0} (r, v, s)".format("com.microsoft.DynamicQuantizeMatMul"),
    "to float": f"{GRIDS.format(f'h = {PRODUCT} (q, w, s1, s, z1, , b)')} y = {PRODUCT} (p, v, s2, s, z2)",
}


@pytest.mark.parametrize("kind", FUSED)
def test_zero_units_go_from_fused_forms(kind, tmp_path):
    """onnxruntime's own operators on integers say the same."""
    rng = np.random.default_rng(6)
    stored = {
        "w": rng.integers(-100, 100, (6, 10)).astype(np.int8), "s": np.asarray(0.02, np.float32),
        "b": rng.normal(size=10), "v": rng.integers(-100, 100, (10, 5)).astype(np.int8),
    }  # fmt: skip
    stored["w"][:, 4], stored["b"][4] = 0, -0.2
    path = written.written(tmp_path / "m.onnx", FUSED[kind], stored, ("n", 6))
    assert written.units(path) == [("SYM101", [4])]
    made = written.repaired(path)
    assert written.shape(made.path, "w") == (6, 9), made.left


def test_the_given_integer_file(shared, tmp_path):
    """Unit 7 is zero for every input and goes, as in the file of floating numbers."""
    for name in ("float", "model"):
        path = tmp_path / f"{name}.onnx"
        path.write_bytes((shared / f"faults/dynamic_quantised/{name}.onnx").read_bytes())
        assert written.units(path) == [("SYM101", [7])]
        assert [(one.rule, one.removed) for one in written.repaired(path).done] == [("SYM101", 1)]
