"""Proofs from the weights: what becomes of every tensor when inputs are transformed, step by step, without a run.

Of each tensor it is told which pieces of its axes move along, and with which sign. A step hands that on where it treats
all places of such a piece alike: as elementwise functions, sums and norms do, products whose weights are the same after
the transformation (a kernel that is its own mirror image, which SYM801 would call a mirror's surface), and windows that
see after it what they saw before. Weights may differ by the last places of their type.

Source: Cohen and Welling, Group Equivariant Convolutional Networks (ICML 2016); Ravanbakhsh, Schneider and Poczos,
Equivariance Through Parameter-Sharing (ICML 2017): a layer is equivariant where its weights are fixed by the group.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np

from symlint.model.graph import Array, Model
from symlint.model.records import dataclass
from symlint.program.functions import Parity, dispatched
from symlint.program.numbers import Numbers, Truth, Unvalued, exactly
from symlint.program.steps import (
    Concat,
    Einsum,
    Fold,
    Mix,
    Normalise,
    Pointwise,
    Program,
    Slice,
    Spec,
    Step,
    Window,
)
from symlint.program.translate import lower
from symlint.runtime.groups import (
    Axes,
    Axis,
    Piece,
    Places,
    Transformation,
    fixed,
    joined,
    merged,
    plain,
    split,
    still,
    whole,
)

ULPS = 4
"""Units in the last place of the largest weight by which weights may differ that should be equal."""
ODD = ("rms", "l2", "standardise")
"""Normalisations that change their sign with what they get."""
ZERO = -1
"""Stands for zeros beside places of an axis; other constants have smaller numbers."""


@dataclass(frozen=True, slots=True)
class Following:
    """What a transformation of the inputs does to a tensor."""

    axes: Axes
    sign: int = 1

    @property
    def still(self) -> bool:
        """Whether it stays."""
        return self.sign == 1 and all(map(still, self.axes))


class Proofs:
    """What can be proven of one network; each transformation is followed once."""

    def __init__(self, model: Model) -> None:
        self.lowering = lower(model)
        self.program = self.lowering.program
        self.constants = _Constants(self.program)
        self._followed: dict[tuple[str, int, Places], dict[str, Following | None]] = {}

    def holds(self, element: Transformation, moved: Places, output: str, answer: Places) -> bool:
        """Whether an output does what is said, for all inputs, when an element is applied to some places of them.

        Of permutations all are meant, whatever the order of the element.
        """
        shapes = self.program.shapes
        out = self.lowering.values.get(output)
        places = tuple(sorted(set(moved)))
        if out is None or out.items is not None or any(p.indices or p.tensor not in shapes for p in places):
            return False
        lengths = {shapes[p.tensor][a] for p in places for a in p.axes}
        if len(lengths) > 1:
            return False
        size = next(iter(lengths), 0)
        key = (element.name, element.step, places)
        if key not in self._followed:
            elements = _generating(element, size)
            walk = _Walk(self.program, self.constants, elements)
            self._followed[key] = walk.followed({n: _begun(element, shapes[n], n, places) for n in self.program.inputs})
        found = self._followed[key].get(out.name)
        return found is not None and _as_said(found, element, answer)


def _generating(element: Transformation, size: int) -> list[Transformation]:
    """Elements that generate all that are meant."""
    if element.name != "permutation":
        return [Transformation(element.name, size, element.step)]
    cycle, swap = (*range(1, size), 0), (1, 0, *range(2, size))
    return [Transformation("permutation", size, 1, order) for order in (cycle, swap)]


def _begun(element: Transformation, shape: Sequence[int], name: str, places: Places) -> Following:
    """What is done to an input."""
    axes, mine = [plain(size) for size in shape], [p for p in places if p.tensor == name]
    for place in mine:
        for axis, role in zip(place.axes, _roles(element), strict=False):
            axes[axis] = plain(shape[axis], role)
    return Following(tuple(axes), -1 if mine and element.name == "sign" else 1)


def _roles(element: Transformation) -> tuple[Any, ...]:
    return ("first", "second") if element.name == "turn" else ("moves",)


def _as_said(found: Following, element: Transformation, answer: Places) -> bool:
    if found.sign != (-1 if answer and element.name == "sign" else 1):
        return False
    roles = {axis: role for p in answer for axis, role in zip(p.axes, _roles(element), strict=False)}
    for k, axis in enumerate(found.axes):
        if all(piece.role == "alike" for piece in axis):
            continue
        if not (axis == (Piece(axis[0].size, roles[k]),) if k in roles else still(axis)):
            return False
    return True


class _Constants:
    """The constants of a program, and how far each may be off."""

    def __init__(self, program: Program) -> None:
        self.program, self.truth = program, Truth(program)
        self.numbers = Numbers(program, lambda n: program.model.tensors[program.weights[n]].read())

    def value(self, name: str) -> Array | None:
        """Its numbers, None where they are not known."""
        if name in self.truth.doubtful:
            return None
        try:
            return self.numbers.value(name)
        except Unvalued:
            return None

    def fixed(self, name: str, axes: Axes, sign: int, elements: Sequence[Transformation]) -> bool:
        """Whether transformations of some pieces of its axes leave a constant as it is."""
        if sign == 1 and all(map(still, axes)):
            return True
        value = self.value(name)
        if value is None:
            return False
        finite = np.abs(value[np.isfinite(value)])
        kind = self.program.model.tensors[self.program.weights[name]].dtype if name in self.program.weights else ""
        last = {"float64": 2.3e-16, "float16": 9.8e-4, "bfloat16": 7.9e-3}.get(kind, 1.2e-7)
        return fixed(value, axes, sign, elements, ULPS * last * float(finite.max(initial=0.0)))


class _Walk:
    """One transformation, from the inputs to all that depends on them."""

    def __init__(self, program: Program, constants: _Constants, elements: Sequence[Transformation]) -> None:
        self.program, self.constants, self.elements = program, constants, elements
        self.found: dict[str, Following | None] = {}
        self._numbers: dict[Hashable, int] = {}

    def followed(self, inputs: dict[str, Following]) -> dict[str, Following | None]:
        """What becomes of each output that is no constant; None where that is not known."""
        self.found.update(inputs)
        for step in self.program.steps:
            if not self.program.fixed.issuperset(step.results) or not step.results:
                self.found.update(dict.fromkeys(step.results, self._after(step)))
        ends = {n: self.found.get(n) for n in self.program.outputs}
        return {n: end and self._settled(end) for n, end in ends.items()}

    def _after(self, step: Step) -> Following | None:
        read = [self.found.get(n) for n in step.operands if n not in self.program.fixed]
        if None in read or step.at_run_time or not (_told(step) and self.constants.truth.told(step)):
            return None
        if all(one is not None and one.still for one in read):
            return Following(tuple(map(plain, self.program.shapes[step.results[0]])))
        return self.after(step)

    def _state(self, name: str) -> Following:
        """Of a tensor that is no constant, and is known."""
        found = self.found[name]
        assert found is not None
        return found

    def _moving(self, step: Step) -> Iterator[tuple[str, Following]]:
        yield from ((n, self._state(n)) for n in step.operands if n not in self.program.fixed)

    def _fixed(self, name: str, axes: Axes, sign: int = 1) -> bool:
        return self.constants.fixed(name, axes, sign, self.elements)

    @dispatched
    def after(self, step: Step) -> Following | None:
        """What becomes of the result of a step of which something moves that it reads."""
        return None

    @after.register
    def _(self, step: Einsum) -> Following | None:
        labels: dict[str, Axis] = {}
        sign = 1
        for name, spec in zip(step.operands, step.specs, strict=True):
            if name in self.program.fixed:
                continue
            state = self._settled(self._state(name))
            if state is None:
                return None
            sign *= state.sign
            for axis, group in zip(state.axes, spec, strict=True):
                parts = split(axis, [step.sizes[label] for label in group])
                for label, part in zip(group, parts or (), strict=False):
                    meeting = joined(labels.get(label, part), part)
                    if meeting is None:
                        return None
                    labels[label] = meeting
                if parts is None:
                    return None
        read = {label for spec in step.specs for axis in spec for label in axis}
        for label, size in step.sizes.items():
            labels.setdefault(label, plain(size, "stays" if label in read else "alike"))
        for name, spec in zip(step.operands, step.specs, strict=True):
            if name in self.program.fixed:
                if not self._fixed(name, _grouped(spec, labels)):
                    return None
                labels.update((x, _told_apart(labels[x], step.sizes[x])) for axis in spec for x in axis)
        axes = _grouped(step.result, labels)
        summed = [labels[label] for label in read - step.kept]
        return Following(axes, sign) if whole(axes) and whole(summed) else None

    @after.register
    def _(self, step: Pointwise) -> Following | None:
        shapes, operands = self.program.shapes, step.operands
        states = self._alike(step)
        signs = _signs(step, [self._state(n).sign if n in states else 0 for n in operands], self.constants)
        if not states or signs is None:
            return None
        axes: list[Axis | None] = [None for _ in shapes[step.out]]
        for state in states.values():
            for k, axis in enumerate(state.axes, len(axes) - len(state.axes)):
                meeting = joined(axes[k] or axis, axis) if axis else axes[k]
                if meeting is None and axis:
                    return None
                axes[k] = meeting
        made = [axis or plain(n) for axis, n in zip(axes, shapes[step.out], strict=True)]
        for name, sign in zip(operands, signs, strict=False):
            if name not in states:
                first = len(made) - len(shapes[name])
                if not self._fixed(name, tuple(made[first:]), sign):
                    return None
                for k, n in enumerate(shapes[name], first):
                    made[k] = _told_apart(made[k], n)
        return Following(tuple(made), signs[-1]) if whole(made) else None

    def _alike(self, step: Pointwise) -> dict[str, Following]:
        """What becomes of the operands, with selections told as those of what the step makes; none if they differ."""
        states = dict(self._moving(step))
        rank = len(self.program.shapes[step.out])
        chosen: dict[int, set[Axis]] = {}
        renamed = {}
        for name, state in states.items():
            axes = [self._renamed(axis, step.out) for axis in state.axes]
            for k, axis in enumerate(axes, rank - len(axes)):
                if axis:
                    chosen.setdefault(k, set()).add(axis)
            renamed[name] = Following(tuple(axes), state.sign)
        selected = {k for k, those in chosen.items() if any(p.places for axis in those for p in axis)}
        fixed = [self.program.shapes[n] for n in step.operands if n not in states]
        if all(len(chosen[k]) == 1 for k in selected) and all(
            shape[k - rank] == 1 for shape in fixed for k in selected if k - rank >= -len(shape)
        ):
            return renamed
        settled = {n: self._settled(state) for n, state in states.items()}
        return {n: state for n, state in settled.items() if state is not None} if None not in settled.values() else {}

    def _renamed(self, axis: Axis, out: str) -> Axis:
        """A selection as one of another tensor, and of what that has beside it."""
        return tuple(
            p._replace(base=out, places=tuple(n if n >= 0 else self._number((out, n)) for n in p.places))
            if p.places
            else p
            for p in axis
        )

    @after.register
    def _(self, step: Slice) -> Following | None:
        state = self._state(step.x)
        axis = state.axes[step.axis]
        made: Axis | None
        rest = 1
        for piece in axis[1:]:
            rest *= piece.size
        if len(axis) == 1 and not still(axis):
            made = (_selection(axis[0], step.x, range(step.start, step.stop)),)
        elif axis and still(axis[:1]) and step.start % rest == step.stop % rest == 0:
            made = merged((Piece((step.stop - step.start) // rest, axis[0].role), *axis[1:]))
        else:
            return None
        axes = [self._renamed(other, step.out) for other in state.axes]
        axes[step.axis] = made
        return Following(tuple(axes), state.sign)

    @after.register
    def _(self, step: Concat) -> Following | None:
        states = dict(self._moving(step))
        signs = {state.sign for state in states.values()}
        if len(signs) > 1:
            return None
        shapes = self.program.shapes
        axes: list[Axis] = [plain(n, "alike") for n in shapes[step.out]]
        for state in states.values():
            for k, axis in enumerate(state.axes):
                meeting = joined(axes[k], axis) if axis and k != step.axis else axes[k]
                if meeting is None or any(p.places for p in meeting):
                    return None
                axes[k] = meeting
        for k, axis in enumerate(axes):
            if k != step.axis and any(shapes[n][k] > 1 for n in step.operands if n not in states):
                axes[k] = _told_apart(axis, 2)
        beside = self._beside(step, states)
        if beside is None:
            return None
        axes[step.axis] = beside
        sign = next(iter(signs))
        for name in step.operands:
            around = (*axes[: step.axis], plain(shapes[name][step.axis]), *axes[step.axis + 1 :])
            if name not in states and not self._fixed(name, around, sign):
                return None
        return Following(tuple(axes), sign) if whole(axes) else None

    def _beside(self, step: Concat, states: dict[str, Following]) -> Axis | None:
        """The axis along which a concatenation puts its operands."""
        sizes = [self.program.shapes[n][step.axis] for n in step.operands]
        there = {n: state.axes[step.axis] for n, state in states.items()}
        if all(map(still, there.values())):
            return plain(sum(sizes))
        whole_ones = [p for axis in there.values() for p in axis]
        if all(len(axis) == 1 for axis in there.values()):
            parts = {n: _selection(axis[0], n, range(axis[0].size)) for n, axis in there.items()}
            if len({(p.role, p.pair, p.base, p.of) for p in parts.values()}) == 1:
                places: list[int] = []
                for name, size in zip(step.operands, sizes, strict=True):
                    beside = parts[name].places if name in parts else self._constant(name, step.axis, size)
                    if beside is None:
                        return None
                    places += beside
                return (next(iter(parts.values()))._replace(size=len(places), places=tuple(places)),)
        if len(there) < len(step.operands) or any(p.places for p in whole_ones):
            return None
        rests = {axis[1:] if still(axis[:1]) else axis for axis in there.values()}
        rest = next(iter(rests))
        within = int(np.prod([p.size for p in rest]))
        return merged((Piece(sum(sizes) // within), *rest)) if len(rests) == 1 else None

    def _constant(self, name: str, axis: int, size: int) -> list[int] | None:
        """What a constant puts beside places of an axis, as numbers that stand for it."""
        value = self.constants.value(name)
        if value is None:
            return None
        first = value.take([0], axis)
        if not np.array_equal(np.broadcast_to(first, value.shape), value):
            return None
        return [self._number((first.shape, first.tobytes())) if first.any() else ZERO] * size

    def _number(self, key: Hashable) -> int:
        return self._numbers.setdefault(key, ZERO - 1 - len(self._numbers))

    @after.register
    def _(self, step: Mix) -> Following | None:
        state = self._state(step.x)
        lost = [k for k, axis in enumerate(state.axes) if k not in step.keep and not still(axis)]
        settled = self._settled(state, [k for k in range(len(state.axes)) if k not in lost])
        if settled is None or (state.sign < 0 and not step.linear) or any(len(state.axes[k]) > 1 for k in lost):
            return None
        made = [plain(n) for n in self.program.shapes[step.out]]
        for k, source in enumerate(step.keep):
            if source is not None:
                made[k] = settled.axes[source]
        if step.chosen is not None and lost == [step.chosen[0]]:
            axis, places = step.chosen
            made[axis] = (_selection(state.axes[axis][0], step.x, places),)
        elif lost:
            seen = {w.source: w for w in step.windows}
            if not all(k in seen for k in lost):
                return None
            outside = {k: ZERO if seen[k].kernel is not None else self._number(("outside", step.out)) for k in lost}
            tables = {
                k: _table(state.axes[k][0], seen[k], self.program.shapes[step.out][seen[k].place], outside[k])
                for k in lost
            }
            answers = self._answers({k: (state.axes[k][0], table) for k, table in tables.items()})
            if answers is None:
                return None
            for k in lost:
                piece, window = state.axes[k][0], seen[k]
                made[window.place] = _piece(len(tables[k]), piece)
                if window.kernel is not None and answers:
                    made[window.kernel] = _piece(window.taps, piece, step.out)
        return Following(tuple(made), state.sign) if whole(made) else None

    def _settled(self, state: Following, axes: Sequence[int] | None = None) -> Following | None:
        """With selections as axes that move themselves; None where they do not."""
        mine = range(len(state.axes)) if axes is None else axes
        chosen = {k: state.axes[k][0] for k in mine if any(p.places for p in state.axes[k])}
        if self._answers({k: (piece, np.array(piece.places)[:, None]) for k, piece in chosen.items()}) is None:
            return None
        made = [_piece(axis[0].size, axis[0]) if k in chosen else axis for k, axis in enumerate(state.axes)]
        return Following(tuple(made), state.sign)

    def _answers(self, tables: dict[int, tuple[Piece, Array]]) -> bool | None:
        """Whether taps move when what windows see moves; None where no order of places and taps gives what they see.

        Tables have a row for each place, and in it what each tap sees.
        """
        turned = [(piece, table) for piece, table in tables.values() if piece.role in ("first", "second")]
        if not whole([(piece,) for piece, _ in turned]):
            return None
        if any(not np.array_equal(turned[0][1], table) for _, table in turned):
            return None
        for taps in (False, True):
            if all(
                _goes_along(table, piece.of or piece.size, element, taps=taps)
                for piece, table in tables.values()
                for element in self.elements
            ):
                return taps
        return None

    @after.register
    def _(self, step: Normalise) -> Following | None:
        state = self._settled(self._state(step.x))
        if state is None or (state.sign < 0 and step.function not in ODD):
            return None
        return state if whole(state.axes[k] for k in step.axes) else None

    @after.register
    def _(self, step: Fold) -> Following | None:
        state = self._settled(self._state(step.x))
        if state is None or (state.sign < 0 and not step.known.length):
            return None
        axes = tuple(axis for k, axis in enumerate(state.axes) if k not in step.axes)
        return Following(axes) if whole(axes) else None


def _told(step: Step) -> bool:
    """Whether a step says how its operator treats places: all that it computes, or that it is the operator."""
    return exactly(step) or step.function == step.node.op


def _grouped(spec: Spec, labels: dict[str, Axis]) -> Axes:
    return tuple(merged(piece for label in axis for piece in labels[label]) for axis in spec)


def _told_apart(axis: Axis, size: int) -> Axis:
    """An axis along which a constant of some size differs."""
    alike = size > 1 and axis and all(piece.role == "alike" for piece in axis)
    return plain(int(np.prod([piece.size for piece in axis]))) if alike else axis


def _selection(piece: Piece, tensor: str, places: Sequence[int]) -> Piece:
    """Places of what is a piece, or a selection itself."""
    mine = [piece.places[k] for k in places] if piece.places else list(places)
    return Piece(len(mine), piece.role, piece.pair, piece.base or tensor, tuple(mine), piece.of or piece.size)


def _piece(size: int, like: Piece, pair: str = "") -> Axis:
    """An axis that moves as a piece does; its taps are a pair of their own."""
    return (Piece(size, like.role, pair or like.pair),) if size > 1 else ()


def _table(piece: Piece, window: Window, count: int, outside: int) -> Array:
    """For each place of a window what its taps see."""
    at = np.arange(count)[:, None] * window.stride - window.before + np.arange(window.taps) * window.apart
    own = np.array(piece.places) if piece.places else np.arange(piece.size)
    return np.where((at >= 0) & (at < piece.size), own[np.clip(at, 0, piece.size - 1)], outside)


def _goes_along(table: Array, size: int, element: Transformation, *, taps: bool) -> bool:
    """Whether what is seen of a whole axis that is moved is what was seen before, in another order."""
    element = Transformation("flip") if element.name == "turn" else element
    axis, places = element.along(size), element.along(len(table))
    order = element.along(table.shape[1]) if taps else np.arange(table.shape[1])
    if axis is None or places is None or order is None:
        return False
    moved = np.where(table >= 0, axis[np.maximum(table, 0)], table)
    return bool(np.array_equal(moved, table[places][:, order]))


def _signs(step: Pointwise, signs: Sequence[int], constants: _Constants) -> tuple[int, ...] | None:
    """The sign that constants among the operands have to keep, each, and that of the result; 0 stands for them."""
    does, given = step.known, [sign for sign in signs if sign]
    one = tuple(1 for _ in signs)
    if -1 not in given:
        return (*one, 1)
    if does.chooses or does.sums or does.passes:
        free = signs[1:] if does.chooses else signs
        steady = signs[0] >= 0 if does.chooses else True
        return (*one[: len(signs) - len(free)], *(-1 for _ in free), -1) if steady and 1 not in free else None
    if does.factor:
        return (*one, int(np.prod(given)))
    if does.power and signs[1:] == [0]:
        power = constants.value(step.operands[1])
        if power is None or power.size != 1 or float(power.reshape(())) % 1:
            return None
        return (*one, 1 if float(power.reshape(())) % 2 == 0 else -1)
    if len(signs) > 1 or does.parity is Parity.NEITHER:
        return None
    return (*one, -1 if does.parity is Parity.ODD else 1)
