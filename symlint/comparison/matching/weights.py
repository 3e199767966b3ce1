"""All weights of a network: for what each is used, what it stands for, and into which blocks its spaces cut it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import replace
from functools import cached_property
from itertools import combinations, product
from math import prod

import numpy as np

from symlint.axes.terms import Term, together
from symlint.comparison.matching.blocks import Block, Dim, Weight
from symlint.comparison.matching.readings import Reading, readings
from symlint.evidence.context import Context
from symlint.model.graph import Array, Node, Shape
from symlint.model.packing import packed, unpacked
from symlint.program.numbers import Numbers
from symlint.program.steps import Step

VECTORS = ("add", "shift", "mean", "variance", "gain", "mul")
"""Kinds of weights that hold a number per unit and write or read nothing."""
MOST = 256
"""A weight that its spaces cut into more blocks than this stays whole."""


class Weights:
    """All weights of one network, each of which is read when it is asked for."""

    def __init__(self, context: Context) -> None:
        self.moved: Mapping[str, Array] = {}
        self.loose: Mapping[str, float] = {}
        """Stored tensor -> how far rounding may have moved its numbers that were computed of others."""
        self.context, self.program = context, context.structure.program
        self.axes, self.expansion = context.structure.axes, context.structure.expansion
        self.readings = readings(self.program, context.moving)
        self.all = tuple(self._found())
        self.blocks = tuple(block for weight in self.all for block in weight.blocks)

    def read(self, weight: Weight) -> Array | None:
        """The numbers of a weight, of its own shape; None where they cannot be told."""
        if weight.name in self.moved and weight.tensor in self.program.weights:
            return self.moved[weight.name].reshape(weight.shape)
        if weight.tensor in self.program.weights:
            return self.program.model.tensors[self.program.weights[weight.tensor]].read().reshape(weight.shape)
        if weight.tensor in self.program.model.tensors:
            return self.program.model.tensors[weight.tensor].read()
        if weight.name in self._packed:
            made = unpacked(self.program.model, self._packed[weight.name], self.moved)
            return made[0] if made and made[0].shape == weight.shape else None
        value = self.number(weight.tensor)
        return None if value is None else np.broadcast_to(value, weight.shape)

    @cached_property
    def broken(self) -> str | None:
        """The first stored one that holds NaN or infinity, which is at no distance from anything."""
        model = self.program.model
        stored = (w.name for w in self.all if w.name in model.tensors)
        return next((name for name in stored if not model.digests.of(model.tensors[name]).finite), None)

    @cached_property
    def _packed(self) -> Mapping[str, Node]:
        return packed(self.program.model)

    def at(self, values: Mapping[str, Array]) -> Weights:
        """The same weights where some stored tensors have other values."""
        other = copy(self)
        other.moved = values
        other.__dict__.pop("numbers", None)
        return other

    @property
    def quantised(self) -> bool:
        """Whether some weights are levels of a grid."""
        return any(weight.step is not None or not weight.scaled for weight in self.all)

    def number(self, name: str) -> Array | None:
        """The value of a constant tensor in float64; None where it cannot be told."""
        try:
            return self.numbers.value(name)
        except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError):  # a step that is not followed
            return None

    @cached_property
    def numbers(self) -> Numbers:
        """The constant tensors that they make."""
        tensors, moved = self.program.model.tensors, self.moved
        return Numbers(self.program, lambda n: moved[n] if n in moved else tensors[n].read().astype(np.float64))

    def _found(self) -> Iterator[Weight]:
        tensors = self.program.model.tensors
        statistics = self.program.statistics & self.program.weights.keys()
        wanted = {*self.program.parameters, *(self.program.weights[n] for n in statistics)}
        index = 0
        seen = set()
        for name, stored in self.program.weights.items():
            if stored not in wanted or not tensors[stored].size:
                continue
            seen.add(stored)
            tensor, step, scaled = (name, None, True) if tensors[stored].floating else self._lifted(name)
            reading = self.readings.get(tensor)
            blocks = tuple(self._blocks(index, tensor, reading))
            kind, order = (reading.kind, reading.first) if reading else ("unread", 1 << 60)
            few = self._packed.get(stored)
            dtype = f"uint{few.attributes.get('bits', 4)}" if few else tensors[stored].dtype
            yield Weight(stored, tensor, dtype, self.program.shapes[tensor], kind, order, blocks, step, scaled)
            index += 1
        for stored in sorted(n for n in wanted - seen if tensors[n].size):
            mine = tensors[stored]
            blocks = (self._whole(index, mine.shape, None),)
            yield Weight(stored, stored, mine.dtype, mine.shape, "opaque", 1 << 60, blocks)
            index += 1

    def _lifted(self, name: str) -> tuple[str, Array | None, bool]:
        """What a quantised tensor stands for, how far apart its numbers are, and whether its scale is in them."""
        stored = self.program.weights[name]
        step: Array | None = None
        scaled = False
        while (maker := self._next.get(name)) and maker.function in _LIFTING:
            if maker.function == "Mul":
                others = [self.number(n) for n in maker.operands if n != name]
                if all(v is not None for v in others):
                    step = np.abs(prod(v for v in others if v is not None))
                    scaled = True
            name = maker.results[0]
        if stored in self._packed:
            made = unpacked(self.program.model, self._packed[stored])
            return name, None if made is None else made[1], True
        return name, None if step is None else _fitted(step, self.program.shapes[name]), scaled

    @cached_property
    def _next(self) -> Mapping[str, Step]:
        """Constant -> the only step that reads it, where that makes another constant."""
        moving, reads = self.context.moving, Counter[str]()
        found: dict[str, Step] = {}
        for step in self.program.steps:
            for name in step.operands:
                reads[name] += 1
                if name not in moving and step.results and moving.isdisjoint(step.results):
                    found[name] = step
        return {name: step for name, step in found.items() if reads[name] == 1}

    def _blocks(self, index: int, name: str, reading: Reading | None) -> Iterator[Block]:
        shape = self.program.shapes[name]
        rows = [self.expansion.terms(f) for f in self.axes.of[name]]
        if prod(map(len, rows)) > MOST or not rows:
            yield self._whole(index, shape, reading)
            return
        chosen = (tuple(zip(*found, strict=True)) for found in product(*(enumerate(row) for row in rows)))
        made = [self._block(index, at, terms, reading) for at, terms in chosen if _together(terms)]
        whole = sum(block.size for block in made) == prod(shape)
        yield from made if whole else [self._whole(index, shape, reading)]

    def _block(self, index: int, at: tuple[int, ...], terms: tuple[Term, ...], reading: Reading | None) -> Block:
        dims = [
            Dim(_use(reading, axis), axis, place, leaf, self.axes.factors.size(leaf), at[axis])
            for axis, term in enumerate(terms)
            for place, leaf in enumerate(term.leaves)
        ]
        return Block(index, tuple(sorted(dims)), tuple(t.positions.reshape(-1) for t in terms))

    def whole(self, index: int) -> Block:
        """All of a weight as one block, each of whose axes is one factor, however other files cut it."""
        weight, find = self.all[index], self.axes.factors.find
        if weight.tensor not in self.axes.of:
            return weight.blocks[0]
        made = self._whole(index, weight.shape, self.readings.get(weight.tensor))
        of = self.axes.of[weight.tensor]
        return replace(made, dims=tuple(d._replace(leaf=find(of[d.axis])) for d in made.dims))

    def _whole(self, index: int, shape: Shape, reading: Reading | None) -> Block:
        """All of a weight as one block, each of whose axes has units that are nowhere else."""
        dims = [Dim(_use(reading, k), k, 0, -1 - 64 * index - k, n) for k, n in enumerate(shape) if n > 1]
        return Block(index, tuple(sorted(dims)), tuple(np.arange(n) for n in shape))


_LIFTING = ("", "Identity", "Cast", "Sub", "Add", "Mul", "Div")


def _fitted(step: Array, shape: Shape) -> Array:
    """The steps of a grid in the shape of the weight; the widest for all where they do not fit it."""
    if step.size == prod(shape):
        return step.reshape(shape)
    fits = len(step.shape) <= len(shape) and all(
        n in (1, m) for n, m in zip(step.shape[::-1], shape[::-1], strict=False)
    )
    return step if fits else np.asarray(step.max())


def _use(reading: Reading | None, axis: int) -> str:
    return "|".join(sorted(reading.axes[axis])) if reading and axis < len(reading.axes) else ""


def _together(terms: tuple[Term, ...]) -> bool:
    """Whether the terms of different axes are there at once."""
    return all(together(a, b) is not None for a, b in combinations(terms, 2))
