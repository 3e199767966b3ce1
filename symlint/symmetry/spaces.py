"""The result of the inference: which spaces a network's parameters hold, and their generators.

Everything here is frozen data in the words of the design: a *space* is a set of factors over all tensors
that must be transformed together, a *generator* one kind of symmetry on one space.

Coverage: how many weights the inference understands, and what stopped it at the others.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Literal, get_args

from symlint.model.graph import Model
from symlint.model.records import dataclass
from symlint.program.steps import Program
from symlint.symmetry.axes.arena import Pin, PinKind
from symlint.symmetry.axes.walk import Axes

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


Acted = Mapping[int, Collection[str]]
UNREAD = Pin(PinKind.OPAQUE, "nothing that symlint follows reads it")


def coverage(program: Program, axes: Axes, moved: Collection[str], acted: Acted) -> tuple[Coverage, tuple[Opaque, ...]]:
    """The shares of covered, pinned and opaque weights, and the part of their axes that is understood.

    Args:
        program, axes: of the network.
        moved: the stored tensors that some generator moves.
        acted: leaf -> the stored tensors that an exact generator moves along it.
    """
    total = covered = hidden = 0
    lost: list[Opaque] = []
    held: dict[str, list[str]] = {}
    for name, stored in program.weights.items():
        held.setdefault(stored, []).append(name)
    ends = _Ends(program, axes, acted)
    for stored, size in program.parameters.items():
        total += size
        mine = {x for name in held.get(stored, ()) for f in axes.of[name] for x in axes.factors.leaves(f)}
        pins = [axes.factors.pins.get(x) for x in sorted(mine)]
        missing = next((p for p in pins if p and p.kind is PinKind.OPAQUE), None)
        if stored in moved or None in pins:
            covered += size
        elif missing is not None or stored not in held:
            hidden += size
            lost.append(_opaque(stored, size, missing or UNREAD))
        ends.count(stored, mine, size, known=stored in held)
    shares = Coverage(
        total, covered, total - covered - hidden, hidden, ends.understood(total), ends.fixed, ends.reasons()
    )
    return shares, tuple(lost)


class _Ends:
    """What holds the axes of weights where no generator acts."""

    def __init__(self, program: Program, axes: Axes, acted: Acted) -> None:
        self.factors, self.acted = axes.factors, acted
        carried = {n for loop in program.loops for n in (loop.input, loop.output)}
        inputs, outputs, outer, inner = (
            {x for n in names for f in axes.of.get(n, ()) for x in axes.factors.leaves(f)}
            for names in (program.inputs, program.outputs, program.ends, carried)
        )
        self.states = frozenset(inner - outer if carried else inputs & outputs)
        """Leaves of states alone; where no state is known, those that go in and come out again."""
        self.fixed = 0
        self._acts = 0.0
        self._held: dict[str, float] = {}

    def count(self, stored: str, leaves: Collection[int], size: int, *, known: bool) -> None:
        """Count the axes of one weight."""
        words = [self._word(stored, x) for x in leaves if self.factors.size(x) > 1]
        judged = [word for word in words if word is not None] if known else [UNREAD.text]
        if not judged:
            self.fixed += size
            return
        for word in judged:
            if word:
                self._held[word] = self._held.get(word, 0.0) + size / len(judged)
            else:
                self._acts += size / len(judged)

    def _word(self, stored: str, leaf: int) -> str | None:
        """Why no generator acts on a leaf; empty where one does, None where it has its place in the architecture.

        Inputs, outputs, the window of a convolution and the rows that an input looks up are such places.
        """
        if stored in self.acted.get(leaf, ()):
            return ""
        pin = self.factors.pins.get(leaf)
        if pin is None:
            return "no generator acts"
        if pin.kind is PinKind.BORDER:
            return "a state that goes in and comes out" if leaf in self.states else None
        return None if pin.kind is PinKind.ORDER else pin.text

    def understood(self, total: int) -> float:
        """The part of the axes that are judged on which a generator acts; 1 where there are none."""
        judged = total - self.fixed
        return self._acts / judged if judged else 1.0

    def reasons(self) -> tuple[tuple[str, float], ...]:
        """Reason -> weight elements, the largest first."""
        return tuple(sorted(self._held.items(), key=lambda pair: (-pair[1], pair[0])))


def _opaque(stored: str, size: int, pin: Pin) -> Opaque:
    return Opaque(stored, size, repr(pin.node) if pin.op else "", pin.op, pin.text)
