"""Rounding: what 8 bits a tensor leave of the weights in a gauge, and in the balanced one.

Units whose scales differ share one step size, so that small ones lose their digits, although the function does not
care how large they are. Errors are therefore seen from the minimum-norm gauge, which depends on the function alone.

Half precision: what conversion to float16 takes from the weights in a gauge, and in the minimum-norm one.

Beyond 65,504 there is only infinity, below 6.1e-5 digits get fewer, below 6e-8 all is zero. Whether that matters is
told unit by unit, from the minimum-norm gauge: what a unit loses relative to all of its weights in a tensor, if these
are not negligible beside those of the other units.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from symlint.model.clusters import median
from symlint.model.graph import Array
from symlint.model.records import dataclass
from symlint.program.steps import Einsum, Program, rearranges
from symlint.symmetry.gauge.convex import Hold, onto
from symlint.symmetry.gauge.scales import Place, Scales, Seen, added, bearers, behind, chains, place
from symlint.symmetry.structure import Action, Structure

LEVELS = 127
"""Steps of a signed 8-bit integer on each side of zero."""
ENOUGH = 1e-2
"""How far the logarithms of scales may be off where only decibels are told of them."""


@dataclass(frozen=True, slots=True)
class Rounded:
    """The weights of spaces that share some, and what is left of them when each is rounded in one step size."""

    actions: tuple[Action, ...]
    space: str
    """The space whose scales are the most uneven."""
    spread: float
    """Ratio of the largest to the smallest scale that balances the units of that space."""
    weights: int
    worst: str
    """The stored tensor that loses most."""
    before: float
    """Signal to noise in decibels; the relative errors of the weights add up, as they do in the outputs."""
    after: float
    """The same in the balanced gauge."""

    @property
    def spaces(self) -> int:
        """How many spaces share the weights."""
        return len({a.space for a in self.actions})


def noise(sizes: Array, seen: Array) -> float:
    """Power of the error of rounding to int8 in one step size, relative to the weight's; `seen` enlarges both."""
    top = float(sizes.max(initial=0))
    if not top:
        return 0.0
    step = top / LEVELS
    errors = np.abs(sizes - np.round(sizes / step) * step)
    return float(np.square(errors * seen).sum() / np.square(sizes * seen).sum())


def rounded(structure: Structure) -> Iterator[Rounded]:
    """What int8 leaves of all weights that rescalings move, chain after chain of spaces that share weights."""
    found = place(structure, "rounding", close=ENOUGH)
    if found is None:
        return
    scales = found.scales
    counted = _contracted(structure.program)
    folds = dict(_folds(structure.program))
    for chain in chains(scales):
        names = {name for k in chain for name in bearers(scales, k)}
        seen = {n: _seen(scales, n, folds.get(n)) for n in scales.tensors() if n in names and n in counted}
        errors = {n: _errors(found, s) for n, s in seen.items()}
        before, after = (sum(e[k] for e in errors.values()) for k in range(2))
        spreads = {k: _spread(found, k) for k in chain}
        if not before or not after or not spreads:
            continue
        widest = max(spreads, key=spreads.__getitem__)
        yield Rounded(
            tuple(scales.actions[k] for k in chain),
            scales.actions[widest].space,
            spreads[widest],
            len(seen),
            structure.program.weights[max(errors, key=lambda n: errors[n][0])],
            -10 * float(np.log10(before)),
            -10 * float(np.log10(after)),
        )


def decibels(structure: Structure) -> float | None:
    """Signal to noise, in decibels, of all weights that rescalings move, rounded to int8 in one step size a tensor.

    None where there are none, or where rounding changes none of them.
    """
    errors = sum(10 ** (-one.before / 10) for one in rounded(structure))
    return -10 * float(np.log10(errors)) if errors else None


def _errors(found: Place, seen: Seen) -> tuple[float, float]:
    sizes = seen.live(found.dead)
    there, least = seen.grown(found.logs), seen.grown(found.least)
    return noise(sizes, least), noise(sizes * there, least / there)


def _spread(found: Place, k: int) -> float:
    numbers = found.scales.numbers[k].ravel()
    logs = found.logs[numbers[~found.dead[numbers]]]
    return float(np.exp(np.ptp(logs))) if logs.size else 1.0


def _seen(scales: Scales, name: str, fold: tuple[str, int] | None) -> Seen:
    """A weight of the program, times the batch normalisation that runtimes multiply into it."""
    sizes, holds = scales.size(name), list(scales.holds(name))
    if fold is not None:
        scale, axis = fold
        form = [-1 if k == axis else 1 for k in range(sizes.ndim)]
        sizes = sizes * scales.size(scale).reshape(form)
        holds += [Hold(h.scales.reshape(form), h.power) for h in scales.holds(scale)]
    return Seen(sizes, tuple(holds))


def _contracted(program: Program) -> set[str]:
    """The weights that a contraction with an activation reads, as they are or in another layout, and tables.

    The gain of a normalisation is none of them: quantisers keep it as it is.
    """
    found = {n for n in program.weights if sum(length > 1 for length in program.shapes[n]) > 1}
    for step in program.steps:
        if step.product and not program.fixed.issuperset(step.operands):
            queue: Sequence[str] = [n for n in step.operands if n in program.fixed]
            while queue:
                found.update(queue)
                queue = [n for q in queue if q in program.makers for n in program.makers[q].operands]
    return found & set(program.weights)


def _folds(program: Program) -> Iterator[tuple[str, tuple[str, int]]]:
    """Weights, each with the scale of the batch normalisation right behind it and the axis that this scales."""
    makers = program.producers
    for step in program.elementwise:
        if step.known.factor != 1:
            continue
        scale = next((s for n in step.operands if (s := _origin(program, n)) in program.affines), None)
        moving = [n for n in step.operands if n not in program.fixed]
        while len(moving) == 1 and program.reads[moving[0]] == 1:
            maker = makers.get(moving[0])
            if scale is None or maker is None:
                break
            if isinstance(maker, Einsum):
                for name, spec in zip(maker.operands, maker.specs, strict=True):
                    if name in program.weights and len(maker.result) > 1 and maker.result[1] in spec:
                        yield name, (scale, spec.index(maker.result[1]))
                break
            if not maker.known.sums:
                break
            moving = [n for n in maker.operands if n not in program.fixed]


def _origin(program: Program, name: str) -> str:
    """The tensor that a value is in another layout."""
    while name not in program.affines and rearranges(maker := program.makers.get(name)):
        (name,) = maker.operands
    return name


NEGLIGIBLE = 1e-3
"""A unit matters whose norm is at least this share of the median unit's."""
LOST = 0.05
"""The relative error from which a weight has lost most of its digits."""
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Loss:
    """What float16 takes from some weights."""

    overflow: int = 0
    """Numbers that become infinite."""
    lost: int = 0
    """Weights that lose most of their digits, in units that do."""
    error: float = 0.0
    """The largest relative error of such a unit."""
    units: frozenset[int] = frozenset()
    """The numbers of the scales of such units, and of those with infinite weights."""

    def __add__(self, other: Loss) -> Loss:
        return Loss(
            self.overflow + other.overflow,
            self.lost + other.lost,
            max(self.error, other.error),
            self.units | other.units,
        )

    def __bool__(self) -> bool:
        return bool(self.overflow or self.lost)


@dataclass(frozen=True, slots=True)
class Halved:
    """What float16 takes from a chain of spaces that share weights, or from weights that no scale moves."""

    space: str
    """The space whose scales are the furthest from balanced ones; empty where balance helps nothing."""
    units: tuple[int, ...]
    tensors: tuple[str, ...]
    """The stored tensors that lose something."""
    before: Loss
    after: Loss


def halved(structure: Structure, most: float) -> Iterator[Halved]:
    """What float16 takes from the weights, where it takes something.

    Args:
        structure: the network.
        most: the relative error from which a unit, or a weight, has lost most of its digits.
    """
    program = structure.program
    statistics = set(_statistics(program))
    rest = {n for n in {*program.parameters, *statistics} if program.model.tensors[n].floating}
    fixed: list[tuple[str, Loss]] = []
    found = place(structure, "norm", close=ENOUGH)
    for chain in [] if found is None else list(chains(found.scales)):
        assert found is not None
        scales = found.scales
        moved = {n for k in chain for o in scales.actions[k].charge for n in behind(structure, o.tensor)}
        names = {n for k in chain for n in bearers(scales, k)}
        before = {n: Loss(overflow=_infinite(_read(program, n))) for n in moved}
        after = {n: Loss(overflow=_infinite(found.values[n])) if n in found.values else before[n] for n in moved}
        for name in names:
            one, other = _losses(program, found, name, most)
            stored = next(iter(behind(structure, name)))
            before[stored], after[stored] = before[stored] + one, after[stored] + other
        rest -= moved
        first, last = sum(before.values(), Loss()), sum(after.values(), Loss())
        if (last.overflow, last.lost) >= (first.overflow, first.lost):
            fixed += before.items()
            continue
        furthest = max(chain, key=lambda k: float(np.abs(found.logs[scales.numbers[k]]).max(initial=0)))
        space = scales.actions[furthest].space
        own = [scales.numbers[k].ravel() for k in chain if scales.actions[k].space == space]
        units = sorted({int(u) for numbers in own for u in np.flatnonzero(np.isin(numbers, [*first.units]))})
        yield Halved(space, tuple(units), tuple(sorted(n for n, loss in before.items() if loss)), first, last)
    shifts = statistics | {program.weights[n] for n in added(structure) if n in program.weights}
    fixed += ((name, _whole(_read(program, name), most, tiny=name not in shifts)) for name in rest)
    if names := {name for name, loss in fixed if loss}:
        total = sum((loss for _, loss in fixed), Loss())
        yield Halved("", (), tuple(sorted(names)), total, total)


def taken(structure: Structure) -> int:
    """How many weights become infinite in float16, or lose most of their digits."""
    return sum(one.before.overflow + one.before.lost for one in halved(structure, LOST))


def _losses(program: Program, found: Place, name: str, most: float) -> tuple[Loss, Loss]:
    """What one weight loses, now and in the balanced gauge, unit by unit."""
    step = program.affines.get(name)
    sizes = found.scales.size(name) if step is None else np.abs(_read(program, program.weights[step.gain]))
    holds = tuple(h for h in found.scales.holds(name) if h.scales.ndim == sizes.ndim)
    seen = Seen(sizes, holds)
    live, least, there = seen.live(found.dead), seen.grown(found.least), seen.grown(found.logs)
    none = found.scales.count
    return _loss(live, least, holds, none, most), _loss(live * there, least / there, holds, none, most)


def _loss(sizes: Array, seen: Array, holds: tuple[Hold, ...], none: int, most: float) -> Loss:
    errors, infinite = _error(sizes)
    weight, error = np.square(sizes * seen), np.square(errors * seen)
    bad, worst, units = np.zeros(sizes.shape, bool), 0.0, set[int]()
    for h in holds:
        norm, off, beyond = (h.gather(onto(x, h.scales.shape)) for x in (weight, error, infinite.astype(np.float64)))
        live = (h.here != none) & (norm > 0)
        if not live.any():
            continue
        share = np.sqrt(np.divide(off, norm, out=np.zeros_like(off), where=norm > 0))
        hit = live & (share > most) & (norm > NEGLIGIBLE**2 * median(norm[live]))
        bad |= np.isin(h.scales, h.here[hit])
        worst = max(worst, float(share[hit].max(initial=0)))
        units |= {int(u) for u in h.here[live & (hit | (beyond > 0))]}
    return Loss(0, int((bad & (errors > most * sizes)).sum()), worst, frozenset(units))


def _whole(values: Array, most: float, *, tiny: bool) -> Loss:
    """What a tensor loses that no scale moves; of small numbers only where they are all of it."""
    sizes = np.abs(values.astype(np.float64))
    sizes = np.where(np.isfinite(sizes), sizes, 0.0)
    errors, infinite = _error(sizes)
    norm = float(np.linalg.norm(sizes))
    share = float(np.linalg.norm(errors)) / norm if norm else 0.0
    if not tiny or share <= most:
        return Loss(overflow=int(infinite.sum()))
    return Loss(int(infinite.sum()), int((errors > most * sizes).sum()), share)


def _error(sizes: Array) -> tuple[Array, Mask]:
    """The errors of conversion, shape of ``sizes``, and what becomes infinite; its error counts as zero."""
    with np.errstate(over="ignore"):
        half = sizes.astype(np.float16).astype(np.float64)
    infinite = np.isinf(half)
    return np.where(infinite, 0.0, np.abs(half - sizes)), infinite


def _infinite(values: Array) -> int:
    with np.errstate(over="ignore"):
        return int((np.isinf(values.astype(np.float16)) & np.isfinite(values.astype(np.float64))).sum())


def _read(program: Program, name: str) -> Array:
    return program.model.tensors[name].read()


def _statistics(program: Program) -> Iterator[str]:
    """Running means and variances, which a conversion takes as well."""
    names = (n for step in program.affines.values() for n in (step.mean, step.var))
    return (program.weights[n] for n in names if n in program.weights)
