"""Rotary embeddings, recognised by what they compute: pairs of units turned by an angle.

Whatever the spelling (halves or neighbours, rotate-half or two products each), every element of the result is followed
back to elements of the source: pair (i, j) makes c x_i - s x_j and c x_j + s x_i, with factors c and s that are the
same tensor's values, known by what computes them. Such a step commutes with every rotation of the pair.

Planes: rotations of pairs of units that a rotary embedding turns together.

Query and key may both be turned by any further angle, as their product sees only differences. The equations are those
of invertible matrices counted modulo 2, on the factor of which both units of a pair are an index (the axis is
``p + p``); a rotary embedding lets the turn through, and nothing may tell the two units of a pair apart.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from symlint.model.graph import Array
from symlint.model.records import dataclass
from symlint.program.functions import dispatched
from symlint.program.steps import (
    NONE,
    SUM,
    Concat,
    Einsum,
    Law,
    Mix,
    Normalise,
    Pointwise,
    Program,
    Slice,
    Step,
    rearranges,
)
from symlint.symmetry.charges.charge import Linear
from symlint.symmetry.charges.unknowns import ONE, Charge, Ties, Variables

# Linear forms: tensors that are linear in one source along some axes, written out position by position.

Cells = NDArray[Any]
"""For every position: (position in the source, factors) -> sign."""


@dataclass(frozen=True, slots=True)
class Form:
    """A tensor that is linear in the source along some of its axes."""

    axes: tuple[int, ...]
    cells: Cells


def _cell(cells: Cells, k: tuple[int, ...]) -> Iterator[tuple[Any, int]]:
    terms: dict[Any, int] = cells.item(*k)
    yield from terms.items()


def each(cells: Cells, act: Callable[[int], int]) -> Cells:
    """Another sign for every term."""
    made = np.empty(cells.shape, object)
    for k in np.ndindex(cells.shape):
        made[k] = {source: act(sign) for source, sign in _cell(cells, k)}
    return made


def summed(a: Cells, b: Cells, sign: int) -> Cells:
    """Terms added up, the second with a sign."""
    made = np.empty(a.shape, object)
    for k in np.ndindex(a.shape):
        whole = dict(a[k])
        for source, size in _cell(b, k):
            whole[source] = whole.get(source, 0) + sign * size
        made[k] = {source: size for source, size in whole.items() if size}
    return made


def times(cells: Cells, factors: Array) -> Cells:
    """Every term with one more factor, by position."""
    made = np.empty(cells.shape, object)
    spread = np.broadcast_to(factors, cells.shape)
    for k in np.ndindex(cells.shape):
        made[k] = {(j, (*key, spread[k])): sign for (j, key), sign in _cell(cells, k)}
    return made


def regrouped(step: Einsum, form: Form) -> Form | None:
    """A rearrangement that keeps what comes from the source in order and apart from the rest."""
    (spec,) = step.specs
    mine = [label for a in form.axes for label in spec[a]]
    order = [label for axis in step.result for label in axis if label in mine]
    axes = tuple(a for a, axis in enumerate(step.result) if set(axis) & set(mine))
    if order != mine or any(set(step.result[a]) - set(mine) for a in axes):
        return None
    held = {label for axis in spec for label in axis}
    if held != step.kept:
        return None
    shape = [int(np.prod([step.sizes[label] for label in step.result[a]])) for a in axes]
    return Form(axes, form.cells.reshape(shape)) if int(np.prod(shape)) == form.cells.size else None


def joined(step: Concat, forms: Sequence[Form]) -> Form | None:
    """Forms put behind each other, along one of their axes or a new one."""
    if len({f.axes for f in forms}) > 1:
        return None
    axes = forms[0].axes
    if step.axis in axes:
        return Form(axes, np.concatenate([f.cells for f in forms], axis=axes.index(step.axis)))
    place = sum(a < step.axis for a in axes)
    return Form(tuple(sorted((*axes, step.axis))), np.stack([f.cells for f in forms], axis=place))


# Keys: which positions along an axis of a tensor hold the same values, by how they are computed.

DEEP = 24
"""Steps beyond which every position counts as different."""
LARGEST = 1 << 24
"""Numbers of a stored table beyond which its positions count as different."""


class Keys:
    """A key per position; equal keys are equal values, whatever the input."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.makers = program.producers
        self.repeated: dict[str, int] = {}
        """Weight -> the axis along which it holds the same numbers at several positions."""
        self.known: dict[tuple[str, int], list[Hashable]] = {}
        self.depth = 0

    def whole(self, name: str) -> Hashable:
        """The key of a tensor that is the same along the axis."""
        return ("whole", name)

    def along(self, name: str, axis: int) -> list[Hashable]:
        """The keys of the positions along an axis."""
        if (name, axis) not in self.known:
            self.depth += 1
            self.known[name, axis] = self._found(name, axis)
            self.depth -= 1
        return self.known[name, axis]

    def _found(self, name: str, axis: int) -> list[Hashable]:
        program = self.program
        n = program.shapes[name][axis]
        if name in program.tables:
            return [np.take(program.tables[name], k, axis=axis).tobytes() for k in range(n)]
        if name in program.weights:
            return self._stored(name, axis, n)
        step = self.makers.get(name) if self.depth < DEEP else None
        found = None if step is None else self._made(step, axis, n)
        return [(name, axis, k) for k in range(n)] if found is None else found

    def _stored(self, name: str, axis: int, n: int) -> list[Hashable]:
        """Of angles that are stored: a row for every place, in which units have the same numbers."""
        tensor = self.program.model.tensors[self.program.weights[name]]
        rows = [k for k, size in enumerate(tensor.shape) if size > 1 and k != axis]
        if not rows or not tensor.floating or tensor.size > LARGEST or tensor.shape != self.program.shapes[name]:
            return [(name, axis, k) for k in range(n)]
        values = tensor.read()
        keys = [(name, np.take(values, k, axis=axis).tobytes()) for k in range(n)]
        if len(set(keys)) < n:
            self.repeated[name] = axis
        return [*keys]

    @dispatched
    def _made(self, step: Step, axis: int, n: int) -> list[Hashable] | None:
        """The keys of what a step makes; None where it tells none."""
        return None

    @_made.register
    def _(self, step: Mix, axis: int, n: int) -> list[Hashable] | None:
        source = step.keep[axis]
        return None if source is None else [(id(step), key) for key in self.along(step.x, source)]

    @_made.register
    def _(self, step: Concat, axis: int, n: int) -> list[Hashable] | None:
        return [key for part in step.operands for key in self.along(part, axis)] if step.axis == axis else None

    @_made.register
    def _(self, step: Slice, axis: int, n: int) -> list[Hashable] | None:
        return self.along(step.x, axis)[step.start : step.stop] if step.axis == axis else None

    @_made.register
    def _(self, step: Pointwise, axis: int, n: int) -> list[Hashable] | None:
        columns = [self._operand(x, axis - len(self.program.shapes[step.out]), n) for x in step.operands]
        return [(step.function, *keys) for keys in zip(*columns, strict=True)]

    @_made.register
    def _(self, step: Einsum, axis: int, n: int) -> list[Hashable] | None:
        labels = step.result[axis]
        places = np.unravel_index(np.arange(n), [step.sizes[x] for x in labels]) if labels else (np.zeros(n, int),)
        columns: list[list[Hashable]] = [[(step.result, axis)] * n]
        for name, spec in zip(step.operands, step.specs, strict=True):
            columns.append([self.whole(name)] * n)
            for k, mine in enumerate(spec):
                if len(mine) == 1 and mine[0] in labels:
                    keys = self.along(name, k)
                    columns.append([keys[p] for p in places[labels.index(mine[0])]])
                elif set(mine) & set(labels):
                    return [(step.out, axis, p) for p in range(n)]
        return [tuple(keys) for keys in zip(*columns, strict=True)]

    def _operand(self, name: str, axis: int, n: int) -> list[Hashable]:
        """Keys of an operand that broadcasts, at an axis counted from the right."""
        shape = self.program.shapes[name]
        if -axis <= len(shape) and shape[axis] > 1:
            return self.along(name, len(shape) + axis)
        return [self.whole(name)] * n


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
    factors: frozenset[str]
    """What units are multiplied by."""
    tables: Mapping[str, int]
    """Weight behind the factors -> the axis along which it holds the same numbers for both units of each pair."""


def turns(program: Program) -> Iterator[Turn]:
    """The rotary embeddings of a program."""
    readers: dict[str, list[Step]] = {}
    for step in program.steps:
        for name in dict.fromkeys(step.operands):
            readers.setdefault(name, []).append(step)
    places = {id(step): k for k, step in enumerate(program.steps)}
    keys = Keys(program)
    for name, shape in program.shapes.items():
        if name in program.weights or name in program.tables or name not in readers:
            continue
        for axis in (k for k, n in enumerate(shape) if n >= 4 and _parted(readers[name], k)):
            turn = _Search(program, readers, places, keys, name, axis).turn()
            if turn is not None:
                yield turn


def _parted(readers: Sequence[Step], axis: int) -> bool:
    """Whether something else beside a reader of parts of an axis reads it, or one reads it as pairs."""
    cut = any(isinstance(s, Slice) and s.axis == axis for s in readers)
    split = [s for s in readers if rearranges(s) and len(s.specs[0][axis]) > 1]
    paired = any(s.sizes[label] == 2 for s in split for label in s.specs[0][axis])
    return paired or (len(readers) > 1 and (cut or bool(split)))


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
                return None if inner is None else self._closed(out, offset, inner)
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

    def _closed(self, out: str, offset: int, inner: frozenset[int]) -> Turn:
        makers = [s for s in self.makers.values() if id(s) in inner]
        factors = frozenset(n for s in makers for n in s.operands if n not in self.forms)
        behind, todo = set[str](), list(factors)
        while todo:
            name = todo.pop()
            if name not in behind:
                behind.add(name)
                todo += self.keys.makers[name].operands if name in self.keys.makers else ()
        tables = {name: along for name, along in self.keys.repeated.items() if name in behind}
        return Turn(self.source, out, self.axis, offset, inner, id(self.makers[out]), factors, tables)

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


class Planes(Linear):
    """Rotations of planes: as `Linear` modulo 2, through rotary embeddings."""

    modulus = 2

    def __init__(self, variables: Variables, found: Sequence[Turn]) -> None:
        super().__init__(variables)
        self.inner = frozenset[int]().union(*(turn.inner for turn in found))
        self.last = {turn.last: turn for turn in found}
        self.offsets: dict[int, set[int]] = {}
        """Leaf -> how far the second unit of a pair lies behind the first."""

    def through(self, step: Step) -> None:
        """The equations of one step; the inside of a rotary embedding has none of its own."""
        turn = self.last.get(id(step))
        if turn is None:
            if id(step) not in self.inner:
                self.step(step)
            return
        for name in turn.factors:
            self.still(name)
        for k in range(len(self.axes.of[turn.x])):
            self.balance(self.slots(turn.out, k), [(self.slots(turn.x, k), ONE)])
        for term in self.terms(turn.x, turn.axis):
            for leaf in term.leaves:
                self.offsets.setdefault(leaf, set()).add(turn.offset)

    def normalised(self, step: Normalise, axis: int) -> Law:
        """A length does not see that pairs are turned."""
        return SUM if step.function in ("rms", "l2") and axis in step.axes else NONE

    def pairs(self, leaf: int, charges: list[Charge]) -> Iterator[Charge]:
        """Solutions on the first units of pairs, each with one on the second."""
        for k, first in enumerate(charges):
            for second in charges[k:]:
                both = {**first, **second}
                if self.paired(leaf, both):
                    yield both

    def paired(self, leaf: int, charge: Charge) -> bool:
        """Whether the leaf stands in pairs of terms wherever it is turned, as far apart as where angles are added."""
        if len(self.offsets.get(leaf, ())) != 1:
            return False
        (offset,) = self.offsets[leaf]
        for name, axis in {(o.tensor, o.axis) for o in charge}:
            acted = {o.term for o in charge if (o.tensor, o.axis) == (name, axis)}
            terms = [(t, term) for t, term in enumerate(self.terms(name, axis)) if leaf in term.leaves]
            if len(terms) % 2 or {t for t, _ in terms} != acted:
                return False
            for (_, first), (_, second) in zip(terms[::2], terms[1::2], strict=True):
                if first.leaves != second.leaves or ((second.positions - first.positions) != offset).any():
                    return False
        return True


def alike(variables: Variables, found: Iterable[Turn]) -> Ties:
    """What keeps stored angles the same for both units of each pair: no generator tells the two apart."""
    ties = Ties([], [])
    for name, axis, offset in {(n, k, turn.offset) for turn in found for n, k in turn.tables.items()}:
        slots = variables.slots(name, axis)
        terms = variables.expansion.terms(variables.axes.of[name][axis])
        for t, term in enumerate(terms):
            apart = [
                abs(other.positions - term.positions) if other.leaves == term.leaves else np.zeros(1) for other in terms
            ]
            second = next((s for s, far in enumerate(apart) if (far == offset).all()), None)
            if second is None:
                ties.zero.extend(zip(slots.term(t), term.leaves, strict=True))
            else:
                ties.equal.extend(zip(slots.term(t), slots.term(second), term.leaves, strict=True))
    return ties


def planes(variables: Variables, found: Sequence[Turn]) -> dict[int, list[Charge]]:
    """Leaf -> the rotations of its planes, by the occurrences of both units of every pair."""
    if not found:
        return {}
    system = Planes(variables, found)
    for step in variables.program.steps:
        system.through(step)
    paired = {leaf: list(system.pairs(leaf, charges)) for leaf, charges in system.solve().items()}
    return {leaf: charges for leaf, charges in paired.items() if charges}
