"""Blocks: a network's layers as a map, a row for each module that repeats."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from symlint.lint.finding import Level

_ROWS = 1000
"""Rows of a map that are shown."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A cell of the map."""

    name: str
    parameters: int
    level: Level | None
    """The highest of the findings that speak of it."""
    target: str
    """The anchor of what is told of it; empty for none."""


@dataclass(frozen=True, slots=True)
class Block:
    """A row of the map."""

    name: str
    layers: tuple[Layer, ...]

    @property
    def parameters(self) -> int:
        """Of all its layers."""
        return sum(layer.parameters for layer in self.layers)


@dataclass(frozen=True, slots=True)
class Map:
    """What is shown of a network's blocks."""

    rows: tuple[Block, ...]
    narrow: int
    """Blocks that are left out."""

    @property
    def widest(self) -> int:
        """The parameters of the largest block."""
        return max((row.parameters for row in self.rows), default=0) or 1


def drawn(sizes: Sequence[tuple[str, int]], found: Mapping[str, tuple[Level | None, str]]) -> Map:
    """The map of a network, of at most as many rows as a page holds; the arguments are those of `blocks`."""
    every = blocks(sizes, found)
    return Map(tuple(largest(every, _ROWS)), max(len(every) - _ROWS, 0))


def largest(rows: Sequence[Block], count: int) -> list[Block]:
    """So many rows in their order: those of which findings speak first, then those with most parameters."""
    order = sorted(rows, key=lambda row: (all(layer.level is None for layer in row.layers), -row.parameters))
    kept = {row.name for row in order[:count]}
    return [row for row in rows if row.name in kept]


def blocks(sizes: Sequence[tuple[str, int]], found: Mapping[str, tuple[Level | None, str]]) -> list[Block]:
    """The rows of the map.

    Args:
        sizes: layers with their parameters, in order.
        found: layer -> the highest level of its findings, None for none, and the anchor of what is told of it.
    """
    rows: dict[str, list[Layer]] = {}
    for name, parameters in sizes:
        level, target = found.get(name, (None, ""))
        rows.setdefault(block(name), []).append(Layer(name, parameters, level, target))
    return [Block(name, tuple(layers)) for name, layers in rows.items()]


def block(layer: str) -> str:
    """The module that a layer is of: up to the first number, as in ``encoder.layer.0``, else the layer itself.

    >>> block("encoder.layer.0.attention.query"), block("conv1")
    ('encoder.layer.0', 'conv1')
    """
    found = re.match(r"(?:[^./]+[./])*?\d+(?=[./])", layer.lstrip("/"))
    return found[0] if found else layer
