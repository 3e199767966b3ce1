"""Measures: what one network has come to, space by space, in numbers that are those of every gauge of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property

import numpy as np

from symlint.audit.outcome import Report
from symlint.comparison.course import canonical, finite
from symlint.comparison.states import State, States
from symlint.comparison.weights import READS, VECTORS, WRITES
from symlint.evidence.context import Context
from symlint.evidence.estimates import MOST, estimates, participation
from symlint.evidence.products import general_linear
from symlint.lint.finding import Drop
from symlint.model.clusters import precision
from symlint.model.graph import Array
from symlint.model.records import dataclass
from symlint.program.flow import Passages
from symlint.symmetry.gauge.scales import two_sided
from symlint.symmetry.spaces import Space
from symlint.symmetry.structure import Structure


@dataclass(frozen=True, slots=True)
class Norms:
    """Frobenius norms; None where no weight is on that side, or its numbers cannot be told."""

    written: float | None
    read: float | None


def settles(structure: Structure) -> bool:
    """Whether the gauge of least norm is one point, but for the order of units.

    That is where nothing is mixed, no matrix is shifted, and no scale is taken away again, as by a norm.
    """
    shifted = (structure.axes.of[shift.translation.weight] for shift in structure.shifts)
    factors = structure.axes.factors
    scalings = sum(a.kind == "rescaling" for a in structure.actions.values())
    if structure.rotations or len(two_sided(structure)) < scalings:
        return False
    return not any(sum(factors.size(f) > 1 for f in axes) > 1 for axes in shifted)


def norms(states: States, space: Space) -> Norms:
    """The norms of the two sides of a space, of a network in the canonical gauge.

    Gains of normalisations are in what they scale. It means something where that gauge `settles`.
    """
    leaf = states.actions[space.id][0].leaf
    sides = {WRITES: 0.0, READS: 0.0}
    there: set[str] = set()
    for block in states.holders[leaf]:
        weight = states.weights.all[block.weight]
        if weight.kind in VECTORS:
            continue
        values = states.weights.read(weight)
        if values is None:
            return Norms(None, None)
        energy = float(np.sum(np.square(states.spectra.measured(block, values, weight.tensor, leaf))))
        for side in {use for d in block.dims if d.leaf == leaf for use in d.use.split("|")} & sides.keys():
            sides[side] += energy
            there.add(side)
    found = {side: float(np.sqrt(energy)) for side, energy in sides.items()}
    written, read = (found[side] if side in there and np.isfinite(found[side]) else None for side in (WRITES, READS))
    return Norms(written, read)


CLEAR = 4.0
"""Singular values above this many times the noise are real."""


@dataclass(frozen=True, slots=True)
class Spectrum:
    """Singular values of a space, over all copies: of its linear product, or of what units have in common.

    Of units that may be permuted they are those of the matrix of cosines between units, over second moments along
    paths: its rank is the number of different things that they compute, linearly.
    """

    values: tuple[float, ...]
    """Descending, relative to the largest of its copy; the mean over the copies."""
    noise: float
    """What rounding of the stored numbers alone makes of a zero."""
    rank: int
    """Values above the noise, over all copies."""
    stable: float
    """The sum of the squares relative to the largest, over all copies."""
    effective: float
    """The exponential of the entropy of the squares, over all copies."""


@dataclass(frozen=True, slots=True)
class Measures:
    """One space; its numbers are over all copies, and None where they mean nothing or cannot be told."""

    state: State
    op: str
    """The operator that writes it."""
    role: str
    """``units``; ``bundle`` (heads, groups, experts); ``stream``, whose directions are rotated; ``linear``, ``scores``
    (queries and keys) and ``values``, through which all invertible matrices act; ``planes``, rotated by position."""
    constant: int | None
    distinct: int | None
    """Live units that are neither constant nor the same as another."""
    rank: int | None
    ranks: tuple[int, ...]
    """Of a linear space the rank of each copy, such as a head."""
    spectrum: Spectrum | None
    norms: Norms
    least: float | None
    """The smallest share that a live unit has of all paths, relative to an equal one; None of bundles."""
    most: float | None
    parameters: int
    """Elements of the weights that hold its units."""
    saves: int
    """Parameters that repairs of its findings would remove."""


def measures(context: Context, report: Report) -> tuple[Measures, ...]:
    """The spaces whose units are computed, in the order of the program.

    Args:
        context: the network, with all that the audit has found out.
        report: of the audit.
    """
    return tuple(_Measured(context, report).found())


class _Measured:
    def __init__(self, context: Context, report: Report) -> None:
        self.context = context
        self.balanced = finite(context) and settles(context.structure)
        self.states = States(context, canonical(context.as_judged(), buried=True) if self.balanced else {})
        self.passages = Passages(context.structure.program)
        self.saves: dict[str, int] = defaultdict(int)
        for finding in report.findings:
            if finding.space and finding.fixable and not isinstance(finding.repair, Drop):
                self.saves[finding.space] += finding.saves

    def found(self) -> Iterator[Measures]:
        turning = {a.space for a in self.context.structure.rotations}
        with np.errstate(all="ignore"):
            for space in self.states.spaces:
                if space.id in self.states.plain or space.id in turning:
                    self.context.budget.tick()
                    yield self._space(space)

    def _space(self, space: Space) -> Measures:
        context, plain = self.context, space.id in self.states.plain
        state, turned = self.states.state(space, widths=True), self.states.turned(space)
        spectrum = self._spectrum(space) if state.width is not None else None
        ranks: tuple[int, ...] = ()
        constant = distinct = rank = least = most = None
        if plain:
            units = context.units(space)
            constant = int(units.constant.sum())
            distinct = (state.live or 0) - constant - sum(len(group) - 1 for group in units.groups)
            rank = spectrum.rank if spectrum else None
            told = state.width is not None and not context.bundled(space)
            share = estimates(context).share(space) if told else None
            alive = share[~units.dead] if share is not None else np.zeros(0)
            least, most = (float(alive.min()), float(alive.max())) if len(alive) else (None, None)
        elif turned is not None and general_linear(turned):
            ranks, rank = self.states.ranks(turned), state.rank
        where = context.named.where(space.places[0].tensor) if space.places else None
        return Measures(
            state,
            where.op if where else "",
            self._role(space),
            constant,
            distinct,
            rank,
            ranks,
            spectrum,
            norms(self.states, space) if self.balanced else Norms(None, None),
            least,
            most,
            sum(context.parameters.get(name, 0) for name in context.tensors(space)),
            self.saves[space.id],
        )

    def _role(self, space: Space) -> str:
        turned = self.states.turned(space)
        if space.id in self.states.plain:
            return "bundle" if self.context.bundled(space) else "units"
        if turned is None:
            return "planes"
        return self.passages.of({o.tensor for o in turned.charge}) if general_linear(turned) else "stream"

    def _spectrum(self, space: Space) -> Spectrum | None:
        turned = self.states.turned(space)
        if space.id not in self.states.plain:
            energies = self.states.spectra.energies(turned) if turned is not None else None
            return _told(energies, self._unit(space)) if energies is not None else None
        found = estimates(self.context)
        if space.size > MOST or self.context.bundled(space) or self._mingled(space):
            return None
        moments = next(found.likeness.moments(found.action(space), single=True), None)
        return None if moments is None else _told([_energies(one) for one in moments], self._unit(space))

    def _mingled(self, space: Space) -> bool:
        """Whether units of another space, that signs and scales may tell apart, share an axis with these."""
        action = self.context.structure.permutation(space.id)
        return not self._beside[action.leaf] <= {action.leaf, *action.copies}

    @cached_property
    def _beside(self) -> Mapping[int, set[int]]:
        """Leaf -> those of spaces that are on an axis of a weight together with it."""
        structure, found = self.context.structure, defaultdict[int, set[int]](set)
        acting = {a.leaf for a in structure.actions.values()}
        for f in {f for name in structure.program.weights for f in structure.axes.of[name]}:
            for term in structure.expansion.terms(f):
                for leaf in term.leaves:
                    found[leaf] |= acting.intersection(term.leaves)
        return found

    def _unit(self, space: Space) -> float:
        """Half a unit in the last place of the coarsest numbers that hold its units."""
        tensors, sizes = self.context.symmetry.model.tensors, self.context.parameters
        return max((precision(tensors[p.tensor].dtype) for p in space.places if p.tensor in sizes), default=0.0)


def _energies(moments: Array) -> Array:
    """The squared singular values of units of one size: the spectrum of their cosines, with zeros for what is dead."""
    size = np.sqrt(np.diagonal(moments).clip(0))
    alive = size > 0
    found = np.zeros(len(size))
    if alive.any():
        cosines = moments[np.ix_(alive, alive)] / size[alive, None] / size[None, alive]
        found[len(size) - len(cosines) :] = np.linalg.eigvalsh(cosines).clip(0)
    return found


def _told(energies: Sequence[Array], unit: float) -> Spectrum | None:
    """The summary of the squared singular values of all copies."""
    if not all(np.isfinite(e).all() for e in energies):
        return None
    size, alive = len(energies[0]), [e / e.max() for e in energies if e.max() > 0]
    if not alive:
        return Spectrum((0.0,) * size, 0.0, 0, 0.0, 0.0)
    # What errors of this size do to a matrix with rows of length one; and what a Gram matrix tells from zero at all.
    rounding = CLEAR * unit * 3**-0.5 * (1 + size**0.5)
    sharp = (4 * size * np.finfo(np.float64).eps) ** 0.5
    floors = [max(rounding * float(e.sum() / size) ** 0.5, sharp) for e in alive]
    return Spectrum(
        tuple(np.sqrt(np.mean(alive, axis=0))[::-1].tolist()),
        max(floors),
        sum(int(np.count_nonzero(e > floor**2)) for e, floor in zip(alive, floors, strict=True)),
        float(sum(e.sum() for e in alive)),
        float(sum(map(participation, alive))),
    )
