"""What the ends of a network show: which entries of an input are read, and which entries of an output ever change.

The axes of inputs and outputs stay in place, so they carry no units; here those that weights meet are written out too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import field, replace
from functools import cached_property, partial
from typing import TypeGuard

import numpy as np

from symlint.analysis.need import Mask, needs
from symlint.analysis.values.lattice import Names, Value
from symlint.analysis.values.rows import Verdicts
from symlint.analysis.values.valuation import valuate
from symlint.analysis.values.weights import Drawn
from symlint.evidence.ends.settled import reread
from symlint.model.graph import Array, Tensor
from symlint.model.records import dataclass
from symlint.program.steps import Einsum, Normalise, Program, Step, Unknown
from symlint.program.translate import lowered
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
