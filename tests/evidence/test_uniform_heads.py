"""Heads whose scores cannot differ, in attentions whose queries and keys vary along different axes."""

from __future__ import annotations

import numpy as np
import pytest
from written import told, written

HEADS, WIDTH, LENGTH = 4, 6, 5
KEYS = {
    "plain": "k2 = Identity(kh)",
    "places": "k2 = Add(kh, place)",
    "offset": "k2 = Add(kh, offset)",
    "offset of each example": "wide = Expand(offset, examples) k2 = Add(kh, wide)",
    "offset of each head": "wide = Expand(offset, alike) k2 = Add(kh, wide)",
    "shared by two heads": """few = Slice(kh, zero, two, at2) up = Unsqueeze(few, at3) rep = Expand(up, twice)
        k2 = Reshape(rep, split)""",
    "one for all": "few = Slice(kh, zero, one, at2) k2 = Expand(few, each)",
}
"""Keys [batch, length, heads, width] of an attention, from those of all heads."""


TURNED = {
    "at once": "kt = Transpose<perm=[0, 2, 3, 1]>(k2)",
    "by matrices": """k3 = Transpose<perm=[0, 2, 1, 3]>(k2) k4 = Reshape(k3, matrices)
        k5 = Transpose<perm=[0, 2, 1]>(k4) kt = Reshape(k5, apart)""",
}
"""How the keys become columns: as they are, or as matrices, one behind the other over examples and heads."""


@pytest.mark.parametrize("turned", TURNED)
@pytest.mark.parametrize("keys", KEYS)
@pytest.mark.parametrize("flat", [(), (0, 3), (0, 1, 2, 3)])
def test_heads_that_average_are_told_by_their_numbers(keys, flat, turned, tmp_path):
    """Heads whose queries are all but zero are found, no others, and none where keys depend on places."""
    rng = np.random.default_rng(6)
    inner = HEADS * WIDTH
    wq = rng.normal(size=(inner, inner))
    for head in flat:
        wq[:, head * WIDTH : (head + 1) * WIDTH] *= 1e-9
    stored = {
        "wq": wq, "wk": rng.normal(size=(inner, inner)), "wv": rng.normal(size=(inner, inner)),
        "wo": rng.normal(size=(inner, 3)), "gain": rng.uniform(0.5, 1.5, inner), "shift": rng.normal(size=inner),
        "place": rng.normal(size=(1, LENGTH, 1, WIDTH)), "split": np.array([2, LENGTH, HEADS, WIDTH]),
        "join": np.array([2, LENGTH, inner]), "examples": np.array([2, 1, 1, WIDTH]),
        "offset": rng.normal(size=(1, 1, 1, WIDTH)), "alike": np.array([1, 1, HEADS, WIDTH]), "zero": np.array([0]),
        "matrices": np.array([-1, LENGTH, WIDTH]), "apart": np.array([2, HEADS, WIDTH, LENGTH]),
        "one": np.array([1]), "two": np.array([2]), "at2": np.array([2]), "at3": np.array([3]),
        "twice": np.array([2, LENGTH, 2, 2, WIDTH]), "each": np.array([2, LENGTH, HEADS, WIDTH]),
    }  # fmt: skip
    text = f"""n = LayerNormalization<axis=-1>(x, gain, shift) q = MatMul(n, wq) k = MatMul(n, wk) v = MatMul(n, wv)
        qh = Reshape(q, split) kh = Reshape(k, split) vh = Reshape(v, split) {KEYS[keys]}
        qt = Transpose<perm=[0, 2, 1, 3]>(qh) {TURNED[turned]}
        vt = Transpose<perm=[0, 2, 1, 3]>(vh) s = MatMul(qt, kt) p = Softmax(s) c = MatMul(p, vt)
        ct = Transpose<perm=[0, 2, 1, 3]>(c) o = Reshape(ct, join) y = MatMul(o, wo)"""
    path = written(tmp_path / "model.onnx", text, stored, (2, LENGTH, inner), (None, None, None))
    found = [list(f.units) for f in told(path) if f.rule == "SYM304"]
    assert found == ([list(flat)] if flat and keys != "places" else [])
