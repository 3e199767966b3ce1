"""Which weights write the units of a space and which read them, where nothing but tame functions lies between.

A tame function maps zero to zero and is never steeper than a few: what it makes of a small unit is as small. Then the
product of what writes a unit and what reads it bounds what it adds to an output, though no rescaling acts on it.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from symlint.program.numbers import compute
from symlint.program.steps import Einsum, Pointwise
from symlint.symmetry.charges.unknowns import Occurrence
from symlint.symmetry.structure import Action, Structure

NEAR = np.array([-1e-3, -1e-6, 0.0, 1e-6, 1e-3])
STEEPEST = 4.0


def sides(
    structure: Structure, action: Action, places: Collection[Occurrence]
) -> tuple[set[Occurrence], set[Occurrence]] | None:
    """Writers and readers of the units of an action; None where some weight or step is neither.

    Args:
        structure, action: whose units are meant.
        places: where weights of the program hold them.
    """
    held = set(structure.axes.holding.get(action.leaf, ()))
    axes = {name: {o.axis for o in places if o.tensor == name} for name in {o.tensor for o in places}}
    found: dict[str, int] = {}
    for step in structure.program.touching(held):
        mine = [name for name in step.operands if name in held]
        moving = [name for name in mine if name not in axes]
        stored = [name for name in mine if name in axes]
        if isinstance(step, Pointwise):
            if step.known.sums:
                found.update(dict.fromkeys(stored, 1))
            elif stored or len(step.operands) > 1 or not _tame(step):
                return None
        elif isinstance(step, Einsum):
            out = step.out in held
            # A product unit by unit, or a table on its way.
            if len(stored) > 1 or len(moving) > 1 or (stored and bool(moving) == out):
                return None
            found.update(dict.fromkeys(stored, 1 if out else -1))
        elif stored or not step.linear:
            return None
    if set(found) != set(axes) or any(len(a) > 1 for a in axes.values()):
        return None
    wrote, read = ({o for o in places if found[o.tensor] == sign} for sign in (1, -1))
    return (wrote, read) if wrote and read else None


def _tame(step: Pointwise) -> bool:
    made = compute(step, [NEAR])
    return made is not None and bool(np.all(np.abs(made) <= STEEPEST * np.abs(NEAR)))
