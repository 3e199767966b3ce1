"""Streams: normalised spaces, who writes and who reads them, and directions that nothing writes or nothing reads.

A rotation is its own inverse transpose, so its charges do not tell writers from readers; the way of the units through
the steps does. Where a norm divides by their length they belong to a *stream*: what writes it is what a norm sees.
Without a norm they only *meet*, themselves in a length or each other in a product that is summed: what writes them is
all that comes to such a meeting.

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

from symlint.evidence.products import ENOUGH, WIDEST, WRITES, Factors
from symlint.evidence.ranks import Freedom, Matrix, Rank, Side, columns, orthonormal, rank, surely_full
from symlint.model.clusters import ABSENT, precision
from symlint.model.graph import Array
from symlint.model.records import dataclass
from symlint.program.functions import dispatched
from symlint.program.numbers import Numbers
from symlint.program.steps import Concat, Einsum, Fold, Mix, Normalise, Pointwise, Slice, Step
from symlint.symmetry.actions.rotation import OrthogonalMap
from symlint.symmetry.charges.unknowns import Occurrence
from symlint.symmetry.motion.action import Stand, stands
from symlint.symmetry.structure import Action, Structure

Node = tuple[str, int]
"""A tensor that is no constant, and one of its axes."""


class _Untold(Exception):
    """The steps do something with the units that is neither writing nor reading nor normalising."""


@dataclass(frozen=True, slots=True)
class Roles:
    """The constants that meet a stream."""

    writers: tuple[Occurrence, ...]
    """They are added to, or contracted into, what is normalised, or what meets where nothing is."""
    readers: tuple[Occurrence, ...]
    """They are contracted with the units, before or after a norm."""
    closed: bool
    """Whether nothing but readers and norms sees the units: no product of the stream with itself or another."""


@dataclass
class _Course:
    """The steps seen so far."""

    structure: Structure
    action: Action
    held: dict[Node, list[Occurrence]] = field(default_factory=dict)
    parent: dict[Node, Node] = field(default_factory=dict)
    entries: list[tuple[Occurrence, Node]] = field(default_factory=list)
    readers: list[Occurrence] = field(default_factory=list)
    normed: set[Node] = field(default_factory=set)
    """What a norm divides by its length."""
    streaming: set[Node] = field(default_factory=set)
    """That, and what the norm makes of it."""
    met: list[tuple[Node, Node]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for o in self.action.charge:
            self.held.setdefault((o.tensor, o.axis), []).append(o)

    def root(self, node: Node) -> Node:
        while node in self.parent:
            node = self.parent[node]
        return node

    def enter(self, node: Node, out: Node) -> None:
        """Units go from an operand of a linear step into its result."""
        if out not in self.held:
            raise _Untold
        if node[0] in self.structure.program.fixed:
            self.entries += [(o, out) for o in self.held[node]]
        elif self.root(node) != self.root(out):
            self.parent[self.root(node)] = self.root(out)

    def take(self, step: Step) -> None:
        """What one step does with the units."""
        if any(True for name in step.operands for _ in self._axes(name)):
            self._step(step)

    @dispatched
    def _step(self, step: Step) -> None:
        if not self._still(step):
            raise _Untold

    @_step.register
    def _(self, step: Einsum) -> None:
        self._contract(step)

    @_step.register
    def _(self, step: Normalise) -> None:
        if self._still(step):
            return
        for k in self._axes(step.x):
            if k not in step.axes:
                raise _Untold
            node = step.x, k
            self.normed.add(node)
            self.streaming |= {node, (step.out, k)}
            self.entries += [(o, node) for o in self.held[node] if step.x in self.structure.program.fixed]

    @_step.register
    def _(self, step: Pointwise) -> None:
        if self._still(step):
            return
        if any(True for _ in self._axes(step.out)):
            self._pass(step)
        else:
            self._meet([(name, k) for name in dict.fromkeys(step.operands) for k in self._axes(name)])

    @_step.register
    def _(self, step: Concat | Slice) -> None:
        if not self._still(step):
            self._pass(step)

    def _pass(self, step: Pointwise | Concat | Slice) -> None:
        """Units go on from all operands, each to its own place."""
        shapes = self.structure.program.shapes
        for name in step.operands:
            for k in self._axes(name):
                self.enter((name, k), (step.out, k + len(shapes[step.out]) - len(shapes[name])))

    @_step.register
    def _(self, step: Mix) -> None:
        if self._still(step):
            return
        for k in self._axes(step.x):
            if k not in step.sources:
                raise _Untold
            self.enter((step.x, k), (step.out, step.sources.index(k)))

    @_step.register
    def _(self, step: Fold) -> None:
        if not self._still(step):
            self._meet([(step.x, k) for k in self._axes(step.x)])

    def _meet(self, nodes: Sequence[Node]) -> None:
        """Units of one or two tensors are multiplied with each other, and summed."""
        known = [node for node in nodes if node[0] in self.structure.program.fixed]
        if len(nodes) > 2 or len(known) == len(nodes):
            raise _Untold
        self.readers += [o for node in known for o in self.held[node]]
        if not known:
            self.met.append((nodes[0], nodes[-1]))

    def _still(self, step: Step) -> bool:
        return self.structure.program.fixed.issuperset(step.results)

    def _axes(self, name: str) -> Iterator[int]:
        yield from (k for k in range(len(self.structure.axes.of.get(name, ()))) if (name, k) in self.held)

    def _contract(self, step: Einsum) -> None:
        still = step.out in self.structure.program.fixed
        summed: dict[str, list[Node]] = {}
        for name, spec in zip(step.operands, step.specs, strict=True):
            for k in self._axes(name):
                label = self._label(step, (name, k), spec[k])
                places = [j for j, axis in enumerate(step.result) if label in axis]
                if not places:
                    summed.setdefault(label, []).append((name, k))
                elif not still:
                    self.enter((name, k), (step.out, places[0]))
        for nodes in summed.values():
            if len(nodes) != 2:
                raise _Untold
            self._meet(nodes)

    def _label(self, step: Einsum, node: Node, labels: tuple[str, ...]) -> str:
        """The label of an axis to which the units belong."""
        rest, found = self.structure.axes.of[node[0]][node[1]], []
        for label in labels[:-1]:
            halves = self.structure.axes.factors.split(rest, step.sizes[label])
            if halves is None:
                raise _Untold
            found.append((label, halves[0]))
            rest = halves[1]
        found.append((labels[-1], rest))
        factors = self.structure.axes.factors
        mine = [label for label, part in found if self.action.leaf in set(factors.leaves(part))]
        if len(mine) != 1:
            raise _Untold
        return mine[0]


def roles(structure: Structure, action: Action) -> Roles | None:
    """The writers and readers of the units of an orthogonal action.

    None where nothing is normalised and nothing meets, or where a step does something else with them.
    """
    course = _Course(structure, action)
    try:
        for step in structure.program.steps:
            course.take(step)
    except _Untold:
        return None
    if not course.normed:
        entries = tuple(dict.fromkeys(o for o, _ in course.entries))
        return Roles(entries, tuple(dict.fromkeys(course.readers)), closed=False) if course.met else None
    normed = {course.root(node) for node in course.normed}
    streaming = {course.root(node) for node in course.streaming}
    # Weights that are chosen at run time, as those of experts, read the stream though they are no constants.
    chosen = {course.root(node) for pair in course.met for node in pair} - streaming
    closed = all(len({course.root(node) for node in pair} & streaming) == 1 for pair in course.met)
    writers = [o for o, node in course.entries if course.root(node) in normed]
    readers = [*course.readers, *(o for o, node in course.entries if course.root(node) in chosen)]
    return Roles(tuple(dict.fromkeys(writers)), tuple(dict.fromkeys(readers)), closed)


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
