"""Who writes and who reads the units of a space that orthogonal matrices mix.

A rotation is its own inverse transpose, so its charges do not tell writers from readers; the way of the units through
the steps does. Where a norm divides by their length they belong to a *stream*: what writes it is what a norm sees.
Without a norm they only *meet*, themselves in a length or each other in a product that is summed: what writes them is
all that comes to such a meeting.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import field

from symlint.model.records import dataclass
from symlint.program.dispatch import dispatched
from symlint.program.steps import Concat, Einsum, Fold, Mix, Normalise, Pointwise, Slice, Step
from symlint.symmetry.charges.unknowns import Occurrence
from symlint.symmetry.structure import Action, Structure

Node = tuple[str, int]
"""A tensor that is no constant, and one of its axes."""


class _Untold(Exception):
    """The steps do something with the units that is neither writing nor reading nor normalising."""


@dataclass(frozen=True, slots=True)
class Roles:
    """The constants that meet a stream."""

    writers: tuple[Occurrence, ...]
    """They are added to, or contracted into, what is normalised, or what meets where nothing is."""
    readers: tuple[Occurrence, ...]
    """They are contracted with the units, before or after a norm."""
    closed: bool
    """Whether nothing but readers and norms sees the units: no product of the stream with itself or another."""


@dataclass
class _Course:
    """The steps seen so far."""

    structure: Structure
    action: Action
    held: dict[Node, list[Occurrence]] = field(default_factory=dict)
    parent: dict[Node, Node] = field(default_factory=dict)
    entries: list[tuple[Occurrence, Node]] = field(default_factory=list)
    readers: list[Occurrence] = field(default_factory=list)
    normed: set[Node] = field(default_factory=set)
    """What a norm divides by its length."""
    streaming: set[Node] = field(default_factory=set)
    """That, and what the norm makes of it."""
    met: list[tuple[Node, Node]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for o in self.action.charge:
            self.held.setdefault((o.tensor, o.axis), []).append(o)

    def root(self, node: Node) -> Node:
        while node in self.parent:
            node = self.parent[node]
        return node

    def enter(self, node: Node, out: Node) -> None:
        """Units go from an operand of a linear step into its result."""
        if out not in self.held:
            raise _Untold
        if node[0] in self.structure.program.fixed:
            self.entries += [(o, out) for o in self.held[node]]
        elif self.root(node) != self.root(out):
            self.parent[self.root(node)] = self.root(out)

    def take(self, step: Step) -> None:
        """What one step does with the units."""
        if any(True for name in step.operands for _ in self._axes(name)):
            self._step(step)

    @dispatched
    def _step(self, step: Step) -> None:
        if not self._still(step):
            raise _Untold

    @_step.register
    def _(self, step: Einsum) -> None:
        self._contract(step)

    @_step.register
    def _(self, step: Normalise) -> None:
        if self._still(step):
            return
        for k in self._axes(step.x):
            if k not in step.axes:
                raise _Untold
            node = step.x, k
            self.normed.add(node)
            self.streaming |= {node, (step.out, k)}
            self.entries += [(o, node) for o in self.held[node] if step.x in self.structure.program.fixed]

    @_step.register
    def _(self, step: Pointwise) -> None:
        if self._still(step):
            return
        if any(True for _ in self._axes(step.out)):
            self._pass(step)
        else:
            self._meet([(name, k) for name in dict.fromkeys(step.operands) for k in self._axes(name)])

    @_step.register
    def _(self, step: Concat | Slice) -> None:
        if not self._still(step):
            self._pass(step)

    def _pass(self, step: Pointwise | Concat | Slice) -> None:
        """Units go on from all operands, each to its own place."""
        shapes = self.structure.program.shapes
        for name in step.operands:
            for k in self._axes(name):
                self.enter((name, k), (step.out, k + len(shapes[step.out]) - len(shapes[name])))

    @_step.register
    def _(self, step: Mix) -> None:
        if self._still(step):
            return
        for k in self._axes(step.x):
            if k not in step.sources:
                raise _Untold
            self.enter((step.x, k), (step.out, step.sources.index(k)))

    @_step.register
    def _(self, step: Fold) -> None:
        if not self._still(step):
            self._meet([(step.x, k) for k in self._axes(step.x)])

    def _meet(self, nodes: Sequence[Node]) -> None:
        """Units of one or two tensors are multiplied with each other, and summed."""
        known = [node for node in nodes if node[0] in self.structure.program.fixed]
        if len(nodes) > 2 or len(known) == len(nodes):
            raise _Untold
        self.readers += [o for node in known for o in self.held[node]]
        if not known:
            self.met.append((nodes[0], nodes[-1]))

    def _still(self, step: Step) -> bool:
        return self.structure.program.fixed.issuperset(step.results)

    def _axes(self, name: str) -> Iterator[int]:
        yield from (k for k in range(len(self.structure.axes.of.get(name, ()))) if (name, k) in self.held)

    def _contract(self, step: Einsum) -> None:
        still = step.out in self.structure.program.fixed
        summed: dict[str, list[Node]] = {}
        for name, spec in zip(step.operands, step.specs, strict=True):
            for k in self._axes(name):
                label = self._label(step, (name, k), spec[k])
                places = [j for j, axis in enumerate(step.result) if label in axis]
                if not places:
                    summed.setdefault(label, []).append((name, k))
                elif not still:
                    self.enter((name, k), (step.out, places[0]))
        for nodes in summed.values():
            if len(nodes) != 2:
                raise _Untold
            self._meet(nodes)

    def _label(self, step: Einsum, node: Node, labels: tuple[str, ...]) -> str:
        """The label of an axis to which the units belong."""
        rest, found = self.structure.axes.of[node[0]][node[1]], []
        for label in labels[:-1]:
            halves = self.structure.axes.factors.split(rest, step.sizes[label])
            if halves is None:
                raise _Untold
            found.append((label, halves[0]))
            rest = halves[1]
        found.append((labels[-1], rest))
        factors = self.structure.axes.factors
        mine = [label for label, part in found if self.action.leaf in set(factors.leaves(part))]
        if len(mine) != 1:
            raise _Untold
        return mine[0]


def roles(structure: Structure, action: Action) -> Roles | None:
    """The writers and readers of the units of an orthogonal action.

    None where nothing is normalised and nothing meets, or where a step does something else with them.
    """
    course = _Course(structure, action)
    try:
        for step in structure.program.steps:
            course.take(step)
    except _Untold:
        return None
    if not course.normed:
        entries = tuple(dict.fromkeys(o for o, _ in course.entries))
        return Roles(entries, tuple(dict.fromkeys(course.readers)), closed=False) if course.met else None
    normed = {course.root(node) for node in course.normed}
    streaming = {course.root(node) for node in course.streaming}
    # Weights that are chosen at run time, as those of experts, read the stream though they are no constants.
    chosen = {course.root(node) for pair in course.met for node in pair} - streaming
    closed = all(len({course.root(node) for node in pair} & streaming) == 1 for pair in course.met)
    writers = [o for o, node in course.entries if course.root(node) in normed]
    readers = [*course.readers, *(o for o, node in course.entries if course.root(node) in chosen)]
    return Roles(tuple(dict.fromkeys(writers)), tuple(dict.fromkeys(readers)), closed)
