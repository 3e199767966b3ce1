"""Forward: the abstract value of every tensor of a program."""

from __future__ import annotations

from collections.abc import Mapping
from functools import singledispatchmethod

import numpy as np

from symlint.contraction import contract
from symlint.evaluate import evaluate
from symlint.graph import Array
from symlint.program import (
    Affine,
    Concat,
    Einsum,
    Fold,
    Mix,
    Normalise,
    Pointwise,
    Program,
    Slice,
    Step,
    Unknown,
)
from symlint.values import Names, Value, alike, known, tidy

LINEAR = frozenset({"Add", "Sub", "Sum", "Mean"})
STILL = frozenset({"Identity", "Dropout", "Neg"})
LIMIT = 1 << 23


def valuate(program: Program, carried: Mapping[str, tuple[bool, ...]]) -> tuple[dict[str, Value], Names]:
    """The value of every tensor; `carried` says which of its axes carry units and are written out."""
    forward = _Forward(program, carried)
    for step in program.steps:
        forward.step(step)
    return forward.values, forward.names


class _Forward:
    def __init__(self, program: Program, carried: Mapping[str, tuple[bool, ...]]) -> None:
        self.program, self.carried = program, carried
        self.names = Names()
        self.values: dict[str, Value] = {name: known(value) for name, value in program.tables.items()}
        for name, stored in program.weights.items():
            self.values[name] = known(program.model.tensors[stored].read())
        for name in program.inputs:
            self.values[name] = self.names.fresh(self.shape(name))

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape in which a tensor's value is written."""
        shape = tuple(n if kept else 1 for n, kept in zip(self.program.shapes[name], self.carried[name], strict=True))
        return shape if np.prod(shape, dtype=np.int64) <= LIMIT else tuple(1 for _ in shape)

    def fits(self, name: str, value: Value) -> Value:
        """The value in the shape in which its tensor is written; unknown where it has another."""
        shape = self.shape(name)
        if value.labels is None and value.shape == self.program.shapes[name]:
            return value
        if value.shape == shape:
            return value
        if all(a in (1, b) for a, b in zip(value.shape, shape, strict=False)) and len(value.shape) == len(shape):
            if value.labels is None:
                return known(np.broadcast_to(value.scale, shape))
            spread = [
                np.arange(b) if a != b else np.zeros(b, np.int64) for a, b in zip(value.shape, shape, strict=True)
            ]
            places = np.zeros(shape, np.int64)
            for axis, index in enumerate(spread):
                places = places * len(index) + index.reshape([-1 if k == axis else 1 for k in range(len(shape))])
            labels = self.names.derive(np.broadcast_to(value.labels, shape), places)
            return tidy(
                np.where(np.broadcast_to(value.labels, shape) == 0, 0, labels), np.broadcast_to(value.scale, shape)
            )
        return self.names.fresh(shape)

    def put(self, name: str, value: Value) -> None:
        """Remember the value of a tensor."""
        self.values[name] = self.fits(name, value)

    @singledispatchmethod
    def step(self, step: Step) -> None:
        """Values of a step's outputs."""
        raise NotImplementedError(type(step))

    @step.register
    def _(self, step: Einsum) -> None:
        values = [self.values[name] for name in step.operands]
        self.put(step.out, contract(self.names, step, values, self.shape(step.out)))

    @step.register
    def _(self, step: Pointwise) -> None:
        values = [self.values[name] for name in step.operands]
        if all(v.labels is None for v in values):
            self.put(step.out, self._numbers(step, [v.scale for v in values]))
        elif len(values) == 1:
            self.put(step.out, self._unary(step, values[0]))
        elif step.function in LINEAR:
            self.put(step.out, self._sum(step, values))
        elif step.law.kind == "product" and all(d is not None for d in step.law.degrees):
            self.put(step.out, self._product(step, values))
        else:
            self.put(step.out, self._any(step, values))

    def _numbers(self, step: Pointwise, numbers: list[Array]) -> Value:
        made = _compute(step, numbers)
        if made is None:
            return self.names.fresh(np.broadcast_shapes(*(n.shape for n in numbers)))
        return known(made)

    def _unary(self, step: Pointwise, x: Value) -> Value:
        """Homogeneous functions keep the scale and may tell the signs apart; others see label and scale."""
        if step.function in STILL:
            return x if step.function != "Neg" else Value(x.labels, -x.scale)
        if step.law.kind == "product" and step.law.degrees[0] == 1:
            labels, scale = self.names.derive(x.numbers, np.signbit(x.scale).astype(np.int64)), np.abs(x.scale)
        else:
            labels, scale = self.names.derive(x.numbers, alike(x.scale)), np.ones(x.shape)
        constant = x.constant
        if constant.any():
            made = self._numbers(step, [x.scale[constant]])
            if made.labels is None:
                labels[constant] = 0
                scale[constant] = made.scale
        return tidy(labels, scale)

    def _sum(self, step: Pointwise, values: list[Value]) -> Value:
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
        made = self.names.derive(*parts[0], *parts[1], alike(fixed / safe))
        alone = (count == 1) & (fixed == 0)
        made = np.where(count == 0, 0, np.where(alone, only, made))
        return tidy(made, np.where(count == 0, fixed, lead))

    def _product(self, step: Pointwise, values: list[Value]) -> Value:
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
        made = self.names.derive(*ordered)
        return tidy(np.where(count == 0, 0, np.where(plain, only, made)), scale)

    def _any(self, step: Pointwise, values: list[Value]) -> Value:
        """Any other function: equal where everything it reads is equal, a number where everything is."""
        made = self._alike(values)
        constant = np.ones(made.shape, bool)
        for v in values:
            constant = constant & v.constant
        if constant.any():
            numbers = [np.broadcast_to(v.scale, made.shape)[constant] for v in values]
            if (result := _compute(step, numbers)) is not None:
                made.numbers[constant], made.scale[constant] = 0, result
        return tidy(made.numbers, made.scale)

    def _alike(self, values: list[Value]) -> Value:
        shape = np.broadcast_shapes(*(v.shape for v in values))
        columns = [c for v in values for c in (v.numbers, alike(v.scale))]
        labels = self.names.derive(*(np.broadcast_to(c, shape) for c in columns))
        return Value(labels, np.ones(shape))

    @step.register
    def _(self, step: Concat) -> None:
        values = [self.values[name] for name in step.operands]
        target = self.shape(step.out)
        if not self.carried[step.out][step.axis]:
            wide = np.broadcast_shapes(target, *(_single(v, step.axis).shape for v in values))
            if all(v.shape[step.axis] == 1 for v in values) and all(v.labels is not None for v in values):
                self.put(step.out, self._alike(values))
            else:
                self.put(step.out, self.names.fresh(target if len(wide) == len(target) else wide))
            return
        parts: list[Value] = []
        for name, v in zip(step.operands, values, strict=True):
            shape = list(target)
            shape[step.axis] = self.program.shapes[name][step.axis]
            if (
                any(a not in (1, b) for a, b in zip(v.shape, shape, strict=True))
                or v.shape[step.axis] != shape[step.axis]
            ):
                parts.append(self.names.fresh(shape))
            else:
                parts.append(Value(np.broadcast_to(v.numbers, shape), np.broadcast_to(v.scale, shape)))
        if all(v.labels is None for v in values):
            self.put(step.out, known(np.concatenate([p.scale for p in parts], axis=step.axis)))
            return
        labels = np.concatenate([p.numbers for p in parts], axis=step.axis)
        self.put(step.out, Value(labels, np.concatenate([p.scale for p in parts], axis=step.axis)))

    @step.register
    def _(self, step: Slice) -> None:
        x = self.values[step.x]
        if x.shape[step.axis] == 1 and self.program.shapes[step.x][step.axis] > 1:
            labels = self.names.derive(x.numbers, steady=True)
            self.put(step.out, tidy(np.where(x.constant, 0, labels), x.scale))
            return
        cut = (*(slice(None),) * step.axis, slice(step.start, step.stop))
        self.put(step.out, Value(None if x.labels is None else x.labels[cut], x.scale[cut]))

    @step.register
    def _(self, step: Mix) -> None:
        x = self.values[step.x]
        dropped = tuple(k for k in range(len(x.shape)) if k not in step.keep)
        labels, scale = self._rows(x, dropped)
        kept = [k for k in range(len(x.shape)) if k not in dropped]
        order = [kept.index(k) for k in step.keep if k is not None]
        if step.steady and all(x.shape[k] == 1 for k in dropped):
            labels = np.where(x.constant.reshape(labels.shape), 0, labels)
        labels, scale = labels.transpose(order), scale.transpose(order)
        shape = [1 if k is None else x.shape[k] for k in step.keep]
        self.put(step.out, tidy(labels.reshape(shape), scale.reshape(shape)))

    def _rows(self, x: Value, axes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """What a homogeneous map along `axes` makes of each remaining element: the axes are gone."""
        if all(x.shape[k] == 1 for k in axes):
            sign = np.signbit(x.scale).astype(np.int64)
            labels = self.names.derive(x.numbers, np.where(x.constant, 0, sign), steady=True)
            scale = np.where(x.constant, x.scale, np.abs(x.scale))
            return labels.reshape(_left(x.shape, axes)), scale.reshape(_left(x.shape, axes))
        moved = [np.moveaxis(a, axes, range(len(axes))) for a in (x.numbers, alike(x.scale))]
        columns = [c for a in moved for c in a.reshape(-1, *_left(x.shape, axes))]
        zero = np.moveaxis(x.zero, axes, range(len(axes))).reshape(-1, *_left(x.shape, axes)).all(axis=0)
        made = self.names.derive(*columns) if len(columns) <= 4096 else self.names.fresh(zero.shape).numbers
        return made, np.where(zero, 0.0, 1.0)

    @step.register
    def _(self, step: Normalise) -> None:
        x = self.values[step.x]
        axes = tuple(k for k in step.axes if x.shape[k] > 1)
        context, _ = self._rows(x, axes) if axes else (np.zeros((), np.int64), None)
        for k in axes:
            context = np.expand_dims(context, k)
        labels = self.names.derive(x.numbers, alike(x.scale), np.broadcast_to(context, x.shape))
        vanish = (
            x.constant if step.function == "standardise" and not axes else x.zero & (step.function in ("rms", "l2"))
        )
        self.put(step.out, tidy(labels, np.where(vanish, 0.0, 1.0)))

    @step.register
    def _(self, step: Fold) -> None:
        labels, scale = self._rows(self.values[step.x], step.axes)
        self.put(step.out, tidy(labels, scale))

    @step.register
    def _(self, step: Affine) -> None:
        gain, bias, mean, var = (self.values[n] for n in (step.gain, step.bias, step.mean, step.var))
        if any(v.labels is not None for v in (gain, bias, mean, var)):
            self.put(step.scale, self.names.fresh(self.shape(step.scale)))
            self.put(step.shift, self.names.fresh(self.shape(step.shift)))
            return
        scale = gain.scale / np.sqrt(var.scale.astype(np.float64) + step.epsilon)
        self.put(step.scale, known(scale))
        self.put(step.shift, known(bias.scale - mean.scale * scale))

    @step.register
    def _(self, step: Unknown) -> None:
        for name in step.outs:
            self.put(name, self.names.fresh(self.shape(name)))


def _compute(step: Pointwise, numbers: list[Array]) -> Array | None:
    """The function of a step on known numbers, in float64 where it takes them; None where it cannot be had."""
    node = step.node
    attributes = node.attributes if step.function == node.op else {}
    for dtype in (np.float64, np.float32):
        inputs = [n if n.dtype.kind in "biu" else n.astype(dtype) for n in numbers]
        try:
            made = evaluate(step.function, node.opset, attributes, inputs)
        except Exception:
            continue
        if made is not None and np.isfinite(np.asarray(made[0], np.float64)).all():
            return np.asarray(made[0])
    return None


def _left(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for k, n in enumerate(shape) if k not in axes)


def _single(value: Value, axis: int) -> Value:
    """One index along an axis."""
    return Value(None, value.scale.take([0], axis=axis))
