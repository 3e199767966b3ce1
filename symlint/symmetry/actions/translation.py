"""Translations: changes of a weight that others take back, or that nothing sees."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import field
from math import isfinite, prod
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from symlint.model.graph import Array, Shape
from symlint.model.records import dataclass
from symlint.program.numbers import Numbers
from symlint.symmetry.actions.base import Action, Orbit, additive
from symlint.symmetry.axes.factor import Factors
from symlint.symmetry.charges.unknowns import Charge
from symlint.symmetry.motion.action import Index, Stand, transform
from symlint.symmetry.motion.motion import Weights, on_a_grid
from symlint.symmetry.spaces import Kind
from symlint.symmetry.translation.course import Translation
from symlint.symmetry.translation.element import averaged, changes, steepness, written
from symlint.symmetry.translation.wave import Wave

# Lines: a weight as rows over the units of a space, each with the copy that it belongs to.


def lines(values: Array, stand: Stand, sizes: Sequence[int]) -> tuple[Array, Index]:
    """One occurrence of a space in a weight: (rows, n), and per row the copy, copy-major; -1 where it is not there.

    Args:
        values: the weight.
        stand: the occurrence.
        sizes: of the copy factors, in the order of the stand.
    """
    rest = [k for k in range(values.ndim) if k not in (*stand.others, stand.axis)]
    lead = len(stand.others)
    flat = values.transpose(*stand.others, *rest, stand.axis)
    flat = flat.reshape(*flat.shape[:lead], -1, flat.shape[-1])
    owner = stand.owners(sizes, flat.shape[:lead])
    whole = np.array_equal(stand.grid.reshape(-1), np.arange(flat.shape[-1]))  # then nothing has to be gathered
    block = flat.reshape(*flat.shape[:-1], *stand.grid.shape) if whole else flat[..., stand.grid]
    block = np.moveaxis(block, lead + 1 + stand.place, -1)
    owner = owner.reshape((*owner.shape[:lead], 1, *owner.shape[lead:]))
    return block.reshape(-1, block.shape[-1]), np.broadcast_to(owner, block.shape[:-1]).reshape(-1)


if TYPE_CHECKING:
    from symlint.symmetry.structure import Structure

LEAST, MOST = 0.05, 32.0
"""A translation moves each of its weights by this share of its largest element, if that takes no larger growth."""
DRAWS = 8
"""Of so many bent changes, and as many of the other sign, the best is taken."""
NOTHING = 1e-12
"""An eigenvalue of a Gram matrix relative to the largest: what is below is no direction."""


@dataclass(frozen=True)
class Shift(Action):
    """A weight is changed along a pattern; an element has a number per class of every axis of it."""

    kind: ClassVar[Kind] = "translation"

    translation: Translation = field(kw_only=True)

    def shape(self, structure: Structure) -> Shape:
        """A number per class of every axis."""
        return self.translation.shape

    def draw(self, structure: Structure, numbers: Numbers, rng: np.random.Generator) -> Array:
        """Numbers of the size of the weight's; of a bent change those that are the easiest to take back."""
        form, weight = self.shape(structure), numbers.value(self.translation.weight)
        if not self.translation.bent:
            return _drawn(form, weight, rng)
        drawn = [sign * size for size in (_drawn(form, weight, rng) for _ in range(DRAWS)) for sign in (1.0, -1.0)]
        return max(drawn, key=lambda size: steepness(self.translation, numbers, size))

    def directions(self, structure: Structure, step: float) -> Iterator[tuple[Array, Array]]:
        """One number after another."""
        return additive(self.shape(structure), step)

    def move(self, weights: Weights, element: Array, *, wrong: bool = False) -> None:
        """Change the weight and what takes that back."""
        for name, change in (self._misled if wrong else self._translated)(weights, element):
            weights.put(name, weights.get(name) + change)

    def _translated(self, weights: Weights, size: Array) -> list[tuple[str, Array]]:
        """The changes, grown until none of the weights stays within a few percent of itself."""
        found = list(changes(self.translation, weights.numbers, size))
        most = {name: float(np.abs(weights.get(name)).max(initial=0)) for name, _ in found}
        shares = [float(np.abs(c).max(initial=0)) / most[n] for n, c in found if most[n] and c.any()]
        growth = 2.0 ** np.ceil(np.log2(min(max(1.0, LEAST / min(shares, default=1.0)), MOST)))
        if self.translation.bent and growth > 1:
            return list(changes(self.translation, weights.numbers, size * growth))
        return [(name, change * growth) for name, change in found]

    def _misled(self, weights: Weights, size: Array) -> list[tuple[str, Array]]:
        """A change of the same size that is none: of the weight alone and in any pattern, or of its neighbour."""
        (name, change), *others = changes(self.translation, weights.numbers, size)
        target = name
        if self.translation.full and not others:
            program = weights.structure.program
            order = [n for n in program.weights if n != name and program.model.tensors[program.weights[n]].floating]
            target = next((n for n in order if program.shapes[n] == program.shapes[name]), order[0] if order else name)
        value = weights.get(target)
        rng = np.random.default_rng(size.size)
        return [(target, rng.permutation(np.resize(np.ravel(change), value.size)).reshape(value.shape) + 0.0 * value)]

    def group(self, factors: Factors, orbit: Orbit) -> tuple[str, int]:
        """A real number per direction."""
        return f"R^{self.translation.dimension}", self.translation.dimension

    def tensors(self, bearers: Mapping[int, Sequence[str]], stored: Mapping[str, Sequence[str]]) -> set[str]:
        """The weight, and those that take its change back."""
        ends = (self.translation.weight, *(way.weight for way in self.translation.absorbers))
        return {t for name in ends for t in stored[name]}


@dataclass(frozen=True)
class UnseenChange(Action):
    """One weight is changed where the other side of a space, or what reads it in the end, does not see it."""

    kind: ClassVar[Kind] = "translation"

    across: Charge = field(kw_only=True)
    """Where what would see it meets the units, which need not reach all of them."""
    freed: tuple[Translation, ...] = field(default=(), kw_only=True)
    """Of what else meets them: changes that others take back, as if it were zero."""
    pattern: Wave | None = field(default=None, kw_only=True)
    """What the changes are the same along; None where it is not the weight alone of which the other side sees less."""
    passing: frozenset[str] = field(default=frozenset(), kw_only=True)
    """The tensors that have a change, where it is of the weight alone."""
    added: frozenset[str] = field(default=frozenset(), kw_only=True)
    """What is added to those, of the same units."""
    gone: tuple[Translation, ...] = field(default=(), kw_only=True)
    """Of what else meets them: changes that the rest of it takes back, which then has all that was in them."""

    @property
    def weight(self) -> str:
        """The weight of the program that is changed."""
        return next(iter(self.charge)).tensor

    def shape(self, structure: Structure) -> Shape:
        """That of the weight."""
        return structure.program.shapes[self.weight]

    def draw(self, structure: Structure, numbers: Numbers, rng: np.random.Generator) -> Array:
        """Any change of the size of the weight's numbers."""
        return _drawn(self.shape(structure), numbers.value(self.weight), rng)

    def directions(self, structure: Structure, step: float) -> Iterator[tuple[Array, Array]]:
        """One number after another."""
        return additive(self.shape(structure), step)

    def move(self, weights: Weights, element: Array, *, wrong: bool = False) -> None:
        """Change the weight by what of the element nothing sees."""
        structure = weights.structure
        moves = [(self.weight, self._masked(structure, element))] if wrong else ()
        for name, change in moves or list(self.changes(structure, element, weights.get)):
            weights.put(name, weights.get(name) + change)

    def tensors(self, bearers: Mapping[int, Sequence[str]], stored: Mapping[str, Sequence[str]]) -> set[str]:
        """The weight, and those that take back what it makes of biases."""
        ends = {way.weight for translation in self.freed for way in translation.absorbers}
        return super().tensors(bearers, stored).union(*(stored[name] for name in ends))

    def changes(
        self,
        structure: Structure,
        change: Array,
        read: Callable[[str], Array],
        rounding: float = 0.0,
        kinds: Array | None = None,
    ) -> Iterator[tuple[str, Array]]:
        """What of a change of the weight is not seen but by `rounding`, and what takes back what it makes of biases."""
        part = self.hidden(structure, change, read, rounding, kinds)
        yield self.weight, part
        program = structure.program
        stored = program.weights[self.weight]
        ahead = Numbers(program, lambda name: read(name) + part if program.weights[name] == stored else read(name))
        for translation in self.freed:
            # As if the bias went to zero before the change and came back after it.
            gone, back = (
                changes(translation, now, read(translation.weight)) for now in (Numbers(program, read), ahead)
            )
            for (name, before), (_, after) in zip(gone, back, strict=True):
                if name != translation.weight:
                    yield name, after - before

    def hidden(
        self,
        structure: Structure,
        change: Array,
        read: Callable[[str], Array],
        rounding: float = 0.0,
        kinds: Array | None = None,
    ) -> Array:
        """The part of any change of the weight that the other side does not see.

        That is all of it along a line of which no more than a share of `rounding` is seen, of the most that can be.
        What is left of it lies, as far as it can, in multiples of the columns of `kinds`, which has a row per unit.
        """
        sight = self._sight(structure, self._without(structure, read))
        if sight is None:
            return np.zeros_like(change)
        length, basis = sight
        sizes, n = [structure.axes.factors.size(c) for c in self.copies], length.shape[-1]
        stood, powers = self._met(structure, self.weight, self.charge), self.powers(self.weight)
        whole = self._masked(structure, change)

        def turned(values: Array, matrix: Array) -> Array:
            return transform(values, stood, matrix.swapaxes(1, 2).reshape(*sizes, n, n), powers)

        shown = basis * np.sqrt(length)[:, None]
        null = np.einsum("cik,ck,cjk->cij", basis, (length <= NOTHING).astype(float), basis)
        free = whole
        if kinds is not None:
            apart = np.eye(n) - shown @ np.linalg.pinv(kinds.T @ shown, NOTHING**0.5) @ kinds.T
            shown, null, free = apart @ shown, apart @ null, turned(whole, apart)
        part = turned(whole, null)
        if not rounding:
            return part
        # Where the other side sees some directions little, rounding turns what it does not see towards them.
        summed, seen = np.ones((len(length), n, n)), turned(whole, shown)
        np.square(seen, out=seen)
        seen = turned(seen, summed)
        return np.where(seen <= rounding**2 * turned(whole**2, summed), free, part)

    def _sight(self, structure: Structure, read: Callable[[str], Array]) -> tuple[Array, Array] | None:
        """How much the other side sees of each direction, of the most, and these; None before what is no number."""
        size = structure.axes.factors.size
        sizes, n = [size(c) for c in self.copies], size(self.leaf)
        gram = np.zeros((prod(sizes), n, n))
        pieces = [
            lines(read(name).astype(np.float64), stand, sizes)
            for name in dict.fromkeys(o.tensor for o in self.across)
            for stand in self._met(structure, name, self.across)
        ]
        largest = max((float(np.abs(rows).max(initial=0.0)) for rows, _ in pieces), default=0.0)
        if not isfinite(largest):
            return None
        for rows, owner in pieces:
            for copy in range(len(gram)):
                part = rows[owner == copy] / (largest or 1.0)
                gram[copy] += part.T @ part
        length, basis = np.linalg.eigh(gram)
        most = length.max(axis=-1, keepdims=True)
        return np.maximum(length, 0.0) / np.where(most > 0, most, 1.0), basis

    def _without(self, structure: Structure, read: Callable[[str], Array]) -> Callable[[str], Array]:
        """The weights after those changes that take what is gone to zero."""
        now: dict[str, Array] = {}

        def given(name: str) -> Array:
            return now[name] if name in now else read(name)

        for translation in self.gone:
            size = -given(translation.weight)
            for name, change in list(changes(translation, Numbers(structure.program, given), size)):
                now[name] = given(name) + change
        return given

    def _masked(self, structure: Structure, change: Array) -> Array:
        """A change of the weight where it holds the space, and zero elsewhere."""
        here = np.zeros(change.shape, bool)
        for stand in self._met(structure, self.weight, self.charge):
            shape = np.broadcast_shapes(stand.here.shape, (1,) * len(stand.others) + stand.grid.shape)
            length = change.shape[stand.axis]
            here = here | stand.along(change.shape, np.broadcast_to(stand.here, shape), np.zeros(length, bool))
        if self.pattern is None:
            return np.where(here, change, 0.0)
        return written(averaged(change, self.pattern), self.pattern)

    def _met(self, structure: Structure, name: str, charge: Charge) -> list[Stand]:
        wanted = {(o.axis, o.term, o.place) for o in charge if o.tensor == name}
        return [s for s in self.stands(structure, name) if (s.axis, s.term, s.place) in wanted]

    def group(self, factors: Factors, orbit: Orbit) -> tuple[str, int]:
        """A real number per direction that is not counted with another weight."""
        free = orbit(self) * self.count(factors)
        return f"R^{free}", free


def _drawn(form: Shape, weight: Array, rng: np.random.Generator) -> Array:
    return on_a_grid(rng.normal(size=form), 0.5 * float(np.abs(weight).mean()) or 0.1)
