"""The range of an elementwise function over intervals of its operands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf

import numpy as np

from symlint.analysis.bounds.interval import Interval, between, joined, negated, paired, point, product, total, widened
from symlint.model.graph import Array
from symlint.program.functions import Attributes, Course, Dipping, Rising, function
from symlint.program.steps import Pointwise

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
