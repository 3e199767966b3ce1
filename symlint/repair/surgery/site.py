"""One node of a file under surgery: what it reads, what is left of it, and ways to tell it other numbers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence, Set
from typing import Any

import numpy as np

from symlint.model.graph import Array, Model, Node, Shape
from symlint.model.records import dataclass
from symlint.program.recorder import Ref
from symlint.repair.surgery.narrowing import Immovable, Left, Narrowing


class Place(ABC):
    """Where a node stands in a file that is edited, or whose edit is planned."""

    @abstractmethod
    def reads(self, k: int) -> bool:
        """Whether there is an operand `k`."""

    @abstractmethod
    def stored(self, k: int) -> Array | None:
        """The stored tensor that the file holds for operand `k` by now."""

    @abstractmethod
    def needed(self, k: int) -> bool:
        """Whether anything reads result `k`."""

    @abstractmethod
    def ends(self, k: int) -> bool:
        """Whether result `k` is one of the network."""

    @abstractmethod
    def set(self, name: str, value: Any) -> None:
        """Give an attribute another value; None takes it away."""

    @abstractmethod
    def put(self, k: int, value: Array) -> None:
        """Let the node read a stored value as operand `k`."""

    @abstractmethod
    def choose(self, k: int, mask: Array, numbers: Array) -> None:
        """Let entries of operand `k` be other numbers, where the mask says so, once a run has computed it."""

    @abstractmethod
    def insert(self, k: int, op: str, numbers: Sequence[Array], **attributes: int) -> None:
        """Let operand `k` pass through another operator first, which reads stored numbers besides."""

    @abstractmethod
    def skip(self, k: int) -> None:
        """Leave the node out: what reads result `k` reads its first operand instead."""


@dataclass(frozen=True, slots=True)
class Site:
    """A node of the file with what the narrowing says of its operands and results."""

    model: Model
    place: Place
    node: Node
    narrowing: Narrowing
    tainted: Set[str]
    """Values that are computed from the size of something narrowed."""

    # -- reading --------------------------------------------------------------------------------------------------
    def ref(self, k: int) -> Ref | None:
        """The tensor that is read as operand `k`."""
        return self.narrowing.whole.lowering.uses.get((self.node.first, k))

    def read(self, k: int) -> Left:
        """What is left of operand `k`."""
        ref = self.ref(k)
        return () if ref is None or ref.items is not None else self.narrowing.of(ref.name)

    def made(self, k: int = 0) -> Left:
        """What is left of result `k`."""
        ref = self.narrowing.whole.lowering.values.get(self.node.outputs[k])
        return () if ref is None or ref.items is not None else self.narrowing.of(ref.name)

    @property
    def touched(self) -> bool:
        """Whether anything is narrowed here."""
        rows = [*map(self.read, range(len(self.node.inputs))), *map(self.made, range(len(self.node.outputs)))]
        return any(kept is not None for row in rows for kept in row)

    def before(self, k: int) -> Shape:
        """The old shape of operand `k`."""
        ref = self.ref(k)
        assert ref is not None
        return ref.shape

    def after(self, k: int) -> Shape:
        """The new shape of operand `k`."""
        pairs = zip(self.before(k), self.read(k), strict=False)
        return tuple(n if kept is None else int(kept.sum()) for n, kept in pairs)

    def result(self, k: int = 0) -> Shape:
        """The new shape of result `k`."""
        shape = self.model.shapes[self.node.outputs[k]]
        return tuple(n if kept is None else int(kept.sum()) for n, kept in zip(shape, self.made(k), strict=True))

    def known(self, k: int) -> Array | None:
        """The value of operand `k`, where the file decides it."""
        if k >= len(self.node.inputs) or not self.node.inputs[k]:
            return None
        name = self.node.inputs[k]
        if name in self.model.constants:
            return self.model.constants[name]
        tensor = self.model.tensors.get(name)
        return None if tensor is None else tensor.read()

    def shifty(self, k: int) -> bool:
        """Whether operand `k` is computed from the size of something narrowed, and of lengths that a run decides."""
        return self.node.inputs[k] in self.tainted and self.node.inputs[k] in self.model.moving

    def varies(self, axis: int, k: int = 0) -> bool:
        """Whether the length of an axis of result `k` holds one that a run may change."""
        ref = self.narrowing.whole.lowering.values[self.node.outputs[k]]
        whole = self.narrowing.whole
        fixed = whole.lowering.program.weights.keys()
        factors, numbers = whole.axes.factors, [n for n in self.model.symbols.values() if n > 1]
        return any(
            fixed.isdisjoint(factors.holders.get(x, ())) and any(factors.size(x) % n == 0 for n in numbers)
            for x in factors.leaves(whole.axes.of[ref.name][axis])
        )

    # -- writing --------------------------------------------------------------------------------------------------
    def override(self, k: int, entries: dict[int, int]) -> None:
        """Let entries of a list of sizes, operand `k`, be other numbers; the others stay as the file computes them."""
        if not entries or not self.place.reads(k):
            return
        old, stored = self.known(k), self.place.stored(k)
        if stored is None and old is not None and self.node.inputs[k] not in self.model.moving:
            stored = old
        if stored is not None:
            fresh = stored.copy()
            for position, number in entries.items():
                fresh.reshape(-1)[position] = number
            if not np.array_equal(fresh, stored):
                self.place.put(k, fresh)
            return
        if old is None:
            raise Immovable(f"the sizes that {self.node.op} {self.node.name!r} is given are computed at run time")
        mask, numbers = np.zeros(old.shape, bool), np.zeros(old.shape, np.int64)
        for position, number in entries.items():
            mask.reshape(-1)[position], numbers.reshape(-1)[position] = True, number
        self.place.choose(k, mask, numbers)
