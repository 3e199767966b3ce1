"""Verify: try every claimed generator in onnxruntime, all at once, and bisect where the outputs differ.

A generator is *refuted* when the outputs move by more than 1e-3 of the largest output and by more than 50 times what
one unit in the last place of every weight, or of every input, changes. The trial has power only if a wrong element of
the same size moves them 100 times more than the right one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from symlint.model.graph import BLOCK, Array, Model, Tensor
from symlint.model.records import dataclass
from symlint.model.saving import Lazy, rewrite
from symlint.program.numbers import Unvalued
from symlint.runtime.probe import MUTE, STRUCTURAL, Asking, Question, difference, differences, drowned, save_lifted
from symlint.runtime.proof import apart_in_double, expose
from symlint.runtime.runner import LEAST, Run, Runner, rollout, run_each
from symlint.symmetry.motion.teleport import HALVES, Journey, journey, stuck, teleport
from symlint.symmetry.structure import Structure

ELSEWHERE = "its states end elsewhere than it says"


@dataclass(frozen=True)
class Straying:
    """The states of a network over a few steps, before and after moves."""

    structure: Structure
    seed: int
    run: Callable[[Mapping[str, Array]], Run]
    """All outputs of some steps, those of states among them, with other values of some weights."""

    def found(self, held: Sequence[str], tolerance: float) -> dict[str, float]:
        """Generators, of those that hold outside, that move states elsewhere than they say, and how far off."""
        telling = [name for name in held if self.structure.action(name).carries] if self.names else []
        if not telling or self.before.failure is not None or self._apart(telling) <= tolerance:
            return {}
        alone = {name: self._apart([name]) for name in telling}
        return {name: apart for name, apart in alone.items() if apart > tolerance}

    @cached_property
    def names(self) -> dict[str, str]:
        """Output of the model -> the tensor of the program that it is, of closed loops."""
        program = self.structure.program
        outputs = {state.input: state.output for state in program.model.states}
        return {outputs[loop.input]: loop.output for loop in program.loops if loop.input in outputs}

    @cached_property
    def before(self) -> Run:
        """What the network as it is hands out."""
        return self.run({})

    def _apart(self, generators: Sequence[str]) -> float:
        taken = journey(self.structure, generators, self.seed)
        after = self.run(taken.moved)
        if after.failure is not None or len(after.outputs) != len(self.before.outputs):
            return float("inf")
        pairs = zip(self.before.outputs, after.outputs, strict=True)
        return max(self._off(taken, k, x, y) for k, (x, y) in enumerate(pairs))

    def _off(self, taken: Journey, k: int, before: Array, after: Array) -> float:
        """How far one output is off; what others read is compared elsewhere."""
        outputs = self.structure.program.model.graph.outputs
        name = self.names.get(outputs[k % len(outputs)])
        return 0.0 if name is None else difference(taken.carried(name, before).astype(after.dtype), after)


Outcome = Literal["held", "refuted", "not runnable"]
TOLERANCE = 1e-3
NOISE = 50.0
DRAWS, UNITS = 8, 16
CAP = 1e-2
"""Differences above this are not excused by rounding, however large that is."""
SHARE = 0.1
"""Of what the inputs change of the outputs, a difference is at most this much."""
FINE = 1e-8
"""Differences below this are taken for it: nothing is seen more sharply than a number of float32."""
COARSE = 2**20
"""Units in the last place that are an eighth: other weights, which a comparison must tell apart."""
EXACT = "exact"
"""The level of optimisation that replaces sums of bytes which saturate on some processors."""
TRIES = 4
"""Kinds of inputs that are tried in search of one to which all outputs answer, once some do."""
ROOM = 2**25
"""Bytes of weights up to which generators are tried one by one with wrong elements."""


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


def same_function(one: Model, other: Model, seed: int = 0, given: Mapping[str, Array] | None = None) -> Trial:
    """Compare two models on the same inputs: random ones, drawn for the first, or those given.

    ``held`` only where another network would have differed: the outputs answer to the inputs, and to other weights.
    """
    with TemporaryDirectory(prefix="symlint-") as folder:
        return _Comparison(one, other, Path(folder)).trial(seed, given)


class _Comparison:
    def __init__(self, one: Model, other: Model, folder: Path) -> None:
        self.one, self.other, self.folder = one, other, folder
        self.rollout = rollout(one)

    def trial(self, seed: int, given: Mapping[str, Array] | None) -> Trial:
        asking = Asking(self.one, lambda exposed: self._written(self.one, exposed), seed, given)
        reasons: list[str] = []
        for question in asking.questions():
            found = self._compared(question, seed)
            if found.outcome != "not runnable":
                return found
            reasons.append(found.reason)
        telling = [reason for reason in reasons if reason != MUTE]
        reason = next(iter([*telling, *reasons]), asking.failure)
        return Trial("function", "function", None, "not runnable", reason)

    def _written(self, model: Model, exposed: bool, values: Mapping[str, Array] = MappingProxyType({})) -> Path | None:
        path = self.folder / f"{'one' if model is self.one else 'other'}{len(values)}{exposed:d}.onnx"
        return path if _runnable(model, path, values, exposed=exposed) else None

    def _compared(self, question: Question, seed: int) -> Trial:
        path = self._written(self.other, question.exposed)
        answer = (
            run_each([path], question.feeds, self.rollout)[0]
            if path is not None
            else Run(failure="it ends in another way")
        )
        if answer.failure is not None:
            return Trial("function", "function", None, "not runnable", f"the other model: {answer.failure}")
        difference = compare(question.outputs, answer)
        if difference > TOLERANCE:
            noise = max(self._moved(question, seed, 1), question.rounding)
            if question.exposed:
                reason = f"{MUTE}, and they differ before their last operators"
            elif difference > NOISE * noise and question.unusual:
                reason = f"{MUTE}, and to others they answer differently: give such as it was made for"
            elif difference > NOISE * noise:
                return Trial("function", "function", difference, "refuted")
            else:
                reason = drowned("every output", noise)
        elif question.mute:
            reason = MUTE if question.mute == question.count else f"{question.mute} of {question.count} of {MUTE}"
        elif difference > SHARE * question.spread:
            reason = (
                f"its outputs change by {question.spread:.1e} only with the inputs, and they differ by {difference:.1e}"
            )
        else:
            moved = self._moved(question, seed, COARSE)
            if moved >= 100 * min(max(difference, FINE), TOLERANCE / 100):
                return Trial("function", "function", difference, "held")
            reason = f"weights moved by an eighth change the outputs by {moved:.1e} only"
        return Trial("function", "function", None, "not runnable", reason)

    def _moved(self, question: Question, seed: int, units: int) -> float:
        """How far the outputs move when every weight moves by some units of its rounding; infinite without any."""
        sizes = {name for node in self.one.graph.nodes if node.op in STRUCTURAL for name in node.inputs}
        tensors = {n: t for n, t in self.one.tensors.items() if t.floating and t.size > 1 and n not in sizes}
        path = self._written(self.one, question.exposed, Rounded(tensors, [seed, 0], units)) if tensors else None
        answers = run_each([path], question.feeds, self.rollout) if path is not None else []
        return compare(question.outputs, answers[0]) if answers else float("inf")


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
            part = parts[start : start + BLOCK].astype(np.float32, copy=False)
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


def _runnable(model: Model, path: Path, values: Mapping[str, Array], *, exposed: bool = False) -> bool:
    """Write a copy of a model that onnxruntime runs, whole or before its last operators; False where it has none."""
    made = rewrite(model.path, values)
    loop = rollout(model)
    if exposed and not expose(made, loop.inner if loop else ()):
        return False
    save_lifted(made, path)
    return True


def verify(
    structure: Structure, generators: Sequence[str], seed: int = 0, given: Mapping[str, Array] | None = None
) -> list[Trial]:
    """Try generators of a model, on random inputs or those given; the files that are run live in a temporary folder."""
    with TemporaryDirectory(prefix="symlint-") as folder:
        return _Verification(structure, Path(folder), seed, given).trials(list(generators))


class _Verification:
    def __init__(self, structure: Structure, folder: Path, seed: int, given: Mapping[str, Array] | None = None) -> None:
        self.structure, self.folder, self.seed = structure, folder, seed
        self.model = structure.program.model
        self.count = 0
        self.asking = Asking(self.model, self._original, seed, given)
        self.question: Question | None = None
        self.level = "none"
        """Of optimisation."""
        self.noise = 0.0
        """How far one unit in the last place of every weight moves the outputs."""

    def trials(self, generators: list[str]) -> list[Trial]:
        """Those that cannot be moved could not be tried; all others are tried together."""
        try:
            return self._tried(generators)
        except Unvalued as error:
            reasons = stuck(self.structure, generators, self.seed) or dict.fromkeys(generators, str(error))
        rest = {t.id: t for t in self.trials([g for g in generators if g not in reasons])}
        return [rest.get(g) or self._trial(g, None, "not runnable", reasons[g]) for g in generators]

    def _tried(self, generators: list[str]) -> list[Trial]:
        if not generators:
            return []
        failure = self._begin()
        if failure is not None:
            return [self._trial(g, None, "not runnable", failure) for g in generators]
        noise = self.noise
        found = self._search(generators, max(TOLERANCE, NOISE * noise))
        if any(t.outcome == "refuted" for t in found):
            # Where the network rounds to integers, one small draw may miss the values that lie at an edge. Elsewhere
            # as many more units of noise stay below the tolerance.
            noise = max(self._noise(DRAWS, UNITS), self.question.rounding if self.question is not None else 0.0)
            found = self._search(generators, max(TOLERANCE, NOISE * noise))
            if any(t.outcome == "refuted" for t in found) and self._exact():
                found = self._search(generators, max(TOLERANCE, NOISE * noise))
        found = [self._certain(t, noise) for t in found]
        strayed = self._strayed([t.id for t in found if t.outcome == "held"], max(TOLERANCE, NOISE * noise))
        found = [
            replace(t, outcome="refuted", difference=strayed[t.id], reason=ELSEWHERE) if t.id in strayed else t
            for t in found
        ]
        held = [t.id for t in found if t.outcome == "held"]
        if held and len(held) == len(found):
            largest = max(t.difference or 0.0 for t in found)
            wrong = self._difference(teleport(self.structure, held, self.seed, wrong=True, lifted=True))
            if wrong < self._least(largest):
                return [self._powerless(t, wrong) for t in found]
        # Where all outputs answer, a weight that none of them sees is what a generator says of it.
        blunt = dict(self._blunt(held)) if self.question is not None and self.question.mute else {}
        return [self._powerless(t, blunt[t.id]) if t.id in blunt else t for t in found]

    def _exact(self) -> bool:
        """Whether another level of optimisation runs the model, one at which sums of bytes do not saturate."""
        assert self.question is not None
        if not any(tensor.dtype == "int8" and len(tensor.shape) > 1 for tensor in self.model.tensors.values()):
            return False
        path = self._original(self.question.exposed)
        answers = run_each([path], self.question.feeds, self.asking.rollout, EXACT) if path is not None else []
        self._clear()
        if not answers or answers[0].failure is not None:
            return False
        self.level, self.question = EXACT, replace(self.question, outputs=tuple(answers[0].outputs))
        return True

    def _strayed(self, held: Sequence[str], tolerance: float) -> dict[str, float]:
        """Generators that move states elsewhere than they say, and how far off these are."""
        loop, question = self.asking.rollout, self.question
        if loop is None or question is None:
            return {}
        short = replace(loop, steps=min(loop.steps, LEAST), shown=True)

        def run(values: Mapping[str, Array]) -> Run:
            path = self._file(values, exposed=False)
            assert path is not None
            found = run_each([path], question.feeds, short)[0]
            self._clear()
            return found

        return Straying(self.structure, self.seed, run).found(held, tolerance)

    def _begin(self) -> str | None:
        """Find inputs to which the model answers; the reason when there are none."""
        best: tuple[tuple[int, bool], Question, float] | None = None
        tries = 0
        for question in self.asking.questions():
            self.question = question
            noise = self._noise(1, 1) if question.mute < question.count or not question.count else 0.0
            rank = (question.mute, NOISE * max(noise, question.rounding) > CAP)
            if best is None or rank < best[0]:
                best = rank, question, noise
            tries += question.mute < question.count
            if rank == (0, False) or (tries >= TRIES and not best[0][1]):
                break
        self._clear()
        if best is None:
            return self.asking.failure
        _, self.question, self.noise = best
        return MUTE if best[1].count and best[1].mute == best[1].count else None

    def _original(self, exposed: bool) -> Path | None:
        """The model as it is run. Large ones are not copied for that, unless they hold numbers that are not run."""
        outside = self.model.weights is not None and self.model.weights.files
        halves = any(tensor.dtype in HALVES for tensor in self.model.tensors.values())
        return Path(self.model.path) if outside and not halves and not exposed else self._file({}, exposed=exposed)

    def _clear(self) -> None:
        """Remove what has been run."""
        for file in self.folder.iterdir():
            file.unlink()

    def _file(self, values: Mapping[str, Array], *, exposed: bool) -> Path | None:
        self.count += 1
        path = self.folder / f"m{self.count}.onnx"
        written = _runnable(self.model, path, values, exposed=exposed)
        # It is read again where it is asked for; onnxruntime needs the room.
        if self.model.weights is not None:
            self.model.weights.forget()
        return path if written else None

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
        return self._differences([values])[0]

    def _differences(self, several: Sequence[Mapping[str, Array]]) -> list[float]:
        """The same of several networks, which are run by one child."""
        assert self.question is not None
        paths = []
        for values in several:
            paths.append(self._file(values, exposed=self.question.exposed))
            if isinstance(values, Lazy):
                values.forget()
        answers = run_each([p for p in paths if p is not None], self.question.feeds, self.asking.rollout, self.level)
        self._clear()
        return [compare(self.question.outputs, answer) for answer in answers]

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

    def _certain(self, trial: Trial, noise: float) -> Trial:
        """A trial, unless rounding alone explains too much, or the difference is seen where it need not matter."""
        assert self.question is not None
        if trial.outcome == "refuted" and self.question.exposed:
            return replace(
                trial, difference=None, outcome="not runnable", reason=f"{MUTE}, before their last operators"
            )
        if trial.outcome == "held" and (trial.difference or 0.0) > CAP:
            reason = drowned("every output", noise)
            return replace(trial, difference=None, outcome="not runnable", reason=reason)
        # What answers by less than the tolerance may be the rounding of a normalisation of nearly nothing.
        faint = trial.outcome == "refuted" and self.question.spread < TOLERANCE and (trial.difference or 0.0) <= CAP
        if faint or (trial.outcome == "held" and (trial.difference or 0.0) > SHARE * self.question.spread):
            reason = f"its outputs change by {self.question.spread:.1e} only with the inputs"
            return replace(trial, difference=None, outcome="not runnable", reason=reason)
        if trial.outcome == "refuted" and not trial.reason and self._double(trial.id) <= TOLERANCE:
            reason = f"in float64 it holds, and the runtime's rounding moves the outputs by {trial.difference:.1e}"
            return replace(trial, difference=None, outcome="not runnable", reason=reason)
        return trial

    def _double(self, generator: str) -> float:
        """How far a generator moves the outputs of a small network in float64; infinite where that cannot be tried."""
        question, moved = self.question, teleport(self.structure, [generator], self.seed, lifted=True)
        assert question is not None
        one, other = self._file({}, exposed=False), self._file(moved, exposed=False)
        if one is None or other is None or self.asking.rollout is not None:
            return float("inf")
        parts = [question.outputs[k : k + question.count] for k in range(0, len(question.outputs), question.count)]
        with Runner() as runner:
            tried = zip(question.feeds, parts, strict=True)
            found = [apart_in_double(runner, self.model, one, other, *each) for each in tried]
        self._clear()
        return max(float("inf") if d is None else d for d in found)

    def _blunt(self, generators: Sequence[str]) -> Iterator[tuple[str, float]]:
        """Generators of a small model of which a wrong element alone is hardly seen, and how far the outputs move."""
        size = sum(4 * tensor.size for tensor in self.model.tensors.values())
        if len(generators) * size > ROOM or len(generators) < 2:
            return
        right = [teleport(self.structure, [g], self.seed, lifted=True) for g in generators]
        wrong = [teleport(self.structure, [g], self.seed, wrong=True, lifted=True) for g in generators]
        # One that moves a single tensor has no wrong element.
        tried = [k for k, (a, b) in enumerate(zip(right, wrong, strict=True)) if set(a) != set(b)]
        if tried:
            found = self._differences([wrong[k] for k in tried])
            yield from ((generators[k], d) for k, d in zip(tried, found, strict=True) if d < self._least(0.0))

    @staticmethod
    def _least(difference: float) -> float:
        """How far a wrong element has to move the outputs where the right one moves them so far."""
        return 100 * min(max(difference, FINE), TOLERANCE / 100)

    def _powerless(self, trial: Trial, wrong: float) -> Trial:
        reason = f"a wrong element of this size changes the outputs by {wrong:.1e} only"
        return replace(trial, difference=None, outcome="not runnable", reason=reason)

    def _trial(self, generator: str, difference: float | None, outcome: Outcome, reason: str = "") -> Trial:
        return Trial(generator, self.structure.action(generator).kind, difference, outcome, reason)


def compare(before: Sequence[Array], after: Run) -> float:
    """The largest difference of outputs, each relative to the largest value of its output; of text, the share."""
    if after.failure is not None:
        return float("inf")
    return max(differences(before, after.outputs, levels=True), default=0.0)
