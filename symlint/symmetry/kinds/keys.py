"""Keys: which positions along an axis of a tensor hold the same values, by how they are computed."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np

from symlint.program.dispatch import dispatched
from symlint.program.steps import Concat, Einsum, Pointwise, Program, Slice, Step

DEEP = 24
"""Steps beyond which every position counts as different."""


class Keys:
    """A key per position; equal keys are equal values, whatever the input."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.makers = program.producers
        self.known: dict[tuple[str, int], list[Hashable]] = {}
        self.depth = 0

    def whole(self, name: str) -> Hashable:
        """The key of a tensor that is the same along the axis."""
        return ("whole", name)

    def along(self, name: str, axis: int) -> list[Hashable]:
        """The keys of the positions along an axis."""
        if (name, axis) not in self.known:
            self.depth += 1
            self.known[name, axis] = self._found(name, axis)
            self.depth -= 1
        return self.known[name, axis]

    def _found(self, name: str, axis: int) -> list[Hashable]:
        program = self.program
        n = program.shapes[name][axis]
        if name in program.tables:
            return [np.take(program.tables[name], k, axis=axis).tobytes() for k in range(n)]
        step = self.makers.get(name) if self.depth < DEEP else None
        found = None if step is None else self._made(step, axis, n)
        return [(name, axis, k) for k in range(n)] if found is None else found

    @dispatched
    def _made(self, step: Step, axis: int, n: int) -> list[Hashable] | None:
        """The keys of what a step makes; None where it tells none."""
        return None

    @_made.register
    def _(self, step: Concat, axis: int, n: int) -> list[Hashable] | None:
        return [key for part in step.operands for key in self.along(part, axis)] if step.axis == axis else None

    @_made.register
    def _(self, step: Slice, axis: int, n: int) -> list[Hashable] | None:
        return self.along(step.x, axis)[step.start : step.stop] if step.axis == axis else None

    @_made.register
    def _(self, step: Pointwise, axis: int, n: int) -> list[Hashable] | None:
        columns = [self._operand(x, axis - len(self.program.shapes[step.out]), n) for x in step.operands]
        return [(step.function, *keys) for keys in zip(*columns, strict=True)]

    @_made.register
    def _(self, step: Einsum, axis: int, n: int) -> list[Hashable] | None:
        labels = step.result[axis]
        places = np.unravel_index(np.arange(n), [step.sizes[x] for x in labels]) if labels else (np.zeros(n, int),)
        columns: list[list[Hashable]] = [[(step.result, axis)] * n]
        for name, spec in zip(step.operands, step.specs, strict=True):
            columns.append([self.whole(name)] * n)
            for k, mine in enumerate(spec):
                if len(mine) == 1 and mine[0] in labels:
                    keys = self.along(name, k)
                    columns.append([keys[p] for p in places[labels.index(mine[0])]])
                elif set(mine) & set(labels):
                    return [(step.out, axis, p) for p in range(n)]
        return [tuple(keys) for keys in zip(*columns, strict=True)]

    def _operand(self, name: str, axis: int, n: int) -> list[Hashable]:
        """Keys of an operand that broadcasts, at an axis counted from the right."""
        shape = self.program.shapes[name]
        if -axis <= len(shape) and shape[axis] > 1:
            return self.along(name, len(shape) + axis)
        return [self.whole(name)] * n
