"""Lengths: weights that are stored as directions and lengths, and put together by the network.

A weight ``g v / |v|`` (weight normalisation) can be brought to any numbers by its direction v and its length g, which
nothing else reads: whatever acts on weights acts on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import numpy as np

from symlint.model.graph import Array
from symlint.model.records import dataclass
from symlint.program.dispatch import dispatched
from symlint.program.steps import SAME, SUM, Einsum, Fold, Pointwise, Program, Step, rearranges


@dataclass(frozen=True, slots=True)
class Length:
    """What makes a weight of a direction and a length."""

    direction: str
    length: str
    axes: tuple[int, ...]
    """Along which each length is taken."""

    def made(self, direction: Array, length: Array) -> Array:
        """The weight."""
        return np.asarray(direction / np.sqrt((direction**2).sum(axis=self.axes, keepdims=True)) * length)

    def brought(self, after: Array, direction: Array, length: Array) -> dict[str, Array]:
        """Direction and length that make other numbers; a direction keeps its own length, and a length its sign."""
        sizes = [np.sqrt((x**2).sum(axis=self.axes, keepdims=True)) for x in (after, direction)]
        sign = np.where(length < 0, -1.0, 1.0)
        shape = (1,) * (after.ndim - length.ndim) + length.shape
        there = sizes[0] > 0
        turned = after / np.where(there, sizes[0], 1.0) * sizes[1] * sign.reshape(shape)
        return {
            self.direction: np.where(there, turned, direction),
            self.length: sizes[0].reshape(length.shape) * sign,
        }


def lengths(program: Program) -> dict[str, Length]:
    """The weights that a program makes of a direction and a length, by the product that is the weight."""
    products = [step for step in program.elementwise if step.known.factor and len(step.operands) == 2]
    if all(step.known.factor > 0 for step in products):
        return {}
    search = _Search(program)
    return {step.out: found for step in products if (found := search.length(step)) is not None}


Norm = tuple[str, tuple[int, ...], int]
"""A tensor of which something is the length, the axes along which it is, and how often it is read for that."""


class _Search:
    """What the products of one program are made of."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.makers = {step.out: step for step in program.elementwise}

    def length(self, step: Pointwise) -> Length | None:
        """The direction and the length of which a product is made, if it is."""
        program = self.program
        powers = dict(self._factors(step.out, 1))
        weights = [n for n, power in powers.items() if power == 1 and n in program.weights]
        below = [n for n, power in powers.items() if power == -1]
        maker = program.producers.get(below[0]) if len(powers) == 3 and len(weights) == 2 and below else None
        norm = self.norm(maker) if maker is not None else None
        if norm is None or norm[0] not in weights:
            return None
        direction, axes, times = norm
        (length,) = (n for n in weights if n != direction)
        shape, mine = program.shapes[step.out], program.shapes[length]
        apart = tuple(1 if k in axes else n for k, n in enumerate(shape))
        tensors, stored = program.model.tensors, program.weights
        free = program.reads[direction] == times + 1 and program.reads[length] == 1
        free = free and all(n not in program.detached and tensors[stored[n]].floating for n in weights)
        whole = program.shapes[direction] == shape and (1,) * (len(shape) - len(mine)) + mine == apart
        return Length(direction, length, axes) if whole and free else None

    def _factors(self, name: str, power: int) -> Iterator[tuple[str, int]]:
        """What a tensor is the product of, with exponents; what others read as well is not taken apart."""
        step = self.makers.get(name)
        if step is None or not step.known.factor or len(step.operands) != 2:
            yield name, power
            return
        for k, operand in enumerate(step.operands):
            mine = power if step.known.factor > 0 or not k else -power
            if self.program.reads[operand] == 1:
                yield from self._factors(operand, mine)
            else:
                yield operand, mine

    @dispatched
    def norm(self, step: Step) -> Norm | None:
        """Of what a step makes the length, and along which axes."""
        return None

    @norm.register
    def _(self, step: Fold) -> Norm | None:
        return (step.x, step.axes, 1) if step.known.turns and step.law in (SAME, SUM) else None

    @norm.register
    def _(self, step: Einsum) -> Norm | None:
        below = self.program.producers.get(step.operands[0])
        alone = step.linear and _summed(step) == () and self.program.reads[step.operands[0]] == 1
        return self.norm(below) if alone and below is not None else None

    @norm.register
    def _(self, step: Pointwise) -> Norm | None:
        total = self.program.producers.get(step.operands[0])
        axes = _summed(total) if rearranges(total) and step.law.degrees == (Fraction(1, 2),) else None
        square = self.makers.get(total.operands[0]) if axes and total is not None else None
        if not axes or square is None or self.program.reads[square.out] != 1:
            return None
        x = square.operands[0]
        power = square.known.power and square.law.degrees[:1] == (Fraction(2),)
        if not power and (square.operands != (x, x) or square.known.factor < 1):
            return None
        return x, axes, square.operands.count(x)


def _summed(step: Einsum) -> tuple[int, ...] | None:
    """The axes that a rearrangement sums over, where it does no more than that and leaves no axis in another place."""
    (spec,) = step.specs
    kept = step.kept
    left = [axis for axis in spec if not kept.isdisjoint(axis) and any(step.sizes[x] > 1 for x in axis)]
    made = [axis for axis in step.result if any(step.sizes[x] > 1 for x in axis)]
    lone = all(len([x for x in axis if step.sizes[x] > 1]) < 2 for axis in (*spec, *step.result))
    labels = [[x for axis in axes for x in axis if step.sizes[x] > 1] for axes in (left, made)]
    gone = tuple(k for k, axis in enumerate(spec) if any(step.sizes[x] > 1 and x not in kept for x in axis))
    return gone if lone and labels[0] == labels[1] else None
