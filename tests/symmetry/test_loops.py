"""The laws of closed loops: what is claimed of a state holds for whole sequences, and nothing is left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator
from stateful_networks import STATEFUL, Stateful, grouped_queries

from symlint.model.load import load
from symlint.model.states import Declaration, closed
from symlint.runtime.verify import ELSEWHERE, verify
from symlint.symmetry.actions.permutation import UnitPermutation
from symlint.symmetry.actions.rotation import PlaneRotation
from symlint.symmetry.inference import examine, infer

STEPS = 7


@pytest.mark.slow
@pytest.mark.parametrize("name", STATEFUL)
def test_every_generator_holds_for_whole_sequences(name, tmp_path):
    path = stored(STATEFUL[name], tmp_path)
    symmetry, structure = examine(closed(load(path)))
    trials = verify(structure, list(structure.actions))
    assert trials
    assert {t.outcome for t in trials} == {"held"}
    assert symmetry.coverage.understood == 1.0


def test_grouped_queries_over_a_cache(tmp_path):
    """A matrix for the values of each head that queries share, an angle and a scale for each plane of its keys."""
    onnx.save(grouped_queries(), tmp_path / "step.onnx")
    symmetry, structure = examine(closed(load(str(tmp_path / "step.onnx"))))
    assert {g.group for g in symmetry.generators} >= {"GL(16)^2", "SO(2)^16", "R_{>0}^16"}
    assert symmetry.coverage.understood == 1.0
    assert {t.outcome for t in verify(structure, list(structure.actions))} == {"held"}


@pytest.mark.parametrize("name", STATEFUL)
def test_the_dimension_is_that_of_the_function_of_whole_sequences(name, tmp_path):
    net = STATEFUL[name]
    assert measured(net) == net.dimension
    symmetry = infer(closed(load(stored(net, tmp_path))))
    assert symmetry.dimension == net.dimension


@pytest.mark.parametrize("name", STATEFUL)
def test_an_open_loop_claims_no_more_than_before(name, tmp_path):
    path = stored(STATEFUL[name], tmp_path)
    opened, _ = examine(load(path))
    shut, _ = examine(closed(load(path)))
    assert opened.dimension <= shut.dimension
    assert opened.coverage.understood <= shut.coverage.understood


@pytest.mark.parametrize("wrong", ["given", "file", "seen", "none"])
def test_a_loop_that_is_not_closed_claims_nothing_new(wrong, tmp_path):
    net = STATEFUL["recurrence"]
    model = load(stored(net, tmp_path))
    pairs = {
        "given": [Declaration("h_in", "h_out", "given")],
        "file": [Declaration("h_in", "h_out", "file")],
        "seen": [Declaration("h_in", "h_out"), Declaration("", "h_out")],
        "none": [],
    }[wrong]
    symmetry, _ = examine(closed(model, pairs, found=wrong != "none"))
    assert symmetry.generators == examine(model)[0].generators


def test_a_state_that_leaves_under_two_names_is_seen(tmp_path):
    model = STATEFUL["recurrence"].model()
    model.graph.node.add(op_type="Identity", input=["h_out"], output=["also"])
    model.graph.output.add().CopyFrom(helper.make_tensor_value_info("also", onnx.TensorProto.FLOAT, None))
    onnx.save(model, tmp_path / "step.onnx")
    _, structure = examine(closed(load(str(tmp_path / "step.onnx"))))
    assert structure.actions.keys() == examine(load(str(tmp_path / "step.onnx")))[1].actions.keys()


def test_a_declared_pair_that_is_none_is_refuted_or_claims_nothing(tmp_path):
    """Two states of one shape with their outputs exchanged are another network: what is claimed holds of that one."""
    text = """u = MatMul(x, a) v = MatMul(p_in, r) p_out = Add(u, v) w = MatMul(q_in, s) q_out = Tanh(w)
    o = MatMul(p_out, c) l = MatMul(q_out, d) y = Add(o, l)"""
    weights = {"a": (3, 4), "r": (4, 4), "s": (4, 4), "c": (4, 2), "d": (4, 2)}
    shapes = {"p_in": ("p_out", ("batch", 4)), "q_in": ("q_out", ("batch", 4))}
    path = stored(Stateful(text, weights, ("batch", 3), shapes, 0), tmp_path)
    swapped = closed(load(path), [Declaration("p_in", "q_out"), Declaration("q_in", "p_out")])
    _, structure = examine(swapped)
    assert {t.outcome for t in verify(structure, list(structure.actions))} == {"held"}


@pytest.mark.parametrize(("name", "action"), [("gru", UnitPermutation), ("llama", PlaneRotation)])
def test_states_end_where_a_generator_says(name, action, tmp_path, monkeypatch):
    """Else it is refuted, though nothing is to be seen of that outside."""
    monkeypatch.setattr(action, "carried", lambda self, structure, name, values, element: values)
    _, structure = examine(closed(load(stored(STATEFUL[name], tmp_path))))
    trials = verify(structure, list(structure.actions))
    strayed = {t.id for t in trials if t.outcome == "refuted" and t.reason == ELSEWHERE}
    leaves = structure.axes.factors.leaves
    held = {x for loop in structure.program.loops for f in structure.axes.of[loop.output] for x in leaves(f)}
    assert strayed == {a.id for a in structure.actions.values() if isinstance(a, action) and a.leaf in held}
    assert strayed


@pytest.mark.parametrize("name", ["attention", "zipformer", "whisper"])
def test_exchanged_caches_claim_nothing_that_is_not_true_of_them(name, tmp_path):
    """Keys for values and values for keys: what is said holds of the network that was declared."""
    net = STATEFUL[name]
    one, other = list(net.states)[:2]
    pairs = [Declaration(one, net.states[other][0]), Declaration(other, net.states[one][0])]
    _, structure = examine(closed(load(stored(net, tmp_path)), pairs, strict=True))
    assert {t.outcome for t in verify(structure, list(structure.actions))} <= {"held"}


def test_an_input_and_an_output_of_one_shape_are_no_state_until_they_are_declared(tmp_path):
    """Of what a user declares, sequences are tried: its claims hold of those, and not of single steps."""
    text = "u = MatMul(image, a) image_out = Add(u, p) z = MatMul(image_out, c) v = MatMul(x, b) y = Add(z, v)"
    weights = {"a": (4, 4), "p": (4,), "c": (4, 2), "b": (3, 2)}
    path = stored(Stateful(text, weights, ("batch", 3), {"image": ("image_out", ("batch", 4))}, 0), tmp_path)
    assert not closed(load(path)).states
    declared = closed(load(path), [Declaration("image", "image_out")], strict=True)
    symmetry, structure = examine(declared)
    assert {g.group for g in symmetry.generators} >= {"GL(4)"}
    assert {t.outcome for t in verify(structure, list(structure.actions))} == {"held"}
    opened = replace(structure.program, model=replace(declared, states=()))
    assert {t.outcome for t in verify(replace(structure, program=opened), list(structure.actions))} != {"held"}


def stored(net: Stateful, folder: Path) -> str:
    path = folder / "step.onnx"
    onnx.save(net.model(), path)
    return str(path)


def measured(net: Stateful) -> int:
    """Parameters less the rank of the Jacobian of a sequence of outputs, by central differences in float64."""
    values = net.values()
    sequence = unrolled(net, values)
    rows = []
    for name, value in values.items():
        for k in range(value.size):
            step = np.zeros(value.size)
            step[k] = 1e-5
            ahead, behind = (sequence({**values, name: value + s * step.reshape(value.shape)}) for s in (1, -1))
            rows.append((ahead - behind) / 2e-5)
    lengths = np.linalg.svd(np.array(rows), compute_uv=False)
    return len(rows) - int((lengths > 1e-7 * lengths[0]).sum())


def unrolled(net, values):
    model = net.model("float64", values)
    model.graph.input.extend(
        helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in model.graph.initializer if t.name in values
    )
    session = ReferenceEvaluator(model)  # onnxruntime has no recurrences in float64
    sizes = {"batch": 8, "past": 0}
    rng = np.random.default_rng(1)
    shape = [sizes.get(n, n) for n in net.x]
    xs = rng.normal(size=(STEPS, *shape)) + 2 * rng.normal(size=shape)
    given = {n: rng.normal(size=[sizes.get(k, k) for k in shape]) for n, shape in net.given.items()}

    def sequence(weights):
        states = {n: np.zeros([sizes.get(k, k) for k in shape]) for n, (_, shape) in net.states.items()}
        found = []
        for x in xs:
            y, *after = session.run(None, {"x": x, **states, **given, **weights})
            states = dict(zip(net.states, after, strict=False))
            found.append(y.reshape(-1))
        return np.concatenate(found)

    return sequence
