"""Sums over paths: how much of what gets from the inputs of a network to its outputs passes through each unit.

A path is a way through the weights, and counts with the square of their product. What reaches a unit from the inputs
times what leads from it to the outputs is the same in every gauge (Neyshabur et al., Path-SGD, NeurIPS 2015). Pairs of
units are followed where a rotation may mix them. Activations pass what they get, bounded ones at most 1; gates and
normalisations make it 1; biases write nothing; a product multiplies.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np

from symlint.analysis.paths.bending import Elements, root
from symlint.analysis.paths.contracting import contract
from symlint.analysis.paths.squares import Layout
from symlint.analysis.values.lattice import Value
from symlint.model.graph import Array
from symlint.program.dispatch import dispatched
from symlint.program.steps import (
    Affine,
    Concat,
    Einsum,
    Fold,
    Mix,
    Normalise,
    Pointwise,
    Slice,
    Step,
    Unknown,
)


class Forward(Elements):
    """What reaches every tensor from the inputs: its second moments, if every weight were one path."""

    def __init__(self, layout: Layout, values: Mapping[str, Value]) -> None:
        super().__init__(layout, values)
        with np.errstate(all="ignore"):
            for step in self.program.steps:
                self.step(step)

    def inverse(self, name: str, axes: tuple[int, ...]) -> Array:
        """One over the size of the elements together along axes: a shape that broadcasts to the tensor's."""
        return root(self.squares(name).mean(axis=axes, keepdims=True), -1.0)

    @dispatched
    def step(self, step: Step) -> None:
        """The moments of what a step makes."""
        raise NotImplementedError(type(step))

    @step.register
    def _(self, step: Affine) -> None:
        """Its values are known, if any are."""

    @step.register
    def _(self, step: Unknown) -> None:
        self.found.update((name, self.ones(name)) for name in step.outs)

    # -- contractions ---------------------------------------------------------------------------------------------
    @step.register
    def _(self, step: Einsum) -> None:
        if step.out in self.moving:
            self.put(step.out, self.contracted(step))

    def contracted(
        self, step: Einsum, target: int | None = None, asked: Array | None = None, layout: Layout | None = None
    ) -> Array:
        """The moments of the result of a contraction, or what of one operand is `asked`; in another layout if given."""
        layout = layout or self.layout
        numbers = [self.number(name) for name in step.operands]
        known = [(v, step.specs[k]) for k, v in enumerate(numbers) if v is not None]
        squares = [
            (name, step.specs[k], self.summed(step, k))
            for k, name in enumerate(step.operands)
            if numbers[k] is None and k != target
        ]
        left = {x for axis in step.result for x in axis}
        if target is None or asked is None:
            return contract(layout, (step.out, step.result), squares, known, step.sizes, left)
        wanted = (step.operands[target], step.specs[target])
        return contract(layout, wanted, [*squares, (step.out, step.result, asked)], known, step.sizes, left)

    def summed(self, step: Einsum, k: int) -> Array:
        """The moments of an operand; where it is summed over, only with pairs that count then."""
        name, made = step.operands[k], {x for axis in step.result for x in axis}
        axes = [j for j, a in enumerate(step.specs[k]) if any(x not in made and step.sizes[x] > 1 for x in a)]
        return self.layout.masked(name, self.of(name), summed=axes) if self.layout.paired else self.of(name)

    # -- elements -------------------------------------------------------------------------------------------------
    @step.register
    def _(self, step: Pointwise) -> None:
        if step.out in self.moving:
            self.put(step.out, self.layout.scaled(step.out, self.plain(step), self.passed(step)))

    # -- along axes -----------------------------------------------------------------------------------------------
    @step.register
    def _(self, step: Concat) -> None:
        if step.out in self.moving:
            stops = np.cumsum([self.program.shapes[name][step.axis] for name in step.operands])
            parts = [
                self.part(
                    step.out, name, self.of(name), step.axis, int(b) - self.program.shapes[name][step.axis], int(b)
                )
                for b, name in zip(stops, step.operands, strict=True)
                if name in self.moving
            ]
            self.put(step.out, sum(parts, start=np.zeros(self.of_shape(step.out))))

    def part(self, out: str, name: str, square: Array, axis: int, start: int, stop: int) -> Array:
        """The moments of a piece of a tensor, where it is in the whole."""
        made = np.zeros(self.of_shape(out))
        cut = self.cut(out, axis, start, stop)
        if self.layout.alike(name, out, axis):
            made[cut] = square
            return made
        squares = np.zeros(self.layout.shape(out))
        whole = cut[: squares.ndim]
        squares[whole] = self.layout.averaged(self.layout.diagonal(name, square), squares[whole].shape)
        return self.layout.spread(out, squares)

    @step.register
    def _(self, step: Slice) -> None:
        if step.out in self.moving:
            self.put(step.out, self.piece(step.out, step.x, self.of(step.x), step.axis, step.start, step.stop))

    def piece(self, out: str, x: str, square: Array, axis: int, start: int, stop: int) -> Array:
        """The moments of a piece of a tensor."""
        cut = self.cut(x, axis, start, stop)
        if self.layout.alike(x, out, axis):
            return square[cut]
        squares = self.layout.diagonal(x, square)
        return self.layout.spread(out, self.layout.averaged(squares[cut[: squares.ndim]], self.layout.shape(out)))

    def cut(self, name: str, axis: int, start: int, stop: int) -> tuple[slice, ...]:
        """An index of the moments of a tensor that leaves some elements of one axis."""
        here = [axis, *(len(self.layout.shape(name)) + j for j, k in enumerate(self.layout.doubled(name)) if k == axis)]
        written = self.layout.shape(name)[axis] == self.program.shapes[name][axis]
        part = slice(start, stop) if written else slice(None)
        return tuple(part if k in here else slice(None) for k in range(len(self.of_shape(name))))

    @step.register
    def _(self, step: Mix) -> None:
        if step.out not in self.moving:
            return
        number = self.number(step.x)
        if number is None:
            self.put(step.out, self.layout.carry(step.x, step.out, self.of(step.x), step.keep, joined=False))
        else:
            self.put(step.out, self.layout.table(step.out, number, step.keep))

    @step.register
    def _(self, step: Fold) -> None:
        if step.out in self.moving:
            keep = [k for k in range(len(self.program.shapes[step.x])) if k not in step.axes]
            self.put(step.out, self.layout.carry(step.x, step.out, self.of(step.x), keep, joined=False))

    @step.register
    def _(self, step: Normalise) -> None:
        if step.out not in self.moving:
            return
        if step.known.shares:
            count = prod(self.program.shapes[step.x][k] for k in step.axes)
            self.found[step.out] = self.ones(step.out) / count**2
            return
        centred = self.centred(step, self.of(step.x))
        self.put(step.out, centred)
        self.put(step.out, self.layout.scaled(step.out, centred, self.inverse(step.out, step.axes)))

    def centred(self, step: Normalise, square: Array) -> Array:
        """Without the mean, where the step takes it away along one axis of which pairs are known."""
        twice = self.layout.doubled(step.x)
        less = step.known.shares or step.function == "standardise"
        if not less or len(step.axes) != 1 or step.axes[0] not in twice:
            return square
        for k in (step.axes[0], len(self.layout.shape(step.x)) + twice.index(step.axes[0])):
            square = square - square.mean(axis=k, keepdims=True)
        return square
