"""The linear system of charges: an unknown for every occurrence of a leaf, and the equations of pure structure.

Contraction, concatenation and cutting bind charges in the same way whatever acts on the units; what a function of the
elements allows depends on the kind of the generator and is left to the systems of `symlint.symmetry.charges.charge`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction

import numpy as np

from symlint.program.functions import dispatched
from symlint.program.steps import (
    CONSTANT,
    NONE,
    SUM,
    Affine,
    Concat,
    Einsum,
    Fold,
    Law,
    Mix,
    Normalise,
    Pointwise,
    Slice,
    Step,
    Unknown,
)
from symlint.symmetry.axes.arena import Form
from symlint.symmetry.axes.terms import Condition, joint, meet
from symlint.symmetry.charges.unknowns import ONE, Contraction, Meeting, Slots, Ties, Unknowns, Variables

# Which variables of a step are one and the same, or meet, whatever acts on the units.


def contraction(variables: Variables, step: Einsum) -> Contraction:
    """The labels of a contraction that hold units, each with the variables of the output and of the operands."""
    ties = Ties([], [])
    views: dict[str, list[Slots]] = {}
    for name, spec in zip(step.operands, step.specs, strict=True):
        for k, axis in enumerate(spec):
            for label, slots in _view(variables, ties, name, k, axis, step.sizes):
                views.setdefault(label, []).append(slots)
    made: dict[str, Slots] = {}
    for k, axis in enumerate(step.result):
        made.update(_view(variables, ties, step.out, k, axis, step.sizes))
    labels: list[tuple[Slots | None, list[Slots]]] = [(made.get(label), parts) for label, parts in views.items()]
    labels += [(slots, []) for label, slots in made.items() if label not in views]
    concerned = variables.concerned
    kept = [
        (out, parts)
        for out, parts in labels
        if (out is not None and concerned(out.pattern)) or any(concerned(slots.pattern) for slots in parts)
    ]
    return Contraction(ties, kept)


def _view(
    variables: Variables, ties: Ties, name: str, axis: int, labels: tuple[str, ...], sizes: Mapping[str, int]
) -> Sequence[tuple[str, Slots]]:
    """The variables of an axis label by label; those of a grouped axis are tied to the group's."""
    whole = variables.slots(name, axis)
    if len(labels) == 1:
        return ((labels[0], whole),)
    f, expansion = variables.axes.of[name][axis], variables.expansion
    parts = expansion.grouping(f, tuple(sizes[label] for label in labels))
    if parts is None:
        ties.zero.extend(enumerate(whole.pattern.flat, whole.first))
        return ()
    views = [variables.fresh(expansion.pattern(p)) for p in parts]
    if variables.concerned(whole.pattern):
        terms = [expansion.terms(p) for p in parts]
        targets = expansion.terms(f)
        for picks, first, condition in joint(terms, [sizes[label] for label in labels]):
            flat = [
                pair
                for view, k in zip(views, picks, strict=True)
                for pair in zip(view.term(k), view.pattern.leaves[k], strict=True)
            ]
            met = [
                whole.term(t)
                for t, target in enumerate(targets)
                if target.first == first
                and len(target.leaves) == len(flat)
                and meet(target.condition, condition) is not None
            ]
            ties.equal.extend((v, w, leaf) for row in met for (v, leaf), w in zip(flat, row, strict=True))
            if not met:
                ties.zero.extend(flat)
    return tuple(zip(labels, views, strict=True))


def meetings(variables: Variables, step: Pointwise) -> Iterator[Meeting]:
    """The axes of an elementwise step that hold units; known zeros, which have every charge, are left out."""
    program = variables.program
    shape = program.shapes[step.out]
    moving = [(j, name, program.shapes[name]) for j, name in enumerate(step.operands) if name not in program.nil]
    for k, size in enumerate(shape):
        if size == 1:
            continue
        parts: list[tuple[int, Slots]] = []
        absent: list[int] = []
        for j, name, mine in moving:
            place = k - len(shape) + len(mine)
            if place >= 0 and mine[place] > 1:
                parts.append((j, variables.slots(name, place)))
            else:
                absent.append(j)
        out = variables.slots(step.out, k)
        if variables.concerned(out.pattern) or any(variables.concerned(slots.pattern) for _, slots in parts):
            yield Meeting(k, out, parts, absent)


def concatenation(variables: Variables, step: Concat) -> Ties:
    """The variables of operands that are those of the whole."""
    ties, axes = Ties([], []), variables.axes.of
    index, offset = axes[step.out][step.axis], 0
    for name in step.operands:
        size = variables.program.shapes[name][step.axis]
        path = _path(variables, index, offset, offset + size)
        for k in range(len(axes[name])):
            along = k == step.axis
            _pair(variables, ties, step.out, k, name, k, offset if along else 0, {} if along else path)
        offset += size
    return ties


def cut(variables: Variables, step: Slice) -> Ties:
    """The variables of a part that are those of the whole."""
    ties, axes, factors = Ties([], []), variables.axes.of, variables.axes.factors
    target, width = axes[step.x][step.axis], 1
    if factors.form(target) is Form.PRODUCT:
        whole, target = target, factors.parts(target)[0]
        width = factors.size(whole) // factors.size(target)
    aligned = step.start % width == 0 and step.stop % width == 0
    path = _path(variables, target, step.start // width, step.stop // width) if aligned else {}
    for k in range(len(axes[step.x])):
        along = k == step.axis
        _pair(variables, ties, step.x, k, step.out, k, step.start if along else 0, {} if along else path)
    return ties


def choice(variables: Variables, step: Mix) -> Ties:
    """The variables of chosen units, and of those beside them, that are those of the whole."""
    ties, of, terms = Ties([], []), variables.axes.of, variables.expansion.terms
    assert step.chosen is not None
    axis, indices = step.chosen[0], np.asarray(step.chosen[1])
    for k in range(len(of[step.x])):
        if k != axis:
            _pair(variables, ties, step.x, k, step.out, k, 0, {})
    whole, told = terms(of[step.x][axis]), set[int]()
    for t, term in enumerate(terms(of[step.out][axis])):
        mine, from_whole = variables.slots(step.out, axis).term(t), indices[term.positions]
        met = [s for s, w in enumerate(whole) if w.leaves == term.leaves and np.array_equal(w.positions, from_whole)]
        if not met:
            ties.zero.extend(zip(mine, term.leaves, strict=True))
        told.update(met)
        for s in met:
            ties.equal.extend(zip(mine, variables.slots(step.x, axis).term(s), term.leaves, strict=True))
    for s, term in enumerate(whole):
        if s not in told and np.isin(term.positions, indices).any():  # units are mixed that nobody can tell apart
            ties.zero.extend(zip(variables.slots(step.x, axis).term(s), term.leaves, strict=True))
    return ties


def _path(variables: Variables, f: int, start: int, stop: int) -> Condition:
    factors = variables.axes.factors
    if factors.form(f) is not Form.SUM:
        return {}
    return {key: (a, b) for key, (a, b, _) in factors.path(f, (start, stop, f)).items()}


def _pair(variables: Variables, ties: Ties, whole: str, k: int, part: str, j: int, shift: int, path: Condition) -> None:
    """Axis j of `part` is axis k of `whole`, at positions from `shift` on and under the condition `path`."""
    terms, of = variables.expansion.terms, variables.axes.of
    ours, standing = terms(of[whole][k]), variables.expansion.standing
    # The condition is that of another axis: what stands on this one itself is no part of it.
    asked = [{key: span for key, span in term.condition.items() if key not in term.own} for term in ours]
    for t, term in enumerate(terms(of[part][j])):
        met = [
            s
            for s in standing(of[whole][k], term.first + shift)
            if ours[s].leaves == term.leaves and meet(asked[s], path) is not None
        ]
        mine = variables.slots(part, j).term(t)
        if not met:
            ties.zero.extend(zip(mine, term.leaves, strict=True))
        for s in met:
            ties.equal.extend(zip(mine, variables.slots(whole, k).term(s), term.leaves, strict=True))


class System(Unknowns):
    """The equations that every step gives; subclasses know one kind of generator."""

    @dispatched
    def step(self, step: Step) -> None:
        """The equations of one step."""
        raise NotImplementedError(type(step))

    @step.register
    def _(self, step: Einsum) -> None:
        known = self.variables.contractions
        if id(step) not in known:
            known[id(step)] = contraction(self.variables, step)
        ties, labels = known[id(step)]
        self.apply(ties)
        for out, parts in labels:
            self.contracted(out, parts)

    def contracted(self, out: Slots | None, parts: list[Slots]) -> None:
        """One label of a contraction: charges add up, to nothing where the label is summed over."""
        self.balance(out, [(slots, ONE) for slots in parts])

    @step.register
    def _(self, step: Concat) -> None:
        self._tie(step, lambda: concatenation(self.variables, step))

    @step.register
    def _(self, step: Slice) -> None:
        self._tie(step, lambda: cut(self.variables, step))

    def _tie(self, step: Step, ties: Callable[[], Ties]) -> None:
        known = self.variables.pairs
        if id(step) not in known:
            known[id(step)] = ties()
        self.apply(known[id(step)])

    @step.register
    def _(self, step: Pointwise) -> None:
        law = self.law(step)
        if step.known.factor == 1 and not self.program.nil.isdisjoint(step.operands):
            return  # zero, which has every charge
        degrees = law.degrees or (ONE,) * len(step.operands)
        moving = [(name, d) for name, d in zip(step.operands, degrees, strict=True) if name not in self.program.nil]
        for name, degree in moving:
            if degree is None or law.kind == "none":
                self.still(name)
        known = self.variables.meetings
        if id(step) not in known:
            known[id(step)] = list(meetings(self.variables, step))
        offset = self.variables.offsets.get(id(step)) if self.elementwise else None
        for k, out, held, lacking in known[id(step)]:
            aside = offset.table if offset is not None and k in offset.axes else None
            parts = [(slots, d) for j, slots in held if (d := degrees[j]) is not None and j != aside]
            if not self.elementwise and len(parts) < len(held):
                for slots, _ in parts:
                    self.zero(slots)
                parts = []
            self.answer(law, out, parts, absent=any(degrees[j] is not None and j != aside for j in lacking))

    def law(self, step: Pointwise) -> Law:
        """How an elementwise function answers to this kind of generator."""
        raise NotImplementedError

    def answer(self, law: Law, out: Slots, parts: list[tuple[Slots, Fraction]], *, absent: bool) -> None:
        """One output axis against the operands that have it; `absent` says that some operand broadcasts along it."""
        if law.kind == "none" or not parts or (law.kind == "sum" and absent):
            self.zero(out)
        if law.kind == "sum":
            for slots, _ in parts:
                self.balance(out, [(slots, ONE)])
        elif law.kind == "product" and parts:
            self.balance(out, parts)

    @step.register
    def _(self, step: Mix) -> None:
        passes = self.passes(step)
        if step.chosen is not None and passes:
            known = self.variables.pairs
            if id(step) not in known:
                known[id(step)] = choice(self.variables, step)
            self.apply(known[id(step)])
            return
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
        for k in range(len(self.axes.of[step.x])):
            x, out, law = self.slots(step.x, k), self.slots(step.out, k), self.normalised(step, k)
            if law == SUM:
                self.balance(out, [(x, ONE)])
            else:
                if law != CONSTANT:
                    self.zero(x)
                self.zero(out)

    def normalised(self, step: Normalise, axis: int) -> Law:
        """How a normalisation answers to what is done to one axis: it commutes (SUM), takes it away, or breaks."""
        return NONE

    @step.register
    def _(self, step: Fold) -> None:
        law = self.folded(step)
        kept = [k for k in range(len(self.axes.of[step.x])) if k not in step.axes]
        for k in step.axes if law != CONSTANT or self.modulus is None else ():
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
        free = self.once(step.gain) and self.once(step.bias) and self.elementwise
        for name in (*(n for n in step.operands if not self.once(n)), *(() if free else step.results)):
            self.still(name)
        for name in step.results if free else ():
            self._free(name)

    @step.register
    def _(self, step: Unknown) -> None:
        for name in (*step.operands, *step.results):
            self.still(name)
