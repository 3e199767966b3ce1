"""The linear system of charges: an unknown for every occurrence of a leaf, and the equations of pure structure.

Contraction, concatenation and cutting bind charges in the same way whatever acts on the units; what a function of the
elements allows depends on the kind of the generator and is left to the systems of `symlint.symmetry.charges.charge`.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from symlint.program.dispatch import dispatched
from symlint.program.steps import (
    CONSTANT,
    NONE,
    SUM,
    Affine,
    Concat,
    Einsum,
    Fold,
    Law,
    Mix,
    Normalise,
    Pointwise,
    Slice,
    Step,
    Unknown,
)
from symlint.symmetry.charges.occurrences import choice, concatenation, contraction, cut, meetings
from symlint.symmetry.charges.unknowns import ONE, Slots, Ties, Unknowns


class System(Unknowns):
    """The equations that every step gives; subclasses know one kind of generator."""

    @dispatched
    def step(self, step: Step) -> None:
        """The equations of one step."""
        raise NotImplementedError(type(step))

    @step.register
    def _(self, step: Einsum) -> None:
        known = self.variables.contractions
        if id(step) not in known:
            known[id(step)] = contraction(self.variables, step)
        ties, labels = known[id(step)]
        self.apply(ties)
        for out, parts in labels:
            self.contracted(out, parts)

    def contracted(self, out: Slots | None, parts: list[Slots]) -> None:
        """One label of a contraction: charges add up, to nothing where the label is summed over."""
        self.balance(out, [(slots, ONE) for slots in parts])

    @step.register
    def _(self, step: Concat) -> None:
        self._tie(step, lambda: concatenation(self.variables, step))

    @step.register
    def _(self, step: Slice) -> None:
        self._tie(step, lambda: cut(self.variables, step))

    def _tie(self, step: Step, ties: Callable[[], Ties]) -> None:
        known = self.variables.pairs
        if id(step) not in known:
            known[id(step)] = ties()
        self.apply(known[id(step)])

    @step.register
    def _(self, step: Pointwise) -> None:
        law = self.law(step)
        if step.known.factor == 1 and not self.program.nil.isdisjoint(step.operands):
            return  # zero, which has every charge
        degrees = law.degrees or (ONE,) * len(step.operands)
        moving = [(name, d) for name, d in zip(step.operands, degrees, strict=True) if name not in self.program.nil]
        for name, degree in moving:
            if degree is None or law.kind == "none":
                self.still(name)
        known = self.variables.meetings
        if id(step) not in known:
            known[id(step)] = list(meetings(self.variables, step))
        for out, held, lacking in known[id(step)]:
            parts = [(slots, d) for j, slots in held if (d := degrees[j]) is not None]
            if not self.elementwise and len(parts) < len(held):
                for slots, _ in parts:
                    self.zero(slots)
                parts = []
            self.answer(law, out, parts, absent=any(degrees[j] is not None for j in lacking))

    def law(self, step: Pointwise) -> Law:
        """How an elementwise function answers to this kind of generator."""
        raise NotImplementedError

    def answer(self, law: Law, out: Slots, parts: list[tuple[Slots, Fraction]], *, absent: bool) -> None:
        """One output axis against the operands that have it; `absent` says that some operand broadcasts along it."""
        if law.kind == "none" or not parts or (law.kind == "sum" and absent):
            self.zero(out)
        if law.kind == "sum":
            for slots, _ in parts:
                self.balance(out, [(slots, ONE)])
        elif law.kind == "product" and parts:
            self.balance(out, parts)

    @step.register
    def _(self, step: Mix) -> None:
        passes = self.passes(step)
        if step.chosen is not None and passes:
            known = self.variables.pairs
            if id(step) not in known:
                known[id(step)] = choice(self.variables, step)
            self.apply(known[id(step)])
            return
        for k in range(len(self.axes.of[step.x])):
            if k not in step.keep or not passes:
                self.zero(self.slots(step.x, k))
        for k, source in enumerate(step.keep):
            out = self.slots(step.out, k)
            if source is None or not passes:
                self.zero(out)
            else:
                self.balance(out, [(self.slots(step.x, source), ONE)])

    def passes(self, step: Mix) -> bool:
        """Whether a map along other axes lets this kind of generator through."""
        return step.law.kind != "none"

    @step.register
    def _(self, step: Normalise) -> None:
        for k in range(len(self.axes.of[step.x])):
            x, out, law = self.slots(step.x, k), self.slots(step.out, k), self.normalised(step, k)
            if law == SUM:
                self.balance(out, [(x, ONE)])
            else:
                if law != CONSTANT:
                    self.zero(x)
                self.zero(out)

    def normalised(self, step: Normalise, axis: int) -> Law:
        """How a normalisation answers to what is done to one axis: it commutes (SUM), takes it away, or breaks."""
        return NONE

    @step.register
    def _(self, step: Fold) -> None:
        law = self.folded(step)
        kept = [k for k in range(len(self.axes.of[step.x])) if k not in step.axes]
        for k in step.axes if law != CONSTANT or self.modulus is None else ():
            self.zero(self.slots(step.x, k))
        for out, k in enumerate(kept):
            if law.kind == "none":
                self.zero(self.slots(step.x, k))
            degree = (law.degrees[0] if law.degrees else None) or Fraction(law.degrees != CONSTANT.degrees)
            self.answer(law, self.slots(step.out, out), [(self.slots(step.x, k), degree)], absent=False)

    def folded(self, step: Fold) -> Law:
        """How a reduction answers along the axes that stay."""
        return step.law

    @step.register
    def _(self, step: Affine) -> None:
        free = self.once(step.gain) and self.once(step.bias) and self.elementwise
        for name in (*(n for n in step.operands if not self.once(n)), *(() if free else step.results)):
            self.still(name)
        for name in step.results if free else ():
            self._free(name)

    @step.register
    def _(self, step: Unknown) -> None:
        for name in (*step.operands, *step.results):
            self.still(name)
