"""Narrowing: which indices of every tensor are left when spaces lose units, and what of a network is read then.

One node of a file under surgery: what it reads, what is left of it, and ways to tell it other numbers.

Removal: units that contribute nothing are cut off, and so are branches that are zero for every input.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import field, replace
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from symlint.evidence.context import Context
from symlint.lint.finding import Remove
from symlint.model.graph import Array, Model, Node, Shape
from symlint.model.operators import known
from symlint.model.records import dataclass
from symlint.program.lower import Ref
from symlint.program.steps import RANGE, Program
from symlint.program.translate import lowered
from symlint.repair.plan import Repair
from symlint.symmetry.axes.terms import Expansion
from symlint.symmetry.axes.walk import Axes, walk
from symlint.symmetry.motion.motion import Weights
from symlint.symmetry.structure import Action, Structure

Kept = NDArray[np.bool_]
Left = tuple[Kept | None, ...]
"""Axis by axis which indices are left; None for all of them."""


CALLERS = "callers of the network know the size of its states; --shrink-states makes them narrower"


class Immovable(Exception):
    """Units that cannot be taken away, because something depends on how many there are."""


class Uneven(Immovable):
    """The same, where the operator takes a few more of them."""

    def __init__(self, reason: str, wanted: Mapping[tuple[str, int], Fraction]) -> None:
        super().__init__(reason)
        self.wanted = wanted
        """Tensor and axis -> which share of its length is to stay."""


class Whole:
    """A network with every value that its file has, written-out normalisations included."""

    def __init__(self, structure: Structure, *, shrinks: bool = False) -> None:
        self.lowering = lowered(structure.program)
        loops = self.lowering.program.loops
        self.states = {loop.input: loop for loop in loops}
        """Input -> the state that comes back by it."""
        self.shrinks = shrinks
        """Whether these may become narrower."""
        self.axes = _axes(structure, self.lowering.program)
        self.expansion = Expansion(self.axes.factors)

    @cached_property
    def counted(self) -> frozenset[int]:
        """Leaves whose number of units some step depends on."""
        found: set[int] = set()
        leaves, of = self.axes.factors.leaves, self.axes.of
        for step in self.lowering.program.steps:
            if step.function not in (RANGE, "l2"):  # a zero more or less changes neither
                found.update(x for k in step.joint for x in leaves(of[step.operands[0]][k]))
        for step in self.lowering.program.contractions:
            if known(step.node.op).averages:
                lost = [k for k, labels in enumerate(step.specs[0]) if not step.kept.issuperset(labels)]
                found.update(x for k in lost for x in leaves(of[step.operands[0]][k]))
        return frozenset(found)


def _axes(structure: Structure, program: Program) -> Axes:
    """The axes of the whole program: those of the structure, where that has the same steps and lacks tables alone."""
    mine, axes = structure.program, structure.axes
    told = (mine.inputs, mine.outputs, mine.ends, mine.loops, mine.weights.keys())
    if [*map(id, mine.steps)] != [*map(id, program.steps)] or told != (
        program.inputs,
        program.outputs,
        program.ends,
        program.loops,
        program.weights.keys(),
    ):
        return walk(program)
    factors = axes.factors.copy()
    unread = {n: tuple(map(factors.leaf, t.shape)) for n, t in program.tables.items() if n not in axes.of}
    return replace(axes, factors=factors, of=axes.of | unread)


def left(expansion: Expansion, factor: int, size: int, masks: Mapping[int, Kept]) -> Kept | None:
    """Which indices of an axis are left when every leaf keeps the units that its mask says.

    Raises `Immovable` where an index stands for several units, of which only some are left.
    """
    if not any(leaf in masks for leaf in expansion.factors.leaves(factor)):
        return None
    every, some = np.ones(size, bool), np.zeros(size, bool)
    for term in expansion.terms(factor):
        there = np.ones(term.positions.shape, bool)
        for place, leaf in enumerate(term.leaves):
            if leaf in masks:
                there &= masks[leaf].reshape([-1 if k == place else 1 for k in range(there.ndim)])
        every[term.positions] &= there
        some[term.positions] |= there
    if not np.array_equal(every, some):
        raise Immovable("a tensor holds these units in the same places as others that stay")
    return None if every.all() else every


def agreed(structure: Structure, widths: Mapping[int, int]) -> dict[int, int]:
    """The widths that leave every tensor rectangular, given how many units each leaf can do with.

    Units that take turns in the same places of a tensor keep the largest number that one of them needs; where they are
    not equally many all of them stay.
    """
    factors, of = structure.axes.factors, structure.axes.of
    widths = {leaf: width for leaf, width in widths.items() if width < factors.size(leaf)}
    waiting = {name for leaf in widths for name in factors.holders.get(leaf, ())}
    while waiting:
        name = waiting.pop()
        for f in of.get(name, ()):
            mine = [x for x in dict.fromkeys(factors.leaves(f)) if x in widths]
            if not mine:
                continue
            try:
                left(structure.expansion, f, factors.size(f), _masks(structure.axes, widths))
            except Immovable:
                rivals = {x for g in factors.families(f) for part in factors.parts(g) for x in factors.leaves(part)}
                rivals = {x for x in rivals if factors.size(x) in {factors.size(y) for y in mine}} or set(mine)
                most = max(widths.get(x, factors.size(x)) for x in rivals)
                stuck = all(widths.get(x) == most for x in rivals)
                for x in rivals & widths.keys():
                    if stuck or most >= factors.size(x):
                        del widths[x]
                    else:
                        widths[x] = most
                waiting.update(n for x in rivals for n in factors.holders.get(x, ()))
    return widths


def _masks(axes: Axes, widths: Mapping[int, int]) -> dict[int, Kept]:
    return {leaf: np.arange(axes.factors.size(leaf)) < width for leaf, width in widths.items()}


class Narrowing:
    """What is left of every value of a file when leaves of its structure keep their first units only."""

    def __init__(self, structure: Structure, whole: Whole, widths: Mapping[int, int]) -> None:
        self.whole = whole
        self._known: dict[str, Left] = {}
        wanted = self._wanted(structure, widths)
        self.masks = self._carried(wanted)
        if any(leaf in whole.counted for leaf in self.masks):
            raise Immovable("an average or a normalisation counts them")
        near = self._near(wanted)
        for name in near - self._shrunk(near):
            if not same(self.of(name), wanted.get(name, (None,) * len(self.of(name)))):
                raise Immovable(f"{whole.lowering.program.weights.get(name, name)} is read in another grouping as well")

    def _shrunk(self, near: Set[str]) -> set[str]:
        """The inputs and outputs by which states go that become narrower, on both sides alike."""
        found = set[str]()
        for loop in self.whole.states.values():
            if near.isdisjoint((loop.input, loop.output)):
                continue
            if not self.whole.shrinks:
                raise Immovable(CALLERS)
            before, after = ([self.of(name)[k] for k in loop.axes] for name in (loop.input, loop.output))
            if not same(tuple(before), tuple(after)):
                raise Immovable(f"{loop.input} and {loop.output} would not go together")
            found |= {loop.input, loop.output}
        return found

    def _near(self, wanted: Mapping[str, Left]) -> set[str]:
        """The weights, inputs and outputs that hold a leaf with a mask, or should."""
        program, holders = self.whole.lowering.program, self.whole.axes.factors.holders
        ends = {*program.weights, *program.inputs, *program.outputs}
        return {*wanted, *(name for leaf in self.masks for name in holders.get(leaf, ()) if name in ends)}

    @staticmethod
    def _wanted(structure: Structure, widths: Mapping[int, int]) -> dict[str, Left]:
        """What is left of every weight."""
        factors, masks = structure.axes.factors, _masks(structure.axes, widths)
        found: dict[str, Left] = {}
        for name in structure.program.weights:
            axes = structure.axes.of[name]
            if any(leaf in masks for f in axes for leaf in factors.leaves(f)):
                found[name] = tuple(left(structure.expansion, f, factors.size(f), masks) for f in axes)
        return found

    def _carried(self, wanted: Mapping[str, Left]) -> dict[int, Kept]:
        """The masks of the leaves of the whole network, from what is left of its weights."""
        masks: dict[int, Kept] = {}
        for name, rows in wanted.items():
            for f, kept in zip(self.whole.axes.of.get(name, ()), rows, strict=True):
                if kept is None:
                    continue
                for term in self.whole.expansion.terms(f):
                    there = kept[term.positions]
                    for place, leaf in enumerate(term.leaves):
                        others = tuple(k for k in range(there.ndim) if k != place)
                        some = np.asarray(there.any(axis=others))
                        if not some.all():
                            masks[leaf] = masks[leaf] & some if leaf in masks else some
        return masks

    def of(self, name: str) -> Left:
        """What is left of a tensor of the whole program."""
        if name not in self._known:
            shape = self.whole.lowering.program.shapes[name]
            pairs = zip(self.whole.axes.of.get(name, ()), shape, strict=False)
            self._known[name] = tuple(left(self.whole.expansion, f, n, self.masks) for f, n in pairs)
        return self._known[name]

    def lengths(self, factor_axes: Sequence[int]) -> tuple[int, ...]:
        """New sizes of factors."""
        sizes = []
        for f in factor_axes:
            size = self.whole.axes.factors.size(f)
            kept = left(self.whole.expansion, f, size, self.masks)
            sizes.append(size if kept is None else int(kept.sum()))
        return tuple(sizes)


def same(one: Left, other: Left) -> bool:
    """Whether the same indices are left."""
    return len(one) == len(other) and all(
        (a is None) == (b is None) and (a is None or b is None or np.array_equal(a, b))
        for a, b in zip(one, other, strict=True)
    )


def nested(nodes: Iterable[Node]) -> list[Node]:
    """Nodes, each before those of its bodies."""
    return [inner for node in nodes for inner in (node, *(n for body in node.bodies for n in nested(body.nodes)))]


def reached(
    nodes: Sequence[Node], ends: Sequence[str], spared: Container[str], instead: Mapping[str, str]
) -> tuple[list[Node], set[str]]:
    """The nodes that are left when those that nothing reads go, one after another, and the values that are read.

    Args:
        nodes: of one graph, each after those that it reads from.
        ends: the results of the graph.
        spared: first outputs of nodes that stay though nothing reads them.
        instead: name -> the name that is read in its place.
    """
    left, used = list[Node](), {*ends}
    for node in reversed(nodes):
        if node.first in spared or not used.isdisjoint(node.outputs):
            left.append(node)
            used.update(instead.get(name, name) for name in _read(node) if name)
    return left[::-1], used


def _read(node: Node) -> Iterator[str]:
    """What a node reads; its bodies read and hand out values of outer graphs as well."""
    yield from node.inputs
    for body in node.bodies:
        yield from body.outputs
        for inner in body.nodes:
            yield from _read(inner)


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


Dead = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Removal:
    """How many units of each leaf are left, and the order that puts those first."""

    widths: Mapping[int, int]
    orders: Mapping[str, NDArray[np.int64]]
    """Permutation -> its element (copies..., units)."""
    refused: Mapping[int, str] = field(default_factory=dict)
    """Why leaves keep their width that could do with less."""


def plan(context: Context, dead: Mapping[str, Dead], align: int = 1) -> Removal:
    """What can go of the units that are dead, by space and copy-major.

    Units that lie in the same tensors as others of one size go together with them or stay.
    """
    structure = context.structure
    kept = agreed(structure, wanted(context, dead, align))
    orders = {}
    for action, rows in _rows(context, dead):
        if action.leaf in kept:
            orders[action.id] = np.argsort(rows, axis=-1, kind="stable")
    return Removal(kept, orders)


def wanted(context: Context, dead: Mapping[str, Dead], align: int = 1) -> dict[int, int]:
    """The widths that spaces could do with, each for itself.

    Every copy of a space loses as many units as the copy with the fewest dead ones. Where all are dead one stays,
    unless every tensor holds other units beside them. Widths that fall are multiples of `align`.
    """
    structure = context.structure
    found: dict[int, int] = {}
    for action, rows in _rows(context, dead):
        size = structure.axes.factors.size(action.leaf)
        least = 0 if _beside(context, action.leaf) else 1
        width = max(least, size - int(rows.sum(axis=-1).min()))
        width = aligned(structure, action.leaf, width, align)
        if width < size:
            found[action.leaf] = width
    return found


def _rows(context: Context, dead: Mapping[str, Dead]) -> Iterator[tuple[Action, Dead]]:
    """The permutations of spaces, and which of their units are dead, shape (copies..., units)."""
    size = context.structure.axes.factors.size
    for space, mask in dead.items():
        action = context.structure.permutation(space)
        yield action, mask.reshape(*map(size, action.copies), size(action.leaf))


def aligned(structure: Structure, leaf: int, width: int, align: int) -> int:
    """A width as the next multiple of `align`; heads and groups are counted, not aligned: what is in them is."""
    size = structure.axes.factors.size(leaf)
    if leaf in structure.nested:
        return width
    return min(size, -(-width // align) * align)


def _beside(context: Context, leaf: int) -> bool:
    """Whether the axes of all weights that hold a leaf hold others beside it."""
    structure = context.structure
    terms, of, factors = structure.expansion.terms, structure.axes.of, structure.axes.factors
    holders = factors.holders.get(leaf, set()) & structure.program.weights.keys()
    held = [terms(f) for name in holders for f in of[name] if leaf in factors.leaves(f)]
    return all(any(leaf not in term.leaves for term in row) for row in held)


def arrange(weights: Weights, removal: Removal) -> None:
    """Put the units that stay first; heads move after what is in them."""
    actions = [weights.structure.actions[name] for name in removal.orders]
    for action in sorted(actions, key=lambda a: -len(a.copies)):
        action.move(weights, removal.orders[action.id])


def lifeless(chosen: Sequence[Repair]) -> list[Repair]:
    """The repairs that would take every unit of a space away."""
    return [repair for repair in chosen if isinstance(repair.remedy, Remove) and repair.whole]


def zeros(context: Context) -> set[str]:
    """Names of the values of a file that depend on its inputs, and are zero for every input."""
    values = context.values
    names = {name: ref.name for name, ref in lowered(context.structure.program).values.items() if ref.items is None}
    return {n for n, t in names.items() if t in values and t in context.moving and values[t].zero.all()}


def bypassed(context: Context, chosen: Sequence[Repair]) -> tuple[tuple[Repair, int], ...]:
    """The repairs that are done once such branches are left out, with their units; told without the file."""
    dead = lifeless(chosen)
    if not dead:
        return ()
    gone = _gone(context.symmetry.model, zeros(context))
    return tuple((r, len(r.finding.units)) for r in dead if not gone.isdisjoint(r.finding.tensors))


def _gone(model: Model, zero: Collection[str]) -> set[str]:
    """The values and stored tensors that go with the sums of which one part is zero."""
    nodes, ends = model.graph.nodes, model.graph.outputs
    before = reached(nodes, ends, {node.first for node in nodes}, {})[1]
    spared = {node.first for node in nodes if before.isdisjoint(node.outputs)}
    instead: dict[str, str] = {}
    for node in nodes:
        if node.op != "Add" or node.first in ends:
            continue
        names = [instead.get(name, name) for name in node.inputs]
        for value, other in (names, names[::-1]):
            if value in zero and model.shapes.get(node.first) == model.shapes.get(other, ()):
                instead[node.first] = other
                break
    if not instead:
        return set()
    left, used = reached([node for node in nodes if node.first not in instead], ends, spared, instead)
    kept = {node.first for node in left}
    made = {name for node in nodes if node.first not in kept for name in node.outputs}
    unread = {name for name in model.tensors if name in before and name not in used and name not in model.bound}
    return made | unread
