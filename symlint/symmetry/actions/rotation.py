"""Rotations: matrices that mix units, all invertible ones, orthogonal ones, or turns of pairs of elements."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from symlint.model.graph import Array
from symlint.model.records import dataclass
from symlint.program.numbers import Numbers
from symlint.symmetry.actions.base import Action, Orbit, additive, power
from symlint.symmetry.axes.factor import Factors
from symlint.symmetry.charges.unknowns import Occurrence
from symlint.symmetry.kinds.orthogonal import Frame
from symlint.symmetry.motion.action import transform, turn
from symlint.symmetry.motion.motion import Weights, across_ones, along_matrices, as_divisor, turned
from symlint.symmetry.spaces import Kind

if TYPE_CHECKING:
    from symlint.symmetry.structure import Structure


@dataclass(frozen=True)
class Rotation(Action):
    """What mixes units with each other."""

    kind: ClassVar[Kind] = "rotation"

    def move(self, weights: Weights, element: Array, *, wrong: bool = False) -> None:
        """Mix the units of all weights."""
        moved = [n for n in dict.fromkeys(o.tensor for o in self.charge) if n in weights.structure.program.weights]
        numbers = weights.numbers
        for name in moved[: 1 if wrong else None]:
            weights.put(name, self.mixed(weights, name, element, numbers))

    @abstractmethod
    def mixed(self, weights: Weights, name: str, element: Array, numbers: Numbers) -> Array:
        """A weight with its units mixed; `numbers` are as before the move."""


@dataclass(frozen=True)
class InvertibleMap(Rotation):
    """All invertible matrices act, so that only ranks mean anything."""

    def draw(self, structure: Structure, numbers: Numbers, rng: np.random.Generator) -> Array:
        """An orthogonal matrix whose columns are stretched."""
        form = self.shape(structure)
        basis, _ = np.linalg.qr(rng.standard_normal((*form, form[-1])))
        return np.asarray(basis * np.exp(rng.uniform(-1.0, 1.0, form))[..., None])

    def directions(self, structure: Structure, step: float) -> Iterator[tuple[Array, Array]]:
        """Every entry of every matrix."""
        n = self.shape(structure)[-1]
        return along_matrices(self.shape(structure), np.eye(n), step, skew=False)

    def mixed(self, weights: Weights, name: str, element: Array, numbers: Numbers) -> Array:
        """A weight under the matrix, or its inverse transpose."""
        return self.carried(weights.structure, name, weights.get(name), element)

    def carried(self, structure: Structure, name: str, values: Array, element: Array) -> Array:
        """Units mixed by the matrix, or by its inverse transpose."""
        return transform(values, self.stands(structure, name), element, self.powers(name))

    def group(self, factors: Factors, orbit: Orbit) -> tuple[str, int]:
        """A general linear group per copy."""
        count = self.count(factors)
        return f"GL({factors.size(self.leaf)}){power(count)}", orbit(self) * count


@dataclass(frozen=True)
class OrthogonalMap(Rotation):
    """Orthogonal matrices act, as a norm lets them through."""

    fixes_ones: bool = field(default=False, kw_only=True)
    """Whether they fix the vector of ones, as a mean is subtracted."""
    frames: Mapping[Occurrence, Frame] = field(default_factory=dict, kw_only=True)
    """The gains by which it is conjugated, where there are any."""

    @property
    def framed(self) -> bool:
        """Whether gains tell the units apart."""
        return any(self.frames.values())

    @property
    def carries(self) -> bool:
        """Whether it says what it makes of states."""
        return not self.framed

    def carried(self, structure: Structure, name: str, values: Array, element: Array) -> Array:
        """Units turned by the matrix, where no gain tells them apart."""
        return transform(values, self.stands(structure, name), element, self.powers(name))

    def degrees(self, size: int) -> int:
        """Of freedom, of one such matrix."""
        free = size - self.fixes_ones
        return free * (free - 1) // 2

    def draw(self, structure: Structure, numbers: Numbers, rng: np.random.Generator) -> Array:
        """A random rotation of the units whose gains are alike."""
        gains = {gain for frame in self.frames.values() for gain, _ in frame}
        return turned(self.shape(structure), [numbers.value(g) for g in gains], rng, fixes_ones=self.fixes_ones)

    def directions(self, structure: Structure, step: float) -> Iterator[tuple[Array, Array]]:
        """Turns in the planes of two directions."""
        form = self.shape(structure)
        across = across_ones(form[-1]) if self.fixes_ones else np.eye(form[-1])
        return along_matrices(form, across, step, skew=True)

    def mixed(self, weights: Weights, name: str, element: Array, numbers: Numbers) -> Array:
        """A weight under a matrix g, which acts in the frame D of each occurrence as D g D^-1."""
        values, stood = weights.get(name), self.stands(weights.structure, name)
        if self.carries:
            return self.carried(weights.structure, name, values, element)
        for o, c in self.charge.items():
            if o.tensor != name:
                continue
            frame = np.ones(element.shape[-1])
            for gain, exponent in self.frames.get(o, ()):
                frame = frame * as_divisor(numbers.value(gain)) ** exponent
            values = transform(values, stood, frame[:, None] * element / frame, {(o.axis, o.term, o.place): c})
        return values

    def group(self, factors: Factors, orbit: Orbit) -> tuple[str, int]:
        """An orthogonal group per copy, or what of it fixes the vector of ones."""
        size, count = factors.size(self.leaf), self.count(factors)
        name, exponent = f"O({size})", power(count)
        if self.fixes_ones:
            name = f"({name} fixing 1)" if exponent else f"{name} fixing 1"
        return name + exponent, orbit(self) * count


@dataclass(frozen=True)
class PlaneRotation(Rotation):
    """Pairs of elements are turned, each by the angle of its unit."""

    tables: frozenset[str] = field(default=frozenset(), kw_only=True)
    """Weights of the program that hold angles, as long as they are the same for both elements of a pair."""

    def draw(self, structure: Structure, numbers: Numbers, rng: np.random.Generator) -> Array:
        """An angle per unit."""
        form = self.shape(structure)
        return rng.choice([-1.0, 1.0], form) * rng.uniform(0.3, 2.8, form)

    def directions(self, structure: Structure, step: float) -> Iterator[tuple[Array, Array]]:
        """One angle after another."""
        return additive(self.shape(structure), step)

    def mixed(self, weights: Weights, name: str, element: Array, numbers: Numbers) -> Array:
        """A weight with its pairs turned."""
        return turn(weights.get(name), self.stands(weights.structure, name), element)

    def carried(self, structure: Structure, name: str, values: Array, element: Array) -> Array:
        """The pairs of a state turned."""
        return turn(values, self.stands(structure, name), element) if self.powers(name) else values

    def group(self, factors: Factors, orbit: Orbit) -> tuple[str, int]:
        """A circle per unit and copy."""
        free = factors.size(self.leaf) * self.count(factors)
        return f"SO(2)^{free}", free
