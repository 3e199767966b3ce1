"""Unknown charges, one for every occurrence of a leaf, and the linear equations between them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from symlint.axes import Axes
from symlint.linear_system import nullspace
from symlint.program import (
    Affine,
    Program,
)
from symlint.terms import Expansion, Term

ONE, MINUS = Fraction(1), Fraction(-1)


@dataclass(frozen=True, slots=True)
class Occurrence:
    """Where a leaf stands: in which term of which axis of which tensor, and at which place of the term."""

    tensor: str
    axis: int
    term: int
    place: int


Charge = Mapping[Occurrence, Fraction]


class Unknowns:
    """The variables of a program and their equations."""

    modulus: int | None = None
    """2 where a charge only says whether something acts."""
    elementwise = True
    """Whether units are acted on one by one, so that a gain per unit moves along."""

    def __init__(self, program: Program, axes: Axes, expansion: Expansion) -> None:
        self.program, self.axes, self.expansion = program, axes, expansion
        self.factors = axes.factors
        self.variables: dict[tuple[str, int], list[list[int]]] = {}
        self.leaf_of: list[int] = []
        self.equations: dict[int, list[dict[int, Fraction]]] = {}
        self.free: set[int] = set()
        self.bound = {name for s in program.steps if isinstance(s, Affine) for name in (s.gain, s.bias, s.mean, s.var)}
        for name in (*program.inputs, *program.outputs, *program.tables):
            if not self.nil(name):
                self.still(name)
        for name in program.weights:
            self._weight(name)

    def _weight(self, name: str) -> None:
        """A weight's charges are free, unless it is an integer, a statistic, or shared and not zero."""
        tensor = self.program.model.tensors[self.program.weights[name]]
        shared = name in self.program.detached and bool(np.any(tensor.read()))
        if not tensor.floating or shared:
            self.still(name)
        elif name not in self.bound:
            self._free(name)

    def _free(self, name: str) -> None:
        for axis in range(len(self.axes.of[name])):
            self.free.update(v for row in self.slots(name, axis) for v in row)

    def slots(self, name: str, axis: int) -> list[list[int]]:
        """The variables of one axis: one per term and leaf."""
        key = (name, axis)
        if key not in self.variables:
            self.variables[key] = self.fresh(self.terms(name, axis))
        return self.variables[key]

    def terms(self, name: str, axis: int) -> tuple[Term, ...]:
        """The terms of one axis of a tensor."""
        return self.expansion.terms(self.axes.of[name][axis])

    def fresh(self, terms: Sequence[Term]) -> list[list[int]]:
        """New variables for terms."""
        made: list[list[int]] = []
        for term in terms:
            made.append(list(range(len(self.leaf_of), len(self.leaf_of) + len(term.leaves))))
            self.leaf_of.extend(term.leaves)
        return made

    def equate(self, *parts: tuple[int, Fraction]) -> None:
        """One equation: the weighted sum of variables is zero."""
        row: dict[int, Fraction] = {}
        for v, c in parts:
            row[v] = row[v] + c if v in row else c
        row = {v: c for v, c in row.items() if c}
        if row:
            self.equations.setdefault(self.leaf_of[next(iter(row))], []).append(row)

    def zero(self, slots: Sequence[Sequence[int]]) -> None:
        """Nothing may be scaled here."""
        for row in slots:
            for v in row:
                self.equate((v, ONE))

    def still(self, name: str) -> None:
        """No axis of a tensor may be scaled."""
        for axis in range(len(self.axes.of.get(name, ()))):
            self.zero(self.slots(name, axis))

    def balance(self, out: Sequence[Sequence[int]] | None, parts: Sequence[tuple[list[list[int]], Fraction]]) -> None:
        """Slot by slot: the output's charge is the weighted sum of the parts' (zero where there is no output)."""
        rows = [slots for slots, _ in parts] + ([out] if out is not None else [])
        leaves = [[[self.leaf_of[v] for v in row] for row in slots] for slots in rows]
        if any(other != leaves[0] for other in leaves[1:]):
            for slots in rows:
                self.zero(slots)
            return
        for t, row in enumerate(rows[0] if rows else ()):
            for k in range(len(row)):
                terms = [(slots[t][k], c) for slots, c in parts]
                self.equate(*terms, *([(out[t][k], MINUS)] if out is not None else []))

    def solve(self, only: Collection[int] | None = None) -> dict[int, list[Charge]]:
        """The generators of every leaf, or of `only` some, that move at least one weight."""
        wanted: dict[int, dict[int, Occurrence]] = {
            leaf: {} for leaf in {self.leaf_of[v] for v in self.free} if only is None or leaf in only
        }
        for (name, axis), slots in self.variables.items():
            for t, row in enumerate(slots):
                for k, v in enumerate(row):
                    if self.leaf_of[v] in wanted:
                        wanted[self.leaf_of[v]][v] = Occurrence(name, axis, t, k)
        found: dict[int, list[Charge]] = {}
        for leaf, variables in wanted.items():
            if leaf in self.factors.rigid:
                continue
            solutions = nullspace(self.equations.get(leaf, ()), variables, self.modulus)
            moving = [s for s in solutions if any(v in self.free for v in s)]
            if moving:
                found[leaf] = [{variables[v]: c for v, c in s.items()} for s in moving]
        return found

    def nil(self, name: str) -> bool:
        """Whether a tensor is the known zero, which has every charge."""
        return name in self.program.tables and not np.any(self.program.tables[name])

    def once(self, name: str) -> bool:
        """Whether a tensor is a weight that one step alone reads, and not shared."""
        return name in self.program.weights and name not in self.program.detached and self.program.reads[name] == 1
