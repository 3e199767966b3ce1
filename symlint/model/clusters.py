"""Grouping of rows that are equal or proportional to the precision of their numbers.

Spare: stored tensors that nothing reads, and those that hold the same numbers as another one.

Only tensors of at least a kilobyte are looked at. Of those of one type and shape a few bytes are read and compared, and
all of them only where these agree.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

from symlint.model.graph import Array, Model
from symlint.model.records import dataclass
from symlint.model.stored import Place, same_numbers, sketch, uniform
from symlint.model.wire import LARGE

ROUNDING = 8.0
"""How many roundings of its dtype an element of a row may have gone through."""
ABSENT = np.float64(1e-30)  # a number of Python would be rounded to zero beside half precision
"""Weights below this are zero for every purpose: no input of a network makes them visible."""


BLOCK = 1 << 16
"""Elements that are in double precision at once: they stay in the processor's cache."""
SKETCHES = 8
"""Random sums in which rows are compared before they are read a second time: few rows of half precision pass them."""
LOOKS = 256
"""Pairs of rows, per row, whose sketches are compared."""
Strip = tuple[slice, ...]
Places = NDArray[np.int64]
Cut = tuple[slice | Places, ...]
"""Some rows and some columns of a table."""
REACH = 8.0
"""How many tolerances apart such a sum of rows of length 1 may be: that of independent roundings is below 1."""


@dataclass(frozen=True, slots=True)
class Grouping:
    """Rows by direction: ``group[i]`` is the first row that row i is a multiple of, ``factor[i]`` the multiple."""

    group: NDArray[np.int64]
    factor: Array
    norm: Array
    """The length of each row; not a number where an element of it is none."""
    least: float = 0.0
    """The smallest square of an element."""


def precision(dtype: str) -> float:
    """Half a unit in the last place of a number type, relative."""
    return {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float64": 2.0**-53}.get(dtype, 2.0**-24)


def median(values: Array) -> float:
    """The number in the middle; that of numpy looks for masked arrays, whose module takes longer to load than this."""
    ordered, half = np.sort(values, axis=None), values.size // 2
    if not ordered.size or np.isnan(ordered[-1]):
        return float("nan")
    return float(ordered[half] if ordered.size % 2 else (ordered[half - 1] + ordered[half]) / 2)


@dataclass(frozen=True, slots=True, eq=False)
class Sketch:
    """What one reading of rows tells of them."""

    width: int
    """Columns."""
    sums: Array
    """Sums with random weights, shape (SKETCHES, rows)."""
    squares: Array
    least: float = 0.0
    """The smallest square of an element."""


@dataclass(frozen=True, slots=True, eq=False)
class Off:
    """How far numbers may be off because they are differences of larger ones."""

    most: float
    """Any of them."""
    each: Callable[[], Array]
    """Each of them, in their shape."""

    def then(self, change: Callable[[Array], Array]) -> Off:
        """The same of the numbers cut or turned."""
        return Off(self.most, lambda: change(self.each()))


def proportional(
    keys: NDArray[np.int64],
    rows: Callable[[Places], Array],
    sketch: Sketch,
    tolerance: float,
    among: int = 0,
    off: Off | None = None,
) -> Grouping:
    """Group rows with one key whose values are multiples of each other, element by element within `tolerance`.

    Args:
        keys: one per row; rows with different keys never meet.
        rows: some of them by number, shape (rows, columns), any floating dtype; asked for those whose sketches agree.
        sketch: of the rows.
        tolerance: relative, on every element.
        among: how many rows there are in all, where these are some of them.
        off: how far elements may be off beyond that.

    Rows that random rows of that length and alphabet would often repeat are left apart.
    """
    count = len(keys)
    group = np.arange(count)
    if not sketch.width:
        return Grouping(group, np.ones(count), np.zeros(count))
    norm = np.sqrt(sketch.squares)
    sign = np.where(sketch.sums[0] < 0, -1.0, 1.0)
    direction = sketch.sums * (sign / np.where(norm > 0, norm, 1.0))
    factor = sign * norm
    order = np.lexsort((direction[0], keys))
    order = order[(norm[order] > 0) & np.isfinite(norm[order])]
    gap = REACH * tolerance
    if off is not None and len(order):
        gap += REACH * off.most * np.sqrt(sketch.width) / median(norm[order])
    suspect = _suspect(keys[order], direction[:, order], gap)
    if suspect.any():
        clear = 2 * np.log2(max(count, among)) + 20
        _meet(_Compared(rows, sketch, tolerance, off), order, suspect, keys, direction, factor, gap, clear, group)
    real = np.isfinite(norm) & (norm > 0)
    unit = np.where(real, factor[group], 1.0)
    return Grouping(group, np.where(real, factor / unit, np.where(norm == 0, 0.0, 1.0)), norm, sketch.least)


def _suspect(keys: NDArray[np.int64], direction: Array, gap: float) -> NDArray[np.bool_]:
    """Which rows, sorted by key and first sketch, agree with another one in every sketch."""
    found, line = np.zeros(len(keys), bool), _line(keys, direction[0], gap)
    near = np.diff(line) <= gap
    met = np.flatnonzero(np.append(near, False) | np.append(False, near))
    for shift in (0.0, 0.5):  # rows within reach by the second sketch as well share a cell of one of the two grids
        cells = np.floor(direction[1, met] / (2 * gap) + shift)
        order = np.lexsort((line[met], cells))
        rows = met[order]
        found[rows] |= _agreeing(_line(cells[order], line[rows], gap), direction[1:, rows], gap)
    return found


def _agreeing(line: Array, others: Array, gap: float) -> NDArray[np.bool_]:
    """Which rows, sorted on a line, agree with one in reach of them in all other sketches."""
    found, left = np.zeros(len(line), bool), np.arange(len(line) - 1)
    looks, far = LOOKS * len(line), 0
    while len(left):
        far += 1
        left = left[: np.searchsorted(left, len(line) - far)]
        left = left[line[left + far] - line[left] <= gap]
        near = left
        looks -= len(left)
        if looks > 0:  # else long runs of alike rows: all of them are looked at
            for other in others:
                near = near[np.abs(other[near + far] - other[near]) <= gap]
        found[near] = found[near + far] = True
        if looks <= 0:
            break
    return found


def _line(keys: NDArray[np.int64], first: Array, gap: float) -> Array:
    """Sorted first sketches on one line, on which those of different keys are out of reach of each other."""
    apart = np.concatenate([[0], np.cumsum(np.diff(keys) != 0)])
    return np.asarray(apart * (np.ptp(first) + 4 * gap) + first) if apart[-1] else first


def _meet(
    compared: _Compared,
    order: NDArray[np.int64],
    suspect: NDArray[np.bool_],
    keys: NDArray[np.int64],
    direction: Array,
    factor: Array,
    gap: float,
    clear: float,
    group: NDArray[np.int64],
) -> None:
    """Compare suspect rows element by element, each with the first of every group in reach.

    Fills in `group`, and in `factor` that of rows that may be equal.
    """
    plain = order[np.argsort(direction[0, order], kind="stable")]
    letters, gaps = _letters(compared, plain[~_followers(direction[:, plain], gap)])
    waiting = order[suspect]
    rows = compared.take(waiting)
    line = _line(keys[waiting], direction[0, waiting], gap)
    ends = np.searchsorted(line, line + gap, "right")
    counts = np.array([np.count_nonzero(row) for row in rows])
    telling = counts * letters + rows.shape[1] * gaps > clear
    taken = np.zeros(len(waiting), bool)
    for k, a in enumerate(waiting.tolist()):
        near = np.arange(k + 1, ends[k])
        near = near[telling[near] & ~taken[near] & ~np.bool_(taken[k])]
        if len(near):
            near = near[(np.abs(direction[1:, waiting[near]] - direction[1:, [a]]) <= gap).all(axis=0)]
        for j in near.tolist():
            b = int(waiting[j])
            multiple = compared.multiple((rows[k], a), (rows[j], b), factor[b] / factor[a])
            if multiple:
                group[b], taken[j], factor[b] = a, True, multiple * factor[a]


def _followers(direction: Array, gap: float) -> NDArray[np.bool_]:
    """Which of sorted rows look like the one before them, as one row does that is there for several keys.

    Repeating ones would make any alphabet small.
    """
    near = (np.abs(direction[:, 1:] - direction[:, :-1]) <= gap).all(axis=0)
    return np.concatenate([[False], near])


def _letters(compared: _Compared, chosen: Places) -> tuple[float, float]:
    """Bits that a weight tells that is not zero, and bits that any place tells by being zero or not.

    Rows from a small alphabet (ternary, 4 bits) collide by pigeonhole, the shorter the sooner. Each row is meant to be
    here once: repeating ones make any alphabet small.
    """
    some = compared.take(chosen[:: max(1, len(chosen) * compared.sketch.width // BLOCK)]).reshape(-1)
    sample = some[:: max(1, some.size // BLOCK)]
    share = float(np.clip(np.mean(sample == 0), 1e-9, 1 - 1e-9))
    gaps = -share * np.log2(share) - (1 - share) * np.log2(1 - share)
    sample = sample[sample != 0]
    count = len(different(np.abs(sample)))
    letters = 24.0 if 2 * count >= len(sample) else float(np.log2(max(len(different(sample)), 1)))
    return letters, float(gaps)


def different(numbers: Array) -> Array:
    """The different numbers of an array, in order; that of numpy looks for masked arrays as well."""
    ordered = np.sort(numbers, axis=None)
    return np.concatenate([ordered[:1], ordered[1:][ordered[1:] != ordered[:-1]]])


def sketched(rows: Array) -> Sketch:
    """One reading of rows, shape (rows, columns), in blocks."""

    def blocks() -> Iterator[tuple[Strip, Array]]:
        for place, room in strips(rows):
            room[...] = rows[place]
            yield place, room

    return sketch_of(blocks(), *rows.shape)


def strips(rows: Array) -> Iterator[tuple[Strip, Array]]:
    """The places of blocks of a table: whole rows, or whole columns where these are what lies together.

    Each has room for it in float64, which is that of the next one as well.
    """
    count, width = rows.shape
    along = abs(rows.strides[1]) <= abs(rows.strides[0])
    lines, each = (count, width) if along else (width, count)
    step = min(lines, max(1, BLOCK // max(each, 1)))
    room = np.empty((step, each))
    for k in range(0, lines, max(step, 1)):
        part, wide = slice(k, k + step), room[: lines - k]
        yield ((part, slice(0, each)), wide) if along else ((slice(0, each), part), wide.T)


@lru_cache(8)
def _weights(width: int) -> Array:
    """What the columns count in each sketch: layers have few widths."""
    rng = np.random.default_rng(20231129)
    made = np.concatenate([rng.uniform(1.0, 2.0, (1, width)), rng.choice([-1.0, 1.0], (SKETCHES - 1, width))])
    made.flags.writeable = False
    return made


def sketch_of(blocks: Iterable[tuple[Cut, Array]], count: int, width: int) -> Sketch:
    """One reading of rows that come in blocks of float64, which are used up, each with its rows and its columns."""
    weights = _weights(width)
    sums, squares, least = np.zeros((SKETCHES, count)), np.zeros(count), np.inf
    for (rows, columns), block in blocks:
        sums[:, rows] += weights[:, columns] @ block.T
        np.multiply(block, block, out=block)
        squares[rows] += block.sum(axis=1)
        least = min(least, float(block.min(initial=np.inf)))
    return Sketch(width, sums, squares, least)


@dataclass(frozen=True, eq=False)
class _Compared:
    """Rows that are compared element by element."""

    take: Callable[[Places], Array]
    sketch: Sketch
    tolerance: float
    off: Off | None
    """How far elements may be off beyond that; None where they are as they are stored."""

    @cached_property
    def noise(self) -> Array:
        """The same of every element."""
        assert self.off is not None
        return self.off.each()

    def multiple(self, one: tuple[Array, int], other: tuple[Array, int], factor: float) -> float:
        """How many times row a row b is: `factor`, or what it cannot be told from; 0 where it is no multiple."""
        (row, a), (second, b) = one, other
        x, y = row.astype(np.float64), second.astype(np.float64)
        if self.off is None:
            return factor if self._within(x, y, factor, 0.0) else 0.0
        # The lengths of which the factor was made are off as well.
        lengths = np.sqrt(self.sketch.squares[[a, b]])
        for times in (float(np.sign(factor)), factor):
            if self._within(x, y, times, 0.0):
                return times
            most = self.off.most
            share = 0.0 if abs(times) == 1 else most * np.sqrt(len(x)) * float((1 / lengths).sum())
            if not self._within(x, y, times, (abs(times) + 1) * most, share):
                continue
            near, far = self.noise[a], self.noise[b]
            share = float(np.linalg.norm(near) / np.linalg.norm(x) + np.linalg.norm(far) / np.linalg.norm(y))
            if self._within(x, y, times, np.abs(times) * near + far, 0.0 if abs(times) == 1 else share):
                return times
        return 0.0

    def _within(self, x: Array, y: Array, times: float, noise: Array | float, share: float = 0.0) -> bool:
        """Whether y is so many times x, to the tolerance and what elements may be off."""
        return bool(np.all(np.abs(x * times - y) <= (self.tolerance + share) * (np.abs(x * times) + np.abs(y)) + noise))


def unread(model: Model) -> tuple[str, ...]:
    """The stored tensors of some size that no node reads and that are no output, in the order of the file."""
    return tuple(name for name, _ in _large(model) if name in model.unread)


def copies(model: Model) -> Iterator[tuple[str, ...]]:
    """Groups of stored tensors that are read and hold the same numbers, in the order of the file.

    What is one number throughout is left out, since that is an initial state, and so is what is an input or an output
    of a graph. What takes no bytes of its own is no copy. Raises UnreadableModel if the file has changed.
    """
    alike: defaultdict[object, list[tuple[str, Place]]] = defaultdict(list)
    for name, place in _large(model):
        if name not in model.unread and name not in model.bound:
            alike[place.code, model.tensors[name].shape].append((name, place))
    likely: defaultdict[object, list[tuple[str, Place]]] = defaultdict(list)
    for kind, found in alike.items():
        for name, place in found if len(found) > 1 else ():
            likely[kind, sketch(place)].append((name, place))
    for found in likely.values():
        for group in _same(found):
            if len({place for _, place in group}) > 1 and not uniform(group[0][1]):
                yield tuple(name for name, _ in group)


def spare(model: Model) -> bool:
    """Whether a model stores anything for nothing."""
    return bool(unread(model)) or next(copies(model), None) is not None


def size(model: Model, names: Iterable[str]) -> int:
    """The bytes that stored tensors take in their files, together."""
    places = {place for name in names if (place := model.tensors[name].place) is not None}
    return sum(place.length for place in places)


def _large(model: Model) -> Iterator[tuple[str, Place]]:
    for name, tensor in model.tensors.items():
        if tensor.place is not None and tensor.place.length >= LARGE:
            yield name, tensor.place


def _same(found: Iterable[tuple[str, Place]]) -> list[list[tuple[str, Place]]]:
    """Tensors by their numbers."""
    groups: list[list[tuple[str, Place]]] = []
    for each in found:
        group = next((g for g in groups if same_numbers(g[0][1], each[1])), None)
        if group is None:
            groups.append([each])
        else:
            group.append(each)
    return groups
