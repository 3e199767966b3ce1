"""Pairs: two networks in one layout, that of the one which is moved."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cached_property

import numpy as np

from symlint.comparison.alignment.moves import Move
from symlint.comparison.matching import Matching
from symlint.model.graph import Array
from symlint.model.records import dataclass
from symlint.symmetry.motion.motion import Weights
from symlint.symmetry.structure import Structure

LESS = 1e-12
"""What brings two networks nearer by less than this, relative, brings them no nearer."""


@dataclass(frozen=True, eq=False)
class Pair:
    """The weights of two networks on their way, both in the structure of the second."""

    structure: Structure
    target: Weights
    """Those of the first network; what has no counterpart there is as in the second."""
    current: Weights
    """Those of the second."""
    known: frozenset[str]
    """The stored tensors that have a counterpart."""
    even: bool = False
    """Whether every matrix counts alike, and not every element: what two trainings share is no element of one."""

    @cached_property
    def uses(self) -> Mapping[str, str]:
        """Stored tensor with a counterpart -> the first weight of the program that it is."""
        program = self.structure.program
        found: dict[str, str] = {}
        for name, stored in program.weights.items():
            if stored in self.known and name not in program.detached:
                found.setdefault(stored, name)
        return found

    @cached_property
    def weigh(self) -> Mapping[str, float]:
        """Stored tensor -> so much a square of one of its elements counts.

        In units of the mean square of its elements, so that each says as much; `even` in those of the whole square, so
        that the widest matrix does not decide, with a vector as one of as many rows.
        """
        made = {}
        for stored, name in self.uses.items():
            sides = [side.get(name) for side in (self.target, self.current)]
            square = sum(float(np.mean(np.square(side, dtype=np.float64))) for side in sides) / 2
            count = sides[0].size
            if self.even and max(sides[0].shape, default=1) == count:
                count *= count
            made[stored] = 1.0 / (square * (count if self.even else 1)) if square else 0.0
        return made

    def apart(self, only: Collection[str] | None = None) -> float:
        """How far the two are apart, in all or some tensors: squares of differences, each relative to its tensor's."""
        names = self.uses if only is None else [s for s in self.uses if s in only]
        return sum(self.weigh[s] * float(np.sum(np.square(self._difference(s)))) for s in names)

    def tried(self, moves: Iterable[Move]) -> list[Move]:
        """Make moves of the second network, unless together they bring it no nearer: those that were made."""
        before, made = dict(self.current.now), list[Move]()
        for move in moves:
            move.apply(self.current)
            made.append(move)
        after = self.current.now
        touched = {s for s in after if after[s] is not before.get(s)}
        distance = self.apart(touched)
        self.current.now = before
        if made and distance < self.apart(touched) * (1 - LESS):
            self.current.now = after
            return made
        return []

    def _difference(self, stored: str) -> Array:
        name = self.uses[stored]
        return np.asarray(self.target.get(name).astype(np.float64) - self.current.get(name))

    def distances(self) -> Iterator[tuple[str, float, float]]:
        """Of every stored tensor with a counterpart the norm of the difference, and its own norm in the first."""
        for stored, name in self.uses.items():
            yield stored, float(np.linalg.norm(self._difference(stored))), float(np.linalg.norm(self.target.get(name)))

    def again(self, *, even: bool = False) -> Pair:
        """The same pair where it is, to be moved elsewhere."""
        sides = [Weights(self.structure, side.start) for side in (self.target, self.current)]
        for mine, side in zip(sides, (self.target, self.current), strict=True):
            mine.now = dict(side.now)
        return Pair(self.structure, sides[0], sides[1], self.known, even)


def paired(matching: Matching) -> Pair:
    """The networks of a matching: its old one is moved, its new one stands still."""
    structure = matching.old.context.structure
    tensors = structure.program.model.tensors
    target = {**dict(_constants(matching)), **dict(_counterparts(matching))}

    def start(stored: str) -> Array:
        return tensors[stored].read()

    def there(stored: str) -> Array:
        return target[stored] if stored in target else start(stored)

    return Pair(structure, Weights(structure, there), Weights(structure, start), frozenset(target))


def _counterparts(matching: Matching) -> Iterator[tuple[str, Array]]:
    """Stored tensor of the old network -> what it is in the new one, for those that are matched as a whole."""
    from symlint.comparison.changes import Pairs

    pairs = Pairs(matching)
    for index, weight in enumerate(matching.old.all):
        mine = pairs.blocks.get(index, [])
        tensor = matching.old.program.model.tensors.get(weight.name)
        if tensor is None or tensor.size != weight.size or sum(x.size for x, _ in mine) < weight.size:
            continue
        others = {y.weight: matching.new.all[y.weight] for _, y in mine}
        stored = matching.new.program.model.tensors
        if not tensor.floating and all(
            not stored[w.name].floating and stored[w.name].size == w.size for w in others.values()
        ):
            made = np.empty(weight.shape)
            for x, y in mine:
                x.place(
                    made, y.cut(stored[others[y.weight].name].read().reshape(others[y.weight].shape)).astype(np.float64)
                )
        else:
            found = pairs.values(index, matching.old, matching.new)
            if found is None:
                continue
            made = found[1]
            if not tensor.floating:
                made = made.astype(np.float64)
                size = float(np.linalg.norm(made))
                made = made * (float(np.linalg.norm(tensor.read().astype(np.float64))) / size if size else 1.0)
        if all(np.isfinite(values.astype(np.float64)).all() for values in (made, tensor.read())):
            yield weight.name, made.reshape(tensor.shape)


def _constants(matching: Matching) -> Iterator[tuple[str, Array]]:
    """What nothing has learned, such as the unit gains that an exporter writes, under the same names."""
    mine, theirs = (side.program.model.tensors for side in (matching.old, matching.new))
    learned = {weight.name for weight in matching.old.all}
    for name in set(matching.old.program.weights.values()) - learned:
        if name in theirs and theirs[name].shape == mine[name].shape and theirs[name].floating == mine[name].floating:
            values = theirs[name].read().astype(np.float64)
            if np.isfinite(values).all() and np.isfinite(mine[name].read().astype(np.float64)).all():
                yield name, values
