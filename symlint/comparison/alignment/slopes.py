"""Slopes: what a network puts out on random inputs, and how a loss of that answers to its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace

import numpy as np

from symlint.analysis.rehearsal import normalised, pointwise, wide
from symlint.model.graph import Array, Shape
from symlint.model.records import dataclass
from symlint.program.functions import dispatched
from symlint.program.numbers import Numbers, contract
from symlint.program.steps import (
    CONSTANT,
    Concat,
    Einsum,
    Fold,
    Mix,
    Normalise,
    Pointwise,
    Program,
    Slice,
    Step,
    Window,
)

STEP = 1e-5
"""Of a central difference, relative to the numbers."""
SYMMETRIC = frozenset({"standardise", "rms", "Softmax", "SoftmaxAndOne"})
"""Normalisations that are gradients of a number, so that what they make of a small change is their own transpose."""


class Unknowable(Exception):
    """A step of which it is not known what it computes, or how that answers to what it reads."""


@dataclass
class Course:
    """One draw of inputs on its way through a network."""

    program: Program
    weights: Mapping[str, Array]
    """Of the program."""
    chosen: dict[str, Array]
    """What lookups at run time take from where, drawn once for all courses that share it."""
    rng: np.random.Generator
    values: dict[str, Array] = field(default_factory=dict)

    def outputs(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """What comes out. Raises `Unknowable`."""
        self.values = {**self.weights, **self.program.tables, **inputs}
        for step in self.program.steps:
            if step.results:
                self.values[step.results[0]] = self._made(step)
        return {name: self.values[name] for name in self.program.outputs}

    def slopes(self, ends: Mapping[str, Array]) -> dict[str, Array]:
        """Weight of the program -> the slope of a number of which the slopes along the outputs are given."""
        slopes = dict(ends)
        for step in reversed(self.program.steps):
            above = slopes.pop(step.results[0], None) if step.results else None
            if above is None:
                continue
            for name, slope in zip(step.operands, self._back(step, above), strict=True):
                if slope is not None and name not in self.program.tables:
                    slopes[name] = slopes.get(name, 0.0) + _narrowed(slope, self.values[name].shape)
        return {name: slope for name, slope in slopes.items() if name in self.weights}

    def _given(self, step: Step) -> list[Array]:
        return [self.values[name] for name in step.operands]

    @dispatched
    def _made(self, step: Step) -> Array:
        raise Unknowable(step.node.op)

    @dispatched
    def _back(self, step: Step, above: Array) -> list[Array | None]:
        raise Unknowable(step.node.op)

    @_made.register
    def _(self, step: Einsum) -> Array:
        return contract(step, [wide(x) for x in self._given(step)], [0] * len(step.operands))

    @_back.register
    def _(self, step: Einsum, above: Array) -> list[Array | None]:
        given, made = self._given(step), list[Array | None]()
        for k, spec in enumerate(step.specs):
            others = [j for j in range(len(given)) if j != k]
            turned = replace(step, specs=(*(step.specs[j] for j in others), step.result), result=spec)
            made.append(contract(turned, [*(wide(given[j]) for j in others), above], [0] * len(given)))
        return made

    @_made.register
    def _(self, step: Pointwise) -> Array:
        if step.known.sums:
            signed = sum(float(step.known.sign(k)) * wide(x) for k, x in enumerate(self._given(step)))
            return np.asarray(signed) / (len(step.operands) if step.known.averages else 1)
        made = pointwise(step, self._given(step)) if step.computable else None
        if made is None:
            raise Unknowable(step.function)
        return made

    @_back.register
    def _(self, step: Pointwise, above: Array) -> list[Array | None]:
        given, made = self._given(step), list[Array | None]()
        for k, x in enumerate(given):
            if step.known.sums:
                made.append(float(step.known.sign(k)) * above / (len(given) if step.known.averages else 1))
            elif x.dtype.kind != "f" or step.operands[k] in self.program.tables:
                made.append(None)
            else:
                size = STEP * (1 + np.abs(x))
                ends = [pointwise(step, [*given[:k], x + sign * size, *given[k + 1 :]]) for sign in (1, -1)]
                assert ends[0] is not None
                assert ends[1] is not None
                made.append(above * (ends[0] - ends[1]) / (2 * size))
        return made

    @_made.register
    def _(self, step: Normalise) -> Array:
        if step.function not in SYMMETRIC:
            raise Unknowable(step.function)
        return normalised(step.function, wide(self.values[step.x]), step.axes, CONSTANT)

    @_back.register
    def _(self, step: Normalise, above: Array) -> list[Array | None]:
        x = wide(self.values[step.x])
        above = np.broadcast_to(above, x.shape)
        size = STEP / (np.abs(above).max() or 1.0)
        ends = [normalised(step.function, x + sign * size * above, step.axes, CONSTANT) for sign in (1, -1)]
        return [(ends[0] - ends[1]) / (2 * size)]

    @_made.register
    def _(self, step: Concat | Slice) -> Array:
        return Numbers(self.program, self.values.__getitem__).apply(step, {n: self.values[n] for n in step.operands})[
            step.out
        ]

    @_back.register
    def _(self, step: Concat, above: Array) -> list[Array | None]:
        ends = np.cumsum([self.program.shapes[name][step.axis] for name in step.operands])
        return list(np.split(above, ends[:-1], axis=step.axis))

    @_back.register
    def _(self, step: Slice, above: Array) -> list[Array | None]:
        x = self.values[step.x]
        made = np.zeros(x.shape if x.shape[step.axis] > 1 else above.shape)
        part = slice(step.start, step.stop) if x.shape[step.axis] > 1 else slice(None)
        made[(*(slice(None),) * step.axis, part)] = above
        return [made]

    @_made.register
    def _(self, step: Fold) -> Array:
        if step.known.extreme is None:
            raise Unknowable(step.function)
        return np.asarray(step.known.extreme(wide(self.values[step.x]), axis=step.axes))

    @_back.register
    def _(self, step: Fold, above: Array) -> list[Array | None]:
        met = self.values[step.x] == np.expand_dims(self.values[step.out], step.axes)
        return [met * np.expand_dims(above, step.axes)]

    @_made.register
    def _(self, step: Mix) -> Array:
        x = wide(np.broadcast_to(self.values[step.x], self.program.shapes[step.x]))
        if step.out not in self.chosen:
            self.chosen[step.out] = self._places(step, x)
        places = self.chosen[step.out]
        if places.ndim > len(self.program.shapes[step.out]):
            tops = np.append(x.reshape(-1), -np.inf)[places].argmax(axis=-1)
            places = np.take_along_axis(places, tops[..., None], axis=-1)[..., 0]
            self.values[f"places of {step.out}"] = places
        return np.append(x.reshape(-1), 0.0)[places]

    @_back.register
    def _(self, step: Mix, above: Array) -> list[Array | None]:
        shape = self.program.shapes[step.x]
        places = self.values.get(f"places of {step.out}", self.chosen[step.out])
        full = np.broadcast_to(above, places.shape)
        sums = np.bincount(places.reshape(-1), full.reshape(-1), minlength=int(np.prod(shape)) + 1)
        return [sums[:-1].reshape(shape)]

    def _places(self, step: Mix, x: Array) -> Array:
        """Where in what a step reads each number is that it makes; behind the last one where it is none."""
        places, shape = np.arange(x.size).reshape(x.shape), self.program.shapes[step.out]
        if step.chosen is not None:
            return np.asarray(places.take(step.chosen[1], step.chosen[0]))
        gone = [k for k in range(x.ndim) if k not in step.keep]
        if step.at_run_time and len(gone) == 1:
            new = [n for n, source in zip(shape, step.keep, strict=True) if source is None]
            places = np.moveaxis(places, gone[0], 0)[self.rng.integers(x.shape[gone[0]], size=new)]
            order = [k for k, source in enumerate(step.keep) if source is None]
            return np.moveaxis(places, range(places.ndim), [*order, *(k for k in range(len(shape)) if k not in order)])
        seen = {w.source: w for w in step.windows}
        if set(gone) != seen.keys() or (any(w.kernel is None for w in step.windows) and not step.largest):
            raise Unknowable(step.node.op)
        return _windowed(places, step, shape)


def _windowed(places: Array, step: Mix, shape: Shape) -> Array:
    """The same for windows, with the taps last where the largest of them is taken."""
    labels, beyond = list[tuple[str, int]](), places.size
    seen = {w.source: w for w in step.windows}
    for k in reversed(range(places.ndim)):
        if k not in seen:
            labels.insert(0, ("out", step.keep.index(k)))
            continue
        window: Window = seen[k]
        at = np.arange(shape[window.place])[:, None] * window.stride - window.before
        at = at + np.arange(window.taps) * window.apart
        outside = (at < 0) | (at >= places.shape[k])
        met = places.take(np.where(outside, 0, at), axis=k)
        lead = outside.reshape((*outside.shape, *[1] * (places.ndim - k - 1)))
        places = np.where(lead, beyond, met)
        labels[:0] = [("out", window.place), ("tap", k) if window.kernel is None else ("out", window.kernel)]
    taps = [label for label in labels if label[0] == "tap"]
    order = [labels.index(label) for label in (*(("out", k) for k in range(len(shape))), *taps)]
    return places.transpose(order).reshape((*shape, -1) if taps else shape)


def _narrowed(slope: Array, shape: Shape) -> Array:
    """Sums over what was spread, or spread over what was summed."""
    slope = slope.sum(axis=tuple(range(slope.ndim - len(shape)))) if slope.ndim > len(shape) else slope
    spread = tuple(k for k, (a, b) in enumerate(zip(slope.shape, shape, strict=True)) if b == 1 and a > 1)
    return np.broadcast_to(slope.sum(axis=spread, keepdims=True), shape)
