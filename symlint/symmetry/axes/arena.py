"""The arena of factors: making and reading them, and joining their classes by union-find.

Pins: what joined the units of a factor, or holds them in place, as data that reports put into words.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import copy
from enum import Enum
from math import prod
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray


class PinKind(Enum):
    """What holds units together or in place."""

    JOINED = "joined"
    """A node reads two axes as one: the units move together."""
    WHOLE = "whole"
    """A tensor that only moves as a whole."""
    BORDER = "border"
    """They enter or leave the graph in an order that others rely on."""
    TABLE = "table"
    """Numbers that are no weights stand beside them."""
    GROUPING = "grouping"
    """An axis is read in two ways that have no common refinement."""
    ORDER = "order"
    """A map in a fixed order acts along them."""
    OBSTACLE = "obstacle"
    """An operator holds them for a true reason."""
    OPAQUE = "opaque"
    """A rule is missing."""


class Pin(NamedTuple):
    """One reason; a tuple, because arenas compare thousands of them."""

    kind: PinKind
    text: str = ""
    """In words, without the node."""
    op: str = ""
    node: str = ""
    """The node's name, or its first output; empty, as `op` is, where no node is to blame."""

    @property
    def place(self) -> str:
        """The node as users know it; empty where there is none."""
        return f"{self.op} {self.node!r}" if self.op else ""

    def __str__(self) -> str:
        words = " at ".join(part for part in (self.text, self.place) if part)
        return f"opaque: {words}" if self.kind is PinKind.OPAQUE else words


INPUT = Pin(PinKind.BORDER, "a graph input")
OUTPUT = Pin(PinKind.BORDER, "a graph output")
STATE = Pin(PinKind.JOINED, "a state that comes back at the next step")
MOVING = Pin(PinKind.ORDER, "a state moves on along it")
TABLE = Pin(PinKind.TABLE, "a constant table")
WHOLE = Pin(PinKind.WHOLE, "it is moved as a whole")
UNFIT = Pin(PinKind.GROUPING, "a grouping that does not fit")
UNSEEN = Pin(PinKind.JOINED, "a use that does not see the index")


def clashing(joint: Pin) -> Pin:
    """Why units stay in place that are grouped in two ways where `joint` makes them one."""
    words = "two groupings without a common refinement meet"
    return Pin(PinKind.GROUPING, f"{words} at {joint.text}" if joint.text else words, joint.op, joint.node)


Own = TypeVar("Own", bound="Arena")
ONE = 0
MOST = 1 << 17
"""Factors of one axis, each counted where it occurs: a concatenation of copies of copies soon has billions."""
REASONS = 12
"""How many reasons are kept for one leaf."""


class Form(Enum):
    """What a factor has become."""

    LEAF = "leaf"
    PRODUCT = "product"
    SUM = "sum"
    FAMILY = "family"
    ARRANGED = "arranged"


class Arena:
    """All factors of one network: their forms, classes, and what is noted of them."""

    def __init__(self) -> None:
        self._parent = [0]
        self._size = [1]
        self._form = [Form.LEAF]
        self._children: list[tuple[int, ...]] = [()]
        self._index: dict[int, int] = {}
        self._places: dict[int, tuple[NDArray[np.int64], ...]] = {}
        self._cuts: dict[int, tuple[int, ...]] = {}
        self._indices: set[int] = set()
        self._leaves: dict[int, tuple[int, ...]] = {}
        """Factor -> its leaves, until classes are joined."""
        self.pins: dict[int, Pin] = {}
        """Leaf -> why its units cannot be permuted."""
        self.rigid: dict[int, Pin] = {}
        """Leaf -> why nothing at all may act on it."""
        self.holders: dict[int, set[str]] = {}
        """Leaf -> the tensors that hold it."""
        self.why: dict[int, list[Pin]] = {}
        """Leaf -> what joined or limited it, in order."""

    def copy(self: Own) -> Own:
        """The same factors, which can be refined without these."""
        made = copy(self)
        vars(made).update({name: value.copy() for name, value in vars(self).items()})
        made.holders = {leaf: names.copy() for leaf, names in self.holders.items()}
        made.why = {leaf: reasons.copy() for leaf, reasons in self.why.items()}
        return made

    # -- making ---------------------------------------------------------------------------------------------------
    def _new(self, size: int, form: Form, children: tuple[int, ...] = ()) -> int:
        self._parent.append(len(self._parent))
        self._size.append(size)
        self._form.append(form)
        self._children.append(children)
        return len(self._parent) - 1

    def leaf(self, size: int, pin: Pin | None = None) -> int:
        """A fresh leaf of `size` units; `pin` is the reason why they cannot be permuted."""
        if size == 1:
            return ONE
        f = self._new(size, Form.LEAF)
        if pin is not None:
            self.pins[f] = pin
        return f

    def product(self, parts: Iterable[int]) -> int:
        """The row-major grouping of `parts`; parts of size 1 vanish."""
        kept: list[int] = []
        for part in map(self.find, parts):
            if self._form[part] is Form.PRODUCT:
                kept.extend(self.parts(part))
            elif self._size[part] > 1:
                kept.append(part)
        if len(kept) <= 1:
            return kept[0] if kept else ONE
        return self._new(prod(self._size[k] for k in kept), Form.PRODUCT, tuple(kept))

    def sum(self, pieces: Iterable[int]) -> int:
        """The concatenation of `pieces`; sums that index no family are flattened."""
        kept: list[int] = []
        for piece in map(self.find, pieces):
            if self._form[piece] is Form.SUM and piece not in self._indices:
                kept.extend(self._children[piece])
            else:
                kept.append(piece)
        if len(kept) == 1:
            return kept[0]
        return self._new(sum(self._size[k] for k in kept), Form.SUM, tuple(kept))

    def family(self, index: int, cuts: tuple[int, ...], members: Iterable[int]) -> int:
        """The factor that is ``members[i]`` where `index` lies between ``cuts[i]`` and ``cuts[i + 1]``."""
        parts = tuple(self.find(m) for m in members)
        if len(set(parts)) == 1:
            return parts[0]
        f = self._new(self._size[parts[0]], Form.FAMILY, parts)
        self._index[f] = index
        self._cuts[f] = cuts
        self._indices.add(self.find(index))
        return f

    def arranged(self, parts: Iterable[int], places: Iterable[NDArray[np.int64]]) -> int:
        """The factor in which the units of each part lie at places of their own, among those of the others."""
        kept, where = tuple(map(self.find, parts)), tuple(places)
        if len(kept) == 1 and np.array_equal(where[0], np.arange(len(where[0]))):
            return kept[0]
        f = self._new(sum(map(len, where)), Form.ARRANGED, kept)
        self._places[f] = where
        return f

    # -- reading --------------------------------------------------------------------------------------------------
    def find(self, f: int) -> int:
        """What `f` is now: the root of its class."""
        parent = self._parent
        root = f
        while parent[root] != root:
            root = parent[root]
        while parent[f] != root:
            parent[f], f = root, parent[f]
        return root

    def size(self, f: int) -> int:
        """Number of indices of `f`."""
        return self._size[f]

    def form(self, f: int) -> Form:
        """The form of the class of `f`."""
        return self._form[self.find(f)]

    def parts(self, f: int) -> tuple[int, ...]:
        """The resolved children of a product, sum or family; nested products are flattened."""
        root = self.find(f)
        children = [self.find(c) for c in self._children[root]]
        if self._form[root] is not Form.PRODUCT:
            return tuple(children)
        flat = (p for p in self._down(root, Form.PRODUCT) if self._form[p] is not Form.PRODUCT)
        return tuple(p for p in flat if self._size[p] > 1)

    def children(self, f: int) -> tuple[int, ...]:
        """The resolved children of any form; nested ones stay nested."""
        return tuple(map(self.find, self._children[self.find(f)]))

    def index(self, f: int) -> int:
        """The factor that a family depends on."""
        return self.find(self._index[self.find(f)])

    def indexes(self, f: int) -> bool:
        """Whether some family depends on `f`."""
        return self.find(f) in self._indices

    @property
    def indexed(self) -> bool:
        """Whether there is any family."""
        return bool(self._index)

    def places(self, f: int) -> tuple[NDArray[np.int64], ...]:
        """Where the units of each part of an arranged factor lie."""
        return self._places[self.find(f)]

    def cuts(self, f: int) -> tuple[int, ...]:
        """Where a family's members begin and end along its index."""
        return self._cuts[self.find(f)]

    def boundaries(self, f: int) -> tuple[int, ...]:
        """0, the ends of a sum's flattened pieces, in order."""
        ends = [0]
        for piece in self.pieces(f):
            ends.append(ends[-1] + self._size[piece])
        return tuple(ends)

    def pieces(self, f: int) -> tuple[int, ...]:
        """The flattened pieces of a sum; any other factor is its own single piece."""
        return tuple(p for p in self._down(f, Form.SUM) if self._form[p] is not Form.SUM)

    def leaves(self, f: int) -> tuple[int, ...]:
        """Every leaf of more than one unit under `f`, repeated where it occurs twice."""
        found = self._leaves.get(f)
        if found is None:
            root = self.find(f)
            form, size = self._form, self._size
            if form[root] is Form.LEAF:
                found = (root,) if size[root] > 1 else ()
            else:
                found = tuple(p for p in self._down(root) if form[p] is Form.LEAF and size[p] > 1)
            self._leaves[root] = self._leaves[f] = found
        return found

    def _ends(self, f: int) -> tuple[int, ...]:
        """Every leaf under `f`, single units with an identity of their own included."""
        root = self.find(f)
        if self._form[root] is Form.LEAF:
            return (root,) if root != ONE else ()
        return tuple(p for p in self._down(root) if self._form[p] is Form.LEAF and p != ONE)

    def families(self, f: int) -> Iterator[int]:
        """Every family under `f`."""
        return (p for p in self._down(f) if self._form[p] is Form.FAMILY)

    def sums(self, f: int) -> Iterator[int]:
        """Every sum on the way down from `f`."""
        return (p for p in self._down(f) if self._form[p] is Form.SUM)

    def below(self, f: int) -> Iterator[int]:
        """`f` and every factor under it, single units included."""
        return self._down(f)

    def _down(self, f: int, only: Form | None = None) -> Iterator[int]:
        """`f` and all below it, in order, resolved; below factors of one form `only`.

        Raises:
            MemoryError: They are more than `MOST`.
        """
        todo, met = [f], 0
        while todo:
            root = self.find(todo.pop())
            yield root
            met += 1
            if met > MOST:
                raise MemoryError(f"an axis of more than {MOST} factors")
            if only is None or self._form[root] is only:
                todo.extend(reversed(self._children[root]))

    # -- joining --------------------------------------------------------------------------------------------------
    def become(self, leaf: int, f: int) -> None:
        """Replace a root by `f`, everywhere at once; pins and reasons of a leaf pass to the leaves of `f`."""
        root, target = self.find(leaf), self.find(f)
        if root == target:
            return
        self._parent[root] = target
        self._leaves.clear()
        if root in self._indices:
            self._indices.add(target)
        for notes in (self.pins, self.rigid):
            if root in notes:
                reason = notes.pop(root)
                for part in self._ends(target):
                    self._note(notes, part, reason)
        if root in self.holders:
            names = self.holders.pop(root)
            for part in set(self.leaves(target)):
                self.holders.setdefault(part, set()).update(names)
        if root in self.why:
            reasons = self.why.pop(root)
            for part in set(self.leaves(target)):
                mine = self.why.setdefault(part, [])
                mine.extend(r for r in reasons if r not in mine and len(mine) < REASONS)

    def explain(self, f: int, reason: Pin) -> None:
        """Note why the leaves of `f` are joined or limited."""
        for part in self.leaves(f):
            reasons = self.why.setdefault(part, [])
            if reason not in reasons and len(reasons) < REASONS:
                reasons.append(reason)

    def pin(self, f: int, reason: Pin) -> None:
        """Forbid permutations of every leaf of `f`."""
        for part in self._ends(f):
            self._note(self.pins, part, reason)

    @staticmethod
    def _note(notes: dict[int, Pin], leaf: int, reason: Pin) -> None:
        """Keep the first reason, but a true one before a missing rule."""
        if leaf not in notes or notes[leaf].kind is PinKind.OPAQUE:
            notes[leaf] = reason

    def freeze(self, f: int, reason: Pin) -> None:
        """Forbid every generator on every leaf of `f`."""
        for part in self._ends(f):
            self.pins.setdefault(part, reason)
            self.rigid.setdefault(part, reason)

    @staticmethod
    def boundaries_of(sizes: Iterable[int]) -> tuple[int, ...]:
        """0 and the running sums of `sizes`."""
        ends = [0]
        for size in sizes:
            ends.append(ends[-1] + size)
        return tuple(ends)
