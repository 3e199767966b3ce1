"""Recurrences in groups and in both directions, whose outputs are split, joined and shuffled: what is claimed holds."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import onnx
import pytest
from networks import Net
from test_truth import SEEDS, nullity

from symlint.model.load import load
from symlint.runtime.verify import verify
from symlint.symmetry.inference import examine, infer

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
STATES = 4
"""Hidden units of each recurrence in each direction."""


def shuffle(out: str, a: str, b: str, rows: str, whole: str) -> str:
    """Two halves of channels (places, batch, c), in turns."""
    return f"""
        {out}_a = Unsqueeze({a}, ahead) {out}_b = Unsqueeze({b}, ahead) {out}_s = Concat<axis = 2>({out}_a, {out}_b)
        {out}_t = Transpose<perm = [0, 1, 3, 2]>({out}_s) {out} = Reshape({out}_t, {whole})
    """


def layer(op: str, k: int, x: str, direction: str, sides: str) -> str:
    """A recurrence over places, with both directions side by side or added, as torch and others write it."""
    text = f'o{k} = {op}<hidden_size = {STATES}, direction = "{direction}">({x}, w{k}, r{k}, b{k})'
    if sides == "beside":
        return f"{text} t{k} = Transpose<perm = [0, 2, 1, 3]>(o{k}) f{k} = Reshape(t{k}, flat)"
    return f"{text} f{k} = ReduceSum<keepdims = 0>(o{k}, one)"


ENDS = {
    "joined": "m = Concat<axis = -1>(f0, f1)",
    "crossed": "m = Concat<axis = -1>(f1, f0)",
    "split": "p0, p1 = Split<axis = -1>(f0, parts) q0, q1 = Split<axis = -1>(f1, parts) "
    "m = Concat<axis = -1>(p0, q1, p1, q0)",
    "halves": "c = Concat<axis = -1>(f0, f1) p0, p1 = Split<axis = -1>(c, cut) m = Concat<axis = -1>(p1, p0)",
    "shuffled": shuffle("m", "f0", "f1", "ahead", "flat"),
    "added": "m = Add(f0, f1)",
}
"""How the outputs of two groups come together."""


def grouped(op: str, direction: str, end: str, sides: str = "beside") -> Net:
    """Two groups of channels, a recurrence for each, and a linear head on what they make together."""
    d = 2 if direction == "bidirectional" else 1
    width = STATES * (d if sides == "beside" else 1)
    joined = width if end == "added" else 2 * width
    shapes = {
        f"{n}{k}": s
        for k in range(2)
        for n, s in {
            "w": (d, GATES[op] * STATES, 2),
            "r": (d, GATES[op] * STATES, STATES),
            "b": (d, 2 * GATES[op] * STATES),
        }.items()
    }
    return Net(
        f"""
        s = Transpose<perm = [1, 0, 2]>(x) s0, s1 = Split<axis = -1>(s, pair)
        {layer(op, 0, "s0", direction, sides)} {layer(op, 1, "s1", direction, sides)} {ENDS[end]}
        h = MatMul(m, c0) y = Tanh(h)
        """,
        {**shapes, "c0": (joined, 2)},
        {"x": (3, 4)},
        3,
        0,
        {
            "pair": [2, 2],
            "flat": [0, 0, -1],
            "one": [1],
            "ahead": [2],
            "parts": [2, width - 2],
            "cut": [width - 1, width + 1],
        },
    )


def chained(op: str, direction: str, blocks: int) -> Net:
    """Blocks that pass one half of the channels through a recurrence and the other by, with shuffles and shortcuts."""
    d = 2 if direction == "bidirectional" else 1
    half = STATES * d
    text, shapes = "s = Transpose<perm = [1, 0, 2]>(x) z = MatMul(s, a)", {"a": (4, 2 * half), "c0": (2 * half, 2)}
    last, made = "z", ["z"]
    for k in range(2 * blocks):
        text += f" u{k}, v{k} = Split<axis = -1>({last}, cut) {layer(op, k, f'u{k}', direction, 'beside')}"
        text += shuffle(f"n{k}", f"f{k}", f"v{k}", "ahead", "flat")
        last = f"n{k}"
        if k < blocks:
            made.append(last)
        else:
            text += f" e{k} = Add({last}, {made.pop()})"
            last = f"e{k}"
        gates = GATES[op] * STATES
        shapes |= {f"w{k}": (d, gates, half), f"r{k}": (d, gates, STATES), f"b{k}": (d, 2 * gates)}
    return Net(
        f"{text} h = MatMul({last}, c0) y = Tanh(h)",
        shapes,
        {"x": (3, 4)},
        3,
        0,
        {"flat": [0, 0, -1], "ahead": [2], "cut": [half, half]},
    )


def outcomes(net: Net, folder: Path) -> dict[str, str]:
    """Generator -> what onnxruntime says of it."""
    onnx.save(net.model("float32", net.values()), folder / "net.onnx")
    symmetry, structure = examine(load(folder / "net.onnx"))
    return {t.id: t.outcome for t in verify(structure, [g.id for g in symmetry.generators])}


DIRECTIONS = ("forward", "reverse", "bidirectional")
TURNS = [(op, d, e) for k, (e, d) in enumerate(product(ENDS, DIRECTIONS)) for op in (list(GATES)[(k + k // 3) % 3],)]
"""Every way to come together in every direction, the operators in turns."""


@pytest.mark.parametrize(("op", "direction", "end"), TURNS)
def test_groups_of_recurrences_that_come_together(op, direction, end, tmp_path):
    """Every generator of two recurrences holds, however their outputs are cut and joined; there are some."""
    found = outcomes(grouped(op, direction, end), tmp_path)
    assert set(found.values()) == {"held"}
    assert any(g.endswith(".permutation") for g in found)


@pytest.mark.parametrize("op", GATES)
def test_directions_that_are_added(op, tmp_path):
    """So it is where both directions are added up instead."""
    assert set(outcomes(grouped(op, "bidirectional", "joined", "added"), tmp_path).values()) == {"held"}


@pytest.mark.parametrize(
    ("op", "direction", "blocks"), [("GRU", "bidirectional", 3), ("LSTM", "forward", 2), ("RNN", "reverse", 3)]
)
def test_shuffles_of_shuffles_with_recurrences_between(op, direction, blocks, tmp_path):
    """So it is in blocks that shuffle what was shuffled before, with shortcuts that make the shuffles alike."""
    assert set(outcomes(chained(op, direction, blocks), tmp_path).values()) == {"held"}


@pytest.mark.parametrize(("op", "direction", "end"), [("GRU", "forward", "split"), ("RNN", "bidirectional", "halves")])
def test_the_dimension_of_groups_of_recurrences(op, direction, end, tmp_path):
    """As many directions are claimed as the Jacobian has in its null space."""
    net = grouped(op, direction, end)
    onnx.save(net.model("float32", net.values()), tmp_path / "net.onnx")
    assert infer(load(tmp_path / "net.onnx")).dimension == nullity(net, SEEDS[0])
