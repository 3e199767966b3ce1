"""Courses: a change of one weight, with the steps that it goes through and what takes it back."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from symlint.model.records import dataclass
from symlint.program.steps import Einsum, Normalise, Step
from symlint.symmetry.translation.absorption import Way
from symlint.symmetry.translation.null import Null
from symlint.symmetry.translation.wave import Kind, Wave


@dataclass(frozen=True, slots=True)
class Visit:
    """A step that a change goes through, and the operands by which it enters."""

    step: Step
    entering: tuple[int, ...]
    made: Mapping[str, Wave]
    ways: tuple[tuple[int, Way], ...]
    """At a sum: the operand and the way by which it is taken back."""
    average: Null | None = None
    """At a contraction with weights that depend on the input: to what they sum, one or a number that constants make."""
    bent: Nowhere | None = None
    """At a contraction: the weight that takes the change back, along the null of what it is read with."""

    @property
    def onward(self) -> Mapping[str, Wave]:
        """What goes on: of a batch normalisation whose bias takes the shift back, the scale."""
        if self.bent is not None:
            return {}
        return {name: wave for name, wave in self.made.items() if name != self.step.total} if self.ways else self.made


@dataclass(frozen=True, slots=True)
class Nowhere:
    """A change of a weight along the null of what it reads: it contributes a number, or nothing."""

    step: Einsum
    way: Way
    """From the contraction's operand back to the weight."""
    tensor: str
    axis: int
    null: Null
    others: tuple[Einsum, ...] = ()
    """Further contractions with the weight, along the same null."""


@dataclass(frozen=True, slots=True)
class Translation:
    """A change of one weight that the network's function does not see."""

    weight: str
    wave: Wave
    visits: tuple[Visit, ...]
    nowhere: Nowhere | None = None

    @property
    def dimension(self) -> int:
        """How many independent changes there are."""
        return prod(self.shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of classes of each axis: a change is given by one number for each choice of them."""
        return self.wave.shape

    @property
    def full(self) -> bool:
        """Whether any change of the weight is one."""
        return self.nowhere is None and all(p.count == len(p) for p in self.wave.partitions)

    @property
    def free(self) -> bool:
        """Whether elements of the weight change one by one, all of them or those of a part of an axis."""
        return self.nowhere is None and all(
            len(set(m)) == len(m) for c in self.wave.classes if (m := c[c >= 0].tolist())
        )

    @property
    def absorbers(self) -> tuple[Way, ...]:
        """How other weights take it back."""
        bent = tuple(visit.bent.way for visit in self.visits if visit.bent is not None)
        return (*(way for visit in self.visits for _, way in visit.ways), *bent)

    @property
    def nulls(self) -> tuple[Nowhere, ...]:
        """Where weights change along the null of what they read."""
        bent = (visit.bent for visit in self.visits)
        return tuple(nowhere for nowhere in (self.nowhere, *bent) if nowhere is not None)

    @property
    def bent(self) -> bool:
        """Whether what takes the change back depends on its size, so that it must not be of any size."""
        return any(visit.bent is not None for visit in self.visits)

    @property
    def gained(self) -> bool:
        """Whether others take it back divided by weights, so that there is none of it where these are zero."""
        return any(way.gained for way in self.absorbers)

    @property
    def sinks(self) -> frozenset[str]:
        """The normalisations that do not see it."""
        ends = {v.step.function for v in self.visits if isinstance(v.step, Normalise) and not v.made}
        if self.nowhere is not None and not self.nowhere.null.total:
            ends.add("standardise")
        return frozenset(ends)

    @property
    def averaged(self) -> bool:
        """Whether it goes through an average, such as that of an attention."""
        constant = (v for v in self.visits if v.average is not None)
        return any(w.kind is Kind.CONSTANT for v in constant for w in v.made.values())
