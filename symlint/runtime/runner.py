"""onnxruntime at the other end of a pipe: models stay loaded between runs, and its death is an ordinary answer.

A network run step after step, what leaves it as a state coming back, as its callers do.

What the network reads at a step beside its states is what it read before, moved on by one place; where a state grows, a
mask grows along and positions count on.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Timer
from types import TracebackType
from typing import Any

import numpy as np

from symlint.model.graph import Array, Model, Shape
from symlint.model.records import dataclass
from symlint.model.states import words
from symlint.runtime import child_process

Feeds = Mapping[str, Array]
MANY, FEW = 64, 8
"""Steps of a network whose weights take less than `ROOM` bytes, and of a larger one."""
LEAST = 3
"""Steps that a network must take."""
BATCHES = (1, 3)
"""Numbers of sequences at once that are tried where a network takes any."""
ROOM = 1 << 24


@dataclass(frozen=True, slots=True)
class Rollout:
    """The states of a network and how many steps it takes."""

    pairs: tuple[tuple[str, str], ...]
    """Input and output of each state."""
    steps: int
    seen: int = 1
    """How many outputs others read."""
    shown: bool = False
    """Whether the states are told as well."""

    @property
    def inner(self) -> frozenset[str]:
        """The inputs and outputs that only the network itself sees."""
        return frozenset(name for pair in self.pairs for name in pair)


def rollout(model: Model) -> Rollout | None:
    """The steps in which a model with states is tried; None for one without."""
    pairs = tuple((state.input, state.output) for state in model.states if state.closed)
    size = sum(4 * tensor.size for tensor in model.tensors.values())
    return Rollout(pairs, MANY if size < ROOM else FEW, len(model.graph.outputs) - len(pairs)) if pairs else None


def starts(model: Model, feeds: Feeds) -> Iterator[Feeds]:
    """The same inputs at the first step, the likeliest to be valid first: states are zero, and empty where they grow.

    Of a network that takes any number of tokens a step has all, then one, then one of a single sequence.
    """
    closed = [state for state in model.states if state.closed]
    if not closed:
        yield feeds
        return
    zeros = {state.input: np.zeros_like(feeds[state.input]) for state in closed}
    grown = [(s, k) for s in closed for k in range(feeds[s.input].ndim) if k not in s.axes]
    if not grown:
        yield {**feeds, **zeros}
        return
    state, axis = grown[0]
    past, after = (model.shapes[name][axis] for name in (state.input, state.output))
    empty = {s.input: np.take(feeds[s.input], [], k) for s, k in grown}
    free, batch = set(model.symbols.values()), {model.shapes[state.input][0]}
    tokens = free.difference(n for s in closed for n in model.shapes[s.input])
    for single, new in ((set[int](), after - past), (tokens, 1), (tokens | (free & batch), 1)):
        for cache, total in ((empty, new), (zeros, new + past)):
            small = {n: _one(x, model.shapes[n], single) for n, x in {**feeds, **zeros, **cache}.items()}
            yield _begun(small, total, used=cache is zeros)


def batched(model: Model, feeds: Feeds, count: int) -> Feeds | None:
    """The same first step of so many sequences at once; None where the states do not take any number of them."""
    closed, free = [state for state in model.states if state.closed], set(model.symbols.values())
    batch = free.intersection(*({model.shapes[s.input][k] for k in s.axes} for s in closed)) if closed else set[int]()
    if not batch:
        return None
    made = dict(feeds)
    for name, x in feeds.items():
        for axis, size in enumerate(model.shapes[name]):
            if size in batch:
                made[name] = made[name].take(np.arange(count) % x.shape[axis], axis)
    return made


def _one(values: Array, shape: Shape, single: Set[int]) -> Array:
    """The first place of every axis that has one of some sizes in the model."""
    for axis, size in enumerate(shape):
        if size in single and values.shape[axis] == size:
            values = values.take([0], axis)
    return values


def rolled_out(
    run: Callable[[Feeds], Sequence[Any]], names: Sequence[str], feeds: Feeds, loop: Rollout
) -> Iterator[Any]:
    """The outputs of every step, of states where these are shown; where a cache is used up, of the steps before."""
    inputs = dict(loop.pairs)
    for step in range(loop.steps):
        try:
            outputs = dict(zip(names, run(feeds), strict=True))
        except Exception:
            if step < LEAST:
                raise
            return
        yield from (y for name, y in outputs.items() if loop.shown or name not in loop.inner)
        if step < loop.steps - 1:
            feeds = _following(feeds, {name: outputs[output] for name, output in inputs.items()})


def _begun(feeds: Feeds, total: int, *, used: bool) -> Feeds:
    """Inputs with masks over so many tokens, positions that count up to the last, and whether a cache is `used`."""
    made: dict[str, Array] = {}
    for name, x in feeds.items():
        if _masks(name) and x.ndim:
            wide = np.take(x, np.minimum(np.arange(total), x.shape[-1] - 1), axis=-1)
            made[name] = wide if x.dtype.kind == "f" else np.ones_like(wide)  # all that came before is seen
        elif _chooses(name, x):
            made[name] = np.full_like(x, used)
        elif _counts(name, x) and x.ndim:
            made[name] = np.broadcast_to(np.arange(total - x.shape[-1], total), x.shape).astype(x.dtype)
        else:
            made[name] = x
    return made


def _following(feeds: Feeds, states: Feeds) -> Feeds:
    """What a network reads at its next step."""
    grown = max(
        (after - before for n, x in states.items() for before, after in zip(feeds[n].shape, x.shape, strict=True))
    )
    made: dict[str, Array] = {}
    for name, x in feeds.items():
        if grown and _masks(name) and x.ndim:
            made[name] = np.concatenate([x, x[..., -1:].repeat(grown, axis=-1)], axis=-1)
        elif _chooses(name, x):
            made[name] = np.ones_like(x)
        elif grown and _counts(name, x):
            made[name] = x + np.asarray(grown, x.dtype)
        else:
            made[name] = np.roll(x, 1)
    return {**made, **states}


def _masks(name: str) -> bool:
    return "mask" in words(name)


def _chooses(name: str, values: Array) -> bool:
    """Whether an input says that a decoder with and without a cache in one file is to read it: ``use_cache_branch``."""
    return values.dtype.kind == "b" and {"use", "cache"} <= set(words(name))


def _counts(name: str, values: Array) -> bool:
    return values.dtype.kind in "iu" and not {"position", "positions", "pos"}.isdisjoint(words(name))


Dim = int | str | None
TIME_LIMIT = 600
"""Seconds that one answer may take."""


@dataclass(frozen=True, slots=True)
class Run:
    """The outputs of one model, or why there are none."""

    outputs: tuple[Array, ...] = ()
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that onnxruntime holds, or why it does not."""

    key: int
    inputs: tuple[tuple[str, tuple[Dim, ...], str], ...] = ()
    """Name, declared dimensions and type (``tensor(float)``) of each input."""
    outputs: tuple[tuple[str, str], ...] = ()
    """Name and type of each output."""
    failure: str | None = None


def fitted(feeds: Mapping[str, Array], loaded: Loaded) -> dict[str, Array]:
    """What another file reads in the stead of a first: of what that reads as many numbers as it takes itself.

    A file whose states are narrower begins with fewer zeros.
    """
    made = dict(feeds)
    for name, dims, _ in loaded.inputs:
        for axis, size in enumerate(dims if name in feeds and feeds[name].ndim == len(dims) else ()):
            if isinstance(size, int) and size < made[name].shape[axis]:
                made[name] = made[name].take(np.arange(size), axis)
    return made


class Runner:
    """One child process and what it has loaded; a child that died is replaced and loads again what is asked for.

    ``limit`` is how many seconds one answer may take. A context manager: leaving it ends the child.
    """

    def __init__(self, limit: float = TIME_LIMIT) -> None:
        self.limit = limit
        self.requests: dict[int, dict[str, Any]] = {}
        self.present: set[int] = set()
        self.deadly: dict[int, str] = {}
        self.child: subprocess.Popen[str] | None = None
        self.count = 0

    def __enter__(self) -> Runner:
        self.temporary = TemporaryDirectory(prefix="symlint-", ignore_cleanup_errors=True)
        self.folder = Path(self.temporary.name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        self.temporary.cleanup()

    def load(
        self,
        path: str | Path,
        level: str = "none",
        *,
        weights: Mapping[str, Array] | None = None,
        threads: int = 0,
        seed: int = 0,
    ) -> Loaded:
        """Load a file at one level of optimisation (``none``, ``basic``, ``extended``, ``all``).

        The level ``exact`` is the extended one, with bytes that are summed without saturating.

        ``weights`` are other values for its initializers; names that it lacks do no harm. ``seed`` is for operators
        that draw random numbers; 0 threads are as many as there are cores.
        """
        self.count += 1
        key = self.count
        stored = self._save(weights) if weights else ""
        resolved = str(Path(path).resolve())
        values = {"key": key, "path": resolved, "level": level, "weights": stored, "threads": threads, "seed": seed}
        self.requests[key] = {"do": "load", **values}
        answer = self._load(key)
        if "failure" in answer:
            return Loaded(key, failure=answer["failure"])
        inputs = tuple((name, tuple(dims), kind) for name, dims, kind in answer["inputs"])
        return Loaded(key, inputs, tuple((name, kind) for name, kind in answer["outputs"]))

    def run(self, loaded: Loaded, feeds: Mapping[str, Array], loop: Rollout | None = None) -> Run:
        """The outputs of a loaded model on these inputs; of a loop those of every step, but for its states."""
        failure = self._ready([loaded.key])
        if failure:
            return Run(failure=failure)
        steps = {"states": loop.pairs, "steps": loop.steps, "shown": loop.shown} if loop else {"steps": 0}
        fitting = feeds if loop is None else fitted(feeds, loaded)
        return self._outputs({"do": "run", "key": loaded.key, **steps}, fitting)

    def double(self, path: str | Path, feeds: Mapping[str, Array]) -> Run:
        """The outputs of a file in float64, by onnx's reference evaluator."""
        return self._outputs({"do": "double", "key": 0, "path": str(Path(path).resolve())}, feeds)

    def seconds(
        self, loaded: Sequence[Loaded], feeds: Mapping[str, Array], repeats: int, lasting: float = 0.0
    ) -> tuple[tuple[float, ...], ...]:
        """The seconds of so many runs of each model, taken in turns; of more where that lasts less than ``lasting``.

        Raises RuntimeError where one does not run.
        """
        failure = self._ready([model.key for model in loaded])
        if failure is None:
            named = [self._save(fitted(feeds, model)) for model in loaded]
            request = {"do": "time", "key": 0, "keys": [m.key for m in loaded], "feeds": named}
            answer = self._ask({**request, "repeats": repeats, "lasting": lasting})
            if "failure" not in answer:
                return tuple(tuple(taken) for taken in answer["seconds"])
            failure = answer["failure"]
        raise RuntimeError(failure)

    def drop(self, loaded: Loaded) -> None:
        """Let go of a loaded model."""
        self.requests.pop(loaded.key, None)
        if loaded.key in self.present:
            self.present.discard(loaded.key)
            self._ask({"do": "drop", "key": loaded.key})

    def _ready(self, keys: Sequence[int]) -> str | None:
        for key in keys:
            if key not in self.present:
                answer = self._load(key)
                if "failure" in answer:
                    return str(answer["failure"])
        return None

    def _load(self, key: int) -> dict[str, Any]:
        if key in self.deadly:
            return {"failure": self.deadly[key]}
        answer = self._ask(self.requests[key])
        if "failure" not in answer:
            self.present.add(key)
        return answer

    def _outputs(self, request: Mapping[str, Any], feeds: Mapping[str, Array]) -> Run:
        self.count += 1
        named, out = self._save(feeds), f"o{self.count}.npz"
        answer = self._ask({**request, "feeds": named, "out": out})
        (self.folder / named).unlink(missing_ok=True)
        if "failure" in answer:
            return Run(failure=answer["failure"])
        with np.load(self.folder / out) as saved:
            run = Run(tuple(saved[f"y{k}"] for k in range(answer["count"])))
        (self.folder / out).unlink()
        return run

    def _save(self, arrays: Mapping[str, Array]) -> str:
        self.count += 1
        name = f"a{self.count}.npz"
        named: dict[str, Any] = {f"a{k}": array for k, array in enumerate(arrays.values())}
        np.savez(self.folder / name, names=np.array(list(arrays), dtype=str), **named)
        return name

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        child = self._begin()
        assert child.stdin is not None
        assert child.stdout is not None
        timer = Timer(self.limit, child.kill)
        timer.start()
        try:
            child.stdin.write(json.dumps(request) + "\n")
            child.stdin.flush()
            line = child.stdout.readline()
        except OSError:
            line = ""
        finally:
            late = not timer.is_alive()
            timer.cancel()
        if line.endswith("\n"):
            return dict(json.loads(line))
        reason = self._reason(child, late)
        self.deadly[request["key"]] = reason
        self._end()
        return {"failure": reason}

    def _begin(self) -> subprocess.Popen[str]:
        if self.child is None:
            command = child_process.command("symlint.runtime.child", str(self.folder))
            with (self.folder / "errors.txt").open("w") as errors:
                self.child = subprocess.Popen(
                    command,
                    env=child_process.environment(),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    encoding="utf-8",
                )
        return self.child

    def _reason(self, child: subprocess.Popen[str], late: bool) -> str:
        code = child.wait()
        if late:
            return f"no answer within {self.limit:g} s"
        if code < 0:
            return f"onnxruntime died of signal {-code}"
        said = (self.folder / "errors.txt").read_text(errors="replace").strip().splitlines()
        return (said or ["onnxruntime gave no answer"])[-1][:300]

    def _end(self) -> None:
        if self.child is not None:
            self.child.kill()
            self.child.communicate()
        self.child = None
        self.present = set()


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
        return [_of_one(runner, runner.load(model, level), feeds, loop) for model in models]


def _of_one(runner: Runner, loaded: Loaded, feeds: Sequence[Mapping[str, Array]], loop: Rollout | None) -> Run:
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
