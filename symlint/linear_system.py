"""Exact solutions of a sparse homogeneous linear system over the rationals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from fractions import Fraction
from math import gcd, lcm

Equation = Mapping[int, Fraction]
Solution = dict[int, Fraction]


def nullspace(equations: Iterable[Equation], wanted: Iterable[int], modulus: int | None = None) -> list[Solution]:
    """A basis of the solutions, restricted to the `wanted` variables; those that vanish there are left out.

    Equalities of two variables are merged first, so that long chains cost next to nothing; the rest is eliminated with
    the rarest variable of each equation as its pivot.

    With the `modulus` 2 coefficients are whole numbers counted modulo 2.
    """
    return _System(modulus).solve(equations, wanted)


PARITY = (Fraction(0), Fraction(1))


class _System:
    """Elimination over the rationals, or modulo 2."""

    def __init__(self, modulus: int | None) -> None:
        self.modulus = modulus
        self.pivots: dict[int, dict[int, Fraction]] = {}

    def solve(self, equations: Iterable[Equation], wanted: Iterable[int]) -> list[Solution]:
        merged = _Classes()
        rest: list[Equation] = []
        for equation in map(self.tidy, equations):
            pair = list(equation.items())
            if len(pair) == 2 and not self.number(pair[0][1] + pair[1][1]):
                merged.join(pair[0][0], pair[1][0])
            else:
                rest.append(equation)
        self.eliminate([self.tidy(merged.reduce(equation)) for equation in rest])
        columns: dict[int, Solution] = {}
        for variable in wanted:
            for free, value in self.value(merged.find(variable)).items():
                columns.setdefault(free, {})[variable] = value
        return [_whole(solution) for _, solution in sorted(columns.items())]

    def number(self, c: Fraction) -> Fraction:
        """A coefficient in the field."""
        return c if self.modulus is None else PARITY[c.numerator % 2]

    def tidy(self, row: Equation) -> dict[int, Fraction]:
        """A row without zeros."""
        return {v: d for v, c in row.items() if (d := self.number(c))}

    def eliminate(self, equations: list[dict[int, Fraction]]) -> None:
        """Find for each pivot its value in other variables, which are pivots of later rows or free."""
        seen = Counter(v for equation in equations for v in equation)
        for equation in sorted(equations, key=len):
            row = self.substitute(equation)
            if row:
                pivot = min(row, key=lambda v: (seen[v], v))
                scale = -row.pop(pivot)
                self.pivots[pivot] = self.tidy({v: c / scale for v, c in row.items()})

    def substitute(self, row: Equation) -> dict[int, Fraction]:
        """A row without pivots."""
        made: dict[int, Fraction] = {}
        todo = list(row.items())
        while todo:
            v, c = todo.pop()
            if v in self.pivots:
                todo.extend((w, c * d) for w, d in self.pivots[v].items())
            else:
                made[v] = made[v] + c if v in made else c
        return self.tidy(made)

    def value(self, variable: int) -> Equation:
        """A variable in free variables; remembered, so that chains of pivots are walked once."""
        if variable not in self.pivots:
            return {variable: Fraction(1)}
        self.pivots[variable] = self.substitute(self.pivots[variable])
        return self.pivots[variable]


class _Classes:
    """Variables known to be equal."""

    def __init__(self) -> None:
        self._parent: dict[int, int] = {}

    def find(self, v: int) -> int:
        root = v
        while (up := self._parent.get(root, root)) != root:
            root = up
        while v != root:
            self._parent[v], v = root, self._parent.get(v, v)
        return root

    def join(self, a: int, b: int) -> None:
        a, b = self.find(a), self.find(b)
        if a != b:
            self._parent[max(a, b)] = min(a, b)

    def reduce(self, equation: Equation) -> dict[int, Fraction]:
        made: dict[int, Fraction] = {}
        for v, c in equation.items():
            root = self.find(v)
            made[root] = made[root] + c if root in made else c
        return made


def _whole(solution: Solution) -> Solution:
    """The same direction in the smallest whole numbers."""
    scale = lcm(*(value.denominator for value in solution.values()))
    divisor = gcd(*(int(value * scale) for value in solution.values()))
    return solution if scale == divisor == 1 else {v: c * scale / divisor for v, c in solution.items()}
