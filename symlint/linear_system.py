"""Exact solutions of a sparse homogeneous linear system over the rationals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from fractions import Fraction
from math import gcd, lcm

Equation = Mapping[int, Fraction]
Solution = dict[int, Fraction]


def nullspace(equations: Iterable[Equation], wanted: Iterable[int]) -> list[Solution]:
    """A basis of the solutions, restricted to the `wanted` variables; those that vanish there are left out.

    Equalities of two variables are merged first, so that long chains cost next to nothing; the rest is eliminated with
    the rarest variable of each equation as its pivot.
    """
    merged = _Classes()
    rest: list[dict[int, Fraction]] = []
    for equation in equations:
        pair = list(equation.items())
        if len(pair) == 2 and pair[0][1] == -pair[1][1]:
            merged.join(pair[0][0], pair[1][0])
        else:
            rest.append(dict(equation))
    pivots = _eliminate([merged.reduce(equation) for equation in rest])
    columns: dict[int, Solution] = {}
    for variable in wanted:
        for free, value in _value(merged.find(variable), pivots).items():
            columns.setdefault(free, {})[variable] = value
    return [_whole(solution) for _, solution in sorted(columns.items())]


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

    def reduce(self, equation: Mapping[int, Fraction]) -> dict[int, Fraction]:
        made: dict[int, Fraction] = {}
        for v, c in equation.items():
            root = self.find(v)
            made[root] = made.get(root, Fraction(0)) + c
        return {v: c for v, c in made.items() if c}


def _eliminate(equations: list[dict[int, Fraction]]) -> dict[int, dict[int, Fraction]]:
    """Pivot -> its value in other variables, which are pivots of later rows or free."""
    seen = Counter(v for equation in equations for v in equation)
    pivots: dict[int, dict[int, Fraction]] = {}
    for equation in sorted(equations, key=len):
        row = _substitute(equation, pivots)
        if row:
            pivot = min(row, key=lambda v: (seen[v], v))
            scale = -row.pop(pivot)
            pivots[pivot] = {v: c / scale for v, c in row.items()}
    return pivots


def _substitute(row: Mapping[int, Fraction], pivots: Mapping[int, Mapping[int, Fraction]]) -> dict[int, Fraction]:
    made: dict[int, Fraction] = {}
    todo = list(row.items())
    while todo:
        v, c = todo.pop()
        if v in pivots:
            todo.extend((w, c * d) for w, d in pivots[v].items())
        else:
            made[v] = made.get(v, Fraction(0)) + c
    return {v: c for v, c in made.items() if c}


def _value(variable: int, pivots: dict[int, dict[int, Fraction]]) -> Mapping[int, Fraction]:
    """A variable in free variables; remembered, so that chains of pivots are walked once."""
    if variable not in pivots:
        return {variable: Fraction(1)}
    pivots[variable] = _substitute(pivots[variable], pivots)
    return pivots[variable]


def _whole(solution: Solution) -> Solution:
    """The same direction in the smallest whole numbers."""
    scale = lcm(*(value.denominator for value in solution.values()))
    divisor = gcd(*(int(value * scale) for value in solution.values()))
    return {v: c * scale / divisor for v, c in solution.items()}
