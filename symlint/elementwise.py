"""The abstract value of an elementwise function."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from symlint.evaluate import evaluate
from symlint.graph import Array
from symlint.parity import ODD
from symlint.program import Pointwise
from symlint.values import Names, Value, alike, known, tidy

SUMS = frozenset({"Add", "Sub", "Sum", "Mean"})
STILL = frozenset({"Identity", "Dropout", "Neg"})
NEWEST = 20
"""The operator set in which functions of other domains are evaluated."""


def elementwise(names: Names, step: Pointwise, values: list[Value]) -> Value:
    """The value of `step.out`: a number where all operands are, else a base that what it reads determines."""
    if all(v.labels is None for v in values):
        return _numbers(names, step, [v.scale for v in values])
    if len(values) == 1:
        return _unary(names, step, values[0])
    if step.function in SUMS:
        return _sum(names, step, values)
    if step.law.kind == "product" and all(d is not None for d in step.law.degrees):
        return _product(names, step, values)
    if step.function == "Where" and step.law.degrees[:1] == (None,):
        return _choice(names, values[0], values[1:])
    if step.law.kind == "product" and step.law.degrees[0] == 1:
        return _any(names, step, values, homogeneous=True)
    return _any(names, step, values)


def _numbers(names: Names, step: Pointwise, numbers: list[Array]) -> Value:
    made = compute(step, numbers)
    if made is None:
        return names.fresh(np.broadcast_shapes(*(n.shape for n in numbers)))
    return known(made)


def _unary(names: Names, step: Pointwise, x: Value) -> Value:
    """Homogeneous functions keep the scale and may tell the signs apart; others see label and scale."""
    if step.function in STILL:
        return x if step.function != "Neg" else Value(x.labels, -x.scale)
    if step.law.kind == "product" and step.law.degrees[0] == 1:
        labels = names.derive(x.numbers, np.signbit(x.scale).astype(np.int64), steady=True)
        scale = np.abs(x.scale)
    elif step.function in ODD:
        labels = names.derive(x.numbers, alike(np.abs(x.scale)), steady=True)
        scale = np.where(x.scale < 0, -1.0, 1.0)
    else:
        labels, scale = names.derive(x.numbers, alike(x.scale), steady=True), np.ones(x.shape)
    constant = x.constant
    if constant.any():
        made = _numbers(names, step, [x.scale[constant]])
        if made.labels is None:
            labels[constant] = 0
            scale[constant] = made.scale
    return tidy(labels, scale)


def _sum(names: Names, step: Pointwise, values: list[Value]) -> Value:
    """Signed terms: the first that is no constant sets the scale."""
    signs = [-1.0 if step.function == "Sub" and k else 1.0 for k in range(len(values))]
    divide = len(values) if step.function == "Mean" else 1
    shape = np.broadcast_shapes(*(v.shape for v in values))
    labels = np.stack([np.broadcast_to(v.numbers, shape) for v in values])
    scales = np.stack([np.broadcast_to(v.scale * s, shape) for v, s in zip(values, signs, strict=True)]) / divide
    fixed = (np.where(labels == 0, scales, 0.0)).sum(axis=0)
    moving = labels != 0
    count = moving.sum(axis=0)
    lead = np.take_along_axis(scales, moving.argmax(axis=0)[None], axis=0)[0]
    only = np.take_along_axis(labels, moving.argmax(axis=0)[None], axis=0)[0]
    safe = np.where(count > 0, lead, 1.0)
    parts = [np.where(moving, labels, 0), alike(np.where(moving, scales / safe, 0.0))]
    noise = sum((np.broadcast_to(v.noise, shape) for v in values if v.noise is not None), np.zeros(shape))
    made = names.derive(*parts[0], *parts[1], alike(fixed / safe, noise / np.abs(safe)))
    alone = (count == 1) & (fixed == 0)
    made = np.where(count == 0, 0, np.where(alone, only, made))
    return tidy(made, np.where(count == 0, fixed, lead))


def _product(names: Names, step: Pointwise, values: list[Value]) -> Value:
    """Numbers multiply the scale; bases multiply to a new base, whatever their order."""
    shape = np.broadcast_shapes(*(v.shape for v in values))
    labels = np.stack([np.broadcast_to(v.numbers, shape) for v in values])
    inverted = np.array([d != 1 for d in step.law.degrees])
    scale = np.ones(shape)
    for v, flip in zip(values, inverted, strict=True):
        with np.errstate(divide="ignore"):
            scale = scale * np.broadcast_to(
                np.where(v.scale == 0, 0, 1 / np.where(v.scale == 0, 1, v.scale)) if flip else v.scale, shape
            )
    moving = labels != 0
    count = moving.sum(axis=0)
    only = np.take_along_axis(labels, moving.argmax(axis=0)[None], axis=0)[0]
    plain = (count == 1) & ~inverted[moving.argmax(axis=0)]
    ordered = labels if inverted.any() else np.sort(labels, axis=0)
    made = names.derive(*ordered)
    return tidy(np.where(count == 0, 0, np.where(plain, only, made)), scale)


def _any(names: Names, step: Pointwise, values: list[Value], *, homogeneous: bool = False) -> Value:
    """Any other function: equal where everything it reads is equal, a number where everything is.

    A `homogeneous` one keeps the size of its first operand's scale.
    """
    first = values[0]
    if homogeneous:
        sign = Value(first.numbers, np.where(np.signbit(first.scale), -1.0, 1.0))
        made = alike_in_all(names, [sign, *values[1:]])
        made = Value(made.labels, np.broadcast_to(np.abs(first.scale), made.shape).copy())
    else:
        made = alike_in_all(names, values)
    labels, scale = made.numbers, made.scale
    constant = np.ones(made.shape, bool)
    for v in values:
        constant = constant & v.constant
    if constant.any():
        numbers = [np.broadcast_to(v.scale, made.shape)[constant] for v in values]
        if (result := compute(step, numbers)) is not None:
            labels[constant], scale[constant] = 0, result
    return tidy(labels, scale)


def _choice(names: Names, condition: Value, values: list[Value]) -> Value:
    """One of several values or their sum, by a condition: of the scale of the first that is not zero."""
    shape = np.broadcast_shapes(condition.shape, *(v.shape for v in values))
    labels = np.stack([np.broadcast_to(v.numbers, shape) for v in values])
    scales = np.stack([np.broadcast_to(v.scale, shape).astype(np.float64) for v in values])
    there = ~np.stack([np.broadcast_to(v.zero, shape) for v in values])
    lead = np.take_along_axis(scales, there.argmax(axis=0)[None], axis=0)[0]
    nothing = ~there.any(axis=0)
    relative = alike(np.where(there, scales, 0.0) / np.where(nothing, 1.0, lead))
    told = [np.broadcast_to(c, shape) for c in (condition.numbers, alike(condition.scale))]
    return tidy(names.derive(*told, *labels, *relative), np.where(nothing, 0.0, lead))


def alike_in_all(names: Names, values: list[Value]) -> Value:
    """Equal where all of `values` are, and of them nothing else is known."""
    shape = np.broadcast_shapes(*(v.shape for v in values))
    columns = [c for v in values for c in (v.numbers, alike(v.scale))]
    labels = names.derive(*(np.broadcast_to(c, shape) for c in columns))
    return Value(labels, np.ones(shape))


def _tried(function: str, opset: int, attributes: Mapping[str, Any], inputs: list[Array]) -> tuple[Array, ...] | None:
    try:
        return evaluate(function, opset, attributes, inputs)
    except Exception:  # whatever the evaluator does not take stays unknown
        return None


def compute(step: Pointwise, numbers: list[Array]) -> Array | None:
    """The function of a step on known numbers, in float64 where it takes them; None where it cannot be had."""
    node = step.node
    if step.function.endswith("QuantizeLinear") and len(numbers) > 1:
        return _quantised(*numbers[:3])
    attributes = node.attributes if step.function == node.op else {}
    function, opset = step.function.rpartition(".")[2], node.opset if "." not in node.op else NEWEST
    # What a quantiser subtracts from its levels does not wrap round, as ONNX's own Sub of small integers does.
    whole = "biu" if step.function == node.op else "b"
    for dtype in (np.float64, np.float32):
        inputs = [n if n.dtype.kind in whole else n.astype(dtype) for n in numbers]
        made = _tried(function, opset, attributes, inputs)
        if made is not None and np.isfinite(np.asarray(made[0], np.float64)).all():
            return np.asarray(made[0])
    return None


def _quantised(y: Array, scale: Array, zero: Array | None = None) -> Array | None:
    """Numbers on a grid of 8 bits; None where it is not known whether they fit on it."""
    level = np.rint(y.astype(np.float64) / scale) + (0 if zero is None else zero.astype(np.float64))
    if zero is not None and zero.dtype in (np.int8, np.uint8):
        return np.clip(level, np.iinfo(zero.dtype).min, np.iinfo(zero.dtype).max)
    return level if np.all((level >= 0) & (level <= 127)) else None
