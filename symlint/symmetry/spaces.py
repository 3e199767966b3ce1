"""The result of the inference: which spaces a network's parameters hold, and their generators.

Everything here is frozen data in the words of the design: a *space* is a set of factors over all tensors
that must be transformed together, a *generator* one kind of symmetry on one space.
"""

from __future__ import annotations

from typing import Literal, get_args

from symlint.axes.arena import Pin
from symlint.model.graph import Model
from symlint.model.records import dataclass

Kind = Literal["permutation", "rescaling", "sign", "rotation", "translation"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a space lies in a tensor: ``layout`` writes the whole axis in factor notation, e.g. ``q(h d)+k(h d)``."""

    tensor: str
    axis: int
    layout: str


@dataclass(frozen=True, slots=True)
class Space:
    """A set of factors that is transformed as one; its indices are units."""

    id: str
    size: int
    copies: int
    name: str
    """A readable name from the tensor that writes the space."""
    places: tuple[Place, ...]
    why: tuple[Pin, ...]
    """The nodes that joined the space."""
    pin: Pin | None = None
    """What keeps its units in place."""

    @property
    def reasons(self) -> tuple[str, ...]:
        """Both in words."""
        held = () if self.pin is None else (f"its units stay in place: {self.pin}",)
        return (*map(str, self.why), *held)


@dataclass(frozen=True, slots=True)
class Generator:
    """One kind of symmetry on one space."""

    id: str
    kind: Kind
    space: str
    group: str
    """In words of the field: ``S_64``, ``R_{>0}^64``, ``GL(8)^4`` ..."""
    dimension: int
    """Continuous directions at generic weights; 0 for discrete groups."""
    exact: bool
    tensors: tuple[str, ...]
    """Names of the stored tensors that it moves."""


@dataclass(frozen=True, slots=True)
class Opaque:
    """A parameter that no operator rule reaches, with the node that stopped the inference."""

    tensor: str
    parameters: int
    node: str
    op: str
    reason: str


@dataclass(frozen=True, slots=True)
class Coverage:
    """Weight elements that could have been learned, by how far the inference understands them."""

    total: int
    covered: int
    pinned: int
    opaque: int
    understood: float = 1.0
    """Of the axes of the weights, without those that end at an input or output, the part on which an exact generator
    acts; the mean over each weight's axes, weighted by elements."""
    fixed: int = 0
    """Weight elements that inputs and outputs hold along every axis, of which nothing can be understood or not."""
    reasons: tuple[tuple[str, float], ...] = ()
    """Why axes are not understood, each reason with the weight elements that it takes; the largest first."""

    @property
    def audited(self) -> float:
        """Weight elements of which the axes are understood."""
        return self.understood * (self.total - self.fixed)

    @property
    def unreached(self) -> str:
        """Why nothing was understood, in words; empty where something was."""
        lost = self.total and self.opaque == self.total
        return f"none of its {self.total:,} parameters could be reached" if lost else ""


@dataclass(frozen=True, slots=True)
class Symmetry:
    """All that `symlint inspect` knows of a model."""

    model: Model
    coverage: Coverage
    dimension: int
    spaces: tuple[Space, ...]
    generators: tuple[Generator, ...]
    opaque: tuple[Opaque, ...]
