"""Verify: try every claimed generator in onnxruntime, all at once, and bisect where the outputs differ.

A generator is *refuted* when the outputs move by more than 1e-3 of the largest output and by more than 50 times what
one unit in the last place of every weight changes. The trial has power only if a wrong element of the same size moves
them 100 times more than the right one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np

from symlint.digest import BLOCK
from symlint.edit import Lazy, rewrite
from symlint.graph import Array, Model, Tensor
from symlint.probe import feeds, save_lifted
from symlint.runtime import Run, run
from symlint.structure import Structure
from symlint.teleport import HALVES, teleport

Outcome = Literal["held", "refuted", "not runnable"]
TOLERANCE = 1e-3
NOISE = 50.0
DRAWS, UNITS = 8, 16


@dataclass(frozen=True, slots=True)
class Trial:
    """What became of one generator; ``difference`` is relative to the largest output."""

    id: str
    kind: str
    difference: float | None
    outcome: Outcome
    reason: str = ""

    @property
    def finite(self) -> bool:
        """Whether the models ran and gave numbers."""
        return self.difference is not None and np.isfinite(self.difference)


def same_function(one: Model, other: Model, seed: int = 0) -> Trial:
    """Compare two models on the same random inputs, drawn for the first."""
    failure = "no inputs"
    with TemporaryDirectory(prefix="symlint-") as folder:
        paths = [Path(folder) / "a.onnx", Path(folder) / "b.onnx"]
        for model, path in zip((one, other), paths, strict=True):
            _runnable(model, path, {})
        for inputs in feeds(one, seed):
            first, second = run(paths, inputs)
            if first.failure is None and second.failure is None:
                difference = compare(first.outputs, second)
                return Trial("function", "function", difference, "held" if difference <= TOLERANCE else "refuted")
            failure = first.failure or second.failure or failure
    return Trial("function", "function", None, "not runnable", failure)


class Rounded(Lazy):
    """Weights moved up or down by so many units in the last place of float32, each made when it is asked for."""

    def __init__(self, tensors: Mapping[str, Tensor], seed: Sequence[int], units: int) -> None:
        self.tensors, self.seed, self.units = tensors, seed, units

    def __getitem__(self, name: str) -> Array:
        values = self.tensors[name].read()
        rng = np.random.default_rng([*self.seed, *name.encode()])
        grown = np.empty(values.shape, np.float32)
        parts, made = values.reshape(-1), grown.reshape(-1)
        for start in range(0, values.size, BLOCK):
            part = parts[start : start + BLOCK]
            signs = rng.integers(0, 2, part.shape, dtype=np.int8) * 2.0 - 1
            made[start : start + BLOCK] = part * (1 + signs * (self.units * 2.0**-23))
        return grown

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def dtype(self, name: str) -> np.dtype[Any]:
        """Float32 all of them."""
        return np.dtype(np.float32)


def _runnable(model: Model, path: Path, values: Mapping[str, Array]) -> None:
    """Write a copy of a model that onnxruntime runs."""
    save_lifted(rewrite(model.path, values), path)


def verify(structure: Structure, generators: Sequence[str], seed: int = 0) -> list[Trial]:
    """Try generators of a model; the files that are run live in a temporary folder."""
    with TemporaryDirectory(prefix="symlint-") as folder:
        return _Verification(structure, Path(folder), seed).trials(list(generators))


class _Verification:
    def __init__(self, structure: Structure, folder: Path, seed: int) -> None:
        self.structure, self.folder, self.seed = structure, folder, seed
        self.model = structure.program.model
        self.count = 0
        self.inputs: dict[str, Array] = {}
        self.outputs: tuple[Array, ...] = ()

    def trials(self, generators: list[str]) -> list[Trial]:
        if not generators:
            return []
        failure = self._begin()
        if failure is not None:
            return [self._trial(g, None, "not runnable", failure) for g in generators]
        found = self._search(generators, max(TOLERANCE, NOISE * self._noise(1, 1)))
        if any(t.outcome == "refuted" for t in found):
            # Where the network rounds to integers, one small draw may miss the values that lie at an edge. Elsewhere
            # as many more units of noise stay below the tolerance.
            found = self._search(generators, max(TOLERANCE, NOISE * self._noise(DRAWS, UNITS)))
        if all(t.outcome == "held" for t in found):
            wrong = self._difference(teleport(self.structure, generators, self.seed, wrong=True, lifted=True))
            largest = max(t.difference or 0.0 for t in found)
            if wrong < 100 * min(largest, TOLERANCE / 100):
                reason = f"a wrong element of this size changes the outputs by {wrong:.1e} only"
                return [self._trial(g, None, "not runnable", reason) for g in generators]
        return found

    def _begin(self) -> str | None:
        """Find inputs on which the model runs; the reason when there are none."""
        path = self._original()
        failure = "no inputs"
        for inputs in feeds(self.model, self.seed):
            answer = run([path], inputs)[0]
            if answer.failure is None and all(np.isfinite(y).all() for y in answer.outputs if y.dtype.kind == "f"):
                self.inputs, self.outputs = inputs, answer.outputs
                self._clear()
                return None
            failure = answer.failure or "its outputs are not finite"
            if not inputs:
                break
        return failure

    def _original(self) -> Path:
        """The model as it is run. Large ones are not copied for that, unless they hold numbers that are not run."""
        outside = self.model.weights is not None and self.model.weights.files
        halves = any(tensor.dtype in HALVES for tensor in self.model.tensors.values())
        return Path(self.model.path) if outside and not halves else self._file({})

    def _clear(self) -> None:
        """Remove what has been run."""
        for file in self.folder.iterdir():
            file.unlink()

    def _file(self, values: Mapping[str, Array]) -> Path:
        self.count += 1
        path = self.folder / f"m{self.count}.onnx"
        _runnable(self.model, path, values)
        # It is read again where it is asked for; onnxruntime needs the room.
        if self.model.weights is not None:
            self.model.weights.forget()
        return path

    def _noise(self, draws: int, units: int) -> float:
        """How far the outputs move when every weight moves by some units of its rounding, at most in so many draws."""
        return max(self._difference(self._rounded(draw, units)) for draw in range(draws))

    def _rounded(self, draw: int, units: int) -> Rounded:
        """Every floating weight moved by about so many units in the last place of float32."""
        stored = dict.fromkeys(self.structure.program.weights.values())
        tensors = {name: self.model.tensors[name] for name in stored}
        return Rounded({n: t for n, t in tensors.items() if t.dtype == "float32"}, [self.seed, draw], units)

    def _difference(self, values: Mapping[str, Array]) -> float:
        """How far other weights move the outputs, relative to the largest; infinite when they do not run."""
        path = self._file(values)
        if isinstance(values, Lazy):
            values.forget()
        answer = run([path], self.inputs)[0]
        self._clear()
        return compare(self.outputs, answer)

    def _search(self, generators: list[str], tolerance: float) -> list[Trial]:
        """All at once; halves where that differs."""
        difference = self._difference(teleport(self.structure, generators, self.seed, lifted=True))
        if difference <= tolerance:
            return [self._trial(g, difference, "held") for g in generators]
        if len(generators) == 1:
            return [self._trial(generators[0], difference, "refuted")]
        middle = len(generators) // 2
        parts = [*self._search(generators[:middle], tolerance), *self._search(generators[middle:], tolerance)]
        if all(t.outcome == "held" for t in parts):
            reason = "held alone, not together with others"
            return [self._trial(g, difference, "refuted", reason) for g in generators]
        return parts

    def _trial(self, generator: str, difference: float | None, outcome: Outcome, reason: str = "") -> Trial:
        return Trial(generator, self.structure.action(generator).kind, difference, outcome, reason)


def compare(before: Sequence[Array], after: Run) -> float:
    """The largest difference of outputs, each relative to the largest value of its output."""
    if after.failure is not None or len(after.outputs) != len(before):
        return float("inf")
    worst = 0.0
    for x, y in zip(before, after.outputs, strict=True):
        if x.shape != y.shape:
            return float("inf")
        if x.dtype.kind not in "fiub" or not x.size:
            continue
        a, b = x.astype(np.float64), y.astype(np.float64)
        gap = np.abs(a - b).max()
        worst = max(worst, float(gap / max(np.abs(a).max(), 1e-30)) if gap else 0.0)
        if not np.isfinite(b).all():
            return float("inf")
    return worst
