"""Halves: the weights of a pair in two parts, such that what is fitted to one can be tried on the other.

A weight between two spaces is cut in halves at random, pair of units by pair of units. One between a space and what
inputs or outputs pin is not cut: it is where a search starts, or it is kept from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from symlint.comparison.alignment.pair import Pair
from symlint.comparison.alignment.search import Spaces
from symlint.comparison.weights import READS, WRITES, Reading
from symlint.model.graph import Array
from symlint.model.records import dataclass
from symlint.symmetry.motion.motion import Weights
from symlint.symmetry.structure import Structure


@dataclass(frozen=True, eq=False)
class Halves:
    """The stored tensors of a pair by what a search may use them for."""

    pair: Pair
    cut: Mapping[str, Array]
    """Between spaces: stored tensor -> which elements are in the first half."""
    entries: frozenset[str]
    """They write a space from what is pinned."""
    exits: frozenset[str]
    """They read a space for what is pinned."""

    def shown(self, hidden: frozenset[str]) -> Pair:
        """What a search sees: the first half, without some tensors."""
        return self._with(self.cut, self.pair.current, self.pair.known - hidden)

    def kept(self, hidden: frozenset[str], moved: Weights) -> Pair:
        """What that search has not seen, where it has left the second network."""
        return self._with({name: ~mask for name, mask in self.cut.items()}, moved, hidden | self.cut.keys())

    def _with(self, masks: Mapping[str, Array], current: Weights, known: frozenset[str]) -> Pair:
        sides = [Weights(self.pair.structure, side.start) for side in (self.pair.target, current)]
        for mine, side in zip(sides, (self.pair.target, current), strict=True):
            mine.now = dict(side.now)
        for stored, mask in masks.items():
            name = self.pair.uses[stored]
            sides[0].put(name, sides[0].get(name) * mask)
        return Pair(self.pair.structure, sides[0], sides[1], known)


def halves(pair: Pair, readings: Mapping[str, Reading]) -> Halves:
    """Cut the weights of a pair in halves.

    Args:
        pair: two networks in one structure.
        readings: what that network uses its weights for.
    """
    rng, free = np.random.default_rng(0), frozenset(Spaces(pair.structure).of)
    cut: dict[str, Array] = {}
    ends: dict[str, set[str]] = {WRITES: set(), READS: set()}
    for stored, name in pair.uses.items():
        shape, labels = pair.structure.program.shapes[name], list(labelled(pair.structure, name, free))
        inner = [axis for axis, label in enumerate(labels) if label.max(initial=0) > 0]
        if len(inner) > 1:
            drawn = rng.random([int(label.max()) + 1 for label in labels]) < 0.5
            cut[stored] = drawn[np.ix_(*labels)]
        elif inner and name in readings and np.prod(shape) > shape[inner[0]]:
            uses = readings[name].axes[inner[0]]
            if len(uses) == 1:  # else it is tied: a search could start there from either side
                ends[next(iter(uses))].add(stored)
    return Halves(pair, cut, frozenset(ends[WRITES]), frozenset(ends[READS]))


def labelled(structure: Structure, name: str, free: frozenset[int]) -> Iterator[Array]:
    """Of every axis of a weight which units of free leaves its indices are; 0 throughout where it has none."""
    for axis, f in enumerate(structure.axes.of[name]):
        label, start = np.zeros(structure.program.shapes[name][axis], np.int64), 0
        terms = structure.expansion.terms(f)
        if any(not free.isdisjoint(term.leaves) for term in terms):
            for term in terms:
                sizes = [n if leaf in free else 1 for leaf, n in zip(term.leaves, term.positions.shape, strict=True)]
                codes = start + np.arange(int(np.prod(sizes))).reshape(sizes)
                label[term.positions.reshape(-1)] = np.broadcast_to(codes, term.positions.shape).reshape(-1)
                start += codes.size
        yield label
