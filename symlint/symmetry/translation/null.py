"""Nulls: directions along an axis in which a tensor never moves, whatever the input.

A tensor after a mean-subtracting norm sums to 0 along the axis, and after a softmax to 1; a gain divides the direction,
a shift changes the sum by a number. ``n . x = total`` holds with ``n = 1 / product of gains``.

Alike: changes of several tensors that are one and the same, whatever their size.

A change that depends on no input is told by what made it: the weight that changes, and the steps through which it came.
Where two ways are spelled alike, as those of two uses of one layer are, the numbers at their ends are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import replace
from fractions import Fraction
from math import prod

import numpy as np

from symlint.model.graph import Array
from symlint.model.records import dataclass
from symlint.program.functions import MixKind, dispatched
from symlint.program.numbers import Numbers
from symlint.program.steps import Einsum, Fold, Mix, Normalise, Pointwise, Program, Slice, Step

Gains = tuple[tuple[str, int], ...]
"""Constant tensors that scale the axis, each with its exponent."""

LEAST = 1e-60
"""A gain below this counts as zero; smaller than any stored number, and its powers are still numbers."""


@dataclass(frozen=True, slots=True)
class Null:
    """A direction of one axis along which the sum is a number."""

    total: int
    """The sum before anything was added."""
    gains: Gains = ()
    shifts: tuple[tuple[str, int, Gains, int], ...] = ()
    """What was added: a constant tensor, its sign, and the gains and the places before it."""
    times: int = 1
    """Over how many places along other axes the sum was taken since."""
    mixed: tuple[Einsum | Pointwise, ...] = ()
    """The steps since it was first mixed with others by constants, as heads are after a softmax."""
    along: frozenset[int] = frozenset()
    """The other axes along which the sum is no longer one number, as it was mixed there."""

    @property
    def vanishes(self) -> bool:
        """Whether the sum is zero."""
        return not self.total and not self.shifts

    @property
    def plain(self) -> bool:
        """Whether the elements themselves sum to one."""
        return self.simple and not self.mixed

    @property
    def simple(self) -> bool:
        """Whether they did, before they were mixed with others."""
        return self.total == 1 and not self.gains and not self.shifts and self.times == 1


Nulls = dict[str, dict[int, Null]]
"""Tensor -> axis -> its null."""


def nulls(program: Program, fixed: frozenset[str]) -> Nulls:
    """The nulls of every tensor; `fixed` are the tensors that depend on no input."""
    found: Nulls = {}
    tracing = _Tracing(found, program, fixed)
    for step in program.steps:
        made = tracing.after(step)
        if made is not None:
            found[step.results[0]] = made
    return found


@dataclass(frozen=True, slots=True)
class _Tracing:
    """The nulls of what a step makes, by those of what it reads."""

    found: Nulls
    program: Program
    fixed: frozenset[str]

    @dispatched
    def after(self, step: Step) -> dict[int, Null] | None:
        """Axis by axis; None where there are none."""
        return None

    @after.register
    def _(self, step: Normalise) -> dict[int, Null] | None:
        one = step.known.shares and not step.known.logarithmic
        whole = (one or step.function == "standardise") and len(step.axes) == 1
        return {step.axes[0]: Null(int(one))} if whole else None

    @after.register
    def _(self, step: Einsum) -> dict[int, Null] | None:
        moving = [k for k, n in enumerate(step.operands) if n not in self.fixed]
        old = self.found.get(step.operands[moving[0]]) if len(moving) == 1 else None
        if old is None:
            return None
        return _mixed(step, moving[0], old) if step.product else _carried(step, old)

    @after.register
    def _(self, step: Mix) -> dict[int, Null] | None:
        if step.kind is MixKind.RANKING:
            return {len(step.keep) - 1: Null(1)}  # one-hot rows
        if step.x not in self.found or not step.linear:
            return None
        old = self.found[step.x]
        kept = {k: old[a] for k, a in enumerate(step.keep) if a in old and (step.steady or old[a].vanishes)}
        return {k: null for k, null in kept.items() if not null.mixed}

    @after.register
    def _(self, step: Pointwise) -> dict[int, Null] | None:
        found, program, fixed = self.found, self.program, self.fixed
        moving = [k for k, n in enumerate(step.operands) if n not in fixed]
        if len(moving) != 1 or step.operands[moving[0]] not in found:
            return {}
        place = moving[0]
        x, rank = step.operands[place], len(program.shapes[step.out])
        if len(program.shapes[x]) != rank:
            return {}
        made: dict[int, Null] = {}
        known = step.known
        for axis, null in found[x].items():
            new: Null | None = null if known.passes and known.copies else None
            if null.mixed:
                if new is not None:
                    made[axis] = replace(null, mixed=(*null.mixed, step))
                continue
            others = [n for k, n in enumerate(step.operands) if k != place]
            if known.factor > 0 or (known.factor and place == 0):
                if all(_along(program, n, rank, axis) for n in others):
                    new = replace(null, gains=(*null.gains, *((n, known.factor) for n in others)))
            elif known.sums and not known.averages and known.sign(place) > 0:
                sign = -1 if known.negates else 1
                if all(_along(program, n, rank, axis) for n in others):
                    new = replace(null, shifts=(*null.shifts, *((n, sign, null.gains, null.times) for n in others)))
            if new is not None:
                made[axis] = new
        return made


def alone(axis: tuple[str, ...], sizes: Mapping[str, int]) -> tuple[str, ...]:
    """The labels of an axis that have more than one index."""
    return tuple(x for x in axis if sizes[x] > 1)


def _carried(step: Einsum, old: dict[int, Null]) -> dict[int, Null]:
    """A rearrangement keeps the nulls of the axes that it leaves whole, and a sum along others adds them up."""
    result = [alone(axis, step.sizes) for axis in step.result]
    seats: dict[tuple[str, ...], int] = {axis: k for k, axis in enumerate(result) if len(axis) == 1}
    spec = tuple(alone(axis, step.sizes) for axis in step.specs[0])
    kept = step.kept
    times = prod(step.sizes[x] for axis in spec for x in axis if x not in kept)
    carried = {seats[spec[k]]: replace(null, times=null.times * times) for k, null in old.items() if spec[k] in seats}
    return {
        k: replace(null, mixed=(*null.mixed, step), along=_seats(step, {x for a in null.along for x in spec[a]}))
        if null.mixed
        else null
        for k, null in carried.items()
    }


def _mixed(step: Einsum, place: int, old: dict[int, Null]) -> dict[int, Null]:
    """A product with constants keeps sums of one along an axis that it leaves whole; they differ along others then."""
    spec = step.specs[place]
    constants = {x for k, other in enumerate(step.specs) if k != place for axis in other for x in axis}
    made: dict[int, Null] = {}
    for axis, null in old.items():
        if null.simple and len(spec[axis]) == 1 and spec[axis] in step.result and spec[axis][0] not in constants:
            along = _seats(step, constants.union(x for a in null.along for x in spec[a]))
            made[step.result.index(spec[axis])] = replace(null, mixed=(*null.mixed, step), along=along)
    return made


def _seats(step: Einsum, labels: set[str]) -> frozenset[int]:
    """The axes of the result that have one of some labels."""
    return frozenset(k for k, axis in enumerate(step.result) if not labels.isdisjoint(axis))


def mass(null: Null, numbers: Numbers) -> Array:
    """What a tensor whose sums were mixed sums to along the axis, size 1 wherever that is the same."""
    made: Array = np.ones(())
    for step in null.mixed:
        moving = next(n for n in step.operands if n not in numbers.program.fixed)
        made = made.reshape(made.shape or (1,) * len(numbers.program.shapes[moving]))
        made = numbers.apply(step, {moving: made})[step.out]
    return made


def _along(program: Program, name: str, rank: int, axis: int) -> bool:
    """Whether a tensor varies along no other axis than this one of `rank`."""
    shape = program.shapes[name]
    return all(n == 1 or k + rank - len(shape) == axis for k, n in enumerate(shape))


def direction(null: Null, numbers: Numbers, size: int) -> Array:
    """The direction, shape (size,), of largest element one."""
    return _direction(null.gains, numbers, size) * _scale(null, numbers, size)


def _scale(null: Null, numbers: Numbers, size: int) -> float:
    return float(1 / np.abs(_direction(null.gains, numbers, size)).max())


def _direction(gains: Gains, numbers: Numbers, size: int) -> Array:
    found = numbers.derived.get((gains, size))
    if found is None:
        found = np.ones(size)
        for name, power in gains:
            gain = numbers.value(name).reshape(-1)
            # Where a gain is zero that unit alone is the direction: nothing of what comes before is left in it.
            found = found / np.where(np.abs(gain) < LEAST, LEAST, gain) ** power
        numbers.derived[gains, size] = found
    return found


def total(null: Null, numbers: Numbers, size: int) -> float:
    """What the direction and the tensor make together, for every input."""
    found = float(null.total) * null.times
    for name, sign, gains, before in null.shifts:
        shift = np.broadcast_to(numbers.value(name).reshape(-1), (size,))
        found += sign * float(_direction(gains, numbers, size) @ shift) * (null.times // before)
    return found * _scale(null, numbers, size)


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
