"""The inference: from a model to its spaces, generators and coverage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod

import numpy as np

from symlint.arena import Form
from symlint.axes import Axes, walk
from symlint.charge import Linear, Rescaling, Sign, charges
from symlint.charge_system import System
from symlint.copies import copies
from symlint.coverage import coverage
from symlint.graph import Model
from symlint.program import Program
from symlint.symmetry import Generator, Kind, Place, Space, Symmetry
from symlint.terms import Expansion
from symlint.translate import translate
from symlint.unknowns import Charge

SYSTEMS: dict[Kind, type[System]] = {"rescaling": Rescaling, "sign": Sign, "rotation": Linear}


@dataclass(frozen=True, slots=True)
class Action:
    """A generator as data: on which leaf it acts, and how far its elements may differ from copy to copy."""

    id: str
    kind: Kind
    leaf: int
    copies: tuple[int, ...]
    charge: Charge
    """Empty for permutations."""


@dataclass(frozen=True)
class Structure:
    """The result of the walk, from which elements of the generators act on weights."""

    program: Program
    axes: Axes
    expansion: Expansion
    actions: dict[str, Action]
    """Generator -> its action."""


def infer(model: Model) -> Symmetry:
    """The symmetries of a model's parameters."""
    return examine(model)[0]


def examine(model: Model) -> tuple[Symmetry, Structure]:
    """The symmetries, and the structure that can apply them."""
    program = translate(model)
    axes = walk(program)
    expansion = Expansion(axes.factors)
    return _Report(program, axes, expansion).symmetry()


class _Report:
    def __init__(self, program: Program, axes: Axes, expansion: Expansion) -> None:
        self.program, self.axes, self.expansion = program, axes, expansion
        self.factors = axes.factors
        self.charges = {kind: charges(program, axes, expansion, system) for kind, system in SYSTEMS.items()}
        self.bearers: dict[int, list[str]] = {}
        for name in program.weights:
            if name not in program.detached:
                for leaf in {x for f in axes.of[name] for x in self.factors.leaves(f)}:
                    self.bearers.setdefault(leaf, []).append(name)
        self.stored: dict[str, tuple[str, ...]] = {name: (stored,) for name, stored in program.weights.items()}
        for name, step in program.affines.items():
            if step.gain in program.weights and step.bias in program.weights:
                moved = (step.gain, step.bias) if name == step.scale else (step.bias,)
                self.stored[name] = tuple(program.weights[n] for n in moved)

    def symmetry(self) -> tuple[Symmetry, Structure]:
        charged = {leaf for found in self.charges.values() for leaf in found}
        leaves = [leaf for leaf in self.bearers if leaf not in self.factors.pins or leaf in charged]
        names = {leaf: f"S{k}" for k, leaf in enumerate(leaves, start=1)}
        actions = [a for leaf in leaves for a in self._actions(leaf, names[leaf])]
        actions = [a for a in actions if not self._within(a, actions)]
        spaces = tuple(
            self._space(leaf, names, min(self._count(a.copies) for a in actions if a.leaf == leaf))
            for leaf in leaves
            if any(a.leaf == leaf for a in actions)
        )
        generators = tuple(self._generator(a, names[a.leaf], counted=not self._inside(a, actions)) for a in actions)
        shares, opaque = coverage(self.program, self.axes, {t for g in generators for t in g.tensors})
        dimension = sum(g.dimension for g in generators if g.exact)
        symmetry = Symmetry(self.program.model, shares, dimension, spaces, generators, opaque)
        return symmetry, Structure(self.program, self.axes, self.expansion, {a.id: a for a in actions})

    # -- generators -----------------------------------------------------------------------------------------------
    def _count(self, beside: Sequence[int]) -> int:
        return prod(self.factors.size(c) for c in beside)

    def _actions(self, leaf: int, space: str) -> list[Action]:
        """The generators of one leaf."""
        made: list[Action] = []
        first = self.bearers[leaf][0]
        if leaf not in self.factors.pins:
            beside = copies(self.axes, self.expansion, leaf, None, first)
            made.append(Action(f"{space}.permutation", "permutation", leaf, beside, {}))
        for kind, by_leaf in self.charges.items():
            found = by_leaf.get(leaf, [])
            for k, charge in enumerate(found, start=1):
                if kind == "rotation" and not self._rotates(charge):
                    continue
                places = {(o.tensor, o.axis, o.term) for o in charge}
                moved = {o.tensor for o in charge}
                start = next(n for n in (*self.bearers[leaf], *self.program.affines) if n in moved)
                beside = copies(self.axes, self.expansion, leaf, places, start)
                suffix = f".{k}" if len(found) > 1 else ""
                made.append(Action(f"{space}.{kind}{suffix}", kind, leaf, beside, charge))
        return made

    @staticmethod
    def _rotates(charge: Charge) -> bool:
        """Whether a matrix or its inverse transpose acts wherever something acts."""
        return all(abs(c) == 1 for c in charge.values())

    def _within(self, action: Action, actions: Sequence[Action]) -> bool:
        """Whether acting on a factor as a whole is part of acting on what is nested in it, unit by unit."""
        if action.kind not in ("rescaling", "sign"):
            return False
        nested = [a for a in actions if a.kind == action.kind and action.leaf in a.copies]
        if not nested:
            return False
        rows = [self._places(a) for a in (action, *nested)]
        columns = sorted({place for row in rows for place in row})
        matrix = np.array([[float(row.get(c, 0)) for c in columns] for row in rows])
        return bool(np.linalg.matrix_rank(matrix) == np.linalg.matrix_rank(matrix[1:]))

    def _places(self, action: Action) -> dict[tuple[str, int, int], Fraction]:
        """How an action scales each weight as a whole, or each term of an axis that is a sum."""
        made: dict[tuple[str, int, int], Fraction] = {}
        for o, c in action.charge.items():
            if o.tensor in self.stored:
                whole = len(self.expansion.terms(self.axes.of[o.tensor][o.axis])) == 1
                place = (o.tensor, -1, 0) if whole else (o.tensor, o.axis, o.term)
                made[place] = made.get(place, Fraction(0)) + c
        return {place: c for place, c in made.items() if c}

    def _inside(self, action: Action, actions: Sequence[Action]) -> bool:
        """Whether a rescaling is the diagonal of a group of matrices on the same space, which counts it already."""
        return action.kind == "rescaling" and any(
            other.kind == "rotation"
            and other.leaf == action.leaf
            and set(action.copies) <= set(other.copies)
            and self._pattern(other) == self._pattern(action)
            for other in actions
        )

    def _pattern(self, action: Action) -> frozenset[tuple[str, int, int, Fraction]]:
        """Where an action acts on weights, up to a common factor."""
        moved = {(o.tensor, o.axis, o.term): c for o, c in action.charge.items() if o.tensor in self.stored}
        unit = moved[min(moved)]
        return frozenset((*place, c / unit) for place, c in moved.items())

    def _generator(self, action: Action, space: str, *, counted: bool) -> Generator:
        size, count = self.factors.size(action.leaf), self._count(action.copies)
        power = f"^{count}" if count > 1 else ""
        if action.kind == "permutation":
            moved = {self.program.weights[name] for name in self.bearers[action.leaf]}
        else:
            moved = {t for o in action.charge for t in self.stored.get(o.tensor, ())}
        group, dimension = f"R_{{>0}}^{size * count}", size * count
        if action.kind == "permutation":
            group, dimension = f"S_{size}{power}", 0
        elif action.kind == "sign":
            group, dimension = f"Z_2^{size * count}", 0
        elif action.kind == "rotation":
            group, dimension = f"GL({size}){power}", self._orbit(action) * count
        names = tuple(sorted(moved))
        return Generator(action.id, action.kind, space, group, dimension if counted else 0, True, names)

    def _orbit(self, action: Action) -> int:
        """n^2 - max(n - p, 0) max(n - q, 0) for a space written with rank p and read with rank q."""
        size = self.factors.size(action.leaf)
        width = {Fraction(1): 0, Fraction(-1): 0}
        for o, c in action.charge.items():
            if o.tensor in self.program.weights:
                term = self.expansion.terms(self.axes.of[o.tensor][o.axis])[o.term]
                shape = self.program.shapes[o.tensor]
                others = prod(shape) // shape[o.axis] * term.positions.size // size
                beside = prod(self.factors.size(x) for x in action.copies)
                width[c] += max(others // beside, 1)
        p, q = width.values()
        return size * size - max(size - p, 0) * max(size - q, 0)

    # -- spaces ---------------------------------------------------------------------------------------------------
    def _space(self, leaf: int, names: dict[int, str], count: int) -> Space:
        places = tuple(
            Place(self.program.weights[name], k, self._layout(f, names))
            for name in self.bearers[leaf]
            for k, f in enumerate(self.axes.of[name])
            if leaf in set(self.factors.leaves(f))
        )
        first = places[0].tensor
        stem = first.rsplit(".", 1)[0] if first.endswith((".weight", ".bias")) else first
        why = list(self.factors.why.get(leaf, ()))
        if leaf in self.factors.pins:
            why.append(f"its units stay in place: {self.factors.pins[leaf]}")
        return Space(names[leaf], self.factors.size(leaf), count, stem, places, tuple(why))

    def _layout(self, f: int, names: dict[int, str]) -> str:
        """An axis in factor notation."""
        written: list[str] = []
        for term in self.expansion.terms(f):
            words = [names.get(x, str(self.factors.size(x))) for x in term.leaves] or ["1"]
            text = words[0] if len(words) == 1 else f"({' '.join(words)})"
            if not written or written[-1] != text or self.factors.form(f) is Form.SUM:
                written.append(text)
        return "+".join(written) if len(written) <= 8 else f"{'+'.join(written[:3])}+...+{written[-1]}"
