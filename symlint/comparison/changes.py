"""Change: what became of each weight of the old network in the new one, and in how many directions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Literal

import numpy as np

from symlint.comparison.matching import Matching
from symlint.comparison.weights import WRITES, Block, Weight, Weights
from symlint.evidence.estimates import participation
from symlint.model.graph import BLOCK, Array, Shape
from symlint.model.records import dataclass

PROBES = 72
"""Directions that a first look draws; up to a rank below this no singular values of a wide matrix are needed."""
SMALL = 256
"""Up to this width all singular values are computed at once."""
WIDEST = 4096
"""Beyond this a rank that a first look does not show is not told."""
CLEAR = 4.0
"""Singular values above this many times the noise of rounding are real."""
SHARP = 2.0**-26
"""What a Gram matrix in float64 tells from zero, relative to the largest singular value."""


@dataclass(frozen=True, slots=True)
class Rank:
    """How many directions a matrix has, and how many of them matter."""

    numerical: int | None
    """Singular values above what rounding alone makes; None where it is too wide to be told."""
    effective: float | None
    """The exponential of the entropy of the squared singular values' shares."""
    full: int


def rank(matrix: Array, noise: float) -> Rank:
    """The rank of a matrix in float64, each element of which carries noise of this standard deviation."""
    rows, columns = matrix.shape
    full = min(rows, columns)
    floor = CLEAR * noise * (np.sqrt(rows) + np.sqrt(columns))
    if not np.isfinite(matrix).all():
        return Rank(None, None, full)
    if full > SMALL:
        found = _sketched(matrix)
        rest = max(float(np.sum(np.square(matrix)) - np.sum(found**2)), 0.0)
        if found[-1] <= floor and rest <= max(4 * noise**2 * matrix.size, 1e-20 * float(np.sum(found**2))):
            return _told(found, floor, full)
    if full > WIDEST:
        return Rank(None, None, full)
    if full > SMALL:
        gram = matrix @ matrix.T if rows <= columns else matrix.T @ matrix
        values = np.sqrt(np.maximum(np.linalg.eigvalsh(gram)[::-1], 0.0))
        return _told(values, max(floor, SHARP * float(values[0])), full)
    return _told(np.linalg.svd(matrix, compute_uv=False), floor, full)


def _sketched(matrix: Array) -> Array:
    """The largest singular values, by a random sketch; exact for a matrix of low rank."""
    probes = np.random.default_rng(20231129).normal(size=(matrix.shape[1], PROBES))
    basis, _ = np.linalg.qr(matrix @ probes)
    return np.asarray(np.linalg.svd(basis.T @ matrix, compute_uv=False))


def _told(values: Array, floor: float, full: int) -> Rank:
    kept = values[values > max(floor, 1e-12 * float(values[0]))]
    return Rank(len(kept), participation(kept**2) if len(kept) else 0.0, full)


Status = Literal["identical", "rounded", "folded", "rescaled", "moved", "cut", "merged", "changed", "not compared"]
"""``rounded``: as near as the coarser number type allows. ``rescaled``: the same but for one factor per unit of an
axis, as when a normalisation is folded. ``moved``: the same up to permutations, signs and scales of units.
``cut``: only some rows and columns are left, as they were. ``folded``: it is in other weights, which are what they
must be. ``merged``: it does the work of units that are gone, and is what it must be for that."""
SAME: tuple[Status, ...] = ("identical", "rounded")
ONE = 1.05
FEW = 4.0
"""Roundings that an exporter or a folding may cost."""
ALIKE = 0.5
"""A correlation below this says that two weights do not lie along a line."""
STEPS = 1.0
"""Steps of a grid by which a quantiser may miss a number."""
SMALLEST = {"float16": 2.0**-24, "bfloat16": 1e-38}


@dataclass(frozen=True, slots=True)
class Change:
    """One weight of the old network beside what it is in the new one."""

    index: int
    """Of the old weight."""
    old: str
    new: tuple[str, ...]
    """More than one where the new file stores it in parts."""
    shape: Shape
    matched: int
    """How many of its elements have a counterpart."""
    status: Status
    relative: float | None = None
    """The norm of the difference over that of the old weight."""
    rank: Rank | None = None
    """Of the difference as a matrix from what is summed over to what is written."""
    dtypes: tuple[str, str] = ("", "")
    broken: int = 0
    """Numbers that became infinite or NaN; `relative` is that of the others."""
    became: Shape = ()
    """The new shape of a weight that was cut."""
    explained: bool = False
    """Whether what became of it leaves the function as it was."""

    @property
    def settled(self) -> bool:
        """Whether nothing changed but rounding and what leaves the function as it was."""
        return self.explained or self.status in SAME

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)


def changes(matching: Matching) -> tuple[Change, ...]:
    """The change of every weight of the old network, in the order of the program."""
    return tuple(_Comparison(matching).changes())


class Pairs:
    """The counterparts of the old network's weights, block by block."""

    def __init__(self, matching: Matching) -> None:
        self.old, self.new = matching.old, matching.new
        self.blocks: dict[int, list[tuple[Block, Block]]] = defaultdict(list)
        for x, y in matching.blocks.items():
            self.blocks[x.weight].append((x, y))

    def theirs(self, index: int) -> dict[int, Weight]:
        """The new weights that hold something of an old one."""
        return {y.weight: self.new.all[y.weight] for _, y in self.blocks.get(index, ())}

    def values(self, index: int, old: Weights, new: Weights) -> tuple[Array, Array, Array] | None:
        """An old weight, what it is in the new network, and how far rounding to a grid may have moved it.

        What has no counterpart is left as it was. None where some number cannot be told.
        """
        weight, pairs = old.all[index], self.blocks.get(index, [])
        before, values = old.read(weight), {k: new.read(w) for k, w in self.theirs(index).items()}
        if before is None or not pairs or any(v is None for v in values.values()):
            return None
        loose = max(old.loose.get(weight.name, 0.0), *(new.loose.get(w.name, 0.0) for w in self.theirs(index).values()))
        if self._plain(weight) and all(self._plain(w) for w in self.theirs(index).values()):
            return before, self._after(before, pairs, values), np.full((), loose)
        before = before.astype(np.float64)
        after, slack = before.copy(), np.full(before.shape, loose)
        if weight.step is not None:
            slack += STEPS * weight.step
        for x, y in pairs:
            found = values[y.weight]
            assert found is not None
            part, step = _levelled(x.cut(before), y.cut(found).astype(np.float64), new.all[y.weight], y, weight)
            x.place(after, part)
            if np.any(step):
                x.place(slack, x.cut(slack) + STEPS * step)
        return before, after, slack

    @staticmethod
    def _plain(weight: Weight) -> bool:
        return weight.step is None and weight.scaled

    @staticmethod
    def _after(before: Array, pairs: Sequence[tuple[Block, Block]], values: Mapping[int, Array | None]) -> Array:
        """A weight as it is in the new network, in the number types of the files."""
        x, y = pairs[0]
        found = values[y.weight]
        assert found is not None
        if len(pairs) == 1 and found.shape == before.shape and x.size == before.size and x.lies_as(y):
            return found
        kinds = {v.dtype for v in (before, *values.values()) if v is not None}
        after = before.astype(kinds.pop() if len(kinds) == 1 else np.float64)
        for x, y in pairs:
            found = values[y.weight]
            assert found is not None
            x.place(after, y.cut(found))
        return after


class _Comparison:
    def __init__(self, matching: Matching) -> None:
        self.old, self.new, self.pairs = matching.old, matching.new, Pairs(matching)

    def changes(self) -> Iterator[Change]:
        for index, weight in sorted(enumerate(self.old.all), key=lambda p: p[1].order):
            theirs = tuple(self.pairs.theirs(index).values())
            matched = sum(x.size for x, _ in self.pairs.blocks.get(index, ()))
            dtypes = (weight.dtype, ", ".join(sorted({w.dtype for w in theirs})))
            names = tuple(w.name for w in theirs)
            change = Change(index, weight.name, names, weight.shape, matched, "not compared", dtypes=dtypes)
            found = self.pairs.values(index, self.old, self.new)
            if found is None:
                yield change
            else:
                with np.errstate(all="ignore"):
                    yield self._judged(change, weight, theirs, *found)

    def _judged(
        self, change: Change, weight: Weight, theirs: tuple[Weight, ...], before: Array, after: Array, slack: Array
    ) -> Change:
        if _equal(before, after):
            return replace(change, status="identical", relative=0.0)
        unit = max(weight.unit, *(w.unit for w in theirs))
        tiny = max(SMALLEST.get(w.dtype, 1e-38) for w in (weight, *theirs))
        allowed = _roundings(weight, theirs) * unit
        margin = _Margin(slack, allowed, tiny if allowed else 0.0)
        gap = _gap(before, after, margin)
        relative = gap.relative
        if gap.unknown:
            return replace(change, status="changed", relative=relative, broken=gap.broken)
        if gap.near or relative <= allowed:
            return replace(change, status="rounded", relative=relative)
        if _rescaled(before, after, margin):
            return replace(change, status="rescaled", relative=relative)
        found = None
        delta = after.astype(np.float64)
        delta -= before
        grid = weight.step is not None or any(w.step is not None for w in theirs)
        if delta.ndim > 1 and min(_matrix(delta, weight).shape) > 1 and not grid:
            noise = unit * _norm(after) * (3 * after.size) ** -0.5
            found = rank(_matrix(delta, weight), noise)
        return replace(change, status="changed", relative=relative, rank=found)


@dataclass(frozen=True, slots=True)
class _Margin:
    """How far numbers may be apart: by what a grid misses, by roundings, and by the smallest numbers of a type."""

    slack: Array
    allowed: float
    tiny: float

    def of(self, rows: slice, x: Array, y: Array) -> Array:
        """The margin of some rows, which are x and y in the two networks."""
        slack = self.slack[rows] if self.slack.ndim else self.slack
        return np.asarray(slack + self.allowed * np.maximum(np.abs(x), np.abs(y)) + self.tiny)


@dataclass(frozen=True, slots=True)
class _Gap:
    """How far a weight is from its counterpart."""

    relative: float
    near: bool
    """Whether each number is within its margin."""
    unknown: bool
    """Whether some number is infinite or NaN in one of the networks, and is not the same in the other."""
    broken: int


def _slabs(before: Array, after: Array) -> Iterator[tuple[slice, Array, Array]]:
    """Two arrays, some rows at a time, in float64."""
    x, y = (v if v.ndim else v.reshape(1) for v in (before, after))
    tall = max(1, BLOCK // max(prod(x.shape[1:]), 1))
    for start in range(0, len(x), tall):
        rows = slice(start, start + tall)
        yield rows, x[rows].astype(np.float64), y[rows].astype(np.float64)


def _equal(before: Array, after: Array) -> bool:
    """Whether all numbers are the same, NaN included."""
    if before is after:
        return True
    x, y = (v if v.ndim else v.reshape(1) for v in (before, after))
    tall = max(1, BLOCK // max(prod(x.shape[1:]), 1))
    for start in range(0, len(x), tall):
        a, b = x[start : start + tall], y[start : start + tall]
        same = a == b
        if not same.all() and not (same | (np.isnan(a) & np.isnan(b))).all():
            return False
    return True


def _gap(before: Array, after: Array, margin: _Margin) -> _Gap:
    squares = [0.0, 0.0, 0.0]
    near, unknown, broken = True, False, 0
    for rows, x, y in _slabs(before, after):
        known = np.isfinite(x), np.isfinite(y)
        same = (x == y) | (np.isnan(x) & np.isnan(y))
        both = known[0] & known[1]
        unknown |= not (same | both).all()
        broken += int((known[0] & ~known[1]).sum())
        delta = np.where(same | ~both, 0.0, y - x)
        near = near and bool((same | (np.abs(delta) <= margin.of(rows, x, y))).all())
        for k, part in enumerate((np.where(known[0], x, 0.0), np.where(known[1], y, 0.0), delta)):
            squares[k] += float(np.vdot(part, part))
    size = squares[0] or squares[1]
    return _Gap((squares[2] / size) ** 0.5 if size else 0.0, near, unknown, broken)


def _norm(values: Array) -> float:
    wide = values.astype(np.float64, copy=False)
    return float(np.linalg.norm(np.where(np.isfinite(wide), wide, 0.0)))


def _roundings(weight: Weight, theirs: tuple[Weight, ...]) -> float:
    """How many roundings of the coarser type may lie between a weight and its counterpart.

    Two files of one type of half precision may not differ at all: there a small step is as large as what a training
    changes.
    """
    kinds = {w.dtype for w in (weight, *theirs)}
    return FEW if kinds.isdisjoint(SMALLEST) else 0.0 if len(kinds) == 1 else ONE


def _levelled(x: Array, y: Array, theirs: Weight, block: Block, mine: Weight) -> tuple[Array, Array]:
    """What stands for a new block beside an old one, and how far apart its numbers are.

    Where one side holds the levels of a grid whose scale comes only later, the line through the pairs is that scale; if
    they lie along none, since the units have other places, that which makes the sums of squares the same.
    """
    step = np.zeros(())
    if theirs.step is not None and theirs.scaled:
        step = block.cut(np.broadcast_to(theirs.step, theirs.shape))
    if theirs.scaled and mine.scaled:
        return y, step
    known = np.isfinite(x)
    middle, base = (float(v[known].mean()) if known.any() else 0.0 for v in (y, x))
    spread = float(np.sum((y - middle) ** 2))
    there = np.where(known, x - base, 0.0)
    slope = float(np.sum((y - middle) * there)) / spread if spread else 0.0
    if spread and slope * spread**0.5 < ALIKE * float(np.linalg.norm(there)):
        slope, middle, base = float(np.linalg.norm(np.where(known, x, 0.0)) / np.linalg.norm(y)), 0.0, 0.0
    return base + slope * (y - middle), np.maximum(step, abs(slope) if not theirs.scaled else 1.0)


def _rescaled(before: Array, after: Array, margin: _Margin) -> bool:
    """Whether one positive factor per index of some axis makes the one of the other."""
    for axis in range(before.ndim if before.ndim > 1 else 0):
        others = tuple(k for k in range(before.ndim) if k != axis)
        square, product = (np.zeros([n if k == axis else 1 for k, n in enumerate(before.shape)]) for _ in range(2))
        for rows, x, y in _slabs(before, after):
            mine = rows if axis == 0 else slice(None)
            square[mine] += np.sum(x * x, axis=others, keepdims=True)
            product[mine] += np.sum(x * y, axis=others, keepdims=True)
        factor = product / np.where(square > 0, square, 1.0)
        if (factor > 0).all() and all(
            (
                np.abs(y - (factor[rows] if axis == 0 else factor) * x)
                <= FEW * margin.of(rows, x, y) + 1e-6 * np.abs(y)
            ).all()
            for rows, x, y in _slabs(before, after)
        ):
            return True
    return False


def _matrix(delta: Array, weight: Weight) -> Array:
    """The difference with what the weight writes as rows."""
    uses = [{d.use for b in weight.blocks for d in b.dims if d.axis == k} for k in range(delta.ndim)]
    rows = [k for k, use in enumerate(uses) if use == {WRITES}]
    if not rows or len(rows) == delta.ndim:
        rows = [0]
    order = [*rows, *(k for k in range(delta.ndim) if k not in rows)]
    return delta.transpose(order).reshape(int(np.prod([delta.shape[k] for k in rows])), -1)


def unmatched(matching: Matching) -> tuple[tuple[Weight, ...], tuple[Weight, ...]]:
    """The weights of either side of which nothing has a counterpart."""

    def left(weights: Weights, blocks: Iterator[Block]) -> tuple[Weight, ...]:
        found = {b.weight for b in blocks}
        return tuple(w for k, w in enumerate(weights.all) if k not in found)

    return left(matching.old, iter(matching.blocks)), left(matching.new, iter(matching.blocks.values()))
