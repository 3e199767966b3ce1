"""Traces: one network beside another that it may be derived from, space by space.

Two searches match the units of all spaces, upward from what inputs pin and downward from what outputs pin. Neither sees
more than half of the weights between spaces. The other half, and what pins the other end, then says whether it would
match the units in the same way: it has no reason to, unless both networks have the same origin.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np

from symlint.comparison.alignment.gauge import canonise
from symlint.comparison.alignment.pair import Evidence, Pair, paired
from symlint.comparison.lineage.agreement import Matched, agreement
from symlint.comparison.lineage.halves import Halves, halves
from symlint.comparison.matching import match
from symlint.comparison.weights import Weights
from symlint.model.records import dataclass

Verdict = Literal["derived", "unclear", "unrelated", "not comparable"]
RELATED, STRANGE = 0.5, 0.25
"""Scores from which on a network counts as derived, and below which as unrelated; between them nothing is said."""
SKETCHED = 0.6, 0.55
"""The same for sketches."""
DEVIATIONS = 4.0
"""Chance reaches no further than so many standard deviations."""


@dataclass(frozen=True, slots=True)
class SpaceTrace:
    """How well the units of a space are matched by two parts of the weights in the same way: 1 is all, 0 is chance."""

    id: str
    name: str
    units: int
    upward: float | None
    """As they are matched from what inputs pin; None where nothing tells."""
    downward: float | None
    """The same from outputs."""
    noise: float
    """The standard deviation of either for networks that have nothing in common."""

    @property
    def score(self) -> float:
        """The better of both: what was trained anew at one end leaves the other as it was."""
        return max(found for found in (self.upward, self.downward) if found is not None)


@dataclass(frozen=True)
class Trace:
    """A network beside one that it may be derived from."""

    path: str
    spaces: tuple[SpaceTrace, ...] = ()
    compared: float = 0.0
    """Of the network's weights the share that has a counterpart."""
    sketched: bool = False
    """Whether sketches were compared, and no weights."""
    problem: str | None = None
    """Why the other could not be read."""

    @property
    def score(self) -> float | None:
        """The mean over all units of how well they are matched; None where nothing can be compared."""
        units = sum(space.units for space in self.spaces)
        return sum(space.units * space.score for space in self.spaces) / units if units else None

    @property
    def chance(self) -> float:
        """How far chance reaches with so many spaces and units."""
        units = sum(space.units for space in self.spaces)
        return DEVIATIONS * sum((s.units * s.noise) ** 2 for s in self.spaces) ** 0.5 / units if units else 1.0

    @property
    def verdict(self) -> Verdict:
        """What the score says."""
        if self.score is None:
            return "not comparable"
        related, strange = SKETCHED if self.sketched else (RELATED, STRANGE)
        if self.score >= max(related, self.chance):
            return "derived"
        return "unrelated" if self.score < max(strange, self.chance) else "unclear"


def traced(model: Weights, other: Weights, path: str) -> Trace:
    """How well the units of two networks are matched twice.

    Args:
        model: the network that may be derived from another.
        other: that one.
        path: what it is called.
    """
    # A float network can be moved by every kind of generator, one on a grid of integers by few.
    one, two = (other, model) if other.quantised and not model.quantised else (model, other)
    matching = match(two, one, bold=True)
    pair = paired(matching)
    for side in (pair.target, pair.current):
        canonise(side, bare=True)
    cut = halves(pair, two.readings)
    ways = _agreements(cut, cut.exits), _agreements(cut, cut.entries)
    names = {space.id: space.name for space in two.context.symmetry.spaces}
    spaces = tuple(_spaces(pair, *ways, names))
    mine = matching.blocks.values() if one is model else matching.blocks
    whole = sum(weight.size for weight in model.all)
    return Trace(path, spaces, sum(block.size for block in mine) / whole if whole else 0.0)


def _agreements(cut: Halves, hidden: frozenset[str]) -> Mapping[str, float]:
    """Generator -> how well what a search has not seen agrees with it."""
    search = Matched(cut.shown(hidden))
    search.run()
    evidence = Evidence(cut.kept(hidden, search.pair.current))
    found = ((action.id, agreement(evidence, search.spaces, action)) for action in search.order)
    return {key: value for key, value in found if value is not None}


def _spaces(
    pair: Pair, upward: Mapping[str, float], downward: Mapping[str, float], names: Mapping[str, str]
) -> Iterator[SpaceTrace]:
    for key in dict.fromkeys((*upward, *downward)):
        action = pair.structure.actions[key]
        form = action.shape(pair.structure)
        name = names.get(action.space, action.space)
        yield SpaceTrace(action.space, name, int(np.prod(form)), upward.get(key), downward.get(key), noise(form))


def noise(form: Sequence[int]) -> float:
    """The standard deviation of the agreement of random elements of a shape (copies, units).

    A random permutation leaves one unit in place, give or take one; of matrices it is about the same.
    """
    copies = int(np.prod(form[:-1], dtype=np.int64))
    return float(1 / max(form[-1] - 1, 1) / copies**0.5)
