"""Surgery that is only planned: whether a file could be given other sizes, told from the network alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from symlint.model.graph import Array, Model, Node, Shape
from symlint.model.records import dataclass
from symlint.repair.surgery.narrowing import Immovable, Left, Narrowing
from symlint.repair.surgery.operation import Call, Surgery, Use, uniform
from symlint.repair.surgery.reached import nested, reached
from symlint.repair.surgery.site import Place


@dataclass(frozen=True, slots=True)
class Cuts:
    """What becomes of all that is stored."""

    shapes: Mapping[str, tuple[Shape, ...]]
    """Stored tensor that is cut -> its new shapes, one for each way in which it is read."""
    plain: bool
    """Whether that is all: no number of a fraction is stored besides, and every operator stays."""


def plan(model: Model, narrowing: Narrowing) -> Cuts:
    """Go through the surgery that `narrow` would do, without a file. Raises `Immovable` where that would."""
    surgery = _PlannedSurgery(model, narrowing)
    surgery.operate()
    return Cuts(surgery.shapes, surgery.plain)


class _PlannedSurgery(Surgery):
    def __init__(self, model: Model, narrowing: Narrowing) -> None:
        super().__init__(model, narrowing)
        spared = set() if self.empties else {node.first for node in model.graph.nodes}
        left, self.read = reached(model.graph.nodes, model.graph.outputs, spared, {})
        self.left = [node for node in nested(left) if node.first]
        self.firsts = {node.first for node in self.left}
        self.operands: dict[tuple[str, int], Array | None] = {}
        """First output and position -> what is stored for an operand from now on; None for what a run computes."""
        self.shapes: dict[str, tuple[Shape, ...]] = {}
        self.plain = True

    def calls(self) -> Iterator[tuple[int, Call]]:
        """The nodes of the network, bodies included, in order, each with a number of its own."""
        for number, node in enumerate(self.left):
            yield number, Call(node.op.rpartition(".")[2], node.inputs, node.outputs, node.attributes)

    def fix(self, number: int, k: int, name: str, known: Array) -> None:
        """Let operand `k` of a call be stored, which the file computes so far."""
        self.store(self.left[number].first, k, known)

    def store(self, first: str, k: int, value: Array) -> None:
        """Let operand `k` of the node with this first output be a stored value."""
        self.operands[first, k] = value
        self.plain &= value.dtype.kind in "iub" or not value.ndim

    def place(self, first: str) -> Place | None:
        """Where the node with this first output stands; None where the file has it no more."""
        return _PlannedPlace(self, self.nodes[first]) if first in self.firsts else None

    def held(self, node: Node, k: int) -> Array | None:
        """The stored tensor that the file would hold for an operand by now."""
        if (node.first, k) in self.operands:
            return self.operands[node.first, k]
        tensor = self.model.tensors.get(node.inputs[k])
        return None if tensor is None else tensor.read()

    def cut(self, name: str, ways: Sequence[tuple[Left, list[Use]]]) -> None:
        """Only what a run computes cannot be cut, unless it is one number throughout."""
        for way, sites in ways:
            node, k = sites[0]
            if all(kept is None for kept in way) and not self.runs(name):
                continue
            stored = name in self.model.tensors or self.operands.get((node.first, k)) is not None
            if not stored and name in self.model.moving and not uniform(self.model.constants[name]):
                raise Immovable(f"{name!r} is computed at run time")
            self.plain &= (node.first, k) not in self.operands
        if name in self.model.tensors:
            self.shapes[name] = tuple(_cut(self.model.tensors[name].shape, way) for way, _ in ways)
        else:
            self.plain &= self.model.constants[name].dtype.kind in "iub"


def _cut(shape: Shape, way: Left) -> Shape:
    pairs = zip(shape, way, strict=True)
    return tuple(n if kept is None or n != len(kept) else int(kept.sum()) for n, kept in pairs)


@dataclass(frozen=True, slots=True)
class _PlannedPlace(Place):
    surgery: _PlannedSurgery
    node: Node

    def reads(self, k: int) -> bool:
        """Whether there is an operand `k`."""
        return bool(self.node.inputs[k])

    def stored(self, k: int) -> Array | None:
        """The stored tensor that the file would hold for operand `k` by now."""
        return self.surgery.held(self.node, k)

    def needed(self, k: int) -> bool:
        """Whether anything reads result `k`."""
        return self.node.outputs[k] in self.surgery.read

    def ends(self, k: int) -> bool:
        """Whether result `k` is one of the network."""
        return self.node.outputs[k] in self.surgery.model.graph.outputs

    def set(self, name: str, value: Any) -> None:
        """Any attribute can be given another value."""

    def put(self, k: int, value: Array) -> None:
        """Let the node read a stored value as operand `k`."""
        self.surgery.store(self.node.first, k, value)

    def choose(self, k: int, mask: Array, numbers: Array) -> None:
        """Let entries of operand `k` be other numbers once a run has computed it."""
        self.surgery.operands[self.node.first, k] = None

    def insert(self, k: int, op: str, numbers: Sequence[Array], **attributes: int) -> None:
        """Let operand `k` pass through another operator first."""
        self.surgery.operands[self.node.first, k] = None
        self.surgery.plain &= all(value.dtype.kind in "iub" for value in numbers)

    def skip(self, k: int) -> None:
        """Any node can be left out."""
        self.surgery.plain = False
