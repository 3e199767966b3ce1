"""Convex functions of the scales of units, and their exact minimum.

A weight w that the scales move by exponents c has the size |w| exp(c · t). Sums of powers of such sizes, and the
logarithms of these sums, are convex in the logarithms t of the scales.

Groups of scales that move together: a small model of what conjugate gradients are slow to find.

Along a chain of layers what one end lacks is known to the other only after as many steps as there are layers between
them. A second derivative between whole groups of scales, one for each space, is as sparse as the network, and solved
by elimination at once; what is left within a space settles in a few steps.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from heapq import heapify, heappop, heappush

import numpy as np
from numpy.typing import NDArray

from symlint.model.graph import Array
from symlint.model.records import dataclass
from symlint.symmetry.motion.action import Index

NOTHING = 1e-12
"""A pivot below this, relative to what it was before elimination, is no direction: nothing is known of it."""


class Coarse:
    """A symmetric matrix between groups, factorised as it is eliminated: the group with the fewest neighbours first."""

    def __init__(self, entries: Iterable[tuple[int, int, float]], count: int) -> None:
        """Of the sums of all entries of a place; every entry off the diagonal is given on both sides."""
        self.count = count
        rows: list[dict[int, float]] = [defaultdict(float) for _ in range(count)]
        for i, j, value in entries:
            rows[i][j] += value
        whole = [row.get(k, 0.0) for k, row in enumerate(rows)]
        self._steps: list[tuple[int, float, list[tuple[int, float]]]] = []
        waiting = [(len(row), k) for k, row in enumerate(rows)]
        heapify(waiting)
        done = [False] * count
        while waiting:
            size, k = heappop(waiting)
            if done[k]:
                continue
            if size != len(rows[k]):
                heappush(waiting, (len(rows[k]), k))
                continue
            done[k] = True
            row = rows[k]
            pivot = row.pop(k, 0.0)
            for j in row:
                del rows[j][k]
            if not pivot > NOTHING * whole[k]:
                continue
            self._steps.append((k, pivot, [(j, value / pivot) for j, value in row.items()]))
            for i, value in row.items():
                mine = rows[i]
                for j, other in row.items():
                    mine[j] -= value * other / pivot

    def solve(self, right: Array) -> Array:
        """The solution for a right side, shape (count,); zero where nothing is known."""
        left, found = right.tolist(), [0.0] * self.count
        for k, _, row in self._steps:
            for j, share in row:
                left[j] -= share * left[k]
        for k, pivot, row in reversed(self._steps):
            found[k] = left[k] / pivot - sum(share * found[j] for j, share in row)
        return np.array(found)


STEPS, TURNS = 600, 2000
"""Newton steps, and conjugate directions for each, after which the search gives up."""
FAR = 300.0
"""Logarithms of factors beyond which they may leave the range of numbers where their product does not."""
CLOSE = 1e-6
"""A step in the logarithms after which all scales have settled: the error shrinks with its square."""


@dataclass(frozen=True)
class Hold:
    """Where scales meet one tensor: which scale each index belongs to, and with which exponent."""

    scales: Index
    """Broadcasts against the tensor; the number of all scales stands for none."""
    power: float

    @cached_property
    def _places(self) -> tuple[Index, Index]:
        here, places = np.unique(self.scales, return_inverse=True)
        return here, places.ravel()

    @property
    def here(self) -> Index:
        """The scales that meet the tensor, in order, each once."""
        return self._places[0]

    def gather(self, values: Array) -> Array:
        """Sums of values over the indices of each scale that is here; the values have the shape of ``scales``."""
        return np.asarray(np.bincount(self._places[1], values.ravel(), len(self.here)))


@dataclass(frozen=True, slots=True)
class Table:
    """Sums of sizes of one tensor over the axes along which no scale varies; scales act on them to the power ``p``."""

    sums: Array
    """Before the factors."""
    holds: tuple[Hold, ...]
    p: float
    weight: float = 1.0
    factors: tuple[Array, Array] | None = None
    """Of the rows and columns of a matrix: one of sums is as large as the weight, and no product of it is kept."""

    @property
    def total(self) -> float:
        """All sums together."""
        return float(self.onto((self.sums.shape[0], 1) if self.factors else (1,) * self.sums.ndim).sum())

    def onto(self, shape: tuple[int, ...]) -> Array:
        """The sums over all axes along which a shape has one index."""
        if self.factors is None:
            return onto(self.sums, shape)
        rows, columns = self.factors
        if shape[0] == 1:
            return onto((rows.T @ self.sums) * columns, shape)
        return np.asarray(rows * (self.sums @ columns.T if shape[1] == 1 else self.sums * columns))

    def meet(self, mine: Array, theirs: Array, other: Array) -> Array:
        """The sums times ``other``, summed onto the axes of ``mine``, without a table of the products.

        ``mine`` and ``theirs`` are the sums on their axes, ``theirs`` in the shape of ``other``.
        """
        if all(m > 1 or t == 1 for m, t in zip(mine.shape, theirs.shape, strict=True)):
            return mine * other
        if all(t > 1 or m == 1 for m, t in zip(mine.shape, theirs.shape, strict=True)):
            return onto(theirs * other, mine.shape)
        if self.sums.ndim == 2:
            along, across = self.factors or (1.0, 1.0)
            if other.shape[0] == 1:
                return np.asarray(along * (self.sums @ (across * other).T))
            return np.asarray(((along * other).T @ self.sums) * across)
        axes = list(range(self.sums.ndim))
        left, kept = ([k for k in axes if v.shape[k] > 1] for v in (other, mine))
        small = other.reshape([other.shape[k] for k in left])
        return np.asarray(np.einsum(self.sums, axes, small, left, kept)).reshape(mine.shape)

    def _parts(self, logs: Array) -> dict[tuple[int, ...], Array]:
        """What a change of the logarithms adds to those of the sums, by the axes along which it varies."""
        found: dict[tuple[int, ...], Array] = {}
        for h in self.holds:
            found[h.scales.shape] = found.get(h.scales.shape, 0.0) + self.p * h.power * logs[h.scales]
        return found

    def exponent(self, logs: Array) -> Array:
        """What a change of the logarithms, shape (count + 1,), adds to the logarithm of each sum."""
        return np.asarray(sum(self._parts(logs).values(), np.zeros((1,) * self.sums.ndim)))

    def moved(self, logs: Array) -> Table:
        """The same with the scales applied, logarithms of shape (count,)."""
        parts = self._parts(np.append(logs, 0.0))
        far = sum(float(np.abs(part).max(initial=0)) for part in parts.values())
        if self.sums.ndim != 2 or self.factors or not far < FAR or not all(1 in shape for shape in parts):
            whole = self.onto(self.sums.shape)
            return replace(self, sums=whole * np.exp(self.exponent(np.append(logs, 0.0))), factors=None)
        rows, columns = (np.ones(shape) for shape in ((self.sums.shape[0], 1), (1, self.sums.shape[1])))
        for shape, part in parts.items():
            if shape[1] == 1:
                rows = rows * np.exp(part)
            else:
                columns = columns * np.exp(part)
        return replace(self, factors=(rows, columns))

    def without(self, dead: NDArray[np.bool_]) -> Table:
        """The same without what meets a dead scale, shape (count,)."""
        marked = np.append(dead, False)
        met: NDArray[np.bool_] = np.zeros((1,) * self.sums.ndim, bool)
        for h in self.holds:
            met = met | marked[h.scales]
        return replace(self, sums=np.where(met, 0.0, self.sums)) if met.any() else self


def table(sizes: Array, holds: Sequence[Hold], none: int, p: float, weight: float = 1.0) -> Table:
    """The table of a tensor's `sizes`, which scales move to the power `p`; `none` is the number of all scales."""
    holds = _parted(holds, none)
    varied = {k for h in holds for k in range(sizes.ndim) if h.scales.shape[k] > 1}
    rest = tuple(k for k in range(sizes.ndim) if k not in varied)
    return Table(sizes.sum(axis=rest), tuple(Hold(h.scales.squeeze(rest), h.power) for h in holds), p, weight)


def _parted(holds: Sequence[Hold], none: int) -> list[Hold]:
    """The same, where a scale that meets an element twice with opposite exponents does not meet it."""
    found = list(holds)
    for k in range(len(found)):
        for j in range(k):
            one, other = found[k], found[j]
            if one.power + other.power or not np.any(np.isin(one.scales, other.scales) & (one.scales != none)):
                continue
            both = (one.scales == other.scales) & (one.scales != none)
            found[k] = Hold(np.where(both, none, one.scales), one.power)
            found[j] = Hold(np.where(both, none, other.scales), other.power)
    return found


def pulls(tables: Sequence[Table], count: int) -> tuple[Array, Array]:
    """For every scale, how much grows with it and how much shrinks with it, shape (count,) each."""
    both = np.zeros((2, count + 1))
    for t in tables:
        for h in t.holds:
            both[int(h.power * t.p < 0), h.here] += abs(h.power * t.p) * h.gather(t.onto(h.scales.shape))
    return both[0, :-1], both[1, :-1]


def minimum(
    tables: Sequence[Table], groups: Index, *, logarithms: bool = False, pin: float = 0.0, close: float = CLOSE
) -> Array:
    """The logarithms of the scales, shape (count,), at which the sum of all tables is least.

    Newton's method with conjugate gradients, which whole groups of scales precondition. A step in which no logarithm
    of a sum changes by more than M is taken log(1 + M) / M of the way, which lowers any sum of exponentials; for
    logarithms of such sums the same holds with twice the M. It is then doubled for as long as that lowers the sum.

    Args:
        tables: of which the sum is to be least.
        groups: scale -> the group that it is of, shape (count,): those of one space.
        logarithms: whether the weighted logarithms of the tables are added up instead of the tables.
        pin: how much the square of each logarithm counts, so that directions without any effect stay where they are.
        close: a step in the logarithms after which the search ends.
    """
    logs, far = np.zeros(len(groups) + 1), 1.0
    tables = [t for t in tables if t.sums.any()]

    def value(at: Array) -> float:
        with np.errstate(over="ignore", invalid="ignore"):  # a step too far is no number, and is not taken
            sums = [(t.weight, t.moved(at[:-1]).total) for t in tables]
            return pin * float(at @ at) + sum(w * float(np.log(s) if logarithms else s) for w, s in sums)

    for _ in range(STEPS):
        model = _Model([t.moved(logs[:-1]) for t in tables], groups, logs, logarithms, pin)
        step = model.step(float(np.clip(far, 1e-3, 0.1)))
        change = max((float(np.abs(t.exponent(step)).max(initial=0)) for t in tables), default=0.0)
        change = max(change, float(np.abs(step).max(initial=0)))
        far = change * (2 if logarithms else 1)
        if far == 0:
            break
        share = np.log1p(far) / far
        if share < 0.5:
            lowest = value(logs + share * step)
            while 2 * share <= 1 and (lower := value(logs + 2 * share * step)) < lowest:
                share, lowest = 2 * share, lower
        logs += step * share
        if far < close:
            break
    return logs[:-1]


class _Model:
    """The second-order model of the function at some scales."""

    def __init__(self, tables: Sequence[Table], groups: Index, logs: Array, logarithms: bool, pin: float) -> None:
        self.count, self.pin = len(logs) - 1, pin
        self.groups = np.append(groups, groups.max(initial=-1) + 1)
        self.tables = [t for t in tables if t.sums.any()]
        self.factors = [t.weight / t.total if logarithms else t.weight for t in self.tables]
        self.sums = [{h.scales.shape: t.onto(h.scales.shape) for h in t.holds} for t in self.tables]
        """Of each table onto the axes along which some of its holds vary."""
        self.slope, self.curve = 2 * pin * logs, np.full(len(logs), 2 * pin)
        self.slopes: list[list[Array]] = []
        """Of the tables one by one, hold by hold, where their logarithms count."""
        for t, factor, sums in zip(self.tables, self.factors, self.sums, strict=True):
            shares = [factor * h.power * t.p * h.gather(sums[h.scales.shape]) for h in t.holds]
            for h, share in zip(t.holds, shares, strict=True):
                self.slope[h.here] += share
                self.curve[h.here] += h.power * t.p * share
            self.slopes.append([s / np.sqrt(t.weight) for s in shares] if logarithms else [])
        self.free = self.curve > 0
        self.free[-1] = False
        self.inverse = np.divide(1.0, self.curve, out=np.zeros_like(self.curve), where=self.free)
        order = np.argsort(self.groups, kind="stable")
        self.members = np.split(order, np.searchsorted(self.groups[order], np.arange(1, self.groups[-1] + 1)))
        self.coarse = Coarse(self._entries(), int(self.groups[-1]))

    def _entries(self) -> Iterator[tuple[int, int, float]]:
        """The second derivative along whole groups: a pair of groups, and what a table or the pin adds to it."""
        along = np.zeros(len(self.groups))
        for k, t in enumerate(self.tables):
            met = {int(g) for h in t.holds for g in np.unique(self.groups[h.here[self.free[h.here]]])}
            for group in met:
                mine = self.members[group]
                along[mine] = self.free[mine]
                for here, bent in self._part(k, along):
                    labels, places = np.unique(self.groups[here], return_inverse=True)
                    sums = np.bincount(places.ravel(), (bent * self.free[here]).ravel())
                    yield from ((int(g), group, float(x)) for g, x in zip(labels, sums, strict=True) if g in met)
                along[mine] = 0.0
        for group, mine in enumerate(self.members[:-1] if self.pin else ()):
            yield group, group, 2 * self.pin * float(self.free[mine].sum())

    def _turned(self, slope: Array) -> Array:
        """The slope where scales one by one, and groups as a whole, count as much as they curve."""
        whole = self.coarse.solve(np.bincount(self.groups, slope * self.free, self.coarse.count + 1)[:-1])
        return np.asarray(self.inverse * slope + np.append(whole, 0.0)[self.groups] * self.free)

    def step(self, care: float) -> Array:
        """The step to the model's minimum, solved until what is left of the slope has shrunk to a share `care`."""
        step, left = np.zeros_like(self.slope), -self.slope * self.free
        ahead = self._turned(left)
        size = left @ ahead
        goal = size * care**2
        for _ in range(min(TURNS, 4 * self.count + 10)):
            if size <= goal:
                break
            bent = self._bent(ahead) * self.free
            bend = ahead @ bent
            if bend <= 0:
                break
            step += size / bend * ahead
            left -= size / bend * bent
            turned = self._turned(left)
            before, size = size, left @ turned
            ahead = turned + size / before * ahead
        return step

    def _bent(self, step: Array) -> Array:
        """The second derivative along a step."""
        bent = 2 * self.pin * step
        for k in range(len(self.tables)):
            for here, part in self._part(k, step):
                bent[here] += part
        return bent

    def _part(self, k: int, step: Array) -> Iterator[tuple[Index, Array]]:
        """What one table adds to that, hold by hold: the scales that are here, and their parts."""
        t, factor, sums, slopes = self.tables[k], self.factors[k], self.sums[k], self.slopes[k]
        moved: dict[tuple[int, ...], Array] = {}
        for h in t.holds:
            moved[h.scales.shape] = moved.get(h.scales.shape, 0.0) + step[h.scales] * (h.power * t.p)
        met = {form: sum(t.meet(sums[form], sums[other], change) for other, change in moved.items()) for form in moved}
        for h in t.holds:
            yield h.here, factor * h.power * t.p * h.gather(np.asarray(met[h.scales.shape]))
        along = sum(float(slope @ step[h.here]) for h, slope in zip(t.holds, slopes, strict=False))
        for h, slope in zip(t.holds, slopes, strict=False):
            yield h.here, -slope * along


def onto(values: Array, shape: tuple[int, ...]) -> Array:
    """The sum over all axes along which a shape has one index."""
    alone = tuple(k for k, n in enumerate(shape) if n == 1)
    return np.asarray(values.sum(axis=alone, keepdims=True)).reshape(shape)
