"""Forward: the abstract value of every tensor of a program."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from symlint.clusters import ROUNDING, precision
from symlint.contraction import contract
from symlint.dispatch import dispatched
from symlint.elementwise import alike_in_all, elementwise
from symlint.graph import Array
from symlint.program import (
    NONE,
    Affine,
    Concat,
    Einsum,
    Fold,
    Law,
    Mix,
    Normalise,
    Pointwise,
    Program,
    Slice,
    Step,
    Unknown,
)
from symlint.regrouping import collapse
from symlint.values import Labels, Names, Value, alike, known, tidy

LIMIT = 1 << 23
Carried = Mapping[str, tuple[bool, ...]]
Silent = Mapping[str, NDArray[np.bool_]]


def valuate(program: Program, carried: Carried, silent: Silent) -> tuple[dict[str, Value], Names]:
    """The value of every tensor; `carried`: axes that carry units are written out; `silent`: what counts as zero."""
    forward = _Forward(program, carried, silent)
    for step in program.steps:
        forward.step(step)
    return forward.values, forward.names


class _Forward:
    def __init__(self, program: Program, carried: Carried, silent: Silent) -> None:
        self.program, self.carried = program, carried
        self.names = Names()
        self.values: dict[str, Value] = {name: known(value) for name, value in program.tables.items()}
        for name, stored in program.weights.items():
            values = program.model.tensors[stored].read()
            self.values[name] = known(
                np.where(silent[name], values.dtype.type(0), values) if name in silent else values
            )
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

    @dispatched
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
        if any(v.labels is not None for v in values):
            values = [self.narrow(v, self.shape(step.out)) for v in values]
        self.put(step.out, elementwise(self.names, step, values))

    def narrow(self, value: Value, shape: tuple[int, ...]) -> Value:
        """A known table as an unknown base along the axes that carry no units in `shape`."""
        lead = len(shape) - len(value.shape)
        axes = tuple(k for k, n in enumerate(value.shape) if n > 1 and shape[k + lead] == 1)
        if not axes:
            return value
        labels, scale = collapse(self.names, value.numbers, value.scale, axes)
        self.names.uniform.update(np.unique(labels).tolist())
        return Value(labels, scale)

    @step.register
    def _(self, step: Concat) -> None:
        values = [self.values[name] for name in step.operands]
        target = self.shape(step.out)
        if not self.carried[step.out][step.axis]:
            self.put(step.out, self._beside([self.narrow(v, target) for v in values]))
            return
        parts: list[Value] = []
        for name, value in zip(step.operands, values, strict=True):
            shape = list(target)
            shape[step.axis] = self.program.shapes[name][step.axis]
            v = value if value.labels is not None else self.narrow(value, tuple(shape))
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

    def _beside(self, values: list[Value]) -> Value:
        """Values put behind each other along an axis that carries no units: together they are one base."""
        made = alike_in_all(self.names, values)
        columns = [np.broadcast_to(v.numbers, made.shape) for v in values]
        sizes = [np.broadcast_to(v.scale, made.shape) for v in values]
        same = np.all([(c == 0) & (size == sizes[0]) for c, size in zip(columns, sizes, strict=True)], axis=0)
        still = np.all(np.isin(columns, list(self.names.uniform)), axis=0)
        self.names.uniform.update(np.unique(made.numbers[still & ~same]).tolist())
        return tidy(np.where(same, 0, made.numbers), np.where(same, sizes[0], made.scale))

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
        labels, scale = self._rows(x, dropped, step.law)
        kept = [k for k in range(len(x.shape)) if k not in dropped]
        order = [kept.index(k) for k in step.keep if k is not None]
        if step.steady and step.law.kind != "none" and all(x.shape[k] == 1 for k in dropped):
            constant = x.constant.reshape(labels.shape)
            labels, scale = np.where(constant, 0, labels), np.where(constant, x.scale.reshape(labels.shape), scale)
        labels, scale = labels.transpose(order), scale.transpose(order)
        shape = [1 if k is None else x.shape[k] for k in step.keep]
        self.put(step.out, tidy(labels.reshape(shape), scale.reshape(shape)))

    def _rows(self, x: Value, axes: tuple[int, ...], law: Law) -> tuple[Labels, Array]:
        """What a map along `axes` makes of each remaining element: the axes are gone."""
        if all(x.shape[k] == 1 for k in axes) and law.kind == "none":
            labels = self.names.derive(x.numbers, alike(x.scale), steady=True)
            return labels.reshape(_left(x.shape, axes)), np.ones(_left(x.shape, axes))
        if all(x.shape[k] == 1 for k in axes):
            degree = float((law.degrees[0] if law.degrees else None) or 1)
            sign = np.signbit(x.scale).astype(np.int64)
            labels = self.names.derive(x.numbers, sign, steady=True)
            scale = np.abs(x.scale) ** degree
            return labels.reshape(_left(x.shape, axes)), scale.reshape(_left(x.shape, axes))
        moved = [np.moveaxis(a, axes, range(len(axes))) for a in (x.numbers, alike(x.scale))]
        columns = [c for a in moved for c in a.reshape(-1, *_left(x.shape, axes))]
        zero = np.moveaxis(x.zero, axes, range(len(axes))).reshape(-1, *_left(x.shape, axes)).all(axis=0)
        made = self.names.derive(*columns) if len(columns) <= 4096 else self.names.fresh(zero.shape).numbers
        return made, np.where(zero & (law.kind != "none"), 0.0, 1.0)

    @step.register
    def _(self, step: Normalise) -> None:
        x = self.values[step.x]
        axes = tuple(k for k in step.axes if x.shape[k] > 1)
        context, _ = self._rows(x, axes, NONE) if axes else (np.zeros((), np.int64), None)
        for k in axes:
            context = np.expand_dims(context, k)
        labels = self.names.derive(x.numbers, alike(x.scale), np.broadcast_to(context, x.shape))
        vanish = x.zero & (step.function in ("rms", "l2"))
        if step.function == "standardise":
            first = x.scale
            for k in axes:
                first = first.take([0], axis=k)
            vanish = x.constant & (x.scale == first) if axes else x.constant
            for k in axes:
                vanish = np.broadcast_to(vanish.all(axis=k, keepdims=True), x.shape)
        self.put(step.out, tidy(labels, np.where(vanish, 0.0, 1.0)))

    @step.register
    def _(self, step: Fold) -> None:
        labels, scale = self._rows(self.values[step.x], step.axes, step.law)
        self.put(step.out, tidy(labels, scale) if step.law.kind != "none" else Value(labels, scale))

    @step.register
    def _(self, step: Affine) -> None:
        gain, bias, mean, var = (self.values[n] for n in (step.gain, step.bias, step.mean, step.var))
        if any(v.labels is not None for v in (gain, bias, mean, var)):
            self.put(step.scale, self.names.fresh(self.shape(step.scale)))
            self.put(step.shift, self.names.fresh(self.shape(step.shift)))
            return
        scale = gain.scale / np.sqrt(var.scale.astype(np.float64) + step.epsilon)
        self.put(step.scale, known(scale))
        off = ROUNDING * precision("float32") * (np.abs(bias.scale) + np.abs(mean.scale * scale))
        self.put(step.shift, known(bias.scale - mean.scale * scale, off))

    @step.register
    def _(self, step: Unknown) -> None:
        for name in step.outs:
            self.put(name, self.names.fresh(self.shape(name)))


def _left(shape: tuple[int, ...], axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for k, n in enumerate(shape) if k not in axes)
