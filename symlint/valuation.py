"""Forward: the abstract value of every tensor of a program."""

from __future__ import annotations

from collections.abc import Mapping
from functools import singledispatchmethod

import numpy as np

from symlint.contraction import contract
from symlint.elementwise import alike_in_all, elementwise
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
        self.put(step.out, elementwise(self.names, step, [self.values[name] for name in step.operands]))

    @step.register
    def _(self, step: Concat) -> None:
        values = [self.values[name] for name in step.operands]
        target = self.shape(step.out)
        if not self.carried[step.out][step.axis]:
            wide = np.broadcast_shapes(target, *(_single(v, step.axis).shape for v in values))
            if all(v.shape[step.axis] == 1 for v in values) and all(v.labels is not None for v in values):
                self.put(step.out, alike_in_all(self.names, values))
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


def _left(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for k, n in enumerate(shape) if k not in axes)


def _single(value: Value, axis: int) -> Value:
    """One index along an axis."""
    return Value(None, value.scale.take([0], axis=axis))
