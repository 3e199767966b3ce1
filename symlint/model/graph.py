"""A model as symlint reads it: nodes in order, stored tensors, concrete shapes, known values.

The types here are plain frozen data; `symlint.model.load` makes them from a file and everything downstream
only reads them. Names identify values, as in ONNX itself; an omitted input is the empty name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from math import prod
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from symlint.model.digest import Digests
from symlint.model.records import dataclass

if TYPE_CHECKING:
    from symlint.model.file.stored import Place, StoredFile, Weights
    from symlint.model.state import State

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
