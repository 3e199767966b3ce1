"""Readings: for what a network uses each of its constant tensors, and which of their axes it sums over."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import field

from symlint.model.records import dataclass
from symlint.program.dispatch import dispatched
from symlint.program.steps import Affine, Einsum, Mix, Pointwise, Program, Step

WRITES, READS = "out", "sum"
"""An axis whose units the reader's result still has, and one over which it sums."""
_AFFINE = ("gain", "shift", "mean", "variance")


@dataclass(slots=True)
class Reading:
    """How a constant tensor is used, whatever constants it goes through first."""

    axes: list[set[str]]
    """For every axis, the uses of its units."""
    kinds: set[str] = field(default_factory=set)
    first: int = 1 << 60
    """The number of the first step that brings it together with what depends on the input."""

    @property
    def kind(self) -> str:
        """All uses in one word."""
        return "|".join(sorted(self.kinds))


def readings(program: Program, moving: Collection[str]) -> dict[str, Reading]:
    """The reading of every tensor that does not depend on the input and meets what does.

    Args:
        moving: the tensors that depend on the input.
    """
    found: dict[str, Reading] = {}
    uses = _Uses(program)
    for number in range(len(program.steps) - 1, -1, -1):
        step = program.steps[number]
        late = any(out in moving for out in step.results)
        for k, name in enumerate(step.operands):
            if name in moving or name not in program.shapes or name in program.tables:
                continue
            mine = found.setdefault(name, Reading([set() for _ in program.shapes[name]]))
            if late:
                mine.first = number
                mine.kinds.add(uses.kind(step))
                for axis, use in uses.direct(step, k):
                    mine.axes[axis].add(use)
            elif step.results and (made := found.get(step.results[0])) is not None:
                # What is made of a constant is used: so is the constant.
                mine.kinds |= made.kinds
                mine.first = min(mine.first, made.first)
                for axis, passed in uses.passed(step, k, made):
                    mine.axes[axis] |= passed
            if isinstance(step, Affine):
                mine.kinds = {_AFFINE[k]}
    return found


@dataclass(frozen=True, slots=True)
class _Uses:
    """What one step does with the axes of what it reads."""

    program: Program

    @dispatched
    def kind(self, step: Step) -> str:
        """What it does, in a word."""
        return type(step).__name__.lower()

    @kind.register
    def _(self, step: Einsum) -> str:
        return "linear"

    @kind.register
    def _(self, step: Pointwise) -> str:
        added = step.known.sums and not step.known.averages
        return "add" if added else "mul" if step.known.factor else step.function

    @kind.register
    def _(self, step: Mix) -> str:
        return "lookup"

    @dispatched
    def direct(self, step: Step, k: int) -> Iterator[tuple[int, str]]:
        """The axes of operand `k` with what becomes of them."""
        yield from ((axis, WRITES) for axis, size in enumerate(self.program.shapes[step.operands[k]]) if size > 1)

    @direct.register
    def _(self, step: Einsum, k: int) -> Iterator[tuple[int, str]]:
        for axis, labels in enumerate(step.specs[k]):
            for label in labels:
                yield axis, WRITES if label in step.kept else READS

    @direct.register
    def _(self, step: Mix, k: int) -> Iterator[tuple[int, str]]:
        for axis, size in enumerate(self.program.shapes[step.x]):
            if size > 1:
                yield axis, WRITES if axis in step.keep else READS

    @dispatched
    def passed(self, step: Step, k: int, made: Reading) -> Iterator[tuple[int, set[str]]]:
        """The axes of operand `k` with the uses of what they become."""
        shape = self.program.shapes[step.operands[k]]
        lead = len(made.axes) - len(shape)
        for axis, size in enumerate(shape):
            if size > 1 and 0 <= axis + lead < len(made.axes):
                yield axis, made.axes[axis + lead]

    @passed.register
    def _(self, step: Einsum, k: int, made: Reading) -> Iterator[tuple[int, set[str]]]:
        uses: dict[str, set[str]] = {}
        for labels, found in zip(step.result, made.axes, strict=True):
            for label in labels:
                uses.setdefault(label, set()).update(found)
        for axis, labels in enumerate(step.specs[k]):
            for label in labels:
                yield axis, uses.get(label, {READS})

    @passed.register
    def _(self, step: Mix, k: int, made: Reading) -> Iterator[tuple[int, set[str]]]:
        for found, source in zip(made.axes, step.keep, strict=True):
            if source is not None:
                yield source, found
