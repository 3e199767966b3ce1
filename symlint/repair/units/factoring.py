"""Factoring: writers and readers of a linear space with the same product through as few units as its rank."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from symlint.evidence.context import Context
from symlint.evidence.ranks.products import READS, WRITES, Factors, Product
from symlint.evidence.ranks.side import Matrix
from symlint.evidence.ranks.spectrum import CLEAR, Rank
from symlint.model.graph import Array
from symlint.symmetry.motion.action import stands, transform
from symlint.symmetry.motion.motion import Weights, fresh_weights

Pairs = list[tuple[Matrix, Matrix]]


def narrowest(context: Context, product: Product) -> int | None:
    """With how many units every copy can carry a product that is low in rank in some copy; None where none can go."""
    return _width(product, _pairs(context, fresh_weights(context.structure), product)[0])


def factor(context: Context, weights: Weights, product: Product) -> int | None:
    """Let the first units of every copy carry the product; how many they are, or None where none can go.

    With a singular value decomposition U S V' of the product of readers B and writers A, each row of these brought to
    one size, G = S^-1/2 U' B and H = A V S^-1/2 have G H = 1 and B H G A = B A: the new writers are G A, the new
    readers B H, which are balanced.

    Args:
        context: the network.
        weights: change in place.
        product: of one space, low in rank in some copy.
    """
    structure = context.structure
    action = structure.actions[product.generator]
    found, factors = _pairs(context, weights, product)
    width = _width(product, found)
    if width is None:
        return None
    names = {o.tensor for o in factors.charge}
    n = product.width
    outer = [structure.axes.factors.size(c) for c in action.copies]
    matrices = np.zeros((2, len(found), n, n))
    for k, (g, h) in enumerate(found):
        matrices[0, k, : len(g)], matrices[1, k, : len(g)] = g, h.T
    for side, matrix in ((WRITES, matrices[0]), (READS, matrices[1])):
        for name in names:
            mine = {
                (o.axis, o.term, o.place): Fraction(1)
                for o, c in factors.charge.items()
                if o.tensor == name and c == side
            }
            if mine:
                stood = list(stands(structure.expansion, structure.axes.of[name], action.leaf, action.copies))
                weights.put(name, transform(weights.get(name), stood, matrix.reshape(*outer, n, n), mine))
    return width


def _pairs(context: Context, weights: Weights, product: Product) -> tuple[Pairs, Factors]:
    """Copy by copy what the writers and the readers of a product are multiplied with."""
    factors = Factors(context.structure, context.structure.actions[product.generator], frozenset())
    counted = {name: _seen(context, name, weights.get(name)) for name in {o.tensor for o in factors.charge}}
    writers, readers = factors.rows(counted, WRITES), factors.rows(counted, READS)
    return [
        _pair(a, b, product.low.get(k), product.width, factors.unit)
        for k, (a, b) in enumerate(zip(writers, readers, strict=True))
    ], factors


def _width(product: Product, found: Pairs) -> int | None:
    width = max(1, *(len(g) for g, _ in found))
    return width if width < product.width else None


def _seen(context: Context, name: str, values: Array) -> Array:
    """A weight without the elements that may be any number, such as the bias of keys."""
    for moved in (action.translation for action in context.structure.shifts):
        if moved.weight == name and moved.free and not moved.absorbers and not moved.sinks:
            there = np.ix_(*(np.flatnonzero(classes >= 0) for classes in moved.wave.classes))
            values = values.copy()
            values[there] = 0.0
    return values


def _pair(writers: Array, readers: Array, rank: Rank | None, width: int, unit: float) -> tuple[Matrix, Matrix]:
    """G (r, n) and H (n, r) of one copy. A bias that others could take over counts here, though not in the rank."""
    left, right = _triangle(readers), _triangle(writers)
    u, s, vt = np.linalg.svd(left @ right.T)
    count = rank.rank if rank else width
    if rank and rank.rank:
        noise = CLEAR * max(rank.tolerance, 1e-12) * float(s.max(initial=0.0))
    else:  # the largest is no measure where it may be noise itself
        noise = CLEAR * unit * float(np.linalg.norm(left) * np.linalg.norm(right))
    while count < len(s) and s[count] > noise:
        count += 1
    count = min(count, int(np.count_nonzero(s > 0)))
    root = s[:count] ** -0.5
    return (root[:, None] * (u[:, :count].T @ left)), (right.T @ vt[:count].T) * root


def _triangle(rows: Array) -> Matrix:
    """A matrix with the inner products of the columns of the rows, each row of size one."""
    wide = rows.astype(np.float64)
    size = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    return np.asarray(np.linalg.qr(wide[size > 0] / size[size > 0, None], mode="r"))
