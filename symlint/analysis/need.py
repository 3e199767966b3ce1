"""Backward: which elements of a tensor can reach an output at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import prod

import numpy as np
from numpy.typing import NDArray

from symlint.analysis.values.contraction import apart, joined, pieces
from symlint.analysis.values.lattice import Value
from symlint.analysis.values.rows import Verdicts
from symlint.analysis.values.weights import Blockwise, Weight, absent
from symlint.model.graph import Shape
from symlint.program.functions import dispatched
from symlint.program.steps import (
    RANGE,
    Affine,
    Concat,
    Einsum,
    Fold,
    Loop,
    Mix,
    Normalise,
    Pointwise,
    Program,
    Slice,
    Step,
    Unknown,
)

Mask = NDArray[np.bool_]
LIMIT = 1 << 26


@lru_cache(maxsize=64)
def _every(rank: int) -> Mask:
    """All elements of a tensor, whatever its size."""
    return np.broadcast_to(np.True_, (1,) * rank)


@lru_cache(maxsize=512)
def _everywhere(shape: Shape) -> Mask:
    """All elements of a tensor of this shape."""
    return np.broadcast_to(np.True_, shape)


def _all(mask: Mask) -> bool:
    """Whether a mask is that of all elements, written as one."""
    return mask.size == 1 and bool(mask.item())


def needs(program: Program, values: Mapping[str, Value], verdicts: Verdicts | None = None) -> dict[str, Mask]:
    """For every computed tensor, in the shape of its value: whether an element contributes to some output.

    An element that is zero for every input contributes nothing where it is multiplied.

    Args:
        program: the network.
        values: of its tensors.
        verdicts: what is known of the weights from other analyses.
    """
    backward = _Backward(program, values, Verdicts() if verdicts is None else verdicts)
    grown = [True]
    while any(grown):
        for step in reversed(program.steps):
            backward.step(step)
        # Of a state is needed what the next step needs, which is known when that of the step itself is.
        grown = [backward.closes(loop) for loop in program.loops if not loop.flows]
    return {name: _spread(mask, values[name].shape) for name, mask in backward.masks.items()}


def _spread(mask: Mask, shape: Shape) -> Mask:
    if mask.shape == shape:
        return mask
    return _everywhere(shape) if _all(mask) else np.broadcast_to(mask, shape)


class _Backward:
    """Masks have size 1 along axes along which they do not change."""

    def __init__(self, program: Program, values: Mapping[str, Value], verdicts: Verdicts) -> None:
        self.program, self.values, self.verdicts = program, values, verdicts
        self.masks: dict[str, Mask] = {}
        for name in program.finals.difference(loop.output for loop in program.loops):
            self.give(name, np.ones((), bool))

    def there(self, name: str) -> Mask:
        """Which elements of a tensor are not zero for every input."""
        value = self.values[name]
        if value.plain or self.verdicts.whole(value):
            return _every(len(value.shape))
        source: object = value.held.read if isinstance(value.held, Weight) else None
        mask = source.present if isinstance(source, Blockwise) else ~absent(value.slim)
        return _every(mask.ndim) if mask.size > 1 and mask.all() else mask

    def give(self, name: str, mask: Mask) -> None:
        """An element is needed wherever one use needs it."""
        value = self.values[name]
        if value.bases is None:
            return
        before = self.masks.get(name)
        if before is not None and _all(before):
            return
        shape = value.shape
        if _all(mask):
            self.masks[name] = _every(len(shape))
            return
        extra = tuple(range(mask.ndim - len(shape))) if mask.ndim > len(shape) else ()
        mask = np.asarray(np.any(mask, axis=extra)) if extra else mask
        mask = mask.reshape((1,) * (len(shape) - mask.ndim) + mask.shape)
        for k in range(1, len(shape) + 1):
            if mask.shape[-k] > 1 and shape[-k] == 1:
                mask = np.asarray(np.any(mask, axis=mask.ndim - k, keepdims=True))
        if any(n not in (1, m) for n, m in zip(mask.shape, shape, strict=True)):
            mask = _every(len(shape))
        made = mask if before is None else before | mask
        self.masks[name] = _every(len(shape)) if made.all() else made

    def closes(self, loop: Loop) -> bool:
        """Need of a state that leaves what is needed when it comes back; whether that is more than before."""
        before = self.got(loop.output)
        self.give(loop.output, self.got(loop.input))
        after = self.got(loop.output)
        return before.shape != after.shape or not np.array_equal(before, after)

    def got(self, name: str) -> Mask:
        """What later steps need of a tensor."""
        return self.masks.get(name, np.zeros((1,) * len(self.values[name].shape), bool))

    @dispatched
    def step(self, step: Step) -> None:
        """Pass the need of a step's outputs on to its operands."""
        raise NotImplementedError(type(step))

    @step.register
    def _(self, step: Einsum) -> None:
        moving = [k for k, name in enumerate(step.operands) if self.values[name].bases is not None]
        if not moving:
            return
        need, there = self.got(step.out), [self.there(name) for name in step.operands]
        if all(map(_all, (need, *there))):
            for name in step.operands:
                self.give(name, need)
            return
        shapes = [self.values[name].shape for name in step.operands]
        made = apart(need, self.values[step.out].shape, step.result, step.sizes)
        grids = [
            apart(mask, shape, spec, step.sizes) for mask, shape, spec in zip(there, shapes, step.specs, strict=True)
        ]
        orders = [[label for axis in spec for label in axis] for spec in (*step.specs, step.result)]
        parts = [(g, order) for g, order in zip((*grids, made), orders, strict=True) if g is not None]
        for k in moving:
            name, own = step.operands[k], orders[k]
            cuts = pieces(shapes[k], step.specs[k], step.sizes)
            if grids[k] is None or cuts is None or len(parts) <= len(grids):
                self.give(name, np.ones((), bool))
                continue
            flat = [n for cut in cuts for n in cut]
            ends = np.cumsum([len(cut) for cut in cuts]).tolist()
            groups = [range(end - len(cut), end) for end, cut in zip(ends, cuts, strict=True)]
            self.give(name, joined(self._any(parts, own, flat, step.sizes), tuple(flat), groups))

    @staticmethod
    def _any(
        parts: Sequence[tuple[Mask, list[str]]], own: list[str], shape: Sequence[int], sizes: Mapping[str, int]
    ) -> Mask:
        """Whether some combination of the other labels has every factor."""
        others = [label for label in sizes if label not in own]
        order = [*own, *others]
        total = np.ones((1,) * len(order), bool)
        parts = [(mask, labels) for mask, labels in parts if not _all(mask)]
        for j, (mask, labels) in enumerate(parts):
            met = {*own, *(label for k, (_, other) in enumerate(parts) if k != j for label in other)}
            alone = tuple(k for k, label in enumerate(labels) if label not in met)
            some = np.asarray(np.any(mask, axis=alone, keepdims=True)) if alone else mask
            place = [labels.index(label) for label in order if label in labels]
            wide = [some.shape[labels.index(label)] if label in labels else 1 for label in order]
            grid = some.transpose(place).reshape(wide)
            if prod(np.broadcast_shapes(total.shape, grid.shape)) > LIMIT:
                return np.ones((1,) * len(own), bool)
            total = total & grid
        found = np.asarray(np.any(total, axis=tuple(range(len(own), len(order)))))
        reduced = tuple(k for k, n in enumerate(shape) if n == 1 and found.shape[k] > 1)
        return np.asarray(np.any(found, axis=reduced, keepdims=True)) if reduced else found

    @step.register
    def _(self, step: Pointwise) -> None:
        need = self.got(step.out)
        multiplied = step.law.kind == "product" and len(step.operands) > 1
        for k, name in enumerate(step.operands):
            mask = need
            if multiplied and self.values[name].bases is not None:
                # A slope or a bound, which has no degree, may be zero and let something through.
                factors = [j for j, degree in enumerate(step.law.degrees) if degree is not None]
                for j in factors:
                    if j != k or step.law.degrees[j] == 1:
                        there = self.there(step.operands[j])
                        mask = mask if _all(there) and there.ndim <= mask.ndim else mask & there
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
        if shape[step.axis] == 1 or self.values[step.x].bases is None:
            self.give(step.x, need)
            return
        alike = tuple(k for k, n in enumerate(shape) if n == 1 and need.shape[k] > 1)  # places not told apart before
        need = np.asarray(need.any(axis=alike, keepdims=True))
        mask = np.zeros([n if k == step.axis else need.shape[k] for k, n in enumerate(shape)], bool)
        mask[(*(slice(None),) * step.axis, slice(step.start, step.stop))] = need
        self.give(step.x, mask)

    @step.register
    def _(self, step: Mix) -> None:
        need, shape = self.got(step.out), self.values[step.x].shape
        if step.chosen is not None and self.values[step.x].bases is not None:
            axis, indices = step.chosen
            if shape[axis] == self.program.shapes[step.x][axis]:
                need = np.broadcast_to(need, [len(indices) if k == axis else n for k, n in enumerate(need.shape)])
                mask = np.zeros([shape[axis] if k == axis else n for k, n in enumerate(need.shape)], bool)
                into, asked = np.moveaxis(mask, axis, 0), np.moveaxis(need, axis, 0)
                for place, index in enumerate(indices):
                    into[index] |= asked[place]
                self.give(step.x, mask)
                return
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
        need = np.asarray(np.any(self.got(step.out), axis=step.axes, keepdims=True))
        # To a length, and to that alone, it is the same whether a zero is there.
        self.give(step.x, need & self.there(step.x) if step.function == "l2" else need)

    @step.register
    def _(self, step: Fold) -> None:
        need = self.got(step.out)
        for k in step.axes:
            need = np.expand_dims(need, k)
        self.give(step.x, need & self.there(step.x) if step.function == RANGE else need)

    @step.register
    def _(self, step: Affine) -> None:
        for name in (step.gain, step.bias, step.mean, step.var):
            self.give(name, np.ones((), bool))

    @step.register
    def _(self, step: Unknown) -> None:
        for name in step.operands:
            self.give(name, np.ones((), bool))
