"""One factor of a product as rows, and what of it means nothing: rows that a translation may change at will.

A key bias shifts all scores alike, a value bias can be taken over by the bias of the output, and the null direction of
a norm is never seen. Such a change of a factor A (rows over the units) is ``w a^T``, with a fixed column w and any a:
only what is left of A without w can be observed. A shift that may differ along an axis beside the units, as that of
keys which have a weight for each position, has a column for each place of it.

The rank of a product of two matrices, judged by the rounding noise of their numbers as stored.

Of a space on which GL(n) acts only the product of readers (Q x n) and writers (n x P) can be observed. Its singular
values are the same in every gauge; what rounding hides of them is not, so the noise is that of the factors, carried
through the product. Rows are brought to one size first, whereby scales outside the space do not count.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property, reduce
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from symlint.model.clusters import ABSENT
from symlint.model.graph import Array
from symlint.model.records import dataclass
from symlint.program.numbers import Numbers
from symlint.symmetry.motion.action import Stand
from symlint.symmetry.structure import Action, Structure
from symlint.symmetry.translation.course import Translation
from symlint.symmetry.translation.element import factors

Matrix = NDArray[np.float64]
SAME = 1e-9
"""Singular values of a change below this, relative to the largest, are rounding."""


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """One factor of a product: rows of weights as stored over the n units."""

    rows: NDArray[Any]
    blocks: NDArray[np.int64]
    """Rows with one number are mixed by a rotation of their own, so that only their common size means something."""
    free: Matrix
    """Columns (rows, t): the factor may change by each of them times any vector, so that they mean nothing."""

    @property
    def lost(self) -> int:
        """By how much the free columns lower the rank that the factor can have."""
        return int(self.free.shape[1])

    @property
    def there(self) -> NDArray[np.bool_]:
        """Rows that are not nothing, or need not be."""
        some = (np.abs(self.rows) > ABSENT).any(axis=1) | self.free.any(axis=1)
        return np.asarray(np.bincount(self.blocks, some)[self.blocks] > 0)

    @property
    def capacity(self) -> int:
        """The rank that the factor could have; where all is nothing every row could have been something."""
        written = (np.abs(self.rows) > ABSENT).any()
        return (int(np.count_nonzero(self.there)) if written else len(self.rows)) - self.lost

    @property
    def unit(self) -> Matrix:
        """Those rows in float64, each block of mean square one, less their part along the free columns."""
        there = self.there | ~np.isfinite(self.rows).all(axis=1)
        wide, blocks = self.rows[there].astype(np.float64), self.blocks[there]
        square = np.einsum("ij,ij->i", wide, wide)
        square = np.bincount(blocks, square)[blocks] / np.bincount(blocks)[blocks]
        size = np.where(square > ABSENT**2, square, square.mean() if square.any() else 1.0) ** -0.5
        basis = orthonormal(self.free[there] * size[:, None])
        wide *= size[:, None]
        return np.asarray(wide - basis @ (basis.T @ wide))


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """One factor of the products of several copies: rows (copies, p, n), blocks (copies, p), free (copies, p, t).

    The free columns need be neither orthonormal nor independent.
    """

    rows: NDArray[Any]
    blocks: NDArray[np.int64]
    free: Matrix

    def unit(self) -> tuple[Matrix, NDArray[np.int64]]:
        """For every copy what `Side.unit` is, with rows of zeros where nothing is; and how many others there are."""
        wide = self.rows.astype(np.float64)
        square = np.einsum("cij,cij->ci", wide, wide)
        there = (np.abs(self.rows) > ABSENT).any(axis=2) | self.free.any(axis=2)
        copies = len(wide)
        mixed = self.blocks + np.arange(copies)[:, None] * (int(self.blocks.max(initial=0)) + 1)
        names, inverse = np.unique(mixed, return_inverse=True)
        if len(names) < mixed.size:
            inverse = inverse.reshape(-1)
            square = (np.bincount(inverse, square.reshape(-1)) / np.bincount(inverse))[inverse].reshape(square.shape)
            there = (np.bincount(inverse, there.reshape(-1)) > 0)[inverse].reshape(there.shape)
        count = there.sum(axis=1)
        mean = (square * there).sum(axis=1, keepdims=True) / np.maximum(count, 1)[:, None]
        size = np.where(square > ABSENT**2, square, np.where(mean > 0, mean, 1.0)) ** -0.5
        wide *= (size * there)[:, :, None]
        if self.free.shape[2]:
            basis = np.linalg.qr(self.free * size[:, :, None])[0]
            wide -= basis @ (basis.swapaxes(1, 2) @ wide)
        return wide, count


def columns(change: NDArray[Any]) -> Matrix:
    """A basis of the columns w of a change (rows, n) that was drawn at random: shape (rows, t).

    There is none where everything may change, as in a pair of layers beside another: no product is observed there, and
    the one that is stored is as good as any.
    """
    found = orthonormal(change)
    return found if found.shape[1] < change.shape[1] else found[:, :0]


def orthonormal(matrix: NDArray[Any]) -> Matrix:
    """An orthonormal basis of the columns of a matrix that are numbers throughout."""
    matrix = matrix[:, np.isfinite(matrix).all(axis=0)]
    if not matrix.any():
        return np.zeros((len(matrix), 0))
    left, size, _ = np.linalg.svd(matrix, full_matrices=False)
    return np.asarray(left[:, size > SAME * size[0]])


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


CLEAR = 4.0
"""Singular values above this many times the noise are real."""
GAP = 16.0
"""How far the smallest kept value must lie above the noise and above the largest dropped one."""
CHANCE = 100.0
"""The same where it is one value that is dropped of a square matrix: in a random one the smallest is often small."""
COARSE_CHANCE = 1e4
"""The same in half precision, whose noise is near to what chance gives."""
SURE = 30.0
"""Directions of one factor alone that are this far above its noise are there in the product as well."""
COARSE = 50.0
"""Where the noise is more than one in this many of the largest value, nothing is said."""
RESOLUTION = 1e-6
"""Singular values relative to the largest that a Gram matrix in float64 tells from zero with a margin."""
LARGE = 1024
"""Above this width the certificate asks each factor for itself: a Cholesky factor is the cheapest proof of rank."""
SEVERAL = 2.0**-20
"""Number types finer than this can show that a product is nothing but noise."""
POINTS = 64
"""Singular values of a spectrum that are shown."""
_UNIFORM = 3.0**-0.5
"""Standard deviation of a number that is uniform in [-1, 1]."""


@dataclass(frozen=True, slots=True)
class Rank:
    """A rank, what it could have been, and the numbers that say so, relative to the largest singular value."""

    rank: int
    bound: int
    kept: float = 0.0
    """Smallest singular value that counts; 0 where none does."""
    dropped: float = 0.0
    """Largest one that does not."""
    tolerance: float = 0.0
    """What rounding alone makes of a zero."""
    values: tuple[float, ...] = ()
    """All singular values, as `few` of them as are drawn, where the rank is below its bound and something is there."""

    @property
    def low(self) -> bool:
        """Whether the rank is below its bound."""
        return self.rank < self.bound


def few(values: Sequence[float]) -> tuple[float, ...]:
    """Of a spectrum as many values as can be seen, at even distances, from the first to the last."""
    last = len(values) - 1
    chosen = range(last + 1) if last < POINTS else (k * last // (POINTS - 1) for k in range(POINTS))
    return tuple(float(f"{values[k]:.3g}") for k in chosen)


def surely_full(writers: Side, readers: Side, unit: float) -> bool:
    """Whether the product of readers (rows, n) and writers (rows, n) has rank n beyond doubt.

    Some of the rows are enough for a certificate: the others can only add to the rank.
    """
    a, b = writers.unit, readers.unit
    n = a.shape[1]
    if min(len(a) - writers.lost, len(b) - readers.lost) < n or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return False
    left, right = a.T @ a, b.T @ b
    if n > LARGE:
        return _beyond(left, unit) and _beyond(right, unit)
    size = np.sqrt(np.sum(np.diag(left) * np.diag(right)))
    noise = unit * _UNIFORM * size * (2.0 + len(a) ** -0.5 + len(b) ** -0.5)
    floor = np.array([max(2 * CLEAR * noise, RESOLUTION * size)])
    return bool(_definite(left[None], right[None], floor)[0])


def surely_full_each(writers: Stack, readers: Stack, unit: float) -> NDArray[np.bool_]:
    """The same for several copies at once."""
    (a, p), (b, q) = writers.unit(), readers.unit()
    n = a.shape[2]
    found = np.minimum(p - writers.free.shape[2], q - readers.free.shape[2]) >= n
    if not found.any() or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return np.zeros(len(a), bool)
    left, right = a.swapaxes(1, 2) @ a, b.swapaxes(1, 2) @ b
    if n > LARGE:
        each = [_beyond(x, unit) and _beyond(y, unit) for x, y in zip(left, right, strict=True)]
        return np.asarray(found & each)
    size = np.sqrt(np.einsum("cii,cii->c", left, right))
    noise = unit * _UNIFORM * size * (2.0 + np.maximum(p, 1) ** -0.5 + np.maximum(q, 1) ** -0.5)
    floor = np.maximum(2 * CLEAR * noise, RESOLUTION * size)
    return np.asarray(found & _definite(left, right, floor))


def _definite(left: Matrix, right: Matrix, floor: Matrix) -> NDArray[np.bool_]:
    """Whether no singular value of the product of two factors with these Gram matrices is below its floor."""
    try:
        root = np.linalg.cholesky(left)
        product = root.swapaxes(1, 2) @ right @ root
        np.linalg.cholesky(product - (floor * floor)[:, None, None] * np.eye(left.shape[1]))
    except np.linalg.LinAlgError:  # of some; there is no telling which
        if len(left) == 1:
            return np.zeros(1, bool)
        parts = [_definite(left[k : k + 1], right[k : k + 1], floor[k : k + 1]) for k in range(len(left))]
        return np.concatenate(parts)
    return np.ones(len(left), bool)


def _beyond(gram: Matrix, unit: float) -> bool:
    """Whether all singular values of a factor with this Gram matrix are far above its noise, by one Cholesky."""
    floor = SURE * unit * _UNIFORM * (1.0 + float(np.sqrt(np.diag(gram).max())))
    floor = max(floor, 10 * RESOLUTION * float(np.sqrt(_norm(gram))))
    return _root(gram - floor * floor * np.eye(len(gram))) is not None


def _root(gram: Matrix) -> Matrix | None:
    """The Cholesky factor; None where the matrix is not positive definite."""
    try:
        return np.asarray(np.linalg.cholesky(gram))
    except np.linalg.LinAlgError:
        return None


def rank(writers: Side, readers: Side, bound: int, unit: float) -> Rank:
    """The rank of the product of readers (rows, n) and writers (rows, n).

    Args:
        writers, readers: rows of nothing are left out.
        bound: what the rank could be.
        unit: half a unit in the last place of the stored numbers, relative.

    The rank is the bound unless a drop is clear: values at the noise, a wide gap, and a noise that resolves something.
    """
    full, a, b = Rank(bound, bound), writers.unit, readers.unit
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return full
    if not a.any() or not b.any():
        return Rank(0, bound)
    n = a.shape[1]
    left, right = _triangle(a), _triangle(b)
    values = np.zeros(max(bound, 1))
    found = _values(right @ left.T)[:bound]
    values[: len(found)] = found
    noise = max(_noise(left, right, len(a), len(b), unit), unit * values[0])
    kept = int(np.count_nonzero(values > CLEAR * noise))
    if kept >= bound:
        return full
    sizes = [n, len(a) - writers.lost, len(b) - readers.lost]
    alone = [(_values(r), _alone(r, unit), size) for r, size in ((left, sizes[1]), (right, sizes[2]))]
    sure = sum(int(np.count_nonzero(s > SURE * floor)) for s, floor, _ in alone) - n
    kept = max(kept, min(sure, int(np.count_nonzero(values > CLEAR * unit * values[0]))))
    if kept == 0:
        return Rank(0, bound, tolerance=1.0) if unit < SEVERAL else full
    if kept >= bound or noise > values[0] / COARSE:
        return full
    chance = CHANCE if unit < SEVERAL else COARSE_CHANCE
    best = _drop(values[:bound], noise, kept, sorted(sizes)[1] - min(sizes), chance) or bound
    for s, floor, count in alone:
        # A factor alone shows a drop that the other's bad gauge hides in the product.
        lower = _drop(s[: min(n, count)], floor, kept, abs(n - count), chance)
        best = min(best, lower) if lower else best
    if best >= bound:
        return full
    top = float(values[0])
    values /= values[0]
    return Rank(best, bound, float(values[best - 1]), float(values[best]), float(noise) / top, few(values.tolist()))


def _drop(values: Matrix, noise: float, kept: int, spare: int, chance: float) -> int | None:
    """Where the widest gap above the noise is, at `kept` or later; None where none is wide enough.

    The d smallest singular values of a random matrix with `spare` dimensions to spare are all below a small x with a
    probability of about x^(d (d + spare)).
    """
    found: dict[int, float] = {}
    for r in range(kept, len(values)):
        gap, dropped = values[r - 1] / max(values[r], noise), len(values) - r
        if values[r] <= CLEAR * noise and gap >= max(GAP, chance ** (1 / (dropped * (dropped + spare)))):
            found[r] = gap
    return max(found, key=found.__getitem__, default=None)


def _noise(left: Matrix, right: Matrix, p: int, q: int, unit: float) -> float:
    """Spectral norm of what independent roundings of all elements change in the product.

    With Z of independent elements of size one, |M Z| is about |M|_F + sqrt(columns) |M|_2; here M is one factor with
    its columns scaled by the lengths of the other's.
    """
    ours, theirs = _lengths(left), _lengths(right)
    size = float(np.linalg.norm(ours * theirs))
    carried = size * (p**-0.5 + q**-0.5) + _norm(right * ours) + _norm(left * theirs)
    return float(unit * _UNIFORM * carried + _computed(left) * _norm(left) * _norm(right))


def _alone(factor: Matrix, unit: float) -> float:
    """Spectral norm of the rounding noise of one factor with rows of one size."""
    return float(unit * _UNIFORM * (1.0 + _lengths(factor).max()) + _computed(factor) * _norm(factor))


def _computed(factor: Matrix) -> float:
    """What float64 itself adds to singular values, relative to the largest."""
    return float(np.finfo(np.float64).eps * factor.shape[1])


def _lengths(rows: Matrix) -> Matrix:
    """The length of every column."""
    return np.asarray(np.sqrt(np.einsum("ij,ij->j", rows, rows)))


def _triangle(rows: Matrix) -> Matrix:
    """A square matrix, or a flat one, with the singular values of the rows."""
    return np.asarray(np.linalg.qr(rows, mode="r"))


def _norm(matrix: Matrix) -> float:
    """The largest singular value, by a few steps of power iteration: a per cent is enough for a noise."""
    if not matrix.any():
        return 0.0
    x = _lengths(matrix) + 1e-300
    for _ in range(12):
        x = matrix.T @ (matrix @ (x / np.linalg.norm(x)))
    return float(np.sqrt(np.linalg.norm(x)))


def _values(matrix: Matrix) -> Matrix:
    return np.asarray(np.linalg.svd(matrix, compute_uv=False))
