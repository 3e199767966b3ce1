"""What of a linear space can be observed: the product of its readers and writers, and whether that is symmetric.

GL(n) takes writers A to g A and readers B to B inverse(g); which of the two sides is called which does not matter. The
rank of B A, less what translations make of it, is the number of units that the space needs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from fractions import Fraction
from functools import reduce
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from symlint.evidence.ranks import (
    SAME,
    Freedom,
    Rank,
    Side,
    Stack,
    columns,
    orthonormal,
    rank,
    surely_full,
    surely_full_each,
)
from symlint.model.clusters import precision
from symlint.model.graph import Array, Shape
from symlint.model.records import dataclass
from symlint.program.flow import Passage, Passages
from symlint.program.numbers import Unvalued
from symlint.symmetry.actions.rotation import Rotation
from symlint.symmetry.axes.terms import Term
from symlint.symmetry.motion.action import Stand, stands
from symlint.symmetry.structure import Action, Structure

WIDEST = 4096
"""Wider spaces are left alone: the cost grows with the cube of the width."""
ENOUGH = 2
"""Rows per unit that a certificate of full rank looks at."""
WRITES, READS = Fraction(1), Fraction(-1)
Elements = Sequence[tuple[str, tuple[Array, ...]]]
"""Changes of weights, each as arrays whose product it is."""


@dataclass(frozen=True, slots=True)
class Product:
    """The product of one space whose rank is low in some copies."""

    generator: str
    passage: Passage
    width: int
    copies: int
    low: Mapping[int, Rank]
    """Copy -> its rank, where that is below what width, writers and readers allow."""
    bounds: tuple[int, ...]
    """The rank that each copy could have."""
    parameters: Mapping[int, int]
    """Copy of low rank -> its weights per unit, written and read."""

    @property
    def total(self) -> int:
        """The ranks that the copies could have, added up."""
        return sum(self.bounds)

    @property
    def ranks(self) -> tuple[int, ...]:
        """The rank of each copy."""
        return tuple(self.low[k].rank if k in self.low else bound for k, bound in enumerate(self.bounds))


def general_linear(action: Action) -> bool:
    """Whether an action is by all invertible matrices: writers turn by g and readers by its inverse."""
    return isinstance(action, Rotation) and {WRITES, READS} <= set(action.charge.values())


def products(structure: Structure, passages: Passages, settled: Callable[[], Structure]) -> Iterator[Product]:
    """The spaces with copies of low rank; the network with settled weights says which rows are nothing."""
    rotated, freedom = frozenset(a.leaf for a in structure.rotations), Freedom(structure)
    # Where every unit has an order of its own of what is beside it, no rank over the units stays what it is.
    torn = frozenset(leaf for a in structure.permutations for leaf in a.copies)
    for action in structure.actions.values():
        narrow = general_linear(action) and structure.axes.factors.size(action.leaf) <= WIDEST
        if narrow and action.leaf not in torn and not freedom.meaningless(action):
            found = None
            # Where it is not known what a translation takes away, nothing is known of the rest.
            with suppress(Unvalued):
                found = Factors(structure, action, rotated).product(passages, freedom, settled)
            if found is not None:
                yield found


@dataclass(frozen=True, slots=True)
class Matrix:
    """A weight of one side, per copy as rows over the units."""

    name: str
    leaves: tuple[int, ...]
    """What its rows are."""
    rows: tuple[Array, ...]
    free: tuple[Array, ...]
    """Per copy orthonormal columns (rows, t): it may change by each of them times any vector."""


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
        self._layouts: dict[tuple[object, ...], _Layout] = {}
        self._places: dict[Fraction, list[tuple[str, Stand]]] = {}
        self._changes: list[Elements] | None = None
        self.unit = max((precision(program.model.tensors[t].dtype) for t in tensors), default=0.0)

    def product(self, passages: Passages, freedom: Freedom, settled: Callable[[], Structure]) -> Product | None:
        """The product, where some copy is low; None where there are no writers or readers, or none is."""
        if {WRITES, READS} - set(self.charge.values()):
            return None
        places = self._standing()
        certain = self._certain(list(freedom.factors(places)))
        if certain is not None and certain.all():
            return None
        changes = freedom.of(places)
        if certain is None:
            few = self._sides(changes, ENOUGH * self.width)
            certain = np.array([surely_full(a, b, self.unit) for a, b in few])
        doubtful = np.flatnonzero(~certain).tolist()
        if not doubtful:
            return None
        low: dict[int, Rank] = {}
        parameters: dict[int, int] = {}
        bounds: list[int] = []
        for k, sides in enumerate(self._sides(changes)):
            bounds.append(min(self.width, *(x.capacity for x in sides)))
            if k in doubtful and (found := rank(*sides, bounds[k], self.unit)).low:
                low[k], parameters[k] = found, sum(len(x.rows) for x in sides)
        if low and changes:
            # A row of a dead unit is nothing, though a translation may have put something there.
            bounds = Factors(settled(), self.action, self.rotated).bounds()
            low = {k: found for k, found in low.items() if found.rank < bounds[k]}
        if not low:
            return None
        way = passages.of({o.tensor for o in self.action.charge})
        return Product(self.action.id, way, self.width, prod(self.sizes), low, tuple(bounds), parameters)

    def bounds(self) -> list[int]:
        """The rank that each copy could have, by its width and the rows that are there."""
        changes = Freedom(self.structure).of(self._standing())
        return [min(self.width, *(x.capacity for x in sides)) for sides in self._sides(changes)]

    def matrices(self, side: Fraction, freedom: Freedom, most: int | None = None) -> list[Matrix]:
        """The weights of one side that are no biases and have as many rows in each copy; `most` rows of them if given.

        The same rows of weights of the same shape.
        """
        axes, leaves = self.structure.axes.of, self.structure.axes.factors.leaves
        if self._changes is None:
            self._changes = list(freedom.factors(self._standing()))
        changes, found = self._changes, list[Matrix]()
        for name, stand in self._found(side):
            layout = self._layout(name, stand, most)
            if not layout.even or len(layout.index[0]) < 2:
                continue
            rows = layout.stack(self._read(name))
            moved = [_written(c, name, layout) for c in changes if any(name == weight for weight, _ in c)]
            free = [
                orthonormal(np.hstack([np.zeros((len(x), 0)), *(columns(m[k]) for m in moved)]))
                for k, x in enumerate(rows)
            ]
            rest = [f for k, f in enumerate(axes[name]) if k not in (*stand.others, stand.axis)]
            found.append(Matrix(name, tuple(x for f in rest for x in leaves(f)), tuple(rows), tuple(free)))
        return found

    def _standing(self) -> dict[str, list[Stand]]:
        """Weight -> where the units are in it."""
        places: dict[str, list[Stand]] = {}
        for name, stand in (*self._found(WRITES), *self._found(READS)):
            places.setdefault(name, []).append(stand)
        return places

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

    def _certain(self, changes: Sequence[Elements]) -> NDArray[np.bool_] | None:
        """Which copies have full rank beyond doubt; None where that cannot be told of all of them at once."""
        writers, readers = (self._stack(side, changes, ENOUGH * self.width) for side in (WRITES, READS))
        if self.width < 2 or writers is None or readers is None:
            return None
        return surely_full_each(writers, readers, self.unit)

    def _stack(self, side: Fraction, changes: Sequence[Elements], most: int) -> Stack | None:
        """One side of all copies, with `most` rows of each; None where copies have different numbers of rows."""
        layouts = [(name, self._layout(name, stand, most)) for name, stand in self._found(side)]
        if not all(layout.even for _, layout in layouts):
            return None
        rows = np.concatenate([layout.stack(self._read(name)) for name, layout in layouts], axis=1)
        free: list[Array] = []
        for change in changes:
            if any(name == moved for name, _ in layouts for moved, _ in change):
                made = np.concatenate([_written(change, name, layout) for name, layout in layouts], axis=1)
                column = _column(made)
                if column is None:
                    return None
                free.append(column)
        labels = np.stack(self._blocks(side, most))
        return Stack(rows, labels, np.stack(free, axis=-1) if free else np.zeros((*rows.shape[:2], 0)))

    def _read(self, name: str) -> Array:
        program = self.structure.program
        return program.model.tensors[program.weights[name]].read()

    def rows(self, values: Mapping[str, Array], side: Fraction, most: int | None = None) -> list[Array]:
        """Per copy, what every row of weights gives to the units or takes from them: (rows, n); zeros where missing."""
        shapes = self.structure.program.shapes
        found = [
            self._cut(name, values.get(name, np.broadcast_to(0.0, shapes[name])), stand, most)
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
            cut = self._cut(name, np.broadcast_to(label + start, shape), stand, most)
            parts.append([rows[:, 0] for rows in cut])
            start += int(label.max()) + 1
        return [np.unique(np.concatenate(p), return_inverse=True)[1].reshape(-1) for p in zip(*parts, strict=True)]

    def _found(self, side: Fraction) -> list[tuple[str, Stand]]:
        """The weights of one side, with each occurrence of the space in them."""
        if side not in self._places:
            self._places[side] = list(self._stands(side))
        return self._places[side]

    def _stands(self, side: Fraction) -> Iterator[tuple[str, Stand]]:
        wanted = {(o.tensor, o.axis, o.term, o.place) for o, c in self.charge.items() if c == side}
        for name in sorted({tensor for tensor, *_ in wanted}):
            axes = self.structure.axes.of[name]
            for stand in stands(self.structure.expansion, axes, self.action.leaf, self.action.copies):
                if (name, stand.axis, stand.term, stand.place) in wanted:
                    yield name, stand

    def _cut(self, name: str, values: Array, stand: Stand, most: int | None) -> list[Array]:
        """One occurrence as rows over the units, per copy."""
        return self._layout(name, stand, most).rows(values)

    def _layout(self, name: str, stand: Stand, most: int | None) -> _Layout:
        key = (name, stand.axis, stand.term, stand.place, most)
        if key not in self._layouts:
            self._layouts[key] = _Layout(stand, self.structure.program.shapes[name], self.sizes, most)
        return self._layouts[key]


class _Layout:
    """Where the rows of every copy are in a weight, for one occurrence of the units."""

    def __init__(self, stand: Stand, shape: Shape, sizes: Sequence[int], most: int | None) -> None:
        rest = [k for k in range(len(shape)) if k not in (*stand.others, stand.axis)]
        self.stand, self.shape, self.axes = stand, shape, (*stand.others, *rest, stand.axis)
        self.width = stand.grid.shape[stand.place]
        lead = tuple(shape[k] for k in stand.others)
        owner = stand.owners(sizes, lead)
        count = prod(shape[k] for k in rest)
        self.chosen: tuple[Array, ...] | None = None
        if most is not None:
            each = max(1, owner.size // prod(sizes))
            few = -(-most // each)
            if few < count:
                some = np.sort(np.random.default_rng(few).choice(count, few, replace=False))
                self.chosen, count = np.unravel_index(some, [shape[k] for k in rest]), few
        owner = owner.reshape((*owner.shape[: len(lead)], 1, *owner.shape[len(lead) :]))
        own = np.broadcast_to(owner, (*lead, count, *owner.shape[len(lead) + 1 :])).reshape(-1)
        order = np.argsort(own, kind="stable")
        ends = np.searchsorted(own[order], range(prod(sizes) + 1))
        self.index = [order[a:b] for a, b in pairwise(ends)]
        self.even = len({len(index) for index in self.index}) == 1

    def rows(self, values: Array) -> list[Array]:
        """Per copy the rows (p, n) of a weight."""
        block = self._block(values)
        return [block[index] for index in self.index]

    def stack(self, values: Array) -> Array:
        """The same as one array where all copies have as many rows."""
        return self._block(values)[np.stack(self.index)]

    def _block(self, values: Array) -> Array:
        lead = len(self.stand.others)
        lines = values.transpose(self.axes)
        if self.chosen is None:
            lines = lines.reshape(*lines.shape[:lead], -1, lines.shape[-1])
        else:
            place: Any = (..., *self.chosen, slice(None))
            lines = lines[place]
        block = np.moveaxis(lines[..., self.stand.grid], lead + 1 + self.stand.place, -1)
        return block.reshape(-1, block.shape[-1])


def _written(change: Elements, name: str, layout: _Layout) -> Array:
    """What a change does to the rows of a weight: (copies, p, n)."""
    shape, found = layout.shape, [parts for moved, parts in change if moved == name]
    made = [reduce(np.multiply, [layout.stack(np.broadcast_to(part, shape)) for part in parts]) for parts in found]
    return np.asarray(sum(made)) if made else np.zeros((*np.shape(layout.index), layout.width))


def _column(change: Array) -> Array | None:
    """The column w of changes (copies, p, n) that are ``w a^T``; None where they are not."""
    flat = np.abs(change).reshape(len(change), -1)
    row, unit = np.divmod(flat.argmax(axis=1), change.shape[-1])
    copies = np.arange(len(change))
    top = change[copies, row, unit]
    column = change[copies, :, unit] / np.where(top == 0, 1.0, top)[:, None]
    rest = change - column[:, :, None] * change[copies, row][:, None]
    return column if bool((np.abs(rest) <= SAME * np.abs(top)[:, None, None]).all()) else None


def _side(rows: Array, blocks: Array, free: Sequence[Array]) -> Side:
    return Side(rows, blocks, orthonormal(np.hstack([np.zeros((len(rows), 0)), *free])))


def _mixed(terms: Sequence[Term], rotated: Collection[int], size: int) -> Array:
    """For every index of an axis the first of those with which a rotation mixes it."""
    first = np.arange(size)
    for term in terms:
        axes = tuple(k for k, leaf in enumerate(term.leaves) if leaf in rotated)
        first[term.positions] = term.positions.min(axis=axes, keepdims=True)
    return first


MARGIN = 8.0
"""Times what the rounding of the stored weights makes of an entry of the product: how far two may be apart."""
FEWEST = 4
"""Inputs of queries below which a product may be symmetric by chance."""

BRIEF = 16
"""Rows that are compared before all are."""


@dataclass(frozen=True, slots=True)
class Mutual:
    """A space of which every copy has a symmetric product."""

    space: str
    tolerance: float
    """Up to where a difference of two entries that face each other is rounding, as a share of the largest entry."""
    redundant: int
    """Weights of the keys, which could be those of the queries with a sign for each dimension."""


def mutual(structure: Structure, passages: Passages) -> Iterator[Mutual]:
    """The spaces of queries and keys that read the same, and whose product is symmetric in all copies."""
    rotated, freedom = frozenset(a.leaf for a in structure.rotations), Freedom(structure)
    for action in structure.actions.values():
        if not general_linear(action) or structure.axes.factors.size(action.leaf) > WIDEST:
            continue
        if passages.of({o.tensor for o in action.charge}) == "scores":
            found = _judged(structure, action, Factors(structure, action, rotated), freedom)
            if found is not None:
                yield found


def _judged(structure: Structure, action: Action, factors: Factors, freedom: Freedom) -> Mutual | None:
    few = _sides(structure, factors, freedom, BRIEF)
    if few is None or _apart(*few, factors.unit):  # most differ in any few entries
        return None
    whole = _sides(structure, factors, freedom)
    if whole is None:
        return None
    queries, keys = whole
    tolerance = 0.0
    for k in range(len(queries.rows)):
        if len(keys.rows[k]) < FEWEST:
            return None
        apart, noise = _asymmetry(queries, keys, k, factors.unit)
        if not apart <= noise:
            return None
        tolerance = max(tolerance, noise)
    return Mutual(action.space, tolerance, sum(rows.size for rows in keys.rows))


def _sides(
    structure: Structure, factors: Factors, freedom: Freedom, most: int | None = None
) -> tuple[Matrix, Matrix] | None:
    """The weights of queries and of keys, where both read the same; so many rows of them."""
    sides = [factors.matrices(side, freedom, most) for side in (WRITES, READS)]
    if any(len(side) != 1 for side in sides):
        return None
    (queries,), (keys,) = sides
    alike = (
        len(queries.rows) == len(keys.rows)
        and queries.leaves == keys.leaves
        and _reads(structure, queries.name) == _reads(structure, keys.name)
    )
    weights, program = structure.program.weights, structure.program
    floating = all(program.model.tensors[weights[x.name]].floating for x in (queries, keys))
    shaped = all(a.shape == b.shape for a, b in zip(queries.rows, keys.rows, strict=True)) if alike else False
    return (queries, keys) if floating and shaped else None


def _apart(queries: Matrix, keys: Matrix, unit: float) -> bool:
    """Whether some rows show already that a product is not symmetric; not where they may change at will."""
    for k, rows in enumerate(keys.rows):
        if queries.free[k].shape[1] + keys.free[k].shape[1] > len(rows) // 2:
            continue
        apart, noise = _asymmetry(queries, keys, k, unit)
        if noise and apart > noise:
            return True
    return False


def _asymmetry(queries: Matrix, keys: Matrix, k: int, unit: float) -> tuple[float, float]:
    """How far a product is from symmetric, and how far rounding takes it; infinite where it is nothing."""
    rows = [side.rows[k].astype(np.float64) for side in (queries, keys)]
    # What a normalisation takes away before both means nothing to either.
    free = orthonormal(np.hstack([queries.free[k], keys.free[k]]))
    seen = [x - free @ (free.T @ x) for x in rows]
    product = seen[0] @ seen[1].T
    largest = float(np.abs(product).max())
    sizes = np.outer(*(np.linalg.norm(x, axis=1) for x in rows))
    noise = MARGIN * unit * float((sizes + sizes.T).max())
    if not largest > noise:
        return np.inf, 0.0
    return float(np.abs(product - product.T).max()) / largest, noise / largest


def _reads(structure: Structure, name: str) -> frozenset[str]:
    """What a weight is multiplied by."""
    steps = structure.program.reading([name])
    return frozenset(n for step in steps if step.product for n in step.operands if n != name)
