"""The walk: every axis of every tensor of a program as an expression over factors."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from symlint.model.records import dataclass
from symlint.program.flow import meetings
from symlint.program.functions import MixKind, dispatched
from symlint.program.steps import (
    Affine,
    Concat,
    Einsum,
    Fold,
    Loop,
    Mix,
    Normalise,
    Pointwise,
    Program,
    Slice,
    Step,
    Unknown,
)
from symlint.symmetry.axes.arena import INPUT, MOVING, OUTPUT, STATE, TABLE, UNFIT, Form, Pin, PinKind
from symlint.symmetry.axes.factor import Factors, Span, collapse, unify

# Interleaving: units that a lookup chose one by one are units of one space, wherever they lie on an axis.
#
# A lookup at fixed indices cuts an axis into single units. Those of them that are always together, all chosen or none,
# may change places among each other as the units of any space: they become one factor, of which the units lie at places
# of their own among those of others.

Parents = Counter[int]
"""The sums in which a piece lies, with how many times."""


def interleave(
    factors: Factors, of: Mapping[str, Sequence[int]], tensors: Iterable[Sequence[int]], chosen: Iterable[int]
) -> None:
    """Join what was cut, once the walk is over.

    Args:
        factors: change in place.
        of: the axes of every tensor.
        tensors: all axes that count.
        chosen: the axes of which units were chosen.
    """
    candidates = {p for f in chosen if _plain(factors, f) for p in factors.pieces(f)}
    candidates = {p for p in candidates if factors.form(p) is Form.LEAF and p not in {**factors.pins, **factors.rigid}}
    if not candidates:
        return
    parents, alone = _parents(factors, {factors.find(f) for axes in tensors for f in axes}, candidates)
    groups: defaultdict[tuple[tuple[int, int], ...], list[int]] = defaultdict(list)
    for piece in candidates - alone:
        groups[tuple(sorted(parents[piece].items()))].append(piece)
    joined: dict[int, int] = {}
    order: dict[int, dict[int, int]] = {}
    for held, pieces in groups.items():
        if len(pieces) > 1 and held:
            first = factors.pieces(held[0][0])
            pieces.sort(key=first.index)
            leaf = factors.leaf(sum(map(factors.size, pieces)))
            order[leaf] = dict(zip(pieces, factors.boundaries_of(map(factors.size, pieces)), strict=False))
            joined |= dict.fromkeys(pieces, leaf)
    roots = {root for piece in joined for root in parents[piece]}
    for root in roots:
        factors.become(root, _arranged(factors, root, joined, order))
    for name, axes in of.items():
        for leaf in order.keys() & {x for f in axes for x in factors.leaves(f)}:
            factors.holders.setdefault(leaf, set()).add(name)
    for piece, leaf in joined.items():
        for reason in factors.why.get(piece, ()):
            factors.explain(leaf, reason)


def _plain(factors: Factors, f: int) -> bool:
    """Whether a factor is a sum of pieces that nothing depends on."""
    return factors.form(f) is Form.SUM and not any(factors.indexes(s) for s in factors.sums(f))


def _parents(factors: Factors, roots: Iterable[int], candidates: set[int]) -> tuple[dict[int, Parents], set[int]]:
    """The sums of each candidate, and those candidates that also lie elsewhere."""
    parents: dict[int, Parents] = {p: Counter() for p in candidates}
    alone = set[int]()
    seen, waiting = set[int](), list(roots)
    while waiting:
        root = waiting.pop()
        if root in seen:
            continue
        seen.add(root)
        if root in candidates:
            alone.add(root)
        if not _plain(factors, root):
            waiting += factors.parts(root)
            continue
        for piece in factors.pieces(root):
            if piece in candidates:
                parents[piece][root] += 1
            else:
                waiting.append(piece)
    return parents, alone


def _arranged(factors: Factors, root: int, joined: Mapping[int, int], order: Mapping[int, Mapping[int, int]]) -> int:
    """A sum of pieces as what they were joined to; what lies there several times has so many parts."""
    parts: dict[tuple[int, int], NDArray[np.int64]] = {}
    times, start = Counter[int](), 0
    for piece in factors.pieces(root):
        size = factors.size(piece)
        leaf, here = joined.get(piece, piece), np.arange(start, start + size)
        where = parts.setdefault((leaf, times[piece]), np.zeros(factors.size(leaf), np.int64))
        at = order[leaf][piece] if piece in joined else 0
        where[at : at + size] = here
        times[piece] += 1
        start += size
    return factors.arranged((leaf for leaf, _ in parts), parts.values())


# Cutting an axis: where the cut falls, and which other axes of the tensor then depend on the piece.

SINGLE = 8
"""An axis of at most this size of which one index is taken is cut into all its single indices at once."""


def cut(
    factors: Factors, of: Mapping[str, Sequence[int]], axes: Sequence[int], k: int, start: int, stop: int
) -> list[int]:
    """The axes of a tensor of which only the indices from `start` to `stop` of axis `k` are left.

    Args:
        of: the axes of all tensors so far; what no other tensor holds without the cut axis gets an instance per piece.
    """
    f = axes[k]
    assert 0 <= start < stop <= factors.size(f), "a slice takes something, and of its axis: the lowering sees to it"
    target, width = f, 1
    if factors.form(f) is Form.PRODUCT:
        target = factors.parts(f)[0]
        width = factors.size(f) // factors.size(target)
    span: Span | None = None
    if start % width == 0 and stop % width == 0:
        first, last, size = start // width, stop // width, factors.size(target)
        cuts = tuple(sorted({0, first, last, size}))
        if last - first == 1 and size <= SINGLE and factors.form(target) is Form.LEAF:
            cuts = tuple(range(size + 1))
        root = factors.find(target)
        holders = factors.holders.get(root, set()) if factors.form(root) is Form.LEAF else set()
        far = {leaf for name in holders for leaf in _together(factors, of[name]) if leaf != root}
        spans = factors.spans(target, cuts)
        _instance(factors, of, axes, target, cuts, far)
        span = next(s for s in spans if s[0] == first)
    cuts = tuple(sorted({0, start, stop, factors.size(f)}))
    piece = next(p for a, _, p in factors.spans(f, cuts) if a == start)
    return [piece if j == k else g if span is None else factors.restrict(g, target, span) for j, g in enumerate(axes)]


def _together(factors: Factors, axes: Sequence[int]) -> set[int]:
    """The factors that all stand in a tensor at once, whatever the place: no pieces, and no members of families."""
    return {p for f in axes for p in (factors.parts(f) if factors.form(f) is Form.PRODUCT else (factors.find(f),))}


def _instance(
    factors: Factors,
    of: Mapping[str, Sequence[int]],
    axes: Sequence[int],
    index: int,
    cuts: tuple[int, ...],
    far: Collection[int],
) -> None:
    """Give every leaf beside `index` one instance per piece of it, if all tensors that hold the leaf hold `index`.

    It stands beside it in the tensor that is cut; those that are `far` stand in others, and have to in all.
    """
    root = factors.find(index)
    inside = set(factors.leaves(index))
    over = {leaf for f in axes for g in factors.families(f) if factors.index(g) == root for leaf in factors.leaves(g)}
    near = {x for f in axes for x in factors.leaves(f)}
    for leaf in sorted(near.union(far) - inside - over):
        if leaf in factors.pins or factors.form(leaf) is not Form.LEAF or factors.size(leaf) == 1:
            continue
        held = [of[name] for name in factors.holders[leaf]]
        if (
            all(root in {s for f in axes for s in factors.sums(f)} for axes in held)
            if leaf in near
            else all({root, leaf} <= _together(factors, axes) for axes in held)
        ):
            members = [factors.leaf(factors.size(leaf)) for _ in cuts[1:]]
            factors.become(leaf, factors.family(root, cuts, members))


@dataclass(frozen=True, slots=True)
class Company:
    """Factors that stand beside each other in a tensor less the axes that a step mixes or meets with others."""

    axes: tuple[int, ...]
    tensors: frozenset[str]
    """What the step reads and makes: only what moves one of them has to do with it."""


def _company(step: Step, axes: Iterable[int]) -> Company:
    return Company(tuple(axes), frozenset((*step.operands, *step.results)))


@dataclass(frozen=True)
class Axes:
    """What the walk found."""

    factors: Factors
    of: dict[str, tuple[int, ...]]
    """Tensor of the program -> the factor of each of its axes."""
    contexts: tuple[Company, ...]
    """What a unit's gauge may depend on in each step."""
    choices: tuple[tuple[tuple[int, ...], int], ...] = ()
    """Factors whose indices together choose one unit of another: a token and a place in the ranking its expert."""
    neighbours: dict[tuple[tuple[int, ...], int], list[tuple[tuple[int, int], list[int]]]] = field(
        default_factory=dict, compare=False
    )
    """Axes and leaf -> each occurrence of the leaf with the factors beside it, as far as it was asked for."""

    @cached_property
    def chosen(self) -> tuple[tuple[frozenset[int], int], ...]:
        """The choices leaf by leaf; a factor that was cut since is left out."""
        leaves = self.factors.leaves
        found = [(frozenset(x for f in by for x in leaves(f)), list(leaves(unit))) for by, unit in self.choices]
        return tuple((by, units[0]) for by, units in found if len(units) == 1)

    @cached_property
    def holding(self) -> dict[int, list[str]]:
        """Leaf -> the tensors that hold it."""
        found: dict[int, list[str]] = {}
        for name, axes in self.of.items():
            for leaf in {x for f in axes for x in self.factors.leaves(f)}:
                found.setdefault(leaf, []).append(name)
        return found

    @cached_property
    def contexts_of(self) -> dict[int, dict[tuple[int, ...], frozenset[str]]]:
        """Leaf -> the contexts that hold it, with the tensors of all their steps."""
        known: dict[tuple[int, ...], frozenset[str]] = {}
        for context in self.contexts:
            axes = tuple(map(self.factors.find, context.axes))
            known[axes] = known.get(axes, frozenset()) | context.tensors
        found: dict[int, dict[tuple[int, ...], frozenset[str]]] = {}
        for axes, tensors in known.items():
            for leaf in {x for f in axes for x in self.factors.leaves(f)}:
                found.setdefault(leaf, {})[axes] = tensors
        return found


def walk(program: Program) -> Axes:
    """The axes of `program`."""
    walker = _Walker(program)
    for step in program.steps:
        walker.step(step)
    for name in set(program.outputs).intersection(program.ends):
        for f in walker.of.get(name, ()):
            walker.factors.pin(f, OUTPUT)
    for loop in program.loops:
        if not loop.flows:
            walker.close(loop)
    while True:
        walker.settle()
        tensors = [*walker.of.values(), *(context.axes for context in walker.contexts), *walker.joint]
        collapse(walker.factors, tensors)
        if not walker.settle():
            break
    interleave(walker.factors, walker.of, tensors, walker.chosen)
    return Axes(walker.factors, walker.of, tuple(walker.contexts), tuple(walker.choices))


class _Walker:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.factors = Factors()
        self.of: dict[str, tuple[int, ...]] = {}
        self.contexts: list[Company] = []
        self.apart: list[tuple[Company, tuple[int, ...], tuple[int, ...]]] = []
        """What would be a context if of two groups of axes one held a factor of the other."""
        self.choices: list[tuple[tuple[int, ...], int]] = []
        self.chosen: list[int] = []
        """Axes of which units were chosen one by one."""
        self.joint: list[tuple[int, ...]] = []
        """What all operands of a contraction hold together."""
        carried = {loop.input: loop.axes for loop in program.loops}
        for name in program.inputs:
            free = carried.get(name, ())
            axes = enumerate(program.shapes[name])
            self._set(name, [self.factors.leaf(n, None if k in free else INPUT) for k, n in axes])
        for name in program.weights:
            self._set(name, [self.factors.leaf(n) for n in program.shapes[name]])
        for name, value in program.tables.items():
            self._set(name, [self._table_axis(value, axis) for axis in range(value.ndim)])

    def _table_axis(self, value: np.ndarray, axis: int) -> int:
        first = value.take([0], axis=axis) if value.shape[axis] else value
        same = value.shape[axis] > 0 and bool(np.all(value == first))
        return self.factors.leaf(value.shape[axis], None if same else TABLE)

    def _set(self, name: str, axes: Sequence[int]) -> None:
        self.of[name] = tuple(axes)
        for f in axes:
            for leaf in self.factors.leaves(f):
                self.factors.holders.setdefault(leaf, set()).add(name)

    def close(self, loop: Loop) -> None:
        """Make one of the axes of a state that leaves and those of the state that comes back.

        Along an axis on which the state moves on, what is new behind what is old, its units keep their places.
        """
        for k, (f, g) in enumerate(zip(self.of[loop.input], self.of[loop.output], strict=True)):
            forms = self.factors.form(f), self.factors.form(g)
            moves = Form.FAMILY not in forms and not self._leaves([f]).isdisjoint(self._leaves([g]))
            if k in loop.axes and (self.factors.find(f) == self.factors.find(g) or not moves):
                unify(self.factors, f, g, STATE)
            else:
                self.factors.pin(f, MOVING)
                self.factors.pin(g, MOVING)

    def _unify(self, pairs: Sequence[tuple[int, int]], reason: Pin) -> None:
        """Unify axes; families come last, when their indices are known to be one."""
        for f, g in sorted(pairs, key=lambda p: Form.FAMILY in (self.factors.form(p[0]), self.factors.form(p[1]))):
            unify(self.factors, f, g, reason)

    @dispatched
    def step(self, step: Step) -> None:
        """Give the outputs of a step their axes."""
        raise NotImplementedError(type(step))

    @step.register
    def _(self, step: Einsum) -> None:
        factors, reason = self.factors, _pin(step)
        labels: dict[str, int] = {}
        pairs: list[tuple[int, int]] = []
        for name, spec in zip(step.operands, step.specs, strict=True):
            for f, axis in zip(self.of[name], spec, strict=True):
                for label, part in zip(axis, self._parts(f, axis, step), strict=True):
                    if label in labels:
                        pairs.append((labels[label], part))
                    else:
                        labels[label] = part
        self._unify(pairs, reason)
        for met in meetings(step):
            axes, lost, others = (tuple(labels[n] for n in names) for names in (met.labels, met.lost, met.others))
            company = _company(step, axes)
            if lost:
                self.apart.append((company, lost, others))
            else:
                self.contexts.append(company)
        if len(step.operands) > 1:
            self.joint.append(tuple(labels.values()))
        for axis in step.result:
            for label in axis:
                if label not in labels:
                    labels[label] = factors.leaf(step.sizes[label])
        self._set(step.out, [factors.product(labels[label] for label in axis) for axis in step.result])

    def settle(self) -> bool:
        """Make contexts of what has turned out to be one; whether there was anything."""
        before, waiting = len(self.contexts), []
        for company, lost, others in self.apart:
            if self._leaves(lost).isdisjoint(self._leaves(others)):
                waiting.append((company, lost, others))
            else:
                self.contexts.append(company)
        self.apart = waiting
        return len(self.contexts) > before

    def _leaves(self, axes: Sequence[int]) -> set[int]:
        return {leaf for f in axes for leaf in self.factors.leaves(f)}

    def _parts(self, f: int, axis: tuple[str, ...], step: Einsum) -> list[int]:
        """The factors of an axis that is read as several labels."""
        parts: list[int] = []
        rest = f
        for label in axis[:-1]:
            halves = self.factors.split(rest, step.sizes[label])
            if halves is None:
                self.factors.freeze(f, _pin(step, PinKind.GROUPING, "it has no such grouping"))
                return [self.factors.leaf(step.sizes[a], UNFIT) for a in axis]
            parts.append(halves[0])
            rest = halves[1]
        return [*parts, rest] if axis else []

    @step.register
    def _(self, step: Pointwise) -> None:
        shape = self.program.shapes[step.out]
        axes = [self.factors.leaf(n) if n == 1 else -1 for n in shape]
        pairs: list[tuple[int, int]] = []
        for name in step.operands:
            mine = self.of[name]
            for k, f in enumerate(mine, start=len(shape) - len(mine)):
                if self.factors.size(f) == 1:
                    continue
                if axes[k] < 0:
                    axes[k] = f
                else:
                    pairs.append((axes[k], f))
        self._unify(pairs, _pin(step))
        self._set(step.out, [self.factors.leaf(n) if f < 0 else f for f, n in zip(axes, shape, strict=True)])

    @step.register
    def _(self, step: Concat) -> None:
        factors = self.factors
        parts = [self.of[name] for name in step.operands]
        index = factors.sum(part[step.axis] for part in parts)
        cuts = factors.boundaries_of(factors.size(part[step.axis]) for part in parts)
        axes: list[int] = []
        for k, members in enumerate(zip(*parts, strict=True)):
            if k == step.axis:
                axes.append(index)
            elif any(leaf in factors.pins for m in members for leaf in factors.leaves(m)):
                self._unify([(members[0], m) for m in members[1:]], _pin(step))
                axes.append(members[0])
            else:
                axes.append(factors.family(index, cuts, members))
        self._set(step.out, axes)

    @step.register
    def _(self, step: Slice) -> None:
        axes = self.of[step.x]
        self._set(step.out, cut(self.factors, self.of, axes, step.axis, step.start, step.stop))

    @step.register
    def _(self, step: Mix) -> None:
        axes = self.of[step.x]
        if step.chosen is not None and self._chosen(step, *step.chosen):
            return
        self.contexts.append(_company(step, [axes[k] for k in step.keep if k is not None]))
        reason = _pin(step, PinKind.ORDER, step.kind.value)
        for k, f in enumerate(axes):
            if k not in step.keep:
                self.factors.pin(f, reason)
        shape = self.program.shapes[step.out]
        self._set(
            step.out,
            [self.factors.leaf(n, reason) if k is None else axes[k] for k, n in zip(step.keep, shape, strict=True)],
        )
        if step.kind is MixKind.RANKING:
            self.choices.append((self.of[step.out][:-1], axes[-1]))

    def _chosen(self, step: Mix, axis: int, indices: tuple[int, ...]) -> bool:
        """Give a choice among units, whose order may change, the axes that it has; False where it is none."""
        factors, axes = self.factors, self.of[step.x]
        plain = factors.form(axes[axis]) in (Form.LEAF, Form.SUM) and not factors.indexes(axes[axis])
        if not plain or any(leaf in factors.pins for leaf in factors.leaves(axes[axis])):
            return False
        ends = np.flatnonzero(np.diff(indices) != 1) + 1
        cuts = sorted(
            {
                0,
                factors.size(axes[axis]),
                *(indices[k] for k in (0, *ends)),
                *(indices[k - 1] + 1 for k in (*ends, len(indices))),
            }
        )
        pieces = {start: (stop, piece) for start, stop, piece in factors.spans(axes[axis], tuple(cuts))}
        found, at = list[int](), 0
        while at < len(indices):
            stop, piece = pieces[indices[at]]
            found.append(piece)
            at += stop - indices[at]
        self.chosen.append(axes[axis])
        self._set(step.out, [factors.sum(found) if k == axis else f for k, f in enumerate(axes)])
        return True

    @step.register
    def _(self, step: Normalise) -> None:
        axes = self.of[step.x]
        beside = tuple(f for k, f in enumerate(axes) if k not in step.axes)
        self.contexts.append(_company(step, beside))
        if step.known.picks and len(step.axes) == 1:
            self.choices.append((beside, axes[step.axes[0]]))
        self._set(step.out, axes)

    @step.register
    def _(self, step: Fold) -> None:
        self._set(step.out, [f for k, f in enumerate(self.of[step.x]) if k not in step.axes])

    @step.register
    def _(self, step: Affine) -> None:
        first, *others = ((self.of[name][0]) for name in (step.gain, step.bias, step.mean, step.var))
        self._unify([(first, f) for f in others], _pin(step))
        self._set(step.scale, [first])
        self._set(step.shift, [first])

    @step.register
    def _(self, step: Unknown) -> None:
        reason = _pin(step, PinKind.OPAQUE if step.opaque else PinKind.OBSTACLE, step.reason)
        for name in step.operands:
            for f in self.of[name]:
                self.factors.pin(f, reason)
        for name in step.outs:
            self._set(name, [self.factors.leaf(n, reason) for n in self.program.shapes[name]])


def _pin(step: Step, kind: PinKind = PinKind.JOINED, text: str = "") -> Pin:
    """What a step does to units, as a reason."""
    node = step.node
    return Pin(kind, text, node.op, node.name or node.first)
