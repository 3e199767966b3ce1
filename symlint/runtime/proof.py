"""A proof that a repaired file computes the same function: both run in onnxruntime on random inputs of several sizes.

Its trials are inputs on which the original runs, and what it makes of them. Saturated outputs are compared before their
last functions: equal there is equal behind them; the reverse does not hold, since what they take away may differ.

The difference of each output, relative to its largest value, may be a few units of rounding (`FLOOR`), or `MULTIPLE`
times the noise, up to `CAP`. The noise is how far the original itself moves between onnxruntime's levels of
optimisation, and when every weight moves by one unit in the last place.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import field, replace
from itertools import islice
from math import isfinite
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Literal

import numpy as np
import onnx_ir as ir

from symlint.model.graph import Array, Model, Shape
from symlint.model.records import dataclass
from symlint.model.saving import rewrite
from symlint.runtime.probe import SLOW, Trial, differences, drowned, feeds, more_noise, noise, save_lifted
from symlint.runtime.runner import BATCHES, Dim, Loaded, Rollout, Run, Runner, batched, rollout, starts

# Inputs for a proof: symbolic dimensions with several numbers each, and random values of several spreads.

DRAWS = 12
"""Kinds of random values that `probe.feeds` offers: normal ones first, uniform ones in the second half."""
WIDE = 8.0
"""How much wider than normal some inputs are: units that only large values reach are tried too."""
Sizes = Mapping[str, int]
Within = Mapping[str, tuple[float, float]]
_TYPES = {"float": "float32", "double": "float64", "float16": "float16"}


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a model declares that it takes, with a name for every dimension without a number."""

    model: Model
    declared: Mapping[str, tuple[int | str, ...]]
    dtypes: Mapping[str, str]
    loaded: Sizes
    """The number that each name had when the model was read."""
    within: Within = field(default_factory=dict)
    """What the numbers of some inputs lie between."""

    @property
    def batch(self) -> frozenset[int]:
        """The loaded numbers of the dimensions that stand first."""
        return frozenset(self.loaded[dims[0]] for dims in self.declared.values() if dims and isinstance(dims[0], str))

    def shapes(self, sizes: Sizes) -> dict[str, Shape]:
        """The shape of each input under a choice of numbers."""
        return {n: tuple(_size(d, sizes, self.loaded) for d in dims) for n, dims in self.declared.items()}

    def draw(self, sizes: Sizes, kind: int, seed: int, width: float = 1.0) -> dict[str, Array]:
        """Random values of a kind below `DRAWS` for every input, floating ones so much wider."""
        model = replace(self.model, shapes={**self.model.shapes, **self.shapes(sizes)})
        drawn = next(islice(feeds(model, seed), kind, None))
        wide = {n: x * width if x.dtype.kind == "f" else x for n, x in drawn.items()}
        return {n: self._held(n, x).astype(self.dtypes[n]) for n, x in wide.items()}

    def _held(self, name: str, values: Array) -> Array:
        """Floating values brought between the ends that an input has."""
        low, high = self.within.get(name, (-np.inf, np.inf))
        if values.dtype.kind != "f":
            return values
        if np.isfinite(low) and np.isfinite(high):
            values = (low + high) / 2 + values * (high - low) / 4
        return np.clip(values, low, high)

    def filled(self, given: Mapping[str, Array], sizes: Sizes, kind: int, seed: int) -> dict[str, Array]:
        """Given values where there are any, else drawn ones."""
        drawn = self.draw(sizes, kind, seed)
        return {n: given[n].astype(self.dtypes[n]) if n in given else x for n, x in drawn.items()}

    def fitting(self, given: Mapping[str, Array]) -> dict[str, int]:
        """The numbers that given values lend to the names of their dimensions."""
        pairs = [pair for n, x in given.items() for pair in zip(self.declared.get(n, ()), x.shape, strict=False)]
        return {**self.loaded, **{dim: size for dim, size in pairs if isinstance(dim, str)}}


def inputs(model: Model, loaded: Loaded, within: Within | None = None) -> Inputs:
    """What a loaded model takes; a dimension without a name is called after its input and axis, as `Model` does."""
    declared: dict[str, tuple[int | str, ...]] = {}
    dtypes: dict[str, str] = {}
    sizes = dict(model.symbols)
    for name, dims, kind in loaded.inputs:
        declared[name] = tuple(_named(name, axis, dim) for axis, dim in enumerate(dims))
        inner = kind.removeprefix("tensor(").removesuffix(")")
        dtypes[name] = _TYPES.get(inner, model.dtypes.get(name, inner))
        shape = model.shapes.get(name, (1,) * len(dims))
        known = {dim: size for dim, size in zip(declared[name], shape, strict=False) if isinstance(dim, str)}
        sizes = {**known, **sizes}
    return Inputs(model, declared, dtypes, sizes, within or {})


def choices(given: Inputs) -> tuple[tuple[Sizes, ...], ...]:
    """Choices of numbers for each trial, the best first; the first trial is the smallest.

    Names that had one number when the model was read keep one. Batches of 1, 2 and 5; other sizes change as well, in
    steps that windows and strides may refuse: then a later choice changes less.
    """
    loaded = given.loaded
    first: list[Sizes] = [_with(given, 1, None), loaded]
    if not any(isinstance(dim, str) for dims in given.declared.values() for dim in dims):
        return ((loaded,),) * 3
    rest: list[tuple[Sizes, ...]] = []
    for batch, steps in ((2, (0, 1, 2)), (5, (3, 1, 2))):
        found: list[Sizes] = [_with(given, batch, step) for step in steps]
        found += [_with(given, batch, None), *(_with(given, None, step) for step in steps), loaded]
        rest.append(tuple(found))
    return (tuple(first), *rest)


def draws(spread: int, found: int | None) -> Iterator[tuple[int, float]]:
    """Kinds and widths of values to try: normal, uniform, wide in turn, then as for the first trial, then any."""
    half = DRAWS // 2
    if found is None:
        yield from ((kind, 1.0) for kind in range(DRAWS))
        return
    if spread == 1:
        yield found % half + half, 1.0
    elif spread == 2:
        yield found % half, WIDE
    yield found, 1.0


def _with(given: Inputs, batch: int | None, step: int | None) -> dict[str, int]:
    """The loaded numbers, with another one for the batch and a step away from the others."""
    first = given.batch
    made: dict[str, int] = {}
    for name, number in given.loaded.items():
        other = batch if number in first else None if step is None else _stepped(number, step)
        made[name] = number if other is None else other
    return made


def _stepped(number: int, step: int) -> int:
    if number >= 64:
        # Images: strides and windows accept multiples of 32.
        return (number + 32, number // 2, number * 2, max(number - 32, 32))[step]
    return (number + 6, number * 2, max(number // 2, 1), max(number - 4, 1))[step]


def _named(name: str, axis: int, dim: Dim) -> int | str:
    if isinstance(dim, int) and dim > 0:
        return dim
    return dim if isinstance(dim, str) and dim else f"{name}[{axis}]"


def _size(dim: int | str, sizes: Sizes, loaded: Sizes) -> int:
    """The number of a dimension; one such as ``past + 1`` follows from those in it."""
    if isinstance(dim, int):
        return dim
    try:
        tree = ast.parse(dim, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return sizes.get(dim, loaded.get(dim, 1))
    if isinstance(tree, ast.BinOp):
        try:
            return max(1, _value(tree, sizes))
        except (KeyError, ZeroDivisionError, OverflowError):
            pass
    return sizes.get(dim, loaded.get(dim, 1))


def _value(tree: ast.expr, sizes: Sizes) -> int:
    if isinstance(tree, ast.Constant) and isinstance(tree.value, int):
        return tree.value
    if isinstance(tree, ast.Name):
        return sizes[tree.id]
    if isinstance(tree, ast.BinOp):
        left, right = _value(tree.left, sizes), _value(tree.right, sizes)
        if isinstance(tree.op, (ast.Div, ast.FloorDiv)):
            return left // right
        signs = {ast.Add: left + right, ast.Sub: left - right, ast.Mult: left * right}
        if type(tree.op) in signs:
            return signs[type(tree.op)]
    raise KeyError(ast.dump(tree))


def collect(
    runner: Runner,
    model: Model,
    plain: Loaded,
    optimised: Loaded,
    seed: int,
    given: Mapping[str, Array],
    within: Within | None = None,
) -> tuple[list[Trial], str]:
    """The trials on which a model runs, loaded as it is written and optimised; why there are none, or none as given.

    Inputs of which the outputs are finite are preferred.
    """
    collection = _Collection(runner, plain, optimised, loop := rollout(model))
    taken = inputs(model, plain, within)
    options = choices(taken)
    for spread in range(len(options)):
        if loop is not None:
            collection.attempt(_begun(taken, spread, collection.kind, seed))
            continue
        sizes = options[0] if spread == 2 and collection.slow else options[spread]
        kinds = tuple(draws(spread, collection.kind))
        collection.attempt((k, taken.draw(chosen, k, seed + spread, width)) for chosen in sizes for k, width in kinds)
    failure = "" if collection.trials else collection.failure
    if unknown := sorted(set(given) - set(taken.declared)):
        failure = f"it has no input {unknown[0]!r}"
    elif given:
        fitting, count = taken.fitting(given), len(collection.trials)
        filled = ((k, taken.filled(given, fitting, k, seed)) for k, _ in draws(0, collection.kind))
        collection.attempt((k, first) for k, values in filled for first in starts(model, values))
        failure = "" if len(collection.trials) > count else f"the given inputs: {collection.failure}"
    return collection.trials, failure


def _begun(taken: Inputs, spread: int, found: int | None, seed: int) -> Iterator[tuple[int, Mapping[str, Array]]]:
    """First steps of a network with states, of several numbers of sequences at once where it takes any."""
    model = taken.model
    for kind, width in draws(spread, found):
        for first in starts(model, taken.draw(taken.loaded, kind, seed + spread, width)):
            count = BATCHES[spread] if spread < len(BATCHES) else None
            other = None if count is None else batched(model, first, count)
            if other is not None:
                yield kind, other
            yield kind, first


class _Collection:
    def __init__(self, runner: Runner, plain: Loaded, optimised: Loaded, loop: Rollout | None) -> None:
        self.runner, self.plain, self.optimised, self.loop = runner, plain, optimised, loop
        self.trials: list[Trial] = []
        self.kind: int | None = None
        self.failure = "there are no inputs on which it runs"

    @property
    def slow(self) -> bool:
        """Whether the trials so far took so long that a larger one would take too long."""
        return any(trial.seconds > SLOW for trial in self.trials)

    def attempt(self, options: Iterator[tuple[int, Mapping[str, Array]]]) -> None:
        """Add the first of these inputs of which the outputs are finite, else the first on which the model runs."""
        spare: tuple[int, Mapping[str, Array], Run, float] | None = None
        for kind, values in options:
            begun = perf_counter()
            answer = self.runner.run(self.plain, values, self.loop)
            seconds = perf_counter() - begun
            if answer.failure is not None:
                self.failure = answer.failure
                continue
            finite = all(np.isfinite(y).all() for y in answer.outputs if y.dtype.kind in "fc")
            if finite or spare is None:
                spare = (kind, values, answer, seconds)
            if finite:
                break
        if spare is None:
            return
        self.kind = spare[0] if self.kind is None else self.kind
        failure = self.optimised.failure
        after = self.runner.run(self.optimised, spare[1], self.loop) if failure is None else Run(failure=failure)
        self.trials.append(Trial(spare[1], spare[2], after, spare[3], self.loop))


SQUASHING = frozenset({"Sigmoid", "HardSigmoid", "Tanh", "Relu", "Clip", "Round", "Floor", "Ceil", "Sign", "NonZero"})
"""Operators that hide what they read where it is large, small or between two integers."""
CHOOSING = frozenset({"Softmax", "LogSoftmax", "Hardmax", "ArgMax", "ArgMin", "TopK"})
"""Operators that do not see a shift along their axis, and hide all but the largest."""
COMPARING = frozenset({"Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal", "NonMaxSuppression"})
"""Operators whose first two inputs are numbers, and their output none."""
CARRYING = frozenset(
    {"Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Split", "Gather"}
)
"""Operators that hand on what they read first."""


def expose(model: ir.Model, inner: Collection[str] = ()) -> bool:
    """Let a model end before the last operators of its outputs, in place; False where it has no such operators.

    ``inner`` are outputs that come back as states, which stay as they are.
    """
    graph, kept, made = model.graph, [], []
    for output in list(graph.outputs):
        if output.name in inner:
            kept.append(output)
            continue
        ends = list(dict.fromkeys(_ends(output)))
        if ends and all(end != (output, None) for end in ends):
            made += ends
        else:
            kept.append(output)
    if not made:
        return False
    old = model.opset_imports.get("", 13) < 13
    added = [_watched(graph, k, value, choice, old=old) for k, (value, choice) in enumerate(dict.fromkeys(made))]
    graph.outputs.clear()
    graph.outputs.extend([*kept, *added])
    return True


def _ends(output: ir.Value) -> Iterator[tuple[ir.Value, ir.Node | None]]:
    """What an output shows, and the operator that chooses among it; the output itself where nothing hides it."""
    todo: list[tuple[ir.Value, ir.Value]] = [(output, output)]
    seen: set[ir.Value] = set()
    while todo:
        value, end = todo.pop()
        node = value.producer()
        if value in seen:
            continue
        seen.add(value)
        op = node.op_type if node is not None and node.domain in ("", "ai.onnx") else ""
        inputs = [x for x in node.inputs if x is not None] if node is not None else []
        if op in CHOOSING:
            yield inputs[0], node
        elif op in SQUASHING:
            todo.append((inputs[0], inputs[0]))
        elif op in COMPARING:
            todo.extend((x, x) for x in inputs[:2] if x.producer() is not None)
        elif op in CARRYING:
            todo.append((inputs[0], end))
        elif op == "Concat":
            todo.extend((x, x) for x in inputs if x.producer() is not None)
        else:
            yield end, None


def _watched(graph: ir.Graph, k: int, value: ir.Value, choice: ir.Node | None, *, old: bool) -> ir.Value:
    """A new output with these numbers, less a shift that the choice among them does not see."""
    axis = choice.attributes.get("axis") if choice is not None else None
    shifted = choice is not None and not (old and choice.op_type in ("ArgMax", "ArgMin", "TopK"))
    default = 0 if choice is not None and choice.op_type in ("ArgMax", "ArgMin") else 1 if old else -1
    attributes = [ir.AttrInt64("axis", axis.as_int() if axis is not None else default)] if shifted else []
    node = ir.Node("", "LogSoftmax" if shifted else "Identity", [value], attributes, num_outputs=1)
    node.outputs[0].name = f"symlint.before.{k}"
    graph.append(node)
    return node.outputs[0]


Outcome = Literal["held", "refuted", "not runnable"]
MULTIPLE = 10.0
FLOOR = {"float16": 1e-2, "bfloat16": 5e-2, "float32": 1e-5}
CAP = 1e-2
SMALL = (200_000, 300)
"""Weights and nodes of networks that are also compared in float64."""
PATIENCE = 20.0
"""Seconds that one network may take in float64."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What became of the comparison. Differences are relative to the largest value of each output.

    ``held``: no output differs by more than rounding explains. ``refuted``: one does, or the interface differs, or only
    the original runs. ``not runnable``: there are no inputs on which the original runs, or its own outputs are no more
    certain than what it differs by.
    """

    outcome: Outcome
    difference: float | None = None
    """The largest of all outputs and trials; of integers the share that differs. Infinite where shapes differ."""
    noise: float | None = None
    """How far the original itself moves, by rounding alone."""
    trials: int = 0
    """Inputs, of different sizes and spreads, on which the original ran."""
    reason: str = ""
    double: float | None = None
    """The difference in float64, of small networks that onnx's reference evaluator runs."""


@dataclass(frozen=True, slots=True)
class _Drawn:
    """How inputs are drawn."""

    seed: int
    given: Mapping[str, Array]
    within: Within


def prove(
    original: Model,
    fixed: Path,
    *,
    seed: int = 0,
    given: Mapping[str, Array] | None = None,
    within: Within | None = None,
) -> Proof:
    """Compare the file of a model with a repaired one.

    Of a model with states whole sequences are compared, from their start; of the states themselves nothing is asked.

    ``given``: input name -> array, tried besides random values; inputs that it lacks are drawn with fitting sizes.
    ``within``: input name -> what its random values lie between.
    Half precision that onnxruntime does not run is tried in float32. Never raises for what a file makes of a run.
    """
    path, drawn = Path(original.path), _Drawn(seed, given or {}, within or {})
    with TemporaryDirectory(prefix="symlint-") as folder, Runner() as runner:
        proof, answered = _proof(runner, original, path, fixed, drawn)
        if proof.trials == 0 and {"float16", "bfloat16"} & set(original.dtypes.values()):
            lifted = [Path(folder) / "original.onnx", Path(folder) / "fixed.onnx"]
            for source, target in zip((path, fixed), lifted, strict=True):
                save_lifted(rewrite(source, {}), target)
            path, fixed = lifted
            proof, answered = _proof(runner, original, path, fixed, drawn)
        if proof.trials and (proof.outcome == "not runnable" or not answered) and proof.outcome != "refuted":
            before = _exposed((path, fixed), Path(folder))
            if before is not None:
                other, _ = _proof(runner, original, before[0], before[1], drawn)
                # What differs there need not matter behind it.
                return other if other.outcome == "held" else replace(other, outcome="not runnable")
        return proof


def _exposed(files: Sequence[Path], folder: Path) -> list[Path] | None:
    """Copies that end before the last operators of their outputs; None where one has no such operators."""
    made = [rewrite(file, {}) for file in files]
    if not all(expose(model) for model in made):
        return None
    targets = [folder / f"before{k}.onnx" for k in range(len(files))]
    for model, target in zip(made, targets, strict=True):
        save_lifted(model, target)
    return targets


def _proof(runner: Runner, model: Model, path: Path, fixed: Path, drawn: _Drawn) -> tuple[Proof, bool]:
    """The comparison of two files, and whether the outputs are more than one number for all inputs."""
    plain = runner.load(path)
    if plain.failure is not None:
        return Proof("not runnable", reason=plain.failure), True
    optimised = runner.load(path, "all")
    trials, failure = collect(runner, model, plain, optimised, drawn.seed, drawn.given, drawn.within)
    for done in (plain, optimised):
        runner.drop(done)
    if not trials:
        return Proof("not runnable", reason=failure), True
    floats = [y for t in trials for y in t.plain.outputs if y.dtype.kind == "f" and y.size]
    if floats and not any(np.isfinite(y).any() for y in floats):
        return Proof("not runnable", trials=len(trials), reason="none of its outputs is finite"), True
    apart, refusal = _compare(runner, plain, fixed, trials)
    if refusal:
        return Proof("refuted", trials=len(trials), reason=refusal), True
    floor = max(FLOOR.get(dtype, 0.0) for dtype in {"float32", *model.dtypes.values()})
    rough = noise(runner, model, path, trials, drawn.seed)
    if any(_beyond(d, n, floor) for d, n in zip(apart, rough, strict=True)):
        rough = tuple(map(max, rough, more_noise(runner, model, path, trials, drawn.seed)))
    inner = trials[0].loop.inner if trials[0].loop is not None else frozenset[str]()
    outcome, reason = _judge([name for name, _ in plain.outputs if name not in inner], apart, rough, floor)
    first = trials[0]
    double = None if first.loop else apart_in_double(runner, model, path, fixed, first.feeds, first.plain.outputs)
    answered = not floats or any(np.ptp(y) > 0 for y in floats)
    proof = Proof(outcome, max(apart, default=0.0), max(rough, default=0.0), len(trials), reason or failure, double)
    return proof, answered


def _compare(runner: Runner, plain: Loaded, fixed: Path, trials: Sequence[Trial]) -> tuple[tuple[float, ...], str]:
    """The largest difference of each output at the least and the most optimisation; or why the new file is none."""
    found: list[tuple[float, ...]] = []
    for level in ("none", "all"):
        tried = [(t, t.plain if level == "none" else t.optimised) for t in trials]
        tried = [(trial, before) for trial, before in tried if before.failure is None]
        if not tried:
            continue
        other = runner.load(fixed, level)
        if refusal := other.failure or _interface(plain, other):
            return (), f"the new file: {refusal}"
        for trial, before in tried:
            after: Run = runner.run(other, trial.feeds, trial.loop)
            if after.failure is not None:
                return (), f"the new file: {after.failure}"
            found.append(trial.apart(after, before))
        runner.drop(other)
    return tuple(max(column) for column in zip(*found, strict=True)), ""


def _interface(plain: Loaded, other: Loaded) -> str:
    if [(name, kind) for name, _, kind in plain.inputs] != [(name, kind) for name, _, kind in other.inputs]:
        return "its inputs have other names or types"
    return "" if plain.outputs == other.outputs else "its outputs have other names or types"


def _beyond(difference: float, rough: float, floor: float) -> bool:
    return difference > max(floor, min(MULTIPLE * rough, CAP))


def _judge(names: Sequence[str], apart: Sequence[float], rough: Sequence[float], floor: float) -> tuple[Outcome, str]:
    beyond = [k for k, (d, n) in enumerate(zip(apart, rough, strict=True)) if _beyond(d, n, floor)]
    if not beyond:
        return "held", ""
    worst = max(beyond, key=lambda k: apart[k] / max(rough[k], floor) if isfinite(rough[k]) else 0.0)
    what = f"output {names[worst % len(names)]!r}" if names and len(apart) % len(names) == 0 else "an output"
    if apart[worst] <= MULTIPLE * rough[worst]:
        return "not runnable", drowned(what, rough[worst])
    if not isfinite(apart[worst]):
        return "refuted", f"{what} has another shape, type or infinite values at other places"
    return "refuted", f"{what} differs by {apart[worst]:.1e}, rounding explains {rough[worst]:.1e}"


def apart_in_double(
    runner: Runner, model: Model, path: Path, other: Path, feeds: Mapping[str, Array], outputs: Sequence[Array]
) -> float | None:
    """How far two files are apart in float64, of which the first, as it is written, makes `outputs`.

    None where the network is large, or the evaluator does not reproduce it or run it.
    """
    weights = sum(tensor.size for tensor in model.tensors.values() if tensor.floating)
    if weights > SMALL[0] or len(model.graph.nodes) > SMALL[1]:
        return None
    runner.limit = PATIENCE
    before = runner.double(path, feeds)
    after = runner.double(other, feeds) if before.failure is None else before
    if after.failure is not None:
        return None
    single = tuple(y.astype("float64") if y.dtype.kind == "f" else y for y in outputs)
    if not max(differences(single, before.outputs), default=0.0) <= CAP:
        return None
    return max(differences(before.outputs, after.outputs), default=0.0)
