"""Unseen changes: what a reader does with directions that no writer reaches, and a writer in those that none reads.

On a linear space of n units that is written with rank p < n, a reader's part across what is written is free; so is a
writer's, where the readers have rank q < n.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from symlint.axes.terms import Expansion
from symlint.axes.walk import Axes
from symlint.program.steps import Program
from symlint.symmetry.actions.rotation import InvertibleMap
from symlint.symmetry.actions.translation import UnseenChange
from symlint.symmetry.charges.unknowns import Charge
from symlint.symmetry.overlap import widths


def unseen(action: InvertibleMap, program: Program, axes: Axes, expansion: Expansion) -> Iterator[UnseenChange]:
    """The changes of single weights that the other side of a space under GL(n) does not see, where GL has not all."""
    n = axes.factors.size(action.leaf)
    found = widths(action, program, axes, expansion)
    for sign, word in ((Fraction(1), "unread"), (Fraction(-1), "unwritten")):
        if not found[-sign] < n < found[sign]:
            continue
        mine = {o: c for o, c in action.charge.items() if c == sign and o.tensor in program.weights}
        across = {o: c for o, c in action.charge.items() if c == -sign and o.tensor in program.weights}
        for k, name in enumerate(dict.fromkeys(o.tensor for o in mine), start=1):
            charge: Charge = {o: abs(c) for o, c in mine.items() if o.tensor == name}
            label = f"{action.id}.{word}.{k}"
            yield UnseenChange(label, action.space, action.leaf, action.copies, charge, across=across)
