"""What a network costs, and the same repairs at several multiples of widths, of which the cheapest is the result.

Runtimes work on eight or sixteen numbers at a time, so that a network with fewer units may take longer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from math import prod, sqrt
from pathlib import Path
from statistics import quantiles

from symlint.model import saving
from symlint.model.graph import Array, Model, Shape
from symlint.model.load import load
from symlint.model.records import dataclass
from symlint.model.shapes.concrete import Skeleton, make_concrete
from symlint.program.steps import Program
from symlint.program.translate import translate
from symlint.repair.plan import Cost, Done, Fixed, Key, Outcome, Variant, Wish
from symlint.repair.promises import multiples
from symlint.runtime.proof import collect
from symlint.runtime.runner import Runner
from symlint.symmetry.gauge.rounding import decibels, taken
from symlint.symmetry.inference import examine

RECURRENT = frozenset({"RNN", "GRU", "LSTM", "com.microsoft.DynamicQuantizeLSTM"})
SPREADING = frozenset({"ConvTranspose", "com.microsoft.ConvTransposeWithDynamicPads"})
"""Operators of which a program shows fewer or more multiplications than they do."""

TURNS = 11
"""How often each of several files is timed at least."""
LASTING = 0.1
"""Seconds that this takes at least, unless it is done twenty times as often."""
ERROR = 0.93
"""The standard error of a median, times the square root of the count, in distances of the quartiles."""


@dataclass(frozen=True, slots=True)
class Measure:
    """The cost of a network."""

    nodes: int
    """Operator calls, those in bodies of control flow included; Identity and Constant are none."""
    parameters: int
    bytes: int
    """The file and the external data that it names."""
    multiply_adds: int
    """Of contractions, convolutions, recurrent layers and attention, for inputs of `shapes`; of a loop two rounds."""
    shapes: Mapping[str, Shape]
    """Input -> its shape: of one example, where all inputs share a batch."""


def measure(path: str | Path, model: Model, like: Model | None = None) -> Measure:
    """The cost of the model that was loaded from `path`.

    ``like``: another model with the same inputs, of which the numbers for symbolic dimensions are taken, so that the
    multiply-adds of both compare.
    """
    shapes = _single(like or model)
    program = translate(_resized(model, shapes))
    return Measure(
        nodes=sum(1 for _ in model.graph.walk()),
        parameters=sum(program.parameters.values()),
        bytes=_bytes(Path(path)),
        multiply_adds=_multiply_adds(program),
        shapes=shapes,
    )


@dataclass(frozen=True, slots=True)
class Timing:
    """How long onnxruntime takes for one run of a file."""

    seconds: float
    """The median of several runs."""
    spread: float
    """Half of what the middle half of the runs lies apart."""
    shapes: Mapping[str, Shape]
    """Input -> the shape that it had."""

    runs: tuple[float, ...] = ()
    """All of them, in turns with those of the files that it is compared with."""

    def slower(self, other: Timing) -> bool:
        """Whether it takes longer, turn by turn: the median of the differences, by a hundredth and beyond its noise."""
        low, middle, high = _quartiles([mine - its for mine, its in zip(self.runs, other.runs, strict=True)])
        return middle > max(2 * ERROR * (high - low) / sqrt(len(self.runs)), 0.01 * other.seconds)

    def beyond(self, other: Timing) -> bool:
        """Whether it takes longer by more than a tenth."""
        return self.slower(other) and self.seconds > 1.1 * other.seconds


def latency(
    paths: Sequence[str | Path], model: Model, seed: int = 0, *, given: Mapping[str, Array], lasting: float = LASTING
) -> tuple[Timing, ...]:
    """How long one run of each file takes, in turns, on the same random inputs with one thread.

    ``model`` is the first file, loaded; all files take the same inputs, which are those that are given. Each runs
    eleven times, and more often where all of that lasts less than ``lasting`` seconds. Raises RuntimeError where one
    does not run.
    """
    with Runner() as runner:
        plain = runner.load(paths[0], threads=1)
        trials, failure = (
            collect(runner, model, plain, plain, seed, given) if plain.failure is None else ([], plain.failure)
        )
        if not trials:
            raise RuntimeError(failure)
        loaded = [runner.load(path, "all", threads=1) for path in paths]
        for each in loaded:
            if each.failure is not None:
                raise RuntimeError(each.failure)
        feeds = trials[-1 if given else 0].feeds
        shapes = {name: tuple(value.shape) for name, value in feeds.items()}
        return tuple(_timing(taken, shapes) for taken in runner.seconds(loaded, feeds, TURNS, lasting))


def _timing(taken: Sequence[float], shapes: Mapping[str, Shape]) -> Timing:
    low, middle, high = _quartiles(taken)
    return Timing(middle, (high - low) / 2, shapes, tuple(taken))


def _quartiles(taken: Sequence[float]) -> tuple[float, float, float]:
    low, middle, high = quantiles(taken, n=4, method="inclusive")
    return low, middle, high


def _single(model: Model) -> dict[str, Shape]:
    """The shapes of the inputs, with a batch of one where all inputs that may vary begin with one number."""
    shapes = {name: model.shapes[name] for name in model.graph.inputs if name in model.shapes}
    free = set(model.symbols.values())
    varying = {shape[0] if shape[0] in free else 0 for shape in shapes.values() if free.intersection(shape)}
    if len(varying) == 1 and (batch := varying.pop()):
        return {name: tuple(1 if size == batch else size for size in shape) for name, shape in shapes.items()}
    return shapes


def _resized(model: Model, shapes: Mapping[str, Shape]) -> Model:
    """The model with these shapes of its inputs, where it takes any; as it was where the network refuses them."""
    free = set(model.symbols.values())
    shapes = {
        name: tuple(n if m in free else m for n, m in zip(shape, model.shapes[name], strict=True))
        for name, shape in shapes.items()
        if name in model.shapes
    }
    if all(model.shapes.get(name) == shape for name, shape in shapes.items()):
        return model
    declared = {name: (model.dtypes.get(name, "float32"), shape) for name, shape in shapes.items()}
    made = make_concrete(Skeleton(model.graph, model.tensors, declared, {}))
    if not set(model.shapes) <= set(made.shapes):
        return model
    return replace(model, shapes=made.shapes, dtypes=made.dtypes, constants=made.constants, moving=made.moving)


def _multiply_adds(program: Program) -> int:
    shapes = program.model.shapes
    apart = RECURRENT | SPREADING
    total = 0
    for step in program.contractions:
        if not step.linear and step.node.op not in apart and step.out not in program.fixed:
            labels = {label for spec in step.specs for axis in spec for label in axis}
            total += prod(step.sizes[label] for label in labels)
    for node in program.model.graph.walk():
        if node.op in apart and node.inputs[0] in shapes:
            x, weights = shapes[node.inputs[0]], [shapes.get(name, (0,)) for name in node.inputs[1:3]]
            total += prod(x) * prod(weights[0][1:]) if node.op in SPREADING else prod(x[:2]) * sum(map(prod, weights))
    return total


def _bytes(path: Path) -> int:
    """The sizes of a file and of its external data."""
    outside = {(path.parent / name).resolve() for name in saving.outside(saving.opened(path))}
    return path.stat().st_size + sum(file.stat().st_size for file in outside if file.is_file())


UNCUT = 1 << 30
"""A multiple that no width reaches: all stay as they are."""
CHOOSING = 2.0
"""Seconds for which latencies are measured that a choice depends on."""
SLOWER = "at each width that was tried the network takes longer than it does now"

Make = Callable[[int, Mapping[Key, str] | None], Outcome]
"""Carries the repairs out at a multiple of widths: proven, or else without those that are known to be refuted."""


@dataclass(frozen=True, slots=True)
class _Compared:
    """The costs of the original, and of the results at several multiples, measured in turns."""

    before: Cost
    after: Mapping[int, Cost]
    """Multiple -> cost; those that are like an earlier one are left out."""


def aligned(model: Model, wish: Wish, make: Make) -> Fixed:
    """The repairs at the widths that are wished for, and what others would cost."""
    made = {wish.align: (first := make(wish.align, None))}
    for align in wish.beside:
        if align not in made and _narrows(first.done, align):
            made[align] = make(align, None if wish.fastest else first.refuted)
    found = _compared(model, wish, made)
    best = _fastest(found, wish.align) if wish.fastest else wish.align
    if best == UNCUT:
        return _uncut(model, wish, make, found)
    return _fixed(model, made[best], found, best, found.after)


def _narrows(done: Iterable[Done], align: int) -> bool:
    """Whether repairs can take anything away where widths are to be multiples of a number."""
    left: dict[str, tuple[int, int]] = {}
    for one in done:
        left[one.where] = one.units, left.get(one.where, (0, one.units))[1] - one.removed
    return any(-(-rest // align) * align < units for units, rest in left.values())


def _uncut(model: Model, wish: Wish, make: Make, found: _Compared) -> Fixed:
    """Only the repairs that change no width, where all others make the network slower."""
    made = make(UNCUT, None)
    left = tuple(replace(one, reason=SLOWER) if one.reason == multiples(UNCUT) else one for one in made.left)
    return _fixed(model, replace(made, left=left), _compared(model, wish, {UNCUT: made}), UNCUT, found.after)


def _fixed(model: Model, made: Outcome, found: _Compared, align: int, all_: Mapping[int, Cost]) -> Fixed:
    variants = tuple(Variant(each, cost, each == align) for each, cost in all_.items())
    return Fixed(
        model,
        made.path,
        made.done,
        made.left,
        made.proof,
        found.before,
        found.after[align],
        made.unreached,
        variants if len(variants) > 1 or align == UNCUT else (),
        made.partial,
        made.shrunk,
    )


def _compared(model: Model, wish: Wish, made: Mapping[int, Outcome]) -> _Compared:
    before = _cost(model.path, model, model, wish)
    after: dict[int, Cost] = {}
    for align, one in made.items():
        cost = _cost(one.path, load(one.path), model, wish) if one.done else before
        if all(_size(cost) != _size(other) for other in after.values()):
            after[align] = cost
    timings: Sequence[Timing] = ()
    if any(one.done and one.proof is not None for one in made.values()):
        lasting = CHOOSING if wish.fastest else LASTING
        with suppress(RuntimeError):
            paths: list[str | Path] = [model.path, *(made[align].path for align in after)]
            timings = latency(paths, model, given=wish.given, lasting=lasting)
    if timings:
        before = replace(before, timing=timings[0])
        after = {align: replace(after[align], timing=t) for align, t in zip(after, timings[1:], strict=True)}
    return _Compared(before, after)


def _cost(path: str | Path, model: Model, original: Model, wish: Wish) -> Cost:
    found = Cost(measure(path, model, original), None)
    if not wish.balances:
        return found
    structure = examine(model)[1]
    half = wish.asked.target == "float16"
    return replace(found, lost=taken(structure) if half else None, decibels=None if half else decibels(structure))


def _size(cost: Cost) -> tuple[int, int]:
    return cost.measure.parameters, cost.measure.multiply_adds


def _fastest(found: _Compared, align: int) -> int:
    """The multiple of the fastest result, of several that are as fast the smallest; `UNCUT` where all are slower."""
    original = found.before.timing
    timed = {each: cost.timing for each, cost in found.after.items() if cost.timing is not None}
    if original is None or not timed:
        return align
    fit = {each: timing for each, timing in timed.items() if not timing.slower(original)}
    if not fit:
        return UNCUT
    fastest = min(fit.values(), key=lambda timing: timing.seconds)
    as_fast = [each for each, timing in fit.items() if not timing.slower(fastest)]
    return min(as_fast, key=lambda each: found.after[each].measure.parameters)
