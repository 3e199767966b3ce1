"""A model as symlint reads it: nodes in order, stored tensors, concrete shapes, known values.

The types here are plain frozen data; `symlint.model.load` makes them from a file and everything downstream
only reads them. Names identify values, as in ONNX itself; an omitted input is the empty name.

Digests: what analyses want to know of a stored tensor, found in one reading of it, in blocks and in its own type.

How large the elements of every row and of every column are tells at once whether all numbers are finite, whether any is
not zero, and which lines are nothing. Numbers are compared as bits: without its sign and read as an integer, a
floating-point number is the larger the larger it is, with infinity above all numbers and NaN above that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from symlint.model.records import dataclass

if TYPE_CHECKING:
    from symlint.model.states import State
    from symlint.model.stored import Place, StoredFile, Weights

BLOCK = 1 << 17
"""Elements looked at in one go: they stay in the cache of the second level."""
BITS: dict[int, Any] = {2: np.uint16, 4: np.uint32, 8: np.uint64}
"""Width of a floating-point type -> the integer in whose order its numbers are compared."""


class Digest:
    """What is known of the numbers of one stored tensor; they are read when first asked for, and not kept."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self._largest: dict[tuple[int, ...], Array] = {}

    def largest(self, kept: tuple[int, ...]) -> Array:
        """The largest absolute value along all axes but some, in float64 (NaN where there is one); axes in order."""
        kept = tuple(sorted(kept))
        if kept not in self._largest:
            rows, columns = self._lines
            shape = self.tensor.shape
            if 0 not in kept:
                rest = tuple(k - 1 for k in range(1, len(shape)) if k not in kept)
                self._largest[kept] = columns.reshape(shape[1:]).max(axis=rest, initial=0)
            else:
                self._largest[kept] = rows if len(kept) == 1 else self._along(kept)
        return self._largest[kept]

    @cached_property
    def most(self) -> float:
        """The largest absolute value; 0 where there are no elements, NaN where some element is."""
        return float(self._lines[0].max(initial=0))

    @property
    def finite(self) -> bool:
        """Whether no element is NaN or infinite."""
        return not self.tensor.floating or bool(np.isfinite(self.most))

    @property
    def blank(self) -> bool:
        """Whether all elements are zero."""
        return self.most == 0

    @cached_property
    def uniform(self) -> float | None:
        """The number that all elements are; None where they differ, or there are none."""
        if not self.tensor.size:
            return None
        rows, columns = self._lines
        if (rows != rows[0]).any() or (columns != rows[0]).any():  # already their sizes differ
            return None
        values = self.tensor.read().reshape(-1)
        blocks = (values[k : k + BLOCK] for k in range(0, len(values), BLOCK))
        return float(values[0]) if all(bool((block == values[0]).all()) for block in blocks) else None

    @cached_property
    def extremes(self) -> tuple[int, int, int]:
        """How many elements are NaN, infinite and minus infinite."""
        nan = above = below = 0
        if not self.finite:
            for block in blocks(self.tensor.read()):
                infinite = np.isinf(block)
                negative = int(np.count_nonzero(np.signbit(block) & infinite))
                nan += int(np.count_nonzero(np.isnan(block)))
                below += negative
                above += int(np.count_nonzero(infinite)) - negative
        return nan, above, below

    # -- one pass -----------------------------------------------------------------------------------------------------
    @cached_property
    def _lines(self) -> tuple[Array, Array]:
        """The largest sizes along the first axis and along all others."""
        values = self.tensor.read()
        if values.ndim == 1:
            sizes = _numbers(_sizes(values), values)
            return sizes, np.asarray(sizes.max(initial=0)).reshape(1)
        table = values.reshape(values.shape[0] if values.ndim else 1, prod(values.shape[1:]))
        rows: Array = _sizes(np.zeros(len(table), values.dtype))
        columns: Array = _sizes(np.zeros(table.shape[1], values.dtype))
        for start, left, tall, wide in _tiles(*table.shape):
            sizes = _sizes(table[start : start + tall, left : left + wide])
            lines, across = rows[start : start + tall], columns[left : left + wide]
            np.maximum(lines, sizes.max(axis=1), out=lines)
            np.maximum(across, sizes.max(axis=0), out=across)
        return _numbers(rows, values), _numbers(columns, values)

    def _along(self, kept: tuple[int, ...]) -> Array:
        """The same along the first axis and some others."""
        values = self.tensor.read()
        rest = tuple(k for k in range(values.ndim) if k not in kept)
        found = _sizes(np.zeros([values.shape[k] for k in kept], values.dtype))
        tall = max(1, BLOCK // max(prod(values.shape[1:]), 1))
        for start in range(0, len(values), tall):
            found[start : start + tall] = _sizes(values[start : start + tall]).max(axis=rest, initial=0)
        return _numbers(found, values)


def _tiles(tall: int, wide: int) -> Iterator[tuple[int, int, int, int]]:
    """The corners and the size of the blocks of a table."""
    width = min(wide, BLOCK)
    height = max(1, BLOCK // max(width, 1))
    for start in range(0, tall, height):
        for left in range(0, wide, width or 1):
            yield start, left, height, width


def _comparable(dtype: Any) -> bool:
    return dtype.isnative and (dtype.kind == "f" or dtype.name == "bfloat16") and dtype.itemsize in BITS


def _sizes(block: Array) -> Array:
    """Absolute values in the form in which they are compared."""
    if not _comparable(block.dtype):
        return np.abs(block.astype(np.float64))
    kind = BITS[block.dtype.itemsize]
    return np.asarray(block.view(kind) & kind(np.iinfo(kind).max >> 1))


def _numbers(sizes: Array, values: Array) -> Array:
    """Sizes that were compared as the numbers that they are."""
    return (sizes.view(values.dtype) if _comparable(values.dtype) else sizes).astype(np.float64)


class Digests:
    """The digests of the tensors of one model, each made once."""

    def __init__(self) -> None:
        self._made: dict[int, Digest] = {}

    def of(self, tensor: Tensor) -> Digest:
        """The digest of a tensor; another tensor of the same name has another."""
        digest = self._made.get(id(tensor))
        if digest is None:  # a digest keeps its tensor, so that no other one can take its identity
            digest = self._made[id(tensor)] = Digest(tensor)
        return digest


def blocks(values: Array, size: int = BLOCK) -> Iterator[Array]:
    """An array in parts of some elements."""
    flat = values.reshape(-1)
    for start in range(0, flat.size, size):
        yield flat[start : start + size]


Array = NDArray[Any]
Shape = tuple[int, ...]

RANK_LIMIT = 32
"""Axes of a tensor: as many as every numpy has room for."""
AXIS_LIMIT = 1 << 26
"""Units of an axis; no network has more, and a damaged file says so in a few bytes."""


def plausible(shape: Shape) -> bool:
    """Whether a tensor that is not stored may have such a shape."""
    return len(shape) <= RANK_LIMIT and max(shape, default=0) <= AXIS_LIMIT


@dataclass(frozen=True, slots=True)
class Tensor:
    """A stored tensor (an initializer, or the value of a Constant node), read only on demand."""

    name: str
    shape: Shape
    dtype: str
    """The ONNX element type in numpy's words: ``float32``, ``bfloat16``, ``int4`` ..."""
    read: Callable[[], Array] = field(repr=False, compare=False)
    """The stored values, read-only; they are read from their file unless they were used lately."""
    place: Place | None = field(default=None, repr=False, compare=False)
    """Where its file holds them; None for what is small enough to stay in the message of the model."""

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)

    @property
    def floating(self) -> bool:
        """Whether the elements are floating-point numbers."""
        return "float" in self.dtype


@dataclass(frozen=True, slots=True)
class Node:
    """One operator call. ``op`` carries its domain unless that is ONNX's own: ``com.microsoft.Gelu``."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    """Python values: int, float, str, tuples of them, numpy arrays for tensors, `Graph` for bodies."""
    opset: int
    """Version of the operator set of the node's domain."""

    @property
    def first(self) -> str:
        """Its first output that has a name, which no other node makes: recurrences may leave out the ones before."""
        return next(filter(None, self.outputs), "")

    @property
    def bodies(self) -> tuple[Graph, ...]:
        """The graphs in its attributes: branches, and the bodies of loops."""
        found: list[Graph] = []
        for value in self.attributes.values():
            if isinstance(value, Graph):
                found.append(value)
            elif isinstance(value, tuple):
                found += [part for part in value if isinstance(part, Graph)]
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes in topological order with the names of what enters and leaves."""

    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def walk(self) -> Iterator[Node]:
        """Every node, those of bodies included, graph by graph."""
        waiting = [self]
        while waiting:
            for node in waiting.pop().nodes:
                yield node
                if node.attributes:
                    waiting += node.bodies


@dataclass(frozen=True, slots=True)
class Model:
    """One audited file: functions inlined, nodes sorted, shapes concrete, integer arithmetic folded."""

    path: str
    file: StoredFile | None
    """The file that it was read from."""
    opset: int
    producer: str
    graph: Graph
    tensors: Mapping[str, Tensor]
    """Every stored tensor by the name of its value (bodies of control flow included)."""
    shapes: Mapping[str, Shape]
    """Concrete shape of each value, where one could be found."""
    dtypes: Mapping[str, str]
    """Element type of each value, where known."""
    constants: Mapping[str, Array]
    """Values that depend on no input and on no weight: shapes, indices, masks, position tables."""
    symbols: Mapping[str, int]
    """The number chosen for each symbolic dimension."""
    notes: tuple[str, ...] = ()
    """What could not be made concrete, one line each."""
    moving: frozenset[str] = frozenset()
    """The known values that depend on such a choice: lengths that only a run tells."""
    called: Mapping[tuple[str, int], str] = field(default_factory=dict)
    """First named output of a node and position of an operand -> the name that the stored tensor has there, where an
    exporter merged equal ones behind Identity nodes."""
    literals: frozenset[str] = frozenset()
    """The stored tensors that are values of Constant nodes."""
    unread: frozenset[str] = frozenset()
    """The stored tensors that no node reads, and that are no result."""
    bound: frozenset[str] = frozenset()
    """The stored tensors that are inputs, which a caller may give another value, or results of their graph."""
    states: tuple[State, ...] = ()
    """What leaves it and comes back at its next step, as far as that is taken into account."""
    digests: Digests = field(default_factory=Digests, repr=False, compare=False)
    """What is known of the numbers of stored tensors, found when it is first asked for."""
    weights: Weights | None = field(default=None, compare=False)
    """Where its tensors are read from."""

    @property
    def sha256(self) -> str:
        """Hash of its file, read again for that when first asked for. Raises UnreadableModel if it has changed."""
        return self.file.sha256 if self.file else ""
