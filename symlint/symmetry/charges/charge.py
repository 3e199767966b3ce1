"""Charges: how each tensor answers to a generator on a space.

Every step gives linear equations between the unknown charges; the solutions are the symmetries. Rescaling has rational
charges, x -> lambda^charge x; a sign flip acts or does not, so its charges are counted modulo 2; an invertible matrix g
acts as g where the charge is 1 and as its inverse transpose where it is -1.
"""

from __future__ import annotations

from collections.abc import Collection
from fractions import Fraction

from symlint.program.functions import Parity, dispatched
from symlint.program.steps import CONSTANT, NONE, SAME, SUM, Fold, Law, Mix, Normalise, Pointwise, Step
from symlint.symmetry.charges.charge_system import System
from symlint.symmetry.charges.sums import Sums
from symlint.symmetry.charges.unknowns import ONE, Charge, Slots, Variables


def charges(variables: Variables, kind: type[System], only: Collection[int] | None = None) -> dict[int, list[Charge]]:
    """Leaf -> independent generators of one kind, each by its charges wherever the leaf stands; zeros are left out."""
    system = kind(variables, only)
    for step in variables.program.steps:
        system.step(step)
    return system.solve()


class Rescaling(System):
    """Positive factors per unit: what is homogeneous lets them through.

    What a function makes of a weight, if it can be any positive number, is scaled as a weight is.
    """

    @dispatched
    def step(self, step: Step) -> None:
        """The equations of one step."""
        super().step(step)

    @step.register
    def _(self, step: Pointwise) -> None:
        if step.out in self.program.composed:
            self.still(self.program.composed[step.out][-1])
            self._free(step.out)
        else:
            super().step(step)

    def law(self, step: Pointwise) -> Law:
        """The law of the step itself."""
        return step.law

    def normalised(self, step: Normalise, axis: int) -> Law:
        """A length without an epsilon takes scales away, along the other axes."""
        return CONSTANT if step.law == CONSTANT and axis not in step.axes else NONE


class Sign(System):
    """Sign flips per unit: odd functions let them through, even ones absorb them."""

    modulus = 2

    def law(self, step: Pointwise) -> Law:
        """Sums and products of any operands, odd and even functions of one."""
        parity = step.known.passing(step.law.degrees)
        if step.known.power:
            return NONE if parity is Parity.NEITHER else step.law
        if parity is not Parity.NEITHER:
            return SAME if parity is Parity.ODD else CONSTANT
        if step.known.sums or step.known.chooses:
            return step.law
        if step.known.factor:
            return Law("product", (ONE,) * len(step.operands))
        return NONE

    def passes(self, step: Mix) -> bool:
        """Linear maps only: a maximum tells signs apart."""
        return step.linear

    def normalised(self, step: Normalise, axis: int) -> Law:
        """Lengths do not see signs; a mean does, but those of other axes go through."""
        apart = step.function == "standardise" and axis not in step.axes
        return SUM if step.function in ("rms", "l2") or apart else NONE

    def folded(self, step: Fold) -> Law:
        """Norms absorb signs; extrema do not let them through."""
        return CONSTANT if step.known.length else NONE


class Linear(System):
    """Invertible matrices: only linear maps let them through, and a contraction pairs g with its inverse.

    A product of two operands, unit by unit, that is summed over the units in the end is a contraction.
    """

    elementwise = False

    def __init__(self, variables: Variables, only: Collection[int] | None = None) -> None:
        self._sums = Sums(variables.program)
        self._summed: set[int] = set()
        """The first variables of axes of products that are summed over."""
        super().__init__(variables, only)

    @dispatched
    def step(self, step: Step) -> None:
        """The equations of one step."""
        super().step(step)

    @step.register
    def _(self, step: Pointwise) -> None:
        if step.known.power or (step.known.factor > 0 and len(step.operands) == 2):
            axes = [k for k in range(len(self.program.shapes[step.out])) if self._sums.taken(step.out, k)]
            self._summed.update(self.slots(step.out, k).first for k in axes)
        super().step(step)

    def law(self, step: Pointwise) -> Law:
        """Linear functions; a product is one where a single operand has the units."""
        if step.linear:
            return SUM if len(step.operands) > 1 else SAME
        return step.law if step.known.factor or step.known.chooses or step.known.power else NONE

    def answer(self, law: Law, out: Slots, parts: list[tuple[Slots, Fraction]], *, absent: bool) -> None:
        """A product of several operands that all have the units acts on each unit alone, or is a contraction."""
        if law.kind == "product" and out.first in self._summed and sum(degree for _, degree in parts) == 2:
            twice = [(slots, ONE) for slots, degree in parts for _ in range(int(degree))]
            self.zero(out)
            self.balance(None, twice)
            return
        if law.kind == "product" and (len(parts) > 1 or any(degree != 1 for _, degree in parts)):
            for slots, _ in parts:
                self.zero(slots)
            self.zero(out)
            return
        super().answer(law, out, parts, absent=absent)

    def contracted(self, out: Slots | None, parts: list[Slots]) -> None:
        """Two factors may meet in a sum over the units; more, or a product unit by unit, may not."""
        if len(parts) > (1 if out is not None else 2):
            for slots in (*parts, *([out] if out is not None else [])):
                self.zero(slots)
            return
        super().contracted(out, parts)

    def passes(self, step: Mix) -> bool:
        """Linear maps only."""
        return step.linear

    def folded(self, step: Fold) -> Law:
        """No fold is linear."""
        return NONE
