"""Exact solutions of a sparse homogeneous linear system over the rationals, or modulo 2.

Spans of sparse rows: which rows add to them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from math import gcd, lcm
from typing import Generic, TypeVar

Number = int | Fraction
Equation = Mapping[int, Number]
Solution = dict[int, Fraction]


def nullspace(equations: Iterable[Equation], wanted: Iterable[int], modulus: int | None = None) -> list[Solution]:
    """A basis of the solutions, restricted to the `wanted` variables; those that vanish there are left out.

    With the `modulus` 2 coefficients are whole numbers counted modulo 2.
    """
    system = LinearSystem(modulus)
    for equation in equations:
        system.add(equation)
    return system.solve(wanted)


class LinearSystem:
    """Elimination over the rationals, or modulo 2.

    Equalities of two variables are merged first, so that long chains cost next to nothing; what is zero leaves the
    other equations; the rest is eliminated with the rarest variable of each equation as its pivot. Nearly all
    coefficients are one or minus one, so whole numbers stay integers and only others become fractions.
    """

    def __init__(self, modulus: int | None = None) -> None:
        self.modulus = modulus
        self.zeros: list[int] = []
        """Variables that are zero."""
        self.equalities: list[tuple[int, int]] = []
        """Pairs of variables that are equal."""
        self._rows: list[dict[int, Number]] = []
        self._parent: dict[int, int] = {}
        self._pivots: dict[int, dict[int, Number]] = {}

    def add(self, equation: Equation) -> None:
        """One equation: the weighted sum of variables is zero."""
        row = self._tidy(equation)
        if len(row) == 1:
            self.zeros += row
        elif len(row) == 2 and not self._number(sum(row.values())):
            first, second = row
            self.equalities.append((first, second))
        elif row:
            self._rows.append(row)

    def solve(self, wanted: Iterable[int]) -> list[Solution]:
        """A basis of the solutions, restricted to the `wanted` variables, in the smallest whole numbers."""
        self._merge()
        find = self._find
        zeros = set(map(find, self.zeros))
        self._eliminate(zeros)
        columns: dict[int, dict[int, Number]] = {}
        for variable in wanted:
            root = find(variable)
            if root in zeros:
                continue
            pivot = self._pivots.get(root)
            if pivot is None:
                columns.setdefault(root, {})[variable] = 1
            else:
                for free, value in pivot.items():
                    columns.setdefault(free, {})[variable] = value
        return [_whole(columns[free]) for free in sorted(columns)]

    # -- numbers --------------------------------------------------------------------------------------------------
    def _number(self, c: Number) -> Number:
        """A coefficient in the field."""
        return c if self.modulus is None else c.numerator % 2

    def _tidy(self, row: Equation) -> dict[int, Number]:
        """A row without zeros."""
        if self.modulus is None:
            return {v: c for v, c in row.items() if c}
        return {v: 1 for v, c in row.items() if c.numerator % 2}

    # -- equalities -----------------------------------------------------------------------------------------------
    def _merge(self) -> None:
        find, parent = self._find, self._parent
        for v, w in self.equalities:
            a, b = find(v), find(w)
            if a < b:
                parent[b] = a
            elif b < a:
                parent[a] = b

    def _find(self, v: int) -> int:
        """The first of the variables that equal `v`."""
        parent = self._parent
        root = v
        while (up := parent.get(root)) is not None:
            root = up
        while v != root:
            parent[v], v = root, parent[v]
        return root

    # -- elimination ----------------------------------------------------------------------------------------------
    def _eliminate(self, zeros: set[int]) -> None:
        """Find for each pivot its value in free variables; roots that prove to be zero are added to `zeros`."""
        rows = [row for equation in self._rows if (row := self._reduced(equation))]
        seen = Counter(v for row in rows for v in row)
        rows.sort(key=len)
        for equation in rows:
            if len(equation) == 1:
                zeros.update(equation)
                continue
            row = self._substituted({v: c for v, c in equation.items() if v not in zeros})
            if row:
                pivot = min(row, key=lambda v: (seen[v], v))
                scale = row.pop(pivot)
                self._pivots[pivot] = {v: _quotient(-c, scale) for v, c in row.items()}
        # The value of a pivot holds pivots of later rows alone, so from the last to the first each is walked once.
        for pivot in reversed(self._pivots):
            self._pivots[pivot] = self._substituted(self._pivots[pivot])

    def _reduced(self, equation: Equation) -> dict[int, Number]:
        """A row in which equal variables are one."""
        made: dict[int, Number] = {}
        for v, c in equation.items():
            root = self._find(v)
            made[root] = made[root] + c if root in made else c
        return self._tidy(made)

    def _substituted(self, row: dict[int, Number]) -> dict[int, Number]:
        """A row without pivots."""
        pivots = self._pivots
        if pivots.keys().isdisjoint(row):
            return self._tidy(row)
        made: dict[int, Number] = {}
        todo = list(row.items())
        while todo:
            v, c = todo.pop()
            if v in pivots:
                todo.extend((w, c * d) for w, d in pivots[v].items())
            else:
                made[v] = made[v] + c if v in made else c
        return self._tidy(made)


def _quotient(a: Number, b: Number) -> Number:
    return a if b == 1 else -a if b == -1 else Fraction(a) / b


_SMALL = {c: Fraction(c) for c in range(-4, 5)}


LARGEST = 8
"""Largest whole power: a factor of three to the tenth would leave the numbers of float16, to the hundredth all."""


def _whole(solution: Mapping[int, Number]) -> Solution:
    """The same direction in the smallest whole numbers; where these are large, with a largest of one."""
    scale = lcm(*(value.denominator for value in solution.values()))
    divisor = gcd(*(int(value * scale) for value in solution.values()))
    largest = abs(Fraction(solution[max(solution, key=lambda v: abs(float(solution[v])))]))
    if largest * scale > LARGEST * divisor:
        return {v: Fraction(c) / largest for v, c in solution.items()}
    if scale == divisor == 1:
        return {v: _SMALL.get(int(c)) or Fraction(c) for v, c in solution.items()}
    return {v: Fraction(c * scale) / divisor for v, c in solution.items()}


K = TypeVar("K", bound=Hashable)

PRIME = 2**61 - 1
"""Rows are reduced modulo this prime: exact, and rows of small numbers that depend on each other by it do so anyway."""


def independent(rows: Sequence[Mapping[K, Fraction]], known: Sequence[Mapping[K, Fraction]]) -> Iterator[int]:
    """The numbers of those rows that are in the span neither of the known ones nor of the rows before them."""
    span = _Span(Counter(column for row in (*known, *rows) for column in row))
    for row in sorted(known, key=len):
        span.add(row)
    for k, row in enumerate(rows):
        if span.add(row):
            yield k


class _Span(Generic[K]):
    """Rows in echelon form; the pivot of each is the column that fewest rows have, so that they stay short."""

    def __init__(self, times: Mapping[K, int]) -> None:
        self.times = times
        self.pivots: dict[K, dict[K, int]] = {}

    def add(self, row: Mapping[K, Fraction]) -> bool:
        """Whether a row was not in the span."""
        rest = {c: v.numerator * pow(v.denominator, -1, PRIME) % PRIME for c, v in row.items() if v}
        waiting = [column for column in rest if column in self.pivots]
        while waiting:
            column = waiting.pop()
            factor = rest.get(column, 0)
            if not factor:
                continue
            for other, value in self.pivots[column].items():
                if other != column and other in self.pivots:
                    waiting.append(other)
                rest[other] = (rest.get(other, 0) - factor * value) % PRIME
        rest = {column: value for column, value in rest.items() if value}
        if not rest:
            return False
        pivot = min(rest, key=lambda column: self.times[column])
        inverse = pow(rest[pivot], -1, PRIME)
        self.pivots[pivot] = {column: value * inverse % PRIME for column, value in rest.items()}
        return True
