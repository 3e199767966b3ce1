"""The trials of a proof: inputs on which the original runs, and what it makes of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from time import perf_counter

import numpy as np

from symlint.model.graph import Array, Model
from symlint.runtime.inputs.trials import choices, draws, inputs
from symlint.runtime.noise import SLOW, Trial
from symlint.runtime.runner import Loaded, Run, Runner


def collect(
    runner: Runner, model: Model, plain: Loaded, optimised: Loaded, seed: int, given: Mapping[str, Array]
) -> tuple[list[Trial], str]:
    """The trials on which a model runs, loaded as it is written and optimised; why there are none, or none as given.

    Inputs of which the outputs are finite are preferred.
    """
    collection = _Collection(runner, plain, optimised)
    taken = inputs(model, plain)
    options = choices(taken)
    for spread in range(len(options)):
        sizes = options[0] if spread == 2 and collection.slow else options[spread]
        kinds = tuple(draws(spread, collection.kind))
        collection.attempt((k, taken.draw(chosen, k, seed + spread, width)) for chosen in sizes for k, width in kinds)
    failure = "" if collection.trials else collection.failure
    if unknown := sorted(set(given) - set(taken.declared)):
        failure = f"it has no input {unknown[0]!r}"
    elif given:
        fitting, count = taken.fitting(given), len(collection.trials)
        collection.attempt((k, taken.filled(given, fitting, k, seed)) for k, _ in draws(0, collection.kind))
        failure = "" if len(collection.trials) > count else f"the given inputs: {collection.failure}"
    return collection.trials, failure


class _Collection:
    def __init__(self, runner: Runner, plain: Loaded, optimised: Loaded) -> None:
        self.runner, self.plain, self.optimised = runner, plain, optimised
        self.trials: list[Trial] = []
        self.kind: int | None = None
        self.failure = "there are no inputs on which it runs"

    @property
    def slow(self) -> bool:
        """Whether the trials so far took so long that a larger one would take too long."""
        return any(trial.seconds > SLOW for trial in self.trials)

    def attempt(self, options: Iterator[tuple[int, dict[str, Array]]]) -> None:
        """Add the first of these inputs of which the outputs are finite, else the first on which the model runs."""
        spare: tuple[int, dict[str, Array], Run, float] | None = None
        for kind, values in options:
            begun = perf_counter()
            answer = self.runner.run(self.plain, values)
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
        after = self.runner.run(self.optimised, spare[1]) if failure is None else Run(failure=failure)
        self.trials.append(Trial(spare[1], spare[2], after, spare[3]))
