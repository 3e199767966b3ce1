"""Gathering: of heads that are one function, one keeps the work of all; the others are read no more."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from symlint.analysis.rehearsal import Rehearsal, Unrehearsed, entered
from symlint.evidence.context import Context
from symlint.evidence.heads.twins import twins
from symlint.model.graph import Array
from symlint.repair.units.readings import readings
from symlint.symmetry.motion.action import scale, stands
from symlint.symmetry.motion.motion import Weights
from symlint.symmetry.structure import Action
from symlint.symmetry.translation.element import changes


def gather(context: Context, weights: Weights, space: str) -> tuple[int, ...]:
    """Let the first of each group of twins contribute what all of it does; the units that are read no more.

    Args:
        context: the network.
        weights: change in place.
        space: its permutation tells where the units lie.
    """
    action = context.structure.permutation(space)
    found = readings(context.structure, action.leaf, context.moving)
    same = twins(context.structure, action, context.moving)
    if not found or same is None:
        return ()
    _settle(context, weights, action)
    factor = np.ones(context.structure.axes.factors.size(action.leaf))
    for group in same.groups:
        factor[list(group)] = 0.0
        factor[group[0]] = sum(same.multiples[unit] for unit in group)
    expansion, of = context.structure.expansion, context.structure.axes.of
    for name, axis in dict.fromkeys(place for reading in found for place in reading.places):
        stood = [s for s in stands(expansion, of[name], action.leaf, ()) if s.axis == axis]
        charge = {(s.axis, s.term, s.place): Fraction(1) for s in stood}
        weights.put(name, np.asarray(scale(weights.get(name), stood, factor, charge)))
    return tuple(sorted(unit for group in same.groups for unit in group[1:]))


def gatherable(context: Context, space: str) -> tuple[int, ...]:
    """The units of which a twin can do the work, without a change; none where that is not possible."""
    action = context.structure.permutation(space)
    same = twins(context.structure, action, context.moving)
    if not readings(context.structure, action.leaf, context.moving) or same is None:
        return ()
    return tuple(sorted(unit for group in same.groups for unit in group[1:]))


def _settle(context: Context, weights: Weights, action: Action) -> None:
    """Move what units add whatever the input is to where others take it over, as the bias of the output does.

    That is the bias of the values, and what these make of the shift of a normalisation before them.
    """
    structure = context.structure
    for moved in (action.translation for action in structure.shifts):
        if moved.nowhere is not None or not moved.absorbers:
            continue
        if moved.weight in structure.program.detached or len(moved.wave.classes) != 1:
            continue
        if not any(True for _ in stands(structure.expansion, structure.axes.of[moved.weight], action.leaf, ())):
            continue
        value = _still(context, weights, moved.weight)
        if value is None:
            continue
        # Where a change is the same for several elements their mean goes, and with it all that a change may be.
        (classes,) = moved.wave.classes
        size = -np.asarray([value[classes == k].mean() for k in np.unique(classes[classes >= 0])])
        for name, change in list(changes(moved, weights.numbers, size.reshape(moved.shape))):
            weights.put(name, weights.get(name) + change)


def _still(context: Context, weights: Weights, bias: str) -> Array | None:
    """What a bias is added up to where everything that comes in is zero; None where it is not simply added."""
    program = context.structure.program
    added = [s for s in program.steps if bias in s.operands]
    if len(added) != 1 or not added[0].known.sums:
        return None
    (out,) = added[0].results
    inside = {n for n in (*added[0].operands, out) if n in context.moving}
    now = {n: weights.get(n) for n, stored in program.weights.items() if stored in weights.now}
    try:
        part = entered(program, inside, context.moving)
        value = Rehearsal(program, part, 0, given=now, size=0.0).value(out)
    except Unrehearsed:
        return None
    shape = program.shapes[bias]
    first = value[(0,) * (value.ndim - len(shape))]
    return np.asarray(first[tuple(slice(0, n) for n in shape)])
