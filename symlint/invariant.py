"""What of a linear space can be observed: the product of its readers and its writers, copy by copy.

GL(n) takes writers A to g A and readers B to B inverse(g); which of the two sides is called which does not matter. The
rank of B A, less what translations make of it, is the number of units that the space needs.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import prod

import numpy as np

from symlint.action import Stand, stands
from symlint.clusters import precision
from symlint.freedom import Freedom
from symlint.graph import Array
from symlint.passage import Passage, Passages
from symlint.side import Side, columns, orthonormal
from symlint.spectrum import Rank, rank, surely_full
from symlint.structure import Action, Structure
from symlint.terms import Term

WIDEST = 4096
"""Wider spaces are left alone: the cost grows with the cube of the width."""
ENOUGH = 2
"""Rows per unit that a certificate of full rank looks at."""
WRITES, READS = Fraction(1), Fraction(-1)


@dataclass(frozen=True, slots=True)
class Product:
    """The product of one space whose rank is low in some copies."""

    generator: str
    passage: Passage
    width: int
    copies: int
    low: Mapping[int, Rank]
    """Copy -> its rank, where that is below what width, writers and readers allow."""
    total: int
    """The ranks that the copies could have, added up."""
    parameters: Mapping[int, int]
    """Copy of low rank -> its weights per unit, written and read."""


def general_linear(action: Action) -> bool:
    """Whether an action is by all invertible matrices: writers turn by g and readers by its inverse."""
    return action.kind == "rotation" and {WRITES, READS} <= set(action.charge.values())


def products(structure: Structure, passages: Passages) -> Iterator[Product]:
    """The spaces with copies of low rank."""
    rotated, freedom = frozenset(a.leaf for a in structure.actions.values() if a.kind == "rotation"), Freedom(structure)
    for action in structure.actions.values():
        if general_linear(action) and structure.axes.factors.size(action.leaf) <= WIDEST:
            found = Factors(structure, action, rotated).product(passages, freedom)
            if found is not None:
                yield found


class Factors:
    """The writers and the readers of a space."""

    def __init__(self, structure: Structure, action: Action, rotated: frozenset[int]) -> None:
        self.structure, self.action, self.rotated = structure, action, rotated
        program, factors = structure.program, structure.axes.factors
        self.width = factors.size(action.leaf)
        self.sizes = [factors.size(c) for c in action.copies]
        self.charge = {
            o: c for o, c in action.charge.items() if o.tensor in program.weights and o.tensor not in program.detached
        }
        tensors = {program.weights[o.tensor] for o in self.charge}
        self.unit = max((precision(program.model.tensors[t].dtype) for t in tensors), default=0.0)

    def product(self, passages: Passages, freedom: Freedom) -> Product | None:
        """The product, where some copy is low; None where there are no writers or readers, or none is."""
        if {WRITES, READS} - set(self.charge.values()):
            return None
        places: dict[str, list[Stand]] = {}
        for name, stand in (*self._found(WRITES), *self._found(READS)):
            places.setdefault(name, []).append(stand)
        changes = freedom.of(places)
        doubtful = [
            k for k, (a, b) in enumerate(self._sides(changes, ENOUGH * self.width)) if not surely_full(a, b, self.unit)
        ]
        if not doubtful:
            return None
        low: dict[int, Rank] = {}
        parameters: dict[int, int] = {}
        bounds: list[int] = []
        for k, sides in enumerate(self._sides(changes)):
            bounds.append(min(self.width, *(x.capacity for x in sides)))
            if k in doubtful and (found := rank(*sides, bounds[k], self.unit)).low:
                low[k], parameters[k] = found, sum(len(x.rows) for x in sides)
        if not low:
            return None
        way = passages.of({o.tensor for o in self.action.charge})
        return Product(self.action.id, way, self.width, prod(self.sizes), low, sum(bounds), parameters)

    def _sides(self, changes: Sequence[Mapping[str, Array]], most: int | None = None) -> Iterator[tuple[Side, Side]]:
        """Per copy, writers and readers; `most` rows of them if given."""
        weights = {o.tensor: self._read(o.tensor) for o in self.charge}
        sides = []
        for side in (WRITES, READS):
            rows = self.rows(weights, side, most)
            moved = [c for c in changes if any(name in c for name, _ in self._found(side))]
            free = [[columns(x) for x in self.rows(change, side, most)] for change in moved]
            blocks = self._blocks(side, most)
            sides.append([_side(x, blocks[k], [f[k] for f in free]) for k, x in enumerate(rows)])
        yield from zip(*sides, strict=True)

    def _read(self, name: str) -> Array:
        program = self.structure.program
        return program.model.tensors[program.weights[name]].read()

    def rows(self, values: Mapping[str, Array], side: Fraction, most: int | None = None) -> list[Array]:
        """Per copy, what every row of weights gives to the units or takes from them: (rows, n); zeros where missing."""
        shapes = self.structure.program.shapes
        found = [
            self._cut(values.get(name, np.broadcast_to(0.0, shapes[name])), stand, most)
            for name, stand in self._found(side)
        ]
        return [np.concatenate(parts) for parts in zip(*found, strict=True)]

    def _blocks(self, side: Fraction, most: int | None) -> list[Array]:
        """Per copy, a number for every row that is the same for those that a rotation of their own mixes."""
        expansion, axes = self.structure.expansion, self.structure.axes.of
        parts, start = [], 0
        for name, stand in self._found(side):
            shape, label = self.structure.program.shapes[name], np.zeros((1,) * len(axes[name]), np.int64)
            for k, f in enumerate(axes[name]):
                if k != stand.axis:
                    line = _mixed(expansion.terms(f), self.rotated, shape[k])
                    label = label * shape[k] + line.reshape([-1 if j == k else 1 for j in range(len(shape))])
            cut = self._cut(np.broadcast_to(label + start, shape), stand, most)
            parts.append([rows[:, 0] for rows in cut])
            start += int(label.max()) + 1
        return [np.unique(np.concatenate(p), return_inverse=True)[1].reshape(-1) for p in zip(*parts, strict=True)]

    def _found(self, side: Fraction) -> Iterator[tuple[str, Stand]]:
        """The weights of one side, with each occurrence of the space in them."""
        wanted = {(o.tensor, o.axis, o.term, o.place) for o, c in self.charge.items() if c == side}
        for name in sorted({tensor for tensor, *_ in wanted}):
            axes = self.structure.axes.of[name]
            for stand in stands(self.structure.expansion, axes, self.action.leaf, self.action.copies):
                if (name, stand.axis, stand.term, stand.place) in wanted:
                    yield name, stand

    def _cut(self, values: Array, stand: Stand, most: int | None) -> list[Array]:
        """One occurrence as rows over the units, per copy."""
        rest = [k for k in range(values.ndim) if k not in (*stand.others, stand.axis)]
        lead = len(stand.others)
        lines = values.transpose(*stand.others, *rest, stand.axis)
        lines = lines.reshape(*lines.shape[:lead], -1, lines.shape[-1])
        owner = _owners(stand, self.sizes, lines.shape[:lead])
        if most is not None:
            each = max(1, owner.size // prod(self.sizes))
            few = -(-most // each)
            if few < lines.shape[lead]:
                chosen = np.random.default_rng(few).choice(lines.shape[lead], few, replace=False)
                lines = lines.take(np.sort(chosen), axis=lead)
        block = np.moveaxis(lines[..., stand.grid], lead + 1 + stand.place, -1)
        owner = owner.reshape((*owner.shape[:lead], 1, *owner.shape[lead:]))
        rows, own = block.reshape(-1, self.width), np.broadcast_to(owner, block.shape[:-1]).reshape(-1)
        order = np.argsort(own, kind="stable")
        ends = np.searchsorted(own[order], range(prod(self.sizes) + 1))
        return [rows[order[a:b]] for a, b in pairwise(ends)]


def _side(rows: Array, blocks: Array, free: Sequence[Array]) -> Side:
    return Side(rows, blocks, orthonormal(np.hstack([np.zeros((len(rows), 0)), *free])))


def _owners(stand: Stand, sizes: Sequence[int], lead: tuple[int, ...]) -> Array:
    """The copy that each grid line belongs to, -1 where the occurrence is not there: (others..., rest of the grid)."""
    index = np.zeros((1,) * stand.here.ndim, np.int64)
    for copy, size in zip(stand.copies, sizes, strict=True):
        index = index * size + copy
    grid = tuple(1 if k == stand.place else n for k, n in enumerate(stand.grid.shape))
    found = np.broadcast_to(np.where(stand.here, index, -1), (*lead, *grid))
    return found.reshape((*lead, *(n for k, n in enumerate(grid) if k != stand.place)))


def _mixed(terms: Sequence[Term], rotated: Collection[int], size: int) -> Array:
    """For every index of an axis the first of those with which a rotation mixes it."""
    first = np.arange(size)
    for term in terms:
        axes = tuple(k for k, leaf in enumerate(term.leaves) if leaf in rotated)
        first[term.positions] = term.positions.min(axis=axes, keepdims=True)
    return first
