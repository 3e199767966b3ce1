"""Alike: changes of several tensors that are one and the same, whatever their size.

A change that depends on no input is told by what made it: the weight that changes, and the steps through which it came.
Where two ways are spelled alike, as those of two uses of one layer are, the numbers at their ends are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from fractions import Fraction

from symlint.program.functions import dispatched
from symlint.program.steps import Einsum, Fold, Mix, Pointwise, Program, Slice, Step
from symlint.symmetry.translation.null import Null


class Alike:
    """The numbers of the changes in one course: equal ones are equal changes, but for axes along which they are."""

    def __init__(
        self,
        program: Program,
        average: Callable[[Einsum, int], Null | None],
        changed: Mapping[str, object],
        sources: Iterable[str],
    ) -> None:
        self.program, self.average, self.changed = program, average, changed
        self._numbers: dict[Hashable, int] = {"": 0}
        self._of: dict[str, int] = dict.fromkeys(sources, 0)

    def number(self, name: str) -> int:
        """That of a tensor that changes."""
        todo = [name]
        while todo:
            top = todo[-1]
            step = self.program.producers.get(top)
            moving = [n for n in step.operands if n in self.changed] if step is not None else []
            missing = [n for n in moving if n not in self._of] if top not in self._of else []
            todo.extend(missing)
            if not missing:
                todo.pop()
                if top not in self._of:
                    self._of[top] = self._made(step, top) if step is not None and moving else self._numbered(top)
        return self._of[name]

    def equal(self, names: Iterable[str]) -> bool:
        """Whether the changes of some tensors are one and the same."""
        return len({self.number(n) for n in names}) == 1

    def summed(self, step: Pointwise) -> int:
        """That of what a step makes of the operands that change, be it entered among the changes or not."""
        for name in dict.fromkeys(step.operands):
            if name in self.changed:
                self.number(name)
        return self._made(step, step.out)

    def balance(self, step: Pointwise) -> dict[int, int]:
        """The number of each change that a sum adds, with how often it is added: those that cancel are left out."""
        found: dict[int, int] = {}
        for k, name in enumerate(step.operands):
            if name in self.changed:
                number = self.number(name)
                found[number] = found.get(number, 0) + step.known.sign(k)
        return {number: times for number, times in found.items() if times}

    def _numbered(self, spelled: Hashable) -> int:
        return self._numbers.setdefault(spelled, len(self._numbers))

    def _made(self, step: Step, out: str) -> int:
        spelled = self._spelled(step, out)
        return spelled if isinstance(spelled, int) else self._numbered(spelled)

    def _operand(self, name: str) -> Hashable:
        """What is read: a change, a constant by its numbers or its name, or what depends on the input."""
        if name in self.changed:
            return self._of[name]
        table = self.program.tables.get(name)
        return name if table is None or table.size > 1 else float(table.reshape(-1)[0])

    @dispatched
    def _spelled(self, step: Step, out: str) -> Hashable:
        return (type(step).__name__, out)

    @_spelled.register
    def _(self, step: Pointwise, out: str) -> Hashable:
        if step.known.passes and step.known.copies:
            return self._of[step.operands[0]]
        if not step.known.sums:
            return (step.function, *map(self._operand, step.operands))
        share = Fraction(1, len(step.operands) if step.known.averages else 1)
        terms = sorted((number, share * times) for number, times in self.balance(step).items())
        return terms[0][0] if len(terms) == 1 and terms[0][1] == 1 else ("sum", *terms)

    @_spelled.register
    def _(self, step: Einsum, out: str) -> Hashable:
        # What sums to one averages a change that depends on no input, whatever it is.
        means = [self.average(step, k) if step.product else None for k in range(len(step.operands))]
        read = [
            "" if null is not None and not null.mixed and n not in self.changed else self._operand(n)
            for n, null in zip(step.operands, means, strict=True)
        ]
        return ("contraction", layout(step), *read)

    @_spelled.register
    def _(self, step: Slice, out: str) -> Hashable:
        return ("cut", step.axis, step.start, step.stop, self._operand(step.x))

    @_spelled.register
    def _(self, step: Fold, out: str) -> Hashable:
        return ("fold", step.axes, self._operand(step.x))

    @_spelled.register
    def _(self, step: Mix, out: str) -> Hashable:
        return ("places", step.keep, step.chosen, self._operand(step.x))


def layout(step: Einsum) -> Hashable:
    """Which axes of a contraction meet, and how long they are, whatever they are called."""
    labels: dict[str, int] = {}
    specs = [
        tuple(tuple(labels.setdefault(x, len(labels)) for x in axis) for axis in spec)
        for spec in (*step.specs, step.result)
    ]
    return (*specs, tuple(step.sizes[x] for x in labels))
