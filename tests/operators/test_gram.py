"""Matrices of products of a factor with itself, cut, indexed and flattened as interactions of features are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from written import told, units, written

from symlint.model.load import load
from symlint.runtime.verify import verify
from symlint.symmetry.inference import examine

WIDTH = 5
"""Numbers in each of four rows of features."""
GRAM = {
    "matmul": "t = Transpose<perm=[0, 2, 1]>(rows) g = MatMul(rows, t)",
    "einsum": 'g = Einsum<equation="bid,bjd->bij">(rows, rows)',
    "broadcast": """one = Unsqueeze(rows, at2) other = Unsqueeze(rows, at1) p = Mul(one, other)
        g = ReduceSum<keepdims=0>(p, at3)""",
    "columns": "t = Transpose<perm=[0, 2, 1]>(rows) g = MatMul(t, rows)",
    "sums": """one = Unsqueeze(rows, at2) other = Unsqueeze(rows, at1) p = Add(one, other) q = Relu(p)
        g = ReduceMean<axes=[3], keepdims=0>(q)""",
}
"""From rows [batch, 4, 5] to a square g."""
PART = {
    "triangle of the flat": "flat = Reshape(g, long) part = Gather<axis=1>(flat, triangle)",
    "single entries": """r1 = Gather<axis=1>(g, one_) r2 = Gather<axis=1>(g, two_)
        e1 = Gather<axis=1>(r1, zero_) e2 = Gather<axis=1>(r2, zero_) e3 = Gather<axis=1>(r2, one_)
        u1 = Unsqueeze(e1, at1) u2 = Unsqueeze(e2, at1) u3 = Unsqueeze(e3, at1) part = Concat<axis=1>(u1, u2, u3)""",
    "pairs": """turned = Transpose<perm=[1, 2, 0]>(g) chosen = GatherND(turned, pairs)
        part = Transpose<perm=[1, 0]>(chosen)""",
    "mask": "flat = Reshape(g, long) part = Compress<axis=1>(flat, lower)",
    "row": "s = Slice(g, from1, to2, at1) part = Squeeze(s, at1)",
    "block": "s = Slice(g, from1, to4, at1) c = Slice(s, from0, to2, at2) part = Flatten<axis=1>(c)",
    "column": "c = Gather<axis=2>(g, some) part = Flatten<axis=1>(c)",
    "halves": "a, b = Split<axis=1>(g) c, part3 = Split<axis=2>(b) d = Mul(c, a1) part = Flatten<axis=1>(part3)",
    "all": "part = Flatten<axis=1>(g)",
}
"""From g to a matrix of what is read of it."""


def network(path: Path, gram: str, part: str, dead: tuple[int, ...] = ()) -> Path:
    """Four rows of features, one of them of a layer of eight units, their products, and a layer that reads some."""
    rng = np.random.default_rng(5)
    size = WIDTH if gram == "columns" else 4
    lower = np.tril(np.ones((size, size), bool), -1)
    row, column = np.nonzero(lower)
    flat = row * size + column
    width = {
        "triangle of the flat": len(flat), "single entries": 3, "pairs": len(flat), "mask": len(flat), "row": size,
        "block": (4 - 1) * 2, "column": 2 * size, "halves": (size // 2) ** 2, "all": size * size,
    }[part]  # fmt: skip
    stored = {
        "w1": rng.normal(size=(6, 8)), "b1": rng.normal(size=8), "w2": rng.normal(size=(8, WIDTH)),
        "e": rng.normal(size=(1, 3, WIDTH)), "w3": rng.normal(size=(width, 3)),
        "long": np.array([0, size * size]), "triangle": flat, "pairs": np.stack([row, column], -1),
        "lower": lower.reshape(-1),
        **{f"at{k}": np.array([k]) for k in (1, 2, 3)}, "from0": np.array([0]), "from1": np.array([1]),
        "to2": np.array([2]), "to4": np.array([4]), "some": np.array([0, 2]), "a1": np.array(1.0),
        "zero_": np.array(0), "one_": np.array(1), "two_": np.array(2), "like": np.array([0, 3, WIDTH]),
    }  # fmt: skip
    for unit in dead:
        stored["w1"][:, unit] = 0.0
        stored["b1"][unit] = -1.0
    text = f"""h = MatMul(x, w1) i = Add(h, b1) r = Relu(i) m = MatMul(r, w2) u = Unsqueeze(m, at1) f = Mul(u, e)
        rows = Concat<axis=1>(u, f) {GRAM[gram]} {PART[part]} y = MatMul(part, w3)"""
    return written(path, text, stored, (2, 6))


CASES = [("matmul", p) for p in PART] + [
    (g, p) for g in list(GRAM)[1:] for p in ("triangle of the flat", "single entries", "pairs")
]


@pytest.mark.parametrize(("gram", "part"), CASES)
def test_products_of_rows_with_each_other_are_walked(gram, part, tmp_path):
    """Whatever is taken of the square, the network is audited, a planted dead unit is found, and every claim holds."""
    path = network(tmp_path / "model.onnx", gram, part, dead=(3,))
    assert ("SYM101", [3]) in units(path), told(path)
    symmetry, structure = examine(load(path))
    assert symmetry.coverage.opaque == 0
    trials = verify(structure, [g.id for g in symmetry.generators if g.exact])
    assert {t.outcome for t in trials} == {"held"}
