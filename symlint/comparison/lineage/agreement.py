"""Agreement: how well the units of a space that were matched by some weights are matched by others, too."""

from __future__ import annotations

import numpy as np

from symlint.comparison.alignment.fits import angles, assignment, likeness
from symlint.comparison.alignment.pair import Evidence
from symlint.comparison.alignment.search import Search, Spaces
from symlint.model.graph import Array
from symlint.symmetry.actions.permutation import UnitPermutation
from symlint.symmetry.actions.rotation import InvertibleMap, OrthogonalMap, PlaneRotation
from symlint.symmetry.motion.motion import across_ones
from symlint.symmetry.structure import Action


class Matched(Search):
    """A search that fits every space once from where it starts, and once more to all that it sees."""

    def run(self) -> None:
        """Match all units; what the second round makes worse is not taken back, since it is tried elsewhere."""
        self.inwards()
        for action in self.order:
            for move in self._again(action):
                move.apply(self.pair.current)


def agreement(evidence: Evidence, spaces: Spaces, action: Action) -> float | None:
    """How near the best element of a generator is to the one that leaves everything in place: 1 is there, 0 is chance.

    Of a permutation the share of units that stay, above that of a random one; of matrices the sum of products as it
    is, over that which the best would have; of planes the cosines. None where the weights tell nothing.
    """
    form = action.shape(evidence.structure)
    count, n = int(np.prod(form[:-1], dtype=np.int64)), form[-1]
    match action:
        case UnitPermutation() if n > 1:
            return staying(likeness(evidence.pieces(action, _settled), spaces.signs(action), count, n))
        case InvertibleMap() | OrthogonalMap():
            cross = np.zeros((count, n, n))
            for piece in evidence.pieces(action, _settled, charged=True):
                cross += piece.cross
            fixes = isinstance(action, OrthogonalMap) and action.fixes_ones
            return turning(across_ones(n).T @ cross @ across_ones(n) if fixes else cross)
        case PlaneRotation():
            turned, size = angles(evidence, action, _settled)
            whole = float(size.sum())
            return float(np.sum(np.cos(turned).reshape(size.shape) * size) / whole) if whole else None
    return None


def _settled(leaf: int, name: str) -> bool:  # noqa: ARG001 - all units are where a search has left them
    return True


def staying(scores: Array) -> float | None:
    """The share of units that the best assignment leaves in place, above chance: scores are (copies, n, n)."""
    n = scores.shape[-1]
    shuffled = np.random.default_rng(0).permutation(n)  # where scores are equal no place is better than another
    order = shuffled[assignment(scores[..., shuffled])]
    told = scores.any(axis=-1)
    if not told.any():
        return None
    share = float(np.mean((order == np.arange(n))[told]))
    return float((share - 1 / n) / (1 - 1 / n))


def turning(cross: Array) -> float | None:
    """The sum of products of (copies, n, n) tables over what the best orthogonal matrices make of it."""
    most = float(np.linalg.svd(cross, compute_uv=False).sum())
    return float(np.trace(cross, axis1=-2, axis2=-1).sum()) / most if most else None
