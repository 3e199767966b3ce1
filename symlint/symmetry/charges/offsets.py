"""Offsets: constants that are added to what a bias can move at will, as in ``x * (1 + scale)``.

To scale ``b + t`` by a factor, b becomes ``factor (b + t) - t``: with such a bias the constant is no obstacle, and what
is scaled is affine in it.
"""

from __future__ import annotations

from collections.abc import Iterator

from symlint.model.records import dataclass
from symlint.program.steps import Pointwise, Program
from symlint.symmetry.translation.absorption import Absorbers, Way
from symlint.symmetry.translation.wave import Kind, Wave, each, same


@dataclass(frozen=True, slots=True)
class Offset:
    """A sum with a constant, and the bias that takes it along."""

    step: Pointwise
    table: int
    """The operand that is the constant."""
    operand: int
    """The operand that the bias moves."""
    wave: Wave
    """The change of the sum that the bias can make."""
    way: Way
    """From the operand to the bias."""

    @property
    def axes(self) -> frozenset[int]:
        """The axes of the sum along which the bias makes any change."""
        return frozenset(k for k, p in enumerate(self.wave.partitions) if not p.steady)


def offsets(program: Program) -> dict[int, Offset]:
    """The sums of a program that have one, by the identity of the step."""
    sums = [step for step in program.elementwise if step.known.sums and not step.known.averages]
    constant = program.tables.keys() - program.nil
    added = {id(step): [k for k, n in enumerate(step.operands) if n in constant] for step in sums}
    chosen = [step for step in sums if len(added[id(step)]) == 1 and len(step.operands) == 2]
    if not chosen:
        return {}
    readers = {name: [program.steps[k] for k in places] for name, places in program.readers.items()}
    absorbers = Absorbers(program, program.fixed, program.producers, readers)
    found = ((step, _offset(program, absorbers, step, *added[id(step)])) for step in chosen)
    return {id(step): offset for step, offset in found if offset is not None}


def _offset(program: Program, absorbers: Absorbers, step: Pointwise, table: int) -> Offset | None:
    k, shape = 1 - table, program.shapes[step.out]
    name = step.operands[k]
    free = [a for a, n in enumerate(shape) if n > 1 and _way(absorbers, step, k, name, _along(shape, {a}))]
    wave = _along(shape, set(free))
    way = _way(absorbers, step, k, name, wave) if free else None
    added = program.shapes[step.operands[table]]
    wide = {a for a, n in enumerate(added, start=len(shape) - len(added)) if n > 1}
    return Offset(step, table, k, wave, way) if way is not None and wide <= set(free) else None


def _along(shape: tuple[int, ...], axes: set[int]) -> Wave:
    return Wave(Kind.CONSTANT, tuple(each(n) if a in axes else same(n) for a, n in enumerate(shape)))


def _way(absorbers: Absorbers, step: Pointwise, k: int, name: str, wave: Wave) -> Way | None:
    narrow = absorbers.operand(step, k, wave)
    way = absorbers.way(name, narrow) if narrow is not None else None
    return way if way is not None and way.weight not in absorbers.program.statistics else None


def met(offsets: dict[int, Offset], tensors: set[str]) -> Iterator[Offset]:
    """Those of which the sum is among some tensors."""
    return (offset for offset in offsets.values() if offset.step.out in tensors)
