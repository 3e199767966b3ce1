"""Parts of a network that compute alike can change places; what only looks alike cannot."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import BRANCHES, Net, branch, each

from symlint.model.load import load
from symlint.runtime.verify import verify
from symlint.symmetry.actions.permutation import PartExchange
from symlint.symmetry.inference import examine

TWO = each(2, a=(3, 2), p=(2,), b=(2, 2))
INPUT = {"x": (3,)}
ALIKE = {
    "halves that are written alike": ("S_2",),
    "one index": ("S_2",),
    "towers": ("S_3",),
    "gated_branches": ("S_3",),
    "joined_branches": ("S_2",),
    "product_of_layers": ("S_2",),
    "branches of branches": ("S_2", "S_2", "S_2"),
}
NETWORKS = {
    **BRANCHES,
    "halves that are written alike": Net(  # the halves of what a halves, which b writes, are of one factor
        """
        u = MatMul(x, a) l, r = Split<axis = -1>(u) s = Add(l, r) t = Tanh(s) v = MatMul(t, b)
        p, q = Split<axis = -1>(v) c = Concat<axis = -1>(q, p) y = MatMul(c, d)
        """,
        {"a": (3, 4), "b": (2, 4), "d": (4, 3)},
        INPUT,
        2,
        0,
    ),
    "one index": Net(
        "u = Gather(a0, i) v = Gather(a1, i) s = Tanh(u) t = Tanh(v) y = Add(s, t)",
        each(2, a=(4, 3)),
        {},
        2,
        0,
        {},
        {"i": (4,)},
    ),
    "branches of branches": Net(
        " ".join(branch(k) for k in range(4))
        + " s = Add(o0, o1) t = Add(o2, o3) l = Tanh(s) r = Tanh(t) m = MatMul(l, c0) n = MatMul(r, c1) y = Add(m, n)",
        {**each(4, a=(3, 2), p=(2,), b=(2, 2)), **each(2, c=(2, 2))},
        INPUT,
        2,
        0,
    ),
}
LURES = {
    "another function": Net(f"{branch(0)} {branch(1, 'Tanh')} y = Add(o0, o1)", TWO, INPUT, 2, 0),
    "another attribute": Net(
        f"{branch(0)} {branch(1, 'LeakyRelu<alpha = 0.3>')} y = Add(o0, o1)".replace("Relu(u0)", "LeakyRelu(u0)"),
        TWO,
        INPUT,
        2,
        0,
    ),
    "another number": Net(
        f"{branch(0)} {branch(1)} s = Mul(o0, one) t = Mul(o1, two) y = Add(s, t)",
        TWO,
        INPUT,
        2,
        0,
        {"one": 1.5, "two": 2.5},
    ),
    "a difference": Net(f"{branch(0)} {branch(1)} y = Sub(o0, o1)", TWO, INPUT, 2, 0),
    "side by side at the output": Net(f"{branch(0)} {branch(1)} y = Concat<axis = -1>(o0, o1)", TWO, INPUT, 2, 0),
    "one behind the other": Net(
        "u = Gemm(x, a0, p0) v = Relu(u) w = Gemm(v, a1, p1) y = Relu(w)", each(2, a=(3, 3), p=(3,)), INPUT, 2, 0
    ),
    "other inputs": Net(
        f"{branch(0)} {branch(1).replace('(x,', '(z,')} y = Add(o0, o1)", TWO, {**INPUT, "z": (3,)}, 2, 0
    ),
    "other indices": Net(
        "u = Gather(a0, i) v = Gather(a1, j) s = Tanh(u) t = Tanh(v) y = Add(s, t)",
        each(2, a=(4, 3)),
        {},
        2,
        0,
        {},
        {"i": (4,), "j": (4,)},
    ),
    "values without a shape": Net(
        "u = MatMul(x, a0) v = MatMul(x, a1) p = acme.Odd(u) q = acme.Odd(v) y = acme.Pair(p, q)",
        each(2, a=(3, 2)),
        INPUT,
        2,
        0,
    ),
    "biases that add up": Net("u = Gemm(x, a, p) y = Add(u, q)", {"a": (3, 2), "p": (2,), "q": (2,)}, INPUT, 2, 0),
}


def saved(net: Net, folder: Path) -> Path:
    """The file of a network with random weights."""
    file = folder / "net.onnx"
    onnx.save(net.model("float32", {n: v.astype(np.float32) for n, v in net.values().items()}), file)
    return file


@pytest.mark.parametrize("name", ALIKE)
def test_parts_that_compute_alike_change_places(name, tmp_path):
    """Every set of such parts is found with its group, and onnxruntime finds the function unchanged."""
    symmetry, structure = examine(load(saved(NETWORKS[name], tmp_path)))
    found = [g for g in symmetry.generators if isinstance(structure.action(g.id), PartExchange)]
    assert tuple(g.group for g in found) == ALIKE[name]
    assert {o.outcome for o in verify(structure, [g.id for g in found], seed=1)} == {"held"}


@pytest.mark.parametrize("name", LURES)
def test_parts_that_differ_stay(name, tmp_path):
    """Nothing changes places where a function, a number, the order or what is read differs."""
    _, structure = examine(load(saved(LURES[name], tmp_path)))
    assert not any(isinstance(action, PartExchange) for action in structure.actions.values())
