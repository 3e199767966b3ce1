"""Scalings: units that grow and shrink, change their sign, or a tensor that is scaled as a whole."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from symlint.model.graph import Array
from symlint.model.records import dataclass
from symlint.program.numbers import Numbers
from symlint.program.steps import Affine
from symlint.symmetry.actions.base import Action, Orbit
from symlint.symmetry.axes.factor import Factors
from symlint.symmetry.charges.offsets import Offset
from symlint.symmetry.kinds.positions import Scalings
from symlint.symmetry.kinds.whole import whole
from symlint.symmetry.motion.action import scale
from symlint.symmetry.motion.motion import Weights
from symlint.symmetry.spaces import Kind
from symlint.symmetry.translation.absorption import Back
from symlint.symmetry.translation.element import brought_back

if TYPE_CHECKING:
    from symlint.symmetry.structure import Structure

SPREAD = float(np.log(3.0))
"""Largest logarithm of a scaling: a unit grows or shrinks at most threefold, and at least by a tenth."""


@dataclass(frozen=True)
class Scaling(Action):
    """Units are multiplied by the factors of an element, to the power of the charge.

    Where a constant is added to them, a bias takes it along.
    """

    offsets: tuple[Offset, ...] = field(default=(), kw_only=True)

    def move(self, weights: Weights, element: Array, *, wrong: bool = False) -> None:
        """Scale all weights; of a batch normalisation gain and bias follow scale and shift."""
        program = weights.structure.program
        held = dict.fromkeys(o.tensor for o in self.charge)
        # Signs go through what weights make, from the weights that they flip.
        known = (program.weights, program.affines, program.composed if self.kind == "rescaling" else ())
        moved = [name for name in held if any(name in names for names in known)]
        done: set[str] = set()
        for name in moved[: 1 if wrong else None]:
            step = program.affines.get(name)
            if name in program.composed:
                self._composed(weights, name, element)
            elif step is None:
                weights.put(name, self.scaled(weights.structure, name, weights.get(name), element))
            elif step.gain not in done:
                done.add(step.gain)
                self._affine(weights, step, element)
        for offset in self.offsets if not wrong else ():
            self.take_along(weights, offset, element)

    def _composed(self, weights: Weights, name: str, factor: Array) -> None:
        """What is made of weights moves, and the weights follow."""
        program = weights.structure.program
        after = self.scaled(weights.structure, name, weights.made(name), factor)
        if name in program.lengths:
            for part, values in program.lengths[name].brought(after, *map(weights.get, program.composed[name])).items():
                weights.put(part, values)
            return
        undone = program.positives[name].known.undone
        assert undone is not None
        with np.errstate(divide="ignore"):  # what has become zero by rounding stays so
            weights.put(program.composed[name][0], undone(after))

    def take_along(self, weights: Weights, offset: Offset, factor: Array) -> None:
        """A bias has grown with what it is added to, and grows by what the constant lacks."""
        program, out = weights.structure.program, offset.step.out
        shape = [n if k in offset.axes else 1 for k, n in enumerate(program.shapes[out])]
        added = np.broadcast_to(program.tables[offset.step.operands[offset.table]], shape).astype(np.float64)
        added = added * offset.step.known.sign(offset.table)
        lacking = self.scaled(weights.structure, out, added, factor) - added
        change = brought_back(weights.numbers, Back(offset.step, offset.operand, offset.wave), offset.way, lacking)
        weights.put(offset.way.weight, weights.get(offset.way.weight) + change)

    def _affine(self, weights: Weights, step: Affine, factor: Array) -> None:
        """Scale and shift move; gain and bias follow, and the running statistics stay.

        scale = gain / sqrt(var + epsilon), shift = bias - mean scale.
        """
        structure = weights.structure
        root = np.sqrt(weights.get(step.var) + step.epsilon)
        mean = weights.get(step.mean)
        before = weights.get(step.gain) / root
        shift = weights.get(step.bias) - mean * before
        after = self.scaled(structure, step.scale, before, factor)
        shift = self.scaled(structure, step.shift, shift, factor)
        weights.put(step.gain, after * root)
        weights.put(step.bias, shift + mean * after)

    def scaled(self, structure: Structure, name: str, values: Array, factor: Array) -> Array:
        """A tensor with its units scaled."""
        return scale(values, self.stands(structure, name), factor, self.powers(name))

    def carried(self, structure: Structure, name: str, values: Array, element: Array) -> Array:
        """Units of a state scaled."""
        return self.scaled(structure, name, values, element)


@dataclass(frozen=True)
class SignFlip(Scaling):
    """Units change their signs."""

    kind: ClassVar[Kind] = "sign"

    def draw(self, structure: Structure, numbers: Numbers, rng: np.random.Generator) -> Array:
        """Half of the signs of each copy change."""
        form = self.shape(structure)
        return np.where(rng.permuted(np.broadcast_to(np.arange(form[-1]), form), axis=-1) % 2, 1.0, -1.0)

    def group(self, factors: Factors, orbit: Orbit) -> tuple[str, int]:
        """A sign per unit and copy."""
        return f"Z_2^{factors.size(self.leaf) * self.count(factors)}", 0


@dataclass(frozen=True)
class Rescaling(Scaling):
    """What is scaled by positive factors."""

    kind: ClassVar[Kind] = "rescaling"

    def draw(self, structure: Structure, numbers: Numbers, rng: np.random.Generator) -> Array:
        """Each factor is at most three, or a third, and at least a tenth away from one."""
        form = self.shape(structure)
        return np.exp(rng.choice([-1.0, 1.0], form) * rng.uniform(0.1, SPREAD, form))

    def directions(self, structure: Structure, step: float) -> Iterator[tuple[Array, Array]]:
        """One factor after another."""
        form = self.shape(structure)
        for k in range(int(np.prod(form, dtype=np.int64))):
            ahead = np.ones(form)
            ahead.flat[k] = np.exp(step)
            yield ahead, 1 / ahead

    @abstractmethod
    def group(self, factors: Factors, orbit: Orbit) -> tuple[str, int]:
        """Positive factors."""


@dataclass(frozen=True)
class UnitRescaling(Rescaling):
    """Units are scaled by positive factors."""

    def group(self, factors: Factors, orbit: Orbit) -> tuple[str, int]:
        """A positive factor per unit and copy."""
        free = factors.size(self.leaf) * self.count(factors)
        return f"R_{{>0}}^{free}", free


@dataclass(frozen=True)
class PositionRescaling(Rescaling):
    """Units are scaled by positive factors where they lie, on axes that are grouped in several ways."""

    scalings: Scalings = field(kw_only=True, compare=False)

    def shape(self, structure: Structure) -> tuple[int, ...]:
        """A factor per scaling."""
        return (self.scalings.dimension,)

    def scaled(self, structure: Structure, name: str, values: Array, factor: Array) -> Array:
        """A tensor element by element."""
        powers = self.scalings.powers.get(name)
        return values if powers is None else values * np.exp(np.tensordot(np.log(factor), powers, 1))

    @property
    def reached(self) -> frozenset[int]:
        """All that the units are made of."""
        return self.scalings.leaves

    @property
    def carries(self) -> bool:
        """Only weights have exponents."""
        return False

    def group(self, factors: Factors, orbit: Orbit) -> tuple[str, int]:
        """A positive factor per scaling."""
        return f"R_{{>0}}^{self.scalings.dimension}", self.scalings.dimension


@dataclass(frozen=True)
class TensorRescaling(Rescaling):
    """Whole tensors are scaled by powers of one positive factor."""

    def shape(self, structure: Structure) -> tuple[int, ...]:
        """One factor."""
        return (1,)

    def scaled(self, structure: Structure, name: str, values: Array, factor: Array) -> Array:
        """A tensor scaled as a whole."""
        return values * factor ** float(self.charge.get(whole(name), 0))

    @property
    def carries(self) -> bool:
        """Only weights have a charge."""
        return False

    def group(self, factors: Factors, orbit: Orbit) -> tuple[str, int]:
        """One positive factor."""
        return "R_{>0}", 1
