"""A network run step after step, what leaves it as a state coming back, as its callers do.

What the network reads at a step beside its states is what it read before, moved on by one place; where a state grows, a
mask grows along and positions count on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any

import numpy as np

from symlint.model.graph import Array, Model, Shape
from symlint.model.records import dataclass
from symlint.model.states import words

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
