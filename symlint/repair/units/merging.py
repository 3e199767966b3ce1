"""Merging: of units or heads that are one function, one keeps the work of all; the others are read no more."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence, Set
from fractions import Fraction

import numpy as np

from symlint.analysis.rehearsal import Rehearsal, Unrehearsed, entered
from symlint.evidence.context import Context
from symlint.evidence.heads.twins import twins
from symlint.model.clusters import median
from symlint.model.graph import Array
from symlint.model.records import dataclass
from symlint.program.steps import Einsum, Mix, Program, Slice, rearranges
from symlint.symmetry.motion.action import scale, stands, transform
from symlint.symmetry.motion.membership import members
from symlint.symmetry.motion.motion import Weights
from symlint.symmetry.structure import Action, Structure
from symlint.symmetry.translation.element import changes

Place = tuple[str, int]
"""A weight of the program and one of its axes."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A contraction of units with weights."""

    step: Einsum
    operand: str
    """The tensor that holds the units there."""
    places: tuple[Place, ...]
    """The weights that they are summed over with."""


def readings(structure: Structure, leaf: int, moving: Collection[str]) -> tuple[Reading, ...] | None:
    """Every place where units of a leaf leave the network's activations; None where that is not by stored weights only.

    Args:
        structure: of the network.
        leaf: whose units are asked for.
        moving: the tensors that depend on the input.
    """
    found: list[Reading] = []
    program, of, leaves = structure.program, structure.axes.of, structure.axes.factors.leaves
    held = structure.axes.factors.holders.get(leaf, set()) & of.keys()
    for step in program.reading(held):
        mine = [name for name in step.operands if name in held]
        if not mine:
            continue
        if any(leaf in leaves(of[name][k]) for name in mine for k in step.joint):
            return None
        if isinstance(step, Mix):
            if any(leaf in leaves(f) for k, f in enumerate(of[step.x]) if k not in step.sources):
                return None
        elif isinstance(step, Einsum) and (summed := set(_summed(structure, step, leaf))):
            reading = _reading(program, step, summed, moving)
            if reading is None:
                return None
            found.append(reading)
    ends = {id(reading.step) for reading in found}
    weights = {name for reading in found for name, _ in reading.places}
    if any(name in program.detached or not _only(program, name, ends, held) for name in weights):
        return None
    return tuple(found)


def _only(program: Program, name: str, ends: Collection[int], held: Set[str]) -> bool:
    """Whether all that is made of a weight, and holds the units, goes to these steps."""
    waiting = {name}
    while waiting:
        top = waiting.pop()
        for step in program.reading((top,)):
            if id(step) in ends:
                continue
            if not set(step.results) <= program.makers.keys():
                return False
            waiting.update(held & set(step.results))
    return True


def _summed(structure: Structure, step: Einsum, leaf: int) -> Iterator[tuple[int, int]]:
    """Operand and axis of every occurrence of a leaf that the result of a contraction lacks."""
    factors, of = structure.axes.factors, structure.axes.of
    made = step.kept
    for j, (name, spec) in enumerate(zip(step.operands, step.specs, strict=True)):
        for k, labels in enumerate(spec):
            rest = of[name][k]
            for n, label in enumerate(labels):
                part = rest
                if n < len(labels) - 1:
                    halves = factors.split(rest, step.sizes[label])
                    if halves is None:
                        return
                    part, rest = halves
                if label not in made and leaf in factors.leaves(part):
                    yield j, k


def _reading(
    program: Program, step: Einsum, summed: Collection[tuple[int, int]], moving: Collection[str]
) -> Reading | None:
    units = [step.operands[j] for j, _ in summed if step.operands[j] in moving]
    weights = [(step.operands[j], k) for j, k in summed if step.operands[j] not in moving]
    sources = [_source(program, name, axis) for name, axis in weights]
    if len(units) != 1 or not sources:
        return None
    places = tuple(place for place in sources if place is not None)
    return Reading(step, units[0], places) if len(places) == len(sources) else None


def _source(program: Program, name: str, axis: int) -> Place | None:
    """The floating weight and its axis of which an axis of a constant tensor is; None where it is not one alone."""
    while name not in program.weights:
        step = program.makers.get(name)
        if isinstance(step, Slice) and step.axis != axis:
            name = step.x
            continue
        if not rearranges(step):
            return None
        where = [k for k, labels in enumerate(step.specs[0]) if labels == step.result[axis]]
        if len(where) != 1:
            return None
        name, axis = step.operands[0], where[0]
    return (name, axis) if program.model.tensors[program.weights[name]].floating else None


SPREAD = 1e-5
"""How far the multiple of a unit may differ from place to place, relative."""
Group = Sequence[int]


def merge(context: Context, weights: Weights, space: str, groups: Sequence[Group]) -> tuple[int, ...]:
    """Let the first unit of each group do the work of the others; the units that are read no more.

    Args:
        context: the network.
        weights: change in place.
        space: its permutation tells where the units lie.
        groups: units, copy-major, that are multiples of their first wherever they are read.
    """
    action = context.structure.permutation(space)
    size = context.structure.axes.factors.size(action.leaf)
    found = _multiplied(context, action, groups)
    for reading, factor in found:
        shape = [*(context.structure.axes.factors.size(c) for c in action.copies), size, size]
        matrix = np.broadcast_to(np.eye(size), shape).reshape(-1, size, size).copy()
        for group in groups:
            copy, first = divmod(group[0], size)
            for unit in group[1:]:
                matrix[copy, first, unit % size] = factor[unit]
                matrix[copy, unit % size, unit % size] = 0.0
        for name, axis in reading.places:
            weights.put(name, _applied(context, action, weights.get(name), name, axis, matrix.reshape(shape)))
    return _others(groups) if found else ()


def mergeable(context: Context, space: str, groups: Sequence[Group]) -> tuple[int, ...]:
    """The units of which others can do the work, without a change; none where that is not possible."""
    found = _multiplied(context, context.structure.permutation(space), groups)
    return _others(groups) if found else ()


def _others(groups: Sequence[Group]) -> tuple[int, ...]:
    return tuple(sorted(unit for group in groups for unit in group[1:]))


def _multiplied(context: Context, action: Action, groups: Sequence[Group]) -> list[tuple[Reading, Mapping[int, float]]]:
    """The readings of units, with how many times its group's first unit each is there; empty where that fails."""
    found = readings(context.structure, action.leaf, context.moving)
    if not found:
        return []
    size = context.structure.axes.factors.size(action.leaf)
    ones = {unit: 1.0 for group in groups for unit in group}
    # Where a rule says that all units are one, they are equal though chance could have made them so.
    alike = ones if all(len(group) == size for group in groups) else None
    factors = [multiples(context, action, reading, groups) or alike for reading in found]
    told: list[tuple[Reading, Mapping[int, float]]] = [
        (reading, factor) for reading, factor in zip(found, factors, strict=True) if factor is not None
    ]
    return told if len(told) == len(found) and _agree(found, factors) else []


def _agree(found: Sequence[Reading], factors: Sequence[Mapping[int, float] | None]) -> bool:
    """Whether each weight that reads units in several places sees the same multiples everywhere."""
    seen: dict[str, dict[int, float]] = {}
    for reading, factor in zip(found, factors, strict=True):
        for name, _ in reading.places:
            for unit, number in (factor or {}).items():
                known = seen.setdefault(name, {}).setdefault(unit, number)
                if abs(known - number) > SPREAD * abs(known):
                    return False
    return True


def multiples(context: Context, action: Action, reading: Reading, groups: Sequence[Group]) -> dict[int, float] | None:
    """How many times its group's first unit each unit is, as one reading sees it; None where it is no multiple."""
    value = context.values.get(reading.operand)
    rows = None
    if value is not None:
        axes = context.structure.axes.of[reading.operand]
        rows = members(context.structure, context.plain(action), axes, value.shape)
    if value is None or rows is None or context.plain(action).copies != action.copies:
        return None
    labels, scale = value.numbers.reshape(-1)[rows], np.asarray(value.scale, np.float64).reshape(-1)[rows]
    found: dict[int, float] = {}
    for group in groups:
        first = group[0]
        for unit in group[1:]:
            if not np.array_equal(labels[first], labels[unit]) or not scale[first].all():
                return None
            ratio = scale[unit] / scale[first]
            middle = median(ratio)
            if not np.all(np.abs(ratio - middle) <= SPREAD * abs(middle)):
                return None
            found[unit] = middle
    return found


def _applied(context: Context, action: Action, values: Array, name: str, axis: int, matrix: Array) -> Array:
    """A weight whose units along one axis become the combinations that the rows of the matrix say."""
    structure = context.structure
    stood = [
        s for s in stands(structure.expansion, structure.axes.of[name], action.leaf, action.copies) if s.axis == axis
    ]
    return transform(values, stood, matrix, {(s.axis, s.term, s.place): Fraction(1) for s in stood})


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
