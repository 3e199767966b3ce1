"""Readings: where the units of a space are summed over with weights, so that one can do the work of another."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Set

from symlint.model.records import dataclass
from symlint.program.steps import Einsum, Mix, Program, Slice, rearranges
from symlint.symmetry.structure import Structure

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
