"""How far two runs of networks are apart, and how far rounding alone moves the outputs of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from symlint.model.graph import Array, Model
from symlint.model.records import dataclass
from symlint.runtime.probe import STRUCTURAL
from symlint.runtime.rollout import Rollout
from symlint.runtime.runner import Loaded, Run, Runner


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
