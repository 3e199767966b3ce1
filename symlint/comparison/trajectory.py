"""The engine of `symlint profile`: the measures of each space, and what became of them from file to file.

Measures: what one network has come to, space by space, in numbers that are those of every gauge of it.

The course of each space from one file to the other, in the gauge where both have the same numbers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from symlint.audit.engine import judged
from symlint.audit.outcome import Report
from symlint.comparison.changes import Change, Pairs
from symlint.comparison.matching import Matching, match
from symlint.comparison.states import State, States, states
from symlint.comparison.weights import READS, VECTORS, WRITES, Weights
from symlint.evidence.context import Context
from symlint.evidence.estimates import MOST, estimates, participation
from symlint.evidence.products import general_linear
from symlint.lint.finding import Drop
from symlint.lint.rule import Rule
from symlint.lint.settings import Settings
from symlint.model.clusters import precision
from symlint.model.graph import Array, Tensor
from symlint.model.load import load
from symlint.model.records import dataclass
from symlint.program.flow import Passages
from symlint.symmetry.gauge.scales import Scales, least_norm, two_sided
from symlint.symmetry.inference import examine
from symlint.symmetry.spaces import Space
from symlint.symmetry.structure import Structure

ALIKE = 1e-4
"""How far sizes may be apart, relative to the largest, in files of float32 that differ by a symmetry."""
SHARE = 1e-3
"""The same, beside how far the weights themselves are apart: a small change of every weight is no symmetry."""
COARSE = {"float16": 50.0, "bfloat16": 400.0}


def canonical(context: Context, *, buried: bool = False) -> Mapping[str, Array]:
    """Stored tensor -> its values in the gauge of least norm, for those that it moves.

    Args:
        context: the network.
        buried: whether what belongs to dead units becomes zero. Scales let it vanish, and no gauge is the least.
    """
    actions = two_sided(context.structure)
    if not actions or not finite(context):
        return {}
    scales = Scales(context.structure, actions)
    try:
        with np.errstate(all="ignore"):
            logs, dead = least_norm(scales)
            found = scales.apply(logs)
    except (ArithmeticError, ValueError, np.linalg.LinAlgError):
        return {}
    if not all(np.isfinite(v).all() for v in found.values()):
        return {}
    return _buried(scales, dead, found) if buried and dead.any() else found


def _buried(scales: Scales, dead: NDArray[np.bool_], found: Mapping[str, Array]) -> Mapping[str, Array]:
    """The same tensors, and others, with zeros where dead scales meet them."""
    program, marks, made = scales.structure.program, np.append(dead, False), dict(found)
    for name in scales.tensors():
        met = [marks[hold.scales] for hold in scales.holds(name) if hold.power]
        if name in program.weights and any(mark.any() for mark in met):
            stored = program.weights[name]
            values = made[stored] if stored in made else program.model.tensors[stored].read().astype(np.float64)
            here = np.any([np.broadcast_to(mark, program.shapes[name]) for mark in met], axis=0)
            made[stored] = np.where(here.reshape(values.shape), 0.0, values)
    return made


def finite(context: Context) -> bool:
    """Whether all stored weights are finite: without that no gauge is the least, and no spectrum can be told."""
    model = context.structure.program.model
    stored = (model.tensors[name] for name in set(context.structure.program.weights.values()))
    return all(model.digests.of(tensor).finite for tensor in stored)


def moved(
    found: Iterable[Change], matching: Matching, old: Mapping[str, Array], new: Mapping[str, Array]
) -> tuple[Change, ...]:
    """The changes, those among them that only permute, scale or flip units called so.

    In the canonical gauge, which no such move of the weights changes, the sizes of a weight's rows and columns are the
    same but for their order. What a rotation or a shift has moved counts as changed.
    """
    pairs, one, two = Pairs(matching), matching.old.at(old), matching.new.at(new)
    made = []
    for change in found:
        if change.status in ("changed", "rescaled") and (values := pairs.values(change.index, one, two)) is not None:
            tolerance = ALIKE * max(COARSE.get(d, 1.0) for d in change.dtypes)
            near = _apart(*values[:2]) <= min(tolerance, SHARE * (change.relative or 0.0))
            made.append(replace(change, status="moved", rank=None) if near else change)
        else:
            made.append(change)
    return tuple(made)


def _apart(before: Array, after: Array) -> float:
    """The largest difference of the sizes of rows and columns, in order of size, relative to the largest.

    Infinite where a number is infinite or NaN: of such numbers no symmetry can be told.
    """
    worst = 0.0
    before, after = before.astype(np.float64, copy=False), after.astype(np.float64, copy=False)
    if not (np.isfinite(before).all() and np.isfinite(after).all()):
        return np.inf
    for power in (2, 4):
        for axis in range(max(before.ndim, 1)):
            others = tuple(k for k in range(before.ndim) if k != axis)
            sizes = [
                np.sort(np.sum(np.abs(x) ** power, axis=others).reshape(-1)) ** (1 / power) for x in (before, after)
            ]
            largest = float(sizes[0].max(initial=0.0)) or 1.0
            worst = max(worst, float(np.abs(sizes[0] - sizes[1]).max(initial=0.0)) / largest)
    return worst


VISIBLE = 0.01
"""By how much an effective width has to change, relative, to be told."""


@dataclass(frozen=True, slots=True)
class SpaceChange:
    """A space of the old network and what it is in the new one, None where it was not found there."""

    old: State
    new: State | None

    @property
    def changed(self) -> bool:
        """Whether there is something to tell."""
        new = self.new
        if new is None or (self.old.units, self.old.live, self.old.rank) != (new.units, new.live, new.rank):
            return True
        if self.old.width is None or new.width is None:
            return False
        return abs(new.width - self.old.width) > VISIBLE * max(self.old.width, new.width)


def counterparts(contexts: Sequence[Context], matching: Matching) -> dict[str, str]:
    """Space of the old network -> that of the new one."""
    mine, theirs = ({a.leaf: a.space for a in c.structure.actions.values() if a.leaf >= 0} for c in contexts)
    found = {mine[a]: theirs[b] for a, b in matching.leaves.items() if a in mine and b in theirs}
    for index, other in matching.resized.items():
        dims = ([d for b in w.blocks for d in b.dims] for w in (matching.old.all[index], matching.new.all[other]))
        ours, others = ({(d.use, d.axis, d.place, d.term): d.leaf for d in side} for side in dims)
        for key in sorted(ours.keys() & others.keys()):
            one, two = mine.get(ours[key]), theirs.get(others[key])
            if one and two and one not in found and two not in found.values():
                found[one] = two
    # What has no units, a scale or a shift of whole tensors, is told by the tensors.
    there = {s.id: frozenset(p.tensor for p in s.places) for s in contexts[1].symmetry.spaces}
    left = {held: space for space, held in there.items() if space not in found.values()}
    names: dict[str, set[str]] = {}
    for x, y in matching.blocks.items():
        names.setdefault(matching.old.all[x.weight].name, set()).add(matching.new.all[y.weight].name)
    for space in contexts[0].symmetry.spaces:
        held = frozenset(name for p in space.places for name in names.get(p.tensor, ()))
        if space.id not in found and held in left:
            found[space.id] = left.pop(held)
    return found


def course(contexts: Sequence[Context], matching: Matching, found: Sequence[Change]) -> Iterator[SpaceChange]:
    """The spaces of the old network; where nothing changed no widths are measured, which cost the most."""
    old, new = contexts
    same = all(change.status == "identical" for change in found)
    known = finite(old) and (new is old or finite(new))
    before = states(old, widths=not same)
    there = counterparts(contexts, matching)
    if known and matching.new.quantised and not matching.old.quantised and (values := _stood_for(matching)) is not None:
        # Nothing is scaled across a quantiser: what its levels stand for is judged where the floats were.
        after = {s.id: s for s in states(_with(old, values), widths=True)}
        names = {s.id: s.id for s in before}
    else:
        after = {s.id: s for s in states(new, widths=True)} if not same else {}
        names = there
    gauged = matching.old.quantised == matching.new.quantised or names is not there
    for state in before:
        if state.live is None and state.width is None and state.rank is None:
            continue
        one = state if same and state.id in there else after.get(names.get(state.id, ""))
        if gauged or one is None:
            yield SpaceChange(state, one)
        else:
            yield SpaceChange(replace(state, width=None), replace(one, width=None))


def _stood_for(matching: Matching) -> Mapping[str, Array] | None:
    """The new values of all stored tensors of the old network; None where some are unknown."""
    pairs, made = Pairs(matching), {}
    for index, weight in enumerate(matching.old.all):
        if sum(x.size for x, _ in pairs.blocks.get(index, ())) < weight.size:
            return None
        found = pairs.values(index, matching.old, matching.new)
        if found is None or weight.tensor not in matching.old.program.weights:
            return None
        made[weight.name] = found[1]
    return made


def _with(context: Context, values: Mapping[str, Array]) -> Context:
    """A network with other numbers in its tensors."""
    model = context.symmetry.model
    tensors = {
        name: replace(tensor, read=partial(_read, values[name], tensor)) if name in values else tensor
        for name, tensor in model.tensors.items()
    }
    other = replace(model, tensors=tensors)
    program = replace(context.structure.program, model=other)
    symmetry, structure = replace(context.symmetry, model=other), replace(context.structure, program=program)
    return Context(symmetry, structure, context.asked)


def _read(values: Array, tensor: Tensor) -> Array:
    return values.reshape(tensor.shape).astype(np.float32)


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


@dataclass(frozen=True, slots=True)
class Portrait:
    """One file: its audit and its spaces."""

    report: Report
    spaces: tuple[Measures, ...]
    series: tuple[int, ...]
    """For each space the number of the series to which it belongs; equal where `symlint diff` matches two spaces."""

    @property
    def path(self) -> str:
        """As given by the caller."""
        return self.report.path


@dataclass(frozen=True, slots=True)
class Trajectory:
    """Files of one network in the order in which they were given; of a single one a series has one member."""

    portraits: tuple[Portrait, ...]

    @property
    def series(self) -> int:
        """How many series there are."""
        return 1 + max((number for p in self.portraits for number in p.series), default=-1)

    def course(self, number: int) -> tuple[Measures | None, ...]:
        """One series: what it is in each file, None where it was not found."""
        each = (dict(zip(p.series, p.spaces, strict=True)) for p in self.portraits)
        return tuple(found.get(number) for found in each)


def trajectory(paths: Sequence[str], rules: Sequence[Rule], settings: Sequence[Settings]) -> Trajectory:
    """The measures of every space of every file; spaces are matched from each file to the next.

    Args:
        paths: the files, of which two at a time are held in memory.
        rules: the installed rules.
        settings: of each file.

    Raises `UnreadableModel` where one of them cannot be read.
    """
    follower = Follower(rules)
    for path, asked in zip(paths, settings, strict=True):
        follower.follow(path, asked)
    return Trajectory(tuple(follower.portraits))


class Follower:
    """Portraits of files of one network, one after another; spaces of each are matched with those of the one before."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.portraits: list[Portrait] = []
        self._rules = rules
        self._before: Context | None = None
        self._count = 0

    def follow(self, path: str, asked: Settings, name: str | None = None) -> Context:
        """Add a file, under its path or a name, and give what is read again for the next one.

        Raises `UnreadableModel` where it cannot be read.
        """
        model = asked.with_states(load(path))
        context = Context(*examine(model), asked.asked(self._rules))
        report = judged(path, context, asked.chosen(self._rules), asked)
        found = measures(context, report)
        known: dict[str, int] = {}
        if self._before is not None:
            pairs = counterparts([self._before, context], match(Weights(self._before), Weights(context)))
            last = self.portraits[-1]
            numbers = dict(zip((one.state.id for one in last.spaces), last.series, strict=True))
            known = {new: numbers[old] for old, new in pairs.items() if old in numbers}
        series = []
        for one in found:
            number = known.get(one.state.id, self._count)
            self._count += number == self._count
            series.append(number)
        self.portraits.append(Portrait(report if name is None else replace(report, path=name), found, tuple(series)))
        self._before = context
        return context
