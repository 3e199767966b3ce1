"""Queries and keys whose product is symmetric: one token weighs another as that weighs it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from symlint.evidence.ranks.freedom import Freedom
from symlint.evidence.ranks.invariant import READS, WIDEST, WRITES, Factors, Matrix, general_linear
from symlint.evidence.ranks.side import orthonormal
from symlint.model.records import dataclass
from symlint.program.flow import Passages
from symlint.symmetry.structure import Action, Structure

MARGIN = 8.0
"""Times what the rounding of the stored weights makes of an entry of the product: how far two may be apart."""
FEWEST = 4
"""Inputs of queries below which a product may be symmetric by chance."""

BRIEF = 16
"""Rows that are compared before all are."""


@dataclass(frozen=True, slots=True)
class Mutual:
    """A space of which every copy has a symmetric product."""

    space: str
    tolerance: float
    """Up to where a difference of two entries that face each other is rounding, as a share of the largest entry."""
    redundant: int
    """Weights of the keys, which could be those of the queries with a sign for each dimension."""


def mutual(structure: Structure, passages: Passages) -> Iterator[Mutual]:
    """The spaces of queries and keys that read the same, and whose product is symmetric in all copies."""
    rotated, freedom = frozenset(a.leaf for a in structure.rotations), Freedom(structure)
    for action in structure.actions.values():
        if not general_linear(action) or structure.axes.factors.size(action.leaf) > WIDEST:
            continue
        if passages.of({o.tensor for o in action.charge}) == "scores":
            found = _judged(structure, action, Factors(structure, action, rotated), freedom)
            if found is not None:
                yield found


def _judged(structure: Structure, action: Action, factors: Factors, freedom: Freedom) -> Mutual | None:
    few = _sides(structure, factors, freedom, BRIEF)
    if few is None or _apart(*few, factors.unit):  # most differ in any few entries
        return None
    whole = _sides(structure, factors, freedom)
    if whole is None:
        return None
    queries, keys = whole
    tolerance = 0.0
    for k in range(len(queries.rows)):
        if len(keys.rows[k]) < FEWEST:
            return None
        apart, noise = _asymmetry(queries, keys, k, factors.unit)
        if not apart <= noise:
            return None
        tolerance = max(tolerance, noise)
    return Mutual(action.space, tolerance, sum(rows.size for rows in keys.rows))


def _sides(
    structure: Structure, factors: Factors, freedom: Freedom, most: int | None = None
) -> tuple[Matrix, Matrix] | None:
    """The weights of queries and of keys, where both read the same; so many rows of them."""
    sides = [factors.matrices(side, freedom, most) for side in (WRITES, READS)]
    if any(len(side) != 1 for side in sides):
        return None
    (queries,), (keys,) = sides
    alike = (
        len(queries.rows) == len(keys.rows)
        and queries.leaves == keys.leaves
        and _reads(structure, queries.name) == _reads(structure, keys.name)
    )
    weights, program = structure.program.weights, structure.program
    floating = all(program.model.tensors[weights[x.name]].floating for x in (queries, keys))
    shaped = all(a.shape == b.shape for a, b in zip(queries.rows, keys.rows, strict=True)) if alike else False
    return (queries, keys) if floating and shaped else None


def _apart(queries: Matrix, keys: Matrix, unit: float) -> bool:
    """Whether some rows show already that a product is not symmetric; not where they may change at will."""
    for k, rows in enumerate(keys.rows):
        if queries.free[k].shape[1] + keys.free[k].shape[1] > len(rows) // 2:
            continue
        apart, noise = _asymmetry(queries, keys, k, unit)
        if noise and apart > noise:
            return True
    return False


def _asymmetry(queries: Matrix, keys: Matrix, k: int, unit: float) -> tuple[float, float]:
    """How far a product is from symmetric, and how far rounding takes it; infinite where it is nothing."""
    rows = [side.rows[k].astype(np.float64) for side in (queries, keys)]
    # What a normalisation takes away before both means nothing to either.
    free = orthonormal(np.hstack([queries.free[k], keys.free[k]]))
    seen = [x - free @ (free.T @ x) for x in rows]
    product = seen[0] @ seen[1].T
    largest = float(np.abs(product).max())
    sizes = np.outer(*(np.linalg.norm(x, axis=1) for x in rows))
    noise = MARGIN * unit * float((sizes + sizes.T).max())
    if not largest > noise:
        return np.inf, 0.0
    return float(np.abs(product - product.T).max()) / largest, noise / largest


def _reads(structure: Structure, name: str) -> frozenset[str]:
    """What a weight is multiplied by."""
    steps = structure.program.reading([name])
    return frozenset(n for step in steps if step.product for n in step.operands if n != name)
