"""The linear system of charges: an unknown for every occurrence of a leaf, and the equations of pure structure.

Contraction, concatenation and cutting bind charges in the same way whatever acts on the units; what a function of the
elements allows depends on the kind of the generator and is left to the systems of `symlint.charge`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from symlint.arena import Form
from symlint.dispatch import dispatched
from symlint.program import (
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
    operands,
    results,
)
from symlint.terms import Condition, joint, meet
from symlint.unknowns import ONE, Slots, Unknowns


class System(Unknowns):
    """The equations that every step gives; subclasses know one kind of generator."""

    @dispatched
    def step(self, step: Step) -> None:
        """The equations of one step."""
        raise NotImplementedError(type(step))

    @step.register
    def _(self, step: Einsum) -> None:
        views: dict[str, list[Slots]] = {}
        for name, spec in zip(step.operands, step.specs, strict=True):
            for k, axis in enumerate(spec):
                for label, slots in self._view(name, k, axis, step.sizes):
                    views.setdefault(label, []).append(slots)
        made: dict[str, Slots] = {}
        for k, axis in enumerate(step.result):
            made.update(self._view(step.out, k, axis, step.sizes))
        for label, parts in views.items():
            self.contracted(made.get(label), parts)
        for label, slots in made.items():
            if label not in views:
                self.contracted(slots, [])

    def contracted(self, out: Slots | None, parts: list[Slots]) -> None:
        """One label of a contraction: charges add up, to nothing where the label is summed over."""
        self.balance(out, [(slots, ONE) for slots in parts])

    def _view(
        self, name: str, axis: int, labels: tuple[str, ...], sizes: Mapping[str, int]
    ) -> Sequence[tuple[str, Slots]]:
        """The variables of an axis label by label; those of a grouped axis are tied to the group's."""
        whole = self.slots(name, axis)
        if len(labels) == 1:
            return ((labels[0], whole),)
        parts = self.expansion.grouping(self.axes.of[name][axis], tuple(sizes[label] for label in labels))
        if parts is None:
            self.zero(whole)
            return ()
        views = [self.fresh(self.expansion.pattern(p)) for p in parts]
        if not self._kept(whole.pattern):
            return tuple(zip(labels, views, strict=True))
        targets = self.terms(name, axis)
        terms = [self.expansion.terms(p) for p in parts]
        if all(len(row) == 1 and not row[0].condition for row in (targets, *terms)):
            v = whole.first
            for view in views:
                for w, leaf in enumerate(view.pattern.flat, view.first):
                    self.tie(w, v, leaf)
                    v += 1
            return tuple(zip(labels, views, strict=True))
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
            for row in met:
                for (v, leaf), w in zip(flat, row, strict=True):
                    self.tie(v, w, leaf)
            if not met:
                for v, leaf in flat:
                    self.nothing(v, leaf)
        return tuple(zip(labels, views, strict=True))

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
            met = [
                s
                for s, other in enumerate(ours)
                if other.leaves == term.leaves
                and meet(other.condition, path) is not None
                and bool((other.positions == term.first + shift).any())
            ]
            slots = self.slots(part, j)
            if not met:
                self.zero_term(slots, t)
            for s in met:
                for v, w, leaf in zip(slots.term(t), self.slots(whole, k).term(s), term.leaves, strict=True):
                    self.tie(v, w, leaf)

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
        shape, law = self.program.shapes[step.out], self.law(step)
        if step.function == "Mul" and not self.program.nil.isdisjoint(step.operands):
            return  # zero, which has every charge
        degrees = law.degrees or (ONE,) * len(step.operands)
        moving = [(name, d) for name, d in zip(step.operands, degrees, strict=True) if name not in self.program.nil]
        for name, degree in moving:
            if degree is None or law.kind == "none":
                self.still(name)
        for k, size in enumerate(shape):
            if size == 1:
                continue
            parts: list[tuple[Slots, Fraction]] = []
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
        for name in (*(n for n in operands(step) if not self.once(n)), *(() if free else results(step))):
            self.still(name)
        for name in results(step) if free else ():
            self._free(name)

    @step.register
    def _(self, step: Unknown) -> None:
        for name in (*operands(step), *results(step)):
            self.still(name)
