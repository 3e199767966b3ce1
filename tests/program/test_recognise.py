"""Normalisations that are written out are recognised in every spelling; what only looks like one is not."""

from __future__ import annotations

import re
from math import prod
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from symlint.model.load import load
from symlint.program.steps import Normalise, Pointwise, Program
from symlint.program.translate import translate
from symlint.symmetry.inference import infer

# One node per statement; a number is a scalar, numbers in brackets are a list of integers, attributes follow a bar.
STATEMENT = re.compile(r"(\w+) = (\w+)\(([^|]*)(?:\|(.*))?\)")
CENTRED = "m = ReduceMean(x, [-1]); c = Sub(x, m); "
VARIANCE = CENTRED + "p = Pow(c, 2.0); v = ReduceMean(p, [-1]); "
DEVIATION = VARIANCE + "e = Add(v, 1e-2); s = Sqrt(e); "
SQUARES = "p = Pow(x, 2.0); v = ReduceMean(p, [-1]); "
ROOT = SQUARES + "e = Add(v, 1e-2); s = Sqrt(e); "
ROWS, IMAGE, SQUARE = (2, 3, 8), (2, 4, 3, 5), (4, 4)

STANDARDISED = {
    "older torch": DEVIATION + "y = Div(c, s)",
    "centred twice": DEVIATION + "d = Sub(x, m); y = Div(d, s)",
    "negated": DEVIATION + "d = Sub(m, x); y = Div(d, s)",
    "one over": DEVIATION + "r = Div(1.0, s); y = Mul(c, r)",
    "negative power": VARIANCE + "e = Add(v, 1e-2); r = Pow(e, -0.5); y = Mul(c, r)",
    "power for a root": VARIANCE + "e = Add(v, 1e-2); s = Pow(e, 0.5); y = Div(c, s)",
    "product and reciprocal": CENTRED
    + "p = Mul(c, c); v = ReduceMean(p, [-1]); e = Add(1e-2, v); s = Sqrt(e); r = Reciprocal(s); y = Mul(r, c)",
    "square of the mean": "m = ReduceMean(x, [-1]); p = Mul(x, x); q = ReduceMean(p, [-1]); mm = Mul(m, m); "
    "v = Sub(q, mm); u = Relu(v); e = Add(u, 1e-2); s = Sqrt(e); c = Sub(x, m); y = Div(c, s)",
    "sums": "t = ReduceSum(x, [-1]); m = Mul(t, 0.125); c = Sub(x, m); q = ReduceSumSquare(c, [-1]); v = Div(q, 8.0); "
    "e = Add(v, 1e-2); s = Sqrt(e); y = Div(c, s)",
    "casts": "h = Cast(x | to=11); m = ReduceMean(h, [-1]); c = Sub(h, m); p = Mul(c, c); v = ReduceMean(p, [-1]); "
    "f = Cast(v | to=1); e = Add(f, 1e-2); s = Sqrt(e); g = Cast(c | to=1); y = Div(g, s)",
    "unbiased, epsilon outside": CENTRED
    + "q = ReduceSumSquare(c, [-1]); v = Div(q, 7.0); s = Sqrt(v); e = Add(s, 1e-2); y = Div(c, e)",
    "norm of what is centred": CENTRED + "n = ReduceL2(c, [-1]); z = Clip(n, 1e-2); y = Div(c, z)",
    "distributed": DEVIATION + "r = Reciprocal(s); h = Mul(x, r); t = Mul(m, r); y = Sub(h, t)",
    "axes that leave the shape": "m = ReduceMean(x, [-1] | keepdims=0); n = Unsqueeze(m, [2]); c = Sub(x, n); "
    "p = Mul(c, c); v = ReduceMean(p, [-1] | keepdims=0); e = Add(v, 1e-2); s = Sqrt(e); t = Unsqueeze(s, [2]); "
    "y = Div(c, t)",
}
MEAN_SQUARE = {
    "root": ROOT + "y = Div(x, s)",
    "reciprocal root": ROOT + "r = Reciprocal(s); y = Mul(x, r)",
    "sum of squares": "q = ReduceSumSquare(x, [-1]); v = Mul(q, 0.125); e = Add(v, 1e-2); r = Pow(e, -0.5); "
    "y = Mul(x, r)",
    "contraction": "q = Einsum(x, x | equation='bsd,bsd->bs'); v = Div(q, 8.0); e = Add(v, 1e-2); s = Sqrt(e); "
    "t = Unsqueeze(s, [2]); y = Div(x, t)",
}
NORM = {
    "clipped and spread": "n = ReduceL2(x, [-1]); z = Clip(n, 1e-2); d = Expand(z, [2, 3, 8]); y = Div(x, d)",
    "the larger of norm and epsilon": "n = ReduceL2(x, [-1]); z = Max(n, 1e-2); y = Div(x, z)",
    "norm and epsilon": "n = ReduceL2(x, [-1]); z = Add(n, 1e-2); y = Div(x, z)",
    "absolute values": "a = Abs(x); p = Pow(a, 2.0); q = ReduceSum(p, [-1]); s = Pow(q, 0.5); z = Add(s, 1e-2); "
    "y = Div(x, z)",
    "zero told apart": "n = ReduceL2(x, [-1]); o = Equal(n, 0.0); d = Where(o, 1.0, n); y = Div(x, d)",
    "squashed in two steps": "q = ReduceSumSquare(x, [-1]); o = Add(q, 1.0); k = Div(q, o); h = Mul(x, k); "
    "s = Sqrt(q); y = Div(h, s)",
}
ELSEWHERE = {
    "along a middle axis": (ROOT.replace("-1", "1") + "y = Div(x, s)", ROWS, "rms", (1,)),
    "norms of columns": (
        ROOT.replace("[-1]", "[0] | keepdims=0") + "y = Div(x, s)",
        SQUARE,
        "rms",
        (0,),
    ),
    "pooled": (
        VARIANCE.replace("ReduceMean", "GlobalAveragePool").replace(", [-1]", "")
        + "e = Add(v, 1e-2); s = Sqrt(e); y = Div(c, s)",
        IMAGE,
        "standardise",
        (2, 3),
    ),
    "one axis after the other": (
        (
            "a = ReduceMean(x, [3]); m = ReduceMean(a, [2]); c = Sub(x, m); p = Mul(x, x); d = ReduceMean(p, [2]); "
            "q = ReduceMean(d, [3]); mm = Mul(m, m); v = Sub(q, mm); e = Add(v, 1e-2); s = Sqrt(e); y = Div(c, s)"
        ),
        IMAGE,
        "standardise",
        (2, 3),
    ),
}
SPELLINGS = {
    **{name: (text, ROWS, "standardise", (2,)) for name, text in STANDARDISED.items()},
    **{name: (text, ROWS, "rms", (2,)) for name, text in MEAN_SQUARE.items()},
    **{name: (text, ROWS, "l2", (2,)) for name, text in NORM.items()},
    **ELSEWHERE,
}

WITH_GAIN = {
    "on the root": (DEVIATION + "r = Div(1.0, s); g = Mul(r, gain); y = Mul(c, g)", "standardise", ["Mul"]),
    "over the root": (ROOT + "g = Div(gain, s); y = Mul(x, g)", "rms", ["Mul"]),
    "before the root": (DEVIATION + "g = Mul(gain, c); y = Div(g, s)", "standardise", ["Mul"]),
    "as tensorflow does": (
        DEVIATION
        + "r = Reciprocal(s); g = Mul(r, gain); h = Mul(x, g); t = Mul(m, g); o = Sub(bias, t); y = Add(h, o)",
        "standardise",
        ["Mul", "Add"],
    ),
    "in its place": (DEVIATION + "h = Div(c, s); g = Mul(h, gain); y = Add(g, bias)", "standardise", ["Mul", "Add"]),
}

MISSES = {
    "variance along another axis": CENTRED
    + "k = ReduceMean(x, [1]); d = Sub(x, k); p = Mul(d, d); v = ReduceMean(p, [1]); e = Add(v, 1e-2); s = Sqrt(e); "
    "y = Div(c, s)",
    "cubes": ROOT.replace("2.0", "3.0") + "y = Div(x, s)",
    "fourth powers": ROOT.replace("2.0", "4.0") + "y = Div(x, s)",
    "sum of absolute values": "n = ReduceL1(x, [-1]); z = Add(n, 1e-2); y = Div(x, z)",
    "wrong count in the mean": DEVIATION + "t = ReduceSum(x, [-1]); k = Div(t, 7.0); d = Sub(x, k); y = Div(d, s)",
    "wrong count in the square": "m = ReduceMean(x, [-1]); p = Mul(x, x); t = ReduceSum(p, [-1]); q = Div(t, 7.0); "
    "mm = Mul(m, m); v = Sub(q, mm); e = Add(v, 1e-2); s = Sqrt(e); c = Sub(x, m); y = Div(c, s)",
    "another source": ROOT + "z = Tanh(x); y = Div(z, s)",
    "centred by another mean": DEVIATION + "z = Tanh(x); k = ReduceMean(z, [-1]); d = Sub(x, k); y = Div(d, s)",
    "centred, over the mean square": ROOT + "m = ReduceMean(x, [-1]); c = Sub(x, m); y = Div(c, s)",
    "not centred, over the variance": DEVIATION + "y = Div(x, s)",
    "gain inside of the root": SQUARES + "u = Mul(v, one); e = Add(u, 1e-2); s = Sqrt(e); y = Div(x, s)",
    "gain on the squares": "p = Mul(x, x); u = Mul(p, gain); v = ReduceMean(u, [-1]); e = Add(v, 1e-2); s = Sqrt(e); "
    "y = Div(x, s)",
    "learned epsilon": SQUARES + "e = Add(v, one); s = Sqrt(e); y = Div(x, s)",
    "two epsilons": VARIANCE
    + "e = Add(v, 1e-2); r = Pow(e, -0.5); f = Add(v, 1e-1); u = Pow(f, -0.5); h = Mul(x, r); t = Mul(m, u); "
    "y = Sub(h, t)",
    "added instead of multiplied": DEVIATION + "r = Div(1.0, s); g = Mul(r, gain); y = Add(c, g)",
    "response normalisation": "n = ReduceL2(x, [2]); m = ReduceMean(n, [1]); e = Add(m, 1e-2); k = Div(n, e); "
    "y = Mul(x, k)",
    # Every row can be rescaled: it stays as it is.
    "no epsilon": "n = ReduceL2(x, [-1]); y = Div(x, n)",
    "no epsilon in the variance": VARIANCE + "s = Sqrt(v); y = Div(c, s)",
}
# Of rows and columns of one length.
SQUARE_MISSES = {
    "the norm of another row": ROOT.replace("[-1]", "[1] | keepdims=0") + "y = Div(x, s)",
    "products of different places": "a = Unsqueeze(x, [2]); b = Unsqueeze(x, [1]); p = Mul(a, b); "
    "v = ReduceMean(p, [2] | keepdims=0); e = Add(v, 1e-2); s = Sqrt(e); y = Div(x, s)",
    "transposed": "t = Transpose(x); p = Mul(x, t); v = ReduceMean(p, [1]); e = Add(v, 1e-2); s = Sqrt(e); "
    "y = Div(x, s)",
}


def written(text: str, shape: tuple[int, ...], path: Path, outputs: str = "y") -> Path:
    """A network of the statements in `text`, on a float input x; gain, bias and one are weights."""
    weights = {"gain": np.full(shape[-1], 1.5), "bias": np.full(shape[-1], 0.5), "one": np.full(1, 0.5)}
    stored: dict[str, np.ndarray] = {}
    nodes = []
    for statement in text.split("; "):
        out, op, given, attributes = STATEMENT.fullmatch(statement).groups()
        names = []
        for word in re.findall(r"\[[^]]*\]|[^,\s]+", given):
            if word[0] == "[":
                stored[word] = np.array(eval(word), np.int64)
            elif re.match(r"-?\d", word):
                stored[word] = np.array(float(word), np.float32)
            elif word in weights:
                stored[word] = weights[word].astype(np.float32)
            names.append(word)
        nodes.append(helper.make_node(op, names, [out], out, **eval(f"dict({attributes or ''})")))
    graph = helper.make_graph(
        nodes,
        "spelling",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs.split()],
        [numpy_helper.from_array(value, name) for name, value in stored.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.fixture
def program(tmp_path):
    def translated(text: str, shape: tuple[int, ...], outputs: str = "y") -> Program:
        return translate(load(written(text, shape, tmp_path / "spelling.onnx", outputs)))

    return translated


def normalisations(program: Program) -> list[Normalise]:
    return [step for step in program.steps if isinstance(step, Normalise)]


def whole(program: Program) -> bool:
    """Whether everything that is read is there, made before it is read, and has a shape."""
    there = {*program.inputs, *program.weights, *program.tables}
    for step in program.steps:
        if not there.issuperset(step.operands):
            return False
        there.update(step.results)
    return there.issuperset(program.outputs) and set(program.shapes) == there


@pytest.mark.parametrize(("text", "shape", "function", "axes"), SPELLINGS.values(), ids=SPELLINGS)
def test_every_spelling_is_one_step(program, text, shape, function, axes):
    made = program(text, shape)
    (step,) = made.steps
    assert isinstance(step, Normalise)
    assert (step.x, step.function, step.axes) == ("x", function, axes)
    assert made.outputs == (step.out,)
    assert not [name for name, value in made.tables.items() if value.dtype.kind == "f"]
    assert whole(made)


@pytest.mark.parametrize(("text", "shape", "function", "axes"), SPELLINGS.values(), ids=SPELLINGS)
def test_what_is_recognised_commutes_with_rotations(tmp_path, text, shape, function, axes):
    """The meaning of a recognised step: rotations along its axes, of the mean too only where it is not subtracted."""
    run = ReferenceEvaluator(str(written(text, shape, tmp_path / "spelling.onnx")))
    rng = np.random.default_rng(5)
    x, size = rng.normal(size=shape), prod(shape[k] for k in axes)
    basis = rng.normal(size=(size, size))
    if function == "standardise":
        fixed = np.linalg.qr(np.column_stack([np.ones(size), basis[:, 1:]]))[0]
        turn = np.linalg.qr(rng.normal(size=(size - 1, size - 1)))[0]
        g = fixed @ np.block([[np.ones((1, 1)), np.zeros((1, size - 1))], [np.zeros((size - 1, 1)), turn]]) @ fixed.T
    else:
        g = np.linalg.qr(basis)[0]

    def turned(v: np.ndarray) -> np.ndarray:
        moved = np.moveaxis(v, axes, range(-len(axes), 0))
        flat = moved.reshape(*moved.shape[: -len(axes)], size) @ g.T
        return np.moveaxis(flat.reshape(moved.shape), range(-len(axes), 0), axes)

    y = run.run(None, {"x": x.astype(np.float32)})[0]
    z = run.run(None, {"x": turned(x).astype(np.float32)})[0]
    np.testing.assert_allclose(z, turned(y), atol=2e-5)


@pytest.mark.parametrize(("text", "function", "after"), WITH_GAIN.values(), ids=WITH_GAIN)
def test_gain_and_bias_come_after(program, text, function, after):
    made = program(text, ROWS)
    first, *others = made.steps
    assert isinstance(first, Normalise)
    assert (first.x, first.function, first.axes) == ("x", function, (2,))
    assert all(isinstance(step, Pointwise) for step in others)
    assert [step.function for step in others] == after
    assert whole(made)


@pytest.mark.parametrize("text", MISSES.values(), ids=MISSES)
def test_what_only_looks_like_one_is_left_alone(program, text):
    made = program(text, ROWS)
    assert not normalisations(made)
    assert whole(made)


@pytest.mark.parametrize("text", SQUARE_MISSES.values(), ids=SQUARE_MISSES)
def test_axes_of_one_length_are_told_apart(program, text):
    assert not normalisations(program(text, SQUARE))


def test_a_multiple_is_its_own_source(program):
    made = program("h = Mul(x, 3.0); " + DEVIATION.replace("x", "h") + "y = Div(c, s)", ROWS)
    multiple, step = made.steps
    assert (multiple.function, step.function, step.x) == ("Mul", "standardise", multiple.out)


def test_what_is_read_elsewhere_stays(program):
    made = program(DEVIATION + "y = Div(c, s); z = Tanh(c)", ROWS, "y z")
    (step,) = normalisations(made)
    assert step.x == "x"
    assert [s.function for s in made.steps if isinstance(s, Pointwise)] == ["Mul", "Sub", "Tanh"]
    assert whole(made)


def test_an_output_on_the_way_stays(program):
    made = program(DEVIATION + "y = Div(c, s)", ROWS, "s y")
    assert [s.function for s in normalisations(made)] == ["standardise"]
    assert "Sqrt" in [s.function for s in made.steps if isinstance(s, Pointwise)]
    assert whole(made)


def test_one_after_the_other(program):
    again = DEVIATION.replace("x", "y")
    for name in "mcpves":
        again = re.sub(rf"\b{name}\b", name * 2, again)
    made = program(DEVIATION + "y = Div(c, s); " + again + "z = Div(cc, ss)", ROWS, "z")
    first, second = made.steps
    assert (first.x, second.x) == ("x", first.out)


def test_groups_of_channels(program):
    text = (
        "g = Reshape(x, [2, 2, 2, 3, 5]); m = ReduceMean(g, [2, 3, 4]); c = Sub(g, m); p = Mul(c, c); "
        "v = ReduceMean(p, [2, 3, 4]); e = Add(v, 1e-2); s = Sqrt(e); n = Div(c, s); y = Reshape(n, [2, 4, 3, 5])"
    )
    made = program(text, IMAGE)
    (step,) = normalisations(made)
    assert (step.function, step.axes, made.shapes[step.x]) == ("standardise", (2, 3, 4), (2, 2, 2, 3, 5))
    assert len(made.steps) == 3


def test_the_program_is_that_of_the_operator(tmp_path):
    """A perceptron with its norm written out has the symmetries of one with the operator."""
    found = []
    for middle in (
        "h = LayerNormalization(x, gain, bias)",
        DEVIATION + "n = Div(c, s); a = Mul(n, gain); h = Add(a, bias)",
    ):
        model = written(f"{middle}; y = Relu(h)", ROWS, tmp_path / "model.onnx")
        symmetry = infer(load(model))
        found.append((symmetry.dimension, symmetry.coverage, [(g.kind, g.group) for g in symmetry.generators]))
    assert found[0] == found[1]
