"""Absorbing: every bias that others can take over goes into them, and out of the file."""

from __future__ import annotations

import onnx_ir as ir

from symlint.repair.stage import narrowed, stored
from symlint.repair.units.dropping import drop, droppable, remove, whole
from symlint.symmetry.motion.motion import fresh_weights
from symlint.symmetry.structure import Structure


def absorbed(structure: Structure) -> tuple[ir.Model, tuple[str, ...]] | None:
    """The file without stored tensors that translations take to zero, and their names; None where there are none.

    One of two biases that are added, the bias of a normalisation before a reader that has one, and what softmaxes and
    normalisations do not see. A tensor into which another has gone stays, until the next time.
    """
    program = structure.program
    weights, file = fresh_weights(structure), narrowed(structure, {}, {})
    gone: list[str] = []
    taken: set[str] = set()
    for moved in (action.translation for action in structure.shifts):
        if not whole(structure, moved):
            continue
        name = program.weights[moved.weight]
        takers = {program.weights[way.weight] for way in moved.absorbers}
        if name in taken or takers & {*gone} or not droppable(file, program.model, name):
            continue
        gone.append(drop(weights, moved))
        taken |= takers
    if not gone:
        return None
    file = narrowed(structure, stored(weights), {})
    for name in gone:
        remove(file, name)
    return file, tuple(gone)
