"""The range of an elementwise function over intervals of its operands.

The length of what a written-out normalisation makes: at most this, whatever it gets.

A recognised normalisation is a vector, less its mean or not, times a function of its own length alone. Where that
function is made of roots, quotients and an epsilon, the length of the output grows with that of the input up to a
limit, which is read off at the largest one.

Tensors as affine functions of a normalised vector, gains and biases on the way included.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import singledispatch
from math import inf, prod, sqrt

import numpy as np

from symlint.analysis.interval import Interval, between, joined, negated, paired, point, product, total, widened
from symlint.model.graph import Array
from symlint.model.records import dataclass
from symlint.program.functions import Attributes, Course, Dipping, Rising, function
from symlint.program.numbers import NORMS, Numbers, Truth, compute, contract, exactly
from symlint.program.steps import Einsum, Fold, Normalise, Pointwise, Program, Slice, Step, rearranges
from symlint.program.translate import lowered

CLAMPS = frozenset({"Relu", "Clip", "Min", "Max", "HardSigmoid", "HardSwish", "ThresholdedRelu"})
"""Functions that are one number over a whole interval of what they get."""
SLOPES = frozenset({"Relu", "LeakyRelu", "PRelu"})
"""Functions that do nothing to what is not negative."""


def ranged(step: Pointwise, values: Sequence[Interval]) -> Interval | None:
    """What the output of a step lies between; None where nothing is known of its function."""
    name = step.function
    attributes = step.node.attributes if name == step.node.op else {}
    own = {a: value for a, value in attributes.items() if isinstance(value, int | float | str | bytes)}
    with np.errstate(all="ignore"):
        if len(values) == 1 and name in _CLIPS:
            return _CLIPS[name](values[0], own)
        if len(values) == 1:
            return _unary(name, values[0], own)
        if name in _MANY:
            return _MANY[name](step, values)
    return between(0.0, 1.0, np.broadcast_shapes(*(v.shape for v in values))) if name in _TRUTHS else None


def _unary(name: str, x: Interval, own: Attributes) -> Interval | None:
    if name == "Identity":
        return x
    if name == "Neg":
        return negated(x)
    if name == "Complement":
        return total([point(np.ones(())), negated(x)])
    if name == "Cast" and own.get("to") == 9:
        return between(0.0, 1.0, x.shape)
    if any(own.get(a, 1.0) < 0 for a in ("alpha", "gamma")) or (name == "Swish" and own.get("alpha", 1.0) != 1):
        return None
    course = function(name).course
    return None if course is None else _along(course, x, own)


def _along(course: Course, x: Interval, own: Attributes) -> Interval:
    if isinstance(course, Rising):
        made = widened(course.of(x.low, own), course.of(x.high, own))
        return Interval(
            np.clip(made.low, course.least, course.largest), np.clip(made.high, course.least, course.largest)
        )
    if isinstance(course, Dipping):
        ends = course.of(x.low), course.of(x.high)
        crossed = (x.low <= course.place) & (x.high >= course.place)
        made = widened(np.where(crossed, course.least, np.minimum(*ends)), np.maximum(*ends), course.slack)
        return Interval(np.maximum(made.low, 0.0), made.high) if course.least == 0 else made
    return between(course.least, course.largest, x.shape)


def _clip(x: Interval, own: Attributes) -> Interval:
    return _clamped(x, own.get("min", -inf), own.get("max", inf))


def _clamped(x: Interval, low: float, high: float) -> Interval:
    low, high = float(np.float32(low)), float(np.float32(high))
    return Interval(np.clip(x.low, low, high), np.clip(x.high, low, high))


def _hard_sigmoid(x: Interval, own: Attributes) -> Interval | None:
    alpha, beta = own.get("alpha", 0.2), own.get("beta", 0.5)
    line = total([product(x, point(np.asarray(alpha))), point(np.asarray(beta))])
    return _clamped(line, 0.0, 1.0)


def _hard_swish(x: Interval, _: Attributes) -> Interval:
    """Falls from zero at -3 to -3/8 at -3/2, then rises."""
    ends = [np.where(np.isneginf(e), 0, e * np.clip(e / 6 + 0.5, 0, 1)) for e in (x.low, x.high)]
    crossed = (x.low <= -1.5) & (x.high >= -1.5)
    flat = x.high <= -3.0001
    beside = np.where(x.low <= -3, 0.0, -inf)
    made = widened(np.where(crossed, -0.375, np.minimum(*ends)), np.maximum(np.maximum(*ends), beside))
    return Interval(np.where(flat, 0.0, made.low), np.where(flat, 0.0, made.high))


def _thresholded(x: Interval, own: Attributes) -> Interval:
    alpha = float(np.float32(own.get("alpha", 1.0)))
    some = Interval(np.where(x.low > alpha, x.low, np.minimum(0.0, alpha)), np.maximum(x.high, 0.0))
    off = x.high <= alpha
    return Interval(np.where(off, 0.0, some.low), np.where(off, 0.0, some.high))


def _extremum(step: Pointwise, values: Sequence[Interval]) -> Interval:
    best = np.maximum if step.function == "Max" else np.minimum
    low, high = values[0].low, values[0].high
    for v in values[1:]:
        low, high = best(low, v.low), best(high, v.high)
    return Interval(low, high)


def _clip_by(_: Pointwise, values: Sequence[Interval]) -> Interval:
    x, least = values[0], values[1]
    low, high = np.maximum(x.low, least.low), np.maximum(x.high, least.high)
    if len(values) > 2:
        low, high = np.minimum(low, values[2].low), np.minimum(high, values[2].high)
    return Interval(low, high)


def _sub(_: Pointwise, values: Sequence[Interval]) -> Interval:
    return total([values[0], *(negated(v) for v in values[1:])])


def _mean(_: Pointwise, values: Sequence[Interval]) -> Interval:
    return product(total(values), point(np.asarray(1 / len(values))))


def _mul(step: Pointwise, values: Sequence[Interval]) -> Interval:
    if len(set(step.operands)) == 1 and len(values) == 2:
        made = product(values[0], values[0])
        return Interval(np.maximum(made.low, 0.0), made.high)
    made = values[0]
    for v in values[1:]:
        made = product(made, v)
    return made


def _div(_: Pointwise, values: Sequence[Interval]) -> Interval | None:
    x, y = values
    apart = (y.low > 0) | (y.high < 0)
    made = product(x, Interval(np.where(apart, 1 / y.high, -inf), np.where(apart, 1 / y.low, inf)))
    apart = np.broadcast_to(apart, made.shape)
    return Interval(np.where(apart, made.low, -inf), np.where(apart, made.high, inf))


def _power(_: Pointwise, values: Sequence[Interval]) -> Interval | None:
    x, exponent = values
    if not exponent.settled.all() or np.ptp(exponent.low) > 0:
        return None
    degree, shape = float(exponent.low.reshape(-1)[0]), np.broadcast_shapes(x.shape, exponent.shape)
    if degree % 2 == 0 and degree > 0:
        made = widened(np.where((x.low <= 0) & (x.high >= 0), 0, np.minimum(*_powers(x, degree))), x.size**degree)
        return Interval(np.broadcast_to(np.maximum(made.low, 0), shape), np.broadcast_to(made.high, shape))
    if degree > 0 and (degree % 2 == 1 or (x.low >= 0).all()):
        made = widened(*_powers(x, degree))
        return Interval(np.broadcast_to(made.low, shape), np.broadcast_to(made.high, shape))
    return None


def _powers(x: Interval, degree: float) -> tuple[Array, Array]:
    return np.abs(x.low) ** degree * np.sign(x.low) ** degree, np.abs(x.high) ** degree * np.sign(x.high) ** degree


def _prelu(_: Pointwise, values: Sequence[Interval]) -> Interval:
    x, slope = values
    below = product(Interval(np.minimum(x.low, 0), np.minimum(x.high, 0)), slope)
    above = Interval(np.maximum(x.low, 0), np.maximum(x.high, 0))
    made = joined([below, above])
    only = np.broadcast_to(x.low >= 0, made.shape)
    return Interval(np.where(only, above.low, made.low), np.where(only, above.high, made.high))


def _where(step: Pointwise, values: Sequence[Interval]) -> Interval:
    """One of several; what a lookup or a branch leaves out of them is zero."""
    plain = step.function == step.node.op
    made = joined(values[1:], zero=not plain)
    condition = values[0]
    if not plain or len(values) != 3 or not condition.settled.any():
        return paired(np.broadcast_to(a, np.broadcast_shapes(a.shape, condition.shape)) for a in (made.low, made.high))
    shape = np.broadcast_shapes(made.shape, condition.shape)
    known, true = (np.broadcast_to(a, shape) for a in (condition.settled, condition.low != 0))
    ends = []
    for k in range(2):
        yes, no, both = (np.broadcast_to((v.low, v.high)[k], shape) for v in (values[1], values[2], made))
        ends.append(np.where(known, np.where(true, yes, no), both))
    return paired(ends)


_CLIPS: Mapping[str, Callable[[Interval, Attributes], Interval | None]] = {
    "Relu": lambda x, _: Interval(np.maximum(x.low, 0), np.maximum(x.high, 0)),
    "Clip": _clip,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "ThresholdedRelu": _thresholded,
}
_TRUTHS = frozenset({"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Xor", "IsInf"})
_MANY: Mapping[str, Callable[[Pointwise, Sequence[Interval]], Interval | None]] = {
    "Add": lambda _, values: total(values),
    "Sum": lambda _, values: total(values),
    "Sub": _sub,
    "Mean": _mean,
    "Mul": _mul,
    "Div": _div,
    "Max": _extremum,
    "Min": _extremum,
    "Clip": _clip_by,
    "Pow": _power,
    "PRelu": _prelu,
    "Where": _where,
}


LENGTHS = 10.0 ** np.arange(-12, 13)
SETTLED = 1.001
"""How little the length of the output may still grow over the last half of the scales."""
PARTS = frozenset({"Add", "Sub", "Mul", "Div", "Sqrt", "Reciprocal", "Pow", "Abs", "Identity", "Max", "Clip", "Neg"})
"""Functions of which a normalisation is made."""
LONGEST = 64
"""Steps that one is made of."""


def radii(program: Program) -> dict[str, float]:
    """Output of each written-out normalisation -> the length that it does not exceed; absent where none is known."""
    written = [step for step in program.norms if step.node.op not in NORMS]
    written = [s for s in written if s.function in ("rms", "standardise", "l2")]
    if not written:
        return {}
    lowering = lowered(program)
    raw, known = lowering.program, lowering.lengths
    for step in written:
        if step.out not in known:
            # A gain and a bias that were taken in come after it under the name of what the file has.
            whole = step.out if step.out in raw.producers else step.out.rpartition("#")[0]
            known[step.out] = _radius(step, whole, raw, raw.producers)
    return {step.out: radius for step in written if (radius := known[step.out]) is not None}


def _radius(step: Normalise, out: str, raw: Program, makers: Mapping[str, Step]) -> float | None:
    chain = _chain(step.x, out, makers)
    if chain is None or step.x not in raw.shapes:
        return None
    shape = [n if k in step.axes else 1 for k, n in enumerate(raw.shapes[step.x])]
    rng = np.random.default_rng(7)
    vectors = np.stack([rng.standard_normal(shape), np.eye(1, int(np.prod(shape))).reshape(shape)])
    given = (vectors[:, None] * LENGTHS.reshape(-1, *(1 for _ in shape))).reshape(-1, *shape)
    made = _run(chain, raw, {step.x: given}, out)
    if made is None or len(made) != len(given) or not np.isfinite(made).all():
        return None
    half = len(LENGTHS) // 2 + 3
    rows = np.sqrt((made.reshape(len(given), -1) ** 2).sum(axis=1)).reshape(len(vectors), -1)
    return float(rows.max()) if rows.max() <= SETTLED * rows[:, :half].max() else None


def _chain(source: str, out: str, makers: Mapping[str, Step]) -> list[Step] | None:
    """The steps from a tensor to another in order; None where one is no part of a normalisation."""
    found: dict[int, Step] = {}
    order: list[Step] = []

    def reaches(name: str, depth: int) -> bool:
        if name == source:
            return True
        step = makers.get(name)
        if step is None or depth > LONGEST:
            return False
        if id(step) in found:
            return True
        reached = [reaches(read, depth + 1) for read in step.operands]
        if not any(reached):
            return False
        found[id(step)] = step
        order.append(step)
        return True

    if not reaches(out, 0) or len(order) > LONGEST:
        return None
    return order if all(map(_sound, order)) else None


def _sound(step: Step) -> bool:
    """Whether a step may be part of a normalisation: a square is, other products are not."""
    if rearranges(step) or step.function in PARTS or step.function in _FOLDS:
        return True
    return step.product and step.operands[0] == step.operands[-1]


def _run(chain: list[Step], raw: Program, values: dict[str, Array], out: str) -> Array | None:
    """What a chain makes in float64 of many vectors, along the first axis, gains being one and biases nothing."""
    for step in chain:
        made = _made(step, [values[n] if n in values else _stranger(step, n, raw)[None] for n in step.operands])
        if made is None:
            return None
        values[step.results[0]] = made
    return values.get(out)


@singledispatch
def _made(step: Step, given: list[Array]) -> Array | None:
    raise NotImplementedError(type(step))


@_made.register
def _(step: Einsum, given: list[Array]) -> Array | None:
    return contract(step, given, [1] * len(given))


@_made.register
def _(step: Fold, given: list[Array]) -> Array | None:
    return _FOLDS[step.function](given[0], tuple(k + 1 for k in step.axes))


@_made.register
def _(step: Pointwise, given: list[Array]) -> Array | None:
    rank = max(x.ndim for x in given)
    return compute(step, [x.reshape(x.shape[:1] + (1,) * (rank - x.ndim) + x.shape[1:]) for x in given])


def _stranger(step: Step, name: str, raw: Program) -> Array:
    """An operand that is no part of the normalisation: a table is itself, a gain is one and a bias nothing."""
    if name in raw.tables:
        return raw.tables[name].astype(np.float64)
    neutral = 1.0 if step.function in ("Mul", "Div") else 0.0
    return np.full((1,) * len(raw.shapes[name]), neutral)


_FOLDS: Mapping[str, Callable[[Array, tuple[int, ...]], Array]] = {
    "ReduceL2": lambda x, axes: np.sqrt((x**2).sum(axis=axes)),
    "ReduceSumSquare": lambda x, axes: (x**2).sum(axis=axes),
    "ReduceL1": lambda x, axes: np.abs(x).sum(axis=axes),
}


WIDEST = 2048
"""Longer vectors are left alone: the cost grows with the cube of their length."""


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """A tensor for vectors no longer than the radius: axis 0 of `linear` belongs to the vectors that were put in."""

    radius: float
    centred: bool
    linear: Array
    offset: Array


class Normalised:
    """The tensors of a program that are made of one normalised vector by linear steps."""

    def __init__(self, program: Program, numbers: Numbers) -> None:
        self.program, self.numbers, self.truth = program, numbers, Truth(program)
        self.makers: Mapping[str, Step] = {name: step for step in program.steps for name in step.results}
        self._radii: Mapping[str, float] | None = None

    def affine(self, name: str, probes: int) -> Affine | None:
        """A tensor by what it makes of a basis of the vectors, or of as many random ones as asked for."""
        chain = self._chain(name)
        if chain is None:
            return None
        norm, steps = chain
        whole = self.program.shapes[norm.out]
        count, radius = prod(whole[a] for a in norm.axes), self._radius(norm)
        if radius is None or count > WIDEST or any(self.truth.free(whole[a]) for a in norm.axes):
            return None
        vectors = np.random.default_rng(count).standard_normal((probes, count)) if probes else np.eye(count)
        if norm.function == "standardise":
            vectors = vectors - vectors.mean(axis=1, keepdims=True)
        if probes:
            vectors *= radius / np.linalg.norm(vectors, axis=1, keepdims=True)
        shape = [n if a in norm.axes else 1 for a, n in enumerate(whole)]
        try:
            linear = self._carried(norm.out, steps, vectors.reshape(-1, *shape), 1)
            offset = self._carried(norm.out, steps, np.zeros(shape), 0)
        except (KeyError, TypeError, ArithmeticError, ValueError):
            return None
        return Affine(radius, norm.function == "standardise", linear, offset)

    def _radius(self, norm: Normalise) -> float | None:
        if norm.function not in ("rms", "standardise", "l2"):
            return None
        if norm.node.op in NORMS:
            whole = self.program.shapes[norm.out]
            return sqrt(prod(whole[a] for a in norm.axes)) if norm.function != "l2" else 1.0
        if self._radii is None:
            self._radii = radii(self.program)
        return self._radii.get(norm.out)

    def _chain(self, name: str) -> tuple[Normalise, list[Step]] | None:
        """The normalisation from which a tensor is made by linear steps, and these in order."""
        steps: list[Step] = []
        while True:
            step = self.makers.get(name)
            if isinstance(step, Normalise):
                return step, steps[::-1]
            linear = isinstance(step, (Einsum, Slice)) or _scales(step)
            if step is None or not linear or not (exactly(step) or step.node.op.endswith("Attention")):
                return None
            moving = [n for n in step.operands if n not in self.program.fixed]
            divided = step.function == "Div" and moving[:1] != [step.operands[0]]
            if len(moving) != 1 or divided:
                return None
            steps.append(step)
            name = moving[0]

    def _carried(self, source: str, steps: Sequence[Step], x: Array, lead: int) -> Array:
        """What linear steps make of vectors with an axis of their own in front, or of nothing but their biases."""
        arrays = {source: x}
        for step in steps:
            given = dict(arrays)
            if not lead:
                given |= {n: self.numbers.value(n) for n in step.operands if n in self.program.fixed}
            arrays = self.numbers.apply(step, given, lead)
        return next(iter(arrays.values()))


def _scales(step: Step | None) -> bool:
    return step is not None and (step.known.sums or step.function in ("Mul", "Div", "Identity"))
