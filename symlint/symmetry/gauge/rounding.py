"""Rounding: what 8 bits a tensor leave of the weights in a gauge, and in the balanced one.

Units whose scales differ share one step size, so that small ones lose their digits, although the function does not
care how large they are. Errors are therefore seen from the minimum-norm gauge, which depends on the function alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from symlint.model.graph import Array
from symlint.model.records import dataclass
from symlint.program.steps import Einsum, Program, rearranges
from symlint.symmetry.gauge.balance import Place, place
from symlint.symmetry.gauge.convex import Hold
from symlint.symmetry.gauge.scales import Scales
from symlint.symmetry.gauge.seen import Seen, bearers, chains
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
