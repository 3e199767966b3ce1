"""Twins: heads and groups that are one function, whatever the gauge, by what each adds to the sum they end in.

What each contributes to where all of them are added up is compared, and before that the scores that each softmax sees.
Contributions may be multiples of each other, and differ by a constant. How far those of one function may be apart is
measured: by what a rounding of every weight changes.

Experts that are one function, whatever the order and the scales of what is in them.

A router gives each expert a weight, or chooses some: it acts along the experts. For random inputs, what comes out is
computed with one expert chosen everywhere, and compared from expert to expert.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Protocol

import numpy as np

from symlint.analysis.rehearsal import LARGEST, Rehearsal, Unrehearsed, entered
from symlint.evidence.ranks import Freedom, orthonormal
from symlint.model.graph import Array, Shape
from symlint.model.records import dataclass
from symlint.program.functions import MixKind, dispatched
from symlint.program.numbers import Labelled, multiply, ungroup
from symlint.program.steps import Einsum, Mix, Normalise, Pointwise, Slice, Step, Unknown
from symlint.symmetry.actions.permutation import UnitPermutation
from symlint.symmetry.motion.action import stands
from symlint.symmetry.motion.membership import members
from symlint.symmetry.structure import Action, Structure

PLACES = 8
"""Of positions, where any number of them would do: what is different mostly is on these."""


class Sketch(Protocol):
    """A row of numbers for every unit, from one draw."""

    def __call__(self, seed: int, *, rounded: bool, brief: bool = False) -> Array:
        """The rows; `brief` ones are of a few positions."""


class Contributions:
    """What each unit of a permutation adds to every sum over all of them, and the scores by which it does.

    Raises `Unrehearsed` where the units meet otherwise, or are not added up.
    """

    def __init__(self, structure: Structure, action: Action, moving: frozenset[str]) -> None:
        self.structure, self.action = structure, action
        self.program, self.of = structure.program, structure.axes.of
        factors = structure.axes.factors
        self.count = factors.size(action.leaf)
        self.inside = moving.intersection(structure.axes.holding.get(action.leaf, ()))
        self.inner = {a.leaf for a in structure.nested.get(action.leaf, ()) if isinstance(a, UnitPermutation)}
        self.ends: list[Einsum] = []
        self.scores: list[Normalise] = []
        self.attends = False
        for step in self.program.reading(self.inside):
            self._sort(step)
        self.draws: dict[tuple[int, bool, bool], Rehearsal] = {}
        self.freedom, self.unseen = Freedom(structure), dict[int, Array]()
        self.sizes: dict[int, float] = {}
        if not self.ends:
            raise Unrehearsed(action.id)
        self.part = entered(self.program, self.inside, moving)
        self.thin = dict(self._thin())

    @dispatched
    def _sort(self, step: Step) -> None:
        """Ends and scores; raises Unrehearsed for what acts along the units otherwise."""
        if not self.inside.isdisjoint(step.operands) and not self.inside.issuperset(step.results):
            raise Unrehearsed(step.node.name)

    @_sort.register
    def _(self, step: Einsum) -> None:
        read = [n for n in step.operands if n in self.inside]
        labels = set(self._labels(step)) if read else set()
        if labels - step.kept:
            if labels & step.kept or step.out in self.inside:
                raise Unrehearsed(step.out)
            self.ends.append(step)
        self.attends |= len(read) > 1 and step.out in self.inside

    @_sort.register
    def _(self, step: Normalise) -> None:
        if step.x not in self.inside:
            return
        leaves = self.structure.axes.factors.leaves
        if step.out not in self.inside:
            raise Unrehearsed(step.node.name)
        if any(self.action.leaf in leaves(self.of[step.x][k]) for k in step.axes):
            raise Unrehearsed(step.out)
        if "Softmax" in step.function and not any(x in self.inner for f in self.of[step.x] for x in leaves(f)):
            self.scores.append(step)

    def _thin(self) -> Iterator[tuple[str, Shape]]:
        """What is drawn, in its shape with size 1 along axes such as that of a batch, along which nothing acts."""
        leaves, of, program = self.structure.axes.factors.leaves, self.of, self.program

        def held(*names: str) -> Counter[int]:
            return Counter(x for n in names for f in of[n] for x in leaves(f))

        steps = program.touching(self.part)
        acted = set(self.structure.constant_leaves)
        for step in steps:
            if isinstance(step, Einsum):
                out = held(step.out)
                acted |= {x for x in held(*step.operands) if out[x] != 1}
            acted.update(x for n in step.operands for k in step.across(len(of[n])) for x in leaves(of[n][k]))
        for name in {n for step in steps for n in step.operands} - self.part:
            axes = zip(of[name], program.shapes[name], strict=True)
            yield name, tuple(1 if (mine := set(leaves(f))) and mine.isdisjoint(acted) else n for f, n in axes)

    @cached_property
    def brief(self) -> dict[str, Shape]:
        """The same with few of the positions on axes along which any number of them would do.

        No weight or table has such an axis, and steps contract it, normalise along it, or leave it as it is.
        """
        leaves, of, fixed = self.structure.axes.factors.leaves, self.of, self.program.fixed
        barred, company = {self.action.leaf, *self.inner}, dict[int, frozenset[int]]()
        for step in self.program.touching(self.part):
            names = (*step.operands, *step.results)
            specs = (*step.specs, step.result) if isinstance(step, Einsum) else [[("",)] * len(of[n]) for n in names]
            free = isinstance(step, (Einsum, Pointwise, Normalise, Slice))
            barred.update(leaves(of[step.x][step.axis]) if isinstance(step, Slice) else ())
            for name, spec in zip(names, specs, strict=True):
                for f, labels in zip(of[name], spec, strict=True):
                    held = frozenset(leaves(f))
                    others = {x for leaf in held for x in company.setdefault(leaf, held)}
                    if not free or name in fixed or len(labels) > 1 or others != held:
                        barred |= held | others
        cut = {}
        for name, shape in self.thin.items():
            held_by = (set(leaves(f)) for f in of[name])
            cut[name] = tuple(
                min(n, PLACES) if held and barred.isdisjoint(held) else n
                for held, n in zip(held_by, shape, strict=True)
            )
        return cut

    # -- sketches -------------------------------------------------------------------------------------------------
    def _draw(self, seed: int, *, rounded: bool, brief: bool = False) -> Rehearsal:
        if (seed, rounded, brief) not in self.draws:
            thin = self.brief if brief else self.thin
            known = {} if rounded else self._stored()
            self.draws[seed, rounded, brief] = Rehearsal(self.program, self.part, seed, rounded, thin=thin, known=known)
        return self.draws[seed, rounded, brief]

    def _stored(self) -> dict[str, Array]:
        """The weights that draws without rounding have read, which are the same for each."""
        exact = [draw.known for (_, rounded, _), draw in self.draws.items() if not rounded]
        return {n: x for known in exact for n, x in known.items() if n in self.program.weights}

    def scored(self, step: Normalise) -> Sketch:
        """What a softmax sees of every unit, but for what shifts all of it alike."""

        def sketch(seed: int, *, rounded: bool, brief: bool = False) -> Array:
            x = self._draw(seed, rounded=rounded, brief=brief).value(step.x)
            rows = members(self.structure, self.action, self.of[step.x], x.shape)
            if rows is None:
                raise Unrehearsed(step.x)
            seen = x > -LARGEST / 2  # what a mask hides is not shifted with the others
            total = np.where(seen, x, 0).sum(axis=step.axes, keepdims=True)
            middle = total / np.maximum(seen.sum(axis=step.axes, keepdims=True), 1)
            return np.asarray(np.where(seen, x - middle, 0).reshape(-1)[rows])

        return sketch

    def contributed(self, units: Sequence[int], seed: int, *, rounded: bool) -> Array:
        """What each unit adds to every sum over all of them, one row for each."""
        draw = self._draw(seed, rounded=rounded)
        return np.hstack([self._added(step, draw, units) for step in self.ends])

    def _added(self, step: Einsum, draw: Rehearsal, units: Sequence[int]) -> Array:
        """The same at one end, without the directions along which nothing is seen."""
        if id(step) not in self.unseen:
            self.unseen[id(step)] = self._unseen(step, units[0])
        basis = self.unseen[id(step)]
        made = np.stack([self._lines(step, draw, unit) for unit in units])
        made = made - made @ basis @ basis.T
        largest = self.sizes.setdefault(id(step), float(np.abs(made).max()) or 1.0)
        return np.asarray((made / largest).reshape(len(units), -1))

    def _unseen(self, step: Einsum, unit: int) -> Array:
        """An orthonormal basis of what translations may add to the outputs of weights, which says nothing."""
        draw, found = self._draw(0, rounded=False), list[Array]()
        for name in step.operands:
            for weight in self._weights(name):
                stood = list(stands(self.structure.expansion, self.of[weight], self.action.leaf, ()))
                for change in self.freedom.of({weight: stood}):
                    changed = Rehearsal(self.program, frozenset(), 0, given={weight: change[weight]})
                    found.append(self._lines(step, draw, unit, {name: changed.value(name)}))
        rows = np.vstack(found) if found else self._lines(step, draw, unit)[:0]
        return orthonormal(rows.T)

    def _weights(self, name: str) -> Iterator[str]:
        """The weights of which a constant tensor is made."""
        if name in self.program.weights:
            yield name
        elif name in self.program.makers:
            for part in self.program.makers[name].operands:
                yield from self._weights(part)

    def _lines(self, step: Einsum, draw: Rehearsal, unit: int, other: Mapping[str, Array] | None = None) -> Array:
        """What one unit adds: everything that the input tells apart times what only weights do."""
        values = [(other or {}).get(n, draw.value(n)) if n not in self.inside else draw.value(n) for n in step.operands]
        places = self._labels(step)
        sizes = {**step.sizes, **{label: len(index[unit]) for label, index in places.items()}}
        cut = []
        for x, spec in zip(values, step.specs, strict=True):
            part = ungroup(x, spec, step.sizes)
            index = [places[label][unit] if label in places else None for label in part.labels]
            cut.append(Labelled(_taken(part.values, index), part.labels))
        made = multiply(cut, step.kept, sizes)
        pairs = list(zip(step.operands, step.specs, strict=True))
        moving = {label for n, spec in pairs if n in self.inside for axis in spec for label in axis}
        order = sorted(range(len(made.labels)), key=lambda k: made.labels[k] not in moving)
        inner = int(np.prod([n for n, x in zip(made.values.shape, made.labels, strict=True) if x not in moving]))
        return made.values.transpose(order).reshape(-1, inner)

    def _labels(self, step: Einsum) -> dict[str, list[Array]]:
        """Label of a contraction that holds the units -> for each unit, where it lies along the label."""
        factors, found = self.structure.axes.factors, dict[str, list[Array]]()
        for name, spec in zip(step.operands, step.specs, strict=True):
            for f, labels in zip(self.of[name], spec, strict=True):
                rest = f
                for k, label in enumerate(labels):
                    part = rest
                    if k < len(labels) - 1:
                        halves = factors.split(rest, step.sizes[label])
                        if halves is None:
                            raise Unrehearsed(step.out)
                        part, rest = halves
                    if self.action.leaf in factors.leaves(part):
                        found[label] = self._places(part)
        return found

    def _places(self, part: int) -> list[Array]:
        found: list[list[Array]] = [[] for _ in range(self.count)]
        for term in self.structure.expansion.terms(part):
            if self.action.leaf in term.leaves:
                lines = np.moveaxis(term.positions, term.leaves.index(self.action.leaf), 0)
                for unit, line in enumerate(lines):
                    found[unit].append(line.reshape(-1))
        return [np.concatenate(lines) for lines in found]


def _taken(values: Array, index: Sequence[Array | None]) -> Array:
    """Some of the elements along every axis."""
    for axis, places in enumerate(index):
        if places is not None and values.shape[axis] > 1:
            values = values.take(places, axis=axis)
    return values


LOOSE = 0.02
"""Sketches farther apart, relative to their length, are no candidates; noise beyond hides everything."""
MARGIN = 6.0
"""Times the measured noise: what two sketches of one function may differ by."""
FLOAT = 1e-9
"""The same for what float64 itself rounds."""
PAIRS = 4
"""Of draws that are compared: on one, units that only differ in what they read may be multiples."""
FAINT = 1e-6
"""A contribution below this share of the largest is none."""
Group = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Twins:
    """The units of one space that are the same function."""

    groups: tuple[Group, ...]
    multiples: Mapping[int, float]
    """Unit of a group -> how many times the first one's its contribution is, up to a constant."""
    attends: bool
    """Whether the units compare parts of the input, as heads do."""


def twins(structure: Structure, action: Action, moving: frozenset[str]) -> Twins | None:
    """The units of a permutation that contribute multiples of each other; None where that cannot be told.

    Args:
        structure: of the network.
        action: a permutation without copies, whose units are made of others.
        moving: the tensors that depend on the input.
    """
    try:
        with np.errstate(all="ignore"):
            return _found(Contributions(structure, action, moving))
    except Unrehearsed:
        return None


def same_rows(rows: Array, noise: Array, one: int, other: int) -> bool:
    """Whether two rows differ by no more than the noise of each."""
    slack = MARGIN * np.hypot(noise[one], noise[other]) + FLOAT * np.linalg.norm(rows[one])
    return bool(np.linalg.norm(rows[one] - rows[other]) <= slack)


def close(rows: Array, group: Sequence[int]) -> list[list[int]]:
    """Units of a group whose rows are about equal, as lists of several."""
    square = np.einsum("ij,ij->i", rows, rows)
    apart = np.sqrt(np.maximum(square[:, None] + square - 2 * (rows @ rows.T), 0))
    return _joined(apart <= LOOSE * np.sqrt(np.maximum.outer(square, square)), group)


def _found(sketches: Contributions) -> Twins:
    none = Twins((), {}, sketches.attends)
    groups: list[list[int]] = [list(range(sketches.count))]
    for brief in (True, False):  # most units differ on a few positions
        for sketch in map(sketches.scored, sketches.scores if groups else ()):
            rows = sketch(0, rounded=False, brief=brief)
            groups = [part for group in groups for part in close(rows, group)]
    units = sorted(u for group in groups for u in group)
    if not units:
        return none
    for pairs in (1, PAIRS):  # most units differ on the first
        change = _changes(sketches, units, pairs, rounded=False)
        length = np.linalg.norm(change, axis=1)
        place = {u: k for k, u in enumerate(units) if length[k] > FAINT * length.max()}
        parts = [part for group in groups for part in _parallel(change, [place[u] for u in group if u in place])]
        groups = [[units[k] for k in part] for part in parts]
        if not groups:
            return none
    return _judged(sketches, units, parts, change)


def _changes(sketches: Contributions, units: Sequence[int], pairs: int, *, rounded: bool) -> Array:
    """What the contributions differ by between pairs of draws: what they are whatever the input is not in it."""
    found = [sketches.contributed(units, draw, rounded=rounded) for draw in range(2 * pairs)]
    return np.hstack([one - other for one, other in zip(found[::2], found[1::2], strict=True)])


def _judged(sketches: Contributions, units: Sequence[int], groups: Sequence[Sequence[int]], change: Array) -> Twins:
    """The groups that are left when the noise of a rounding is all that they may differ by."""
    noise = np.linalg.norm(_changes(sketches, units, PAIRS, rounded=True) - change, axis=1)
    scored: list[tuple[Array, Array]] = []
    for sketch in map(sketches.scored, sketches.scores):
        rows = sketch(0, rounded=False)
        scored.append((rows, np.linalg.norm(sketch(0, rounded=True) - rows, axis=1)))
    multiples: dict[int, float] = {}
    kept: list[Group] = []
    for one, *others in groups:
        same = [units[one]]
        multiples[units[one]] = 1.0
        for other in others:
            c = float(change[other] @ change[one] / (change[one] @ change[one]))
            size = np.linalg.norm(change[other])
            slack = MARGIN * np.hypot(noise[other], c * noise[one]) + FLOAT * size
            apart = np.linalg.norm(change[other] - c * change[one])
            equal = all(same_rows(rows, off, units[one], units[other]) for rows, off in scored)
            if equal and apart <= slack <= LOOSE * MARGIN * size:
                same.append(units[other])
                multiples[units[other]] = c
        if len(same) > 1:
            kept.append(tuple(same))
    return Twins(tuple(kept), {u: multiples[u] for group in kept for u in group}, sketches.attends)


def _parallel(rows: Array, group: Sequence[int]) -> list[list[int]]:
    """Units of a group whose rows are about multiples of each other."""
    unit = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-300)
    return _joined(1 - (unit @ unit.T) ** 2 <= LOOSE**2, group)


def _joined(near: Array, group: Sequence[int]) -> list[list[int]]:
    """A group as parts that are near the first of each, those of one unit left out."""
    found: list[list[int]] = []
    for unit in group:
        mine = next((part for part in found if near[part[0], unit]), None)
        if mine is None:
            found.append([unit])
        else:
            mine.append(unit)
    return [part for part in found if len(part) > 1]


SCALING = ("standardise", "rms")
"""Normalisations along units that choose none of them."""


@dataclass(frozen=True, slots=True)
class Experts:
    """The experts of one space that are the same function."""

    groups: tuple[Group, ...]
    routed: tuple[bool, ...]
    """For each group, whether the router gives all of them the same score."""


def experts(structure: Structure, action: Action, moving: frozenset[str]) -> Experts | None:
    """The units of a permutation that are the same function when they are chosen; None where nothing chooses.

    Args:
        structure: of the network.
        action: a permutation without copies, whose units are made of others.
        moving: the tensors that depend on the input.
    """
    try:
        with np.errstate(all="ignore"):
            return _Mixture(structure, action, moving).experts()
    except Unrehearsed:
        return None


class _Mixture:
    def __init__(self, structure: Structure, action: Action, moving: frozenset[str]) -> None:
        self.structure, self.action, self.moving = structure, action, moving
        self.program, self.of = structure.program, structure.axes.of
        self.count = structure.axes.factors.size(action.leaf)
        inner = {a.leaf for a in structure.nested.get(action.leaf, ())}
        inner |= {unit for by, unit in structure.axes.chosen if action.leaf in by}
        holding = structure.axes.holding
        mine = holding.get(action.leaf, ())
        self.inner = inner
        self.inside = moving.intersection(mine) | {n for x in inner for n in holding.get(x, ()) if n in moving}
        # What compares the experts reads or makes a tensor that holds them.
        along = [s for s in self.program.touching(mine) if self._along(s)]
        self.gates = {n for s in along for n in s.results}
        self.routers = [n for s in along if s.joint for n in s.operands if n not in self.gates]
        scaled = all(s.function in SCALING for s in along)
        if scaled or any(s.at_run_time for s in along):
            raise Unrehearsed(action.id)
        self.ends = [s for s in self.program.reading(self.inside) if self._leaves(s)]
        self.part = entered(self.program, {*self.inside, *(n for s in self.ends for n in s.results)}, moving)
        self.bases: dict[str, Array] = {}
        self.chosen = self._after(self.gates)
        self.shared: dict[tuple[int, bool], dict[str, Array]] = {}

    def _holds(self, name: str, leaves: set[int]) -> bool:
        return any(not leaves.isdisjoint(self.structure.axes.factors.leaves(f)) for f in self.of[name])

    @dispatched
    def _along(self, step: Step) -> bool:
        """Whether a step compares the experts, so that it may choose among them."""
        return False

    @_along.register
    def _(self, step: Unknown) -> bool:
        return any(n in self.inside and self._holds(n, {self.action.leaf}) for n in step.operands)

    @_along.register
    def _(self, step: Normalise) -> bool:
        leaves = self.structure.axes.factors.leaves
        along = {x for k in step.axes for x in leaves(self.of[step.x][k])}
        # What compares units of all experts with each other, as a norm over all heads does, chooses none of these.
        return step.x in self.moving and self.action.leaf in along and along.isdisjoint(self.inner)

    @_along.register
    def _(self, step: Mix) -> bool:
        return step.kind is MixKind.RANKING and self._holds(step.out, {self.action.leaf})

    def _leaves(self, step: Step) -> bool:
        """Whether a step puts together what the experts have computed."""
        read = [n for n in step.operands if n in self.inside]
        if not read or self.inside.issuperset(step.results):
            return False
        if isinstance(step, Einsum):
            return True
        if self.gates.issuperset(read):  # what is told of the choice alone is the same for equal experts
            return False
        raise Unrehearsed(step.node.name)

    def experts(self) -> Experts:
        """The answer."""
        rows = self._rows(0, rounded=False)
        groups = close(rows, range(self.count))
        if not groups or not rows.any():
            return Experts((), ())
        noise = np.linalg.norm(self._rows(0, rounded=True) - rows, axis=1)
        routes = [(self._routed(n, rounded=False), self._routed(n, rounded=True)) for n in self.routers]
        kept: list[Group] = []
        routed: list[bool] = []
        for one, *others in groups:
            same = [one, *(u for u in others if same_rows(rows, noise, one, u))]
            if len(same) > 1 and np.linalg.norm(rows[one]) > 0:
                kept.append(tuple(same))
                alike = (same_rows(r, np.linalg.norm(q - r, axis=1), one, u) for r, q in routes for u in same)
                routed.append(all(alike))
        return Experts(tuple(kept), tuple(routed))

    # -- sketches -------------------------------------------------------------------------------------------------
    def _rows(self, seed: int, *, rounded: bool) -> Array:
        """What comes out with each expert chosen, less what is the same for all of them."""
        made = [self._ended(unit, seed, rounded=rounded) for unit in range(self.count)]
        columns = []
        for k, step in enumerate(self.ends):
            name = step.results[0]
            if name not in self.bases:
                self.bases[name] = self._unseen(k)
            stack = np.stack([ends[k] for ends in made])
            columns.append((stack - stack @ self.bases[name] @ self.bases[name].T).reshape(self.count, -1))
        return np.hstack(columns)

    def _ended(self, unit: int, seed: int, *, rounded: bool, given: dict[str, Array] | None = None) -> list[Array]:
        # What no choice reaches, as what every expert computes, is the same whichever is chosen.
        shared = {} if given else self.shared.setdefault((seed, rounded), {})
        chosen = {name: self._one(name, unit) for name in self.gates}
        draw = Rehearsal(self.program, self.part, seed, rounded, {**chosen, **(given or {})}, known=dict(shared))
        made = [draw.value(step.results[0]) for step in self.ends]
        if not shared:
            shared.update({name: value for name, value in draw.known.items() if name not in self.chosen})
        return made

    def _after(self, names: Collection[str]) -> frozenset[str]:
        """Some tensors and all that is made of them."""
        found = set(names)
        for step in self.program.steps:
            if not found.isdisjoint(step.operands):
                found.update(step.results)
        return frozenset(found)

    def _one(self, name: str, unit: int) -> Array:
        """One where an expert is, zero where others are."""
        shape = self.program.shapes[name]
        rows = members(self.structure, self.action, self.of[name], shape)
        if rows is None:
            raise Unrehearsed(name)
        made = np.zeros(shape)
        made.reshape(-1)[rows[unit]] = 1.0
        return made

    def _routed(self, name: str, *, rounded: bool) -> Array:
        value = Rehearsal(self.program, self.part, 0, rounded).value(name)
        rows = members(self.structure, self.action, self.of[name], value.shape)
        if rows is None:
            raise Unrehearsed(name)
        return np.asarray(value.reshape(-1)[rows])

    def _unseen(self, k: int) -> Array:
        """A basis of what translations may add along the last axis of an end, which says nothing."""
        found: list[Array] = []
        for name, change in self._changes():
            for seed in (0, 1):
                made = self._ended(0, seed, rounded=False, given={name: change})[k]
                found.append(made.reshape(-1, made.shape[-1]))
        width = self.program.shapes[self.ends[k].results[0]][-1]
        basis = orthonormal(np.vstack(found).T) if found else np.zeros((width, 0))
        return basis if basis.shape[1] < width else basis[:, :0]

    def _changes(self) -> Iterator[tuple[str, Array]]:
        freedom = Freedom(self.structure)
        for name in sorted(self.program.weights):
            if self._holds(name, {self.action.leaf}) and len(self.program.shapes[name]) > 1:
                stood = list(stands(self.structure.expansion, self.of[name], self.action.leaf, ()))
                for change in freedom.of({name: stood}):
                    yield name, change[name]
