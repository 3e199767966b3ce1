"""Which axes of which stored tensors write the units of their spaces, which read them, and which stay in place."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Literal

from symlint.model.records import dataclass
from symlint.program.steps import Einsum, Mix, Step
from symlint.symmetry.spaces import Symmetry
from symlint.symmetry.structure import Structure

Role = Literal["writes", "reads"]
Flow = Mapping[tuple[str, int], frozenset[Role]]
"""Stored tensor and axis -> what the axis does; an axis that no step tells anything about is missing."""

_Axes = dict[int, frozenset[tuple[str, int]]]


def flow(structure: Structure) -> Flow:
    """What each axis does: a contraction with a computed tensor reads it, everything else writes it."""
    return _Walk(structure).found


class _Walk:
    def __init__(self, structure: Structure) -> None:
        self.program, self.axes = structure.program, structure.axes
        self.made: dict[str, _Axes] = {
            name: {k: frozenset([(stored, k)]) for k in range(len(self.axes.of[name]))}
            for name, stored in self.program.weights.items()
        }
        """Tensor that is made of weights alone -> its axes -> the stored axes that they are."""
        self.known = {*self.program.tables, *self.made}
        roles: dict[tuple[str, int], set[Role]] = defaultdict(set)
        for step in self.program.steps:
            names = step.operands
            # A lookup makes a value of a table: which rows it takes is the input's choice, more often than not.
            if all(name in self.known for name in names) and not isinstance(step, Mix):
                self._derive(step)
                continue
            for slot, name in enumerate(names):
                for k, origins in self.made.get(name, {}).items():
                    for origin in origins:
                        roles[origin] |= self._roles(step, slot, k)
        self.found: Flow = {origin: frozenset(found) for origin, found in roles.items()}

    def _derive(self, step: Step) -> None:
        """What a step makes of weights is another layout of them: its axes are known by their factors."""
        origins: dict[int, set[tuple[str, int]]] = defaultdict(set)
        for name in step.operands:
            for k, mine in self.made.get(name, {}).items():
                for leaf in self._leaves(name, k):
                    origins[leaf] |= mine
        for name in step.results:
            self.known.add(name)
            self.made[name] = {
                k: frozenset(origin for leaf in self._leaves(name, k) for origin in origins.get(leaf, ()))
                for k in range(len(self.axes.of.get(name, ())))
            }

    def _leaves(self, name: str, axis: int) -> set[int]:
        return set(self.axes.factors.leaves(self.axes.of[name][axis]))

    @staticmethod
    def _roles(step: Step, slot: int, axis: int) -> set[Role]:
        if not isinstance(step, Einsum):
            return {"writes"}
        kept = step.kept
        labels = step.specs[slot][axis]
        return {"writes" if label in kept else "reads" for label in labels}


@dataclass(frozen=True, slots=True)
class Pinned:
    """A stored tensor all of whose axes are pinned."""

    tensor: str
    parameters: int
    reason: str
    """Why its units stay where they are, axis by axis, without the nodes."""


def pinned(symmetry: Symmetry, structure: Structure) -> tuple[Pinned, ...]:
    """What the coverage counts as pinned, tensor by tensor."""
    program, axes = structure.program, structure.axes
    moved = {name for generator in symmetry.generators if generator.exact for name in generator.tensors}
    elsewhere = moved | {item.tensor for item in symmetry.opaque}
    held: dict[str, list[str]] = {}
    for name, stored in program.weights.items():
        held.setdefault(stored, []).append(name)
    found = []
    for stored, size in program.parameters.items():
        if stored in elsewhere or stored not in held:
            continue
        leaves = [x for name in held[stored] for f in axes.of[name] for x in axes.factors.leaves(f)]
        pins = [axes.factors.pins.get(x) for x in leaves if axes.factors.size(x) > 1]
        words = [pin.text for pin in pins if pin is not None]
        if len(words) == len(pins):
            found.append(Pinned(stored, size, ", ".join(dict.fromkeys(words)) or "a single number"))
    return tuple(found)
