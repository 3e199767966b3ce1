"""Surgery: what is done to a file that gets fewer units, whether carried out or planned from the network alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from symlint.model.graph import Array, Model, Node, Shape
from symlint.model.operators import known
from symlint.model.records import dataclass
from symlint.program.lower import Ref
from symlint.repair import resizing
from symlint.repair.narrowing import Immovable, Left, Narrowing, Place, Site, nested, reached, same

Use = tuple[Node, int]
"""A node and the position of one of its operands."""


@dataclass(frozen=True, slots=True)
class Call:
    """A node as it stands in the file, by the names that a `Model` has for values."""

    op: str
    inputs: Sequence[str]
    """Behind Identity nodes; empty for what is omitted."""
    outputs: Sequence[str]
    attributes: Mapping[str, Any]


class Surgery(ABC):
    """Takes units away: layouts first, while all values still have their old names; then what is stored.

    Raises `Immovable` where an operator cannot be told the new sizes.
    """

    def __init__(self, model: Model, narrowing: Narrowing) -> None:
        self.model, self.narrowing = model, narrowing
        self.uses = narrowing.whole.lowering.uses
        self.nodes = {node.first: node for node in nested(model.graph.nodes) if node.first}
        self.tainted: set[str] = set()
        """Values that the file computes from the size of something narrowed."""

    def operate(self) -> None:
        """Tell every operator the new sizes, and cut what is stored."""
        self._freeze()
        for first, node in self.nodes.items():
            place = self.place(first)
            if place is not None:
                site = Site(self.model, place, node, self.narrowing, self.tainted)
                if site.touched:
                    (known(node.op).resize or resizing.unknown)(site)
        self._store()

    @property
    def empties(self) -> bool:
        """Whether nothing is left of some space: what nothing reads would be asked for a part of no units."""
        return any(not kept.any() for kept in self.narrowing.masks.values())

    @abstractmethod
    def calls(self) -> Iterator[tuple[int, Call]]:
        """The nodes of the file, bodies included, in order, each with a number of its own."""

    @abstractmethod
    def fix(self, number: int, k: int, name: str, known: Array) -> None:
        """Let operand `k` of a call be stored, which the file computes so far."""

    @abstractmethod
    def place(self, first: str) -> Place | None:
        """Where the node with this first output stands; None where the file has it no more."""

    @abstractmethod
    def cut(self, name: str, ways: Sequence[tuple[Left, list[Use]]]) -> None:
        """Cut a stored tensor or a known value as often as it is read in several ways."""

    # -- stored tensors and known values --------------------------------------------------------------------------
    def _store(self) -> None:
        """Cut stored tensors; one that is read in several ways is stored as often."""
        wanted: defaultdict[str, list[tuple[Node, int, Left]]] = defaultdict(list)
        for first, node in self.nodes.items():
            for k, name in enumerate(node.inputs):
                ref = self.uses.get((first, k))
                if (
                    ref is not None
                    and ref.items is None
                    and (name in self.model.tensors or name in self.model.constants)
                    and self.place(first) is not None
                ):
                    wanted[name].append((node, k, self._rows(node, k, ref)))
        for name, uses in wanted.items():
            ways: list[tuple[Left, list[Use]]] = []
            for node, k, rows in uses:
                for way, sites in ways:
                    if same(way, rows):
                        sites.append((node, k))
                        break
                else:
                    ways.append((rows, [(node, k)]))
            if self.runs(name) or any(kept is not None for way, _ in ways for kept in way):
                self.cut(name, ways)

    def _rows(self, node: Node, k: int, ref: Ref) -> Left:
        """What is left of an operand; one number throughout takes the sizes of what it meets."""
        rows = self.narrowing.of(ref.name)
        if (0 not in ref.shape and ref.value is None) or any(kept is not None for kept in rows):
            return rows
        if node.op in ("LSTM", "GRU", "RNN") and k > 4:
            weight = self.uses[node.first, 2]
            return (*rows[:-1], self.narrowing.of(weight.name)[2])
        made = self.narrowing.whole.lowering.values.get(node.first)
        if node.op == "Concat" and made is not None and 0 in ref.shape:
            along = int(node.attributes["axis"]) % len(ref.shape)
            return tuple(None if a == along else kept for a, kept in enumerate(self.narrowing.of(made.name)))
        if made is None or (not known(node.op).broadcasts and (k or "Scatter" not in node.op)):
            return rows
        met = zip(ref.shape[::-1], made.shape[::-1], self.narrowing.of(made.name)[::-1], strict=False)
        return tuple(kept if n == m else None for n, m, kept in met)[::-1]

    def runs(self, name: str) -> bool:
        """Whether a value of one number has a shape that a run decides and that was taken from something narrowed."""
        found = self.model.constants.get(name)
        layout = found is not None and found.ndim == 1 and found.dtype.kind == "i"
        return (
            found is not None and name in self.tainted and name in self.model.moving and uniform(found) and not layout
        )

    # -- numbers that are computed from sizes ---------------------------------------------------------------------
    def _freeze(self) -> None:
        """Store what is computed from the size of something narrowed: scales, lengths, masks, sizes of layouts."""
        sizes: dict[str, NDArray[np.bool_]] = {}
        for number, call in self.calls():
            if call.op in ("Shape", "Size") and call.inputs and call.inputs[0]:
                ref = self.narrowing.whole.lowering.values.get(call.inputs[0])
                kept = () if ref is None or ref.items is not None else self.narrowing.of(ref.name)
                told = slice(call.attributes.get("start"), call.attributes.get("end"))
                narrowed = np.array([k is not None for k in kept], bool)[told]
                if narrowed.any():
                    self.tainted.update(filter(None, call.outputs))
                    if call.op == "Shape" and len(self.model.constants.get(call.outputs[0], ())) == len(narrowed):
                        sizes[call.outputs[0]] = narrowed
            elif not self.tainted.isdisjoint(call.inputs):
                if (chosen := self._chosen(call, sizes)) is not None:
                    sizes[call.outputs[0]] = chosen
                    if not chosen.any():
                        continue
                if (call.outputs and call.outputs[0] in self.model.constants) or call.op == "Identity":
                    self.tainted.update(filter(None, call.outputs))
                    continue
                for k, name in enumerate(call.inputs):
                    if name in self.tainted:
                        self._frozen(number, call, k, name)

    def _chosen(self, call: Call, sizes: Mapping[str, NDArray[np.bool_]]) -> NDArray[np.bool_] | None:
        """Which of the sizes that a call takes of a shape are other ones now; None where it does something else."""
        numbers = [self._number(name) for name in call.inputs[1:]]
        if call.op not in ("Gather", "Slice") or call.inputs[0] not in sizes or any(n is None for n in numbers):
            return None
        first = sizes[call.inputs[0]]
        known_numbers = [n for n in numbers if n is not None]
        if call.op == "Gather" and len(known_numbers) == 1 and first.ndim == 1:
            return np.asarray(first[known_numbers[0]])
        if call.op == "Slice" and len(known_numbers) > 1 and first.ndim == 1:
            start, stop, *rest = (int(n.reshape(-1)[0]) for n in known_numbers)
            return first[start : stop : rest[1] if len(rest) > 1 else 1]
        return None

    def _number(self, name: str) -> Array | None:
        """A number that the file decides."""
        if name in self.model.constants:
            return None if name in self.model.moving else self.model.constants[name]
        return self.model.tensors[name].read() if name in self.model.tensors else None

    def _frozen(self, number: int, call: Call, k: int, name: str) -> None:
        found = self.model.constants.get(name)
        if found is not None and name not in self.model.moving:
            self.fix(number, k, name, found)
        elif found is None or not (uniform(found) or (known(call.op).resize and k > 0)):
            raise Immovable(f"{name!r} is computed from their number")


def uniform(values: Array) -> bool:
    """Whether an array is one number throughout."""
    return values.size > 0 and bool((values == values.reshape(-1)[0]).all())


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
