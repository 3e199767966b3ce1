"""What the rules say of states: units that no step of a sequence needs, and what they cost."""

from __future__ import annotations

from dataclasses import replace

import onnx
import pytest
from stateful_networks import STATEFUL

from symlint.audit.engine import audit
from symlint.lint.finding import Level
from symlint.lint.rule import rules
from symlint.lint.settings import Settings


def unread(v):
    v["o"][1] = 0
    v["r"][0, :, 1] = 0


def unread_gru(v):
    v["c"][2] = 0
    v["r"][0, :, 2] = 0


def unread_rectified(v):
    v["c"][2] = 0
    v["r"][2] = 0


def unwritten(v):
    v["a"][:, 3] = 0
    v["r"][:, 3] = 0


def repeated(v):
    v["a"][:, 3] = v["a"][:, 1]
    v["r"][:, 3] = v["r"][:, 1]


def unread_cache(v):
    v["b"][[1, 5, 9]] = 0


def narrow_values(v):
    v["wv"][:, 1] = 0


def narrow_keys(v):
    v["wk"][:, 4] = 0


PLANTED = {
    "lstm": ("lstm", unread, "SYM101", 1, {"used": 2, "of": 3, "per": "step"}),
    "gru": ("gru", unread_gru, "SYM101", 1, {"used": 2, "of": 3, "per": "step"}),
    "rectified": ("rectified", unread_rectified, "SYM101", 1, {"used": 3, "of": 4, "per": "step"}),
    "unwritten": ("rectified", unwritten, "SYM101", 1, {"used": 3, "of": 4, "per": "step"}),
    "repeated": ("rectified", repeated, "SYM201", 2, {"used": 2, "of": 4, "per": "step"}),
    "causal": ("causal", unread_cache, "SYM101", 1, {"used": 3, "of": 4, "per": "step"}),
    "values": ("attention", narrow_values, "SYM303", 1, {"used": 2, "of": 3, "per": "token"}),
    "keys": ("attention", narrow_keys, "SYM302", 1, {"used": 2, "of": 3, "per": "token"}),
}


def found(name, plant, folder, **settings):
    values = STATEFUL[name].values()
    plant(values)
    onnx.save(STATEFUL[name].model("float32", values), folder / "step.onnx")
    wish = replace(Settings(), **settings)
    report = audit(str(folder / "step.onnx"), wish.chosen(rules()), wish)
    assert not report.incomplete, report.incomplete
    return [f for f in report.findings if f.level > Level.NOTE]


@pytest.mark.parametrize("planted", PLANTED)
def test_what_is_planted_in_a_state_is_found_with_what_it_costs(planted, tmp_path):
    name, plant, rule, units, state = PLANTED[planted]
    (finding,) = found(name, plant, tmp_path)
    assert (finding.rule, len(finding.units)) == (rule, units)
    assert {key: finding.facts["carried"][key] for key in state} == state
    assert finding.facts["carried"]["bytes"] == 4 * (state["of"] - state["used"])
    assert not finding.fixable  # its callers know its size


RESTING = {"unwritten", "repeated"}
"""What is true of states that begin with zeros; else the first step sees what they begin with."""


@pytest.mark.parametrize("planted", PLANTED)
def test_what_rests_on_a_start_of_zeros_says_so(planted, tmp_path):
    name, plant, *_ = PLANTED[planted]

    (finding,) = found(name, plant, tmp_path)
    assert finding.facts.get("start") == ("zero" if planted in RESTING else None)


@pytest.mark.parametrize("name", STATEFUL)
def test_random_networks_are_silent(name, tmp_path):
    assert found(name, lambda values: None, tmp_path) == []


@pytest.mark.parametrize("planted", ["lstm", "gru", "values", "keys"])
def test_an_open_loop_hides_it(planted, tmp_path):
    name, plant, *_ = PLANTED[planted]
    assert found(name, plant, tmp_path, find_states=False) == []
