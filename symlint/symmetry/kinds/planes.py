"""Planes: rotations of pairs of units that a rotary embedding turns together.

Query and key may both be turned by any further angle, as their product sees only differences. The equations are those
of invertible matrices counted modulo 2, on the factor of which both units of a pair are an index (the axis is
``p + p``); a rotary embedding lets the turn through, and nothing may tell the two units of a pair apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from symlint.program.steps import NONE, SUM, Law, Normalise, Step
from symlint.symmetry.charges.charge import Linear
from symlint.symmetry.charges.unknowns import ONE, Charge, Ties, Variables
from symlint.symmetry.kinds.rotary import Turn


class Planes(Linear):
    """Rotations of planes: as `Linear` modulo 2, through rotary embeddings."""

    modulus = 2

    def __init__(self, variables: Variables, found: Sequence[Turn]) -> None:
        super().__init__(variables)
        self.inner = frozenset[int]().union(*(turn.inner for turn in found))
        self.last = {turn.last: turn for turn in found}
        self.offsets: dict[int, set[int]] = {}
        """Leaf -> how far the second unit of a pair lies behind the first."""

    def through(self, step: Step) -> None:
        """The equations of one step; the inside of a rotary embedding has none of its own."""
        turn = self.last.get(id(step))
        if turn is None:
            if id(step) not in self.inner:
                self.step(step)
            return
        for name in turn.factors:
            self.still(name)
        for k in range(len(self.axes.of[turn.x])):
            self.balance(self.slots(turn.out, k), [(self.slots(turn.x, k), ONE)])
        for term in self.terms(turn.x, turn.axis):
            for leaf in term.leaves:
                self.offsets.setdefault(leaf, set()).add(turn.offset)

    def normalised(self, step: Normalise, axis: int) -> Law:
        """A length does not see that pairs are turned."""
        return SUM if step.function in ("rms", "l2") and axis in step.axes else NONE

    def pairs(self, leaf: int, charges: list[Charge]) -> Iterator[Charge]:
        """Solutions on the first units of pairs, each with one on the second."""
        for k, first in enumerate(charges):
            for second in charges[k:]:
                both = {**first, **second}
                if self.paired(leaf, both):
                    yield both

    def paired(self, leaf: int, charge: Charge) -> bool:
        """Whether the leaf stands in pairs of terms wherever it is turned, as far apart as where angles are added."""
        if len(self.offsets.get(leaf, ())) != 1:
            return False
        (offset,) = self.offsets[leaf]
        for name, axis in {(o.tensor, o.axis) for o in charge}:
            acted = {o.term for o in charge if (o.tensor, o.axis) == (name, axis)}
            terms = [(t, term) for t, term in enumerate(self.terms(name, axis)) if leaf in term.leaves]
            if len(terms) % 2 or {t for t, _ in terms} != acted:
                return False
            for (_, first), (_, second) in zip(terms[::2], terms[1::2], strict=True):
                if first.leaves != second.leaves or ((second.positions - first.positions) != offset).any():
                    return False
        return True


def alike(variables: Variables, found: Iterable[Turn]) -> Ties:
    """What keeps stored angles the same for both units of each pair: no generator tells the two apart."""
    ties = Ties([], [])
    for name, axis, offset in {(n, k, turn.offset) for turn in found for n, k in turn.tables.items()}:
        slots = variables.slots(name, axis)
        terms = variables.expansion.terms(variables.axes.of[name][axis])
        for t, term in enumerate(terms):
            apart = [
                abs(other.positions - term.positions) if other.leaves == term.leaves else np.zeros(1) for other in terms
            ]
            second = next((s for s, far in enumerate(apart) if (far == offset).all()), None)
            if second is None:
                ties.zero.extend(zip(slots.term(t), term.leaves, strict=True))
            else:
                ties.equal.extend(zip(slots.term(t), slots.term(second), term.leaves, strict=True))
    return ties


def planes(variables: Variables, found: Sequence[Turn]) -> dict[int, list[Charge]]:
    """Leaf -> the rotations of its planes, by the occurrences of both units of every pair."""
    if not found:
        return {}
    system = Planes(variables, found)
    for step in variables.program.steps:
        system.through(step)
    paired = {leaf: list(system.pairs(leaf, charges)) for leaf, charges in system.solve().items()}
    return {leaf: charges for leaf, charges in paired.items() if charges}
