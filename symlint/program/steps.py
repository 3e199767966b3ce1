"""The few primitives into which every operator is lowered; each analysis interprets only these.

A program is a list of steps over named tensors of known shape. Labels write an axis in factor notation: the spec
``(("b",), ("h", "d"))`` is ``b (h d)``, and ``()`` is an axis of size 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, unique
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from symlint.model.graph import Array, Model, Node, Shape
from symlint.model.shapes.evaluate import listed
from symlint.program.functions import Function, function, standard

if TYPE_CHECKING:
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


@unique
class MixKind(Enum):
    """What a Mix does along the axes that it does not keep; the value says so to people, and is never read back."""

    ALL_SO_FAR = "all steps so far"
    """A cache that was empty at first: it holds what was put into it, and nothing else."""
    CACHE = "a cache"
    CHOICE = "a choice computed at run time"
    CLASS_INDEX = "a class index"
    CONVOLUTION = "a convolution's window"
    CROP = "a cut"
    DETERMINANT = "a determinant"
    FIXED_LOOKUP = "a lookup in a fixed order"
    FOURIER = "a Fourier transform"
    GRID = "a grid of places"
    INVERSE = "an inverse matrix"
    LAST_STATE = "the last of a recurrence"
    LOOKUP = "a lookup computed at run time"
    MODEL = "a model in attributes"
    MOVING_CUT = "a cut whose place is known at run time"
    NEIGHBOURS = "a window over neighbouring channels"
    OVERLAPPING = "overlapping windows"
    PACKED_BYTES = "several numbers in one byte"
    PACKED_TOKENS = "packed tokens"
    PACKED_WEIGHTS = "a layout of the processor's own"
    PADDING_LEFT_OUT = "padding left out"
    PADDING_PUT_BACK = "padding put back"
    PLACES = "places computed at run time"
    POOLING = "a pooling window"
    PRODUCT = "an ordered product"
    RANKING = "a ranking"
    """It says which unit of its last axis stands at each place: it makes one-hot rows."""
    RECURRENCE = "a recurrence"
    RELATIVE_LOOKUP = "a lookup by relative positions"
    RESHAPE = "a reshape without a common grouping"
    RESIZING = "resizing"
    REVERSED_AXIS = "a reversed axis"
    REVERSED_SEQUENCE = "a reversed sequence"
    ROUNDS = "the rounds of a loop"
    SPLIT = "a split computed at run time"
    STRIDED = "a strided slice"
    SUM = "an ordered sum"
    TRIANGLE = "a triangle"
    UNSORTED = "a choice in any order"

    PADDING_REFLECT = "reflect padding"
    PADDING_EDGE = "edge padding"
    PADDING_WRAP = "wrap padding"
    MOVING_PADDING_CONSTANT = "constant padding of a length known at run time"
    MOVING_PADDING_REFLECT = "reflect padding of a length known at run time"
    MOVING_PADDING_EDGE = "edge padding of a length known at run time"
    MOVING_PADDING_WRAP = "wrap padding of a length known at run time"

    @property
    def at_run_time(self) -> bool:
        """Whether what is taken from where depends on the inputs."""
        return self in _AT_RUN_TIME

    @property
    def chooses(self) -> bool:
        """Whether it makes elements of what it gets, and nothing else."""
        return self in _CHOOSES

    @property
    def fills(self) -> bool:
        """Whether it makes zeros beside elements of what it gets."""
        return self in _FILLS


_AT_RUN_TIME = frozenset(
    {
        MixKind.CHOICE,
        MixKind.LOOKUP,
        MixKind.MOVING_CUT,
        MixKind.PLACES,
        MixKind.SPLIT,
        MixKind.MOVING_PADDING_CONSTANT,
        MixKind.MOVING_PADDING_REFLECT,
        MixKind.MOVING_PADDING_EDGE,
        MixKind.MOVING_PADDING_WRAP,
    }
)
_CHOOSES = frozenset(
    {
        MixKind.FIXED_LOOKUP,
        MixKind.LOOKUP,
        MixKind.MOVING_CUT,
        MixKind.PADDING_EDGE,
        MixKind.PADDING_REFLECT,
        MixKind.PADDING_WRAP,
        MixKind.RECURRENCE,
        MixKind.RESHAPE,
        MixKind.REVERSED_AXIS,
        MixKind.REVERSED_SEQUENCE,
        MixKind.STRIDED,
    }
)
_FILLS = frozenset({MixKind.CONVOLUTION, MixKind.LAST_STATE, MixKind.TRIANGLE})


@dataclass(frozen=True, slots=True)
class Einsum:
    """A multilinear contraction: the product of the operands, summed over labels that the result lacks."""

    out: str
    operands: tuple[str, ...]
    specs: tuple[Spec, ...]
    result: Spec
    sizes: Mapping[str, int]
    node: Node


@dataclass(frozen=True, slots=True)
class Pointwise:
    """An elementwise function of operands that broadcast."""

    out: str
    operands: tuple[str, ...]
    law: Law
    function: str
    """The ONNX operator that computes it."""
    node: Node

    @property
    def known(self) -> Function:
        """What is known of the function."""
        return function(self.function)

    @property
    def linear(self) -> bool:
        """Whether it adds its operands, or is its operand, perhaps with other signs."""
        return self.known.sums or self.known.passes


@dataclass(frozen=True, slots=True)
class Concat:
    """Operands put one behind the other along an axis."""

    out: str
    operands: tuple[str, ...]
    axis: int
    node: Node


@dataclass(frozen=True, slots=True)
class Slice:
    """The indices from start to stop of one axis."""

    out: str
    x: str
    axis: int
    start: int
    stop: int
    node: Node


@dataclass(frozen=True, slots=True)
class Mix:
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
    chosen: tuple[int, tuple[int, ...]] | None = None
    """Where it only chooses among the units of one axis, which is not kept: the axis, and the indices in order."""

    @property
    def sources(self) -> tuple[int | None, ...]:
        """The axis of ``x`` whose units, all or chosen ones, each output axis has; None for an axis of its own."""
        if self.chosen is None:
            return self.keep
        return tuple(self.chosen[0] if k == self.chosen[0] else source for k, source in enumerate(self.keep))


@dataclass(frozen=True, slots=True)
class Normalise:
    """A map along axes that commutes with their permutations and keeps the shape: softmax, normalisation."""

    out: str
    x: str
    axes: tuple[int, ...]
    law: Law
    function: str
    node: Node


@dataclass(frozen=True, slots=True)
class Fold:
    """A symmetric, not linear reduction over axes (maximum, L2 norm); the axes leave the shape."""

    out: str
    x: str
    axes: tuple[int, ...]
    law: Law
    function: str
    node: Node


@dataclass(frozen=True, slots=True)
class Affine:
    """Batch normalisation as x scale + shift: scale = gain / sqrt(var + epsilon), shift = bias - mean scale."""

    scale: str
    shift: str
    gain: str
    bias: str
    mean: str
    var: str
    epsilon: float
    node: Node


@dataclass(frozen=True, slots=True)
class Unknown:
    """An operator without a rule, or one whose shapes are unknown: whatever it touches is opaque."""

    outs: tuple[str, ...]
    operands: tuple[str, ...]
    reason: str
    opaque: bool
    """False where the reason is a true one, such as indices that are computed at run time."""
    node: Node
    missing: tuple[str, ...] = ()
    """What the node reads beside the operands: tensors of the model that the program does not have."""


Step = Einsum | Pointwise | Concat | Slice | Mix | Normalise | Fold | Affine | Unknown


@dataclass(frozen=True, slots=True)
class Loop:
    """A state in the program: what leaves by an output comes back by an input, and nobody looks into it."""

    input: str
    output: str
    axes: tuple[int, ...]
    """Those of one size on both sides; the one that is left out grows with time."""
    flows: bool = False
    """Whether the program has what it holds without it, as a map of what was put into it."""


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

    @cached_property
    def affines(self) -> dict[str, Affine]:
        """The step behind each scale and shift of a batch normalisation."""
        return {name: s for s in self.steps if isinstance(s, Affine) for name in (s.scale, s.shift)}

    @cached_property
    def reads(self) -> Counter[str]:
        """How many times the steps read each tensor."""
        return Counter(name for step in self.steps for name in operands(step))

    @cached_property
    def producers(self) -> dict[str, Step]:
        """Tensor -> the step that makes it."""
        return {name: step for step in self.steps for name in results(step)}

    @cached_property
    def readers(self) -> dict[str, list[int]]:
        """Tensor -> the numbers of the steps that read it, in order."""
        found: dict[str, list[int]] = {}
        for number, step in enumerate(self.steps):
            for name in dict.fromkeys(operands(step)):
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
        return {name: number for number, step in enumerate(self.steps) for name in results(step)}

    @cached_property
    def dependent(self) -> frozenset[str]:
        """The inputs, and all that depends on one, be it by a lookup at run time or in a way that nobody knows."""
        found = set(self.inputs)
        for step in self.steps:
            chosen = isinstance(step, Unknown) or (isinstance(step, Mix) and step.kind.at_run_time)
            if chosen or not found.isdisjoint(operands(step)):
                found.update(results(step))
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
            known = isinstance(step, (Einsum, Slice, Concat, Affine)) or (
                isinstance(step, Pointwise) and listed(standard(step.function))
            )
            if known and fixed.issuperset(operands(step)):
                found.update(dict.fromkeys(results(step), step))
                fixed.update(results(step))
        return found

    @cached_property
    def fixed(self) -> frozenset[str]:
        """The tensors that depend on no input."""
        return frozenset({*self.weights, *self.tables, *self.makers})


def operands(step: Step) -> tuple[str, ...]:
    """Names of the tensors that a step reads."""
    if isinstance(step, (Einsum, Pointwise, Concat, Unknown)):
        return step.operands
    if isinstance(step, Affine):
        return (step.gain, step.bias, step.mean, step.var)
    return (step.x,)


def results(step: Step) -> tuple[str, ...]:
    """Names of the tensors that a step makes."""
    if isinstance(step, Unknown):
        return step.outs
    if isinstance(step, Affine):
        return (step.scale, step.shift)
    return (step.out,)
