"""Generators: every way in which the weights of a program can move without a change of its function."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from fractions import Fraction

from symlint.program.steps import CONSTANT, NONE, Law, Normalise, Program
from symlint.symmetry.actions.base import Action
from symlint.symmetry.actions.permutation import PartExchange, UnitPermutation
from symlint.symmetry.actions.rotation import InvertibleMap, OrthogonalMap, PlaneRotation
from symlint.symmetry.actions.scaling import PositionRescaling, SignFlip, TensorRescaling, UnitRescaling
from symlint.symmetry.actions.translation import Shift, UnseenChange
from symlint.symmetry.axes.terms import Expansion, copies
from symlint.symmetry.axes.walk import Axes
from symlint.symmetry.charges.charge import Linear, Rescaling, Sign, charges
from symlint.symmetry.charges.charge_system import System
from symlint.symmetry.charges.linear_system import independent
from symlint.symmetry.charges.offsets import met
from symlint.symmetry.charges.unknowns import ONE, Charge, Occurrence, Variables
from symlint.symmetry.kinds.branches import branches
from symlint.symmetry.kinds.early import early, read_at
from symlint.symmetry.kinds.narrow import Narrow
from symlint.symmetry.kinds.orthogonal import Turn, rotations
from symlint.symmetry.kinds.parts import scaled
from symlint.symmetry.kinds.positions import positions
from symlint.symmetry.kinds.rotary import alike, planes, turns
from symlint.symmetry.kinds.whole import LENGTHS, whole
from symlint.symmetry.overlap import rows, widths
from symlint.symmetry.spaces import Kind
from symlint.symmetry.translation.course import Translation
from symlint.symmetry.translation.patterns import anything
from symlint.symmetry.translation.search import Search
from symlint.symmetry.translation.wave import covers

# Unseen changes: what a reader does with directions that no writer reaches, and a writer in those that none reads.
#
# On a linear space of n units that is written with rank p < n, a reader's part across what is written is free; so is a
# writer's, where the readers have rank q < n. A bias of which others take back any change does not count: what a reader
# makes of it they take back as well.


def unseen(
    action: InvertibleMap,
    program: Program,
    axes: Axes,
    expansion: Expansion,
    translations: Mapping[str, Translation],
) -> Iterator[UnseenChange]:
    """The changes of single weights that the other side of a space under GL(n) does not see, where GL has not all.

    `translations` are those of weights of which any change is one.
    """
    n = axes.factors.size(action.leaf)
    held = {o.tensor for o in action.charge}
    for sign, word in ((Fraction(1), "unread"), (Fraction(-1), "unwritten")):
        biases = dict.fromkeys(o.tensor for o, c in action.charge.items() if c == -sign)
        freed = [t for b in biases if (t := translations.get(b)) and held.isdisjoint(w.weight for w in t.absorbers)]
        # What others on the same side take back, as the bias of a query does that is made of weights alone.
        gone = [t for b in biases if (t := translations.get(b)) and t not in freed and _within(t, biases, translations)]
        free = {o.tensor for o, c in action.charge.items() if c == sign and o.tensor in translations}
        found = widths(action, program, axes, expansion, free.union(t.weight for t in (*freed, *gone)))
        if not found[-sign] < n < found[sign]:
            continue
        weights = program.weights.keys() - free
        mine = {o: c for o, c in action.charge.items() if c == sign and o.tensor in weights}
        across = {
            o: c
            for o, c in action.charge.items()
            if c == -sign and o.tensor in program.weights and all(o.tensor != t.weight for t in (*freed, *gone))
        }
        for k, name in enumerate(dict.fromkeys(o.tensor for o in mine), start=1):
            charge: Charge = {o: abs(c) for o, c in mine.items() if o.tensor == name}
            label = f"{action.id}.{word}.{k}"
            yield UnseenChange(
                label,
                action.space,
                action.leaf,
                action.copies,
                charge,
                across=across,
                freed=tuple(freed),
                gone=tuple(gone),
            )


def unwritten_yet(
    action: InvertibleMap,
    program: Program,
    axes: Axes,
    expansion: Expansion,
    translations: Mapping[str, Translation],
) -> Iterator[UnseenChange]:
    """The changes of readers along what is written only behind them, though the space as a whole is written."""
    number = 0
    for o, c in action.charge.items() if not action.copies else ():
        if o.tensor not in program.weights or o.tensor in translations or o.tensor in program.detached:
            continue
        for axis, places in early(program, axes, expansion, action.leaf, o.tensor):
            mine = [Occurrence(name, k, 0, 0) for name, k in places]
            if axis != o.axis or any(action.charge.get(w) != -c for w in mine):
                continue
            known = [translations[w.tensor] for w in mine if w.tensor in translations]
            there = {o.tensor, *(w.tensor for w in mine)}
            freed = [t for t in known if there.isdisjoint(x.weight for x in t.absorbers)]
            gone = {t.weight for t in freed}
            across = {w: ONE for w in mine if w.tensor not in gone}
            sides = widths(action, program, axes, expansion, gone)
            if rows(action.leaf, (), across, program, axes, expansion) < axes.factors.size(action.leaf) <= sides[-c]:
                number += 1
                yield UnseenChange(
                    f"{action.id}.unwritten.early.{number}",
                    action.space,
                    action.leaf,
                    action.copies,
                    {o: ONE},
                    across=across,
                    freed=tuple(freed),
                    pattern=anything(program, o.tensor),
                )


def _within(translation: Translation, side: Collection[str], translations: Mapping[str, Translation]) -> bool:
    """Whether what takes a change back is on the same side, and goes nowhere else."""
    ends = {way.weight for way in translation.absorbers}
    return bool(ends) and ends <= set(side) and ends.isdisjoint(translations) and not translation.bent


# Rescalings that only the epsilon of a normalisation breaks: it takes lengths away, all but exactly.
#
# They do not count as directions of symmetry, and are applied only when named; but along them the loss is almost flat,
# and weight decay moves what it likes.


class Nearly(Rescaling):
    """Rescalings if every epsilon were zero."""

    def normalised(self, step: Normalise, axis: int) -> Law:
        """What is normalised along other axes loses its scale."""
        return CONSTANT if step.function in LENGTHS and axis not in step.axes else NONE


def nearly(variables: Variables, exact: Mapping[int, Sequence[Charge]]) -> Iterator[tuple[int, Charge]]:
    """Leaf and charge of what is a rescaling but for an epsilon, beyond the `exact` ones."""
    program, axes = variables.program, variables.axes
    leaves = axes.factors.leaves
    apart = (
        f
        for step in program.norms
        if step.function in LENGTHS
        for k, f in enumerate(axes.of[step.x])
        if k not in step.axes
    )
    held = {x for name in program.weights for f in axes.of[name] for x in leaves(f)}
    concerned = held.intersection(x for f in apart for x in leaves(f))
    if not concerned:
        return
    for leaf, found in charges(variables, Nearly, concerned).items():
        rows = [{o: c for o, c in charge.items() if o.tensor in program.weights} for charge in found]
        known = [{o: c for o, c in charge.items() if o.tensor in program.weights} for charge in exact.get(leaf, ())]
        for k in independent(rows, known):
            yield leaf, found[k]


SYSTEMS: dict[Kind, type[System]] = {"rescaling": Rescaling, "sign": Sign, "rotation": Linear}
SCALINGS: dict[Kind, type[UnitRescaling | SignFlip]] = {"rescaling": UnitRescaling, "sign": SignFlip}
"""What multiplies units by the charges that each system has found."""


class Generators:
    """The generators of a program, leaf by leaf."""

    def __init__(self, program: Program, axes: Axes, expansion: Expansion) -> None:
        self.program, self.axes, self.expansion = program, axes, expansion
        self.factors = axes.factors
        self._places = {name: k for names in (program.weights, program.affines) for k, name in enumerate(names)}
        """The place of each weight among the weights, and of each scale and shift among those."""
        self.variables = Variables(program, axes, expansion)
        embeddings = tuple(turns(program))
        self.variables.alike = alike(self.variables, embeddings)
        solved = {kind: charges(self.variables, system) for kind, system in SYSTEMS.items()}
        self.rotations = rotations(self.variables, solved["rotation"])
        self.planes = planes(self.variables, embeddings)
        self.angles = frozenset(name for turn in embeddings for name in turn.tables)
        self.bearers: dict[int, list[str]] = {}
        for name in program.weights:
            if name not in program.detached:
                for leaf in {x for f in axes.of[name] for x in self.factors.leaves(f)}:
                    self.bearers.setdefault(leaf, []).append(name)
        self.charges = {
            kind: {leaf: [c for c in found if self._start(leaf, c)] for leaf, found in by_leaf.items()}
            for kind, by_leaf in solved.items()
        }
        self.translations: dict[int, list[Translation]] = {}
        self._shifts: dict[str, list[Translation]] = {}
        """Weight -> its translations that end nowhere but in other weights."""
        search = Search(program, axes, expansion)
        for translation in search.translations():
            self.translations.setdefault(self._bearing(translation), []).append(translation)
            if translation.nowhere is None:
                self._shifts.setdefault(translation.weight, []).append(translation)
        self._stored = Counter(program.weights.values())
        self.narrow = Narrow(program, axes, expansion, search.following)
        charged = {x for by_leaf in self.charges.values() for x, found in by_leaf.items() if found}
        charged |= set(self.translations)
        held = [leaf for leaf in self.bearers if leaf not in self.factors.pins or leaf in charged]
        self.names = {leaf: f"S{k}" for k, leaf in enumerate((*held, *(x for x in charged if x < 0)), start=1)}
        """Leaf -> the id of its space, in the order of the weights."""

    def actions(self) -> Iterator[Action]:
        """All generators, those of one leaf together."""
        full = {t.weight: t for found in self.translations.values() for t in found if t.full}
        for leaf, space in self.names.items():
            mixing = list[InvertibleMap]()
            if leaf >= 0 and leaf not in self.factors.pins:
                beside = copies(self.axes, self.expansion, leaf, None, self.bearers[leaf][0])
                yield UnitPermutation(f"{space}.permutation", space, leaf, beside)
            turns = self.rotations.get(leaf, [])
            turned = self.planes.get(leaf, [])
            for charge, suffix in zip(turned, _suffixes(len(turned)), strict=True):
                beside = self._beside(leaf, charge)
                yield PlaneRotation(f"{space}.plane{suffix}", space, leaf, beside, charge, tables=self.angles)
            for kind, by_leaf in self.charges.items():
                found = [c for c in by_leaf.get(leaf, []) if kind != "rotation" or _invertible(c)]
                suffixes = _suffixes(len(found) + len(turns) * (kind == "rotation"))
                for charge, suffix in zip(found, suffixes, strict=False):
                    made = self._charged(kind, f"{space}.{kind}{suffix}", leaf, charge)
                    yield made
                    if isinstance(made, InvertibleMap):
                        mixing.append(made)
                        yield from unseen(made, self.program, self.axes, self.expansion, full)
                        yield from unwritten_yet(made, self.program, self.axes, self.expansion, full)
                for turn, suffix in zip(turns if kind == "rotation" else (), suffixes[len(found) :], strict=True):
                    yield self._turn(f"{space}.rotation{suffix}", space, leaf, turn)
            shifts = self.translations.get(leaf, [])
            for shift, suffix in zip(shifts, _suffixes(len(shifts)), strict=True):
                yield Shift(f"{space}.translation{suffix}", space, leaf, translation=shift)
            yield from self._hidden(leaf, space, mixing)

    def _hidden(self, leaf: int, space: str, mixing: Sequence[InvertibleMap]) -> Iterator[UnseenChange]:
        """The changes of single weights that those who read them in the end do not see, where no matrices have them."""
        size = self.factors.size(leaf) if leaf >= 0 else 0
        few = any(
            0 < self._rows(leaf, [Occurrence(name, k, t, 0)]) < size and read_at(self.program, name, k) is not None
            for name in self.bearers.get(leaf, ())
            if len(self.axes.of[name]) > 1
            for k, f in enumerate(self.axes.of[name])
            for t, term in enumerate(self.expansion.terms(f))
            if term.leaves == (leaf,)
        )
        if not few:
            return
        number = 0
        for name in self.bearers[leaf]:
            tensor = self.program.model.tensors[self.program.weights[name]]
            mine = self._shifts.get(name, ())
            if name in self.program.statistics or not tensor.floating or self._stored[tensor.name] > 1:
                continue
            for found in self.narrow.hidden(name, leaf) if not any(t.full for t in mine) else ():
                sides = [
                    widths(a, self.program, self.axes, self.expansion)[-a.charge[found.written]]
                    for a in mixing
                    if found.written in a.charge
                ]
                known = any(side < size for side in sides) or any(covers(t.wave, found.wave) for t in mine)
                if not known:
                    number += 1
                    yield UnseenChange(
                        f"{space}.translation.unread.{number}",
                        space,
                        leaf,
                        (),
                        {found.written: ONE},
                        across=dict.fromkeys(found.read, ONE),
                        pattern=found.wave,
                        passing=found.passing,
                        added=found.added,
                    )

    def _rows(self, leaf: int, places: Sequence[Occurrence]) -> int:
        return rows(leaf, (), dict.fromkeys(places, ONE), self.program, self.axes, self.expansion)

    def nearly(self) -> Iterator[Action]:
        """Rescalings of units that only an epsilon breaks."""
        numbers = Counter[int]()
        for leaf, charge in nearly(self.variables, self.charges["rescaling"]):
            if not self._start(leaf, charge):
                continue
            numbers[leaf] += 1
            space = self.names.setdefault(leaf, f"S{len(self.names) + 1}")
            name = f"{space}.rescaling.nearly.{numbers[leaf]}"
            yield self._charged("rescaling", name, leaf, charge)

    def whole(self, scalings: Sequence[Charge], suffix: str = "") -> Iterator[Action]:
        """The scalings of whole tensors."""
        for charge in scalings:
            first = next(n for n in (*self.program.weights, *self.program.affines) if whole(n) in charge)
            name = self.program.affines[first].gain if first in self.program.affines else first
            leaf = self._single(name)
            space = self.names.setdefault(leaf, f"S{len(self.names) + 1}")
            yield TensorRescaling(f"{space}.rescaling.{first}{suffix}", space, leaf, (), charge)

    def placed(self) -> Iterator[Action]:
        """The scalings of single units that are grouped in several ways."""
        scaled = {leaf for leaf, charges in self.charges["rescaling"].items() if charges}
        numbers = Counter[str]()
        for found in positions(self.program, self.axes, scaled):
            first = next(iter(found.powers))
            leaf = self._single(self.program.affines[first].gain if first in self.program.affines else first)
            space = self.names.setdefault(leaf, f"S{len(self.names) + 1}")
            totals = {name: powers.sum(axis=0).reshape(-1) for name, powers in found.powers.items()}
            even = all((total == total[0]).all() for total in totals.values())  # together they scale whole tensors
            charge = {whole(name): Fraction(float(total[0])) if even else Fraction(0) for name, total in totals.items()}
            numbers[space] += 1
            name = f"{space}.rescaling.positions.{numbers[space]}"
            yield PositionRescaling(name, space, leaf, (), charge, scalings=found)

    def parted(self, scalings: Sequence[Charge]) -> Iterator[Action]:
        """The scalings of whole weights that act on parts of some."""
        for number, charge in enumerate(scalings, start=1):
            first = min((o.tensor for o in charge), key=self._places.__getitem__)
            leaf = self._single(self.program.affines[first].gain if first in self.program.affines else first)
            space = self.names.setdefault(leaf, f"S{len(self.names) + 1}")
            found = scaled(self.program, self.axes, self.expansion, charge)
            yield PositionRescaling(f"{space}.rescaling.parts.{number}", space, leaf, (), charge, scalings=found)

    def exchanges(self) -> Iterator[Action]:
        """The permutations of parts of the network that compute alike."""
        for number, found in enumerate(branches(self.program, self.axes), start=1):
            leaf = -len(self.program.weights) - number
            space = self.names.setdefault(leaf, f"S{len(self.names) + 1}")
            yield PartExchange(f"{space}.branches", space, leaf, branches=found)

    def _single(self, name: str) -> int:
        """What stands for a weight that is moved as a whole."""
        return -1 - self._places[name]

    def _turn(self, name: str, space: str, leaf: int, turn: Turn) -> Action:
        beside = self._beside(leaf, turn.charge)
        return OrthogonalMap(name, space, leaf, beside, turn.charge, fixes_ones=turn.fixes_ones, frames=turn.frames)

    def _charged(self, kind: Kind, name: str, leaf: int, charge: Charge) -> Action:
        space, beside = self.names[leaf], self._beside(leaf, charge)
        if kind == "rotation":
            return InvertibleMap(name, space, leaf, beside, charge)
        moved = tuple(met(self.variables.offsets, {o.tensor for o in charge}))
        return SCALINGS[kind](name, space, leaf, beside, charge, offsets=moved)

    def _beside(self, leaf: int, charge: Charge) -> tuple[int, ...]:
        """The factors on whose index the gauge may depend."""
        places = {(o.tensor, o.axis, o.term) for o in charge}
        start = self._start(leaf, charge)
        assert start, "what moves no weight is no generator"
        return copies(self.axes, self.expansion, leaf, places, start)

    def _start(self, leaf: int, charge: Charge) -> str:
        """The first tensor that a charge moves; none where it scales nothing but the uses of shared zeros."""
        moved = {o.tensor for o in charge}
        held = (n for n in moved if n in self.program.weights and n not in self.program.detached)
        bearing = (n for n in held if any(leaf in self.factors.leaves(f) for f in self.axes.of[n]))
        weight = min(bearing, key=self._places.__getitem__, default="")
        if weight:
            return weight
        affine = min(moved & self.program.affines.keys(), key=self._places.__getitem__, default="")
        composed = next((n for n in self.program.composed if n in moved), "")
        return affine or composed or min(moved & self.program.tied, default="")

    def _bearing(self, translation: Translation) -> int:
        """The leaf of which a translation speaks: of an axis along which it is the same, else of any."""
        name = translation.weight
        classes = translation.wave.classes
        axes = [k for k, c in enumerate(classes) if len(c) > 1]
        for k in sorted(axes, key=lambda k: len(set(classes[k].tolist())) > 1):
            for term in self.expansion.terms(self.axes.of[name][k]):
                if term.leaves and (classes[k][term.positions] >= 0).any():
                    return term.leaves[-1]
        return self._single(name)


def _suffixes(count: int) -> list[str]:
    return [""] if count == 1 else [f".{k}" for k in range(1, count + 1)]


def _invertible(charge: Charge) -> bool:
    """Whether a matrix or its inverse transpose acts wherever something acts."""
    return all(abs(c) == 1 for c in charge.values())
