"""Positions: scalings of single units that are grouped in ways without a common refinement.

Where channels are shuffled between groups of other numbers, or grouped otherwise on both sides of a sum, no factor says
which units a group has: nothing permutes them. Each can still be scaled where it lies. Every tensor has an exponent per
position of such an axis; a weight that one contraction reads takes up whatever its two sides differ by, element by
element, so that the equations are those of sums, functions and rearrangements alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from math import prod
from typing import NamedTuple

import numpy as np

from symlint.model.graph import Array, Shape
from symlint.program.functions import dispatched
from symlint.program.numbers import Labelled, regroup, ungroup
from symlint.program.steps import (
    CONSTANT,
    Affine,
    Concat,
    Einsum,
    Fold,
    Law,
    Mix,
    Normalise,
    Pointwise,
    Program,
    Slice,
    Spec,
    Step,
    Unknown,
)
from symlint.symmetry.axes.arena import PinKind
from symlint.symmetry.axes.walk import Axes
from symlint.symmetry.charges.linear_system import LinearSystem, Number
from symlint.symmetry.charges.unknowns import ONE

LARGEST = 1 << 13
"""Positions of one network beyond which they are not looked at one by one."""


class Scalings(NamedTuple):
    """Independent scalings that move the same weights."""

    powers: Mapping[str, Array]
    """Weight of the program, or scale or shift of a batch normalisation -> its exponents, (scalings, *its shape)."""
    leaves: frozenset[int]
    """What the units are made of."""

    @property
    def dimension(self) -> int:
        """How many there are."""
        return len(next(iter(self.powers.values())))


def positions(program: Program, axes: Axes, scaled: Collection[int]) -> list[Scalings]:
    """The scalings of single positions along axes that are grouped in several ways; not of leaves that are `scaled`."""
    grouped = several_ways(axes).difference(scaled)
    system = Positions(program, axes, grouped) if grouped else None
    if system is None or system.count > LARGEST:
        return []
    for step in program.steps:
        system.step(step)
    return list(system.solutions())


def several_ways(axes: Axes) -> set[int]:
    """The leaves of axes that are grouped in several ways."""
    held = (axes.factors.rigid, axes.factors.pins)
    return {leaf for pins in held for leaf, pin in pins.items() if pin.kind is PinKind.GROUPING}


class Positions:
    """The equations between the exponents of single positions."""

    def __init__(self, program: Program, axes: Axes, grouped: set[int]) -> None:
        self.program, self.axes, self.grouped = program, axes, grouped
        self.system = LinearSystem()
        self.at: dict[str, Array] = {}
        """Tensor -> the variable of each position, size 1 along axes that are not grouped in several ways."""
        self.count = 0
        self.taken: list[tuple[str, Einsum, int]] = []
        """Weights that take up what two sides differ by, with the contraction and the operand that they are."""
        self.order = {n: k for k, n in enumerate((*program.weights, *program.affines))}
        for name, shape in program.shapes.items():
            self.place(name, shape)
        single = {n for n in program.weights if program.reads[n] == 1 and n not in program.detached}
        single = {n for n in single - {*program.ends} if program.model.tensors[program.weights[n]].floating}
        bound = {n for step in program.batch_norms for n in step.operands}
        self.free = (self.movable(single) - bound).union(
            *(s.results for s in program.batch_norms if {s.gain, s.bias} <= single)
        )
        """What may be scaled at will: weights, and scales and shifts of batch normalisations."""
        known = {*program.weights, *program.affines} - self.free - bound
        for name in (*program.ends, *program.tables, *known):
            self.still(name)
        for loop in program.loops:
            self.still(loop.input, loop.output)

    def movable(self, single: set[str]) -> set[str]:
        """The weights that may be scaled, of which some are read by a single step."""
        return single

    def place(self, name: str, shape: Shape) -> None:
        """Number the variables of a tensor."""
        leaves = [self.axes.factors.leaves(f) for f in self.axes.of.get(name, ())]
        wide = tuple(n if mine and self.grouped.issuperset(mine) else 1 for n, mine in zip(shape, leaves, strict=True))
        self.at[name] = np.arange(self.count, self.count + prod(wide)).reshape(wide)
        self.count += prod(wide)

    # -- equations ------------------------------------------------------------------------------------------------
    def still(self, *names: str) -> None:
        """Nothing of these is scaled, unless it is the known zero."""
        for name in names:
            if name not in self.program.nil:
                self.system.zeros += self.at[name].reshape(-1).tolist()

    def equal(self, *several: Array) -> None:
        """Exponents that broadcast against each other are equal."""
        first, *others = (a.reshape(-1).tolist() for a in np.broadcast_arrays(*several))
        for other in others:
            self.system.equalities += zip(first, other, strict=True)

    def added(self, out: Array, parts: Sequence[tuple[Array, Fraction]]) -> None:
        """An exponent is the weighted sum of others."""
        if len(parts) == 1 and parts[0][1] == 1:
            self.equal(out, parts[0][0])
            return
        flat = [a.reshape(-1).tolist() for a in np.broadcast_arrays(out, *(a for a, _ in parts))]
        for v, *others in set(zip(*flat, strict=True)):
            row: dict[int, Number] = {v: -1}
            for w, (_, c) in zip(others, parts, strict=True):
                row[w] = row.get(w, 0) + c
            self.system.add(row)

    def answer(self, law: Law, out: str, names: Sequence[str]) -> None:
        """An output against its operands."""
        pairs = list(zip(names, law.degrees or (ONE,) * len(names), strict=True))
        moving = [(n, d) for n, d in pairs if n not in self.program.nil]
        if law.kind == "product" and any(d and d > 0 for n, d in pairs if n in self.program.nil):
            return  # it makes zeros, which have any exponent
        self.still(*(n for n, d in moving if d is None))
        scaled = [(self.at[n], d) for n, d in moving if d is not None]
        if law.kind == "none" or not scaled:
            self.still(out, *(n for n, d in moving if d is not None))
        elif law.kind == "sum":
            self.equal(self.at[out], *(a for a, _ in scaled))
        else:
            self.added(self.at[out], scaled)

    # -- steps ----------------------------------------------------------------------------------------------------
    @dispatched
    def step(self, step: Step) -> None:
        """The equations of one step."""
        raise NotImplementedError(type(step))

    @step.register
    def _(self, step: Einsum) -> None:
        parts = [self._labelled(self.at[n], spec, step) for n, spec in zip(step.operands, step.specs, strict=True)]
        out = self._labelled(self.at[step.out], step.result, step)
        if not step.product:
            self.equal(*_aligned([out, *parts]))
            return
        if (k := self.takes(step, out, parts)) is not None:
            self.taken.append((step.operands[k], step, k))
            return
        first, *others = _aligned([out, *parts])
        self.added(first, [(a, ONE) for a in others])

    def takes(self, step: Einsum, out: Labelled, parts: Sequence[Labelled]) -> int | None:
        """The operand that takes up all that the others and the result differ by, if one does."""
        for k, name in enumerate(step.operands):
            held = {x for axis in step.specs[k] for x in axis}
            told = {x for p in (out, *parts) for x, n in zip(p.labels, p.values.shape, strict=True) if n > 1}
            if name in self.free and self.program.reads[name] == 1 and told <= held:
                return k
        return None

    @staticmethod
    def _labelled(values: Array, spec: Spec, step: Einsum) -> Labelled:
        return ungroup(values, spec, step.sizes)

    @step.register
    def _(self, step: Pointwise) -> None:
        self.answer(step.law, step.out, step.operands)

    @step.register
    def _(self, step: Concat) -> None:
        out, parts = self.at[step.out], [self.at[n] for n in step.operands]
        sizes = [self.program.shapes[n][step.axis] for n in step.operands]
        ends = np.cumsum([0, *sizes]).tolist()
        for part, a, b in zip(parts, ends, ends[1:], strict=False):
            whole = out if out.shape[step.axis] == 1 else out.take(range(a, b), axis=step.axis)
            self.equal(whole, part)

    @step.register
    def _(self, step: Slice) -> None:
        x = self.at[step.x]
        cut = x if x.shape[step.axis] == 1 else x.take(range(step.start, step.stop), axis=step.axis)
        self.equal(self.at[step.out], cut)

    @step.register
    def _(self, step: Mix) -> None:
        x = self.at[step.x]
        if step.law.kind == "none" or any(n > 1 for k, n in enumerate(x.shape) if k not in step.keep):
            self.still(step.x, step.out)
            return
        order = [k for k in step.keep if k is not None]
        gone = [k for k in range(x.ndim) if k not in order]
        seen = x.transpose([*order, *gone]).reshape([x.shape[k] for k in order])
        new = tuple(k for k, source in enumerate(step.keep) if source is None)
        degree = (step.law.degrees[0] if step.law.degrees else None) or ONE
        self.added(self.at[step.out], [(np.expand_dims(seen, new), degree)])

    @step.register
    def _(self, step: Normalise) -> None:
        lost = step.law == CONSTANT and all(self.at[step.x].shape[k] == 1 for k in step.axes)
        self.still(*(() if lost else step.operands), *step.results)

    @step.register
    def _(self, step: Fold) -> None:
        x = self.at[step.x]
        if step.law.kind == "none" or any(x.shape[k] > 1 for k in step.axes):
            self.still(step.x, step.out)
            return
        degree = step.law.degrees[0] if step.law.degrees else ONE
        kept = x.squeeze(tuple(step.axes))
        if degree:
            self.added(self.at[step.out], [(kept, degree)])
        else:
            self.still(step.out)

    @step.register
    def _(self, step: Affine) -> None:
        """Its scale and its shift are free, or nothing is."""

    @step.register
    def _(self, step: Unknown) -> None:
        self.still(*step.operands, *step.results)

    # -- solutions ------------------------------------------------------------------------------------------------
    def solutions(self) -> Iterator[Scalings]:
        """The scalings that move a weight, those of the same weights together."""
        owner = {v: n for n, a in self.at.items() for v in a.reshape(-1).tolist()}
        beside: defaultdict[str, list[tuple[str, Einsum, int]]] = defaultdict(list)
        for name, step, k in self.taken:
            for n in {step.out, *step.operands} - {name}:
                beside[n].append((name, step, k))
        together: defaultdict[tuple[str, ...], list[dict[str, Array]]] = defaultdict(list)
        for solution in self.system.solve(owner):
            acted = dict.fromkeys(owner[v] for v in solution)
            if all(self.at[n].size == 1 for n in acted):
                continue
            taken = {name: (step, k) for n in acted for name, step, k in beside[n]}
            moved = self._powers({v: float(c) for v, c in solution.items()}, acted, taken)
            if moved:
                together[tuple(moved)].append(moved)
        for names, several in together.items():
            powers = {n: np.stack([moved[n] for moved in several]) for n in names}
            leaves = {x for n in names for f in self.axes.of[n] for x in self.axes.factors.leaves(f)}
            yield Scalings(powers, frozenset(leaves & self.grouped))

    def _powers(
        self, solution: Mapping[int, float], acted: Iterable[str], taken: Mapping[str, tuple[Einsum, int]]
    ) -> dict[str, Array]:
        """The exponents of all weights that a solution moves, in the order of the weights."""
        exponents = np.zeros(self.count)
        exponents[list(solution)] = list(solution.values())
        apart = {name for name, _, _ in self.taken}
        found = {name: exponents[self.at[name]] for name in acted if name in self.free and name not in apart}
        found |= {name: self._difference(step, k, exponents) for name, (step, k) in taken.items()}
        shapes = self.program.shapes
        moved = sorted((name for name, mine in found.items() if mine.any()), key=self.order.__getitem__)
        return {name: np.broadcast_to(found[name], shapes[name]) for name in moved}

    def _difference(self, step: Einsum, k: int, exponents: Array) -> Array:
        """What the exponents of the result have beyond those of the other operands, over the axes of one operand."""
        parts = [
            self._labelled(exponents[self.at[n]], spec, step)
            for n, spec in zip((step.out, *step.operands), (step.result, *step.specs), strict=True)
        ]
        out, *others = _aligned(parts)
        total = out - sum(a for j, a in enumerate(others) if j != k)
        order = _labels(parts)
        held = {x for axis in step.specs[k] for x in axis}
        kept = tuple(x for x in order if x in held)
        rest = tuple(j for j, x in enumerate(order) if x not in held)
        return regroup(Labelled(np.asarray(total).squeeze(rest), kept), step.specs[k], step.sizes)


def _labels(parts: Sequence[Labelled]) -> list[str]:
    return list(dict.fromkeys(x for part in parts for x in part.labels))


def _aligned(parts: Sequence[Labelled]) -> list[Array]:
    """Arrays that broadcast against each other, with an axis for every label of any of them."""
    order = _labels(parts)
    made: list[Array] = []
    for part in parts:
        mine = [part.labels.index(x) for x in order if x in part.labels]
        here = dict(zip(part.labels, part.values.shape, strict=True))
        made.append(part.values.transpose(mine).reshape([here.get(x, 1) for x in order]))
    return made
