"""Endings: which entries of an output are the same function of the input.

The last steps before an output are valued anew, from where the units of the output's axis first appear: what they
read counts as unknown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import replace

import numpy as np

from symlint.analysis.values.lattice import Value, alike, distinct
from symlint.analysis.values.rows import Verdicts
from symlint.analysis.values.valuation import valuate
from symlint.model.records import dataclass
from symlint.program.steps import Program, Step
from symlint.symmetry.structure import Structure


@dataclass(frozen=True, slots=True)
class Ending:
    """The entries of an output along one axis."""

    output: str
    """Its name in the file."""
    axis: int
    size: int
    groups: tuple[tuple[int, ...], ...]
    """Entries that are always equal, but depend on the input."""
    writers: tuple[str, ...]
    """The stored tensors that tell the entries apart."""


def endings(structure: Structure, moving: Set[str], verdicts: Verdicts) -> Iterator[Ending]:
    """Every axis of an output that weights write, the first output of those that share one.

    Args:
        structure: of the network.
        moving: the tensors that depend on the input.
        verdicts: what is known of the rows of the weights from other runs, and is added to.
    """
    program, of, factors = structure.program, structure.axes.of, structure.axes.factors
    written = _written(structure, moving)
    seen: set[frozenset[int]] = set()
    for output in program.outputs:
        if output not in moving or output not in program.ends:
            continue
        for axis, f in enumerate(of[output]):
            leaves = frozenset(factors.leaves(f))
            if leaves and leaves <= written.keys() and leaves not in seen:
                found = _ending(structure, output, axis, written, moving, verdicts)
                if found is not None:
                    seen.add(leaves)
                    yield found


def _written(structure: Structure, moving: Set[str]) -> dict[int, set[str]]:
    """Leaf -> the constant tensors whose contraction with a moving one makes its units."""
    found: dict[int, set[str]] = {}
    leaves, of = structure.axes.factors.leaves, structure.axes.of
    for step in structure.program.contractions:
        if step.out in moving:
            read = {x for name in step.operands if name in moving for f in of[name] for x in leaves(f)}
            made = {x for f in of[step.out] for x in leaves(f)} - read
            for name in step.operands:
                for leaf in made.intersection(x for f in of[name] for x in leaves(f)):
                    found.setdefault(leaf, set()).add(name)
    return found


def _ending(
    structure: Structure,
    output: str,
    axis: int,
    written: Mapping[int, Set[str]],
    moving: Set[str],
    verdicts: Verdicts,
) -> Ending | None:
    program, of, factors = structure.program, structure.axes.of, structure.axes.factors
    leaves = set(factors.leaves(of[output][axis]))

    def holds(name: str) -> bool:
        return any(not leaves.isdisjoint(factors.leaves(f)) for f in of[name])

    tail = _tail(program, output, {n for n in moving if holds(n)}, moving)
    read = {n for step in tail.steps for n in step.operands}
    writers = [n for n in read if any(n in written[leaf] for leaf in leaves)]
    living = leaves | {x for n in writers for f in of[n] for x in factors.leaves(f)}
    names = {*read, *(n for step in tail.steps for n in step.results)}
    carried = {n: tuple(not living.isdisjoint(factors.leaves(f)) for f in of[n]) for n in names}
    with np.errstate(all="ignore"):
        values, _ = valuate(tail, carried, {}, verdicts)
    size = program.shapes[output][axis]
    groups = _groups(values[output], axis, size)
    stored = sorted({s for n in writers for s in _stored(program, n)})
    named = dict(zip(program.outputs, program.model.graph.outputs, strict=False)).get(output, output)
    return None if groups is None else Ending(named, axis, size, groups, tuple(stored))


def _stored(program: Program, name: str) -> Iterator[str]:
    """The stored tensors of which a constant one is made."""
    if name in program.weights:
        yield program.weights[name]
    elif name in program.makers:
        for part in program.makers[name].operands:
            yield from _stored(program, part)


def _tail(program: Program, output: str, inside: Set[str], moving: Set[str]) -> Program:
    """The steps that make an output, back to moving tensors that are not `inside`: they are its inputs."""
    wanted, steps = {output}, list[Step]()
    for step in reversed(program.steps):
        made = set(step.results)
        if made.isdisjoint(wanted) or not (made & {*inside, output} or made.isdisjoint(moving)):
            continue
        wanted.update(step.operands)
        steps.append(step)
    made = {n for step in steps for n in step.results}
    known = {*program.weights, *program.tables}
    return replace(
        program,
        steps=tuple(reversed(steps)),
        inputs=tuple(sorted(wanted - made - known)),
        weights={n: stored for n, stored in program.weights.items() if n in wanted},
        tables={n: table for n, table in program.tables.items() if n in wanted},
        loops=(),
    )


def _groups(value: Value, axis: int, size: int) -> tuple[tuple[int, ...], ...] | None:
    """Entries with equal labels and scales, those that are numbers left out; None where they are not told apart."""
    if value.bases is None or value.shape[axis] != size:
        return None
    labels = np.moveaxis(value.numbers, axis, 0).reshape(size, -1)
    scales = np.moveaxis(np.broadcast_to(alike(value.slim), value.shape), axis, 0).reshape(size, -1)
    found = distinct(*labels.T, *scales.T)
    entries = np.flatnonzero((labels != 0).any(axis=1))
    often = np.bincount(found[entries], minlength=1)[found[entries]] > 1
    groups: dict[int, list[int]] = {}
    for entry in entries[often].tolist():
        groups.setdefault(int(found[entry]), []).append(entry)
    return tuple(map(tuple, groups.values()))
