"""Initial states: weights that are still as an initialisation leaves them, at zero, at one number, or at the identity.

What is no weight is left out by its use: initial states of recurrences, masks, paddings, kernels that average, and what
an operator of ONNX demands where the layer has no gain or shift of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Literal

import numpy as np

from symlint.evidence.ends import standardising
from symlint.model.graph import Array, Digest, Node
from symlint.model.records import dataclass
from symlint.program.functions import dispatched
from symlint.program.steps import Affine, Einsum, Mix, Program, Step
from symlint.program.translate import Lowering, lowered
from symlint.symmetry.structure import Structure

Role = Literal["weight", "gain", "bias"]
State = Literal["zero", "one", "constant", "identity"]
POSSIBLE = {"weight": ("zero", "identity"), "gain": ("zero", "one", "constant"), "bias": ("zero", "one", "constant")}
ELEMENTWISE: Mapping[str, Role] = {"Add": "bias", "Sub": "bias", "Sum": "bias", "Mul": "gain", "PRelu": "gain"}
DEMANDED = {"InstanceNormalization": (1, 2)}
"""What an operator cannot do without, so that exporters fill it in: other layers are made of it as well."""
STATES = {"RNN": 5, "GRU": 5, "LSTM": 5, "Loop": 0, "Scan": 0}
"""From which input on a recurrence takes its first state."""


@dataclass(frozen=True, slots=True)
class Untrained:
    """A weight at an initial state."""

    name: str
    """As the file calls it; of several that were merged into one, each under its own name."""
    stored: str
    state: State
    role: Role
    size: int
    value: float
    """Of its elements that are not zero; 0 where all are."""


def untrained(structure: Structure) -> Iterator[Untrained]:
    """Every weight at an initial state, in the order in which the file stores them."""
    program = structure.program
    model, statistics = program.model, [n for s in program.batch_norms for n in (s.mean, s.var)]
    # Equal weights and running statistics may have been merged; which is which their uses tell.
    likely = [*program.parameters, *(program.weights[n] for n in statistics if n in program.weights)]
    if not model.literals.issuperset(likely):  # where weights are initializers, a Constant is a number of the code
        likely = [name for name in likely if name not in model.literals]
    found = {n: s for n in dict.fromkeys(likely) if (s := state(model.digests.of(model.tensors[n]))) is not None}
    if not found:
        return
    uses = _Uses(structure, lowered(program))
    seen: set[tuple[str, str]] = set()
    front = standardising(uses.program)
    for alias, stored in uses.program.weights.items():
        if stored not in found or alias in front:
            continue
        (kind, value), role = found[stored], uses.role(alias)
        if role is None or kind not in POSSIBLE[role]:
            continue
        for name in uses.names(alias):
            if (name, stored) not in seen:
                seen.add((name, stored))
                yield Untrained(name, stored, kind, role, model.tensors[stored].size, value)


def state(digest: Digest) -> tuple[State, float] | None:
    """The initial state that a tensor is in, and the number in it."""
    tensor = digest.tensor
    if not tensor.floating or tensor.size < 2:
        return None
    number = digest.uniform
    if number is not None:
        return ("zero" if not number else "one" if number == 1 else "constant"), number
    if len(tensor.shape) < 2 or len({float(n) for k in (0, 1) for n in digest.largest((k,)) if n}) != 1:
        return None  # of an identity every row and every column has one size, or none
    number = _identity(tensor.read())
    return ("identity", number) if number else None


def _identity(values: Array) -> float:
    """The number c where the values are c times an identity, or a kernel that passes c times its input; else 0."""
    rows, columns, *window = values.shape
    middle = values[(slice(None), slice(None), *(n // 2 for n in window))]
    there = np.argwhere(middle)
    if not len(there) or np.count_nonzero(values) != len(there) or (not window and rows != columns):
        return 0.0
    number = middle[tuple(there[0])]
    straight = (there[:, 0] % columns == there[:, 1]).all() and 2 * len(there) >= min(rows, len(middle))
    return float(number) if straight and (middle[middle != 0] == number).all() and len(there) > 1 else 0.0


class _Uses:
    """What the steps and the nodes do with weights."""

    def __init__(self, structure: Structure, lowering: Lowering) -> None:
        self.structure, self.lowering = structure, lowering
        self.program: Program = lowering.program
        self.nodes = {node.first: node for node in self.program.model.graph.walk()}
        self.readers: dict[str, list[Step]] = {}
        for step in self.program.steps:
            for name in dict.fromkeys(step.operands):
                self.readers.setdefault(name, []).append(step)
        self.fixed = set(self.program.fixed)
        for step in self.program.steps:
            if self._rearranged(step) or (step.product and self.fixed.issuperset(step.operands)):
                self.fixed.update(step.results)

    @cached_property
    def seats(self) -> dict[str, list[tuple[Node, int]]]:
        """Weight of the program -> the nodes that read it, and as which input."""
        found: dict[str, list[tuple[Node, int]]] = {}
        for (out, k), ref in self.lowering.uses.items():
            if ref.name in self.program.weights and out in self.nodes:
                found.setdefault(ref.name, []).append((self.nodes[out], k))
        return found

    def names(self, alias: str) -> list[str]:
        """The names under which nodes read a weight: exporters merge equal ones behind Identity nodes."""
        called = self.program.model.called
        return list(dict.fromkeys(called.get((n.first, k), n.inputs[k]) for n, k in self.seats.get(alias, ())))

    def role(self, alias: str) -> Role | None:
        """What a weight does wherever it is used; None where that is nothing that could be learned."""
        if not self._met(alias) or any(_demanded(node, k) for node, k in self.seats.get(alias, ())):
            return None
        found, reached = set[Role | None](), [alias]
        for name in reached:
            for step in self.readers.get(name, ()):
                if self._rearranged(step):
                    reached += [out for out in step.results if out not in reached]
                else:
                    found.add(self._does(step, name))
        return found.pop() if len(found) == 1 else None

    def _met(self, alias: str) -> bool:
        """Whether a weight lies along units or entries that a contraction with weights writes or reads."""
        factors, of = self.structure.axes.factors, self.structure.axes.of
        mine = {x for f in of.get(alias, ()) for x in factors.leaves(f)}
        return not mine.isdisjoint(self._contracted)

    @cached_property
    def _contracted(self) -> frozenset[int]:
        program, leaves = self.structure.program, self.structure.axes.factors.leaves
        of = self.structure.axes.of
        return frozenset(
            x
            for step in program.contractions
            if not program.fixed.issuperset(step.operands)
            for name in step.operands
            if name in program.fixed and name not in program.tables
            for f in of[name]
            for x in leaves(f)
        )

    def _rearranged(self, step: Step) -> bool:
        """Whether a step makes another constant of one, in which it is still the same weight."""
        rearranged = (step.linear or step.elementwise) and not step.at_run_time
        return rearranged and self.fixed.issuperset(step.operands)

    @dispatched
    def _does(self, step: Step, name: str) -> Role | None:
        return None if self.fixed.issuperset(step.operands) else ELEMENTWISE.get(step.function)

    @_does.register
    def _(self, step: Einsum, name: str) -> Role | None:
        return None if self.fixed.issuperset(step.operands) else "weight"

    @_does.register
    def _(self, step: Mix, name: str) -> Role | None:
        return "weight" if step.at_run_time else None

    @_does.register
    def _(self, step: Affine, name: str) -> Role | None:
        return "gain" if name == step.gain else "bias" if name == step.bias else None


def _demanded(node: Node, k: int) -> bool:
    """Whether a node takes an input that is no weight in this place, or need not be one."""
    unshifted = node.op == "LayerNormalization" and k == 1 and len([n for n in node.inputs if n]) < 3
    return k in DEMANDED.get(node.op, ()) or k >= STATES.get(node.op, k + 1) or unshifted
