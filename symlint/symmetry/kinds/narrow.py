"""Narrow readers: what a weight writes where those that read it in the end do not look.

A branch is added to others, multiplied by numbers that all units share, or the largest of several readings is taken;
then layers read it with fewer rows than there are units. Of what the branch writes they do not see the directions
across their rows, whatever else stands in the space: so it may not be under invertible matrices.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field

import numpy as np

from symlint.model.records import dataclass
from symlint.program.functions import dispatched
from symlint.program.steps import Einsum, Fold, Mix, Program, Step, rearranges
from symlint.symmetry.axes.terms import Expansion, Term
from symlint.symmetry.axes.walk import Axes
from symlint.symmetry.charges.unknowns import ONE, Occurrence
from symlint.symmetry.overlap import rows
from symlint.symmetry.translation.absorption import Way
from symlint.symmetry.translation.following import Following
from symlint.symmetry.translation.transition import Blocked
from symlint.symmetry.translation.wave import Kind, Partition, Wave, each

SOON = 4
"""Steps behind a weight that are looked at before it is followed."""


@dataclass(frozen=True, slots=True)
class Hidden:
    """Changes of one weight whose readers have fewer rows over a leaf than it has units."""

    written: Occurrence
    """Where the weight has the units."""
    read: tuple[Occurrence, ...]
    """Where those that would see a change have them."""
    wave: Wave
    """The changes: any, or those that are the same along what else stands beside the units."""
    passing: frozenset[str]
    """The tensors that have a change, on its way."""
    added: frozenset[str]
    """What is added to those, of the same units."""


@dataclass(frozen=True)
class Narrow:
    """The search over one program."""

    program: Program
    axes: Axes
    expansion: Expansion
    following: Following

    def hidden(self, weight: str, leaf: int) -> Iterator[Hidden]:
        """The changes of a weight along a leaf that go to readers of it alone."""
        shape = self.program.shapes[weight]
        places = list(self._places(weight, leaf))
        if len(places) != 1 or self._hopeless(weight):
            return
        axis, t, place = places[0]
        term = self.expansion.terms(self.axes.of[weight][axis])[t]
        for line in _lines(term, place, shape[axis]):
            full = [each(n) for n in shape]
            full[axis] = Partition(line)
            wave = Wave(Kind.CONSTANT, tuple(full))
            readers = _Readers(self, weight, leaf)
            if self.following.follow({weight: wave}, _never, reading=readers) is not None and readers.found:
                written, read = Occurrence(weight, axis, t, place), tuple(readers.found)
                yield Hidden(written, read, wave, frozenset(readers.passing), frozenset(readers.added))
                return

    def _hopeless(self, name: str) -> bool:
        """Whether a function that bends comes soon, as behind most layers."""
        for _ in range(SOON):
            readers = self.program.reading([name])
            if len(readers) != 1:
                return False
            (step,) = readers
            known = step.known
            if step.elementwise and not (step.linear or known.factor or known.chooses or known.largest):
                return True
            if not step.results:
                return False
            name = step.results[0]
        return False

    def _places(self, name: str, leaf: int) -> Iterator[tuple[int, int, int]]:
        """Axis, term and place of every occurrence of a leaf."""
        for axis, f in enumerate(self.axes.of[name]):
            for t, term in enumerate(self.expansion.terms(f)):
                yield from ((axis, t, place) for place, mine in enumerate(term.leaves) if mine == leaf)

    def along(self, name: str, leaf: int) -> int | None:
        """The one axis of a tensor that has a leaf, once; None where there is none.

        Raises Blocked where it stands at several places.
        """
        places = list(self._places(name, leaf))
        if len(places) > 1:
            raise Blocked
        return places[0][0] if places else None

    def occurrence(self, name: str, leaf: int) -> Occurrence:
        """Where a weight reads a leaf, behind nothing but rearrangements.

        Raises Blocked where no weight does, or not the units alone.
        """
        while name not in self.program.weights:
            maker = self.program.producers.get(name)
            if not rearranges(maker):
                raise Blocked
            name = maker.operands[0]
        places = list(self._places(name, leaf))
        if len(places) != 1 or name in self.program.detached:
            raise Blocked
        axis, t, place = places[0]
        if self.expansion.terms(self.axes.of[name][axis])[t].leaves != (leaf,):
            raise Blocked
        return Occurrence(name, axis, t, place)


@dataclass(frozen=True)
class _Readers:
    """What reads the units of a change on its way, step by step; every line of it stays a sum of its first lines."""

    search: Narrow
    weight: str
    leaf: int
    found: dict[Occurrence, None] = field(default_factory=dict)
    passing: set[str] = field(default_factory=set)
    added: set[str] = field(default_factory=set)

    def __call__(self, step: Step, entering: tuple[int, ...], made: Mapping[str, Wave]) -> bool:
        """Whether a step reads the change to its end; raises Blocked where it mixes its units, or tells them apart."""
        if not made:
            return False
        names = [step.operands[k] for k in entering]
        mine = [self.search.along(name, self.leaf) for name in names]
        if any(axis is None for axis in mine):
            raise Blocked
        others = [n for k, n in enumerate(step.operands) if k not in entering]
        beside = [n for n in others if self.search.along(n, self.leaf) is not None]
        if beside and not step.linear:
            self._read(step, entering, mine[0])
            return True
        if any(self.search.along(out, self.leaf) is None for out in made):
            raise Blocked
        if not self._on(step, mine[0], [self.search.along(out, self.leaf) for out in made]):
            raise Blocked
        self.passing.update(made)
        self.added.update(beside)
        return False

    @dispatched
    def _read(self, step: Step, entering: tuple[int, ...], axis: int | None) -> None:
        """Note the weight of a contraction over the units, which stays as it is; anything else tells units apart."""
        raise Blocked

    @_read.register
    def _(self, step: Einsum, entering: tuple[int, ...], axis: int | None) -> None:
        program = self.search.program
        if len(step.operands) != 2 or len(entering) != 1 or axis is None:
            raise Blocked
        (k,) = entering
        held, label = step.operands[1 - k], step.specs[k][axis]
        whole = self.search.expansion.terms(self.search.axes.of[step.operands[k]][axis])
        alone = all(term.leaves == (self.leaf,) for term in whole if self.leaf in term.leaves)
        if not alone or len(label) != 1 or label[0] in step.kept or label not in step.specs[1 - k]:
            raise Blocked
        found = self.search.occurrence(held, self.leaf)
        if program.weights[found.tensor] == program.weights[self.weight]:
            raise Blocked
        self.found[found] = None
        narrow = self.search
        charge = dict.fromkeys(self.found, ONE)
        if rows(self.leaf, (), charge, program, narrow.axes, narrow.expansion) >= narrow.axes.factors.size(self.leaf):
            raise Blocked  # all directions are seen: the way to all the readers behind these would be quadratic

    @dispatched
    def _on(self, step: Step, axis: int | None, made: list[int | None]) -> bool:
        """Whether the units go on as they are, from one axis to another."""
        return True

    @_on.register
    def _(self, step: Mix, axis: int | None, made: list[int | None]) -> bool:
        return all(k is not None and step.keep[k] == axis for k in made)

    @_on.register
    def _(self, step: Fold, axis: int | None, made: list[int | None]) -> bool:
        return axis not in step.axes


def _lines(term: Term, place: int, size: int) -> Iterator[np.ndarray]:
    """The classes of an axis: one for each of its units, or the same along all that stands beside them."""
    line = np.full(size, -1)
    line[term.positions] = np.arange(term.positions.size).reshape(term.positions.shape)
    yield line
    if term.positions.ndim > 1:
        units = np.arange(term.positions.shape[place])
        line = np.full(size, -1)
        line[term.positions] = units.reshape([-1 if k == place else 1 for k in range(term.positions.ndim)])
        yield line


def _never(_: Way) -> bool:
    """Nothing takes the change back."""
    return True
