"""States: which inputs and outputs are pairs, by names, by what the graph does, by a file beside it, by a user."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from stateful_networks import STATEFUL

from symlint.model.errors import UsageProblem
from symlint.model.load import load
from symlint.model.states import Declaration, State, closed, doubtful

NAMES = {
    "past_key_values.0.key": "present.0.key",
    "past_key_values.11.decoder.value": "present.11.decoder.value",
    "past_key_values.1.value": "present_key_values.1.value",
    "past_3": "present_3",
    "past_key_self_2": "present_key_self_2",
    "past_conv.4": "present_conv.4",
    "cached_key_1": "new_cached_key_1",
    "anything": "new_anything",
    "cache_last_channel": "cache_last_channel_next",
    "att_cache": "r_att_cache",
    "in_cache2": "out_cache2",
    "h0": "hn",
    "c0": "cn",
    "h": "hn",
    "state": "stateN",
    "h_in": "h_out",
    "recurrent_in": "recurrent_out",
    "state_ins": "state_outs",
    "conv_cache": "conv_cache_out",
    "cache_in_3": "cache_out_3",
    "state_1": "out_state_1",
    "avg_cache": "next_avg_cache",
}
"""Names that are in use."""
AMBIGUOUS = {"h", "h_in", "state_ins"}
"""Beside `h0` and `state`, whose names come to the same."""
NOT_SURE = {"spec_in": "spec_out", "image": "image_out", "input_1": "output_1"}
"""Names of what only has the same shape."""


def through(folder, pairs, kind=TensorProto.FLOAT):
    """A file in which every input goes on in its output."""
    info = helper.make_tensor_value_info
    nodes = [helper.make_node("Neg", [a], [b]) for a, b in pairs.items()]
    inputs = [info(a, kind, (2, 3)) for a in pairs]
    outputs = [info(b, kind, (2, 3)) for b in pairs.values()]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", inputs, outputs)), folder / "m.onnx")
    return str(folder / "m.onnx")


@pytest.mark.parametrize(("one", "other"), NAMES.items())
def test_names_in_use_are_pairs(tmp_path, one, other):
    model = closed(load(through(tmp_path, {one: other, "x": "y"})))
    assert model.states == (State(one, other, (0, 1), "name"),)


def test_many_names_are_told_apart(tmp_path):
    pairs = {k: v for k, v in NAMES.items() if k not in AMBIGUOUS}
    found = closed(load(through(tmp_path, {**pairs, "x": "y"}))).states
    assert {s.input: s.output for s in found} == pairs


@pytest.mark.parametrize(("one", "other"), NOT_SURE.items())
def test_what_only_has_the_same_shape_stays_what_it_is(tmp_path, one, other):
    model = closed(load(through(tmp_path, {one: other, "x": "logits"})))
    assert not model.states
    assert doubtful(model) == ((one, other),)


def test_what_an_encoder_supplies_is_no_loop(tmp_path):
    model = closed(load(through(tmp_path, {"past_key_values.0.encoder.key": "present.0.encoder.key", "x": "y"})))
    assert [(s.start, s.closed) for s in model.states] == [("given", False)]


def test_a_state_is_floating(tmp_path):
    assert not closed(load(through(tmp_path, {"h_in": "h_out", "x": "y"}, kind=TensorProto.INT64))).states


@pytest.mark.parametrize(
    ("before", "pads", "axes"),
    [
        (("batch", 3), (0, 0, 0, 0), (0, 1)),
        (("batch", "past"), (0, 0, 0, 1), (0,)),
        (("batch", 3), (0, 0, 0, 1), None),  # its input could not take what has grown
        (("batch", "past"), (0, 0, 0, -1), None),
        (("batch", "past"), (0, 0, 1, 1), None),
    ],
)
def test_at_most_one_axis_of_a_state_grows_and_that_takes_any_length(tmp_path, before, pads, axes):
    info = helper.make_tensor_value_info
    nodes = [helper.make_node("Pad", ["h_in", "pads"], ["h_out"]), helper.make_node("Neg", ["x"], ["y"])]
    stored = onnx.numpy_helper.from_array(np.array(pads), "pads")
    inputs = [info("h_in", TensorProto.FLOAT, before), info("x", TensorProto.FLOAT, (2,))]
    outputs = [info(name, TensorProto.FLOAT, None) for name in ("h_out", "y")]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", inputs, outputs, [stored])), tmp_path / "m.onnx")
    found = closed(load(str(tmp_path / "m.onnx"))).states
    assert [state.axes for state in found] == ([axes] if axes is not None else [])


def test_somebody_gives_a_network_something_and_reads_something_of_it(tmp_path):
    """A block that puts what it makes behind what it reads is no cache, nor is a gate laid on an image."""
    info, image = helper.make_tensor_value_info, ("batch", 3, "height", 4)
    nodes = [
        helper.make_node("Relu", ["image"], ["made"]),
        helper.make_node("Concat", ["image", "made"], ["features"], axis=2),
    ]
    ends = [info("image", TensorProto.FLOAT, image)], [info("features", TensorProto.FLOAT, None)]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", *ends)), tmp_path / "m.onnx")
    assert not closed(load(str(tmp_path / "m.onnx"))).states


@pytest.mark.parametrize("name", ["lstm", "gru", "attention"])
def test_the_graph_tells_pairs_without_names(tmp_path, name):
    """Names are numbers: a recurrence goes on from its last state, a cache is put before what is new."""
    net = STATEFUL[name]
    model = net.model()
    ends = [n for pair in ((i, o) for i, (o, _) in net.states.items()) for n in pair]
    called = {name: str(100 + k) for k, name in enumerate(ends)}
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [called.get(n, n) for n in names]
    for value in (*model.graph.input, *model.graph.output):
        value.name = called.get(value.name, value.name)
    onnx.save(model, tmp_path / "m.onnx")
    found = closed(load(str(tmp_path / "m.onnx"))).states
    assert {(s.input, s.output) for s in found} == {(called[i], called[o]) for i, (o, _) in net.states.items()}
    assert {s.source for s in found} == {"structure"}


def test_the_file_of_genai_names_pairs(tmp_path):
    path = through(tmp_path, {"old.0.k": "fresh.0.k", "old.1.k": "fresh.1.k", "x": "y"})
    names = {"inputs": {"past_key_names": "old.%d.k"}, "outputs": {"present_key_names": "fresh.%d.k"}}
    (tmp_path / "genai_config.json").write_text(json.dumps({"model": {"decoder": names}}))
    found = closed(load(path)).states
    assert [(s.input, s.output, s.source) for s in found] == [
        ("old.0.k", "fresh.0.k", "sidecar"),
        ("old.1.k", "fresh.1.k", "sidecar"),
    ]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"model": {"decoder": 1}}', '{"model": {"decoder": {"inputs": 1}}}'])
def test_another_file_of_that_name_names_none(tmp_path, text):
    path = through(tmp_path, {"x": "y"})
    (tmp_path / "genai_config.json").write_text(text)
    assert not closed(load(path)).states


def test_declarations_come_first_and_are_judged(tmp_path):
    model = load(through(tmp_path, {"spec_in": "spec_out", "x": "y"}))
    (state,) = closed(model, [Declaration("spec_in", "y")]).states
    assert (state.input, state.output, state.source, state.closed) == ("spec_in", "y", "declared", True)
    (state,) = closed(model, [Declaration("x", "y", "given")]).states
    assert not state.closed
    (state,) = closed(model, [Declaration("x", "y"), Declaration("", "y")]).states
    assert state.seen
    assert not state.closed
    assert not closed(model, [Declaration("other", "y")]).states  # meant for another model
    for pair in (Declaration("other", "y"), Declaration("x", "other"), Declaration("", "y")):
        with pytest.raises(UsageProblem):
            closed(model, [pair], strict=True)
