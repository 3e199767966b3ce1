"""Ranks: what is lowered is told with its rank, in every gauge and number type; random matrices are left alone."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import planting
import pytest
from onnx import TensorProto, helper, numpy_helper
from test_planted import SHARED, ZOO, chain, found

from symlint.audit.engine import audit
from symlint.evidence.ranks import Rank, Side, rank, surely_full
from symlint.lint.finding import Finding, Level
from symlint.lint.rule import rules
from symlint.lint.settings import Settings
from symlint.model.clusters import precision
from symlint.model.load import load
from symlint.model.saving import write
from symlint.symmetry.inference import examine
from symlint.symmetry.motion.action import stands, transform
from symlint.symmetry.structure import Action

RULES = ("SYM301", "SYM302", "SYM303")
DTYPES = ("float16", "bfloat16", "float32", "float64")
SHAPES = [
    (16, 65, 65), (4, 16, 17), (64, 192, 193), (8, 9, 30), (24, 12, 40), (40, 10, 12), (2, 3, 5), (3, 65, 64),
    (16, 16, 16), (24, 32, 24), (48, 200, 48),
]  # fmt: skip
"""Width, rows that write, rows that read."""
SPARE = [shape for shape in SHAPES if min(shape) < sorted(shape)[1]]
"""Those in which a random matrix has no small singular value by chance."""


def stored(values: np.ndarray, dtype: str) -> np.ndarray:
    """Rounded to a number type."""
    return values.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


def gauge(rng: np.random.Generator, n: int, condition: float, kind: str) -> np.ndarray:
    """A random matrix of this condition: all scales, two of them, or one direction apart."""
    bases = [np.linalg.qr(rng.standard_normal((n, n)))[0] for _ in range(2)]
    scales = {
        "all": condition ** np.linspace(-0.5, 0.5, n),
        "half": np.where(np.arange(n) < n // 2, condition**0.5, condition**-0.5),
        "one": np.where(np.arange(n) < 1, 1 / condition, 1.0),
    }[kind]
    return bases[0] * scales @ bases[1]


def factors(rng: np.random.Generator, shape: tuple[int, int, int], low: int | None, where: str) -> list[np.ndarray]:
    """Rows of writers and readers whose product has a rank; it is full where none is given."""
    n, p, q = shape
    writers, readers = rng.standard_normal((p, n)), rng.standard_normal((q, n))
    if low is not None and where == "both":
        basis, _ = np.linalg.qr(rng.standard_normal((n, n)))
        most = n - (n - low) // 2
        writers = rng.standard_normal((p, most)) @ basis[:, :most].T
        kept = [*range(low), *range(most, n)]
        readers = rng.standard_normal((q, len(kept))) @ basis[:, kept].T
    elif low is not None:
        few = rng.standard_normal((low, n))
        writers = rng.standard_normal((p, low)) @ few if where == "writers" else writers
        readers = rng.standard_normal((q, low)) @ few if where == "readers" else readers
    return [writers, readers]


def side(rows: np.ndarray, *free: np.ndarray) -> Side:
    """A factor of which some columns mean nothing."""
    return Side(rows, np.arange(len(rows)), np.linalg.qr(np.array(free).T)[0] if free else np.zeros((len(rows), 0)))


def told(parts: list[np.ndarray], matrix: np.ndarray, dtype: str) -> Rank:
    """The rank of two factors, stored in a gauge that they come into from another one in which they were stored."""
    moved = [side(stored(stored(x, dtype).astype(float) @ g, dtype)) for x, g in zip(parts, _pair(matrix), strict=True)]
    return rank(*moved, min(len(matrix), *map(len, parts)), precision(dtype))


def _pair(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return matrix.T, np.linalg.inv(matrix)


@pytest.mark.parametrize("kind", ["all", "half", "one"])
@pytest.mark.parametrize("condition", [1.0, 10.0, 1000.0])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_random_products_are_full(shape, condition, kind):
    """Whatever the gauge; in half precision as long as the gauge is fair."""
    for seed in range(10):
        rng = np.random.default_rng([seed, *shape])
        for dtype in DTYPES if condition < 10 else ("float32", "float64"):
            if min(shape) == sorted(shape)[1] and condition > 10:
                continue
            found = told(factors(rng, shape, None, ""), gauge(rng, shape[0], condition, kind), dtype)
            assert not found.low, (dtype, found)


@pytest.mark.parametrize("kind", ["all", "half", "one"])
@pytest.mark.parametrize("condition", [1.0, 10.0, 1000.0])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_low_ranks_are_told_in_every_gauge(shape, condition, kind):
    """In float32 up to a condition number of 1,000, in float64 beyond."""
    bound = min(shape)
    for low in {1, bound // 2, bound - 1} - {0}:
        for where in ("writers", "readers", "both") if shape[0] == bound > low + 1 else ("writers", "readers"):
            if sorted(shape)[1] == bound and condition > 10 and low > 1:
                continue  # the smallest of many random directions drowns in such a gauge
            rng = np.random.default_rng([low, *shape, *where.encode()])
            parts = factors(rng, shape, low, where)
            for dtype in ("float32", "float64"):
                found = told(parts, gauge(rng, shape[0], condition, kind), dtype)
                assert (found.rank, found.bound) == (low, bound), (where, dtype, found)
                assert found.dropped < found.kept / 16


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("shape", SPARE, ids=str)
def test_low_ranks_are_told_in_half_precision(shape, dtype):
    """Where the spectrum leaves the room: one direction, and in float16 half of them."""
    for low in {1, min(shape) // 2 if dtype == "float16" else 1} - {min(shape)}:
        for where in ("writers", "readers"):
            rng = np.random.default_rng([low, *shape, *where.encode()])
            found = told(factors(rng, shape, low, where), np.eye(shape[0]), dtype)
            assert found.rank == low, (where, found)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [s for s in SHAPES if s[0] == min(s)], ids=str)
def test_a_certificate_never_contradicts(shape, dtype):
    """It is only given where the rank is full, and to random factors in float32 with room to spare it is given."""
    unit, n = precision(dtype), shape[0]
    for seed in range(5):
        rng = np.random.default_rng([seed, *shape])
        for low in (None, n - 1, max(1, n // 2)):
            for condition in (1.0, 1000.0):
                parts = factors(rng, shape, low, "writers")
                moved = [
                    side(stored(x @ g, dtype))
                    for x, g in zip(parts, _pair(gauge(rng, n, condition, "all")), strict=True)
                ]
                certain = surely_full(*moved, unit)
                assert not (certain and low is not None)
                if low is None and condition == 1 and dtype in ("float32", "float64") and min(shape[1:]) >= 2 * n:
                    assert certain


def test_nothing_has_rank_zero():
    """Zeros, numbers that decayed to zero, and writers that lie in what readers do not see."""
    rng = np.random.default_rng(1)
    writers, readers = (rng.standard_normal((20, 6)).astype(np.float32) for _ in range(2))
    unit = precision("float32")
    assert rank(side(writers * 0), side(readers), 6, unit).rank == 0
    assert rank(side(writers * 0), side(readers), 6, precision("bfloat16")).rank == 0
    assert rank(side(writers), side(readers * np.float32(1e-38)), 6, unit).rank == 0
    hidden, seen = writers.copy(), readers.copy()
    hidden[:, :3], seen[:, 3:] = 0, 0
    turn = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    assert rank(side(stored(hidden @ turn, "float32")), side(stored(seen @ turn, "float32")), 6, unit).rank == 0


def test_what_is_not_finite_is_not_judged():
    """Another rule speaks of it."""
    writers = np.ones((8, 4), np.float32)
    writers[3, 1] = np.nan
    assert not rank(side(writers), side(np.ones((8, 4), np.float32)), 4, precision("float32")).low
    assert not surely_full(side(writers), side(np.eye(4, dtype=np.float32)), precision("float32"))


def test_a_unit_that_decayed_is_lost_in_every_basis():
    """A row of 1e-12 read by a column of 1e-12 is no direction, before and after a rotation."""
    rng = np.random.default_rng(2)
    writers, readers = rng.standard_normal((40, 8)), rng.standard_normal((30, 8))
    writers[:, 5] *= 1e-12
    readers[:, 5] *= 1e-12
    for turn in (np.eye(8), np.linalg.qr(rng.standard_normal((8, 8)))[0]):
        moved = [side(stored(x @ turn, "float32")) for x in (writers, readers)]
        assert rank(*moved, 8, precision("float32")).rank == 7


def test_scales_beside_the_space_do_not_count():
    """What comes in and goes out may have any scale, and so may the units."""
    rng = np.random.default_rng(3)
    for low in (None, 3):
        writers, readers = factors(rng, (8, 30, 40), low, "writers")
        sizes = [10.0 ** rng.uniform(-6, 6, n) for n in (30, 40, 8)]
        moved = [writers * sizes[0][:, None] * sizes[2], readers * sizes[1][:, None] / sizes[2]]
        assert rank(*[side(stored(x, "float32")) for x in moved], 8, precision("float32")).rank == (low or 8)


@pytest.mark.parametrize("kind", ["all", "half", "one"])
@pytest.mark.parametrize("shape", SPARE, ids=str)
def test_low_ranks_are_told_behind_a_space_that_turns(shape, kind):
    """What comes in may be in another basis as well, of a condition number up to 1,000: rows that are mixed."""
    for low in {None, 1, min(shape) // 2, min(shape) - 1} - {0}:
        rng = np.random.default_rng([low or 0, *shape])
        writers, readers = (stored(x, "float32").astype(float) for x in factors(rng, shape, low, "writers"))
        turned = [gauge(rng, len(writers), 1000.0, kind) @ writers, readers]
        moved = [x @ g for x, g in zip(turned, _pair(gauge(rng, shape[0], 10.0, kind)), strict=True)]
        sides = [Side(stored(x, "float32"), np.zeros(len(x), np.int64), np.zeros((len(x), 0))) for x in moved]
        assert rank(*sides, min(shape), precision("float32")).rank == (low or min(shape))


@pytest.mark.parametrize("decay", [0.3, 3.0, 9.0])
def test_weight_decay_leaves_what_the_theory_predicts(decay):
    """Factors of a matrix under gradient descent: singular values of the matrix below the decay are set to zero."""
    rng = np.random.default_rng(8)
    target = (rng.standard_normal((20, 8)) @ rng.standard_normal((8, 20))).astype(np.float32)
    readers, writers = (0.3 * rng.standard_normal((20, 12)).astype(np.float32) for _ in range(2))
    for _ in range(4000):
        error = readers @ writers.T - target
        step = error @ writers + np.float32(decay) * readers, error.T @ readers + np.float32(decay) * writers
        readers, writers = readers - np.float32(0.01) * step[0], writers - np.float32(0.01) * step[1]
    left = int(np.count_nonzero(np.linalg.svd(target, compute_uv=False) > decay))
    assert rank(side(writers), side(readers), 12, precision("float32")).rank == left
    assert 0 < left <= 8


def test_what_a_translation_moves_does_not_count():
    """A column that a change may add at will to one factor is no direction, nor is its place in a row of zeros."""
    rng = np.random.default_rng(6)
    writers, readers = factors(rng, (8, 30, 40), 3, "writers")
    unit, free = precision("float32"), rng.standard_normal(30)
    writers[7] = 0
    for by in (0.0, 1.0, 100.0):
        moved = stored(writers + by * np.outer(free, rng.standard_normal(8)), "float32")
        assert rank(side(moved, free), side(stored(readers, "float32")), 8, unit).rank == 3
        assert rank(side(moved), side(stored(readers, "float32")), 8, unit).rank == (4 if by else 3)
    assert not surely_full(side(stored(writers, "float32"), *np.eye(30)), side(stored(readers, "float32")), unit)


# -- networks ---------------------------------------------------------------------------------------------------------
def ranks(path: Path) -> list[tuple[str, str | None, list[int], list[int]]]:
    """Rule, space, copies and ranks of every finding above note; their bounds are what they could be."""
    report = audit(str(path), Settings().chosen(rules()), Settings())
    assert not report.incomplete, report.incomplete
    made = []
    for f in report.findings:
        if f.level > Level.NOTE:
            lows, bounds = f.facts.get("ranks", []), f.facts.get("bounds", [])
            assert all(low < bound <= f.facts["width"] for low, bound in zip(lows, bounds, strict=True))
            made.append((f.rule, f.space, list(f.units), lows))
    return made


def wanted(mixture: planting.Mixture, copy: int, low: int) -> list[object]:
    """The one finding that a lowered product must give."""
    numbered = mixture.rule != "SYM301" or mixture.copies > 1
    return [(mixture.rule, mixture.space.id, [copy] if numbered else [], [low])]


HALF = {("autoencoder_kl", "SYM301", "fewer"): "half of what reads the space is never used, and bounds the rank"}
FAST = {"gpt2", "bert", "vit_timm", "lora_linear", "deep_linear_bias", "mobilenet_v2", "swin_torchvision", "t5"}
HALVES = sorted(p for p in (SHARED / "zoo").glob("*.fp16.onnx") if p.stem.split(".")[0] in ("bert", "gpt2"))
FLAT = [
    pytest.param(p, id=p.stem, marks=[] if p.stem in FAST else [pytest.mark.slow])
    for k, p in enumerate(ZOO)
    if p.stem in FAST or k % 3 == 0
]


@pytest.mark.corpus
@pytest.mark.parametrize("how", planting.RANKS)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("path", [*FLAT, *HALVES])
def test_lowered_products_are_found_exactly(path, rule, how, shared, tmp_path):
    """Rule, space, head and rank of a product in which few directions are left, and nothing else."""
    planted = planting.flatten(path, rule, how, tmp_path / "flat.onnx")
    if planted is None or (path.stem, rule, how) in HALF:
        pytest.skip(HALF.get((path.stem, rule, how), "the network has no such product"))
    assert ranks(tmp_path / "flat.onnx") == wanted(*planted)


@pytest.mark.slow
@pytest.mark.corpus
def test_products_of_every_kind_are_lowered(shared):
    """Ten architectures at least for each rule."""
    tally: Counter[str] = Counter()
    for path in [p for p in ZOO if "." not in p.stem]:
        tally.update({m.rule for m in planting.Network(path).mixtures})
    assert set(tally) == set(RULES)
    assert min(tally.values()) >= 10, tally


@pytest.mark.corpus
@pytest.mark.parametrize("rule", ["SYM302", "SYM303"])
@pytest.mark.parametrize("name", ["gpt2", "bert", "bart", "t5", "vit_timm", "swin_torchvision"])
def test_a_head_of_rank_one_is_seen_in_bad_gauges(name, rule, shared, tmp_path):
    """Up to a condition number of 1,000, over all the heads of the layer."""
    path, out = tmp_path / "flat.onnx", tmp_path / "moved.onnx"
    planted = planting.flatten(SHARED / "zoo" / f"{name}.onnx", rule, "one", path)
    assert planted is not None
    structure = examine(load(str(path)))[1]
    action = structure.actions[planted[0].action.id]
    for kind in ("all", "half", "one"):
        write(path, gauged(path, action, 1000.0, kind), out)
        assert ranks(out) == wanted(*planted)


def gauged(path: Path, action: Action, condition: float, kind: str) -> dict[str, np.ndarray]:
    """The weights of a product in another basis, head by head."""
    there, rng = planting.Network(path), np.random.default_rng(5)
    size = there.factors.size(action.leaf)
    copies = [there.factors.size(c) for c in action.copies]
    matrices = np.stack([gauge(rng, size, condition, kind) for _ in range(int(np.prod(copies)))])
    values: dict[str, np.ndarray] = {}
    for name in {o.tensor for o in action.charge if o.tensor in there.program.weights}:
        stood = list(stands(there.structure.expansion, there.axes[name], action.leaf, action.copies))
        charge = {(o.axis, o.term, o.place): c for o, c in action.charge.items() if o.tensor == name}
        old = there.read(name)
        moved = transform(old.astype(np.float64), stood, matrices.reshape(*copies, size, size), charge)
        values[there.program.weights[name]] = moved.astype(old.dtype)
    return values


def attention(path: Path, dtype: str, heads: int = 4, size: int = 16, bias: float = 0.5) -> Path:
    """Attention over plain inputs in any number type, then a linear bottleneck of the size of a head."""
    rng, wide = np.random.default_rng(11), heads * size
    code = {
        "float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16,
        "float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE,
    }[dtype]  # fmt: skip
    values = {f"w{x}": rng.standard_normal((wide, wide)) for x in "qkvo"}
    values |= {f"b{x}": bias * rng.standard_normal(wide) for x in "qkv"}
    values |= {"wd": rng.standard_normal((wide, size)), "wu": rng.standard_normal((size, wide))}
    nodes = []
    for x in "qkv":
        nodes += [
            helper.make_node("MatMul", ["x", f"w{x}"], [f"{x}m"]),
            helper.make_node("Add", [f"{x}m", f"b{x}"], [f"{x}a"]),
            helper.make_node("Reshape", [f"{x}a", "apart"], [f"{x}r"]),
            helper.make_node("Transpose", [f"{x}r"], [x], perm=[0, 2, 3, 1] if x == "k" else [0, 2, 1, 3]),
        ]
    nodes += [
        helper.make_node("MatMul", ["q", "k"], ["s"]),
        helper.make_node("Softmax", ["s"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "v"], ["c"]),
        helper.make_node("Transpose", ["c"], ["t"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["t", "together"], ["h"]),
        helper.make_node("MatMul", ["h", "wo"], ["o"]),
        helper.make_node("Tanh", ["o"], ["a"]),
        helper.make_node("MatMul", ["a", "wd"], ["d"]),
        helper.make_node("MatMul", ["d", "wu"], ["y"]),
    ]
    initializers = [numpy_helper.from_array(stored(v, dtype), k) for k, v in values.items()]
    initializers.append(numpy_helper.from_array(np.array([2, 5, heads, size]), "apart"))
    initializers.append(numpy_helper.from_array(np.array([2, 5, wide]), "together"))
    ends = [helper.make_tensor_value_info(n, code, [2, 5, wide]) for n in "xy"]
    graph = helper.make_graph(nodes, "attention", ends[:1], ends[1:], initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_number_type(dtype, rule, tmp_path):
    """A random network is clean, and a product of rank one is told, in halves as well as in double precision."""
    path = attention(tmp_path / f"{dtype}.onnx", dtype)
    assert ranks(path) == []
    for how in planting.RANKS if dtype in ("float32", "float64") else ("one",):
        planted = planting.flatten(path, rule, how, tmp_path / "flat.onnx")
        assert planted is not None
        assert ranks(tmp_path / "flat.onnx") == wanted(*planted)


def findings(path: Path) -> list[Finding]:
    """The findings on ranks, notes included."""
    return list(audit(str(path), [r for r in rules() if r.code in RULES], Settings()).findings)


def lowered(tmp_path: Path, rule: str, lows: list[int]) -> Finding:
    """The finding on an attention network with the first copies lowered."""
    path, out = attention(tmp_path / "m.onnx", "float32"), tmp_path / "flat.onnx"
    there = planting.Network(path)
    mixture = next(m for m in there.mixtures if m.rule == rule)
    edit = planting.Planting(there)
    for copy, low in enumerate(lows):
        edit.lower(mixture, copy, low, np.random.default_rng(copy))
    edit.save(out)
    (finding,) = findings(out)
    assert finding.rule == rule
    return finding


@pytest.mark.parametrize("rule", ["SYM302", "SYM303"])
def test_a_head_without_any_direction_counts(rule, tmp_path):
    """Rank zero: one head is a warning; where all are, exporters and young networks have it so."""
    one = lowered(tmp_path, rule, [0])
    assert (one.units, one.facts["ranks"], one.level) == ((0,), [0], Level.WARNING)
    all_ = lowered(tmp_path, rule, [0, 0, 0, 0])
    assert (all_.units, all_.facts["ranks"], all_.level) == ((0, 1, 2, 3), [0, 0, 0, 0], Level.NOTE)
    assert lowered(tmp_path, rule, [2, 0, 1, 1]).level is Level.ERROR


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ("SYM301", "only 3 of 16 independent directions pass through wd: a narrower pair of layers does the same"),
        ("SYM302", "head 0 of 4 of wk compares queries and keys in 3 of 16 dimensions"),
        ("SYM303", "head 0 of 4 of wo passes on 3 of 16 dimensions"),
    ],
)
def test_words(rule, message, tmp_path):
    """What a finding says, with the numbers behind it."""
    finding = lowered(tmp_path, rule, [3])
    assert finding.message.replace("wq", "wk").replace("wv", "wo") == message
    cached = set() if rule == "SYM301" else {"cache"}
    assert set(finding.facts) == {"ranks", "bounds", "width", "copies", "kept", "dropped", "tolerance"} | cached
    rows = {"SYM301": 64 + 64, "SYM302": 65 + 65, "SYM303": 65 + 64}[rule]
    assert finding.saves == (16 - 3) * rows
    assert finding.facts["dropped"][0] <= 4 * finding.facts["tolerance"][0] < finding.facts["kept"][0]


@pytest.mark.parametrize("bias", [0.0, 1.0])
@pytest.mark.parametrize(
    ("width", "given", "made"), [(40, 10, 12), (40, 12, 10), (40, 64, 10), (64, 16, 80), (9, 8, 30)]
)
def test_a_wide_bottleneck_is_no_finding(width, given, made, bias, tmp_path):
    """More units than inputs or outputs: the smaller number is the bound."""
    rng = np.random.default_rng(width)
    weights = [rng.normal(size=(width, given)), rng.normal(size=(made, width))]
    path = chain(tmp_path / "m.onnx", weights, [bias * rng.normal(size=width), rng.normal(size=made)], "Identity")
    assert findings(path) == []
    weights[0][:, 3] = 0  # an input that nobody reads is none of the bottleneck's fault
    assert findings(chain(tmp_path / "m.onnx", weights, [np.zeros(width), np.zeros(made)], "Identity")) == []


@pytest.mark.parametrize("flaw", ["unwritten", "unread", "equal", "multiple", "opposite"])
def test_flaws_of_units_are_ranks_in_a_linear_space(flaw, tmp_path):
    """A dead unit and a duplicate lower the rank by one, and no rule on units speaks of them."""
    rng = np.random.default_rng(4)
    weights, biases = [rng.normal(size=(12, 30)), rng.normal(size=(25, 12))], [rng.normal(size=12), rng.normal(size=25)]
    if flaw == "unread":
        weights[1][:, 5] = 0
    else:
        factor = {"unwritten": 0.0, "equal": 1.0, "multiple": 2.5, "opposite": -1.0}[flaw]
        weights[0][5], biases[0][5] = factor * weights[0][2], factor * biases[0][2]
    path = chain(tmp_path / "m.onnx", weights, biases, "Identity")
    assert ranks(path) == [("SYM301", "S1", [], [11])]
    assert [f[0] for f in found(chain(tmp_path / "m.onnx", weights, biases, "Relu"))] == (
        ["SYM101"] if flaw in ("unwritten", "unread") else [] if flaw == "opposite" else ["SYM201"]
    )
