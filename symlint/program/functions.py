"""Elementwise functions: what analyses know of each, in one record.

Mixing: the ways in which a step acts along axes in a fixed order.

Methods that are chosen by the type of a step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum, unique
from fractions import Fraction
from functools import singledispatch, singledispatchmethod, wraps
from math import inf
from typing import TYPE_CHECKING, Any

from symlint.model.graph import Array
from symlint.model.records import dataclass

Attributes = Mapping[str, Any]


class Parity(Enum):
    """What a function does to a sign."""

    ODD = "odd"
    EVEN = "even"
    NEITHER = "neither"


@dataclass(frozen=True, slots=True)
class Rising:
    """A function that never falls, with the least and the largest value."""

    of: Callable[[Array, Attributes], Array]
    least: float = -inf
    largest: float = inf


@dataclass(frozen=True, slots=True)
class Dipping:
    """A function that falls to one lowest point and then rises: place and value of that point."""

    of: Callable[[Array], Array]
    place: float
    least: float
    slack: float = 0.0
    """How far versions of the function that go by one name are apart."""


@dataclass(frozen=True, slots=True)
class Within:
    """A function of which only the least and the largest value are told."""

    least: float
    largest: float


Course = Rising | Dipping | Within


@dataclass(frozen=True, slots=True)
class Function:
    """What holds of an elementwise function, whatever it gets."""

    parity: Parity = Parity.NEITHER
    course: Course | None = None
    """None where it is told otherwise, or not at all."""
    sums: bool = False
    """Whether it adds its operands, each perhaps with another sign or divided by their number."""
    passes: bool = False
    """Whether it is its operand, perhaps with another sign."""
    undone: Callable[[Array], Array] | None = None
    """Of a function onto all positive numbers: what makes of its value that of which it is the value."""
    negates: bool = False
    """Whether it turns the sign of what it passes on, or of what it adds to its first operand."""
    averages: bool = False
    """Whether it divides what it adds by the number of its operands."""
    factor: int = 0
    """In which power it multiplies its first operand by the others: 1 or -1; 0 where it does not."""
    power: bool = False
    """Whether it raises its first operand to the power of the second."""
    quantises: bool = False
    """Whether it is the level of a grid that is the nearest to its first operand."""
    largest: bool = False
    """Whether it is the largest or the smallest of its operands."""
    chooses: bool = False
    """Whether its first operand chooses between the others."""
    shares: bool = False
    """Of numbers along axes: whether what it makes of them is positive and sums to one."""
    logarithmic: bool = False
    """Whether it is the logarithm of what it is said to be."""
    picks: bool = False
    """Of numbers along axes: whether it is one where the largest or the smallest stands, and zero elsewhere."""
    relative: bool = False
    """Of numbers along axes: whether it sees only how they differ, and not how large they are."""
    length: bool = False
    """Of numbers along axes: whether it is a norm of them, or its square."""
    turns: bool = False
    """Of numbers along axes: whether it is a length, or its square, that rotations of them keep."""
    extreme: Callable[..., Array] | None = None
    """Of numbers along axes: what it is, where that is always one of them."""

    def sign(self, k: int) -> int:
        """The sign that operand `k` of a sum has, or what is passed on."""
        return -1 if self.negates and (k or self.passes) else 1

    def passing(self, degrees: Sequence[Fraction | None]) -> Parity:
        """What it makes of a sign, with the degree of a power that is known: a whole number tells."""
        power = degrees[0] if self.power and degrees else None
        if power is None or power.denominator > 1:
            return self.parity
        return Parity.ODD if power % 2 else Parity.EVEN

    @property
    def copies(self) -> bool:
        """Whether it hands a change of one operand on as it is."""
        return (self.sums or self.passes) and not self.negates and not self.averages


_PLAIN = Function()
_FUNCTIONS: dict[str, Function] = {}


def enter(names: tuple[str, ...], function: Function) -> None:
    """Enter what is known of the functions called `names`."""
    _FUNCTIONS.update(dict.fromkeys(names, function))


def standard(name: str) -> str:
    """ONNX's name for a function that onnxruntime has in its own domain too; one of another domain is another one."""
    return name.removeprefix("com.microsoft.")


def function(name: str) -> Function:
    """What is known of the function of a `Pointwise`."""
    return _FUNCTIONS.get(name, _PLAIN)


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


if TYPE_CHECKING:
    dispatched = singledispatchmethod
else:

    def dispatched(func: Any) -> Any:
        """`functools.singledispatchmethod` as a plain function, whose binding and choice cost next to nothing."""
        dispatcher = singledispatch(func)
        chosen: dict[type, Any] = {}  # for each type that has come by: methods are registered before any is called

        @wraps(func)
        def call(self: Any, step: Any, *rest: Any) -> Any:
            kind = step.__class__
            method = chosen.get(kind)
            if method is None:
                method = chosen[kind] = dispatcher.dispatch(kind)
            return method(self, step, *rest)

        call.register = dispatcher.register
        return call
