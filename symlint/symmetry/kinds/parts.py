"""Parts: scalings of whole weights, of which one that is cut may have another in every part.

What one layer writes for several readers, as step, input and output of a scan are, has an exponent for each of them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from symlint.model.graph import Shape
from symlint.program.numbers import Labelled
from symlint.program.steps import Einsum, Program
from symlint.symmetry.axes.terms import Expansion
from symlint.symmetry.axes.walk import Axes
from symlint.symmetry.charges.unknowns import Charge, Occurrence
from symlint.symmetry.kinds.positions import LARGEST, Positions, Scalings, several_ways
from symlint.symmetry.kinds.whole import whole

MANY = 64
"""Parts of an axis beyond which they are not told apart."""
MOST = 1 << 17
"""Positions of one network beyond which nothing is."""


def parts(program: Program, axes: Axes, expansion: Expansion, angles: Collection[str]) -> list[Charge]:
    """The scalings, by the exponents of whole weights and of the parts of those that are cut.

    Stored `angles` stay the same for both units of each pair, so they are not cut.
    """
    cut = any(_tied(expansion, f) for name in program.weights if name not in angles for f in axes.of[name])
    system = _Parts(program, axes, expansion, angles) if cut else None
    if system is None or system.size > MOST:
        return []
    for step in program.steps:
        system.step(step)
    return system.charges()


def scaled(program: Program, axes: Axes, expansion: Expansion, charge: Charge) -> Scalings:
    """One of them, by the exponents of the elements of each weight."""
    powers: dict[str, np.ndarray] = {}
    for o, c in charge.items():
        shape = program.shapes[o.tensor]
        made = powers.setdefault(o.tensor, np.zeros((1, *(n if k == o.axis else 1 for k, n in enumerate(shape)))))
        terms = expansion.terms(axes.of[o.tensor][o.axis]) if o.axis >= 0 else ()
        there = terms[o.term].positions.reshape(-1) if terms else slice(None)
        np.moveaxis(made, o.axis + 1, -1)[..., there] = float(c)
    return Scalings(powers, frozenset())


def _tied(expansion: Expansion, f: int) -> bool:
    """Whether an axis has the same units in several parts, besides others: what scales them ties those parts."""
    pattern = expansion.pattern(f)
    return 2 < len(pattern.leaves) <= MANY and len(set(pattern.leaves)) < len(pattern.leaves)


def _cut(axes: Axes, expansion: Expansion, name: str) -> int | None:
    """The one axis of a tensor that has several parts, each of units of its own; numbered places are none."""
    several = [(k, expansion.terms(f)) for k, f in enumerate(axes.of.get(name, ()))]
    found = [k for k, terms in several if len(terms) > 1 and any(term.leaves for term in terms)]
    if len(found) != 1:
        return None
    (axis,) = found
    terms = expansion.terms(axes.of[name][axis])
    size = axes.factors.size(axes.of[name][axis])
    apart = sum(term.positions.size for term in terms) == size and all(term.leaves for term in terms)
    return axis if len(terms) <= MANY and size <= LARGEST and apart else None


class _Parts(Positions):
    """An exponent for every part of a tensor, or for all of it."""

    def __init__(self, program: Program, axes: Axes, expansion: Expansion, angles: Collection[str]) -> None:
        self.expansion, self.angles, self.apart = expansion, angles, several_ways(axes)
        self.where: dict[int, Occurrence] = {}
        """Variable -> what it scales."""
        self.size = 0
        super().__init__(program, axes, set())

    def place(self, name: str, shape: Shape) -> None:
        axis = _cut(self.axes, self.expansion, name) if name not in self.angles else None
        if axis is not None and not self.apart.isdisjoint(self.axes.factors.leaves(self.axes.of[name][axis])):
            axis = None
        wide = [n if k == axis else 1 for k, n in enumerate(shape)]
        made = np.full(wide, self.count)
        self.where[self.count] = whole(name)
        if axis is not None:
            line = made.reshape(-1)
            for t, term in enumerate(self.expansion.terms(self.axes.of[name][axis])):
                line[term.positions.reshape(-1)] = self.count + t
                self.where[self.count + t] = Occurrence(name, axis, t, 0)
        self.at[name] = made
        self.count = int(made.max(initial=self.count)) + 1
        self.size += made.size

    def movable(self, single: set[str]) -> set[str]:
        tensors, stored = self.program.model.tensors, self.program.weights
        return {n for n in stored if tensors[stored[n]].floating and n not in self.program.detached} - {
            *self.program.ends
        }

    def takes(self, step: Einsum, out: Labelled, parts: Sequence[Labelled]) -> int | None:
        return None

    def charges(self) -> list[Charge]:
        """The solutions that move a part of a weight."""
        wanted = {v: o for v, o in self.where.items() if o.tensor in self.free}
        found = self.system.solve(wanted)
        return [{wanted[v]: c for v, c in s.items()} for s in found if any(wanted[v].axis >= 0 for v in s)]
