"""Unknown charges, one for every occurrence of a leaf, and the linear equations between them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

from symlint.program.steps import Program
from symlint.symmetry.axes.terms import Expansion, Pattern, Term
from symlint.symmetry.axes.walk import Axes
from symlint.symmetry.charges.linear_system import LinearSystem, Number
from symlint.symmetry.charges.offsets import offsets

ONE = Fraction(1)


class Occurrence(NamedTuple):
    """Where a leaf stands: in which term of which axis of which tensor, and at which place of the term."""

    tensor: str
    axis: int
    term: int
    place: int


Charge = Mapping[Occurrence, Fraction]


class Slots(NamedTuple):
    """The variables of an axis, or of one label of it: one for every leaf of every term, numbered on from `first`."""

    first: int
    pattern: Pattern

    def term(self, t: int) -> range:
        """The variables of one term."""
        start = self.first + self.pattern.starts[t]
        return range(start, start + len(self.pattern.leaves[t]))


class Ties(NamedTuple):
    """Variables of a leaf that are equal, and some that are zero."""

    equal: list[tuple[int, int, int]]
    zero: list[tuple[int, int]]


class Contraction(NamedTuple):
    """A contraction: what ties grouped axes to labels; label by label the output's variables and the operands'."""

    ties: Ties
    labels: list[tuple[Slots | None, list[Slots]]]


class Meeting(NamedTuple):
    """An axis of an elementwise step: the output's variables, those of operands that have it, and who lacks it."""

    axis: int
    out: Slots
    parts: list[tuple[int, Slots]]
    absent: list[int]


class Variables:
    """The variables of a program, and what its steps say of them whatever acts on the units: one for all systems."""

    def __init__(self, program: Program, axes: Axes, expansion: Expansion) -> None:
        self.program, self.axes, self.expansion = program, axes, expansion
        self.of: dict[tuple[str, int], Slots] = {}
        """Tensor and axis -> its variables."""
        self.count = 0
        self.of_leaf: dict[int, list[int]] = {}
        """Leaf -> its variables that stand for occurrences."""
        self._firsts: list[int] = []
        self._owners: list[tuple[str, int, Pattern]] = []
        """The axes that have variables, in the order of these, of which each has the first here."""
        self.held = frozenset(
            x for n in (*program.weights, *program.affines) for f in axes.of[n] for x in axes.factors.leaves(f)
        )
        """The leaves of weights: nothing is asked of others."""
        self.contractions: dict[int, Contraction] = {}
        self.meetings: dict[int, list[Meeting]] = {}
        self.pairs: dict[int, Ties] = {}
        """What is found of a step, by its identity."""
        self.alike = Ties([], [])
        """What numbers that are stored more than once ask for, so that they stay the same."""
        self._concerned: dict[Pattern, bool] = {}
        self.offsets = offsets(program)
        """Constants that a bias takes along, by the identity of the sum."""

    def slots(self, name: str, axis: int) -> Slots:
        """The variables of one axis."""
        key = (name, axis)
        found = self.of.get(key)
        if found is None:
            pattern = self.expansion.pattern(self.axes.of[name][axis])
            found = self.of[key] = self.fresh(pattern)
            if pattern.flat:
                self._firsts.append(found.first)
                self._owners.append((name, axis, pattern))
                for v, leaf in enumerate(pattern.flat, found.first):
                    self.of_leaf.setdefault(leaf, []).append(v)
        return found

    def owner(self, v: int) -> tuple[str, int, Pattern, int] | None:
        """Tensor, axis, pattern and number there of the occurrence that a variable stands for; None of a label's."""
        place = bisect_right(self._firsts, v) - 1
        name, axis, pattern = self._owners[place]
        number = v - self._firsts[place]
        return (name, axis, pattern, number) if number < len(pattern.flat) else None

    def fresh(self, pattern: Pattern) -> Slots:
        """New variables."""
        made = Slots(self.count, pattern)
        self.count += len(pattern.flat)
        return made

    def concerned(self, pattern: Pattern) -> bool:
        """Whether an axis holds a leaf of which anything is asked."""
        found = self._concerned.get(pattern)
        if found is None:
            found = self._concerned[pattern] = not self.held.isdisjoint(pattern.flat)
        return found


class Unknowns:
    """The equations between the variables of a program.

    Equations are kept for the leaves that may be asked for alone: those that a weight holds and on which something may
    act.
    """

    modulus: int | None = None
    """2 where a charge only says whether something acts."""
    elementwise = True
    """Whether units are acted on one by one, so that a gain per unit moves along."""

    def __init__(self, variables: Variables, only: Collection[int] | None = None) -> None:
        self.variables = variables
        self.program, self.axes, self.expansion = variables.program, variables.axes, variables.expansion
        self.factors = self.axes.factors
        program = self.program
        self.free: dict[str, None] = {}
        """Tensors of which every charge is free."""
        wanted = variables.held if only is None else variables.held.intersection(only)
        self.systems = {leaf: LinearSystem(self.modulus) for leaf in wanted if leaf not in self.factors.rigid}
        """Leaf -> its equations."""
        self._places: dict[Pattern, tuple[tuple[int, LinearSystem], ...]] = {}
        self.bound = {name for step in program.batch_norms for name in step.operands}
        for name in (*program.ends, *program.tables):
            if name not in program.nil:
                self.still(name)
        for loop in (loop for loop in program.loops if not loop.flows):
            for axis in range(len(program.shapes[loop.input])):
                self.balance(self.slots(loop.output, axis), [(self.slots(loop.input, axis), ONE)])
        for name in program.weights:
            self._weight(name)
        self.apply(variables.alike)

    def _weight(self, name: str) -> None:
        """A weight's charges are free, unless it is an integer, a statistic, or shared and not zero."""
        tensor = self.program.model.tensors[self.program.weights[name]]
        if not tensor.floating or name in self.program.tied:
            self.still(name)
        elif name not in self.bound:
            self._free(name)

    def _free(self, name: str) -> None:
        self.free[name] = None
        for axis in range(len(self.axes.of[name])):
            self.slots(name, axis)

    # -- variables ------------------------------------------------------------------------------------------------
    def slots(self, name: str, axis: int) -> Slots:
        """The variables of one axis."""
        return self.variables.slots(name, axis)

    def terms(self, name: str, axis: int) -> tuple[Term, ...]:
        """The terms of one axis of a tensor."""
        return self.expansion.terms(self.axes.of[name][axis])

    def _kept(self, pattern: Pattern) -> tuple[tuple[int, LinearSystem], ...]:
        """The places of a pattern of which equations are kept, with the system of each."""
        found = self._places.get(pattern)
        if found is None:
            systems = self.systems
            found = tuple((k, systems[leaf]) for k, leaf in enumerate(pattern.flat) if leaf in systems)
            self._places[pattern] = found
        return found

    # -- equations ------------------------------------------------------------------------------------------------
    def tie(self, v: int, w: int, leaf: int) -> None:
        """Two variables of a leaf are equal."""
        if leaf in self.systems:
            self.systems[leaf].equalities.append((v, w))

    def opposed(self, v: int, w: int, system: LinearSystem) -> None:
        """Two variables add up to nothing."""
        system.add({v: 1, w: 1} if v != w else {v: 2})

    def tied(self, out: Slots, x: Slots) -> None:
        """Two axes are acted on alike."""
        a, b = out.first, x.first
        for k, system in self._kept(x.pattern):
            system.equalities.append((b + k, a + k))

    def zero(self, slots: Slots) -> None:
        """Nothing may be scaled here."""
        first = slots.first
        for k, system in self._kept(slots.pattern):
            system.zeros.append(first + k)

    def apply(self, ties: Ties) -> None:
        """What holds whatever acts."""
        for v, w, leaf in ties.equal:
            self.tie(v, w, leaf)
        for v, leaf in ties.zero:
            if leaf in self.systems:
                self.systems[leaf].zeros.append(v)

    def still(self, name: str) -> None:
        """No axis of a tensor may be scaled."""
        for axis in range(len(self.axes.of.get(name, ()))):
            self.zero(self.slots(name, axis))

    def balance(self, out: Slots | None, parts: Sequence[tuple[Slots, Fraction]]) -> None:
        """Slot by slot: the output's charge is the weighted sum of the parts' (zero where there is no output)."""
        rows = [slots for slots, _ in parts] if out is None else [*(slots for slots, _ in parts), out]
        if not rows:
            return
        pattern = rows[0].pattern
        if any(slots.pattern is not pattern for slots in rows):
            for slots in rows:
                self.zero(slots)
            return
        if len(parts) == 1 and parts[0][1] == 1:
            if out is None:
                self.zero(parts[0][0])
            else:
                self.tied(out, parts[0][0])
            return
        if out is None and len(parts) == 2 and parts[0][1] == parts[1][1] == 1:
            a, b = parts[0][0].first, parts[1][0].first
            for k, system in self._kept(pattern):
                self.opposed(a + k, b + k, system)
            return
        weights: list[Number] = [c.numerator if c.denominator == 1 else c for _, c in parts]
        firsts = [slots.first for slots, _ in parts]
        if out is not None:
            weights.append(-1)
            firsts.append(out.first)
        for k, system in self._kept(pattern):
            self._weighted([(first + k, c) for first, c in zip(firsts, weights, strict=True)], system)

    def _weighted(self, terms: Iterable[tuple[int, Number]], system: LinearSystem) -> None:
        row: dict[int, Number] = {}
        for v, c in terms:
            row[v] = row[v] + c if v in row else c
        system.add(row)

    # -- solutions ------------------------------------------------------------------------------------------------
    def solve(self) -> dict[int, list[Charge]]:
        """The generators of every leaf that move at least one weight."""
        found: dict[int, list[Charge]] = {}
        for leaf in self._order():
            solutions = self.systems[leaf].solve(self.variables.of_leaf[leaf])
            moved: list[Charge] = [{o: c for v, c in s.items() if (o := self.occurrence(v))} for s in solutions]
            moving = [charge for charge in moved if any(o.tensor in self.free for o in charge)]
            if moving:
                found[leaf] = moving
        return found

    def occurrence(self, v: int) -> Occurrence | None:
        """What a variable stands for; None where it is one of a label of a contraction."""
        owner = self.variables.owner(v)
        if owner is None:
            return None
        name, axis, pattern, k = owner
        t = len(pattern.starts) - 1
        while pattern.starts[t] > k or not pattern.leaves[t]:
            t -= 1
        return Occurrence(name, axis, t, k - pattern.starts[t])

    def _order(self) -> list[int]:
        """The leaves to be solved, in the order of their numbers as a set holds them."""
        free: set[int] = set()
        leaf_of: dict[int, int] = {}
        for name in self.free:
            for axis in range(len(self.axes.of[name])):
                first, pattern = self.slots(name, axis)
                leaf_of.update(enumerate(pattern.flat, first))
                free.update(range(first, first + len(pattern.flat)))
        return [leaf for leaf in {leaf_of[v] for v in free} if leaf in self.systems]

    def once(self, name: str) -> bool:
        """Whether a tensor is a weight that one step alone reads, and not shared."""
        return name in self.program.weights and name not in self.program.detached and self.program.reads[name] == 1
