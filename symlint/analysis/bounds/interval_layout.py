"""Intervals and balls through steps that move, cut, join and scale elements."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from symlint.analysis.bounds.interval import Ball, Interval, fitted, hull, joined, paired, widened
from symlint.model.graph import Array, Shape
from symlint.program.mixing import MixKind
from symlint.program.steps import Mix, Pointwise, Slice


def concatenated(parts: Sequence[Interval], sizes: Sequence[int], axis: int, shape: Shape) -> Interval:
    """Intervals one behind the other along an axis, or their hull where that carries no units."""
    if shape[axis] == 1:
        return joined([fitted(p, tuple(n if k != axis else 1 for k, n in enumerate(shape))) for p in parts])
    wide = [fitted(p, (*shape[:axis], n, *shape[axis + 1 :])) for p, n in zip(parts, sizes, strict=True)]
    return paired(np.concatenate([getattr(p, end) for p in wide], axis=axis) for end in ("low", "high"))


def narrowed(step: Slice, x: Interval) -> Interval:
    """Some indices of an axis; a part of a vector is no longer than the whole."""

    def cut(a: Array) -> Array:
        return a[(*(slice(None),) * step.axis, slice(step.start, step.stop))] if a.shape[step.axis] > 1 else a

    ball = x.ball
    if ball is not None:
        ball = replace(ball.moved(cut, ball.axes), centred=ball.centred and step.axis not in ball.axes)
    return Interval(cut(x.low), cut(x.high), ball)


def mixed(step: Mix, x: Interval) -> Interval | None:
    """What a map in a fixed order makes; None where it may make numbers of its own."""
    filled = _filled(step)
    if filled is None:
        return None
    dropped = [k for k in range(len(x.shape)) if k not in step.keep]
    kept = [k for k in range(len(x.shape)) if k not in dropped]
    order = [kept.index(k) for k in step.keep if k is not None]
    new = tuple(k for k, source in enumerate(step.keep) if source is None)

    def moved(a: Array) -> Array:
        return np.expand_dims(a.transpose(order), new)

    flat = hull(x, dropped, keepdims=False) if dropped else x
    made = Interval(moved(flat.low), moved(flat.high))
    made = joined([made], zero=True) if filled else made
    if not step.kind.chooses and step.node.op not in ("Conv", "ConvTranspose", "MaxPool"):
        made = widened(made.low, made.high)
        made = joined([made], zero=True) if filled else made
    ball = x.ball
    if ball is None or filled or step.kind is MixKind.POOLING or set(ball.axes) & set(dropped):
        return made
    if any(a.shape[k] > 1 for a in (ball.gain, ball.shift) for k in dropped):
        return made

    def placed(a: Array) -> Array:
        return moved(a.reshape([n for k, n in enumerate(a.shape) if k not in dropped]))

    return replace(made, ball=ball.moved(placed, [step.keep.index(k) for k in ball.axes]))


def _filled(step: Mix) -> bool | None:
    """Whether a map may make zeros beside elements of what it gets; None where it makes anything else."""
    op, attributes = step.node.op, step.node.attributes
    if step.kind is MixKind.POOLING:
        average = op == "AveragePool"
        padded = not step.steady or bool(attributes.get("ceil_mode", 0))
        return None if not average and "MaxPool" not in op else average and padded
    if step.kind is MixKind.RESIZING:
        mode = attributes.get("mode", "nearest")
        plain = step.steady and mode in ("nearest", "linear", b"nearest", b"linear")
        return False if plain else None
    if step.kind is MixKind.CONVOLUTION:
        return not step.steady
    if step.kind.chooses:
        return op.startswith("Scatter")
    return True if step.kind.fills else None


def scaled(step: Pointwise, values: Sequence[Interval], rank: int) -> Ball | None:
    """The ball of an output that is a multiple of a vector of one, or that plus a known vector."""
    places = [k for k, v in enumerate(values) if v.ball is not None]
    if len(places) != 1:
        return None
    (k,) = places
    ball = values[k].ball
    others = [v for j, v in enumerate(values) if j != k]
    if ball is None or ball.gain.ndim != rank or any(v.low is not v.high for v in others):
        return None
    if step.function == "Identity":
        return ball
    if step.function == "Neg":
        return replace(ball, gain=-ball.gain, shift=-ball.shift)
    known = [v.low.astype(np.float64).reshape((1,) * (rank - v.low.ndim) + v.low.shape) for v in others]
    if step.function == "Mul":
        factor = np.asarray(np.multiply.reduce(known)) if len(known) > 1 else known[0]
        return replace(ball, gain=ball.gain * factor, shift=ball.shift * factor)
    if step.function == "Div" and k == 0 and np.all(known[0] != 0):
        return replace(ball, gain=ball.gain / known[0], shift=ball.shift / known[0])
    if step.function in ("Add", "Sum", "Sub"):
        sign = -1.0 if step.function == "Sub" else 1.0
        if step.function == "Sub" and k == 1:
            return replace(ball, gain=-ball.gain, shift=known[0] - ball.shift)
        return replace(ball, shift=ball.shift + sign * sum(known[1:], known[0]))
    return None
