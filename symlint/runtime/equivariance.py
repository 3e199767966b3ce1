"""How invariant or equivariant a network is: its outputs under transformations of its inputs, in onnxruntime.

A transformation of one axis of an input is tried alone and together with axes of the same size, of other inputs too,
since nodes of a graph are in several places. Of each output the change is taken as it is (*invariant*) and after the
same was done to axes of the output (*equivariant*); the better of both counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import field, replace
from itertools import combinations
from math import prod
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Literal

import numpy as np

from symlint.evidence.options import TRANSFORMATIONS, Transform
from symlint.model.errors import UsageProblem
from symlint.model.graph import Array, Model, Shape
from symlint.model.records import dataclass
from symlint.model.saving import rewrite
from symlint.runtime.groups import (
    Place,
    Places,
    Transformation,
    matching,
    permuted,
    squared,
    steps,
    together,
)
from symlint.runtime.probe import (
    FAINT,
    LOUD,
    SLOW,
    Asking,
    Feeds,
    Question,
    Trial,
    change,
    difference,
    jolted,
    noise,
    save_lifted,
)
from symlint.runtime.propagation import Proofs
from symlint.runtime.runner import Loaded, Run, Runner
from symlint.symmetry.motion.teleport import HALVES

Action = Literal["invariant", "equivariant"]
Outcome = Literal["held", "broken", "not tried"]
FLOOR, MULTIPLE, CAP = 1e-5, 10.0, 1e-2
"""A change of an output is rounding up to the first, or to this many times the noise, but never above the last."""
SHARE = 0.1
"""Of what an unrelated change of the inputs does, a change that is called rounding is at most this much."""
MORE = 4
"""Draws on which what holds is tried again."""
LARGE = 1 << 20
"""Numbers of inputs from which on there are as few examples as can change places."""
TRIES = 4
"""Kinds of inputs that are tried in search of one to which all outputs answer."""
UNMOVED = "the numbers that were drawn are the same after it"
UNANSWERED = "the output does not answer to what was drawn for this input (--input gives it other values)"


@dataclass(frozen=True, slots=True)
class Measured:
    """What became of one output under a transformation of one axis of an input.

    Errors are the largest difference as a share of the largest value of the output; of integers and text the share that
    differs.
    """

    name: Transform
    input: str
    axis: int | None
    """From 0; of a quarter turn the first of both, of a sign none."""
    output: str
    action: Action | None
    """The better one: the output stays, or the same happens to it; None where it could not be tried."""
    outcome: Outcome
    """``held`` where the error is no more than rounding explains."""
    error: float | None = None
    noise: float = 0.0
    """How far rounding alone moves the output."""
    unrelated: float | None = None
    """How far it moves when the numbers of the same inputs are drawn anew."""
    moved: Places = ()
    """All that was moved of the inputs."""
    answer: Places = ()
    """What moves of the output; nothing where it is invariant."""
    step: int = 1
    """Of a shift."""
    reason: str = ""
    proven: bool = False
    """Whether it holds for all inputs, as the structure and the weights show."""


@dataclass(frozen=True, slots=True)
class Table:
    """The rows of one model."""

    path: str
    rows: tuple[Measured, ...]
    failure: str = ""
    """Why the network could not be run; then there are no rows."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which transformations are measured; by default all, of every axis."""

    names: tuple[Transform, ...] = TRANSFORMATIONS
    input: str = ""
    axis: int | None = None
    output: str = ""
    action: Action | None = None
    """The one that counts, where it is not the better one."""

    def takes(self, name: Transform, place: Place) -> bool:
        """Whether a transformation of one place is among them."""
        if name not in self.names or self.input not in ("", place.tensor):
            return False
        return self.axis is None or self.axis in place.axes[:1]


def measure(model: Model, wanted: Wanted | None = None, *, seed: int = 0, given: Feeds | None = None) -> Table:
    """All that is wanted, or why the network could not be run.

    ``given``: input name -> array, in the place of drawn ones; inputs that it lacks are drawn with fitting sizes.

    States of closed loops are inputs like others, but nothing is told of them. Raises UsageProblem for names and axes
    that the model does not have.
    """
    wanted = wanted or Wanted()
    _checked(model, wanted)
    inner = {name for state in model.states if state.closed for name in (state.input, state.output)}
    open_ended = replace(model, states=())
    with TemporaryDirectory(prefix="symlint-") as folder, Runner() as runner:
        path = _runnable(open_ended, Path(folder))
        loaded = runner.load(path)
        texts = [name for name in model.graph.inputs if model.dtypes.get(name) == "string"]
        failure = loaded.failure or (f"input {texts[0]!r} takes text, which is not drawn" if texts else "")
        if failure:
            return Table(model.path, (), failure)
        measurement = _Measurement(runner, path, loaded, wanted, seed, given or {})
        rows = [*measurement.measured(open_ended, inner)]
    return Table(model.path, _with_proofs(open_ended, rows), measurement.failure)


def _with_proofs(model: Model, rows: Sequence[Measured]) -> tuple[Measured, ...]:
    """The rows, with what holds for all inputs."""
    proofs = Proofs(model)
    return tuple(
        replace(row, proven=proofs.holds(Transformation(row.name, step=row.step), row.moved, row.output, row.answer))
        if row.outcome == "held"
        else row
        for row in rows
    )


def _checked(model: Model, wanted: Wanted) -> None:
    inputs, outputs = model.graph.inputs, model.graph.outputs
    if wanted.input and wanted.input not in inputs:
        raise UsageProblem(f"{model.path} has no input {wanted.input!r}: it takes {', '.join(inputs)}")
    if wanted.output and wanted.output not in outputs:
        raise UsageProblem(f"{model.path} has no output {wanted.output!r}: it gives {', '.join(outputs)}")
    rank = len(model.shapes.get(wanted.input, ()))
    if wanted.input and wanted.axis is not None and not 0 <= wanted.axis < rank:
        raise UsageProblem(
            f"{wanted.input!r} has {rank} axes in {model.path}, counted from 0, and no axis {wanted.axis}"
        )


def _runnable(model: Model, folder: Path) -> Path:
    """The file that is run: half precision is lifted to float32, so that drawn numbers fit."""
    kinds = [tensor.dtype for tensor in model.tensors.values()]
    kinds += [model.dtypes.get(name, "") for name in model.graph.inputs]
    if not set(kinds) & set(HALVES):
        return Path(model.path)
    save_lifted(rewrite(model.path, {}), folder / "lifted.onnx")
    return folder / "lifted.onnx"


@dataclass(frozen=True, slots=True)
class _Base:
    """Inputs of one set of sizes, and what the network makes of them."""

    model: Model
    trials: tuple[Trial, ...]
    noise: tuple[float, ...]
    """Of each output."""
    more: list[Trial] = field(default_factory=list)
    """Inputs on which what holds is tried again."""
    unrelated: dict[tuple[str, ...], tuple[float, ...]] = field(default_factory=dict)
    """How far each output moves when some inputs are drawn anew."""
    tried: dict[tuple[Transform, int, frozenset[Place]], tuple[Measured, ...]] = field(default_factory=dict)
    """What became of each output."""

    def shape(self, name: str) -> Shape:
        """Of an input."""
        return tuple(self.trials[0].feeds[name].shape)

    def values(self, name: str) -> Array:
        """Of an input."""
        return self.trials[0].feeds[name]


@dataclass(frozen=True, slots=True)
class _Moved:
    """One element of a group, and what the network makes of inputs before and after it."""

    element: Transformation
    before: Run
    after: Run

    def error(self, k: int, answer: Places) -> float:
        """How far an output is from what it was, after some of its axes were moved."""
        expected = self.before.outputs[k]
        for place in answer:
            expected = self.element.moved(expected, place)
        return difference(expected, self.after.outputs[k])


class _Measurement:
    def __init__(self, runner: Runner, path: Path, loaded: Loaded, wanted: Wanted, seed: int, given: Feeds) -> None:
        self.runner, self.path, self.loaded = runner, path, loaded
        self.wanted, self.seed, self.given = wanted, seed, given
        self.failure = ""
        self.draws = 0

    def measured(self, model: Model, inner: Set[str]) -> Iterator[Measured]:
        """The rows, input by input, but for states."""
        base = self.base(model)
        for name in model.graph.inputs if base is not None else ():
            assert base is not None
            for kind in TRANSFORMATIONS if name not in inner else ():
                for place in self._places(base, kind, name):
                    fitting = self._square(base, place) if kind == "turn" else base
                    rows = self._rows(fitting, kind, place) if fitting is not None else ()
                    yield from (row for row in rows if row.output not in inner)

    def base(self, model: Model) -> _Base | None:
        """The inputs to which most outputs answer; None where the network does not run."""
        model = model if self.given else _light(model)
        asking = Asking(model, lambda exposed: None if exposed else self.path, self.seed, self.given)
        best: Question | None = None
        for tries, question in enumerate(asking.questions(), 1):
            if best is None or question.mute < best.mute:
                best = question
            if best.mute == 0 or tries >= TRIES:
                break
        if best is None:
            self.failure = asking.failure
            return None
        trials = [self._trial(best.feeds[0])]
        if trials[0].seconds < SLOW:
            trials += [self._trial(feeds) for feeds in best.feeds[1:2]]
        self.failure = next((t.plain.failure for t in trials if t.plain.failure is not None), "")
        if self.failure:
            return None
        rough = noise(self.runner, model, self.path, trials, self.seed)
        for trial in trials:
            for feeds in (trial.feeds, jolted(model, trial.feeds, self.seed)):
                again = self.runner.run(self.loaded, feeds)
                rough = tuple(map(max, rough, trial.apart(again))) if again.failure is None else rough
        return _Base(model, tuple(trials), rough)

    def _trial(self, feeds: Feeds) -> Trial:
        begun = perf_counter()
        plain = self.runner.run(self.loaded, feeds)
        return Trial(feeds, plain, Run(failure="not run"), perf_counter() - begun)

    def _places(self, base: _Base, kind: Transform, name: str) -> list[Place]:
        """What a kind of transformation may move of an input, of what is wanted."""
        shape = base.shape(name)
        if kind == "sign":
            places = [Place(name)] if base.values(name).dtype.kind == "f" else []
        elif kind == "turn":
            places = [Place(name, plane) for plane in combinations(range(len(shape)), 2)]
        else:
            places = [Place(name, (axis,)) for axis, size in enumerate(shape) if size > 1]
        return [place for place in places if self.wanted.takes(kind, place)]

    def _square(self, base: _Base, plane: Place) -> _Base | None:
        """Inputs of which two axes of one have one size; None where their sizes are given and differ."""
        a, b = (base.shape(plane.tensor)[axis] for axis in plane.axes)
        if a == b:
            return base if a > 1 else None
        adjacent = plane.axes[1] - plane.axes[0] == 1 and plane.axes[0] > 0
        model = squared(base.model, plane) if adjacent and not self.given else None
        if model is None:
            return None
        return _Measurement(self.runner, self.path, self.loaded, self.wanted, self.seed, {}).base(model)

    def _rows(self, base: _Base, name: Transform, place: Place) -> list[Measured]:
        """A row for each output."""
        shape = base.shape(place.tensor)
        size = shape[place.axes[0]] if place.axes else 0
        outputs = [y.shape for y in base.trials[0].plain.outputs]
        shifts = steps(size, outputs, place.axes[0], len(shape)) if name == "shift" else (1,)
        moves = [(step, places) for step in shifts for places in together(place, _along(base, name, place, size))]
        tried = [self._tried(base, name, size, step, places) for step, places in moves]
        answering = self._unrelated(base, (place.tensor,))
        rows = []
        for k, each in enumerate(zip(*tried, strict=True)):
            best = min(each, key=_worth)
            if self.wanted.output not in ("", best.output):
                continue
            if best.outcome != "not tried" and not _answers(answering[k], base.noise[k]):
                best = _untried(best, UNANSWERED)
            rows.append(replace(best, input=place.tensor, axis=place.axes[0] if place.axes else None))
        return rows

    def _tried(self, base: _Base, name: Transform, size: int, step: int, places: Places) -> tuple[Measured, ...]:
        """What becomes of each output when some places are moved."""
        key = (name, step, frozenset(places))
        if key not in base.tried:
            runs = self._runs(base.trials, name, size, step, places)
            rows = self._judged(base, name, step, places, runs)
            if any(row.outcome == "held" for row in rows):
                # A maximum, or what is rounded, stays by chance where only a part of it moves.
                runs += self._runs(self._more(base), name, size, step, places)
                rows = self._judged(base, name, step, places, runs)
            base.tried[key] = rows
        return tuple(replace(row, moved=places) for row in base.tried[key])

    def _runs(self, trials: Sequence[Trial], name: Transform, size: int, step: int, places: Places) -> list[_Moved]:
        """Of each trial what is moved, and the outputs before and after; those of which nothing moves are left out."""
        found = []
        for trial in trials:
            self.draws += 1
            rng = np.random.default_rng([self.seed, self.draws])
            element = Transformation(name, size, step, permuted(size, rng) if name == "permutation" else ())
            feeds = element.applied(trial.feeds, places)
            if any(not np.array_equal(feeds[p.tensor], trial.feeds[p.tensor]) for p in places):
                found.append(_Moved(element, trial.plain, self.runner.run(self.loaded, feeds)))
        return found

    def _more(self, base: _Base) -> list[Trial]:
        """More inputs, whose numbers are drawn anew; none beside given ones, and of a slow network."""
        if not base.more and not self.given and base.trials[0].seconds < SLOW:
            rng = np.random.default_rng([self.seed, 1])
            for k in range(MORE):
                feeds = base.trials[k % len(base.trials)].feeds
                anew = {n: _anew(x, rng) if x.dtype.kind == "f" else x for n, x in feeds.items()}
                trial = self._trial(anew)
                base.more.extend([trial] if trial.plain.failure is None else [])
        return base.more

    def _judged(
        self, base: _Base, name: Transform, step: int, places: Places, runs: Sequence[_Moved]
    ) -> tuple[Measured, ...]:
        reason = next((run.after.failure for run in runs if run.after.failure is not None), "")
        rows = []
        for k, output in enumerate(self._outputs(base)):
            row = Measured(name, "", None, output, None, "not tried", noise=base.noise[k], moved=places, step=step)
            row = replace(row, reason=reason if runs else UNMOVED)
            rows.append(row if row.reason else self._compared(base, row, k, runs))
        return tuple(rows)

    def _outputs(self, base: _Base) -> list[str]:
        """The names of what a run gives."""
        count, names = len(base.trials[0].plain.outputs), [name for name, _ in self.loaded.outputs]
        return names if len(names) == count else [f"output {k}" for k in range(count)]

    def _compared(self, base: _Base, row: Measured, k: int, runs: Sequence[_Moved]) -> Measured:
        """One output before and after, at the better action on it."""
        shape = runs[0].before.outputs[k].shape
        ranks = {name: len(base.shape(name)) for name in base.model.graph.inputs}
        answers: list[Places] = [()] if self.wanted.action != "equivariant" else []
        if self.wanted.action != "invariant":
            answers += matching(runs[0].element, row.output, shape, row.moved, ranks)
        if not answers or not np.prod(shape):
            return replace(row, reason="no axis of the output could move so" if not answers else "the output is empty")
        errors = [max(run.error(k, answer) for run in runs) for answer in answers]
        error, answer = min(zip(errors, answers, strict=True), key=itemgetter(0))
        rough, drawn = base.noise[k], self._unrelated(base, tuple(dict.fromkeys(p.tensor for p in row.moved)))[k]
        action: Action = "equivariant" if answer else "invariant"
        row = replace(row, action=action, answer=answer, error=error, unrelated=drawn)
        if not _answers(drawn, rough):
            return _untried(row, UNANSWERED)
        if error <= max(FLOOR, min(MULTIPLE * rough, CAP)) and error <= SHARE * drawn:
            return replace(row, outcome="held")
        if error <= MULTIPLE * rough:
            return _untried(row, f"rounding alone moves the output by {rough:.1e}")
        return replace(row, outcome="broken")

    def _unrelated(self, base: _Base, names: tuple[str, ...]) -> tuple[float, ...]:
        """How far each output moves when every number of some inputs is drawn anew from among them."""
        if names not in base.unrelated:
            trial, rng = base.trials[0], np.random.default_rng([self.seed, len(names)])
            after = self.runner.run(self.loaded, {**trial.feeds, **{n: _anew(trial.feeds[n], rng) for n in names}})
            pairs = zip(trial.plain.outputs, after.outputs, strict=False)
            mute = (0.0,) * len(trial.plain.outputs)
            base.unrelated[names] = mute if after.failure is not None else tuple(change(x, y) for x, y in pairs)
        return base.unrelated[names]


def _light(model: Model) -> Model:
    """The model with two examples where inputs are large and may hold any number of them."""
    shapes = {name: model.shapes[name] for name in model.graph.inputs if name in model.shapes}
    batch = {shape[0] for shape in shapes.values() if shape} & set(model.symbols.values())
    if sum(map(prod, shapes.values())) <= LARGE or len(batch) != 1:
        return model
    fewer = {name: tuple(2 if size in batch else size for size in shape) for name, shape in shapes.items()}
    return replace(model, shapes={**model.shapes, **fewer})


def _along(base: _Base, name: Transform, place: Place, size: int) -> list[Place]:
    """What may have to move along with a place: axes of its size, and positions along them."""
    inputs = base.model.graph.inputs
    if name == "sign":
        return [Place(n) for n in inputs if n != place.tensor and base.values(n).dtype.kind == "f"]
    if name == "turn":
        last = [axis - len(base.shape(place.tensor)) for axis in place.axes]
        planes = [Place(n, tuple(len(base.shape(n)) + axis for axis in last)) for n in inputs if n != place.tensor]
        return [p for p in planes if p.axes[0] >= 0 and all(base.shape(p.tensor)[a] == size for a in p.axes)]
    axes = [Place(n, (axis,)) for n in inputs for axis, other in enumerate(base.shape(n)) if other == size]
    whole = [n for n in inputs if n != place.tensor and base.values(n).dtype.kind in "iu"]
    return [p for p in axes if p != place] + [Place(n, indices=True) for n in whole if _points(base, n, size)]


def _points(base: _Base, name: str, size: int) -> bool:
    """Whether the numbers of an input may be positions along an axis of some size."""
    values = [trial.feeds[name] for trial in base.trials]
    return all(x.size and x.min() >= 0 and 2 <= x.max() < size for x in values)


def _worth(row: Measured) -> tuple[int, float, int, int]:
    """What holds comes first: of an axis alone, else of as many as move; of what is broken the smallest error."""
    alone = len(row.moved) == 1
    if row.outcome == "held":
        return 0, 0.0 if alone else 1.0, row.step, -len(row.moved)
    assert row.error is not None or row.outcome == "not tried"
    # Others that move along by chance lower an error, too.
    return (1, (row.error or 0.0) * (1 if alone else 2), 0, 0) if row.outcome == "broken" else (2, 0.0, row.step, 0)


def _answers(drawn: float, rough: float) -> bool:
    return drawn > max(FAINT, LOUD * rough)


def _untried(row: Measured, reason: str) -> Measured:
    return replace(row, outcome="not tried", action=None, answer=(), error=None, reason=reason)


def _anew(values: Array, rng: np.random.Generator) -> Array:
    """Numbers drawn from among some, each on its own; one that is alone gets another value."""
    drawn = rng.choice(values.reshape(-1), values.shape) if values.size else values
    return drawn * 1.5 + 0.5 if values.dtype.kind == "f" and np.array_equal(drawn, values) else drawn
