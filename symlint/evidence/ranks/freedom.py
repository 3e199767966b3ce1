"""What of a product a translation may change at will: rows of its factors that mean nothing.

A key bias shifts all scores alike, a value bias can be taken over by the bias of the output, and the null direction of
a norm is never seen. Such a change of a factor A (rows over the units) is ``w a^T``, with a fixed column w and any a:
only what is left of A without w can be observed. A shift that may differ along an axis beside the units, as that of
keys which have a weight for each position, has a column for each place of it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property, reduce
from itertools import product
from typing import Any

import numpy as np

from symlint.model.graph import Array
from symlint.model.records import dataclass
from symlint.program.numbers import Numbers
from symlint.symmetry.motion.action import Stand
from symlint.symmetry.structure import Action, Structure
from symlint.symmetry.translation.course import Translation
from symlint.symmetry.translation.element import factors

COLUMNS = 64
"""Columns of one translation that are told apart: what has more is taken for one by which everything may change."""


@dataclass(frozen=True)
class Freedom:
    """The translations of one network."""

    structure: Structure

    @cached_property
    def _by_weight(self) -> dict[str, list[Translation]]:
        found: dict[str, list[Translation]] = {}
        for action in self.structure.shifts:
            found.setdefault(action.translation.weight, []).append(action.translation)
        return found

    @cached_property
    def loose(self) -> frozenset[str]:
        """The weights that may become anything, as others take over whatever they are."""
        return frozenset(n for n, found in self._by_weight.items() if any(t.full for t in found))

    def meaningless(self, action: Action) -> bool:
        """Whether all that one side of a linear space is made of may become anything: nothing is seen of the other."""
        held = [(o.tensor, c) for o, c in action.charge.items() if o.tensor in self.structure.program.weights]
        sides = [{name for name, c in held if c * sign > 0} for sign in (1, -1)]
        return any(side and side <= self.loose for side in sides)

    def of(self, stands: Mapping[str, Collection[Stand]]) -> list[dict[str, Array]]:
        """Changes of weights, random elements of each translation that is free along the units of a product.

        Args:
            stands: weight of the program -> where the units are in it.
        """
        shapes, found = self.structure.program.shapes, list[dict[str, Array]]()
        for element in self.factors(stands):
            change: dict[str, Array] = {}
            for moved, parts in element:
                change[moved] = change.get(moved, 0.0) + np.broadcast_to(reduce(np.multiply, parts), shapes[moved])
            found.append(change)
        return found

    def factors(self, stands: Mapping[str, Collection[Stand]]) -> Iterator[list[tuple[str, tuple[Array, ...]]]]:
        """The same changes as they come, several of one weight perhaps: the product of arrays that broadcast."""
        program = self.structure.program
        numbers = Numbers(program, lambda n: program.model.tensors[program.weights[n]].read())
        for k, (translation, axis) in enumerate(self._along(stands)):
            size = np.random.default_rng(k).standard_normal(translation.shape)
            beside: list[Sequence[Any]] = [range(n) if j != axis else [slice(None)] for j, n in enumerate(size.shape)]
            if translation.full or translation.dimension > COLUMNS * size.shape[axis]:
                beside = [[slice(None)]] * size.ndim
            for place in product(*beside):
                part = np.zeros_like(size)
                part[place] = size[place]
                yield list(factors(translation, numbers, part))

    def touched(self, stands: Mapping[str, Collection[Stand]]) -> frozenset[str]:
        """The weights of the program that those changes change."""
        found = [translation for translation, _ in self._along(stands)]
        return frozenset({t.weight for t in found} | {way.weight for t in found for way in t.absorbers})

    def _along(self, stands: Mapping[str, Collection[Stand]]) -> Iterator[tuple[Translation, int]]:
        """The translations that are free along the units, with the axis of these."""
        for name, places in stands.items():
            for translation in self._by_weight.get(name, ()):
                axes = [stand.axis for stand in places if _free(translation, stand)]
                if axes:
                    yield translation, axes[0]


def _free(translation: Translation, stand: Stand) -> bool:
    """Whether every unit of an occurrence may change on its own, at each place beside it or at several alike."""
    classes = np.moveaxis(translation.wave.classes[stand.axis][stand.grid], stand.place, -1)
    ordered = np.sort(classes.reshape(-1, classes.shape[-1]), axis=1)
    return bool(ordered.min() >= 0) and bool((np.diff(ordered, axis=1) > 0).all())
