"""Alignment: the same repairs at several multiples of widths, measured side by side, and which of them is the result.

Runtimes work on eight or sixteen numbers at a time, so that a network with fewer units may take longer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from symlint.model.graph import Model
from symlint.model.load import load
from symlint.model.records import dataclass
from symlint.repair.measure import LASTING, Timing, latency, measure
from symlint.repair.plan import Key
from symlint.repair.promises.intent import multiples
from symlint.repair.result import Cost, Done, Fixed, Outcome, Variant, Wish
from symlint.symmetry.gauge.half import taken
from symlint.symmetry.gauge.rounding import decibels
from symlint.symmetry.inference import examine

UNCUT = 1 << 30
"""A multiple that no width reaches: all stay as they are."""
CHOOSING = 2.0
"""Seconds for which latencies are measured that a choice depends on."""
SLOWER = "at each width that was tried the network takes longer than it does now"

Make = Callable[[int, Mapping[Key, str] | None], Outcome]
"""Carries the repairs out at a multiple of widths: proven, or else without those that are known to be refuted."""


@dataclass(frozen=True, slots=True)
class _Compared:
    """The costs of the original, and of the results at several multiples, measured in turns."""

    before: Cost
    after: Mapping[int, Cost]
    """Multiple -> cost; those that are like an earlier one are left out."""


def aligned(model: Model, wish: Wish, make: Make) -> Fixed:
    """The repairs at the widths that are wished for, and what others would cost."""
    made = {wish.align: (first := make(wish.align, None))}
    for align in wish.beside:
        if align not in made and _narrows(first.done, align):
            made[align] = make(align, None if wish.fastest else first.refuted)
    found = _compared(model, wish, made)
    best = _fastest(found, wish.align) if wish.fastest else wish.align
    if best == UNCUT:
        return _uncut(model, wish, make, found)
    return _fixed(model, made[best], found, best, found.after)


def _narrows(done: Iterable[Done], align: int) -> bool:
    """Whether repairs can take anything away where widths are to be multiples of a number."""
    left: dict[str, tuple[int, int]] = {}
    for one in done:
        left[one.where] = one.units, left.get(one.where, (0, one.units))[1] - one.removed
    return any(-(-rest // align) * align < units for units, rest in left.values())


def _uncut(model: Model, wish: Wish, make: Make, found: _Compared) -> Fixed:
    """Only the repairs that change no width, where all others make the network slower."""
    made = make(UNCUT, None)
    left = tuple(replace(one, reason=SLOWER) if one.reason == multiples(UNCUT) else one for one in made.left)
    return _fixed(model, replace(made, left=left), _compared(model, wish, {UNCUT: made}), UNCUT, found.after)


def _fixed(model: Model, made: Outcome, found: _Compared, align: int, all_: Mapping[int, Cost]) -> Fixed:
    variants = tuple(Variant(each, cost, each == align) for each, cost in all_.items())
    return Fixed(
        model,
        made.path,
        made.done,
        made.left,
        made.proof,
        found.before,
        found.after[align],
        made.unreached,
        variants if len(variants) > 1 or align == UNCUT else (),
        made.partial,
        made.shrunk,
    )


def _compared(model: Model, wish: Wish, made: Mapping[int, Outcome]) -> _Compared:
    before = _cost(model.path, model, model, wish)
    after: dict[int, Cost] = {}
    for align, one in made.items():
        cost = _cost(one.path, load(one.path), model, wish) if one.done else before
        if all(_size(cost) != _size(other) for other in after.values()):
            after[align] = cost
    timings: Sequence[Timing] = ()
    if any(one.done and one.proof is not None for one in made.values()):
        lasting = CHOOSING if wish.fastest else LASTING
        with suppress(RuntimeError):
            paths: list[str | Path] = [model.path, *(made[align].path for align in after)]
            timings = latency(paths, model, given=wish.given, lasting=lasting)
    if timings:
        before = replace(before, timing=timings[0])
        after = {align: replace(after[align], timing=t) for align, t in zip(after, timings[1:], strict=True)}
    return _Compared(before, after)


def _cost(path: str | Path, model: Model, original: Model, wish: Wish) -> Cost:
    found = Cost(measure(path, model, original), None)
    if not wish.balances:
        return found
    structure = examine(model)[1]
    half = wish.asked.target == "float16"
    return replace(found, lost=taken(structure) if half else None, decibels=None if half else decibels(structure))


def _size(cost: Cost) -> tuple[int, int]:
    return cost.measure.parameters, cost.measure.multiply_adds


def _fastest(found: _Compared, align: int) -> int:
    """The multiple of the fastest result, of several that are as fast the smallest; `UNCUT` where all are slower."""
    original = found.before.timing
    timed = {each: cost.timing for each, cost in found.after.items() if cost.timing is not None}
    if original is None or not timed:
        return align
    fit = {each: timing for each, timing in timed.items() if not timing.slower(original)}
    if not fit:
        return UNCUT
    fastest = min(fit.values(), key=lambda timing: timing.seconds)
    as_fast = [each for each, timing in fit.items() if not timing.slower(fastest)]
    return min(as_fast, key=lambda each: found.after[each].measure.parameters)
