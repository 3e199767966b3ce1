"""Rehearsals: a part of a network computed on random numbers, for what no gauge can change about it.

Everything is in float64. What enters the part is drawn at random. A map along axes in a fixed order stands for any
map: a random linear one takes its place, which tells apart what the map could. Normalisations have a large epsilon, so
that lengths count.

Substitutes: the functions of single steps in a rehearsal, and fixed stand-ins for those that are not known.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence, Set
from dataclasses import field

import numpy as np

from symlint.model.clusters import precision
from symlint.model.graph import Array
from symlint.model.records import dataclass
from symlint.model.shapes.known import evaluate
from symlint.program.functions import dispatched, standard
from symlint.program.numbers import NEWEST, Numbers
from symlint.program.steps import CONSTANT, Affine, Einsum, Fold, Law, Mix, Normalise, Pointwise, Program, Step, Unknown

LARGEST = 1e4
"""Numbers beyond are those of masks."""
EPSILON = 0.1
TINY = 1e-30


def wide(x: Array) -> Array:
    """Numbers in float64."""
    return x if x.dtype == np.float64 else x.astype(np.float64)


def pointwise(step: Pointwise, inputs: Sequence[Array]) -> Array | None:
    """An elementwise function; another one stands for a function of one operand that is not known."""
    function, opset = standard(step.function), step.node.opset if "." not in step.node.op else NEWEST
    if function == "Where":
        choice = inputs[0] if inputs[0].dtype == bool else inputs[0] > 0
        # Where the other value is zero throughout, there is none.
        return np.where(choice, inputs[1], inputs[2] if len(inputs) > 2 else inputs[1].dtype.type(0))
    if function == "Identity":
        return inputs[0]
    attributes = step.node.attributes if step.function == step.node.op else {}
    try:
        made = evaluate(function, opset, attributes, [n if n.dtype.kind in "biu" else wide(n) for n in inputs])
    except Exception:
        made = None
    if made is not None:
        return np.nan_to_num(made[0], posinf=LARGEST, neginf=-LARGEST) if made[0].dtype.kind == "f" else made[0]
    if len(inputs) > 1:
        return None
    x = wide(inputs[0])
    return np.where(x < 0, 0.3 * x, x) if step.law.kind == "product" else np.tanh(x + 0.2) + 0.3 * x * x


def normalised(function: str, x: Array, axes: tuple[int, ...], law: Law) -> Array:
    """A normalisation along axes: that of the name, or one of lengths, which count but where it takes scales away."""
    if "Softmax" in function:
        power = np.exp(x - x.max(axis=axes, keepdims=True))
        made = power / (power.sum(axis=axes, keepdims=True) + (function == "SoftmaxAndOne"))
        return np.asarray(np.log(made + 1e-300) if function == "LogSoftmax" else made)
    if function == "standardise":
        x = x - x.mean(axis=axes, keepdims=True)
    return np.asarray(x / np.sqrt((x * x).mean(axis=axes, keepdims=True) + (TINY if law == CONSTANT else EPSILON)))


def folded(function: str, x: Array, axes: tuple[int, ...]) -> Array | None:
    """A symmetric reduction along axes."""
    if "Max" in function:
        return np.asarray(x.max(axis=axes))
    if "Min" in function:
        return np.asarray(x.min(axis=axes))
    if function in ("ReduceL2", "ReduceSumSquare", "moment"):
        return np.asarray((x * x).sum(axis=axes))
    return np.asarray(np.abs(x).sum(axis=axes)) if function == "ReduceL1" else None


CHANNELS = 4
"""Random combinations of a fixed map's inputs of which each output has one of its own."""
ELEMENTS = 1 << 23
"""Of one tensor, beyond which nothing is rehearsed."""


class Unrehearsed(Exception):
    """A part that cannot be computed, or that is too large."""


def entered(program: Program, part: Set[str], moving: Set[str]) -> frozenset[str]:
    """A part of the moving tensors with what leads to it from the last contractions and normalisations before.

    Of a normalisation what it cannot put out counts, so that it is in the part; what it reads is drawn.
    """
    found, waiting = set(part), list(part)
    while waiting:
        top = waiting.pop()
        step = program.producers.get(top) if top in moving else None
        within = top in part
        if step is None or not (within or _passing(step)):
            continue
        found.add(top)
        if within or not isinstance(step, Normalise):
            waiting += [name for name in step.operands if name in moving and name not in found]
    return frozenset(found)


def _passing(step: Step) -> bool:
    """Whether a step only rearranges numbers, computes with them one by one, or normalises them."""
    return not (step.product or isinstance(step, (Fold, Affine, Unknown)))


@dataclass
class Rehearsal:
    """The values of tensors in one draw."""

    program: Program
    inside: frozenset[str]
    """The tensors that depend on the input and are computed; others that do are drawn."""
    seed: int
    rounded: bool = False
    """Whether every weight is off by a rounding of its number type."""
    given: Mapping[str, Array] = field(default_factory=dict)
    """Values that are neither computed nor drawn."""
    size: float = 1.0
    """Of what is drawn."""
    thin: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """The shapes of what is drawn, with size 1 along axes along which one draw is enough."""
    known: dict[str, Array] = field(default_factory=dict)

    def maker(self, name: str) -> Step | None:
        """The step that makes a tensor, if that is constant or inside."""
        computed = name in self.inside or name not in self.program.dependent
        return self.program.producers.get(name) if computed else None

    def value(self, name: str) -> Array:
        """The value of a tensor.

        Raises `Unrehearsed`.
        """
        todo = [name]
        while todo:
            top = todo[-1]
            step = self.maker(top) if top not in self.given else None
            missing = [n for n in step.operands if n not in self.known] if step and top not in self.known else []
            todo.extend(missing)
            if not missing:
                todo.pop()
                if top not in self.known:
                    self.known[top] = self._made(top, step)
        return self.known[name]

    def _made(self, name: str, step: Step | None) -> Array:
        program, shape = self.program, self.program.shapes[name]
        if int(np.prod(shape, dtype=np.int64)) > ELEMENTS:
            raise Unrehearsed(name)
        if name in self.given:
            return self.given[name]
        if name in program.weights:
            return self._weight(name)
        if name in program.tables:
            table = program.tables[name]
            return np.clip(table.astype(np.float64), -LARGEST, LARGEST) if table.dtype.kind in "fV" else table
        if step is None:
            return self._random(name).standard_normal(self.thin.get(name, shape)) * self.size
        made = self._step(step, name)
        if made is None or made.dtype == object:
            raise Unrehearsed(name)
        return made

    def _random(self, name: str) -> np.random.Generator:
        return np.random.default_rng([self.seed, zlib.crc32(name.encode())])

    def _weight(self, name: str) -> Array:
        tensor = self.program.model.tensors[self.program.weights[name]]
        values = tensor.read()
        if not tensor.floating:
            return values
        exact = values.astype(np.float64)
        if not self.rounded:
            return exact
        off = self._random(tensor.name).uniform(-1, 1, exact.shape) * precision(tensor.dtype)
        return np.asarray(exact * (1 + off))

    def _applied(self, step: Step, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """What a step makes that computes here what it computes anywhere."""
        # Made for each step: kept, it would hold this draw and be held by it, so that no draw is freed when left.
        return Numbers(self.program, self.value).apply(step, arrays)

    @dispatched
    def _step(self, step: Step, name: str) -> Array | None:
        return self._applied(step, {n: self.value(n) for n in step.operands})[name]

    @_step.register
    def _(self, step: Unknown, name: str) -> Array | None:
        return None

    @_step.register
    def _(self, step: Einsum, name: str) -> Array | None:
        return self._applied(step, {n: wide(self.value(n)) for n in step.operands})[name]

    @_step.register
    def _(self, step: Pointwise, name: str) -> Array | None:
        return pointwise(step, [self.value(n) for n in step.operands])

    @_step.register
    def _(self, step: Normalise, name: str) -> Array | None:
        return normalised(step.function, wide(self.value(step.x)), step.axes, step.law)

    @_step.register
    def _(self, step: Fold, name: str) -> Array | None:
        return folded(step.function, wide(self.value(step.x)), step.axes)

    @_step.register
    def _(self, step: Mix, name: str) -> Array | None:
        """A random map along the axes that are not kept, where it is not known which numbers it chooses."""
        if step.chosen is not None:
            return np.asarray(self.value(step.x).take(step.chosen[1], step.chosen[0]))
        x, shape = wide(self.value(step.x)), self.program.shapes[step.out]
        kept = [k for k in step.keep if k is not None]
        gone = [k for k in range(x.ndim) if k not in kept]
        new = [k for k, source in enumerate(step.keep) if source is None]
        lines = x.transpose(*kept, *gone).reshape(*(x.shape[k] for k in kept), -1)
        rng = self._random(step.out)
        into = rng.standard_normal((lines.shape[-1], CHANNELS)) / np.sqrt(lines.shape[-1])
        out = rng.standard_normal((CHANNELS, int(np.prod([shape[k] for k in new], dtype=np.int64))))
        made = lines @ into @ out
        # A map of what is constant leaves it so, as lookups do: what shifts a table shifts what is read from it.
        made += lines.mean(axis=-1, keepdims=True) * (1 - into.sum(axis=0) @ out)
        made = made.reshape((*lines.shape[:-1], *(shape[k] for k in new)))
        here = [k for k, source in enumerate(step.keep) if source is not None]
        return np.asarray(np.moveaxis(made, range(made.ndim), [*here, *new]))
