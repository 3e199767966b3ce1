"""Repairs of networks with states: what a fix leaves to their callers, and what it may do where loops are closed."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from click.testing import CliRunner
from onnx import numpy_helper
from stateful_networks import STATEFUL, Stateful, grouped_queries

from symlint.cli.main import cli
from symlint.lint.rule import rules
from symlint.lint.settings import Settings
from symlint.model.load import load
from symlint.model.states import closed
from symlint.repair.fixing import fix
from symlint.repair.plan import Wish, acted_on
from symlint.runtime.verify import same_function

pytestmark = pytest.mark.usefixtures("no_clock")
SETTINGS = Settings()
WISH = Wish(acted_on(SETTINGS, rules(), "exact", drops=False), asked=SETTINGS.asked(rules()))
AUTO, SHRINK = replace(WISH, closed=closed), replace(WISH, closed=closed, shrinks=True)
STEPS = 64


def unread_lstm(v):
    v["o"][1] = 0
    v["r"][0, :, 1] = 0


def unread_gru(v):
    v["c"][2] = 0
    v["r"][0, :, 2] = 0


def unwritten(v):
    v["a"][:, 3] = 0
    v["r"][:3, 3] = 0


def repeated(v):
    v["a"][:, 3] = v["a"][:, 1]
    v["r"][:, 3] = v["r"][:, 1]


def unread_cache(v):
    v["b"][[1, 5, 9]] = 0


def narrow_keys(v):
    v["wk"][:, [1, 4]] = 0


def narrow_values(v):
    v["wv"][:, [1, 4]] = 0


PLANTED = {
    "lstm": ("lstm", unread_lstm, {"state_in": "2 x 3 -> 2 x 2 numbers per sequence"}),
    "gru": ("gru", unread_gru, {"h0": "1 x 3 -> 1 x 2 numbers per sequence"}),
    "zero": ("rectified", unwritten, {"state": "4 -> 3 numbers per sequence"}),
    "repeated": ("rectified", repeated, {"state": "4 -> 3 numbers per sequence"}),
    "causal": ("causal", unread_cache, {"cache_in": "2 x 4 -> 2 x 3 numbers per sequence"}),
    "keys": ("attention", narrow_keys, {"past_0": "2 x 3 -> 2 x 2 numbers per token"}),
    "values": ("attention", narrow_values, {"past_1": "2 x 3 -> 2 x 2 numbers per token"}),
}


def unread_frame(v):
    v["b"][:, 1] = 0


def narrow_value(v):
    v["wv"][:, 1] = 0


def narrow_key(v):
    v["wk"][:, 1] = 0


def lost_plane(v):
    v["wk"][:, [1, 3]] = 0


def unseen_channel(v):
    v["g"][1] = 0


PLANTED |= {
    "convolutions": ("convolutions", unread_frame, {"cache_in_1": "4 x 2 -> 3 x 2 numbers per sequence"}),
    "llama values": ("llama", narrow_value, {"past_1": "1 x 4 -> 1 x 3 numbers per token"}),
    "llama planes": ("llama", lost_plane, {"past_0": "1 x 4 -> 1 x 2 numbers per token"}),
    "turned planes": ("operator", lost_plane, {"past_0": "1 x 4 -> 1 x 2 numbers per token"}),
    "zipformer keys": ("zipformer", narrow_key, {"cached_k": "2 x 3 -> 2 x 2 numbers per sequence"}),
    "zipformer values": ("zipformer", narrow_value, {"cached_v": "2 x 3 -> 2 x 2 numbers per sequence"}),
    "zipformer channels": ("zipformer", unseen_channel, {"cached_conv": "4 x 2 -> 3 x 2 numbers per sequence"}),
    "whisper": ("whisper", narrow_value, {"past_1": "3 -> 2 numbers per token"}),
}


FAST = {"lstm", "repeated", "keys", "convolutions", "turned planes", "whisper"}
"""One of each kind; the others are for the slow suite."""
CASES = [pytest.param(name, marks=[] if name in FAST else [pytest.mark.slow]) for name in PLANTED]


def planted(name, folder):
    network, plant, told = PLANTED[name]
    net = STATEFUL[network]
    values = net.values()
    plant(values)
    onnx.save(net.model("float32", values), folder / "step.onnx")
    return net, str(folder / "step.onnx"), told


def sequence(path, net, batch):
    """The outputs of many steps from zeros, or from an empty cache, by the sizes that the file declares."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    free = {"batch": batch, "past": 0}
    shapes = {x.name: [free.get(n, n) for n in x.shape] for x in session.get_inputs()}
    states = {name: np.zeros(shapes[name], np.float32) for name in net.states}
    rng, found = np.random.default_rng(3), []
    given = {name: rng.normal(size=shapes[name]).astype(np.float32) for name in net.given}
    for _ in range(STEPS):
        y, *after = session.run(None, {"x": rng.normal(size=shapes["x"]).astype(np.float32), **given, **states})
        states = dict(zip(net.states, after, strict=False))
        found.append(y)
    return np.array(found)


@pytest.mark.parametrize("name", CASES)
def test_states_get_narrower_when_that_is_asked_for_and_sequences_stay(name, tmp_path):
    net, path, told = planted(name, tmp_path)
    found = fix(path, tmp_path, SHRINK)
    assert found.proof is not None
    assert found.proof.outcome == "held"
    assert {one.input: str(one).partition(": ")[2] for one in found.shrunk} == told
    for batch in (1, 3):
        before, after = sequence(path, net, batch), sequence(str(found.path), net, batch)
        np.testing.assert_allclose(after, before, atol=1e-5 * np.abs(before).max())
    assert {p.key for p in onnx.load(found.path).metadata_props if ".state." in p.key} == {
        f"symlint.state.{one}" for one in told
    }
    if name == "keys":
        assert same_function(closed(load(path)), closed(load(found.path))).outcome == "held"


@pytest.mark.parametrize("wish", [WISH, AUTO], ids=["open", "closed"])
@pytest.mark.parametrize("name", CASES)
def test_states_stay_as_their_callers_know_them(name, wish, tmp_path):
    _, path, _ = planted(name, tmp_path)
    found = fix(path, tmp_path, wish)
    assert not found.shrunk
    ends = [[*m.graph.input, *m.graph.output] for m in (onnx.load(path), onnx.load(found.path))]
    assert [value.SerializeToString() for value in ends[0]] == [value.SerializeToString() for value in ends[1]]


def resting_on_zero(folder):
    """A unit that only answers to one of the state, which stays zero if it has begun so."""
    text = """u = MatMul(x, a) v = MatMul(state, r) w = Add(u, v) stateN = Relu(w)
    k = MatMul(stateN, e) l = Relu(k) y = MatMul(l, c)"""
    shapes = {"state": ("stateN", ("batch", 4))}
    net = Stateful(text, {"a": (3, 4), "r": (4, 4), "e": (4, 3), "c": (3, 2)}, ("batch", 3), shapes, 0)
    values = net.values()
    unwritten(values)
    values["r"][3, 3] = 0.9
    values["e"][:3, 1] = 0
    onnx.save(net.model("float32", values), folder / "step.onnx")
    return str(folder / "step.onnx")


def test_what_rests_on_the_start_goes_only_where_loops_are_closed(tmp_path):
    path = resting_on_zero(tmp_path)
    assert not fix(path, tmp_path / "open", WISH).done
    found = fix(path, tmp_path / "closed", AUTO)
    assert [(one.rule, one.removed) for one in found.done] == [("SYM101", 1)]
    assert found.proof is not None
    assert found.proof.outcome == "held"
    assert load(found.path).tensors["c"].shape == (2, 2)
    # It holds from zeros, not for any state.
    assert same_function(load(path), load(found.path)).outcome == "refuted"


def run(*arguments):
    return CliRunner().invoke(cli, [str(a) for a in arguments])


def test_the_command_says_what_callers_have_to_keep(tmp_path):
    _, path, _ = planted("keys", tmp_path)
    plain = run("fix", path, "-o", tmp_path / "plain.onnx")
    assert "--shrink-states would give past_0" in " ".join(plain.stdout.split())
    assert onnx.load(tmp_path / "plain.onnx") == onnx.load(path)
    document = json.loads(run("fix", path, "-o", tmp_path / "small.onnx", "--shrink-states", "-f", "json").stdout)
    assert document["states"] == [
        {"input": "past_0", "output": "present_0", "before": [2, 3], "after": [2, 2], "per": "token"}
    ]
    assert run("fix", path, "--dry-run", "--shrink-states", "--states", "none").exit_code == 2


@pytest.mark.parametrize(("both", "told"), [(True, "written"), (False, "one number of heads and one size")])
def test_the_file_of_genai_tells_the_new_sizes_if_it_can(both, told, tmp_path):
    """It has one size of a head for keys and values, as its runtime has."""
    values = STATEFUL["attention"].values()
    narrow_keys(values)
    if both:
        narrow_values(values)
    onnx.save(STATEFUL["attention"].model("float32", values), tmp_path / "step.onnx")
    ends = {"inputs": {"past_names": "past_%d"}, "outputs": {"present_names": "present_%d"}}
    decoder = {**ends, "filename": "step.onnx", "head_size": 3, "num_key_value_heads": 2}
    (tmp_path / "genai_config.json").write_text(json.dumps({"model": {"decoder": decoder, "type": "x"}}))
    (tmp_path / "out").mkdir()
    result = run("fix", tmp_path / "step.onnx", "-o", tmp_path / "out" / "small.onnx", "--shrink-states")
    assert told in " ".join(result.stdout.split())
    written = tmp_path / "out" / "genai_config.json"
    assert written.exists() == both
    if both:
        fresh = {**decoder, "filename": "small.onnx", "head_size": 2}
        assert json.loads(written.read_text()) == {"model": {"decoder": fresh, "type": "x"}}
        shutil.rmtree(tmp_path / "out")
        # Beside the original its own file stays.
        run("fix", tmp_path / "step.onnx", "-o", tmp_path / "small.onnx", "--shrink-states")
        assert json.loads((tmp_path / "genai_config.json").read_text())["model"]["decoder"] == decoder
        assert (tmp_path / "small.genai_config.json").exists()


def test_keys_and_values_of_one_size_stay_so_in_grouped_queries(tmp_path):
    """The operator has one size of a head for both, as its runtime has."""
    model = grouped_queries()
    for tensor in model.graph.initializer:
        if tensor.name == "wv":
            values = numpy_helper.to_array(tensor).copy()
            values[:, [3, 20]] = 0
            tensor.CopyFrom(numpy_helper.from_array(values, "wv"))
    onnx.save(model, tmp_path / "step.onnx")
    found = fix(str(tmp_path / "step.onnx"), tmp_path, SHRINK)
    assert not found.shrunk
    assert "keys and values of one size" in found.left[0].reason


def test_grouped_queries_keep_as_much_as_their_operator_wants(tmp_path):
    """Eight planes of keys are left, which is a size of 16; values of rank 12 take as much."""
    model = grouped_queries(32)
    stored = {t.name: t for t in model.graph.initializer}
    keys, values = (numpy_helper.to_array(stored[n]).copy() for n in ("wk", "wv"))
    keys.reshape(16, 2, 2, 16)[..., ::2] = 0
    for head in range(2):
        basis, _ = np.linalg.qr(np.random.default_rng(head).normal(size=(32, 12)))
        values[:, 32 * head : 32 * head + 32] @= basis @ basis.T
    for name, value in (("wk", keys), ("wv", values)):
        stored[name].CopyFrom(numpy_helper.from_array(value, name))
    onnx.save(model, tmp_path / "step.onnx")
    found = fix(str(tmp_path / "step.onnx"), tmp_path, SHRINK)
    assert [str(one) for one in found.shrunk] == [f"past_{n}: 2 x 32 -> 2 x 16 numbers per token" for n in "kv"]
    assert found.proof is not None
    assert found.proof.outcome == "held"


def test_half_of_the_keys_of_a_decoder_go_from_its_cache(shared, tmp_path):
    """GPT-2 with a cache, as an exporter writes it: queries of rank 8 of 16 in every head."""
    model = onnx.load(shared / "zoo" / "gpt2_past.onnx")
    for tensor in model.graph.initializer:
        if "attn.c_attn" in tensor.name:
            values = numpy_helper.to_array(tensor).copy()
            for head in range(4):
                mine = slice(16 * head, 16 * head + 16)
                basis, _ = np.linalg.qr(np.random.default_rng([head, 5]).normal(size=(16, 8)))
                values[..., mine] = values[..., mine] @ (basis @ basis.T)
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), tensor.name))
    onnx.save(model, tmp_path / "step.onnx")
    found = fix(str(tmp_path / "step.onnx"), tmp_path, SHRINK)
    assert [str(one) for one in found.shrunk] == [
        "input_1: 4 x 16 -> 4 x 8 numbers per token",
        "input_3: 4 x 16 -> 4 x 8 numbers per token",
    ]
    assert found.proof is not None
    assert found.proof.outcome == "held"
