"""Unseen changes: what a reader does with directions that no writer reaches, and a writer in those that none reads.

On a linear space of n units that is written with rank p < n, a reader's part across what is written is free; so is a
writer's, where the readers have rank q < n.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from math import isfinite, prod

import numpy as np

from symlint.axes.terms import Expansion
from symlint.axes.walk import Axes
from symlint.model.graph import Array
from symlint.program.steps import Program
from symlint.symmetry.charges.unknowns import Charge
from symlint.symmetry.motion.action import Stand, stands, transform
from symlint.symmetry.motion.lines import lines
from symlint.symmetry.overlap import widths
from symlint.symmetry.structure import Action, Structure

NOTHING = 1e-12
"""An eigenvalue of a Gram matrix relative to the largest: what is below is no direction."""


def unseen(action: Action, program: Program, axes: Axes, expansion: Expansion) -> Iterator[Action]:
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
            yield Action(label, action.space, "translation", action.leaf, action.copies, charge, across=across)


def hidden(structure: Structure, action: Action, change: Array, read: Callable[[str], Array]) -> Array:
    """The part of any change of a weight that the other side does not see."""
    size = structure.axes.factors.size
    sizes, n = [size(c) for c in action.copies], size(action.leaf)
    gram = np.zeros((prod(sizes), n, n))
    pieces = [
        lines(read(name).astype(np.float64), stand, sizes)
        for name in dict.fromkeys(o.tensor for o in action.across)
        for stand in _stands(structure, action, name, action.across)
    ]
    largest = max((float(np.abs(rows).max(initial=0.0)) for rows, _ in pieces), default=0.0)
    if not isfinite(largest):  # before what is no number nothing can hide
        return np.zeros_like(change)
    for rows, owner in pieces:
        for copy in range(len(gram)):
            part = rows[owner == copy] / (largest or 1.0)
            gram[copy] += part.T @ part
    length, basis = np.linalg.eigh(gram)
    kept = (length <= NOTHING * length.max(axis=-1, keepdims=True)).astype(float)
    apart = np.einsum("cik,ck,cjk->cij", basis, kept, basis).reshape(*sizes, n, n)
    (name,) = {o.tensor for o in action.charge}
    charge = {(o.axis, o.term, o.place): c for o, c in action.charge.items()}
    return transform(masked(structure, action, change), _stands(structure, action, name, action.charge), apart, charge)


def masked(structure: Structure, action: Action, change: Array) -> Array:
    """A change of a weight where it holds the space, and zero elsewhere."""
    (name,) = {o.tensor for o in action.charge}
    here = np.zeros(change.shape, bool)
    for stand in _stands(structure, action, name, action.charge):
        shape = np.broadcast_shapes(stand.here.shape, (1,) * len(stand.others) + stand.grid.shape)
        length = change.shape[stand.axis]
        here = here | stand.along(change.shape, np.broadcast_to(stand.here, shape), np.zeros(length, bool))
    return np.where(here, change, 0.0)


def _stands(structure: Structure, action: Action, name: str, charge: Charge) -> list[Stand]:
    wanted = {(o.axis, o.term, o.place) for o in charge if o.tensor == name}
    found = stands(structure.expansion, structure.axes.of[name], action.leaf, action.copies)
    return [s for s in found if (s.axis, s.term, s.place) in wanted]
