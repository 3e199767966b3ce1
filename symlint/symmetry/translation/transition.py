"""Transitions: what a step makes of a change that enters by one of its operands."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import field
from typing import NamedTuple

import numpy as np

from symlint.model.records import dataclass
from symlint.program.functions import MixKind, dispatched
from symlint.program.steps import (
    Affine,
    Concat,
    Einsum,
    Fold,
    Mix,
    Normalise,
    Pointwise,
    Program,
    Slice,
    Step,
    Unknown,
    rearranges,
)
from symlint.symmetry.translation.null import Null, Nulls
from symlint.symmetry.translation.wave import Kind, Partition, Wave, each, labelled, regrouped, same, varied

MASKED = -1e4
"""A score this low has no weight in a softmax, whatever is added to others."""


class _Entry(NamedTuple):
    """What meets a change that enters a contraction by one operand."""

    twice: bool
    """Whether that operand is read twice."""
    constants: frozenset[str]
    """Labels of the other operands that depend on no input."""
    moving: tuple[int, ...]
    """The other operands that do."""
    free: frozenset[str]
    """Labels of the result."""


class Blocked(Exception):
    """The change comes out where nothing can take it back."""


@dataclass(frozen=True)
class Transitions:
    """The steps of a program as maps of waves."""

    program: Program
    fixed: frozenset[str]
    """Tensors that depend on no input."""
    nulls: Nulls
    _entries: dict[tuple[int, int], _Entry] = field(default_factory=dict)
    """Contraction, by its identity, and operand -> what meets a change that enters there."""

    @dispatched
    def step(self, step: Step, k: int, wave: Wave) -> dict[str, Wave]:
        """What the outputs do when operand number `k` changes; those that do not change are left out.

        Raises Blocked where that cannot be told.
        """
        raise Blocked

    @step.register
    def _(self, step: Einsum, k: int, wave: Wave) -> dict[str, Wave]:
        twice, constants, moving, free = self._entry(step, k)
        if twice:
            raise Blocked
        labels = labelled(wave, step.specs[k], step.sizes)
        for label in constants:
            labels[label] = (labels[label] if label in labels else same(step.sizes[label])).spread
        if not moving:
            return self._product(step, labels, wave, step.specs[k])
        if len(moving) == 1:
            j = moving[0]
            null = self.average(step, j)
            if null is not None and self._flat(step, j, labels, constants, wave, k):
                for x in (x for a in null.along for x in step.specs[j][a]):
                    labels[x] = (labels[x] if x in labels else same(step.sizes[x])).spread
                return self._product(step, labels, wave._replace(exact=False), step.specs[k])
            if wave.kind is Kind.CONSTANT and all(len(axis) < 2 for axis in step.specs[j]):
                return self._based(step, labels, j, free)
        dynamic = {x for j in moving for axis in step.specs[j] for x in axis}
        if wave.kind is Kind.LINEAR:
            labels = {**labelled(wave.loose(), step.specs[k], step.sizes), **{c: labels[c] for c in constants}}
        for label in dynamic:
            labels[label] = (labels[label] if label in labels else same(step.sizes[label])).spread
        return self._made(step, labels, Wave(Kind.ANY, ()))

    def _entry(self, step: Einsum, k: int) -> _Entry:
        found = self._entries.get((id(step), k))
        if found is None:
            others = [j for j in range(len(step.operands)) if j != k]
            still = [step.specs[j] for j in others if step.operands[j] in self.fixed]
            found = self._entries[id(step), k] = _Entry(
                step.operands.count(step.operands[k]) > 1,
                frozenset(x for spec in still for axis in spec for x in axis),
                tuple(j for j in others if step.operands[j] not in self.fixed),
                step.kept,
            )
        return found

    def average(self, step: Einsum, j: int) -> Null | None:
        """How operand `j` averages what it meets, by what it sums to along what is summed over; None where it does not.

        That need not be one: heads that are mixed after a softmax sum to a number each.
        """
        summed = {x for axis in step.specs[j] for x in axis} - step.kept
        axes = [a for a, axis in enumerate(step.specs[j]) if len(axis) == 1 and axis[0] in summed]
        null = self.nulls.get(step.operands[j], {}).get(axes[0]) if len(summed) == len(axes) == 1 else None
        return null if null is not None and null.simple else None

    def averaging(self, step: Pointwise, k: int, wide: Wave) -> Step | None:
        """The sum behind a product that averages what enters it by operand `k`, with the other as shares; None if none.

        `wide` is the change along the axes of the product; it is the same along the axis of the sum.
        """
        readers = self.program.reading([step.out])
        if len(step.operands) != 2 or step.known.factor < 0 or len(readers) != 1 or step.out in self.program.finals:
            return None
        (total,), lead = readers, len(wide.partitions) - len(self.program.shapes[step.operands[1 - k]])
        for axis, null in self.nulls.get(step.operands[1 - k], {}).items():
            if null.plain and rearranges(total) and wide.same_along(axis + lead):
                spec, sizes = total.specs[0], total.sizes
                summed = {x for labels in spec for x in labels if sizes[x] > 1} - total.kept
                if summed and summed == set(spec[axis + lead]):
                    return total
        return None

    def _flat(
        self, step: Einsum, j: int, labels: Mapping[str, Partition], constants: Set[str], wave: Wave, k: int
    ) -> bool:
        """Whether a change of operand `k` is the same along what operand `j` is summed over, for every input."""
        summed = {x for axis in step.specs[j] for x in axis} - step.kept
        if any((x in labels and not labels[x].steady) or x in constants for x in summed):
            return False
        moving = [a for a, axis in enumerate(step.specs[k]) if not summed.isdisjoint(axis)]
        return all(wave.same_along(a) for a in moving)

    def _based(self, step: Einsum, labels: dict[str, Partition], j: int, free: Set[str]) -> dict[str, Wave]:
        """A change that is linear in operand `j`."""
        seats = {axis[0]: a for a, axis in enumerate(step.specs[j]) if axis}
        where = [seats.get(axis[0]) if len(axis) == 1 else None for axis in step.result]
        grouped = {x for axis in step.result if len(axis) > 1 for x in axis}
        wave = Wave(
            Kind.LINEAR, (), step.operands[j], tuple(where), frozenset(a for x, a in seats.items() if x not in free)
        )
        if grouped & set(seats):
            moved = {x: (labels[x] if x in labels else same(step.sizes[x])).spread for x in seats}
            return self._made(step, {**labels, **moved}, Wave(Kind.ANY, ()))
        return self._made(step, labels, wave)

    def _product(
        self, step: Einsum, labels: dict[str, Partition], wave: Wave, spec: tuple[tuple[str, ...], ...]
    ) -> dict[str, Wave]:
        """A change times constants."""
        if wave.kind is not Kind.LINEAR:
            return self._made(step, labels, wave)
        based = {x: wave.where[a] for a, axis in enumerate(spec) for x in axis if wave.where[a] is not None}
        if any(len(axis) > 1 and set(axis) & set(based) for axis in (*spec, *step.result)):
            loose = labelled(wave.loose(), spec, step.sizes)
            loose.update({x: p.spread for x, p in labels.items() if x not in loose})
            return self._made(step, loose, Wave(Kind.ANY, ()))
        kept = step.kept
        where = tuple(based.get(axis[0]) if len(axis) == 1 else None for axis in step.result)
        taken = wave.taken | {a for x, a in based.items() if x not in kept and a is not None}
        return self._made(step, labels, wave._replace(where=where, taken=taken))

    def _made(self, step: Einsum, labels: dict[str, Partition], wave: Wave) -> dict[str, Wave]:
        shape = self.program.shapes[step.out]
        moved = len(step.operands) == 1 and all(len(axis) < 2 for axis in (*step.specs[0], *step.result))
        partitions = regrouped(labels, step.result, shape, step.sizes)
        return {step.out: wave._replace(partitions=partitions, exact=wave.exact and moved)}

    @step.register
    def _(self, step: Pointwise, k: int, wave: Wave) -> dict[str, Wave]:
        wide = self.broadcast(step, k, wave)
        others = [n for j, n in enumerate(step.operands) if j != k]
        if step.linear:
            return {step.out: wide}
        if step.known.factor > 0 or (step.known.factor and k == 0):
            if step.operands.count(step.operands[k]) > 1:
                raise Blocked
            if (total := self.averaging(step, k, wide)) is not None:
                return self.step(total, 0, wide._replace(exact=False))
            constant = all(n in self.fixed for n in others)
            shape = self.program.shapes[step.out]
            single = len(others) == 1 and step.known.factor > 0 and self.program.shapes[others[0]] == shape
            if single and not constant and wide.kind is Kind.CONSTANT:
                where = tuple(range(len(shape)))
                return {step.out: Wave(Kind.LINEAR, wide.partitions, others[0], where)}
            return {step.out: self._varied(others, wide if constant else wide.loose())}
        if step.known.chooses and k > 0 and len(step.operands) == 3:
            other = step.operands[3 - k]
            masked = other in self.program.tables and bool((self.program.tables[other] <= MASKED).all())
            loose = wide.loose()
            return {step.out: loose if masked else self._varied([step.operands[0]], loose)}
        raise Blocked

    def broadcast(self, step: Pointwise, k: int, wave: Wave) -> Wave:
        """The change along the axes of the output."""
        shape = self.program.shapes[step.out]
        mine = self.program.shapes[step.operands[k]]
        exact = wave.exact and step.known.copies
        if mine == shape:
            return wave if exact == wave.exact else wave._replace(exact=exact)
        lead = len(shape) - len(mine)
        partitions = tuple(
            wave.partitions[a - lead] if a >= lead and mine[a - lead] == n else same(n) for a, n in enumerate(shape)
        )
        placed = (wave.where[a - lead] if a >= lead else None for a in range(len(shape)))
        where = tuple(placed) if wave.kind is Kind.LINEAR else ()
        return wave._replace(partitions=partitions, where=where, exact=exact)

    def _varied(self, others: list[str], wave: Wave) -> Wave:
        return varied(wave, [self.program.shapes[name] for name in others])

    @step.register
    def _(self, step: Slice, k: int, wave: Wave) -> dict[str, Wave]:
        partitions = list(wave.partitions)
        partitions[step.axis] = Partition(partitions[step.axis].values[step.start : step.stop])
        made = wave._replace(partitions=tuple(partitions))
        if wave.where and wave.where[step.axis] is not None:
            made = made.loose()
        return {} if made.empty else {step.out: made}

    @step.register
    def _(self, step: Concat, k: int, wave: Wave) -> dict[str, Wave]:
        if step.operands.count(step.operands[k]) > 1:
            raise Blocked
        sizes = [self.program.shapes[n][step.axis] for n in step.operands]
        partitions = list(wave.partitions)
        pieces = [partitions[step.axis].values if j == k else np.full(n, -1) for j, n in enumerate(sizes)]
        partitions[step.axis] = Partition(np.concatenate(pieces))
        made = wave._replace(partitions=tuple(partitions))
        return {step.out: made.loose() if wave.where and wave.where[step.axis] is not None else made}

    @step.register
    def _(self, step: Mix, k: int, wave: Wave) -> dict[str, Wave]:
        gone = [a for a in range(len(wave.partitions)) if a not in step.keep]
        if not step.linear and not (step.largest and all(map(wave.same_along, gone))):
            raise Blocked
        # What depends on no input is the same at every step.
        everywhere = step.kind is MixKind.ALL_SO_FAR and wave.kind is Kind.CONSTANT
        flat = (step.steady or everywhere) and all(wave.same_along(a) for a in gone)
        shape = self.program.shapes[step.out]
        whole = wave if flat and wave.kind is Kind.CONSTANT else wave.loose()
        partitions = tuple(
            whole.partitions[a] if a is not None else same(n) if flat else each(n)
            for a, n in zip(step.keep, shape, strict=True)
        )
        return {step.out: whole._replace(partitions=partitions)}

    @step.register
    def _(self, step: Normalise, k: int, wave: Wave) -> dict[str, Wave]:
        shifts = step.known.relative or step.function == "standardise"
        if shifts and all(wave.same_along(a) for a in step.axes):
            return {}
        raise Blocked

    @step.register
    def _(self, step: Affine, k: int, wave: Wave) -> dict[str, Wave]:
        if k > 1:
            raise Blocked
        apart = wave._replace(partitions=tuple(p.spread for p in wave.partitions), exact=False)
        return {step.shift: wave} if k else {step.scale: apart, step.shift: apart}

    @step.register
    def _(self, step: Fold, k: int, wave: Wave) -> dict[str, Wave]:
        # Where all of them change alike the one that is chosen stays the same.
        if step.known.extreme is None or not all(map(wave.same_along, step.axes)):
            raise Blocked
        kept = [a for a in range(len(wave.partitions)) if a not in step.axes]
        where = tuple(wave.where[a] for a in kept) if wave.where else ()
        return {step.out: wave._replace(partitions=tuple(wave.partitions[a] for a in kept), where=where)}

    @step.register
    def _(self, step: Unknown, k: int, wave: Wave) -> dict[str, Wave]:
        raise Blocked
