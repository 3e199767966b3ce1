"""How the units of a linear space get from their writers to their readers, by the steps of the program."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from symlint.program.steps import Affine, Einsum, Program, Unknown, operands

Passage = Literal["linear", "scores", "values"]
"""``scores``: two tensors that both depend on the input are summed over the units, as queries and keys are.
``values``: the units are carried through a contraction with such scores. ``linear``: everything else."""


@dataclass(frozen=True)
class Passages:
    """What the steps of one program do with units."""

    program: Program

    @property
    def moving(self) -> frozenset[str]:
        """Tensors that depend on the input."""
        return self.program.dependent

    @cached_property
    def met(self) -> frozenset[str]:
        """What products of two moving tensors become, up to the next contraction: scores, softmax or not."""
        found: set[str] = set()
        for step in self.program.steps:
            if isinstance(step, (Unknown, Affine)):
                continue
            moving = [name for name in operands(step) if name in self.moving]
            single = not isinstance(step, Einsum) or len(step.operands) == 1
            if (isinstance(step, Einsum) and len(moving) > 1) or (single and any(n in found for n in moving)):
                found.add(step.out)
        return frozenset(found)

    def of(self, holders: Collection[str]) -> Passage:
        """The way of units that lie in the tensors `holders`."""
        carried = False
        for step in self.program.steps:
            if not isinstance(step, Einsum):
                continue
            moving = [name for name in step.operands if name in self.moving]
            held = [name for name in moving if name in holders]
            if len(held) > 1 and step.out not in holders:
                return "scores"
            carried = carried or (bool(held) and any(n in self.met and n not in holders for n in moving))
        return "values" if carried else "linear"
