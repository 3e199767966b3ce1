"""Patterns: the changes of a weight that its axes suggest."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from symlint.axes import Axes
from symlint.program import Program
from symlint.terms import Expansion
from symlint.translation.wave import Classes, Kind, Wave, numbered, same

MANY = 64
"""Parts of an axis beyond which they are not tried one by one."""


def patterns(program: Program, axes: Axes, expansion: Expansion, name: str) -> Iterator[Wave]:
    """Any change; then one of a part of an axis, or the same along an axis, a part or a factor of it."""
    shape = program.shapes[name]
    full = [np.arange(n) for n in shape]
    yield anything(program, name)
    for axis, f in enumerate(axes.of[name]):
        if shape[axis] == 1:
            continue
        seen: set[bytes] = {full[axis].tobytes()}
        terms = expansion.terms(f)
        options: list[Classes] = []
        for term in terms if len(terms) <= MANY else ():
            for level in _levels(term.positions.ndim):
                grid = np.arange(term.positions.size).reshape(term.positions.shape)
                for at in level:
                    grid = np.broadcast_to(grid.take([0], axis=at), grid.shape)
                line = np.full(shape[axis], -1)
                line[term.positions] = grid
                options.append(numbered(line))
            if len(terms) > 1:
                line = np.full(shape[axis], -1)
                line[term.positions] = 0
                options.append(line)
        options.append(same(shape[axis]))
        for option in options:
            if option.tobytes() not in seen:
                seen.add(option.tobytes())
                yield Wave(Kind.CONSTANT, (*full[:axis], option, *full[axis + 1 :]), exact=True)


def _levels(rank: int) -> list[tuple[int, ...]]:
    """Along which factors of a term a change may be the same: none, one, or all but one."""
    ones: list[tuple[int, ...]] = [(k,) for k in range(rank)] if rank > 1 else []
    others = [tuple(j for j in range(rank) if j != k) for k in range(rank)] if rank > 2 else []
    return [(), *ones, *others]


def anything(program: Program, name: str) -> Wave:
    """Any change of a weight."""
    return Wave(Kind.CONSTANT, tuple(np.arange(n) for n in program.shapes[name]), exact=True)
