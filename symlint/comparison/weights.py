"""All weights of a network: for what each is used, what it stands for, and into which blocks its spaces cut it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from copy import copy
from dataclasses import field, replace
from functools import cached_property
from itertools import combinations, product
from math import prod
from typing import NamedTuple

import numpy as np

from symlint.evidence.context import Context
from symlint.model.clusters import precision
from symlint.model.graph import Array, Node, Shape
from symlint.model.records import dataclass
from symlint.model.stored import packed, unpacked
from symlint.program.functions import dispatched
from symlint.program.numbers import Numbers
from symlint.program.steps import Affine, Einsum, Mix, Pointwise, Program, Step
from symlint.symmetry.axes.terms import Term, together


class Dim(NamedTuple):
    """One leaf of a block: what its units do, where it stands, and how many they are."""

    use: str
    axis: int
    place: int
    leaf: int
    size: int
    term: int = 0
    """Which summand of the axis it is."""


@dataclass(frozen=True, eq=False)
class Block:
    """A part of a weight that holds one leaf per dimension; `dims` are sorted, those of size 1 left out."""

    weight: int
    dims: tuple[Dim, ...]
    positions: tuple[Array, ...]
    """Per axis of the weight, the indices of the block."""

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(d.size for d in self.dims)

    def cut(self, values: Array) -> Array:
        """The block's elements with an axis per dimension, in their order."""
        found = values[np.ix_(*self.positions)] if self.positions else values
        return found.reshape([d.size for d in self._stored]).transpose(self._order)

    def lies_as(self, other: Block) -> bool:
        """Whether it is at the same places as a block of another weight, unit by unit."""
        return self._order == other._order and all(
            np.array_equal(p, q) for p, q in zip(self.positions, other.positions, strict=False)
        )

    def place(self, values: Array, block: Array) -> None:
        """Write a block's elements, with an axis per dimension, where they belong."""
        flat = block.transpose(np.argsort(self._order)).reshape([len(p) for p in self.positions])
        values[np.ix_(*self.positions)] = flat

    @cached_property
    def _stored(self) -> list[Dim]:
        return sorted(self.dims, key=lambda d: (d.axis, d.place))

    @property
    def _order(self) -> list[int]:
        return [self._stored.index(d) for d in self.dims]


@dataclass(frozen=True, eq=False)
class Weight:
    """A stored tensor at one of its uses; a quantised one is what it stands for."""

    name: str
    tensor: str
    """Tensor of the program whose values are meant."""
    dtype: str
    shape: Shape
    kind: str
    order: int
    blocks: tuple[Block, ...]
    step: Array | None = None
    """Of a quantised weight, how far apart its numbers are; 1 where a scale comes only later."""
    scaled: bool = True
    """False where the numbers are those of a grid whose scale is applied to what is computed with them."""

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def unit(self) -> float:
        """Half a unit in the last place, relative."""
        return precision(self.dtype)


WRITES, READS = "out", "sum"
"""An axis whose units the reader's result still has, and one over which it sums."""
_AFFINE = ("gain", "shift", "mean", "variance")


@dataclass(slots=True)
class Reading:
    """How a constant tensor is used, whatever constants it goes through first."""

    axes: list[set[str]]
    """For every axis, the uses of its units."""
    kinds: set[str] = field(default_factory=set)
    first: int = 1 << 60
    """The number of the first step that brings it together with what depends on the input."""

    @property
    def kind(self) -> str:
        """All uses in one word."""
        return "|".join(sorted(self.kinds))


def readings(program: Program, moving: Collection[str]) -> dict[str, Reading]:
    """The reading of every tensor that does not depend on the input and meets what does.

    Args:
        moving: the tensors that depend on the input.
    """
    found: dict[str, Reading] = {}
    uses = _Uses(program)
    for number in range(len(program.steps) - 1, -1, -1):
        step = program.steps[number]
        late = any(out in moving for out in step.results)
        for k, name in enumerate(step.operands):
            if name in moving or name not in program.shapes or name in program.tables:
                continue
            mine = found.setdefault(name, Reading([set() for _ in program.shapes[name]]))
            if late:
                mine.first = number
                mine.kinds.add(uses.kind(step))
                for axis, use in uses.direct(step, k):
                    mine.axes[axis].add(use)
            elif step.results and (made := found.get(step.results[0])) is not None:
                # What is made of a constant is used: so is the constant.
                mine.kinds |= made.kinds
                mine.first = min(mine.first, made.first)
                for axis, passed in uses.passed(step, k, made):
                    mine.axes[axis] |= passed
            if isinstance(step, Affine):
                mine.kinds = {_AFFINE[k]}
    return found


@dataclass(frozen=True, slots=True)
class _Uses:
    """What one step does with the axes of what it reads."""

    program: Program

    @dispatched
    def kind(self, step: Step) -> str:
        """What it does, in a word."""
        return type(step).__name__.lower()

    @kind.register
    def _(self, step: Einsum) -> str:
        return "linear"

    @kind.register
    def _(self, step: Pointwise) -> str:
        added = step.known.sums and not step.known.averages
        return "add" if added else "mul" if step.known.factor else step.function

    @kind.register
    def _(self, step: Mix) -> str:
        return "lookup"

    @dispatched
    def direct(self, step: Step, k: int) -> Iterator[tuple[int, str]]:
        """The axes of operand `k` with what becomes of them."""
        yield from ((axis, WRITES) for axis, size in enumerate(self.program.shapes[step.operands[k]]) if size > 1)

    @direct.register
    def _(self, step: Einsum, k: int) -> Iterator[tuple[int, str]]:
        for axis, labels in enumerate(step.specs[k]):
            for label in labels:
                yield axis, WRITES if label in step.kept else READS

    @direct.register
    def _(self, step: Mix, k: int) -> Iterator[tuple[int, str]]:
        for axis, size in enumerate(self.program.shapes[step.x]):
            if size > 1:
                yield axis, WRITES if axis in step.keep else READS

    @dispatched
    def passed(self, step: Step, k: int, made: Reading) -> Iterator[tuple[int, set[str]]]:
        """The axes of operand `k` with the uses of what they become."""
        shape = self.program.shapes[step.operands[k]]
        lead = len(made.axes) - len(shape)
        for axis, size in enumerate(shape):
            if size > 1 and 0 <= axis + lead < len(made.axes):
                yield axis, made.axes[axis + lead]

    @passed.register
    def _(self, step: Einsum, k: int, made: Reading) -> Iterator[tuple[int, set[str]]]:
        uses: dict[str, set[str]] = {}
        for labels, found in zip(step.result, made.axes, strict=True):
            for label in labels:
                uses.setdefault(label, set()).update(found)
        for axis, labels in enumerate(step.specs[k]):
            for label in labels:
                yield axis, uses.get(label, {READS})

    @passed.register
    def _(self, step: Mix, k: int, made: Reading) -> Iterator[tuple[int, set[str]]]:
        for found, source in zip(made.axes, step.keep, strict=True):
            if source is not None:
                yield source, found


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
        tensors, moved, weights = self.program.model.tensors, self.moved, self.program.weights

        def read(name: str) -> Array:
            stored = weights[name]  # a tensor has a name for each of its uses
            return moved[stored] if stored in moved else tensors[stored].read().astype(np.float64)

        return Numbers(self.program, read)

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
