"""Streams: normalised spaces, and their directions that nothing writes or nothing reads.

O(n), or the stabiliser of the vector of ones, turns all writers and readers of a stream alike. What can be observed of
either of them alone is their span: the rank of all their rows, with the gains of norms absorbed, and without the mean
where a norm subtracts it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import field, replace
from math import prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from symlint.evidence.ranks.freedom import Freedom
from symlint.evidence.ranks.invariant import ENOUGH, WIDEST, WRITES, Factors
from symlint.evidence.ranks.side import Matrix, Side, columns, orthonormal
from symlint.evidence.ranks.spectrum import Rank, rank, surely_full
from symlint.evidence.streams.roles import roles
from symlint.model.clusters import ABSENT, precision
from symlint.model.graph import Array
from symlint.model.records import dataclass
from symlint.program.numbers import Numbers
from symlint.symmetry.actions.rotation import OrthogonalMap
from symlint.symmetry.charges.unknowns import Occurrence
from symlint.symmetry.motion.action import Stand, stands
from symlint.symmetry.structure import Structure

# The rank of many rows that are looked at one block after another.


@dataclass
class Triangle:
    """Rows below each other, brought to a triangle as they come; in front the columns that mean nothing.

    A QR decomposition takes the part along the columns in front away from the others.
    """

    free: int
    rows: Matrix
    """Shape (up to free + n, free + n)."""
    present: int = 0
    """Rows that are not nothing."""
    seen: set[bytes] = field(default_factory=set)
    """What has been there already, number by number: exporters repeat what is shared."""

    def put(self, rows: Matrix, free: Matrix, given: NDArray[Any], *, stored: bool) -> None:
        """More rows (p, n) of size one, with the columns (p, t) along which they may change at will.

        ``given`` are the rows as they came. Where those are not `stored` so, rows may be repeated, which gives no rank.
        """
        there = (rows != 0).any(axis=1) | (free != 0).any(axis=1)
        keys = {given.tobytes()} if stored else {row.tobytes() for row in given[there]}
        fresh = keys - self.seen
        self.present += int(np.count_nonzero(there)) * len(fresh) if stored else len(fresh)
        self.seen |= fresh
        self.rows = np.asarray(np.linalg.qr(np.vstack([self.rows, np.hstack([free, rows])[there]]), mode="r"))

    def low(self, unit: float) -> Rank | None:
        """The rank, where it is below what rows and width allow; `unit` is half a unit in the last place."""
        rows = self.rows[self.free :, self.free :]
        bound = min(rows.shape[1], self.present - self.free)
        if bound <= 0 or not rows.any() or not np.isfinite(rows).all():
            return None
        found = rank(_plain(rows), _plain(np.eye(rows.shape[1])), bound, unit * _shrunk(rows, self.present))
        return found if found.low else None


def spanning(rows: Matrix, unit: float) -> bool:
    """Whether rows (p, n) that were of size one before they lost a part have rank n beyond doubt."""
    return surely_full(_plain(rows), _plain(np.eye(rows.shape[1])), unit * _shrunk(rows, len(rows)))


def _plain(rows: Matrix) -> Side:
    """Rows among which sizes mean something, so that they are one block."""
    return Side(rows, np.zeros(len(rows), np.int64), np.zeros((len(rows), 0)))


def _shrunk(rows: Matrix, count: int) -> float:
    """By how much more the rounding of rows weighs that lost a part: they will be brought to size one again."""
    size = float(np.linalg.norm(rows))
    return max(1.0, count**0.5 / size) if size else 1.0


"""Groups of rotations that keep lengths."""
PROBES = 64
"""Random directions of the units in which the rows that a translation changes are looked at."""
FAINT = 16.0
"""A row is nothing but its mean where the rest of it is below this many roundings."""
End = Literal["written", "read"]
Change = Mapping[str, Array]
"""Weight -> what to add to it."""


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream in some of whose copies directions are not written, or not read."""

    generator: str
    width: int
    """Directions that no norm takes away."""
    copies: int
    low: Mapping[int, Rank]
    """Copy -> the rank of its writers or readers, where that is below what width and rows allow."""


def streams(structure: Structure, end: End) -> Iterator[Stream]:
    """The streams that lack directions at one end."""
    freedom = Freedom(structure)
    for action in structure.actions.values():
        if not isinstance(action, OrthogonalMap) or structure.axes.factors.size(action.leaf) > WIDEST:
            continue
        found = roles(structure, action)
        if found is None or (end == "read" and not found.closed):
            continue
        rows = _Rows(structure, action, found.writers if end == "written" else found.readers)
        low = rows.low(freedom)
        if low:
            yield Stream(action.id, rows.width, rows.copies, low)


class _Part(Factors):
    """The rows of one constant over the units."""

    def __init__(self, structure: Structure, action: OrthogonalMap, rotated: frozenset[int], place: Occurrence) -> None:
        super().__init__(structure, replace(action, charge={}), rotated)
        self.charge, self.name, self.frame = {place: WRITES}, place.tensor, action.frames.get(place, ())

    @property
    def count(self) -> int:
        """Rows of each copy."""
        return prod(self.structure.program.shapes[self.name]) // (self.width * prod(self.sizes))

    @property
    def sources(self) -> frozenset[str]:
        """The weights of which the constant is made."""
        program, found, todo = self.structure.program, set(), [self.name]
        while todo:
            name = todo.pop()
            if name in program.weights:
                found.add(name)
            elif name in program.makers:
                todo += program.makers[name].operands
        return frozenset(found)

    def gain(self) -> Array:
        """What every unit is divided by to come into the frame of the stream."""
        made = np.ones(self.width)
        for name, power in self.frame:
            with np.errstate(divide="ignore"):
                made = made / self.value(name).reshape(-1) ** float(power)
        return made

    def value(self, name: str, change: Change | None = None) -> Array:
        """A constant, or what a change of weights makes of it."""
        program, shape = self.structure.program, self.structure.program.shapes
        if change is not None and not self.sources & change.keys():
            return np.broadcast_to(0.0, shape[name])
        if name in program.weights:
            return self._read(name) if change is None else change[name]
        changed = change or {}
        moved = Numbers(program, lambda n: self._read(n) + changed.get(n, 0.0)).value(name)
        return np.broadcast_to(moved if change is None else moved - self.value(name), shape[name])

    def cut(self, values: Array, most: int | None = None) -> list[Array]:
        """Per copy (rows, n), with gains absorbed."""
        gain = self.gain()
        return [rows * gain for rows in self.rows({self.name: values}, WRITES, most)]

    def blocks(self, most: int | None = None) -> list[Array]:
        """Per copy, a number for every row that is the same for those that a rotation of their own mixes."""
        return self._blocks(WRITES, most)


class _Rows:
    """All writers or all readers of a stream."""

    def __init__(self, structure: Structure, action: OrthogonalMap, places: Sequence[Occurrence]) -> None:
        rotated = frozenset(a.leaf for a in structure.rotations)
        self.structure, self.action, size = structure, action, structure.axes.factors.size
        self.parts = [_Part(structure, action, rotated, o) for o in places]
        self.copies, n = prod(size(c) for c in action.copies), size(action.leaf)
        self.units, self.width = n, n - int(action.fixes_ones)
        program = structure.program
        weights = [name for name in dict.fromkeys(o.tensor for o in action.charge) if name in program.weights]
        self.places = {name: self._stands(name) for name in weights}
        tensors = [program.model.tensors[program.weights[name]] for name in weights]
        self.unit = max((precision(t.dtype) for t in tensors), default=0.0)

    def low(self, freedom: Freedom) -> dict[int, Rank]:
        """Copy -> a rank below its bound."""
        if not self.parts or not all(np.isfinite(part.gain()).all() for part in self.parts):
            return {}
        if self._certain(freedom.touched(self.places)):
            return {}
        found = {k: triangle.low(self.unit) for k, triangle in enumerate(self._triangles(freedom.of(self.places)))}
        return {k: judged for k, judged in found.items() if judged is not None}

    def _certain(self, touched: Collection[str]) -> bool:
        """Whether some of the rows of one constant alone span everything, in every copy."""
        n = self.width
        for part in sorted(self.parts, key=lambda part: -part.count):
            if part.count >= n and not part.sources & set(touched):
                most = ENOUGH * (n + 1)
                pairs = zip(part.cut(part.value(part.name), most), part.blocks(most), strict=True)
                if all(spanning(self._scaled(rows, blocks)[0], self.unit) for rows, blocks in pairs):
                    return True
        return False

    def _triangles(self, changes: Sequence[Change]) -> list[Triangle]:
        """Per copy, all rows."""
        free = self._free(changes)
        made = [Triangle(f.shape[1], np.zeros((0, f.shape[1] + self.width))) for f in free]
        start = [0] * self.copies
        for part in self.parts:
            pairs = zip(part.cut(part.value(part.name)), part.blocks(), strict=True)
            for k, (rows, blocks) in enumerate(pairs):
                scaled, size = self._scaled(rows, blocks)
                mine = free[k][start[k] : start[k] + len(rows)]
                start[k] += len(rows)
                mine = mine if len(mine) else np.zeros((len(rows), 0))
                made[k].put(scaled, mine * size[:, None], rows, stored=part.name in self.structure.program.weights)
        return made

    def _free(self, changes: Sequence[Change]) -> list[Matrix]:
        """Per copy, a basis of the columns (all rows, t) along which translations change the rows at will."""
        n = self.units
        probes = np.random.default_rng(n).standard_normal((n, min(n, PROBES)))
        found: list[list[Matrix]] = [[] for _ in range(self.copies)]
        for change in changes:
            parts = [part.cut(part.value(part.name, change)) for part in self.parts]
            for k in range(self.copies):
                found[k].append(columns(np.vstack([rows[k] @ probes for rows in parts])))
        return [orthonormal(np.hstack(made)) if made else np.zeros((0, 0)) for made in found]

    def _scaled(self, rows: Array, blocks: Array) -> tuple[Matrix, Matrix]:
        """Rows as stored brought to size one, block by block, in the directions that count; and by how much each.

        A row that is nothing but its mean is nothing.
        """
        wide = rows.astype(np.float64)
        square = np.einsum("ij,ij->i", wide, wide)
        square = (np.bincount(blocks, square) / np.bincount(blocks))[blocks]
        there = square > ABSENT**2
        size = np.where(there, square, square[there].mean() if there.any() else 1.0) ** -0.5
        wide *= size[:, None]
        if self.width < self.units:
            # A reflection that takes the vector of ones to the first axis.
            across = np.full(self.units, self.units**-0.5)
            across[0] += 1.0
            wide = (wide - np.outer(wide @ across, across) / across[0])[:, 1:]
        left = np.bincount(blocks, np.einsum("ij,ij->i", wide, wide)) / np.bincount(blocks)
        faint = left[blocks] <= (FAINT * self.unit) ** 2
        return np.where((there & ~faint)[:, None], wide, 0.0), size

    def _stands(self, name: str) -> list[Stand]:
        axes = self.structure.axes.of[name]
        return list(stands(self.structure.expansion, axes, self.action.leaf, self.action.copies))
