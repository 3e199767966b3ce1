"""Keys: which positions along an axis of a tensor hold the same values, by how they are computed."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np

from symlint.program.steps import Concat, Einsum, Pointwise, Program, Slice, results

DEEP = 24
"""Steps beyond which every position counts as different."""


class Keys:
    """A key per position; equal keys are equal values, whatever the input."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.makers = {name: step for step in program.steps for name in results(step)}
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
        if isinstance(step, Concat) and step.axis == axis:
            return [key for part in step.operands for key in self.along(part, axis)]
        if isinstance(step, Slice) and step.axis == axis:
            return self.along(step.x, axis)[step.start : step.stop]
        if isinstance(step, Pointwise):
            columns = [self._operand(x, axis - len(program.shapes[name]), n) for x in step.operands]
            return [(step.function, *keys) for keys in zip(*columns, strict=True)]
        if isinstance(step, Einsum):
            return self._contracted(step, axis, n)
        return [(name, axis, k) for k in range(n)]

    def _operand(self, name: str, axis: int, n: int) -> list[Hashable]:
        """Keys of an operand that broadcasts, at an axis counted from the right."""
        shape = self.program.shapes[name]
        if -axis <= len(shape) and shape[axis] > 1:
            return self.along(name, len(shape) + axis)
        return [self.whole(name)] * n

    def _contracted(self, step: Einsum, axis: int, n: int) -> list[Hashable]:
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
