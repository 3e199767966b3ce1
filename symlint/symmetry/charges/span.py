"""Spans of sparse rows: which rows add to them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import Generic, TypeVar

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
