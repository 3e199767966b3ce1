"""Readings: for what a network uses each of its constant tensors, and which of their axes it sums over."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from symlint.program.steps import Affine, Einsum, Mix, Pointwise, Program, Slice, Step, operands, results

WRITES, READS = "out", "sum"
"""An axis whose units the reader's result still has, and one over which it sums."""
_KINDS = {"Add": "add", "Sub": "add", "Sum": "add", "Mul": "mul", "Div": "mul"}
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
    for number in range(len(program.steps) - 1, -1, -1):
        step = program.steps[number]
        outs = results(step)
        late = any(out in moving for out in outs)
        for k, name in enumerate(operands(step)):
            if name in moving or name not in program.shapes or name in program.tables:
                continue
            mine = found.setdefault(name, Reading([set() for _ in program.shapes[name]]))
            if late:
                mine.first = number
                mine.kinds.add(_kind(step))
                for axis, use in _direct(step, k, program):
                    mine.axes[axis].add(use)
            elif outs and outs[0] in found:
                _pass_on(step, k, found[outs[0]], mine, program)
            if isinstance(step, Affine):
                mine.kinds = {_AFFINE[k]}
    return found


def _kind(step: Step) -> str:
    if isinstance(step, Einsum):
        return "linear"
    if isinstance(step, Pointwise):
        return _KINDS.get(step.function, step.function)
    return "lookup" if isinstance(step, Mix) else type(step).__name__.lower()


def _direct(step: Step, k: int, program: Program) -> Iterator[tuple[int, str]]:
    """The axes of operand `k` of a step with what becomes of them."""
    if isinstance(step, Einsum):
        kept = {label for axis in step.result for label in axis}
        for axis, labels in enumerate(step.specs[k]):
            for label in labels:
                yield axis, WRITES if label in kept else READS
        return
    for axis, size in enumerate(program.shapes[operands(step)[k]]):
        if size > 1:
            kept_axis = not isinstance(step, Mix) or axis in step.keep
            yield axis, WRITES if kept_axis else READS


def _pass_on(step: Step, k: int, made: Reading, mine: Reading, program: Program) -> None:
    """What is made of a constant is used: so is the constant."""
    mine.kinds |= made.kinds
    mine.first = min(mine.first, made.first)
    shape = program.shapes[operands(step)[k]]
    if isinstance(step, Einsum):
        uses: dict[str, set[str]] = {}
        for labels, found in zip(step.result, made.axes, strict=True):
            for label in labels:
                uses.setdefault(label, set()).update(found)
        for axis, labels in enumerate(step.specs[k]):
            for label in labels:
                mine.axes[axis] |= uses.get(label, {READS})
    elif isinstance(step, Mix):
        for found, source in zip(made.axes, step.keep, strict=True):
            if source is not None:
                mine.axes[source] |= found
    else:
        lead = len(made.axes) - len(shape) if not isinstance(step, Slice) else 0
        for axis, size in enumerate(shape):
            if size > 1 and 0 <= axis + lead < len(made.axes):
                mine.axes[axis] |= made.axes[axis + lead]
