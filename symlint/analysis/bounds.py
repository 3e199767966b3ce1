"""Bounds: what every tensor of a program lies between for all inputs, by intervals and by norms.

Inputs may be anything. A normalisation bounds the length of what it makes, whatever it gets, and a bounded activation
every element; from there on intervals are propagated, rounded outward by what a run in float32 may be off. Where a
rotation mixes the units of a tensor only lengths are kept, so that nothing here depends on the gauge.

Certificates: what the bounds of a network prove about its units.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import prod, sqrt

import numpy as np

from symlint.analysis.interval import (
    SLACK,
    UNIT,
    Ball,
    Interval,
    between,
    contracted,
    fitted,
    hull,
    joined,
    of_ball,
    paired,
    point,
    unbounded,
    widened,
)
from symlint.analysis.ranges import CLAMPS, SLOPES, radii, ranged
from symlint.analysis.values.lattice import Value
from symlint.model.graph import Array, Shape
from symlint.model.records import dataclass
from symlint.program.functions import MixKind, dispatched
from symlint.program.numbers import NORMS, Truth, exactly
from symlint.program.steps import Concat, Einsum, Fold, Mix, Normalise, Pointwise, Program, Slice, Step
from symlint.symmetry.structure import Structure

# Intervals and balls through steps that move, cut, join and scale elements.


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


LIMIT = 1 << 23
WIDE = 1 << 20
"""Elements of a known tensor that is kept as it is stored."""
Blind = Callable[[str], Sequence[Array | None]]
"""Axis by axis which elements of a tensor a rotation mixes."""
SHARES = ("Softmax", "Hardmax")


def bounds(
    program: Program,
    values: Mapping[str, Value],
    carried: Mapping[str, tuple[bool, ...]],
    blind: Blind,
    *,
    every: bool = False,
    given: Mapping[str, tuple[float, float]] | None = None,
) -> dict[str, Interval]:
    """What the computed tensors lie between, in the shape of their values.

    Args:
        program: of the network.
        values: what the weights alone tell; known tensors are taken from there.
        carried: which axes of a tensor carry units and are written out.
        blind: what is mixed by rotations, so that an interval of it would depend on the gauge.
        every: whether also of tensors that no activation with a constant part depends on.
        given: what the numbers of some inputs lie between; those of the others may be anything.
    """
    walk = _Walk(program, values, carried, blind)
    wanted = None if every else _wanted(program)
    if wanted is not None and not wanted:
        return {}
    for name, (low, high) in (given or {}).items():
        if name in program.inputs:
            walk.put(name, between(low, high, walk.shape(name)))
    for step in program.steps:
        if wanted is None or not wanted.isdisjoint(step.results):
            walk.take(step)
    return walk.found


def _wanted(program: Program) -> set[str]:
    """The tensors on which an activation with a constant or a linear part depends."""
    found: set[str] = set()
    for step in reversed(program.steps):
        if step.function in CLAMPS | SLOPES:
            found.update(step.results)
        if not found.isdisjoint(step.results) and not isinstance(step, Normalise):
            found.update(step.operands)
    return found - program.fixed


class _Walk:
    def __init__(
        self, program: Program, values: Mapping[str, Value], carried: Mapping[str, tuple[bool, ...]], blind: Blind
    ) -> None:
        self.program, self.values, self.carried, self.blind = program, values, carried, blind
        self.found: dict[str, Interval] = {}
        self.known: dict[str, Interval] = {}
        self.radii = radii(program)
        self.truth = Truth(program)

    def shape(self, name: str) -> Shape:
        """The shape in which a tensor's interval is written."""
        pairs = zip(self.program.shapes[name], self.carried[name], strict=True)
        shape = tuple(n if kept else 1 for n, kept in pairs)
        return shape if prod(shape) <= LIMIT else tuple(1 for _ in shape)

    def of(self, name: str, step: Step) -> Interval:
        """What an operand of a step lies between."""
        if self.truth.varying(name, step):
            held = step.node.op == "GRU" and self.truth.averaged(step)
            return between(-1.0 - 64 * UNIT, 1.0 + 64 * UNIT, self.shape(name)) if held else unbounded(self.shape(name))
        if name in self.found:
            return self.found[name]
        known = self.number(name, step)
        if known is None:
            value = self.values.get(name)
            return unbounded(self.shape(name) if value is None or value.bases is not None else value.shape)
        if name not in self.program.makers:
            return known
        # What is computed of constants is rounded in a run.
        return widened(known.low, known.high, 64 * UNIT * float(known.size.max(initial=0.0)))

    def number(self, name: str, step: Step) -> Interval | None:
        """A tensor that depends on no input; None where its value is not known, or that of one length among others."""
        value = self.values.get(name)
        if name not in self.program.fixed or value is None or value.bases is not None:
            return None
        stale = name in self.program.tables and not self.program.model.moving.isdisjoint(step.node.inputs)
        if stale or name in self.truth.doubtful:
            return None
        if name not in self.known:
            stored = self.program.weights.get(name)
            # What counts as zero elsewhere is what it is here.
            found = value.scale if stored is None else self.program.model.tensors[stored].read()
            plain = found.size > WIDE and found.dtype == np.float32
            self.known[name] = Interval(found, found) if plain else point(found)
        return self.known[name]

    def put(self, name: str, made: Interval) -> None:
        """Remember what a tensor lies between, less what depends on the gauge."""
        shape = self.shape(name)
        x = fitted(made, shape)
        for axis, mask in enumerate(self.blind(name)):
            if mask is None or not mask.any():
                continue
            hidden = mask.reshape([-1 if k == axis else 1 for k in range(len(shape))]) if shape[axis] > 1 else True
            x = replace(x, low=np.where(hidden, -np.inf, x.low), high=np.where(hidden, np.inf, x.high))
        self.found[name] = x

    def take(self, step: Step) -> None:
        """What a step makes lies between."""
        if not self.truth.told(step):
            for name in step.results:
                if name not in self.program.fixed:
                    self.put(name, unbounded(self.shape(name)))
        elif not self.program.fixed.issuperset(step.results):
            (name,) = step.results
            self.put(name, self.step(step))

    @dispatched
    def step(self, step: Step) -> Interval:
        """What the output of a step lies between."""
        raise NotImplementedError(type(step))

    @step.register
    def _(self, step: Einsum) -> Interval:
        if not exactly(step):
            return unbounded(self.shape(step.out))
        numbers = [self.number(name, step) for name in step.operands]
        values = [n or self.of(name, step) for n, name in zip(numbers, step.operands, strict=True)]
        known = [n is not None for n in numbers]
        return contracted(step, values, known, self.truth.free)

    @step.register
    def _(self, step: Pointwise) -> Interval:
        shape = self.shape(step.out)
        values = [self.of(n, step) if exactly(step) else unbounded(self.shape(n)) for n in step.operands]
        made = ranged(step, values)
        found = unbounded(shape) if made is None else fitted(made, shape)
        ball = None
        if exactly(step) and any(v.ball is not None for v in values):
            numbers = [self.number(n, step) for n in step.operands]
            ball = scaled(step, [n or v for n, v in zip(numbers, values, strict=True)], len(shape))
        if step.node.op == "GRU" and step.function == "Where" and self.truth.averaged(step):
            found = Interval(np.maximum(found.low, -1.0 - 64 * UNIT), np.minimum(found.high, 1.0 + 64 * UNIT))
        if ball is None:
            return found
        tight = fitted(of_ball(ball), shape)
        low, high = np.maximum(found.low, tight.low), np.minimum(found.high, tight.high)
        return Interval(low, np.maximum(low, high), ball)

    @step.register
    def _(self, step: Concat) -> Interval:
        if not exactly(step):
            return unbounded(self.shape(step.out))
        sizes = [self.program.shapes[name][step.axis] for name in step.operands]
        return concatenated([self.of(n, step) for n in step.operands], sizes, step.axis, self.shape(step.out))

    @step.register
    def _(self, step: Slice) -> Interval:
        return narrowed(step, self.of(step.x, step)) if exactly(step) else unbounded(self.shape(step.out))

    @step.register
    def _(self, step: Mix) -> Interval:
        made = mixed(step, self.of(step.x, step)) if exactly(step) else None
        return unbounded(self.shape(step.out)) if made is None else made

    @step.register
    def _(self, step: Normalise) -> Interval:
        shape, whole = self.shape(step.out), self.program.shapes[step.out]
        if step.function in ("Softmax", "Hardmax", "SoftmaxAndOne", "Chosen", "LogSoftmax"):
            low, high = (-np.inf, 0.0) if step.function == "LogSoftmax" else (0.0, 1.0)
            share = step.axes if step.function in SHARES and step.node.op in SHARES else ()
            return Interval(np.full(shape, low), np.full(shape, high), None, share)
        count = prod(whole[k] for k in step.axes)
        radius = sqrt(count) if step.function != "l2" else 1.0
        if step.node.op not in NORMS:
            radius = self.radii.get(step.out, np.inf)
        free = any(self.truth.free(whole[k]) for k in step.axes) and step.function != "l2"
        if step.function not in ("rms", "standardise", "l2") or free or not np.isfinite(radius):
            return unbounded(shape)
        one, nothing = np.ones((1,) * len(whole)), np.zeros((1,) * len(whole))
        ball = Ball(step.axes, radius * (1 + 64 * SLACK), step.function == "standardise", count, one, nothing)
        return replace(fitted(of_ball(ball), shape), ball=ball)

    @step.register
    def _(self, step: Fold) -> Interval:
        x = self.of(step.x, step)
        if step.function in ("ReduceMax", "ReduceMin", "GlobalMaxPool"):
            return hull(x, step.axes, keepdims=False)
        if step.function not in ("ReduceL1", "ReduceL2", "ReduceSumSquare"):
            return unbounded(self.shape(step.out))
        high = np.full(hull(x, step.axes, keepdims=False).shape, np.inf)
        return Interval(np.zeros(high.shape), high)


MARGINS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""How much wider an interval is made on both sides, relative to its width, to see how sure a proof is."""


@dataclass(frozen=True, slots=True, eq=False)
class Settled:
    """Elements of a tensor that are one number for every input, because of what an activation gets."""

    where: Array
    number: Array
    margin: Array
    """The largest of `MARGINS` by which its interval could be wider; 0 where none."""


def certify(
    structure: Structure,
    values: Mapping[str, Value],
    carried: Mapping[str, tuple[bool, ...]],
    *,
    every: bool = False,
    given: Mapping[str, tuple[float, float]] | None = None,
) -> dict[str, Interval]:
    """What the computed tensors lie between: of those on which a clamp depends, or of every one.

    ``given`` is what the numbers of some inputs lie between.
    """
    return bounds(structure.program, values, carried, _Mixed(structure).of, every=every, given=given)


def settled(structure: Structure, values: Mapping[str, Value], found: Mapping[str, Interval]) -> dict[str, Settled]:
    """The elements that an activation makes one number, where that is not known from the weights alone."""
    made: dict[str, Settled] = {}
    for step in structure.program.elementwise:
        if step.out in found and found[step.out].settled.any():
            one, value = found[step.out], values[step.out]
            fresh = one.settled & ~value.constant if value.shape == one.shape else one.settled
            if fresh.any():
                made[step.out] = Settled(one.settled, one.low, _margin(step, values, found, one))
    return made


def _margin(step: Pointwise, values: Mapping[str, Value], found: Mapping[str, Interval], one: Interval) -> Array:
    margin = np.zeros(one.shape)
    given = [found[n] if n in found else point(values[n].scale) for n in step.operands]
    for share in MARGINS:
        made = ranged(step, [_wider(x, share) for x in given])
        if made is None or np.broadcast_shapes(made.shape, one.shape) != one.shape:
            break
        margin = np.where(made.settled & one.settled & (margin == _before(share)), share, margin)
    return margin


def _before(share: float) -> float:
    place = MARGINS.index(share)
    return MARGINS[place - 1] if place else 0.0


def _wider(x: Interval, share: float) -> Interval:
    width = np.where(np.isfinite(x.high - x.low), x.high - x.low, np.inf)
    return Interval(x.low - share * width, x.high + share * width)


class _Mixed:
    """Which elements of a tensor a rotation mixes with others."""

    def __init__(self, structure: Structure) -> None:
        self.structure = structure
        self.leaves = frozenset(a.leaf for a in structure.rotations)
        self.masks: dict[int, Array | None] = {}

    def of(self, name: str) -> Sequence[Array | None]:
        """Axis by axis a mask, None where no element is mixed."""
        return [self._mask(factor) for factor in self.structure.axes.of[name]]

    def _mask(self, factor: int) -> Array | None:
        if factor not in self.masks:
            factors, found = self.structure.axes.factors, None
            if self.leaves.intersection(factors.leaves(factor)):
                found = np.zeros(factors.size(factor), bool)
                for term in self.structure.expansion.terms(factor):
                    if self.leaves.intersection(term.leaves):
                        found[term.positions] = True
            self.masks[factor] = found
        return self.masks[factor]
