"""Roll-outs: what a network reads at its first step and at the next ones."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from symlint.model.states import State
from symlint.runtime.runner import BATCHES, Loaded, Rollout, batched, fitted, rolled_out, starts

CACHE = State("past", "present", (0, 2), "name")
SHAPES = {"past": (2, 5, 3), "present": (2, 6, 3), "attention_mask": (2, 9), "position_ids": (2, 1), "x": (2, 2)}
MODEL = SimpleNamespace(states=(CACHE,), shapes=SHAPES, symbols={"batch": 2, "seq": 1, "past": 5})
FEEDS = {
    "past": np.ones((2, 5, 3), np.float32),
    "attention_mask": np.ones((2, 9), np.int64),
    "position_ids": np.full((2, 1), 7),
    "x": np.arange(4.0).reshape(2, 2),
}


def test_a_cache_is_empty_at_first_then_zero():
    empty, zero, *_ = starts(MODEL, FEEDS)
    assert (empty["past"].shape, zero["past"].shape) == ((2, 0, 3), (2, 5, 3))
    assert not zero["past"].any()
    assert (empty["attention_mask"].shape, zero["attention_mask"].shape) == ((2, 1), (2, 6))
    assert (empty["position_ids"].tolist(), zero["position_ids"].tolist()) == ([[0], [0]], [[5], [5]])


def test_a_decoder_reads_its_cache_from_the_second_step_on():
    seen.clear()
    model = SimpleNamespace(**{**vars(MODEL), "shapes": {**SHAPES, "use_cache_branch": (1,)}})
    first, zero, *_ = starts(model, {**FEEDS, "use_cache_branch": np.array([True])})
    list(rolled_out(step, ["y", "present"], first, Rollout((("past", "present"),), 3)))
    assert [f["use_cache_branch"].tolist() for f in seen] == [[False], [True], [True]]
    assert zero["use_cache_branch"].tolist() == [True]


def test_then_one_token_and_one_sequence_is_tried():
    *_, last = starts(MODEL, FEEDS)
    assert {name: x.shape[0] for name, x in last.items()} == dict.fromkeys(FEEDS, 1)
    assert last["attention_mask"].shape == (1, 6)


def test_a_network_without_states_reads_what_is_given():
    assert list(starts(SimpleNamespace(states=()), FEEDS)) == [FEEDS]


def step(feeds):
    """One more column each time; what it was given is told."""
    past = np.concatenate([feeds["past"], feeds["past"][:, :1] * 0 + 1], axis=1) if feeds["past"].size else None
    seen.append(feeds)
    return [feeds["x"].sum(), np.ones((2, 1, 3), np.float32) if past is None else past]


seen = []


def test_masks_grow_positions_count_on_and_inputs_move():
    seen.clear()
    first = next(starts(MODEL, FEEDS))
    outputs = list(rolled_out(step, ["y", "present"], first, Rollout((("past", "present"),), 3)))
    assert len(outputs) == 3  # without the states
    assert [f["past"].shape[1] for f in seen] == [0, 1, 2]
    assert [f["attention_mask"].shape[1] for f in seen] == [1, 2, 3]
    assert [f["position_ids"][0, 0] for f in seen] == [0, 1, 2]
    assert seen[1]["x"].tolist() == np.roll(FEEDS["x"], 1).tolist()


@pytest.mark.parametrize(("last", "steps"), [(2, None), (5, 5)])
def test_a_network_that_runs_out_of_places_is_tried_on_the_steps_before(last, steps):
    def ending(feeds):
        if feeds["past"].shape[1] >= last:
            raise ValueError("no place is left")
        return step(feeds)

    outputs = rolled_out(ending, ["y", "present"], next(starts(MODEL, FEEDS)), Rollout((("past", "present"),), 9))
    if steps is None:
        with pytest.raises(ValueError, match="no place"):
            list(outputs)
    else:
        assert len(list(outputs)) == steps


def test_sequences_are_tried_one_by_one_and_several_at_once():
    first = next(starts(MODEL, FEEDS))
    for count in BATCHES:
        made = batched(MODEL, first, count)
        assert {name: x.shape[0] for name, x in made.items()} == dict.fromkeys(FEEDS, count)
        assert made["past"].shape[1:] == first["past"].shape[1:]
    fixed = SimpleNamespace(states=(CACHE,), shapes=SHAPES, symbols={"seq": 1, "past": 5})
    assert batched(fixed, first, 3) is None
    assert batched(SimpleNamespace(states=(), shapes=SHAPES, symbols={"batch": 2}), FEEDS, 3) is None


def test_a_file_of_narrower_states_begins_with_fewer_zeros():
    taken = Loaded(1, (("past", (None, "past", 2), "tensor(float)"), ("x", ("batch", 2), "tensor(float)")))
    made = fitted(FEEDS, taken)
    assert made["past"].shape == (2, 5, 2)
    assert made["x"] is FEEDS["x"]
