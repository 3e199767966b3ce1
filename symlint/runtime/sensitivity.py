"""Inputs to which a network answers: a comparison of outputs that are the same for all inputs cannot fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from symlint.model.errors import UsageProblem
from symlint.model.graph import Array, Model, Shape
from symlint.model.operators import known
from symlint.model.records import dataclass
from symlint.runtime.probe import STRUCTURAL, feeds, unusual_feeds
from symlint.runtime.rollout import BATCHES, batched, rollout, starts
from symlint.runtime.runner import Run, run_each

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
