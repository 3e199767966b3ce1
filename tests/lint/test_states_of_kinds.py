"""States that the rarer kinds of symmetry predict are told by the rule of that state, in several number types."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from combined_networks import COMBINED
from networks import SMALL, Arrays
from routed_networks import ROUTED
from turned_networks import TURNED

from symlint.audit.engine import audit
from symlint.evidence.options import Level
from symlint.lint.rule import rules
from symlint.lint.settings import Settings

NETS = {**SMALL, **ROUTED, **TURNED, **COMBINED}
Index = int | tuple[object, ...]
Change = Callable[[Arrays], None]
FIRST, SECOND = np.s_[..., 0], np.s_[..., 1]


def nought(**places: Index) -> Change:
    """Weights of a unit that are zero."""

    def change(values: Arrays) -> None:
        for name, place in places.items():
            values[name][place] = 0

    return change


def again(times: float = 1.0, **places: tuple[Index, Index]) -> Change:
    """Weights of a unit that are another's, so many times."""

    def change(values: Arrays) -> None:
        for name, (place, source) in places.items():
            values[name][place] = times * values[name][source]

    return change


def low(name: str) -> Change:
    """A matrix without its last direction."""

    def change(values: Arrays) -> None:
        left, sizes, right = np.linalg.svd(values[name], full_matrices=False)
        sizes[-1] = 0
        values[name] = (left * sizes) @ right

    return change


def hidden(name: str, reader: str) -> Change:
    """What the second unit writes is none of what a reader reads."""

    def change(values: Arrays) -> None:
        values[name][1] -= values[name][1] @ values[reader] @ np.linalg.pinv(values[reader])

    return change


ROW, COLUMN = (1, 0), (SECOND, FIRST)
STATES: dict[str, tuple[str, Change, str, tuple[int, ...]]] = {
    "plane of stored angles that is not written": ("rotary_stored", nought(wq=np.s_[:, ::2]), "SYM101", (0,)),
    "plane of angles looked up that is not written": ("rotary_looked_up", nought(wk=np.s_[:, 1::2]), "SYM101", (1,)),
    "plane of computed angles that is not written": ("rotary_half", nought(wk=np.s_[:, 1::2]), "SYM101", (1,)),
    "unit behind readers without a bias": ("unbiased_head", nought(a=1, p=1), "SYM101", (1,)),
    "unit of a layer used twice": ("norm_and_layer_twice", nought(a=SECOND, p=1), "SYM101", (1,)),
    "equal units of a layer used twice": ("norm_and_layer_twice", again(a=COLUMN, p=ROW), "SYM201", (0, 1)),
    "equal units of a tied layer of tokens": (
        "norm_and_layer_twice_of_tokens", again(a=COLUMN, p=ROW), "SYM201", (0, 1),
    ),
    "direction that only distances read": (
        "distances", nought(b=np.s_[:, 2], q=2, c=np.s_[:, 2]), "SYM602", (),
    ),
    "unit of one of two towers": ("product_of_layers", nought(a0=SECOND, p0=1), "SYM101", (1,)),
    "unit that is modulated and not read": ("modulated", nought(d=1), "SYM101", (1,)),
    "equal units that are modulated alike": (
        "modulated", again(a=COLUMN, p=ROW, b=COLUMN, q=ROW, c=COLUMN, r=ROW), "SYM201", (0, 1),
    ),
    "unit of all chosen experts": ("chosen_by_input", nought(a=SECOND, b=SECOND), "SYM101", (1,)),
    "unit of one expert behind GatherND": ("routed_gather_nd", nought(a0=SECOND), "SYM101", (1,)),
    "keys of low rank in a product memory": ("product_keys", low("k1"), "SYM301", ()),
    "unit below a maximum over windows": ("pooled_largest", nought(a=1, p=1), "SYM101", (1,)),
    "equal units below a maximum over windows": ("pooled_largest", again(a=ROW, p=ROW), "SYM201", (0, 1)),
    "largest of several that nothing reads": ("maxout", nought(b=1), "SYM104", (1,)),
    "unit whose difference is nought": ("difference", nought(b=SECOND, q=1), "SYM101", (1,)),
    "equal units whose difference is read": ("difference", again(a=COLUMN, p=ROW), "SYM201", (0, 1)),
    "multiple below a power": ("odd_power", again(2.0, a=COLUMN, p=ROW), "SYM201", (0, 1)),
    "opposite below an even power": ("even_power", again(-2.0, a=ROW, p=ROW), "SYM201", (0, 1)),
    "unit before positive weights": ("softplus_of_weights", nought(a=SECOND, p=1), "SYM101", (1,)),
    "multiple before positive weights": ("softplus_of_weights", again(2.0, a=COLUMN, p=ROW), "SYM201", (0, 1)),
    "unit that is written where a narrow head does not read": ("narrow_head", hidden("b", "c"), "SYM101", (1,)),
    "unit before weights stored as directions": ("weight_norm_behind_relu", nought(a=SECOND, p=1), "SYM101", (1,)),
    "unit that no stored direction reads": ("weight_norm_behind_relu", nought(v=SECOND), "SYM101", (1,)),
    "capsule that is not written": ("capsules", nought(a=np.s_[:, :2], p=np.s_[:2]), "SYM104", (0,)),
}  # fmt: skip
"""What is wrong -> network, change of its weights, rule, and units."""


@pytest.mark.parametrize("name", STATES)
def test_a_state_is_told(name, tmp_path: Path):
    """One finding above note, of the right rule and units, and none without the state.

    Half precision does not tell a rank of so few rows from noise.
    """
    network, change, rule, units = STATES[name]
    net, settings = NETS[network], Settings()
    for dtype in ("float32", "float16" if units else "float64"):
        for planted in (False, True):
            values = {n: np.array(v, np.float64) for n, v in net.values().items()}
            if planted:
                change(values)
            path = tmp_path / "net.onnx"
            onnx.save(net.model(dtype, {n: v.astype(dtype) for n, v in values.items()}), path)
            report = audit(str(path), settings.chosen(rules()), settings)
            assert not report.incomplete
            found = [(f.rule, tuple(f.units)) for f in report.findings if f.level > Level.NOTE]
            assert found == [(rule, units)] * planted, dtype
