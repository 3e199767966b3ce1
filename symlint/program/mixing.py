"""Mixing: the ways in which a step acts along axes in a fixed order."""

from __future__ import annotations

from enum import Enum, unique


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
