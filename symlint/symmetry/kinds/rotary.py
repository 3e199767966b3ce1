"""Rotary embeddings, recognised by what they compute: pairs of units turned by an angle.

Whatever the spelling (halves or neighbours, rotate-half or two products each), every element of the result is followed
back to elements of the source: pair (i, j) makes c x_i - s x_j and c x_j + s x_i, with factors c and s that are the
same tensor's values, known by what computes them. Such a step commutes with every rotation of the pair.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from symlint.program.dispatch import dispatched
from symlint.program.steps import Concat, Einsum, Pointwise, Program, Slice, Step, rearranges
from symlint.symmetry.kinds.keys import Keys
from symlint.symmetry.kinds.linear_form import Form, each, joined, regrouped, summed, times

FAR = 40
"""Steps within which the two parts of a rotary embedding meet."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A tensor and the same with pairs of units turned."""

    x: str
    out: str
    axis: int
    offset: int
    """How far the second unit of each pair lies behind the first."""
    inner: frozenset[int]
    """The steps between them, by identity."""
    last: int


def turns(program: Program) -> Iterator[Turn]:
    """The rotary embeddings of a program."""
    readers: dict[str, list[Step]] = {}
    for step in program.steps:
        for name in dict.fromkeys(step.operands):
            readers.setdefault(name, []).append(step)
    places = {id(step): k for k, step in enumerate(program.steps)}
    keys = Keys(program)
    for name, shape in program.shapes.items():
        if name in program.weights or name in program.tables or len(readers.get(name, ())) < 2:
            continue
        for axis in (k for k, n in enumerate(shape) if n >= 4 and _parted(readers[name], k)):
            turn = _Search(program, readers, places, keys, name, axis).turn()
            if turn is not None:
                yield turn


def _parted(readers: Sequence[Step], axis: int) -> bool:
    """Whether something reads a part of an axis, or reads it as several."""
    cut = any(isinstance(s, Slice) and s.axis == axis for s in readers)
    return cut or any(rearranges(s) and len(s.specs[0][axis]) > 1 for s in readers)


class _Search:
    """The steps after one tensor, along one of its axes."""

    def __init__(
        self,
        program: Program,
        readers: Mapping[str, list[Step]],
        places: Mapping[int, int],
        keys: Keys,
        name: str,
        axis: int,
    ) -> None:
        self.program, self.readers, self.keys = program, readers, keys
        self.source, self.axis, self.places = name, axis, places
        cells = np.empty(program.shapes[name][axis], object)
        cells[:] = [{(k, ()): 1} for k in range(len(cells))]
        self.forms = {name: Form((axis,), cells)}
        self.makers: dict[str, Step] = {}

    def turn(self) -> Turn | None:
        waiting = sorted({self.places[id(s)] for s in self.readers[self.source]})
        for _ in range(FAR):
            if not waiting:
                return None
            step = self.program.steps[waiting.pop(0)]
            form = self._after(step)
            if form is None:
                continue
            (out,) = step.results
            self.forms[out], self.makers[out] = form, step
            offset = self._offset(out, form)
            if offset:
                inner = self._inner(out)
                return None if inner is None else Turn(self.source, out, self.axis, offset, inner, id(step))
            waiting = sorted({*waiting, *(self.places[id(s)] for s in self.readers.get(out, ()))})
        return None

    def _offset(self, out: str, form: Form) -> int:
        """How far pairs lie apart where a tensor is the source with pairs turned; 0 where it is not."""
        whole = form.axes == (self.axis,) and self.program.shapes[out] == self.program.shapes[self.source]
        if not whole:
            return 0
        offsets: set[int] = set()
        for k, cell in enumerate(form.cells):
            if list(cell) == [(k, ())]:
                continue
            own = [(key, sign) for (j, key), sign in cell.items() if j == k]
            other = [(j, key, sign) for (j, key), sign in cell.items() if j != k]
            if len(own) != 1 or len(other) != 1 or own[0][1] != 1:
                return 0
            (j, sine, sign), cosine = other[0], own[0][0]
            if form.cells[j] != {(j, cosine): 1, (k, sine): -sign}:
                return 0
            offsets.add(abs(j - k))
        return offsets.pop() if len(offsets) == 1 else 0

    def _inner(self, out: str) -> frozenset[int] | None:
        """The steps that lead to the result; None where others read what they make."""
        todo, found = [out], set[int]()
        between: set[str] = set()
        while todo:
            step = self.makers[todo.pop()]
            found.add(id(step))
            for name in step.operands:
                if name in self.forms and name != self.source and name not in between:
                    between.add(name)
                    todo.append(name)
        closed = all({id(s) for s in self.readers[n]} <= found for n in between if n != out)
        return frozenset(found) if closed and not between & self.program.finals else None

    def _after(self, step: Step) -> Form | None:
        known = [self.forms.get(n) for n in step.operands]
        return self._made(step, known, [f for f in known if f is not None])

    @dispatched
    def _made(self, step: Step, known: Sequence[Form | None], forms: Sequence[Form]) -> Form | None:
        """What a step makes of the forms of its operands, which are not all known."""
        return None

    @_made.register
    def _(self, step: Slice, known: Sequence[Form | None], forms: Sequence[Form]) -> Form | None:
        if step.axis not in forms[0].axes:
            return None
        cut = [slice(None)] * len(forms[0].axes)
        cut[forms[0].axes.index(step.axis)] = slice(step.start, step.stop)
        return Form(forms[0].axes, forms[0].cells[tuple(cut)])

    @_made.register
    def _(self, step: Einsum, known: Sequence[Form | None], forms: Sequence[Form]) -> Form | None:
        return None if step.product else regrouped(step, forms[0])

    @_made.register
    def _(self, step: Concat, known: Sequence[Form | None], forms: Sequence[Form]) -> Form | None:
        return joined(step, forms) if len(forms) == len(known) else None

    @_made.register
    def _(self, step: Pointwise, known: Sequence[Form | None], forms: Sequence[Form]) -> Form | None:
        shape = self.program.shapes[step.out]
        rank = len(shape)
        if any(len(self.program.shapes[n]) != rank for n, f in zip(step.operands, known, strict=True) if f is not None):
            return None
        if any(f.cells.shape != tuple(shape[a] for a in f.axes) for f in forms):  # one gate for many units
            return None
        does = step.known
        if does.passes:
            return Form(forms[0].axes, each(forms[0].cells, lambda s: does.sign(0) * s))
        if does.sums and not does.averages and len(forms) == len(known):
            if len({f.axes for f in forms}) > 1:
                return None
            made = forms[0].cells
            for form in forms[1:]:
                made = summed(made, form.cells, does.sign(1))
            return Form(forms[0].axes, made)
        if does.factor > 0 and len(known) == 2 and len(forms) == 1:
            other = step.operands[known.index(None)]
            lead = rank - len(self.program.shapes[other])
            shape = self.program.shapes[other]
            wide = [a for a in forms[0].axes if a >= lead and shape[a - lead] > 1]
            if len(wide) > 1:
                return None
            factor = self.keys.along(other, wide[0] - lead) if wide else [self.keys.whole(other)]
            grid = np.empty(len(factor), object)
            grid[:] = factor
            at = [1] * len(forms[0].axes)
            if wide:
                at[forms[0].axes.index(wide[0])] = len(factor)
            return Form(forms[0].axes, times(forms[0].cells, grid.reshape(at)))
        return None
