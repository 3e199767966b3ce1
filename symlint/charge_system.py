"""The linear system of charges: an unknown for every occurrence of a leaf, and the equations of pure structure.

Contraction, concatenation and cutting bind charges in the same way whatever acts on the units; what a function of the
elements allows depends on the kind of the generator and is left to the systems of `symlint.charge`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import singledispatchmethod

import numpy as np

from symlint.arena import Form
from symlint.axes import Axes
from symlint.linear_system import nullspace
from symlint.program import (
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
    Step,
    Unknown,
)
from symlint.terms import Condition, Expansion, Term, joint, meet

ONE = Fraction(1)
CONSTANT = Law("product", (Fraction(0),))
"""An even function: it absorbs what acts on its operand."""


@dataclass(frozen=True, slots=True)
class Occurrence:
    """Where a leaf stands: in which term of which axis of which tensor, and at which place of the term."""

    tensor: str
    axis: int
    term: int
    place: int


Charge = Mapping[Occurrence, Fraction]


class System:
    """Unknown charges and their equations; subclasses know one kind of generator."""

    modulus: int | None = None
    """2 where a charge only says whether something acts."""
    elementwise = True
    """Whether units are acted on one by one, so that a gain per unit moves along."""

    def __init__(self, program: Program, axes: Axes, expansion: Expansion) -> None:
        self.program, self.axes, self.expansion = program, axes, expansion
        self.factors = axes.factors
        self.variables: dict[tuple[str, int], list[list[int]]] = {}
        self.leaf_of: list[int] = []
        self.equations: dict[int, list[dict[int, Fraction]]] = {}
        self.free: set[int] = set()
        self.bound = {name for s in program.steps if isinstance(s, Affine) for name in (s.gain, s.bias, s.mean, s.var)}
        for name in (*program.inputs, *program.outputs, *program.tables):
            self.still(name)
        for name in program.weights:
            self._weight(name)

    def _weight(self, name: str) -> None:
        """A weight's charges are free, unless it is an integer, a statistic, or shared and not zero."""
        tensor = self.program.model.tensors[self.program.weights[name]]
        shared = name in self.program.detached and bool(np.any(tensor.read()))
        if not tensor.floating or shared:
            self.still(name)
        elif name not in self.bound:
            self._free(name)

    def _free(self, name: str) -> None:
        for axis in range(len(self.axes.of[name])):
            self.free.update(v for row in self.slots(name, axis) for v in row)

    def slots(self, name: str, axis: int) -> list[list[int]]:
        """The variables of one axis: one per term and leaf."""
        key = (name, axis)
        if key not in self.variables:
            self.variables[key] = self.fresh(self.terms(name, axis))
        return self.variables[key]

    def terms(self, name: str, axis: int) -> tuple[Term, ...]:
        """The terms of one axis of a tensor."""
        return self.expansion.terms(self.axes.of[name][axis])

    def fresh(self, terms: Sequence[Term]) -> list[list[int]]:
        """New variables for terms."""
        made: list[list[int]] = []
        for term in terms:
            made.append(list(range(len(self.leaf_of), len(self.leaf_of) + len(term.leaves))))
            self.leaf_of.extend(term.leaves)
        return made

    def equate(self, *parts: tuple[int, Fraction]) -> None:
        """One equation: the weighted sum of variables is zero."""
        row: dict[int, Fraction] = {}
        for v, c in parts:
            row[v] = row.get(v, Fraction(0)) + c
        row = {v: c for v, c in row.items() if c}
        if row:
            self.equations.setdefault(self.leaf_of[next(iter(row))], []).append(row)

    def zero(self, slots: Sequence[Sequence[int]]) -> None:
        """Nothing may be scaled here."""
        for row in slots:
            for v in row:
                self.equate((v, ONE))

    def still(self, name: str) -> None:
        """No axis of a tensor may be scaled."""
        for axis in range(len(self.axes.of.get(name, ()))):
            self.zero(self.slots(name, axis))

    def balance(self, out: Sequence[Sequence[int]] | None, parts: Sequence[tuple[list[list[int]], Fraction]]) -> None:
        """Slot by slot: the output's charge is the weighted sum of the parts' (zero where there is no output)."""
        rows = [slots for slots, _ in parts] + ([out] if out is not None else [])
        if len({tuple(tuple(self.leaf_of[v] for v in r) for r in slots) for slots in rows}) > 1:
            for slots in rows:
                self.zero(slots)
            return
        for t, row in enumerate(rows[0] if rows else ()):
            for k in range(len(row)):
                terms = [(slots[t][k], c) for slots, c in parts]
                self.equate(*terms, *([(out[t][k], -ONE)] if out is not None else []))

    def solve(self) -> dict[int, list[Charge]]:
        """The rescalings of every leaf that move at least one weight."""
        wanted: dict[int, dict[int, Occurrence]] = {leaf: {} for leaf in {self.leaf_of[v] for v in self.free}}
        for (name, axis), slots in self.variables.items():
            for t, row in enumerate(slots):
                for k, v in enumerate(row):
                    if self.leaf_of[v] in wanted:
                        wanted[self.leaf_of[v]][v] = Occurrence(name, axis, t, k)
        found: dict[int, list[Charge]] = {}
        for leaf, variables in wanted.items():
            if leaf in self.factors.rigid:
                continue
            solutions = nullspace(self.equations.get(leaf, ()), variables, self.modulus)
            moving = [s for s in solutions if any(v in self.free for v in s)]
            if moving:
                found[leaf] = [{variables[v]: c for v, c in s.items()} for s in moving]
        return found

    # -- structure --------------------------------------------------------------------------------------------------
    @singledispatchmethod
    def step(self, step: Step) -> None:
        """The equations of one step."""
        raise NotImplementedError(type(step))

    @step.register
    def _(self, step: Einsum) -> None:
        views = [
            view
            for name, spec in zip(step.operands, step.specs, strict=True)
            for k, axis in enumerate(spec)
            for view in self._view(name, k, axis, step.sizes)
        ]
        made = dict(view for k, axis in enumerate(step.result) for view in self._view(step.out, k, axis, step.sizes))
        for label in dict.fromkeys([*(label for label, _ in views), *made]):
            self.contracted(made.get(label), [slots for name, slots in views if name == label])

    def contracted(self, out: list[list[int]] | None, parts: list[list[list[int]]]) -> None:
        """One label of a contraction: charges add up, to nothing where the label is summed over."""
        self.balance(out, [(slots, ONE) for slots in parts])

    def _view(
        self, name: str, axis: int, labels: tuple[str, ...], sizes: Mapping[str, int]
    ) -> Iterator[tuple[str, list[list[int]]]]:
        """The variables of an axis label by label; those of a grouped axis are tied to the group's."""
        whole = self.slots(name, axis)
        if len(labels) == 1:
            yield labels[0], whole
            return
        rest, parts = self.axes.of[name][axis], []
        for label in labels[:-1]:
            halves = self.factors.split(rest, sizes[label])
            if halves is None:
                self.zero(whole)
                return
            parts.append(halves[0])
            rest = halves[1]
        if labels:
            parts.append(rest)
        terms = [self.expansion.terms(p) for p in parts]
        views = [self.fresh(t) for t in terms]
        targets = self.terms(name, axis)
        for picks, first, condition in joint(terms, [sizes[label] for label in labels]):
            flat = [v for view, k in zip(views, picks, strict=True) for v in view[k]]
            met = [
                row
                for row, t in zip(whole, targets, strict=True)
                if t.first == first and len(row) == len(flat) and meet(t.condition, condition) is not None
            ]
            for v, w in ((v, w) for row in met for v, w in zip(flat, row, strict=True)):
                self.equate((v, ONE), (w, -ONE))
            if not met:
                self.zero([flat])
        yield from zip(labels, views, strict=True)

    @step.register
    def _(self, step: Concat) -> None:
        index = self.axes.of[step.out][step.axis]
        offset = 0
        for name in step.operands:
            size = self.program.shapes[name][step.axis]
            path = self._path(index, offset, offset + size)
            for k in range(len(self.axes.of[name])):
                self._pair(step.out, k, name, k, offset if k == step.axis else 0, {} if k == step.axis else path)
            offset += size

    def _path(self, f: int, start: int, stop: int) -> Condition:
        if self.factors.form(f) is not Form.SUM:
            return {}
        return {key: (a, b) for key, (a, b, _) in self.factors.path(f, (start, stop, f)).items()}

    def _pair(self, whole: str, k: int, part: str, j: int, shift: int, path: Condition) -> None:
        """Axis j of `part` is axis k of `whole`, at positions from `shift` on and under the condition `path`."""
        ours, theirs = self.terms(whole, k), self.terms(part, j)
        for t, term in enumerate(theirs):
            place = term.first + shift
            met = [
                s
                for s, other in enumerate(ours)
                if meet(other.condition, path) is not None
                and other.leaves == term.leaves
                and bool((other.positions == place).any())
            ]
            if not met:
                self.zero([self.slots(part, j)[t]])
            for s in met:
                self.balance([self.slots(part, j)[t]], [([self.slots(whole, k)[s]], ONE)])

    @step.register
    def _(self, step: Slice) -> None:
        f = self.axes.of[step.x][step.axis]
        target, width = f, 1
        if self.factors.form(f) is Form.PRODUCT:
            target = self.factors.parts(f)[0]
            width = self.factors.size(f) // self.factors.size(target)
        aligned = step.start % width == 0 and step.stop % width == 0
        path = self._path(target, step.start // width, step.stop // width) if aligned else {}
        for k in range(len(self.axes.of[step.x])):
            self._pair(step.x, k, step.out, k, step.start if k == step.axis else 0, {} if k == step.axis else path)

    @step.register
    def _(self, step: Pointwise) -> None:
        shape = self.program.shapes[step.out]
        law = self.law(step)
        degrees = law.degrees or (ONE,) * len(step.operands)
        moving = [(name, d) for name, d in zip(step.operands, degrees, strict=True) if not self._nil(name)]
        for name, degree in moving:
            if degree is None or law.kind == "none":
                self.still(name)
        for k, size in enumerate(shape):
            if size == 1:
                continue
            parts: list[tuple[list[list[int]], Fraction]] = []
            absent = mixed = False
            for name, degree in moving:
                mine = k - len(shape) + len(self.axes.of[name])
                if mine >= 0 and self.program.shapes[name][mine] > 1:
                    if degree is not None:
                        parts.append((self.slots(name, mine), degree))
                    mixed = mixed or (degree is None and not self.elementwise)
                else:
                    absent = absent or degree is not None
            if mixed:
                for slots, _ in parts:
                    self.zero(slots)
                parts = []
            self.answer(law, self.slots(step.out, k), parts, absent=absent)

    def law(self, step: Pointwise) -> Law:
        """How an elementwise function answers to this kind of generator."""
        raise NotImplementedError

    def answer(
        self, law: Law, out: list[list[int]], parts: list[tuple[list[list[int]], Fraction]], *, absent: bool
    ) -> None:
        """One output axis against the operands that have it; `absent` says that some operand broadcasts along it."""
        if law.kind == "none" or not parts or (law.kind == "sum" and absent):
            self.zero(out)
        if law.kind == "sum":
            for slots, _ in parts:
                self.balance(out, [(slots, ONE)])
        elif law.kind == "product" and parts:
            self.balance(out, parts)

    def _nil(self, name: str) -> bool:
        """Whether a tensor is the known zero, which has every charge."""
        return name in self.program.tables and not np.any(self.program.tables[name])

    @step.register
    def _(self, step: Mix) -> None:
        passes = self.passes(step)
        for k in range(len(self.axes.of[step.x])):
            if k not in step.keep or not passes:
                self.zero(self.slots(step.x, k))
        for k, source in enumerate(step.keep):
            out = self.slots(step.out, k)
            if source is None or not passes:
                self.zero(out)
            else:
                self.balance(out, [(self.slots(step.x, source), ONE)])

    def passes(self, step: Mix) -> bool:
        """Whether a map along other axes lets this kind of generator through."""
        return step.law.kind != "none"

    @step.register
    def _(self, step: Normalise) -> None:
        self.still(step.x)
        self.still(step.out)

    @step.register
    def _(self, step: Fold) -> None:
        law = self.folded(step)
        kept = [k for k in range(len(self.axes.of[step.x])) if k not in step.axes]
        for k in step.axes:
            self.zero(self.slots(step.x, k))
        for out, k in enumerate(kept):
            if law.kind == "none":
                self.zero(self.slots(step.x, k))
            degree = (law.degrees[0] if law.degrees else None) or Fraction(law.degrees != CONSTANT.degrees)
            self.answer(law, self.slots(step.out, out), [(self.slots(step.x, k), degree)], absent=False)

    def folded(self, step: Fold) -> Law:
        """How a reduction answers along the axes that stay."""
        return step.law

    @step.register
    def _(self, step: Affine) -> None:
        free = all(n in self.program.weights and self._once(n) for n in (step.gain, step.bias)) and self.elementwise
        for name in (step.gain, step.bias, step.mean, step.var):
            if name not in self.program.weights or not self._once(name):
                self.still(name)
        for name in (step.scale, step.shift):
            if free:
                self._free(name)
            else:
                self.still(name)

    def _once(self, name: str) -> bool:
        """Whether a weight is read by one step alone and not shared."""
        return name not in self.program.detached and self.program.reads[name] == 1

    @step.register
    def _(self, step: Unknown) -> None:
        for name in (*step.operands, *step.outs):
            self.still(name)
