"""Rescalings that only the epsilon of a normalisation breaks: it takes lengths away, all but exactly.

They do not count as directions of symmetry, and are applied only when named; but along them the loss is almost flat,
and weight decay moves what it likes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from symlint.program.steps import CONSTANT, NONE, Law, Normalise
from symlint.symmetry.charges.charge import Rescaling, charges
from symlint.symmetry.charges.span import independent
from symlint.symmetry.charges.unknowns import Charge, Variables
from symlint.symmetry.kinds.whole import LENGTHS


class Nearly(Rescaling):
    """Rescalings if every epsilon were zero."""

    def normalised(self, step: Normalise, axis: int) -> Law:
        """What is normalised along other axes loses its scale."""
        return CONSTANT if step.function in LENGTHS and axis not in step.axes else NONE


def nearly(variables: Variables, exact: Mapping[int, Sequence[Charge]]) -> Iterator[tuple[int, Charge]]:
    """Leaf and charge of what is a rescaling but for an epsilon, beyond the `exact` ones."""
    program, axes = variables.program, variables.axes
    leaves = axes.factors.leaves
    apart = (
        f
        for step in program.norms
        if step.function in LENGTHS
        for k, f in enumerate(axes.of[step.x])
        if k not in step.axes
    )
    held = {x for name in program.weights for f in axes.of[name] for x in leaves(f)}
    concerned = held.intersection(x for f in apart for x in leaves(f))
    if not concerned:
        return
    for leaf, found in charges(variables, Nearly, concerned).items():
        rows = [{o: c for o, c in charge.items() if o.tensor in program.weights} for charge in found]
        known = [{o: c for o, c in charge.items() if o.tensor in program.weights} for charge in exact.get(leaf, ())]
        for k in independent(rows, known):
            yield leaf, found[k]
