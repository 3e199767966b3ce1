"""The trials of a proof: inputs on which the original runs, and what it makes of them."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import field, replace
from itertools import islice
from time import perf_counter

import numpy as np

from symlint.model.graph import Array, Model, Shape
from symlint.model.records import dataclass
from symlint.runtime.noise import SLOW, Trial
from symlint.runtime.probe import feeds
from symlint.runtime.rollout import BATCHES, Rollout, batched, rollout, starts
from symlint.runtime.runner import Dim, Loaded, Run, Runner

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
