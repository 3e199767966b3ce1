"""Intervals of floating numbers, widened by what a run in float32 rounds, and balls that a normalisation maps into.

Contractions of intervals: weights against what they read, and products of two tensors that depend on the input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import reduce
from math import prod

import numpy as np

from symlint.model.graph import Array, Shape
from symlint.model.operators import known
from symlint.model.records import dataclass
from symlint.program.numbers import contract as summed
from symlint.program.steps import Einsum, Spec

UNIT = 2.0**-24
"""Half a unit in the last place of float32, in which networks run."""
SLACK = 8 * UNIT
"""Relative: the roundings of one elementwise function."""
TINY = 1e-37
"""What float32 flushes to zero."""


@dataclass(frozen=True, slots=True, eq=False)
class Ball:
    """Vectors ``gain * u + shift`` along some axes, with ``u`` no longer than the radius.

    A linear reader w of one lies within ``radius * |w * gain|`` of ``w shift``, in whatever basis it is written.
    """

    axes: tuple[int, ...]
    radius: float
    centred: bool
    """Whether the elements of u add up to zero."""
    count: int
    gain: Array
    shift: Array

    def moved(self, change: Callable[[Array], Array], axes: Sequence[int]) -> Ball:
        """The same vectors in a tensor whose elements stand elsewhere."""
        return replace(self, axes=tuple(axes), gain=change(self.gain), shift=change(self.shift))


@dataclass(frozen=True, slots=True, eq=False)
class Interval:
    """What the elements of a tensor lie between for every input; size 1 along axes without units."""

    low: Array
    high: Array
    ball: Ball | None = None
    shares: tuple[int, ...] = ()
    """Axes along which the elements are not negative and add up to one."""

    @property
    def shape(self) -> Shape:
        """The shape, with size 1 along axes without units."""
        return self.low.shape

    @property
    def settled(self) -> Array:
        """Where it is a single number."""
        return np.asarray((self.low == self.high) & np.isfinite(self.low))

    @property
    def open(self) -> bool:
        """Whether nothing is known."""
        return self.ball is None and not self.shares and bool(np.isinf(self.low).all() and np.isinf(self.high).all())

    @property
    def size(self) -> Array:
        """The largest absolute value."""
        return np.asarray(np.maximum(np.abs(self.low), np.abs(self.high)))


def point(values: Array) -> Interval:
    """Known numbers."""
    wide = values.astype(np.float64)
    return Interval(wide, wide)


def paired(ends: Iterable[Array]) -> Interval:
    """A lower and an upper end."""
    low, high = ends
    return Interval(low, high)


def between(low: float, high: float, shape: Sequence[int]) -> Interval:
    """One interval for all elements."""
    return Interval(np.full(tuple(shape), low), np.full(tuple(shape), high))


def unbounded(shape: Sequence[int]) -> Interval:
    """Nothing is known."""
    return between(-np.inf, np.inf, shape)


def widened(low: Array, high: Array, slack: Array | float = 0.0) -> Interval:
    """Rounded outward: by the relative rounding of one step and an absolute slack; what is no number is unbounded."""
    pad = SLACK * np.where(np.isfinite(low), np.abs(low), 0) + slack + TINY
    top = SLACK * np.where(np.isfinite(high), np.abs(high), 0) + slack + TINY
    return Interval(_told(low - pad, -np.inf), _told(high + top, np.inf))


def _told(numbers: Array, unknown: float) -> Array:
    """Numbers, and another in the place of what is none."""
    return np.where(np.isnan(numbers), unknown, numbers)


def joined(parts: Sequence[Interval], *, zero: bool = False) -> Interval:
    """The hull of several intervals that broadcast, and of zero if asked for."""
    shape = np.broadcast_shapes(*(p.shape for p in parts))
    low = np.min([np.broadcast_to(p.low, shape) for p in parts], axis=0)
    high = np.max([np.broadcast_to(p.high, shape) for p in parts], axis=0)
    return Interval(np.minimum(low, 0), np.maximum(high, 0)) if zero else Interval(low, high)


def hull(x: Interval, axes: Sequence[int], *, keepdims: bool = True) -> Interval:
    """One interval for all elements along axes."""
    low, high = x.low.min(axis=tuple(axes), keepdims=keepdims), x.high.max(axis=tuple(axes), keepdims=keepdims)
    return Interval(np.asarray(low), np.asarray(high))


def fitted(x: Interval, shape: Shape) -> Interval:
    """The interval in a shape: axes without units there are joined; unbounded where it has another shape."""
    if x.shape == shape:
        return x
    ball = x.ball if x.ball is None or len(x.shape) == len(shape) else None
    if len(x.shape) < len(shape):
        lead = (1,) * (len(shape) - len(x.shape))
        x = Interval(x.low.reshape(lead + x.shape), x.high.reshape(lead + x.shape))
    if len(x.shape) > len(shape):
        return unbounded(shape)
    gone = [k for k, (a, b) in enumerate(zip(x.shape, shape, strict=True)) if a != b and b == 1]
    made = hull(x, gone) if gone else x
    if any(a not in (1, b) for a, b in zip(made.shape, shape, strict=True)):
        return unbounded(shape)
    return Interval(np.broadcast_to(made.low, shape), np.broadcast_to(made.high, shape), ball, x.shares)


def product(a: Interval, b: Interval) -> Interval:
    """The elementwise product."""
    with np.errstate(invalid="ignore", over="ignore"):
        corners = [_told(p * q, 0.0) for p in _ends(a) for q in _ends(b)]
    low, high = np.minimum.reduce(corners), np.maximum.reduce(corners)
    made = widened(low, high)
    return Interval(
        np.where(low >= 0, np.maximum(made.low, 0), made.low), np.where(high <= 0, np.minimum(made.high, 0), made.high)
    )


def _ends(x: Interval) -> tuple[Array, ...]:
    return (x.low,) if x.low is x.high else (x.low, x.high)


def total(parts: Sequence[Interval]) -> Interval:
    """The elementwise sum."""
    with np.errstate(invalid="ignore", over="ignore"):
        low, high = (reduce(np.add, ends) for ends in ([p.low for p in parts], [p.high for p in parts]))
        sizes = [p.size for p in parts]
        size = reduce(np.add, [np.where(np.isfinite(size), size, np.float64(0)) for size in sizes])
    made = widened(low, high, SLACK * size)
    # A sum of numbers that are not negative is rounded to one that is not.
    least = np.where(reduce(np.logical_and, [p.low >= 0 for p in parts]), 0.0, -np.inf)
    most = np.where(reduce(np.logical_and, [p.high <= 0 for p in parts]), 0.0, np.inf)
    return Interval(np.maximum(made.low, least), np.minimum(made.high, most))


def negated(x: Interval) -> Interval:
    """The elementwise negative."""
    return Interval(-x.high, -x.low)


def of_ball(ball: Ball) -> Interval:
    """What single elements lie between."""
    reach = ball.radius * np.sqrt(1 - 1 / ball.count) if ball.centred else ball.radius
    low, high = ball.shift - np.abs(ball.gain) * reach, ball.shift + np.abs(ball.gain) * reach
    made = widened(low, high, SLACK * (np.abs(ball.shift) + np.abs(ball.gain) * reach))
    return Interval(made.low, made.high, ball)


# Intervals and balls through contractions of one tensor: rearrangements, repetitions, and sums along axes.

Free = Callable[[int], bool]
"""Whether a length is one that only a run tells."""


def labels(spec: Spec) -> set[str]:
    """All labels of a spec."""
    return {label for axis in spec for label in axis}


def rearranged(step: Einsum, x: Interval, free: Free) -> Interval:
    """What a contraction of one tensor makes; a sum of a number of terms that only a run tells keeps its sign."""
    lost = labels(step.specs[0]) - labels(step.result)
    made = Interval(_arranged(step, x.low), _arranged(step, x.high))
    if not lost:
        axes = None if x.ball is None else _followed(step.specs[0], step.result, x.ball.axes)
        ball = None if axes is None or x.ball is None else x.ball.moved(lambda a: _arranged(step, a), axes)
        shares = _followed(step.specs[0], step.result, x.shares) if x.shares else None
        return Interval(made.low, made.high, ball, shares or ())
    if not known(step.node.op).averages and any(free(step.sizes[label]) for label in lost):
        return _any_number(made)
    size = _arranged(step, np.where(np.isfinite(x.size), x.size, 0))
    found = widened(made.low, made.high, UNIT * prod(step.sizes[label] for label in lost) * size)
    low = np.where((x.low >= 0).all(), np.maximum(found.low, 0), found.low)
    return Interval(low, np.where((x.high <= 0).all(), np.minimum(found.high, 0), found.high))


def _arranged(step: Einsum, x: Array) -> Array:
    """A rearrangement or sum of numbers; unbounded ones among them stay so."""
    wild = np.isinf(x)
    with np.errstate(invalid="ignore"):
        made = summed(step, [np.where(wild, 0, x)], [0])
        if not wild.any():
            return made
        above, below = (summed(step, [(x == end).astype(float)], [0]) > 0 for end in (np.inf, -np.inf))
    return np.where(below, -np.inf, np.where(above, np.inf, made))


def _followed(before: Spec, after: Spec, axes: Sequence[int]) -> tuple[int, ...] | None:
    """Where axes went; None where what is in them is not kept apart from the rest."""
    mine = {label for k in axes for label in before[k]}
    found = tuple(k for k, axis in enumerate(after) if mine.intersection(axis))
    whole = bool(mine) and {label for k in found for label in after[k]} == mine
    return found if whole and all(any(m in axis for axis in after) for m in mine) else None


def _any_number(x: Interval) -> Interval:
    """A sum of any number of terms."""
    return Interval(np.where(x.low >= 0, 0.0, -np.inf), np.where(x.high <= 0, 0.0, np.inf))


CHUNK = 1 << 22
"""Elements of a weight that are widened at a time."""
LARGEST = 1 << 24
"""Elements of a product of two tensors that is written out."""


def contracted(step: Einsum, values: Sequence[Interval], known: Sequence[bool], free: Free) -> Interval:
    """What the output lies between, in any shape that broadcasts to it."""
    if len(values) == 1:
        return rearranged(step, values[0], free)
    if len(values) == 2 and any(known):
        x, w = (0, 1) if known[1] else (1, 0)
        return _linear(step, values, x, w, free)
    return _moving(step, values, free) if len(values) == 2 else unbounded((1,) * len(step.result))


# -- weights ------------------------------------------------------------------------------------------------------
def _linear(step: Einsum, values: Sequence[Interval], x: int, w: int, free: Free) -> Interval:
    """Known weights times an interval, or times a ball where that says more."""
    read, weights = values[x], values[w].low
    beside = labels(step.specs[x]) - labels(step.specs[w]) - labels(step.result)
    if read.shares and not beside and (averaged := _averaging(step, read, weights, x, w)) is not None:
        return averaged
    if read.ball is not None and not beside:
        found = [_reader(part, read.ball, cut, x, w) for part, cut in _chunks(step, weights, w)]
        if found[0] is not None:  # never wider than what intervals say of the same vectors
            return _together(step, [one for one in found if one is not None], w)
    one_sided = bool(np.isinf(read.low).all() or np.isinf(read.high).all())
    nothing = bool(np.isinf(read.low).all() and np.isinf(read.high).all())
    uncounted = any(free(step.sizes[label]) for label in beside)
    if nothing or uncounted or (one_sided and _both_signs(step, weights, w)):
        return unbounded((1,) * len(step.result))
    parts = [_weighted(part, read, cut, x, w) for part, cut in _chunks(step, weights, w)]
    return _together(step, parts, w)


def _averaging(step: Einsum, read: Interval, weights: Array, x: int, w: int) -> Interval | None:
    """What readers of shares of one lie between: the least and the largest of their weights."""
    held = {label for axis in read.shares for label in step.specs[x][axis]}
    axes = tuple(k for k, axis in enumerate(step.specs[w]) if held.intersection(axis))
    lost = labels(step.specs[w]) - labels(step.result)
    if held != lost or {label for k in axes for label in step.specs[w][k]} != held:
        return None
    ends = [np.asarray(best(weights, axis=axes, keepdims=True), np.float64) for best in (np.min, np.max)]
    spec = tuple(() if k in axes else axis for k, axis in enumerate(step.specs[w]))
    one = Einsum(step.out, step.operands[:1], (spec,), step.result, step.sizes, step.node)
    slack = (prod(step.sizes[label] for label in held) + 64) * UNIT * np.abs(weights).max(axis=axes, keepdims=True)
    return rearranged(one, widened(ends[0], ends[1], slack), lambda _: False)


def _both_signs(step: Einsum, weights: Array, w: int) -> bool:
    """Whether every output reads with weights of both signs, so that one open end of what is read leaves none."""
    made = labels(step.result)
    axes = tuple(k for k, axis in enumerate(step.specs[w]) if not made.intersection(axis))
    return bool(axes) and bool((weights.max(axis=axes) > 0).all() and (weights.min(axis=axes) < 0).all())


def _weighted(step: Einsum, read: Interval, weights: Array, x: int, w: int) -> Interval:
    """One product for the positive weights and one for the negative ones, with several columns each."""
    ends = (read.high, read.low)
    wild = [np.isinf(end) for end in ends]
    bounded = [np.where(off, 0.0, end) for off, end in zip(wild, ends, strict=True)]
    columns = [*bounded, np.maximum(*map(np.abs, bounded)), *(off.astype(float) for off in wild)]
    stack = np.stack(columns if np.any(wild) else columns[:3])
    wide = weights.astype(np.float64)
    up, down = (
        summed(step, *_ordered((stack, 1), (half, 0), x)) for half in (np.maximum(wide, 0), np.maximum(-wide, 0))
    )
    count = prod(step.sizes[label] for label in labels(step.specs[w]) - labels(step.result))
    made = widened(up[1] - down[0], up[0] - down[1], (count + 8) * UNIT * (up[2] + down[2]))
    positive = bool((read.low >= 0).all())
    low = np.where(positive & (down[0] == 0), np.maximum(made.low, 0), made.low)
    high = np.where(positive & (up[0] == 0), np.minimum(made.high, 0), made.high)
    if len(stack) > 3:
        low = np.where((up[4] > 0) | (down[3] > 0), -np.inf, low)
        high = np.where((up[3] > 0) | (down[4] > 0), np.inf, high)
    return Interval(low, high)


def _ordered(one: tuple[Array, int], other: tuple[Array, int], x: int) -> tuple[list[Array], list[int]]:
    """What is read and the weights in the order of the operands, with the numbers of their leading axes."""
    pairs = [one, other] if x == 0 else [other, one]
    return [p[0] for p in pairs], [p[1] for p in pairs]


def _chunks(step: Einsum, weights: Array, w: int) -> Iterator[tuple[Einsum, Array]]:
    """The weights in parts along an axis that only they have, where they are large."""
    along, parts = _own(step, w), -(-weights.size // CHUNK)
    if parts < 2 or along is None or weights.shape[along] < parts:
        yield step, weights
        return
    (label,) = step.specs[w][along]
    for part in np.array_split(np.arange(weights.shape[along]), parts):
        cut = weights[(*(slice(None),) * along, slice(int(part[0]), int(part[-1]) + 1))]
        yield replace(step, sizes={**step.sizes, label: len(part)}), cut


def _own(step: Einsum, w: int) -> int | None:
    """An axis of the weights that is one of the result and none of what they read."""
    others = labels(step.specs[1 - w])
    own = (k for k, a in enumerate(step.specs[w]) if len(a) == 1 and a[0] not in others and a in step.result)
    return next(own, None)


def _together(step: Einsum, parts: Sequence[Interval], w: int) -> Interval:
    """What the parts of the weights make, one behind the other."""
    own = _own(step, w)
    if len(parts) == 1 or own is None:
        return parts[0]
    axis = step.result.index(step.specs[w][own])
    return paired(np.concatenate([getattr(p, end) for p in parts], axis=axis) for end in ("low", "high"))


def _reader(step: Einsum, ball: Ball, weights: Array, x: int, w: int) -> Interval | None:
    """What linear readers w of a ball lie between: the radius times |w gain| around w shift."""
    along = {label for k in ball.axes for label in step.specs[x][k]}
    rest = labels(step.specs[x]) - along
    if not along <= labels(step.specs[w]) or along & labels(step.result):
        return None
    if any(step.sizes[label] > 1 and label not in labels(step.result) for label in rest):
        return None  # several vectors are added up, or the places of a window
    wide = weights.astype(np.float64)

    def read(vector: Array, rows: Array) -> Array:
        return summed(step, *_ordered((vector, 0), (rows, 0), x))

    middle, sizes = read(ball.shift, wide), read(np.abs(ball.shift), np.abs(wide))
    square = length = read(ball.gain**2, wide**2)
    if ball.centred:
        length = np.maximum(square - read(ball.gain, wide) ** 2 / ball.count, 1e-12 * square)
    reach = ball.radius * np.sqrt(length)
    slack = UNIT * (ball.count + 8) * (sizes + ball.radius * np.sqrt(square))
    return widened(middle - reach, middle + reach, slack)


# -- two tensors that depend on the input -------------------------------------------------------------------------
def _moving(step: Einsum, values: Sequence[Interval], free: Free) -> Interval:
    """An average where one holds shares of one; else the products of intervals."""
    lost = (labels(step.specs[0]) | labels(step.specs[1])) - labels(step.result)
    for k, v in enumerate(values):
        held = {label for axis in v.shares for label in step.specs[k][axis]}
        if v.shares and held == lost and held <= labels(step.specs[1 - k]):
            return _average(step, values[1 - k], 1 - k)
    spread = [_apart(v, spec, step) for v, spec in zip(values, step.specs, strict=True)]
    order = list(dict.fromkeys(label for spec in step.specs for axis in spec for label in axis))
    grids = [_grid(v, mine, order) for v, mine in spread]
    wide = np.broadcast_shapes(*(g.shape for g in grids))
    if prod(wide) > LARGEST or all(v.open for v in values):
        return unbounded((1,) * len(step.result))
    made = product(*grids)
    one = Einsum(step.out, step.operands[:1], (tuple((label,) for label in order),), step.result, step.sizes, step.node)
    return rearranged(one, made, free)


def _average(step: Einsum, x: Interval, k: int) -> Interval:
    """Averages lie where what is averaged does; so they do in a ball."""
    lost = labels(step.specs[k]) - labels(step.result)
    axes = [a for a, axis in enumerate(step.specs[k]) if lost.intersection(axis)]
    whole = all(lost.issuperset(step.specs[k][a]) for a in axes)
    flat = hull(x, axes) if whole else hull(x, range(x.low.ndim))
    # Shares are rounded: they add up to one only about.
    made = widened(flat.low, flat.high, 64 * UNIT * np.where(np.isfinite(flat.size), flat.size, 0))
    spec = tuple(() if a in axes else axis for a, axis in enumerate(step.specs[k])) if whole else step.specs[k]
    if not whole:
        return Interval(made.low.reshape((1,) * len(step.result)), made.high.reshape((1,) * len(step.result)))
    one = Einsum(step.out, step.operands[:1], (spec,), step.result, step.sizes, step.node)
    ball = x.ball if x.ball is not None and not set(x.ball.axes) & set(axes) and _still(x.ball, axes) else None
    return rearranged(one, Interval(made.low, made.high, ball), lambda n: False)


def _still(ball: Ball, axes: Sequence[int]) -> bool:
    """Whether gain and shift are the same along axes."""
    return all(a.shape[k] == 1 for a in (ball.gain, ball.shift) for k in axes)


def _apart(x: Interval, spec: Spec, step: Einsum) -> tuple[Interval, list[str]]:
    """An operand with an axis per label."""
    shape = [step.sizes[label] if n > 1 else 1 for n, axis in zip(x.shape, spec, strict=True) for label in axis]
    return Interval(x.low.reshape(shape), x.high.reshape(shape)), [label for axis in spec for label in axis]


def _grid(x: Interval, mine: Sequence[str], order: Sequence[str]) -> Interval:
    place = [mine.index(label) for label in order if label in mine]
    shape = [x.shape[mine.index(label)] if label in mine else 1 for label in order]
    return paired(end.transpose(place).reshape(shape) for end in (x.low, x.high))
