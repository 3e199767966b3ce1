"""Model files run once each, on the same inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from symlint.model.graph import Array
from symlint.runtime.rollout import Rollout
from symlint.runtime.runner import Loaded, Run, Runner


def run(models: Sequence[Path], feeds: Mapping[str, Array]) -> list[Run]:
    """Run each model file on the same inputs, without graph optimisation."""
    return run_each(models, [feeds])


def run_each(
    models: Sequence[Path], feeds: Sequence[Mapping[str, Array]], loop: Rollout | None = None, level: str = "none"
) -> list[Run]:
    """Run each model file on several sets of inputs of the same names; its outputs for one stand behind the other's.

    With a loop each set is what comes in at the first step, and the outputs are those of all steps. The level of
    optimisation is one of `Runner.load`.
    """
    with Runner() as runner:
        return [_outputs(runner, runner.load(model, level), feeds, loop) for model in models]


def _outputs(runner: Runner, loaded: Loaded, feeds: Sequence[Mapping[str, Array]], loop: Rollout | None) -> Run:
    if loaded.failure is not None:
        return Run(failure=loaded.failure)
    found: list[Array] = []
    for each in feeds:
        answer = runner.run(loaded, each, loop)
        if answer.failure is not None:
            return answer
        found += answer.outputs
    runner.drop(loaded)
    return Run(tuple(found))
