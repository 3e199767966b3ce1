"""Patterns: the changes of a weight that its axes suggest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from symlint.program.steps import Program
from symlint.symmetry.axes.terms import Expansion, Term
from symlint.symmetry.axes.walk import Axes
from symlint.symmetry.translation.wave import Kind, Partition, Wave, each, numbered, same

MANY = 64
"""Parts of an axis beyond which they are not tried one by one."""


class Patterns:
    """The patterns of the weights of one program; weights whose axes are one factor share those of the axis."""

    def __init__(self, program: Program, axes: Axes, expansion: Expansion) -> None:
        self.program, self.axes, self.expansion = program, axes, expansion
        self._along: dict[tuple[int, int], tuple[Partition, ...]] = {}

    def of(self, name: str) -> Iterator[Wave]:
        """Any change; then one of a part of an axis, or the same along an axis, a part or a factor of it."""
        shape = self.program.shapes[name]
        full = tuple(map(each, shape))
        yield anything(self.program, name)
        for axis, f in enumerate(self.axes.of[name]):
            for option in self._options(f, shape[axis]) if shape[axis] != 1 else ():
                yield Wave(Kind.CONSTANT, (*full[:axis], option, *full[axis + 1 :]), exact=True)

    def least(self, name: str) -> Wave | None:
        """The change that is one number: it is of every pattern, and where it cannot be followed none of them can.

        None where an axis has parts, of which one may change alone, and where there is but one element.
        """
        shape = self.program.shapes[name]
        if all(n == 1 for n in shape) or any(len(self.expansion.terms(f)) > 1 for f in self.axes.of[name]):
            return None
        return Wave(Kind.CONSTANT, tuple(map(same, shape)), exact=True)

    def _options(self, f: int, size: int) -> tuple[Partition, ...]:
        """The classes that an axis suggests, but for one class for each index."""
        root = self.axes.factors.find(f)
        if (root, size) not in self._along:
            terms = self.expansion.terms(root)
            options: list[Partition] = []
            for term in terms if len(terms) <= MANY else ():
                for level in _levels(term.positions.ndim):
                    grid = np.arange(term.positions.size).reshape(term.positions.shape)
                    for at in level:
                        grid = np.broadcast_to(grid.take([0], axis=at), grid.shape)
                    line = np.full(size, -1)
                    line[term.positions] = grid
                    options.append(Partition(numbered(line)))
                if len(terms) > 1:
                    line = np.full(size, -1)
                    line[term.positions] = 0
                    options.append(Partition(line))
            options += self._repeated(terms, size) if len(terms) <= MANY else ()
            options.append(same(size))
            self._along[root, size] = tuple(p for p in dict.fromkeys(options) if p != each(size))
        return self._along[root, size]

    @staticmethod
    def _repeated(terms: Sequence[Term], size: int) -> Iterator[Partition]:
        """The same change in all parts that hold the same units, as the places of a window do."""
        alike: dict[tuple[int, ...], list[Term]] = {}
        for term in terms:
            alike.setdefault(term.leaves, []).append(term)
        for several in alike.values():
            if len(several) > 1 and len({term.positions.shape for term in several}) == 1:
                line = np.full(size, -1)
                for term in several:
                    line[term.positions] = np.arange(term.positions.size).reshape(term.positions.shape)
                yield Partition(numbered(line))


def _levels(rank: int) -> list[tuple[int, ...]]:
    """Along which factors of a term a change may be the same: none, one, or all but one."""
    ones: list[tuple[int, ...]] = [(k,) for k in range(rank)] if rank > 1 else []
    others = [tuple(j for j in range(rank) if j != k) for k in range(rank)] if rank > 2 else []
    return [(), *ones, *others]


def anything(program: Program, name: str) -> Wave:
    """Any change of a weight."""
    return Wave(Kind.CONSTANT, tuple(map(each, program.shapes[name])), exact=True)
