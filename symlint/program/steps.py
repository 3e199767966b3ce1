"""The few primitives into which every operator is lowered; each analysis interprets only these.

A program is a list of steps over named tensors of known shape. Labels write an axis in factor notation: the spec
``(("b",), ("h", "d"))`` is ``b (h d)``, and ``()`` is an axis of size 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import field
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, TypeGuard, TypeVar

import numpy as np

from symlint.model.graph import Array, Model, Node, Shape
from symlint.model.records import dataclass
from symlint.model.shapes.known import listed
from symlint.program.functions import Function, MixKind, function, standard

if TYPE_CHECKING:
    from symlint.program.recognise import Length
    from symlint.program.translate import Lowering

Spec = tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Law:
    """How an output answers when its operands are scaled by positive numbers.

    ``sum``: all operands and the output scale alike (Add, Max, Concat); ``product``: exponents add, each times its
    degree, and an operand of degree None must not be scaled (Mul, Div, Sqrt); ``none``: nothing may be scaled.
    """

    kind: Literal["sum", "product", "none"]
    degrees: tuple[Fraction | None, ...] = ()


SUM = Law("sum")
NONE = Law("none")
SAME = Law("product", (Fraction(1),))
CONSTANT = Law("product", (Fraction(0),))
"""It takes away what acts on its operand."""

GRID = "Grid"
"""The function of a Pointwise that rounds its first operand to multiples of the second: zero stays zero."""
RANGE = "range"
"""The function of a Fold that sees how far its numbers reach from zero: zeros do not count."""


class _Step:
    """What most steps do not do."""

    __slots__ = ()
    windows: tuple[Window, ...] = ()

    @property
    def known(self) -> Function:
        """What is known of the function of numbers that it computes, if it computes one."""
        return function(self.function)  # type: ignore[attr-defined]

    @property
    def at_run_time(self) -> bool:
        """Whether what it takes from where may depend on the inputs."""
        return False

    @property
    def computable(self) -> bool:
        """Whether what it makes of known numbers can be computed here."""
        return False

    @property
    def elementwise(self) -> bool:
        """Whether it computes number by number."""
        return False

    @property
    def complete(self) -> bool:
        """Whether it says itself all that it does, whatever the node that it is a part of."""
        return False

    @property
    def total(self) -> str:
        """What it makes by adding operands up, so that one takes back what another changes; nothing of most."""
        return ""

    @property
    def product(self) -> bool:
        """Whether it is a product of several tensors, summed over labels or not."""
        return False

    @property
    def joint(self) -> tuple[int, ...]:
        """The axes along which it sees all units together, in whatever order."""
        return ()

    def across(self, rank: int) -> tuple[int, ...]:
        """The axes of an operand of `rank` along which units do not just go on, each for itself.

        It sees them together, cuts them, puts others beside them, or acts in a fixed order. What a contraction does
        its labels say.
        """
        return self.joint


class _Made(_Step):
    """A step that makes one tensor."""

    __slots__ = ()
    out: str

    @property
    def results(self) -> tuple[str, ...]:
        """The tensors that it makes."""
        return (self.out,)


class _Mapped(_Made):
    """A step that makes one tensor of one."""

    __slots__ = ()
    x: str

    @property
    def operands(self) -> tuple[str, ...]:
        """The tensors that it reads."""
        return (self.x,)


@dataclass(frozen=True, slots=True)
class Einsum(_Made):
    """A multilinear contraction: the product of the operands, summed over labels that the result lacks."""

    out: str
    operands: tuple[str, ...]
    specs: tuple[Spec, ...]
    result: Spec
    sizes: Mapping[str, int]
    node: Node
    function: ClassVar[str] = ""
    computable: ClassVar[bool] = True
    complete: ClassVar[bool] = True

    @property
    def linear(self) -> bool:
        """Whether it is linear in all that it reads together: it sums, copies and rearranges one tensor."""
        return len(self.operands) == 1

    @property
    def product(self) -> bool:
        """Whether it is a product of several tensors, and not a rearrangement of one."""
        return len(self.operands) > 1

    @property
    def kept(self) -> frozenset[str]:
        """The labels of the result; it sums over the others."""
        return frozenset(label for axis in self.result for label in axis)


@dataclass(frozen=True, slots=True)
class Pointwise(_Made):
    """An elementwise function of operands that broadcast."""

    out: str
    operands: tuple[str, ...]
    law: Law
    function: str
    """The ONNX operator that computes it."""
    node: Node

    elementwise: ClassVar[bool] = True

    @property
    def linear(self) -> bool:
        """Whether it adds its operands, or is its operand, perhaps with other signs."""
        return self.known.sums or self.known.passes

    @property
    def total(self) -> str:
        """Its result, where that is a sum."""
        return self.out if self.known.sums else ""

    @property
    def computable(self) -> bool:
        """Whether ONNX has the function, and it can be computed here."""
        return listed(standard(self.function))


@dataclass(frozen=True, slots=True)
class Concat(_Made):
    """Operands put one behind the other along an axis."""

    out: str
    operands: tuple[str, ...]
    axis: int
    node: Node
    function: ClassVar[str] = ""
    computable: ClassVar[bool] = True
    complete: ClassVar[bool] = True
    linear: ClassVar[bool] = True

    def across(self, rank: int) -> tuple[int, ...]:
        """Its axis."""
        return (self.axis,)


@dataclass(frozen=True, slots=True)
class Slice(_Mapped):
    """The indices from start to stop of one axis."""

    out: str
    x: str
    axis: int
    start: int
    stop: int
    node: Node
    function: ClassVar[str] = ""
    computable: ClassVar[bool] = True
    complete: ClassVar[bool] = True
    linear: ClassVar[bool] = True

    def across(self, rank: int) -> tuple[int, ...]:
        """Its axis."""
        return (self.axis,)


class Middle(NamedTuple):
    """The place of one axis of a window at which it sees, along another axis, every so manieth of what it reads."""

    source: int
    """The axis that it reads."""
    place: int
    kernel: int
    at: int
    stride: int


class Window(NamedTuple):
    """What of an axis each place of a window's result sees: place o and tap k read o stride - before + k apart."""

    source: int
    """The axis that it reads."""
    place: int
    kernel: int | None
    """The axis of its taps; None where it has taken them together."""
    taps: int
    stride: int
    apart: int
    before: int


@dataclass(frozen=True, slots=True)
class Mix(_Mapped):
    """A map that acts along some axes in a fixed order: convolution windows, resizing, lookups, cumulative sums.

    ``keep[k]`` is the axis of ``x`` that output axis ``k`` is, or None for a new axis with units of its own.
    """

    out: str
    x: str
    keep: tuple[int | None, ...]
    law: Law
    kind: MixKind
    steady: bool
    """Whether a tensor that is constant along the axes keeps its value: nothing is padded or summed."""
    linear: bool
    """Whether the map is linear; a maximum is only positively homogeneous."""
    node: Node
    function: ClassVar[str] = ""
    chosen: tuple[int, tuple[int, ...]] | None = None
    """Where it only chooses among the units of one axis, which is not kept: the axis, and the indices in order."""
    centre: tuple[Middle, ...] = ()
    """Of a window: where all of its places together are what it reads, or a part of that as its strides have it."""
    windows: tuple[Window, ...] = ()
    """Of a window, where that is known: what it sees. Beyond the ends are zeros, or with taps together nothing."""

    @property
    def sources(self) -> tuple[int | None, ...]:
        """The axis of ``x`` whose units, all or chosen ones, each output axis has; None for an axis of its own."""
        if self.chosen is None:
            return self.keep
        return tuple(self.chosen[0] if k == self.chosen[0] else source for k, source in enumerate(self.keep))

    @property
    def largest(self) -> bool:
        """Whether it takes the largest of what each of its windows holds."""
        return self.kind is MixKind.POOLING and function(self.node.op).extreme is not None

    @property
    def at_run_time(self) -> bool:
        """Whether what it takes from where depends on the inputs."""
        return self.kind.at_run_time

    def across(self, rank: int) -> tuple[int, ...]:
        """The axes that are not kept."""
        return tuple(k for k in range(rank) if k not in self.keep)


@dataclass(frozen=True, slots=True)
class Normalise(_Mapped):
    """A map along axes that commutes with their permutations and keeps the shape: softmax, normalisation."""

    out: str
    x: str
    axes: tuple[int, ...]
    law: Law
    function: str
    node: Node
    linear: ClassVar[bool] = False

    @property
    def joint(self) -> tuple[int, ...]:
        """All its axes."""
        return self.axes


@dataclass(frozen=True, slots=True)
class Fold(_Mapped):
    """A symmetric, not linear reduction over axes (maximum, L2 norm); the axes leave the shape."""

    out: str
    x: str
    axes: tuple[int, ...]
    law: Law
    function: str
    node: Node
    linear: ClassVar[bool] = False

    @property
    def joint(self) -> tuple[int, ...]:
        """All its axes."""
        return self.axes


@dataclass(frozen=True, slots=True)
class Affine(_Step):
    """Batch normalisation as x scale + shift: scale = gain / sqrt(var + epsilon), shift = bias - mean scale."""

    scale: str
    shift: str
    gain: str
    bias: str
    mean: str
    var: str
    epsilon: float
    node: Node
    function: ClassVar[str] = ""
    computable: ClassVar[bool] = True
    linear: ClassVar[bool] = False

    @property
    def operands(self) -> tuple[str, ...]:
        """The tensors that it reads."""
        return (self.gain, self.bias, self.mean, self.var)

    @property
    def results(self) -> tuple[str, ...]:
        """The tensors that it makes."""
        return (self.scale, self.shift)

    @property
    def total(self) -> str:
        """The shift."""
        return self.shift


@dataclass(frozen=True, slots=True)
class Unknown(_Step):
    """An operator without a rule, or one whose shapes are unknown: whatever it touches is opaque."""

    outs: tuple[str, ...]
    operands: tuple[str, ...]
    reason: str
    opaque: bool
    """False where the reason is a true one, such as indices that are computed at run time."""
    node: Node
    missing: tuple[str, ...] = ()
    """What the node reads beside the operands: tensors of the model that the program does not have."""
    function: ClassVar[str] = ""
    linear: ClassVar[bool] = False

    @property
    def results(self) -> tuple[str, ...]:
        """The tensors that it makes."""
        return self.outs

    @property
    def at_run_time(self) -> bool:
        """It may, as nobody knows what it does."""
        return True


Step = Einsum | Pointwise | Concat | Slice | Mix | Normalise | Fold | Affine | Unknown
"""Every step has ``operands`` and ``results``, the ``node`` that it is a part of, the ``function`` of numbers that it
computes, or ``""`` where it only multiplies, adds, moves and chooses them, and ``linear``: whether it is that in all
that it reads together."""
S = TypeVar("S", Einsum, Pointwise, Mix, Normalise, Affine, Unknown)


@dataclass(frozen=True, slots=True)
class Loop:
    """A state in the program: what leaves by an output comes back by an input, and nobody looks into it."""

    input: str
    output: str
    axes: tuple[int, ...]
    """Those of one size on both sides; the one that is left out grows with time."""
    flows: bool = False
    """Whether the program has what it holds without it, as a map of what was put into it."""
    begun: bool = True
    """Whether it is known to begin with zeros."""


@dataclass(frozen=True)
class Program:
    """A network in primitives."""

    model: Model
    steps: tuple[Step, ...]
    shapes: Mapping[str, Shape]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weights: Mapping[str, str]
    """Tensor of the program -> stored tensor that it is; a constant shared tensor is one per use."""
    tables: Mapping[str, Array] = field(default_factory=dict)
    """Tensor of the program -> its value, where it depends on no weight."""
    detached: Mapping[str, str] = field(default_factory=dict)
    """Uses of a stored tensor that is shared and constant, so that its uses need not be permuted alike."""
    stray: tuple[str, ...] = ()
    """Stored tensors that no step reads, because they only enter shapes and indices."""
    whole: Lowering | None = field(default=None, repr=False, compare=False)
    """The same network before anything was left out or put otherwise."""
    loops: tuple[Loop, ...] = ()
    """What is carried from one step of the network to the next, if that is taken into account."""

    @cached_property
    def ends(self) -> tuple[str, ...]:
        """The inputs that others give, and the outputs that others read: no loop is closed over them."""
        inner = {name for loop in self.loops for name in (loop.input, loop.output)}
        return tuple(name for name in (*self.inputs, *self.outputs) if name not in inner)

    @cached_property
    def finals(self) -> frozenset[str]:
        """The outputs that somebody reads, be it the network itself at its next step."""
        return frozenset(self.outputs) - {loop.output for loop in self.loops if loop.flows}

    def _all(self, kind: type[S]) -> tuple[S, ...]:
        return tuple(step for step in self.steps if isinstance(step, kind))

    @cached_property
    def contractions(self) -> tuple[Einsum, ...]:
        """Every product that is summed over labels, in order, and every rearrangement of one tensor."""
        return self._all(Einsum)

    @cached_property
    def elementwise(self) -> tuple[Pointwise, ...]:
        """Every elementwise function, in order."""
        return self._all(Pointwise)

    @cached_property
    def mixes(self) -> tuple[Mix, ...]:
        """Every map in a fixed order, in order."""
        return self._all(Mix)

    @cached_property
    def norms(self) -> tuple[Normalise, ...]:
        """Every softmax and normalisation, in order."""
        return self._all(Normalise)

    @cached_property
    def batch_norms(self) -> tuple[Affine, ...]:
        """Every batch normalisation, in order."""
        return self._all(Affine)

    @cached_property
    def unknowns(self) -> tuple[Unknown, ...]:
        """Every step of which nobody knows what it does, in order."""
        return self._all(Unknown)

    @cached_property
    def parameters(self) -> Mapping[str, int]:
        """Stored tensor -> number of weight elements that could have been learned: to tell them, weights are read."""
        from symlint.program.translate import parameters

        return parameters(self)

    @cached_property
    def affines(self) -> dict[str, Affine]:
        """The step behind each scale and shift of a batch normalisation."""
        return {name: step for step in self.batch_norms for name in step.results}

    @cached_property
    def positives(self) -> dict[str, Pointwise]:
        """What a function onto all positive numbers makes of a weight that nothing else reads -> the function."""
        return {
            step.out: step
            for step in self.elementwise
            if step.known.undone is not None
            and len(step.operands) == 1
            and step.operands[0] in self.weights
            and step.operands[0] not in self.detached
            and self.reads[step.operands[0]] == 1
            and self.model.tensors[self.weights[step.operands[0]]].floating
        }

    @cached_property
    def lengths(self) -> dict[str, Length]:
        """What a direction and a length make that nothing else reads -> the two."""
        from symlint.program.recognise import lengths

        return lengths(self)

    @cached_property
    def composed(self) -> dict[str, tuple[str, ...]]:
        """What weights make that can be scaled as a weight is -> those weights, last the one that is not left free."""
        made = {name: (step.operands[0],) for name, step in self.positives.items()}
        return made | {name: (found.direction, found.length) for name, found in self.lengths.items()}

    @cached_property
    def statistics(self) -> frozenset[str]:
        """Running means and variances: they are no parameters."""
        return frozenset(name for step in self.batch_norms for name in (step.mean, step.var))

    @cached_property
    def reads(self) -> Counter[str]:
        """How many times the steps read each tensor."""
        return Counter(name for step in self.steps for name in step.operands)

    @cached_property
    def producers(self) -> dict[str, Step]:
        """Tensor -> the step that makes it."""
        return {name: step for step in self.steps for name in step.results}

    @cached_property
    def readers(self) -> dict[str, list[int]]:
        """Tensor -> the numbers of the steps that read it, in order."""
        found: dict[str, list[int]] = {}
        for number, step in enumerate(self.steps):
            for name in dict.fromkeys(step.operands):
                found.setdefault(name, []).append(number)
        return found

    def reading(self, names: Iterable[str]) -> list[Step]:
        """The steps that read one of some tensors, in order."""
        return [self.steps[k] for k in sorted({k for name in names for k in self.readers.get(name, ())})]

    def touching(self, names: Collection[str]) -> list[Step]:
        """The steps that read or make one of some tensors, in order."""
        found = {k for name in names for k in self.readers.get(name, ())}
        return [self.steps[k] for k in sorted(found.union(self.places[n] for n in names if n in self.places))]

    @cached_property
    def places(self) -> dict[str, int]:
        """Tensor -> the number of the step that makes it."""
        return {name: number for number, step in enumerate(self.steps) for name in step.results}

    @cached_property
    def dependent(self) -> frozenset[str]:
        """The inputs, and all that depends on one, be it by a lookup at run time or in a way that nobody knows."""
        found = set(self.inputs)
        for step in self.steps:
            if step.at_run_time or not found.isdisjoint(step.operands):
                found.update(step.results)
        return frozenset(found)

    @cached_property
    def nil(self) -> frozenset[str]:
        """The tables that are zero throughout."""
        return frozenset(name for name, value in self.tables.items() if not np.any(value))

    @cached_property
    def tied(self) -> frozenset[str]:
        """Uses of a stored tensor that is shared, constant and not zero: its uses must not be scaled apart."""
        stored = {name: bool(np.any(self.model.tensors[name].read())) for name in set(self.detached.values())}
        return frozenset(name for name, shared in self.detached.items() if stored[shared])

    @cached_property
    def makers(self) -> dict[str, Step]:
        """Constant tensor -> the step that makes it of constants, in a way that can be computed here."""
        fixed = {*self.weights, *self.tables}
        found: dict[str, Step] = {}
        for step in self.steps:
            if step.computable and fixed.issuperset(step.operands):
                found.update(dict.fromkeys(step.results, step))
                fixed.update(step.results)
        return found

    @cached_property
    def fixed(self) -> frozenset[str]:
        """The tensors that depend on no input."""
        return frozenset({*self.weights, *self.tables, *self.makers})


def rearranges(step: Step | None) -> TypeGuard[Einsum]:
    """Whether a step is linear in one tensor, of which it only moves, copies and sums the elements along its axes."""
    return isinstance(step, Einsum) and step.linear
