"""Half precision: what conversion to float16 takes from the weights in a gauge, and in the minimum-norm one.

Beyond 65,504 there is only infinity, below 6.1e-5 digits get fewer, below 6e-8 all is zero. Whether that matters is
told unit by unit, from the minimum-norm gauge: what a unit loses relative to all of its weights in a tensor, if these
are not negligible beside those of the other units.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from symlint.model.clusters import median
from symlint.model.graph import Array
from symlint.model.records import dataclass
from symlint.program.steps import Program
from symlint.symmetry.gauge.balance import Place, behind, place
from symlint.symmetry.gauge.convex import Hold, onto
from symlint.symmetry.gauge.rounding import ENOUGH
from symlint.symmetry.gauge.scales import added
from symlint.symmetry.gauge.seen import Seen, bearers, chains
from symlint.symmetry.structure import Structure

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
