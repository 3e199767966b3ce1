"""Early readers: what reads a stream before all of its writers have written.

Where few numbers are written into a wide stream, and a branch reads them before others are added, that branch does not
see the directions which are written only later: its weights may change there at will, though the stream has them.
"""

from __future__ import annotations

from collections.abc import Iterator

from symlint.program.functions import dispatched
from symlint.program.steps import Einsum, Pointwise, Program, Step
from symlint.symmetry.axes.terms import Expansion
from symlint.symmetry.axes.walk import Axes

Place = tuple[str, int]
"""A tensor and one of its axes."""


class _Elsewhere(Exception):
    """The units come from something else than a sum of what weights write."""


def read_at(program: Program, weight: str, axis: int) -> Place | None:
    """The tensor that a weight is contracted with along one axis, if one step reads it, perhaps behind a lookup."""
    name = weight
    while len(readers := program.reading([name])) == 1 and name not in program.finals:
        (step,) = readers
        if not isinstance(step, Einsum) or step.operands.count(name) != 1:
            return None
        k = step.operands.index(name)
        if len(step.specs[k][axis]) != 1:
            return None
        (label,) = step.specs[k][axis]
        others = [
            (other, j)
            for i, (other, spec) in enumerate(zip(step.operands, step.specs, strict=True))
            for j, labels in enumerate(spec)
            if i != k and label in labels
        ]
        if label not in step.kept:
            whole = [o for o in others if program.shapes[o[0]][o[1]] == step.sizes[label]]
            return whole[0] if len(whole) == len(others) == 1 else None
        if others or (label,) not in step.result:
            return None
        name, axis = step.out, step.result.index((label,))
    return None


def writers(program: Program, place: Place) -> list[Place] | None:
    """The weights that write the units of a tensor, each with the axis of the units; None where others do too."""
    found: dict[Place, None] = {}
    seen, waiting = set[Place](), [place]
    walk = _Backwards(program)
    while waiting:
        here = waiting.pop()
        if here in seen:
            continue
        seen.add(here)
        if here[0] in program.weights:
            found[here] = None
            continue
        step = program.producers.get(here[0])
        try:
            waiting += walk.before(step, here[1]) if step is not None else walk.unknown()
        except _Elsewhere:
            return None
    return list(found)


class _Backwards:
    def __init__(self, program: Program) -> None:
        self.program = program

    @staticmethod
    def unknown() -> list[Place]:
        raise _Elsewhere

    @dispatched
    def before(self, step: Step, axis: int) -> list[Place]:
        """Where the units of an axis of a result come from."""
        raise _Elsewhere

    @before.register
    def _(self, step: Pointwise, axis: int) -> list[Place]:
        shapes = self.program.shapes
        lead = {n: axis - len(shapes[step.out]) + len(shapes[n]) for n in step.operands}
        held = [(n, k) for n, k in lead.items() if k >= 0 and shapes[n][k] > 1]
        # A factor that all units share leaves what they span.
        if (step.linear and len(held) == len(lead)) or (step.known.factor > 0 and len(held) == 1 < len(step.operands)):
            return held
        raise _Elsewhere

    @before.register
    def _(self, step: Einsum, axis: int) -> list[Place]:
        if len(step.result[axis]) != 1:
            raise _Elsewhere
        held = [
            (name, j)
            for name, spec in zip(step.operands, step.specs, strict=True)
            for j, labels in enumerate(spec)
            if step.result[axis][0] in labels
        ]
        if len(held) != 1 or self.program.shapes[held[0][0]][held[0][1]] != self.program.shapes[step.out][axis]:
            raise _Elsewhere
        return held


def early(
    program: Program, axes: Axes, expansion: Expansion, leaf: int, weight: str
) -> Iterator[tuple[int, list[Place]]]:
    """The axes along which a weight reads a leaf before some of its writers, with what has written by then."""
    for axis, f in enumerate(axes.of[weight]):
        if [term.leaves for term in expansion.terms(f)] == [(leaf,)]:
            place = read_at(program, weight, axis)
            found = writers(program, place) if place is not None else None
            if found:
                yield axis, found
