"""Abstract values and liveness, near: what is told of the tensors of small networks is so on random inputs."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import SMALL, Net
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from written import written

from symlint.analysis.values import elementwise, valuation
from symlint.analysis.values.lattice import Value
from symlint.analysis.values.rows import Verdicts
from symlint.analysis.values.valuation import valuate
from symlint.evidence.context import Context
from symlint.model.load import load
from symlint.program.numbers import compute
from symlint.program.translate import lower
from symlint.symmetry.inference import examine

TOLERANCE = 1e-6
"""Attributes are numbers of float32, and what is computed of them is rounded here and there."""
BATCH = 3


def flawed(net: Net, seed: int) -> dict[str, np.ndarray]:
    """Random weights, in which one row is zero, one a copy of another, and one a multiple, along some axis each."""
    rng = np.random.default_rng(seed)
    made = net.values()
    for name in net.weights:
        rows = np.moveaxis(made[name], rng.integers(made[name].ndim), 0) if made[name].ndim else made[name].reshape(1)
        if len(rows) > 2 and name not in net.statistics:
            zero, first, second = rng.permutation(len(rows))[:3]
            # What is divided by its length has a direction.
            rows[zero] *= f"keepdims = 1>({name})" in net.text
            rows[second] = rows[first] * rng.choice([1.0, 2.0])
    return made


def judged(net: Net, path: Path) -> tuple[onnx.ModelProto, Context, dict[str, str]]:
    """A flawed network, what is known of it, and the tensor of the program that each of its values is."""
    model = net.model("float64", flawed(net, zlib.crc32(net.text.encode())))
    onnx.save(model, path)
    symmetry, structure = examine(load(path))
    held = lower(load(path)).values
    names = {name: ref.name for name, ref in held.items() if ref.items is None}
    return model, Context(symmetry, structure, judged=structure), names


def computed(model: onnx.ModelProto) -> Iterator[str]:
    """The floating values that nodes make."""
    shown = onnx.shape_inference.infer_shapes(model).graph
    floats = {v.name for v in (*shown.value_info, *shown.output) if v.type.tensor_type.elem_type == 11}
    yield from (out for node in model.graph.node for out in node.output if out in floats)


def run(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray], wanted: list[str]) -> dict[str, np.ndarray]:
    """Values of a network that are made on its way."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    del shown.graph.output[:]
    shown.graph.output.extend(helper.make_tensor_value_info(name, 11, None) for name in wanted)
    with np.errstate(all="ignore"):  # a row of zeros has no direction
        return dict(zip(wanted, ReferenceEvaluator(shown).run(None, dict(feeds)), strict=True))


def by_unit(x: np.ndarray, value: Value) -> np.ndarray:
    """The numbers of a tensor, a row for each element of its value."""
    held = [k for k, n in enumerate(value.shape) if n > 1]
    rest = [k for k in range(x.ndim) if k not in held]
    return x.transpose(*held, *rest).reshape(int(np.prod(value.shape)), -1)


def close(x: np.ndarray, y: np.ndarray) -> bool:
    return bool(
        np.allclose(x, y, rtol=TOLERANCE, atol=TOLERANCE * max(1.0, float(np.abs(y).max(initial=0))), equal_nan=True)
    )


BOUNDED = {
    "no slope": Net(
        "u = MatMul(x, a) v = PRelu(u, s) y = MatMul(v, b)",
        {"a": (3, 4), "b": (4, 2)},
        {"x": (3,)},
        2,
        0,
        fixed={"s": np.array([0.0, 1.0, 0.0, 2.0])},
    ),
    "below zero": Net(
        "u = MatMul(x, a) v = Clip(u, low, high) y = MatMul(v, b)",
        {"a": (3, 4), "b": (4, 2)},
        {"x": (3,)},
        2,
        0,
        {"low": -np.inf, "high": 0.0},
    ),
}
"""Zeros that let something through."""
NETS = {**SMALL, **BOUNDED}


@pytest.mark.parametrize("name", NETS)
def test_values_are_so_on_random_inputs(name, tmp_path):
    """Elements of one label are multiples by their scales, for every input; those without one are their scales."""
    net = NETS[name]
    model, context, names = judged(net, tmp_path / "model.onnx")
    wanted = [v for v in computed(model) if v in names and names[v] in context.values]
    made = run(model, net.feeds(BATCH), wanted)
    for v in wanted:
        value = context.values[names[v]]
        x = made[v]
        if value.bases is None or len(value.shape) != x.ndim or not np.isfinite(x).all():
            continue
        rows, scales = by_unit(x, value), value.scale.reshape(-1)
        labels = value.bases.written.reshape(-1)
        for label in np.unique(labels):
            mine, factors = rows[labels == label], scales[labels == label][:, None]
            first = np.flatnonzero(factors)[:1]
            base = mine[first] / factors[first] if label and first.size else 1.0
            expected = np.broadcast_to(factors * base, mine.shape)
            assert close(mine, expected), f"{v}: elements of label {label}"


@pytest.mark.parametrize("name", list(NETS)[::4])
def test_a_run_that_continues_another_tells_what_one_of_its_own_does(name, tmp_path):
    """Bases may have other names, but one has one name in all tensors, whatever axes the other run wrote out."""
    _, context, _ = judged(NETS[name], tmp_path / "model.onnx")
    verdicts = Verdicts()
    shapes = context.structure.program.shapes
    for program in (context.structure.program, context.ends.generic.structure.program):
        with np.errstate(all="ignore"):
            valuate(program, {n: (True,) * len(shape) for n, shape in shapes.items()}, {}, verdicts)
            alone, continued = (valuate(program, context.carried, {}, known)[0] for known in (None, verdicts))
        there, back = {0: 0}, {0: 0}
        for tensor, value in alone.items():
            other = continued[tensor]
            assert value.shape == other.shape
            assert np.array_equal(value.scale, other.scale, equal_nan=True)
            for a, b in zip(value.numbers.reshape(-1).tolist(), other.numbers.reshape(-1).tolist(), strict=True):
                assert (there.setdefault(a, b), back.setdefault(b, a)) == (b, a), tensor


@pytest.mark.parametrize("name", NETS)
def test_what_no_output_needs_may_be_anything(name, tmp_path):
    """Elements that are told to contribute to no output, and are not zero themselves, change none when they change."""
    net = NETS[name]
    model, context, names = judged(net, tmp_path / "model.onnx")
    feeds = net.feeds(BATCH)
    before = run(model, feeds, ["y"])["y"]
    made = run(model, feeds, list(computed(model)))
    for v in made:
        need, value = context._needs.get(names.get(v, "")), context.values.get(names.get(v, ""))
        if need is None or value is None or need.all() or len(value.shape) != made[v].ndim or v == "y":
            continue
        idle = ~need & (value.scale != 0)
        noise = np.random.default_rng(1).normal(size=made[v].shape) * idle
        assert close(run(pushed(model, v, noise), feeds, ["y"])["y"], before), v


def pushed(model: onnx.ModelProto, name: str, change: np.ndarray) -> onnx.ModelProto:
    """The network with a change added to one value, wherever it is read."""
    other = onnx.ModelProto()
    other.CopyFrom(model)
    nodes = list(other.graph.node)
    for node in nodes:
        for k, read in enumerate(node.input):
            if read == name:
                node.input[k] = "pushed"
    place = next(k for k, node in enumerate(nodes) if name in node.output)
    nodes.insert(place + 1, helper.make_node("Add", [name, "change"], ["pushed"]))
    del other.graph.node[:]
    other.graph.node.extend(nodes)
    other.graph.initializer.append(numpy_helper.from_array(change, "change"))
    return other


def test_labels_do_not_run_out_where_every_layer_reads_all_before_it(tmp_path):
    blocks = [
        line
        for k in range(70)
        for line in (f"c{k} = MatMul(k{k}, w{k})", f"r{k} = Relu(c{k})", f"k{k + 1} = Concat<axis = 1>(k{k}, r{k})")
    ]
    shapes = {f"w{k}": (2 + 2 * k, 2) for k in range(70)} | {"head": (142, 3)}
    text = "\n".join(["k0 = Identity(x)", *blocks, "y = MatMul(k70, head)"])
    _, context, names = judged(Net(text, shapes, {"x": (2,)}, 2, 140), tmp_path / "model.onnx")
    assert context.values[names["k70"]].labels.written.max() < 10**6


def test_a_chain_of_constants_is_computed_as_far_as_there_is_room(tmp_path, monkeypatch):
    """What lies behind is unknown, so less is told, and nothing else."""
    sizes = list[int]()

    def counted(step, numbers, **options):
        sizes.append(max(number.size for number in numbers))
        return compute(step, numbers, **options)

    monkeypatch.setattr(elementwise, "compute", counted)
    chain = [f"c{k + 1} = Relu(c{k})" for k in range(60)]
    text = "\n".join(["c0 = Exp(one)", *chain, "a = Mul(x, c3)", "b = Mul(x, c60)", "y = Concat<axis = 0>(a, b)"])
    path = written(tmp_path / "model.onnx", text, {"one": np.zeros(50, np.float32)}, (3, 50), (6, 50))
    symmetry, structure = examine(load(path))
    names = {name: ref.name for name, ref in lower(load(path)).values.items()}
    monkeypatch.setattr(valuation, "TIMES", 2)
    for room, known in ((0, 2), (50, 3), (10**4, 62)):
        monkeypatch.setattr(valuation, "ROOM", room)
        sizes.clear()
        values = Context(symmetry, structure, judged=structure).values
        assert sum(sizes) <= room + 2 * 50
        assert sum(values[names[f"c{k}"]].bases is None for k in range(61)) == min(known, 61)


DEGREES = {
    "Relu": 1.0,
    "LeakyRelu": 1.0,
    "Abs": 1.0,
    "Sqrt": 0.5,
    "Reciprocal": -1.0,
    "Sign": 0.0,
    "IsInf": 0.0,
    "IsNaN": 0.0,
}


@pytest.mark.parametrize("function", DEGREES)
@pytest.mark.parametrize("whole", [True, False])
def test_units_that_are_positive_multiples_stay_so_through_what_is_homogeneous(function, whole, tmp_path):
    rng = np.random.default_rng(0)
    v = rng.normal(size=(4, 6))
    v[:, 4] = 3 * v[:, 1]
    if not whole:
        v[:, 5] = 0
    text = f"h = MatMul(x, v) a = {function}(h) f = Cast<to = 1>(a) y = MatMul(f, w)"
    path = written(tmp_path / "model.onnx", text, {"v": v, "w": rng.normal(size=(6, 3))}, (None, 4))
    value = Context(*examine(load(path))).values[lower(load(path)).values["a"].name]
    labels, scales = value.numbers.reshape(-1), value.scale.reshape(-1)
    assert labels[1] == labels[4]
    assert len(set(labels[:4])) == 4
    assert scales[4] / scales[1] == pytest.approx(3 ** DEGREES[function])


@pytest.mark.parametrize("function", ["Abs", "Cos", "Cosh", "IsNaN", "Tanh", "Reciprocal", "Sign", "Relu"])
def test_units_that_are_opposite_are_one_behind_an_even_or_odd_function(function, tmp_path):
    rng = np.random.default_rng(0)
    v = rng.normal(size=(4, 6))
    v[:, 4], v[:, 5] = -v[:, 1], 0
    text = f"h = MatMul(x, v) a = {function}(h) f = Cast<to = 1>(a) y = MatMul(f, w)"
    path = written(tmp_path / "model.onnx", text, {"v": v, "w": rng.normal(size=(6, 3))}, (None, 4))
    value = Context(*examine(load(path))).values[lower(load(path)).values["a"].name]
    labels, scales = value.numbers.reshape(-1), value.scale.reshape(-1)
    assert (labels[1] == labels[4]) == (function != "Relu")
    if function != "Relu":
        assert scales[4] / scales[1] == (-1 if function in ("Tanh", "Reciprocal", "Sign") else 1)
