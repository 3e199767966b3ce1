"""Equality: which weights of two networks a symmetry makes the same."""

from __future__ import annotations

from symlint.comparison.alignment.gauge import canonise
from symlint.comparison.alignment.nearer import approach
from symlint.comparison.alignment.pair import paired, undo
from symlint.comparison.alignment.search import Search
from symlint.comparison.matching import Matching

ALIKE = 1e-4
"""Tensors nearer than this, relative to their norms, are the same."""
MOST = 1 << 25
"""Weights up to which `diff` looks for symmetries of every kind: it holds either network in float64."""
FAR = 1e-2
"""A space further apart than this once it is fitted says that the networks are not the same."""


def equal(matching: Matching) -> frozenset[str]:
    """Stored tensors of the old network that a symmetry of it makes those of the new one, all together.

    Empty where some space of the two cannot be made the same: then its weights have changed. Without scipy, which
    assigns units, it is empty as well, for networks of more than `MOST` weights, and where some are not finite.
    """
    if sum(weight.size for weight in matching.old.all) > MOST or matching.old.broken or matching.new.broken:
        return frozenset()
    try:
        import scipy.optimize  # noqa: F401
    except ImportError:
        return frozenset()
    pair = paired(matching)
    bare = pair.again()
    home, away = canonise(bare.target, bare=True), canonise(bare.current, bare=True)
    search = Search(bare)
    if not search.inwards(FAR):
        return frozenset()
    search.refine()
    for move in [*away, *search.moves]:
        move.apply(pair.current)
    undo(pair.current, home)
    approach(pair)
    return frozenset(name for name, gap, norm in pair.distances() if gap <= ALIKE * norm)
