"""Inputs on which a model is tried, and the float32 copy of it that is run.

Inputs to which a network answers: a comparison of outputs that are the same for all inputs cannot fail.

How far two runs of networks are apart, and how far rounding alone moves the outputs of one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx import AttributeProto, GraphProto, TensorProto, numpy_helper

from symlint.model.errors import UsageProblem
from symlint.model.graph import Array, Model, Shape
from symlint.model.operators import known
from symlint.model.records import dataclass
from symlint.model.saving import save
from symlint.model.wire import LARGE
from symlint.runtime.runner import BATCHES, Loaded, Rollout, Run, Runner, batched, rollout, run_each, starts

HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
STRUCTURAL = frozenset({"Resize", "Upsample", "Range"})
"""Operators whose floating constants are sizes: a unit in the last place may change a shape."""
SIZES = {"wide": 8.0, "image": 1.0, "bright": 255.0, "narrow": 0.05, "huge": 100.0}
"""Kinds of inputs that are no plain noise, and how large they are."""


def feeds(model: Model, seed: int) -> Iterator[dict[str, Array]]:
    """Random inputs, the likeliest to be valid first.

    Floating inputs are standard normal, then uniform in [0, 1). Integers stay below the length of the table that they
    look up where the graph shows it, then below ever smaller bounds; the last resort is the length of a sequence.
    """
    longest = max((n for name in model.graph.inputs for n in model.shapes.get(name, ())[1:2]), default=1)
    for floats in ("normal", "uniform"):
        for bound in (None, 20, 5, 2, 1, -longest):
            yield _drawn(model, seed, floats, bound)


def unusual_feeds(model: Model, seed: int) -> Iterator[dict[str, Array]]:
    """Inputs for a network that does not answer to noise: of other sizes, smooth as images, and long runs of tokens."""
    for floats in ("wide", "image", "bright", "narrow", "huge"):
        for bound in (None, 1, 2):
            yield _drawn(model, seed, floats, bound)


def _drawn(model: Model, seed: int, floats: str, bound: int | None) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {name: _draw(model, name, rng, floats, bound) for name in model.graph.inputs}


def _draw(model: Model, name: str, rng: np.random.Generator, floats: str, bound: int | None) -> Array:
    shape, dtype = model.shapes.get(name, ()), model.dtypes.get(name, "float32")
    if dtype == "bool":
        return rng.random(shape) < 0.8
    if "int" in dtype:
        if bound is not None and bound < 0 and len(shape) <= 1:
            return np.full(shape, -bound, dtype)
        table = _table(model, name)
        high = max(min(table if bound is None and table else abs(bound or 50), 120), 1)
        if floats in SIZES:  # what is frequent in a text comes often; of two values, as in a mask, the larger one
            return (np.minimum(rng.zipf(1.3, shape) - 1, high - 1) if high > 2 else np.ones(shape)).astype(dtype)
        return rng.integers(0, high, shape).astype(dtype)
    values = rng.random(shape) if floats == "uniform" else rng.standard_normal(shape) * SIZES.get(floats, 1.0)
    if floats in ("image", "bright"):
        values = _smooth(rng, shape) * SIZES[floats]
    return values.astype("float64" if dtype == "float64" else "float32")


def _smooth(rng: np.random.Generator, shape: Shape) -> Array:
    """Numbers from 0 to 1 that change little from one place to the next, along the last two axes."""
    values = rng.standard_normal(shape)
    for axis in range(max(len(shape) - 2, 0), len(shape)):
        count = shape[axis]
        for step in (1, 2, 4, 8):
            values = values + np.roll(values, step % max(count, 1), axis=axis)
    low, high = (float(f(values)) if values.size else 0.0 for f in (np.min, np.max))
    return (values - low) / max(high - low, 1e-30)


def _table(model: Model, name: str) -> int | None:
    """The length of the table that an integer input looks up, where it does so directly."""
    lengths = [
        model.shapes[node.inputs[0]][int(node.attributes.get("axis", 0))]
        for node in model.graph.nodes
        if node.op == "Gather" and node.inputs[1] == name and node.inputs[0] in model.shapes
    ]
    return min(lengths, default=None)


def save_lifted(model: ir.Model, out: Path) -> None:
    """Save a model for running, with float16 and bfloat16 lifted to float32.

    Its weights are stored beside it: so onnxruntime maps them, and holds none twice.
    """
    save(model, out, data=f"{out.name}.data", least=LARGE, stand_in=_lifted, adapt=_lift)


def _lifted(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    if int(tensor.dtype) not in HALVES:
        return tensor
    wide = ir.DataType.FLOAT
    return ir.LazyTensor(
        lambda: ir.Tensor(tensor.numpy().astype(np.float32), dtype=wide, name=tensor.name),
        wide,
        ir.Shape(tensor.shape.numpy()),
        name=tensor.name,
    )


def _lift(graph: GraphProto) -> None:
    for tensor in graph.initializer:
        _widen(tensor)
    for value in [*graph.input, *graph.output, *graph.value_info]:
        if value.type.tensor_type.elem_type in HALVES:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                _widen(attribute.t)
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i in HALVES:
                attribute.i = TensorProto.FLOAT
            for body in [attribute.g, *attribute.graphs] if attribute.type in (5, 10) else []:
                _lift(body)


def _widen(tensor: TensorProto) -> None:
    if tensor.data_type in HALVES:
        wide = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))


FAINT = 1e-4
"""An output answers if it changes from one example to another by more than this share of its largest value."""
LOUD = 10.0
"""An output answers if it changes by this many times what the last place of the inputs changes of it."""
MUTE = "its outputs do not answer to the inputs that were drawn"

Feeds = Mapping[str, Array]


@dataclass(frozen=True, slots=True)
class Question:
    """Inputs on which a network runs, and what it makes of them."""

    feeds: tuple[Feeds, ...]
    outputs: tuple[Array, ...]
    """Of all inputs, one behind the other."""
    mute: int
    """How many outputs are the same for other inputs."""
    count: int
    """How many outputs there are."""
    spread: float
    """How far those that are not the same change at least, as a share of their largest value."""
    rounding: float
    """How far any output moves at most when the inputs move by a unit in the last place."""
    exposed: bool
    """Whether it is seen before the last operators of its outputs, which squash, round or choose."""
    unusual: bool
    """Whether the inputs were drawn otherwise than as plain noise, to which it did not answer."""


class Asking:
    """The search for a question; ``failure`` tells why there is none.

    Args:
        model: whose inputs are drawn.
        written: writes the network, whole or before its last operators, and says where; None where that cannot be.
        given: values of inputs; of all inputs, they are the only ones that count.
    """

    def __init__(
        self, model: Model, written: Callable[[bool], Path | None], seed: int, given: Feeds | None = None
    ) -> None:
        self.model, self.written, self.seed = model, written, seed
        self.given = {n: _typed(model, n, x) for n, x in (given or {}).items()}
        self.rollout = rollout(model)
        self.failure = "no inputs"

    def questions(self) -> Iterator[Question]:
        """Questions, the likeliest to be answered first."""
        for exposed in (False, True):
            path = self.written(exposed)
            if path is None:
                continue
            for pair, unusual in self._pairs():
                question = self._asked(path, pair, exposed=exposed, unusual=unusual)
                if question is not None:
                    yield question
            if not self.model.graph.inputs:
                return

    def _pairs(self) -> Iterator[tuple[tuple[Feeds, Feeds], bool]]:
        """Two draws of every kind, and whether it is unusual; of given inputs, these and others to compare with."""
        model = _resized(self.model, self.given)
        tried: set[bytes] = set()
        for drawn in (feeds, unusual_feeds):
            for one, other in zip(drawn(model, self.seed), drawn(model, self.seed + 1), strict=True):
                key = b"".join(x.tobytes() for x in other.values())
                if key not in tried:
                    tried.add(key)
                    contrast = other if self._alone else {**other, **self.given}
                    for pair in zip(starts(model, {**one, **self.given}), starts(model, contrast), strict=True):
                        yield pair, drawn is unusual_feeds and not self._alone

    def _still(self) -> set[int]:
        """The outputs that no input reaches, at every step."""
        inner, steps = (self.rollout.inner, self.rollout.steps) if self.rollout else (frozenset[str](), 1)
        seen, reached = [n for n in self.model.graph.outputs if n not in inner], _reached(self.model)
        return {len(seen) * t + k for t in range(steps) for k, name in enumerate(seen) if name not in reached}

    @property
    def _alone(self) -> bool:
        """Whether what is given is all that the network takes."""
        return bool(self.given) and set(self.model.graph.inputs) <= set(self.given)

    def _asked(self, path: Path, pair: tuple[Feeds, Feeds], *, exposed: bool, unusual: bool) -> Question | None:
        jolts = tuple(jolted(self.model, each, self.seed) for each in pair)
        run, compared = run_each([path], (*pair, *jolts), self.rollout)[0], True
        if run.failure is not None and self._alone:
            run, compared = run_each([path], (pair[0], jolts[0]), self.rollout)[0], False
        if run.failure is not None:
            self.failure = run.failure
            return None
        if not all(np.isfinite(y).all() for y in run.outputs if y.dtype.kind == "f"):
            self.failure = "its outputs are not finite"
            return None
        half = len(run.outputs) // 2
        count = half // 2 if compared else half
        first, second = run.outputs[:count], run.outputs[count:half]
        still = self._still() if not exposed else set[int]()
        moved = [change(x, y) for x, y in zip(run.outputs[:half], run.outputs[half:], strict=True)]
        noises = [max(moved[k::count]) for k in range(count)]
        changes = [
            (c, c > max(FAINT, LOUD * noise))
            for k, (c, noise) in enumerate(zip(map(change, first, second), noises, strict=False))
            if k not in still
        ]
        mute = sum(not answers for _, answers in changes)
        spread = min((c for c, answers in changes if answers), default=1.0)
        others, theirs = self._in_batches(path, pair[-1]) if mute < count else ((), ())
        asked = (*(pair[:1] if self._alone else pair), *others)
        outputs = (*first, *(() if self._alone else second), *theirs)
        return Question(asked, outputs, mute, count, spread, max(noises, default=0.0), exposed, unusual)

    def _in_batches(self, path: Path, values: Feeds) -> tuple[tuple[Feeds, ...], tuple[Array, ...]]:
        """Other numbers of sequences at once, where a network with states takes any, and what it makes of them."""
        if self._alone:
            return (), ()
        made = tuple(x for n in BATCHES if (x := batched(self.model, values, n)) is not None)
        run = run_each([path], made, self.rollout)[0] if made else Run()
        finite = all(np.isfinite(y).all() for y in run.outputs if y.dtype.kind == "f")
        return (made, run.outputs) if run.failure is None and finite else ((), ())


def jolted(model: Model, values: Feeds, seed: int) -> dict[str, Array]:
    """Inputs of which every floating number is moved to one of its two neighbours, but for those that are sizes."""
    sizes = {name for node in model.graph.nodes if node.op in STRUCTURAL for name in node.inputs}
    rng, made = np.random.default_rng([seed, 0]), {}
    for name, x in values.items():
        ends = np.where(rng.random(x.shape) < 0.5, -1, 1) * np.float64(np.inf)
        moved = x.dtype.kind == "f" and name not in sizes
        made[name] = np.nextafter(x, ends.astype(x.dtype)) if moved else x
    return made


def change(one: Array, other: Array) -> float:
    """How far an output changes with its inputs, as a share of its largest value; 1 for other forms or words."""
    if one.shape != other.shape or not one.size or one.dtype.kind not in "fiub":
        return 0.0 if one.size and np.array_equal(one, other) else 1.0
    a, b = one.astype(np.float64), other.astype(np.float64)
    gap = float(np.abs(a - b).max())
    return gap / max(float(np.abs(a).max()), float(np.abs(b).max())) if gap else 0.0


def _reached(model: Model) -> set[str]:
    """The values that depend on more than the shapes of inputs."""
    reached = set(model.graph.inputs)
    for node in model.graph.nodes:
        if node.bodies or (not known(node.op).measures and reached.intersection(node.inputs)):
            reached.update(node.outputs)
    return reached


def _typed(model: Model, name: str, values: Array) -> Array:
    if name not in model.graph.inputs:
        raise UsageProblem(f"{model.path} has no input {name!r}: it takes {', '.join(model.graph.inputs)}")
    shape = model.shapes.get(name, values.shape)
    if len(shape) != values.ndim:
        raise UsageProblem(
            f"{name!r} has {len(shape)} axes in {model.path}, and {values.ndim} in the file given for it"
        )
    dtype = model.dtypes.get(name, "float32")
    return values.astype("float32" if dtype in ("float16", "bfloat16") else dtype)


def _resized(model: Model, given: Feeds) -> Model:
    """The model with the sizes that given inputs lend to its symbolic dimensions."""
    free = set(model.symbols.values())
    sizes = {
        old: new for name, x in given.items() for old, new in zip(model.shapes.get(name, ()), x.shape, strict=False)
    }

    def fitting(shape: Shape) -> Shape:
        return tuple(sizes.get(n, n) if n in free else n for n in shape)

    shapes = {name: fitting(model.shapes[name]) for name in model.graph.inputs if name in model.shapes}
    return replace(model, shapes={**model.shapes, **shapes}) if given else model


def differences(before: Sequence[Array], after: Sequence[Array], *, levels: bool = False) -> tuple[float, ...]:
    """The difference of each output; infinite where shape, type or number of outputs differ."""
    if len(before) != len(after):
        return (float("inf"),) * len(before)
    return tuple(difference(x, y, levels=levels) for x, y in zip(before, after, strict=True))


def difference(before: Array, after: Array, *, levels: bool = False) -> float:
    """The largest difference, relative to the largest value of `before`; of integers and text the share that differs.

    Where integers are `levels` of something continuous, they count as other numbers do. Infinite values and NaN must be
    at the same places, else the difference is infinite.
    """
    if before.shape != after.shape or before.dtype != after.dtype:
        return float("inf")
    if not before.size:
        return 0.0
    if levels and before.dtype.kind in "iub":
        before, after = before.astype(np.float64), after.astype(np.float64)
    if before.dtype.kind not in "fc":
        return float(np.mean(before != after))
    finite = np.isfinite(before)
    if not finite.all():
        if not np.array_equal(before[~finite], after[~finite], equal_nan=True):
            return float("inf")
        before, after = before[finite], after[finite]
    if not np.isfinite(after).all():
        return float("inf")
    if not before.size or np.array_equal(before, after):
        return 0.0
    wide = np.complex128 if before.dtype.kind == "c" else np.float64
    gap = np.abs(before.astype(wide) - after.astype(wide)).max()
    # Below the smallest normal number there are no digits left to compare.
    return float(gap / max(np.abs(before).max(), np.finfo(before.dtype).tiny))


UNIT = {"float16": 2.0**-10, "float32": 2.0**-23, "float64": 2.0**-52}
"""One unit in the last place of 1."""
MOVED = 2**28
"""Bytes of weights that are moved; of larger models some tensors, since all would be slow to hand over."""
OTHER = 4711
"""Seed of operators that draw random numbers: what they make differs from what they make for the original."""
SLOW = 1.0
"""Seconds of one run from which on a network is run less often."""
DRAWS, UNITS = 6, 2.0
"""How often, and by how much, the weights are moved once more where a difference stands out."""


@dataclass(frozen=True, slots=True)
class Trial:
    """Inputs, and what the original makes of them as it is written and as onnxruntime optimises it."""

    feeds: Mapping[str, Array]
    plain: Run
    optimised: Run
    seconds: float
    """How long the first of both took."""
    loop: Rollout | None = None
    """The steps that were taken from there."""

    def apart(self, after: Run, before: Run | None = None) -> tuple[float, ...]:
        """The difference of each output, at whatever step, from what another file makes of these inputs."""
        found = differences((before or self.plain).outputs, after.outputs)
        if self.loop is None:
            return found
        count = self.count
        return tuple(max(found[k::count]) for k in range(count))

    @property
    def count(self) -> int:
        """How many outputs are compared."""
        return len(self.plain.outputs) if self.loop is None else self.loop.seen


def noise(runner: Runner, model: Model, path: Path, trials: Sequence[Trial], seed: int) -> tuple[float, ...]:
    """The noise of each output: the difference between levels of optimisation, and for a unit in the last place.

    `path` is the file of `model`, or its copy in float32.
    """
    found = [t.apart(t.optimised) for t in trials if t.optimised.failure is None]
    slow = trials[0].seconds > SLOW
    for level in () if slow else ("basic", "extended"):
        found += _moved(runner, runner.load(path, level, seed=OTHER), trials[:1])
    found += _moved(runner, runner.load(path, weights=nudged(model, seed), seed=OTHER), trials[:1] if slow else trials)
    return _largest(found, trials[0].count)


def more_noise(runner: Runner, model: Model, path: Path, trials: Sequence[Trial], seed: int) -> tuple[float, ...]:
    """The noise of each output in several draws, which meet edges that one draw may miss, where outputs are rounded."""
    found: list[tuple[float, ...]] = []
    for draw in range(1, 2 if trials[0].seconds > SLOW else DRAWS + 1):
        weights = nudged(model, seed + draw, UNITS)
        found += _moved(runner, runner.load(path, weights=weights, seed=OTHER), trials)
    return _largest(found, trials[0].count)


def nudged(model: Model, seed: int, units: float = 1.0) -> dict[str, Array]:
    """Every floating weight moved by so many units in the last place, up or down; of huge models some tensors."""
    rng = np.random.default_rng(seed)
    made: dict[str, Array] = {}
    left = MOVED
    sizes = {name for node in model.graph.nodes if node.op in STRUCTURAL for name in node.inputs}
    for name in rng.permutation(sorted(model.tensors)).tolist():
        tensor = model.tensors[name]
        # A single number is an epsilon, a bound or the depth of a mask.
        if name not in sizes and tensor.dtype in UNIT and 1 < tensor.size <= left // 4:
            values = tensor.read()
            left -= values.nbytes
            signs = rng.integers(0, 2, values.shape, dtype=np.int8) * 2.0 - 1
            with np.errstate(over="ignore", invalid="ignore"):
                moved = (values * (1 + signs * (units * UNIT[tensor.dtype]))).astype(values.dtype)
            made[name] = np.where(np.isfinite(moved), moved, values)
    return made


def _moved(runner: Runner, other: Loaded, trials: Sequence[Trial]) -> list[tuple[float, ...]]:
    if other.failure is not None:
        return []
    answers = [(trial, runner.run(other, trial.feeds, trial.loop)) for trial in trials]
    runner.drop(other)
    return [trial.apart(a) for trial, a in answers if a.failure is None]


def _largest(found: Sequence[tuple[float, ...]], count: int) -> tuple[float, ...]:
    return tuple(max(column) for column in zip(*found, strict=True)) if found else (0.0,) * count


_WHOLE = 0.5
"""The part of an output that rounding moves only where the output itself is as good as zero."""


def drowned(what: str, noise: float) -> str:
    """Why outputs prove nothing of which rounding alone moves so large a part."""
    moved = f"rounding alone moves it by {noise:.1e} of its largest value"
    small = "is nearly zero" if noise >= _WHOLE else "is hardly more than rounding"
    return f"{what} {small} on random inputs ({moved}), so nothing can be proven there; give a real input with --input"
