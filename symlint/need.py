"""Backward: which elements of a tensor can reach an output at all."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from symlint.dispatch import dispatched
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
from symlint.regrouping import apart
from symlint.values import Value

Mask = NDArray[np.bool_]
LIMIT = 1 << 26


def needs(program: Program, values: Mapping[str, Value]) -> dict[str, Mask]:
    """For every computed tensor, in the shape of its value: whether an element contributes to some output.

    An element that is zero for every input contributes nothing where it is multiplied.
    """
    backward = _Backward(program, values)
    for step in reversed(program.steps):
        backward.step(step)
    return backward.masks


class _Backward:
    def __init__(self, program: Program, values: Mapping[str, Value]) -> None:
        self.program = program
        self.values = values
        self.masks: dict[str, Mask] = {}
        for name in program.outputs:
            self.give(name, np.ones((), bool))

    def give(self, name: str, mask: Mask) -> None:
        """An element is needed wherever one use needs it."""
        value = self.values[name]
        if value.labels is None:
            return
        shape = value.shape
        extra = tuple(range(mask.ndim - len(shape))) if mask.ndim > len(shape) else ()
        mask = np.asarray(np.any(mask, axis=extra)) if extra else mask
        for k in range(1, len(shape) + 1):
            if k <= mask.ndim and mask.shape[-k] > 1 and shape[-k] == 1:
                mask = np.asarray(np.any(mask, axis=mask.ndim - k, keepdims=True))
        try:
            wide = np.broadcast_to(mask, shape)
        except ValueError:
            wide = np.ones(shape, bool)
        self.masks[name] = self.masks[name] | wide if name in self.masks else wide.copy()

    def got(self, name: str) -> Mask:
        """What later steps need of a tensor."""
        return self.masks.get(name, np.zeros(self.values[name].shape, bool))

    @dispatched
    def step(self, step: Step) -> None:
        """Pass the need of a step's outputs on to its operands."""
        raise NotImplementedError(type(step))

    @step.register
    def _(self, step: Einsum) -> None:
        need = self.got(step.out)
        sizes = dict(step.sizes)
        grids = [apart(~self.values[n].zero, spec, sizes) for n, spec in zip(step.operands, step.specs, strict=True)]
        made = apart(need, step.result, sizes)
        for k, name in enumerate(step.operands):
            if self.values[name].labels is None:
                continue
            parts = [g for g in (*grids, made) if g is not None]
            mine = grids[k]
            if mine is None or len(parts) <= len(grids):
                self.give(name, np.ones((), bool))
                continue
            self.give(name, self._any(parts, mine, sizes, self.values[name]))

    @staticmethod
    def _any(
        parts: list[tuple[Mask, list[str]]], mine: tuple[Mask, list[str]], sizes: dict[str, int], value: Value
    ) -> Mask:
        """Whether some combination of the other labels has every factor."""
        own = mine[1]
        others = [label for label in sizes if label not in own]
        order = [*own, *others]
        total = np.ones((1,) * len(order), bool)
        for mask, labels in parts:
            place = [labels.index(label) for label in order if label in labels]
            shape = [mask.shape[labels.index(label)] if label in labels else 1 for label in order]
            grid = mask.transpose(place).reshape(shape)
            if np.prod(np.broadcast_shapes(total.shape, grid.shape), dtype=np.int64) > LIMIT:
                return np.ones((), bool)
            total = total & grid
        found = np.asarray(np.any(total, axis=tuple(range(len(own), len(order)))))
        reduced = tuple(k for k, n in enumerate(mine[0].shape) if n == 1 and found.shape[k] > 1)
        found = np.asarray(np.any(found, axis=reduced, keepdims=True)) if reduced else found
        return np.broadcast_to(found, mine[0].shape).reshape(value.shape)

    @step.register
    def _(self, step: Pointwise) -> None:
        need = self.got(step.out)
        multiplied = step.law.kind == "product" and len(step.operands) > 1
        for k, name in enumerate(step.operands):
            mask = need
            if multiplied:
                for j, other in enumerate(step.operands):
                    mask = mask & ~self.values[other].zero if j != k or step.law.degrees[j] == 1 else mask
            self.give(name, mask)

    @step.register
    def _(self, step: Concat) -> None:
        need = self.got(step.out)
        start = 0
        for name in step.operands:
            size = self.program.shapes[name][step.axis]
            whole = need.shape[step.axis] == 1
            cut = (*(slice(None),) * step.axis, slice(None) if whole else slice(start, start + size))
            self.give(name, need[cut])
            start += size

    @step.register
    def _(self, step: Slice) -> None:
        need, shape = self.got(step.out), self.values[step.x].shape
        if shape[step.axis] == 1 or self.values[step.x].labels is None:
            self.give(step.x, need)
            return
        alike = tuple(k for k, n in enumerate(shape) if n == 1 and need.shape[k] > 1)  # places not told apart before
        mask = np.zeros(shape, bool)
        mask[(*(slice(None),) * step.axis, slice(step.start, step.stop))] = need.any(axis=alike, keepdims=True)
        self.give(step.x, mask)

    @step.register
    def _(self, step: Mix) -> None:
        need, shape = self.got(step.out), self.values[step.x].shape
        new = tuple(k for k, source in enumerate(step.keep) if source is None)
        need = np.asarray(np.any(need, axis=new))
        kept = [k for k in step.keep if k is not None]
        need = need.transpose(np.argsort(kept))
        for k in range(len(shape)):
            if k not in kept:
                need = np.expand_dims(need, k)
        self.give(step.x, need)

    @step.register
    def _(self, step: Normalise) -> None:
        self.give(step.x, np.asarray(np.any(self.got(step.out), axis=step.axes, keepdims=True)))

    @step.register
    def _(self, step: Fold) -> None:
        need = self.got(step.out)
        for k in step.axes:
            need = np.expand_dims(need, k)
        self.give(step.x, need)

    @step.register
    def _(self, step: Affine) -> None:
        for name in (step.gain, step.bias, step.mean, step.var):
            self.give(name, np.ones((), bool))

    @step.register
    def _(self, step: Unknown) -> None:
        for name in step.operands:
            self.give(name, np.ones((), bool))
