"""Narrowing: which indices of every tensor are left when spaces lose units, and what of a network is read then."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from fractions import Fraction
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from symlint.axes.terms import Expansion
from symlint.axes.walk import Axes, walk
from symlint.model.graph import Node
from symlint.model.operators import known
from symlint.program.steps import RANGE, Program
from symlint.program.translate import lowered
from symlint.symmetry.structure import Structure

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
