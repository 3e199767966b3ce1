"""Intervals of floating numbers, widened by what a run in float32 rounds, and balls that a normalisation maps into."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import reduce

import numpy as np

from symlint.model.graph import Array, Shape
from symlint.model.records import dataclass

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
