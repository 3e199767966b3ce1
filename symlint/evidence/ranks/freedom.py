"""What of a product a translation may change at will: rows of its factors that mean nothing.

A key bias shifts all scores alike, a value bias can be taken over by the bias of the output, and the null direction of
a norm is never seen. Such a change of a factor A (rows over the units) is ``w a^T``, with one fixed column w and any a:
only what is left of A without w can be observed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, reduce

import numpy as np

from symlint.model.graph import Array
from symlint.program.numbers import Numbers
from symlint.symmetry.motion.action import Stand
from symlint.symmetry.structure import Action, Structure
from symlint.symmetry.translation.course import Translation
from symlint.symmetry.translation.element import factors


@dataclass(frozen=True)
class Freedom:
    """The translations of one network."""

    structure: Structure

    @cached_property
    def _by_weight(self) -> dict[str, list[Translation]]:
        found: dict[str, list[Translation]] = {}
        for action in self.structure.actions.values():
            if action.translation is not None:
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
        """Changes of weights, one random element for each translation that is free along the units of a product.

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
        for k, translation in enumerate(self._along(stands)):
            size = np.random.default_rng(k).standard_normal(translation.shape)
            yield list(factors(translation, numbers, size))

    def touched(self, stands: Mapping[str, Collection[Stand]]) -> frozenset[str]:
        """The weights of the program that those changes change."""
        found = list(self._along(stands))
        return frozenset({t.weight for t in found} | {way.weight for t in found for way in t.absorbers})

    def _along(self, stands: Mapping[str, Collection[Stand]]) -> Iterator[Translation]:
        for name, places in stands.items():
            for translation in self._by_weight.get(name, ()):
                if any(_free(translation, stand) for stand in places):
                    yield translation


def _free(translation: Translation, stand: Stand) -> bool:
    """Whether every unit of an occurrence may change on its own."""
    classes = translation.wave.classes[stand.axis][stand.grid]
    return bool(classes.min() >= 0) and len(np.unique(classes)) == classes.size
