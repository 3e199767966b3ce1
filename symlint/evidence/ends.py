"""Entries of inputs and outputs: which a finding speaks of, and which of an output are the same function.

The last steps before an output are valued anew, from where the units of the output's axis first appear: what they
read counts as unknown.

What the ends of a network show: which entries of an input are read, and which entries of an output ever change.

The axes of inputs and outputs stay in place, so they carry no units; here those that weights meet are written out too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Set
from dataclasses import field, replace
from functools import cached_property, partial
from typing import Any, TypeGuard

import numpy as np

from symlint.analysis.need import Mask, needs
from symlint.analysis.values.lattice import Names, Value, alike, distinct
from symlint.analysis.values.rows import Verdicts
from symlint.analysis.values.valuation import valuate
from symlint.analysis.values.weights import Drawn
from symlint.evidence.settled import reread
from symlint.model.graph import Array, Model, Shape, Tensor
from symlint.model.operators import known as operator
from symlint.model.records import dataclass
from symlint.program.steps import Einsum, Normalise, Program, Step, Unknown
from symlint.program.translate import lowered, reads
from symlint.symmetry.structure import Structure


@dataclass(frozen=True)
class Ends:
    """A network with the pinned axes of its inputs and outputs written out."""

    structure: Structure
    carried: Mapping[str, tuple[bool, ...]]
    """The axes that are written out anyhow."""
    parameters: Collection[str] = ()
    """The stored tensors that could have been learned."""
    verdicts: Verdicts = field(default_factory=Verdicts, compare=False)
    """What is known of the rows of weights from other runs."""

    # -- which axes -----------------------------------------------------------------------------------------------
    @cached_property
    def makers(self) -> dict[str, Step]:
        """Tensor -> the step that makes it."""
        return {name: step for step in self.structure.program.steps for name in step.results}

    def tail(self, output: str) -> Iterator[tuple[str, Step | None]]:
        """The tensors from an output back to the contraction that writes it, each with the step that it enters."""
        program, name, step = self.structure.program, output, None
        while True:
            yield name, step
            step = self.makers.get(name)
            if step is None or isinstance(step, Unknown):
                return
            moving = [n for n in step.operands if n not in program.fixed]
            if len(moving) != 1 or contracts(program, step):
                return
            name = moving[0]

    @cached_property
    def leaves(self) -> frozenset[int]:
        """The leaves of inputs, outputs and logits that some weight holds: features, channels, classes.

        An axis of channels and places in one, such as pixel shuffle makes, is left out.
        """
        program, of, terms = self.structure.program, self.structure.axes.of, self.structure.expansion.terms
        factors = self.structure.axes.factors
        weighed = {x for name in program.weights for f in of[name] for x in factors.leaves(f)}

        def met(f: int) -> bool:
            parts = [weighed.intersection(term.leaves) for term in terms(f)]
            whole = [set(term.leaves) for term in terms(f)]
            return any(parts) and all(
                not part or part == all_of_it for part, all_of_it in zip(parts, whole, strict=True)
            )

        axes = [f for name in (*program.inputs, *program.outputs) for f in of[name]]
        for output in program.outputs:
            for name, step in self.tail(output):
                if compares(step):
                    axes += [of[name][k] for k in step.axes]
        return frozenset(x for f in axes if met(f) for x in factors.leaves(f))

    def holds(self, name: str) -> tuple[bool, ...]:
        """Which axes of a tensor hold such a leaf."""
        factors = self.structure.axes.factors
        return tuple(not self.leaves.isdisjoint(factors.leaves(f)) for f in self.structure.axes.of[name])

    def weights(self, name: str, axes: Iterable[int]) -> tuple[str, ...]:
        """The stored tensors that meet these axes of a tensor."""
        program, of, leaves = self.structure.program, self.structure.axes.of, self.structure.axes.factors.leaves
        mine = {x for k in axes for x in leaves(of[name][k])}
        met = {t for n, t in program.weights.items() for f in of[n] if not mine.isdisjoint(leaves(f))}
        return tuple(sorted(met))

    def writers(self, output: str) -> tuple[str, ...]:
        """The stored tensors of the contraction that writes an output."""
        *_, (name, _) = self.tail(output)
        step, program = self.makers.get(name), self.structure.program
        made = list(step.operands) if step else []
        for part in made:  # a weight may be transposed before it is used
            made += program.makers[part].operands if part in program.makers else ()
        return tuple(sorted({program.weights[n] for n in made if n in program.weights}))

    @cached_property
    def vocabularies(self) -> frozenset[int]:
        """The lengths of the tables in which something is looked up at run time."""
        program = self.structure.program
        lookups = [step for step in program.mixes if step.at_run_time and step.x in program.fixed]
        return frozenset(n for s in lookups for k, n in enumerate(program.shapes[s.x]) if k not in s.keep)

    # -- other weights --------------------------------------------------------------------------------------------
    @cached_property
    def generic(self) -> Ends:
        """The same network with random weights: what holds of it holds by construction.

        What an input is only multiplied by, or added to, is a window or a standardisation and stays as it is, and so do
        single numbers.
        """
        return self._drawn(self._learned)

    @cached_property
    def begun(self) -> Ends:
        """The same network with random numbers in those weights that are zero throughout."""
        return self._drawn([name for name in self._learned if not self._tensors[name].read().any()])

    @property
    def _tensors(self) -> Mapping[str, Tensor]:
        return self.structure.program.model.tensors

    @cached_property
    def _learned(self) -> list[str]:
        program = self.structure.program
        kept = {program.weights[name] for name in standardising(program)}
        return [name for name in self.parameters if name not in kept and self._tensors[name].size > 1]

    def _drawn(self, names: Iterable[str]) -> Ends:
        tensors = {name: self._tensors[name] for name in names}
        drawn = {name: Drawn(t) if t.floating else partial(_ones, t) for name, t in tensors.items()}
        return replace(self, structure=reread(self.structure, drawn))

    # -- what holds -----------------------------------------------------------------------------------------------
    @cached_property
    def _values(self) -> tuple[dict[str, Value], Names]:
        wide = {n: tuple(map(max, kept, self.holds(n))) for n, kept in self.carried.items()}
        with np.errstate(all="ignore"):
            return valuate(self.structure.program, wide, {}, self.verdicts)

    @cached_property
    def _needs(self) -> dict[str, Mask]:
        return needs(self.structure.program, self._values[0], self.verdicts)

    def unread(self, name: str) -> Mask:
        """Which elements of a graph input reach no output; size 1 along axes that no weight meets."""
        return ~self._needs.get(name, np.zeros(self._values[0][name].shape, bool))

    def still(self, name: str) -> Mask:
        """Which elements of a tensor are the same for every input, though they may differ from place to place."""
        if name in self._unmoved:
            return np.ones(self._values[0][name].shape, bool)
        value, names = self._values[0][name], self._values[1]
        return np.broadcast_to(self._quiet(value, names), value.shape)

    def constants(self, name: str) -> tuple[Mask, Array]:
        """Which elements are one number, and that."""
        value = self._values[0][name]
        return value.constant, np.asarray(value.scale, np.float64)

    @staticmethod
    def _quiet(value: Value, names: Names) -> Mask:
        """Which elements depend on no input; size 1 along axes along which that does not change."""
        return names.still(value.labels.starts)

    @cached_property
    def _unmoved(self) -> frozenset[str]:
        """Tensors that depend on inputs by the graph, but not by the values of the weights."""
        found: set[str] = set()
        values, names = self._values
        for step in self.structure.program.steps:
            if step.at_run_time:
                continue
            read = [n for n in step.operands if n not in self.structure.program.fixed]
            for name in step.results if read else ():
                if all(n in found for n in read) or self._quiet(values[name], names).all():
                    found.add(name)
        return frozenset(found)

    # -- what the program does not show ---------------------------------------------------------------------------
    @cached_property
    def hidden(self) -> frozenset[str]:
        """Inputs that something reads of which no step tells: indices of a lookup, lengths, conditions."""
        lowering = lowered(self.structure.program)
        steps = lowering.program.steps
        told = {(step.node.first, name) for step in steps for name in step.operands}
        told |= {
            (node.first, lowering.values[name].name)
            for node in lowering.program.model.graph.nodes
            for name in node.outputs
            if name in lowering.values
        }
        found = {ref.name for (out, _), ref in lowering.uses.items() if (out, ref.name) not in told}
        for step in reversed(steps):
            if not found.isdisjoint(step.results):
                found.update(step.operands)
        return frozenset(found.intersection(lowering.program.inputs))


def contracts(program: Program, step: Step) -> bool:
    """Whether a step is a contraction with weights."""
    return isinstance(step, Einsum) and any(n in program.fixed and n not in program.tables for n in step.operands)


def standardising(program: Program) -> set[str]:
    """The weights that do something with an input before any contraction."""
    front, found = set(program.inputs), set[str]()
    for step in program.steps:
        moving = [n for n in step.operands if n not in program.fixed]
        if moving and front.issuperset(moving) and not contracts(program, step):
            front.update(step.results)
            found.update(n for n in step.operands if n in program.weights)
    return found


def compares(step: Step | None) -> TypeGuard[Normalise]:
    """Whether a step sees of the entries along its axis only how they differ."""
    return isinstance(step, Normalise) and step.known.relative


def _ones(tensor: Tensor) -> Array:
    """Numbers in the place of whole ones."""
    return np.ones(tensor.shape, tensor.read().dtype)


@dataclass(frozen=True, slots=True)
class Entries:
    """Entries of a tensor along one axis, or places along several of them."""

    axes: tuple[int, ...]
    sizes: Shape
    places: tuple[int, ...]
    """Ascending, row by row where there are several axes."""

    @property
    def total(self) -> int:
        """How many entries there are."""
        return int(np.prod(self.sizes))

    def of(self, name: str, one: str = "entry", many: str = "entries") -> str:
        """In words, such as ``entries 1 and 4 of 6 of x``; many are counted."""
        if len(self.places) == 1:
            return f"{one} {self.places[0]} of {self.total:,} of {name}"
        if len(self.places) > 4:
            return f"{len(self.places):,} of {self.total:,} {many} of {name}"
        listed = ", ".join(map(str, self.places[:-1]))
        return f"{many} {listed} and {self.places[-1]} of {self.total:,} of {name}"

    @property
    def facts(self) -> dict[str, Any]:
        """Where they lie."""
        return {"axes": list(self.axes), "sizes": list(self.sizes), "entries": len(self.places), "of": self.total}


def entries(mask: Mask) -> Entries | None:
    """The elements of a mask as entries along one axis if that says it all; None where there are none."""
    axes = tuple(k for k, n in enumerate(mask.shape) if n > 1)
    if not mask.any() or not axes:
        return None
    for k in axes:
        line = np.asarray(mask.all(axis=tuple(a for a in range(mask.ndim) if a != k)))
        if np.count_nonzero(line) * (mask.size // len(line)) == np.count_nonzero(mask):
            return Entries((k,), (len(line),), tuple(np.flatnonzero(line).tolist()))
    sizes = tuple(mask.shape[k] for k in axes)
    return Entries(axes, sizes, tuple(np.flatnonzero(mask.reshape(sizes)).tolist()))


@dataclass(frozen=True, slots=True)
class Scores:
    """An output, or the logits behind it, of which some elements are still while others are not."""

    output: str
    """Its name in the file."""
    tensor: str
    compared: bool
    """Whether only differences between the elements count."""
    still: Mask
    """Without those that would be still with any weights."""
    known: Mask
    numbers: Array

    def constants(self, found: Entries) -> list[float | None]:
        """The number of each entry, None where it differs from place to place; less the first of logits."""
        order = [*found.axes, *(k for k in range(self.still.ndim) if k not in found.axes)]
        known, numbers = (
            np.broadcast_to(a, self.still.shape).transpose(order).reshape(found.total, -1)
            for a in (self.known, self.numbers)
        )
        rows = [numbers[p] if known[p].all() and np.ptp(numbers[p]) == 0 else None for p in found.places]
        first = rows[0][0] if self.compared and rows[0] is not None else 0.0
        return [None if row is None else float(f"{row[0] - first:.6g}") for row in rows]


def scores(ends: Ends, moving: Collection[str]) -> Iterator[Scores]:
    """Every output that is partly still, the first of those that share their entries."""
    program = ends.structure.program
    seen: set[tuple[object, ...]] = set()
    for output, name in zip(program.outputs, program.model.graph.outputs, strict=False):
        if output not in moving or output not in program.ends or ends.still(output).all():
            continue
        for tensor, step in ends.tail(output):
            compared = compares(step)
            still = ends.still(tensor) if compared or step is None else np.zeros((), bool)
            if still.any():
                still = still & ~ends.generic.still(tensor)
            if not still.any() or still.all():
                continue
            held = frozenset(x for f in ends.structure.axes.of[tensor] for x in ends.structure.axes.factors.leaves(f))
            key = (held & ends.leaves, still.tobytes())
            if key not in seen:
                seen.add(key)
                yield Scores(name, tensor, compared, still, *ends.constants(tensor))
            break


def reading(model: Model) -> dict[str, str]:
    """Input -> what the graph does with it: ``used``, ``lost`` on the way, ``measured`` (its shape alone), ``left``."""
    useful, known = set(model.graph.outputs), model.constants
    for node in reversed(model.graph.nodes):
        if not useful.isdisjoint(node.outputs):
            useful.update(reads(node))
    read = {n: [k for k in model.graph.nodes if n in set(reads(k))] for n in model.graph.inputs}
    found: dict[str, str] = {}
    for name, nodes in read.items():
        of_values = [k for k in nodes if not operator(k.op).measures and not all(n in known for n in k.outputs)]
        if name in useful and (of_values or name in model.graph.outputs):
            found[name] = "used"
        else:
            found[name] = "left" if not nodes else "lost" if of_values else "measured"
    return found


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
