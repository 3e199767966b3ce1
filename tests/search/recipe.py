"""A recipe of a random network: everything that it is made from, as a line of JSON, and smaller recipes beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

PLAIN = 17
"""The opset that most networks are written in."""


@dataclass(frozen=True, slots=True)
class Part:
    """One block of a network: its name in the grammar, what it draws its sizes from, and the blocks inside it."""

    name: str
    seed: int
    inside: tuple[tuple[Part, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Recipe:
    """A network: ``build`` makes the same one each time."""

    entry: str
    """Layout of the input."""
    parts: tuple[Part, ...]
    seed: int
    """Draws the weights."""
    dtype: str = "float32"
    opset: int = PLAIN
    habits: tuple[str, ...] = ()
    """What the exporter does in its own way, in alphabetical order."""

    def __str__(self) -> str:
        told = [self.entry, self.seed, self.dtype, self.opset, list(self.habits), [_told(p) for p in self.parts]]
        return json.dumps(told)

    @property
    def size(self) -> int:
        """What shrinking lessens."""
        plain = (self.dtype != "float32") + (self.opset != PLAIN) + len(self.habits)
        return 100 * _count(self.parts) + plain

    def smaller(self) -> Iterator[Recipe]:
        """Recipes with one thing less, the largest steps first."""
        for parts in _fewer(self.parts):
            yield replace(self, parts=parts)
        for habit in self.habits:
            yield replace(self, habits=tuple(h for h in self.habits if h != habit))
        if self.dtype != "float32":
            yield replace(self, dtype="float32")
        if self.opset != PLAIN:
            yield replace(self, opset=PLAIN)


def read(line: str) -> Recipe:
    """The recipe of a line."""
    entry, seed, dtype, opset, habits, parts = json.loads(line)
    return Recipe(entry, tuple(_part(*p) for p in parts), seed, dtype, opset, tuple(habits))


def _told(part: Part) -> list[Any]:
    return [part.name, part.seed, *([_told(p) for p in branch] for branch in part.inside)]


def _part(name: str, seed: int, *inside: list[Any]) -> Part:
    return Part(name, seed, tuple(tuple(_part(*p) for p in branch) for branch in inside))


def _count(parts: tuple[Part, ...]) -> int:
    return sum(1 + sum(_count(branch) for branch in part.inside) for part in parts)


def _fewer(parts: tuple[Part, ...]) -> Iterator[tuple[Part, ...]]:
    """Halves, then all but one, what is inside one in its place, and less inside one."""
    if len(parts) > 2:
        middle = len(parts) // 2
        yield parts[middle:]
        yield parts[:middle]
    for k, part in enumerate(parts):
        before, after = parts[:k], parts[k + 1 :]
        yield (*before, *after)
        for branch in part.inside:
            yield (*before, *branch, *after)
        for i, branch in enumerate(part.inside):
            for less in _fewer(branch):
                inside = (*part.inside[:i], less, *part.inside[i + 1 :])
                yield (*before, replace(part, inside=inside), *after)
