"""The engine of `symlint align`: one network moved along its symmetries as close to another as they allow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import field, replace
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from symlint.comparison.alignment.gauge import canonise
from symlint.comparison.alignment.halfway import halfway
from symlint.comparison.alignment.nearer import approach, levelled
from symlint.comparison.alignment.pair import Move, Pair, paired, undo
from symlint.comparison.alignment.search import Search
from symlint.comparison.alignment.spaces import SpaceMatch, space_matches
from symlint.comparison.matching import Matching, match
from symlint.comparison.weights import Weights
from symlint.evidence.context import Context
from symlint.model.errors import UsageProblem
from symlint.model.graph import Model
from symlint.model.load import load
from symlint.model.records import dataclass
from symlint.model.saving import write
from symlint.runtime.verify import Trial, same_function
from symlint.symmetry.inference import examine
from symlint.symmetry.motion.teleport import Moved
from symlint.symmetry.spaces import Symmetry

KIN = 0.5
"""Networks nearer in the canonical gauge than this share of how far strangers are apart are one, changed a little.

Of others the least distance is a poor place: a scale that is fitted to what two units do not share shrinks one against
the other, and an average of the two computes neither. What reads a unit is made as large as in the first network.
"""
UNSOLVED, REFUTED = 4, 5
"""Exit codes: too little was matched; what was moved was not proven to compute the same."""


@dataclass(frozen=True, slots=True)
class TensorGap:
    """How far a stored tensor of the second network is from its counterpart, before and after, as norms."""

    tensor: str
    before: float
    after: float
    norm: float
    """Of its counterpart in the first network."""


@dataclass(frozen=True, slots=True)
class Distance:
    """How far two networks are apart, over all weights that have a counterpart."""

    absolute: float
    """The norm of the difference."""
    relative: float
    """The same over the norm of the first network."""
    spread: float
    """The same over how far two networks of these norms would be apart that have nothing in common."""


@dataclass(frozen=True, slots=True)
class Line:
    """Losses along the line from the first network to the second as it was moved."""

    points: tuple[float, ...]
    """Shares of the second network."""
    losses: tuple[float, ...]

    @property
    def barrier(self) -> float:
        """How far the largest loss is above the line between those of the ends."""
        one, two = self.losses[0], self.losses[-1]
        return max(v - (1 - t) * one - t * two for t, v in zip(self.points, self.losses, strict=True))


@dataclass(frozen=True)
class Alignment:
    """Everything that `symlint align` tells."""

    first: str
    second: str
    before: Distance
    after: Distance
    tensors: tuple[TensorGap, ...]
    spaces: tuple[SpaceMatch, ...]
    unmatched: tuple[tuple[str, ...], tuple[str, ...]]
    """The stored tensors of either network without a counterpart."""
    matched: tuple[int, int]
    """Elements of either network's weights that have a counterpart."""
    total: tuple[int, int]
    left: tuple[str, ...]
    """Generators that could not be fitted, since nothing tells how."""
    pair: Pair | None = field(repr=False, default=None)
    """Both networks, the second one as it was moved."""
    proof: Trial | None = None
    """Whether what was written computes what the second network does; None where nothing was written."""
    line: Line | None = None
    """The loss on the way from the one to the other, where labelled data were given."""

    @property
    def unrelated(self) -> bool:
        """Whether less than half of both networks has a counterpart."""
        pairs = zip(self.matched, self.total, strict=True)
        return sum(self.total) == 0 or all(2 * part < whole for part, whole in pairs)

    @property
    def share(self) -> float:
        """Of all units those that are matched with confidence."""
        units = sum(space.units for space in self.spaces)
        return sum(space.matched for space in self.spaces) / units if units else 1.0

    @property
    def statistics(self) -> bool:
        """Whether there are running means and variances, which an average of networks would have other ones of."""
        return self.pair is not None and bool(self.pair.structure.program.statistics)

    @property
    def exit_code(self) -> int:
        """4 where less than half is matched, 5 where what was moved was not proven, 0 else."""
        if self.unrelated:
            return UNSOLVED
        return 0 if self.proof is None or self.proof.outcome == "held" else REFUTED


def align(first: Model, second: Model) -> Alignment:
    """Move the weights of a second network along its symmetries as close to those of a first as they allow.

    Raises UsageProblem where scipy is missing, and where some weight is NaN or infinite.
    """
    try:
        import_module("scipy.optimize")
    except ImportError as error:
        raise UsageProblem("align needs scipy, which an extra brings: pip install 'symlint[align]'") from error
    one, two = (Context(*examine(model)) for model in (first, second))
    matching = match(Weights(two), Weights(one))
    for model, side in ((first, matching.new), (second, matching.old)):
        if side.broken:
            raise UsageProblem(
                f"{model.path}: {side.broken} holds NaN or infinity, and nothing is near that (see symlint check)"
            )
    pair = paired(matching)
    there = dict(_gaps(pair))
    start, before = pair.again(), _distance(pair)
    way = _way(pair, two.symmetry)
    for move in way.moves:
        move.apply(pair.current)
    undo(pair.current, way.home)
    if way.kin:
        approach(pair)
    after = _distance(pair)
    if not after.absolute < before.absolute:
        pair, after = start, before
    gaps = (TensorGap(name, there[name][0], gap, norm) for name, (gap, norm) in _gaps(pair))
    found = Alignment(
        first.path,
        second.path,
        before,
        after,
        tuple(gaps),
        way.spaces,
        _unmatched(matching),
        (sum(b.size for b in matching.blocks.values()), sum(b.size for b in matching.blocks)),
        (sum(w.size for w in matching.new.all), sum(w.size for w in matching.old.all)),
        way.left,
    )
    return replace(found, pair=pair)


@dataclass(frozen=True, slots=True)
class _Way:
    """Moves of the second network to its counterparts in the canonical gauge, without the weights there."""

    moves: Sequence[Move]
    home: Sequence[Move]
    """Those of the first network to that gauge."""
    spaces: tuple[SpaceMatch, ...]
    left: tuple[str, ...]
    kin: bool
    """Whether the two are one network."""


def _way(pair: Pair, symmetry: Symmetry) -> _Way:
    """Which units of a pair are which, found in the canonical gauge."""
    bare = pair.again()
    home, away = canonise(bare.target, bare=True), canonise(bare.current, bare=True)
    search, kin = _searched(bare)
    if not kin:
        undo(bare.current, search.moves)
        search, kin = _searched(bare.again(even=True))
    spaces = tuple(space_matches(symmetry, search))
    level = [] if kin else levelled(search.pair)
    return _Way([*away, *search.moves, *level], home, spaces, tuple(action.id for action in search.left), kin)


def _searched(bare: Pair) -> tuple[Search, bool]:
    """Which units of a pair in the canonical gauge are which, and whether the two are one network."""
    search = Search(bare)
    search.inwards()
    search.refine()
    return search, _distance(bare).spread < KIN


def _gaps(pair: Pair) -> Iterator[tuple[str, tuple[float, float]]]:
    for stored, gap, norm in pair.distances():
        yield stored, (gap, norm)


def _distance(pair: Pair) -> Distance:
    gap = sum(d * d for _, d, _ in pair.distances()) ** 0.5
    one = sum(n * n for _, _, n in pair.distances()) ** 0.5
    two = sum(float(np.sum(np.square(pair.current.get(name).astype(np.float64)))) for name in pair.uses.values()) ** 0.5
    apart = float(np.hypot(one, two))
    return Distance(gap, gap / one if one else 0.0, gap / apart if apart else 0.0)


def _unmatched(matching: Matching) -> tuple[tuple[str, ...], tuple[str, ...]]:
    mine, theirs = ({b.weight for b in side} for side in (matching.blocks, matching.blocks.values()))
    return (
        tuple(w.name for k, w in enumerate(matching.new.all) if k not in theirs),
        tuple(w.name for k, w in enumerate(matching.old.all) if k not in mine),
    )


def averageable(found: Alignment) -> Alignment:
    """With the second network where an average of two trainings computes the most of what both do."""
    assert found.pair is not None
    if found.unrelated or found.after.spread < KIN or not halfway(found.pair):
        return found
    gaps = {name: gap for name, gap, _ in found.pair.distances()}
    tensors = tuple(replace(one, after=gaps[one.tensor]) for one in found.tensors)
    return replace(found, after=_distance(found.pair), tensors=tensors)


def proven(found: Alignment, second: Model) -> Alignment:
    """With the proof that the second network, as it was moved, computes what it did."""
    assert found.pair is not None
    with TemporaryDirectory(prefix="symlint-") as folder:
        draft = Path(folder) / "moved.onnx"
        write(second.path, Moved(found.pair.current, lifted=False), draft)
        moved = replace(load(str(draft)), states=second.states)
        return replace(found, proof=same_function(second, moved))


def aligned(first: Model, second: Model, output: Path | None) -> Alignment:
    """Align, and where a file is named prove and save what was moved; where the proof fails nothing is saved."""
    found = align(first, second)
    if output is None or found.unrelated:
        return found
    found = proven(found, second)
    if found.exit_code == 0 and found.pair is not None:
        write(second.path, Moved(found.pair.current, lifted=False), output)
    return found
