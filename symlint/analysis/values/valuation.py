"""Forward: the abstract value of every tensor of a program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial, reduce
from math import prod

import numpy as np
from numpy.typing import NDArray

from symlint.analysis.values.contraction import collapse, contract, gathered
from symlint.analysis.values.elementwise import alike_in_all, elementwise
from symlint.analysis.values.lattice import Bases, Names, Value, alike, known, tidy
from symlint.analysis.values.rows import Run, Verdicts
from symlint.analysis.values.weights import Blockwise, Drawn, Mask, Weight, absent
from symlint.model.clusters import BLOCK, ROUNDING, precision
from symlint.model.graph import Array, Shape
from symlint.program.functions import dispatched
from symlint.program.steps import (
    NONE,
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

LIMIT = 1 << 23
SMALL = 1 << 14
"""Elements of a table below which its lines are compared as they are."""
ROOM, TIMES = 1 << 26, 8
"""How many numbers are computed of constants: so many, and so many for each stored one; a long chain asks for more."""
PASSES = 6
"""Times that a network is gone through in search of what holds of its states; then nothing is assumed of them."""
Classes = NDArray[np.int64]
Carried = Mapping[str, tuple[bool, ...]]
Silent = Mapping[str, NDArray[np.bool_]]


def valuate(
    program: Program, carried: Carried, silent: Silent, verdicts: Verdicts | None = None
) -> tuple[dict[str, Value], Names]:
    """The value of every tensor.

    A state is zero at first. So what is equal, or zero, as it leaves wherever that is so as it comes in always is: the
    most that can be assumed of it is found from above, and holds by induction over the steps of a sequence.

    Args:
        program: the network.
        carried: the axes that carry units are written out.
        silent: what counts as zero of the weights.
        verdicts: what is known of the rows of the weights from other runs, and is added to.
    """
    known = Verdicts() if verdicts is None else verdicts
    loops = [loop for loop in program.loops if not loop.flows and loop.begun]
    states = {loop.input: np.zeros((), np.int64) for loop in loops}
    shapes = {name: _shape(program, carried, name) for name in states}
    restless = bool(states) and known.restless == shapes
    for last in (*[False] * (0 if restless else PASSES), True):
        forward = _Forward(program, carried, silent, known, {} if last else states)
        for step in program.steps:
            forward.take(step)
        if last:
            known.restless = shapes
            break
        after = {loop.input: _classes(states[loop.input], forward.values[loop.output]) for loop in loops}
        if all(np.array_equal(after[name], states[name]) for name in after):
            break
        states = after
    if known.before is None and (last or not states):
        known.before = Run(program, carried, forward.values, forward.names, forward.births)
    return forward.values, forward.names


def _classes(before: Classes, value: Value) -> Classes:
    """The elements of a state that leaves: 0 for zero as before, equal numbers for what is equal, now and before."""
    old = np.broadcast_to(before, value.shape)
    gone = value.zero & (old == 0)
    columns = [old, value.numbers, *([value.scale] if value.slim.size > 1 else [])]
    order = np.lexsort([c.reshape(-1) for c in reversed(columns)])
    rows = [c.reshape(-1)[order] for c in columns]
    told = np.zeros(len(order), np.int64)
    told[order[1:]] = np.cumsum(reduce(np.logical_or, [row[1:] != row[:-1] for row in rows]))
    return np.where(gone, 0, told.reshape(value.shape) + 1)


def _shape(program: Program, carried: Carried, name: str) -> Shape:
    """The shape in which a tensor's value is written."""
    shape = tuple(n if kept else 1 for n, kept in zip(program.shapes[name], carried[name], strict=True))
    return shape if prod(shape) <= LIMIT else tuple(1 for _ in shape)


class _Forward:
    def __init__(
        self, program: Program, carried: Carried, silent: Silent, verdicts: Verdicts, states: Mapping[str, Classes]
    ) -> None:
        self.program, self.carried, self.verdicts = program, carried, verdicts
        self.before = None if states else verdicts.before
        self.names = Names() if self.before is None else self.before.names
        count = sum(program.model.tensors[stored].size for stored in {*program.weights.values()})
        self.names.room = ROOM + TIMES * count
        self.births: dict[str, int] = {}
        self.shapes: dict[str, Shape] = {}
        self.values: dict[str, Value] = {name: known(value) for name, value in program.tables.items()}
        for name, stored in program.weights.items():
            tensor = program.model.tensors[stored]
            source: object = tensor.read
            off = source.off if isinstance(source, Blockwise) else None
            key, levels = (verdicts.name(tensor),), "int" in tensor.dtype
            weight = Weight(tensor.shape, tensor.dtype, tensor.read, key, levels, off, isinstance(source, Drawn))
            if name in silent:
                weight = weight.view(tensor.shape, "without what is silent", partial(_without, silent[name]))
            self.values[name] = Value(None, weight, tensor.shape)
        for name in program.inputs:
            whole = self.names.fresh(self.shape(name))
            self.values[name] = self._alike(whole, states[name]) if name in states else whole
        if self.before is not None:
            self._keep(self.before)

    def _keep(self, before: Run) -> None:
        """What goes in has the value that it had in another run, where that is the same."""
        for name, value in self.values.items():
            old = before.values.get(name)
            if old is None or old.shape != value.shape:
                continue
            same, held = value.bases is not None and name in before.program.inputs, value.held
            if isinstance(held, Weight):
                same = isinstance(old.held, Weight) and old.held.key == held.key
            elif value.bases is None and name in self.program.tables:
                same = before.program.tables.get(name) is self.program.tables[name]
            if same:
                self.values[name] = old

    def take(self, step: Step) -> None:
        """Values of a step's outputs: those that they had in another run, where nothing tells them apart.

        Bases that nothing else has go by any name: where all are new in both runs, they go by that of the other.
        """
        count, before = self.names.count, self.before
        first, *more = step.results or ("",)
        if before is None or before.program.producers.get(first) is not step:
            self.step(step)
        elif all(self.values[name] is before.values[name] for name in step.operands) and all(
            self.carried[name] == before.carried[name] for name in step.results
        ):
            self.values.update((name, before.values[name]) for name in step.results)
        else:
            self.step(step)
            made, old = self.values[first], before.values[first]
            if not more and self._renamed(made, count) and self._renamed(old, before.births[first]):
                quiet = [self.names.still(value.labels.starts).item() for value in (made, old)]
                if made.shape == old.shape and made.slim == old.slim and quiet[0] == quiet[1]:
                    self.values[first] = old
        self.births[first] = count

    def _renamed(self, value: Value, count: int) -> bool:
        """Whether the bases of a value are all different, and new since so many had names."""
        alone = value.plain and value.slim.size == 1 and value.labels.starts.size == 1
        return alone and value.labels.starts.item() >= count and self.names.sums.apart(value) is None

    def _alike(self, whole: Value, classes: Classes) -> Value:
        """A state of which some elements are equal, by their classes, and those of class 0 are zero."""
        if np.broadcast_shapes(classes.shape, whole.shape) != whole.shape:
            return whole
        told = np.broadcast_to(classes, whole.shape)
        _, first, place = np.unique(told, return_index=True, return_inverse=True)
        labels = whole.numbers.reshape(-1)[first][place.reshape(whole.shape)]
        return tidy(Bases(labels, (0,) * labels.ndim, whole.shape), (told != 0).astype(np.float32))

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape in which a tensor's value is written."""
        found = self.shapes.get(name)
        if found is None:
            found = self.shapes[name] = _shape(self.program, self.carried, name)
        return found

    def fits(self, name: str, value: Value) -> Value:
        """The value in the shape in which its tensor is written; unknown where it has another."""
        shape = self.shape(name)
        if value.bases is None and value.shape == self.program.shapes[name]:
            return value
        if value.shape == shape:
            return value
        if all(a in (1, b) for a, b in zip(value.shape, shape, strict=False)) and len(value.shape) == len(shape):
            if value.bases is None:
                return Value(None, value.slim, shape)
            return tidy(self.names.apart(value.bases, shape), value.slim)
        return self.names.fresh(shape)

    def put(self, name: str, value: Value) -> None:
        """Remember the value of a tensor."""
        made = self.fits(name, value)
        if not made.plain and made.bases is not None and made.bases.starts.size == 1 and made.bases.telling:
            made = replace(made, plain=not absent(made.slim).any())
        self.values[name] = made

    @dispatched
    def step(self, step: Step) -> None:
        """Values of a step's outputs."""
        raise NotImplementedError(type(step))

    @step.register
    def _(self, step: Einsum) -> None:
        values = [self.values[name] for name in step.operands]
        self.put(step.out, contract(self.names, step, values, self.shape(step.out), self.verdicts))

    @step.register
    def _(self, step: Pointwise) -> None:
        values = [self.values[name] for name in step.operands]
        if any(v.bases is not None for v in values):
            values = [self.narrow(v, self.shape(step.out)) for v in values]
        self.put(step.out, elementwise(self.names, step, values))

    def narrow(self, value: Value, shape: tuple[int, ...]) -> Value:
        """A known table as an unknown base along the axes that carry no units in `shape`."""
        lead = len(shape) - len(value.shape)
        axes = tuple(k for k, n in enumerate(value.shape) if n > 1 and shape[k + lead] == 1)
        if not axes:
            return value
        rest = tuple(1 if k in axes else n for k, n in enumerate(value.shape))
        if value.bases is None and not similar(value.slim, value.shape, axes):
            made = self.names.fresh(rest)
            self.names.settle(made.labels)
            return made
        bases, scale = collapse(self.names, value.labels, value.slim, axes)
        self.names.settle(bases)
        return Value(bases, scale, bases.shape)

    @step.register
    def _(self, step: Concat) -> None:
        values = [self.values[name] for name in step.operands]
        target = self.shape(step.out)
        if not self.carried[step.out][step.axis]:
            self.put(step.out, self._beside([self.narrow(v, target) for v in values]))
            return
        parts: list[Value] = []
        for name, value in zip(step.operands, values, strict=True):
            shape = list(target)
            shape[step.axis] = self.program.shapes[name][step.axis]
            v = value if value.bases is not None else self.narrow(value, tuple(shape))
            if (
                any(a not in (1, b) for a, b in zip(v.shape, shape, strict=True))
                or v.shape[step.axis] != shape[step.axis]
            ):
                parts.append(self.names.fresh(shape))
            elif v.bases is None:
                parts.append(Value(None, v.slim, tuple(shape)))
            else:
                parts.append(Value(v.bases.spread(tuple(shape)), v.slim, tuple(shape)))
        scale = behind([p.slim for p in parts], [p.shape for p in parts], step.axis)
        full = (*target[: step.axis], sum(p.shape[step.axis] for p in parts), *target[step.axis + 1 :])
        plain = all(v.plain and v.shape == p.shape for v, p in zip(values, parts, strict=True))
        if all(v.bases is None for v in values) and all(p.bases is None for p in parts):
            self.put(step.out, Value(None, scale, full))
            return
        bases = _behind([p.labels for p in parts], step.axis, full)
        self.put(step.out, Value(bases, scale, full, plain=plain and bases.telling))

    def _beside(self, values: list[Value]) -> Value:
        """Values put behind each other along an axis that carries no units: together they are one base."""
        rank = max(len(v.shape) for v in values)
        fixed, still = np.ones((1,) * rank, bool), np.ones((1,) * rank, bool)
        for v in values:
            fixed = fixed & v.labels.constant & (v.slim == values[0].slim)
            still = still & self.names.still(v.labels.starts)
        made = alike_in_all(self.names, values, clear=fixed)
        quiet = still & ~fixed
        if quiet.any():
            self.names.settle(made.labels, None if quiet.all() else quiet)
        return tidy(made.labels, np.where(fixed, values[0].slim, made.slim))

    @step.register
    def _(self, step: Slice) -> None:
        x = self.values[step.x]
        if x.shape[step.axis] == 1 and self.program.shapes[step.x][step.axis] > 1:
            self.put(step.out, tidy(self.names.moved(x.labels), x.slim))
            return
        shape = (*x.shape[: step.axis], step.stop - step.start, *x.shape[step.axis + 1 :])
        cut = (*(slice(None),) * step.axis, slice(step.start, step.stop))
        if isinstance(x.held, Weight):
            held = x.held.view(shape, (step.axis, step.start, step.stop), lambda array: array[cut])
            self.put(step.out, Value(None, held, shape))
            return
        scale = x.slim[cut] if x.slim.shape[step.axis] > 1 else x.slim
        part = None if x.bases is None else x.bases.cut(step.axis, step.start, step.stop)
        self.put(step.out, Value(part, scale, shape, plain=x.plain and prod(shape) > 0))

    @step.register
    def _(self, step: Mix) -> None:
        x = self.values[step.x]
        if step.chosen is not None and x.shape[step.chosen[0]] == self.program.shapes[step.x][step.chosen[0]]:
            self.put(step.out, taken(x, *step.chosen))
            return
        dropped = tuple(k for k in range(len(x.shape)) if k not in step.keep)
        plain = x.plain and all(x.shape[k] == 1 for k in dropped)
        if plain:
            bases, scale = self.names.anew(x, steady=True).labels, _raised(x.slim, step.law)
        else:
            bases, scale = self._rows(x, dropped, step.law)
        if step.linear and step.law.kind != "none" and all(x.shape[k] == 1 for k in dropped):
            # The same units at other places, each with its sign.
            if step.steady and not plain:
                bases = self.names.moved(x.labels)
            elif not plain:
                bases = self.names.derive(bases.shape, [x.labels], steady=True)
            scale = x.slim
        if step.steady and step.law.kind != "none" and all(x.shape[k] == 1 for k in dropped):
            bases = bases.clear(x.labels.constant)
            scale = np.where(x.labels.constant, x.slim, scale)
        order = [k for k in step.keep if k is not None]
        left = bases.turn([*order, *dropped])
        scale = scale.transpose([*order, *dropped])
        places = iter(range(len(order)))
        seats = [None if k is None else next(places) for k in step.keep]
        starts = left.starts.reshape([1 if s is None else left.starts.shape[s] for s in seats])
        steps = tuple(0 if s is None else left.steps[s] for s in seats)
        shape = tuple(1 if s is None else left.shape[s] for s in seats)
        scale = scale.reshape([1 if s is None else scale.shape[s] for s in seats])
        value = tidy(Bases(starts, steps, shape), scale)
        self.put(step.out, replace(value, plain=True) if plain and value.held is scale else value)

    def _rows(self, x: Value, axes: tuple[int, ...], law: Law) -> tuple[Bases, Array]:
        """What a map along `axes` makes of each remaining element: the axes have size 1 then."""
        rest = tuple(1 if k in axes else n for k, n in enumerate(x.shape))
        many = prod(x.shape[k] for k in axes)
        if many == 1 and law.kind == "none":
            bases = self.names.derive(rest, [x.labels], map(alike, [x.slim]), steady=True)
            return bases, np.ones((1,) * len(rest))
        if many == 1:
            sign = np.signbit(x.slim).astype(np.int64)
            return self.names.derive(rest, [x.labels], [sign], steady=True), _raised(x.slim, law)
        if prod(rest) == 1 or 2 * many > 4096 or (x.bases is None and not similar(x.slim, x.shape, axes)):
            made = self.names.fresh(rest).labels
        else:
            made = gathered(self.names, x.labels, map(alike, [x.slim]), axes, steady=True)
        if law.kind == "none":
            return made, np.ones((1,) * len(rest))
        if self.verdicts.whole(x):
            return made, np.ones((1,) * len(rest))
        return made, np.where(_vanishing(x, axes), 0.0, 1.0)

    @step.register
    def _(self, step: Normalise) -> None:
        x = self.values[step.x]
        if x.plain:
            self.put(step.out, self.names.anew(x))
            return
        axes = tuple(k for k in step.axes if x.shape[k] > 1)
        context = [self._rows(x, axes, NONE)[0]] if axes else []
        bases = self.names.derive(x.shape, [x.labels, *context], map(alike, [x.slim]))
        vanish = np.zeros((1,) * len(x.shape), bool)
        if step.function in ("rms", "l2"):
            vanish = absent(x.slim)
        elif step.function == "standardise":
            start = x.slim[tuple(slice(0, 1) if k in axes else slice(None) for k in range(len(x.shape)))]
            vanish = x.labels.constant & (x.slim == start) if axes else x.labels.constant
            vanish = np.asarray(vanish.all(axis=axes, keepdims=True))
        self.put(step.out, tidy(bases, np.where(vanish, 0.0, 1.0)))

    @step.register
    def _(self, step: Fold) -> None:
        x = self.values[step.x]
        bases, scale = self._rows(x, step.axes, step.law)
        if (extreme := step.known.extreme) is not None:  # of known numbers it is one of them
            fixed = np.asarray(x.labels.constant.all(axis=step.axes, keepdims=True))
            bases, scale = bases.clear(fixed), np.where(fixed, extreme(x.slim, axis=step.axes, keepdims=True), scale)
        kept = [k for k in range(len(bases.shape)) if k not in step.axes]
        turned = bases.turn([*kept, *step.axes])
        left = len(kept)
        starts = turned.starts.reshape(turned.starts.shape[:left])
        scale = scale.transpose([*kept, *step.axes]).reshape([scale.shape[k] for k in kept])
        made = Bases(starts, turned.steps[:left], turned.shape[:left])
        self.put(step.out, tidy(made, scale) if step.law.kind != "none" else Value(made, scale, made.shape))

    @step.register
    def _(self, step: Affine) -> None:
        gain, bias, mean, var = (self.values[n] for n in (step.gain, step.bias, step.mean, step.var))
        if any(v.bases is not None for v in (gain, bias, mean, var)):
            self.put(step.scale, self.names.fresh(self.shape(step.scale)))
            self.put(step.shift, self.names.fresh(self.shape(step.shift)))
            return
        scale = gain.scale / np.sqrt(var.scale.astype(np.float64) + step.epsilon)
        self.put(step.scale, known(scale))
        off = ROUNDING * precision("float32") * (np.abs(bias.scale) + np.abs(mean.scale * scale))
        self.put(step.shift, known(bias.scale - mean.scale * scale, off))

    @step.register
    def _(self, step: Unknown) -> None:
        for name in step.outs:
            self.put(name, self.names.fresh(self.shape(name)))


def _raised(scale: Array, law: Law) -> Array:
    """What a map makes of the size of the one place that it reads."""
    if law.kind == "none":
        return np.ones((1,) * scale.ndim)
    return np.asarray(np.abs(scale) ** float((law.degrees[0] if law.degrees else None) or 1))


def taken(x: Value, axis: int, indices: Sequence[int]) -> Value:
    """Some elements of a value along one axis, in an order of their own."""

    def picked(array: Array) -> Array:
        return array.take(indices, axis) if array.shape[axis] > 1 else array

    shape = (*x.shape[:axis], len(indices), *x.shape[axis + 1 :])
    noise = None if x.noise is None else picked(x.noise)
    if x.bases is None:
        return Value(None, picked(x.slim), shape, noise)
    made = x.bases.write([axis])
    return Value(Bases(picked(made.starts), made.steps, shape), picked(x.slim), shape, noise)


def _vanishing(x: Value, axes: tuple[int, ...]) -> Mask:
    """Where all numbers along some axes are zero, which the first of them mostly tell; the axes have size 1 then."""
    source: object = x.held.read if isinstance(x.held, Weight) else None
    begin = tuple(slice(0, 2) if k in axes else slice(None) for k in range(len(x.shape)))
    first = source.at(begin) if isinstance(source, Blockwise) else x.slim[begin]
    zero = np.asarray(absent(first).all(axis=axes, keepdims=True))
    return zero if not zero.any() else np.asarray(absent(x.slim).all(axis=axes, keepdims=True))


def _without(silent: NDArray[np.bool_], values: Array) -> Array:
    return np.where(silent, values.dtype.type(0), values)


def behind(arrays: list[Array], shapes: list[Shape], axis: int) -> Array:
    """Arrays one behind the other; those with size 1 along an axis where others have more are repeated along it."""
    wide = np.broadcast_shapes(*((*a.shape[:axis], 1, *a.shape[axis + 1 :]) for a in arrays))
    full = [
        np.broadcast_to(a, (*wide[:axis], shape[axis], *wide[axis + 1 :]))
        for a, shape in zip(arrays, shapes, strict=True)
    ]
    first = arrays[0].reshape(-1)[:1]
    if all(a.size == 1 and a.reshape(-1)[0] == first[0] for a in arrays):
        return arrays[0]
    return np.concatenate(full, axis=axis)


def _behind(several: list[Bases], axis: int, shape: Shape) -> Bases:
    """Bases one behind the other."""
    apart = {k for k in range(len(shape)) if len({b.steps[k] for b in several}) > 1} | {axis}
    several = [b.write(apart) for b in several]
    starts = behind([b.starts for b in several], [b.shape for b in several], axis)
    if starts.shape[axis] != shape[axis] and starts.any():
        starts = np.broadcast_to(
            starts, [n if k == axis else m for k, (n, m) in enumerate(zip(shape, starts.shape, strict=True))]
        )
    return Bases(starts, several[0].steps, shape)


def similar(numbers: Array, shape: Shape, axes: tuple[int, ...]) -> bool:
    """Whether any two lines of a table along `axes` may be alike, as `alike` says it: most tables have none.

    Lines whose elements agree to four slacks have products with a positive vector that do. Small tables are not tried.
    """
    if numbers.size < SMALL or numbers.shape != shape or numbers.dtype.kind not in "fV":
        return True
    wide = prod(shape[k] for k in axes)
    lines = np.moveaxis(numbers, axes, range(len(axes))).reshape(wide, -1)
    weights = np.random.default_rng(wide).uniform(1.0, 2.0, (3, wide))
    made, size = np.zeros((3, lines.shape[1])), np.zeros(lines.shape[1])
    step = max(1, BLOCK // max(lines.shape[1], 1))
    for k in range(0, wide, step):
        block = lines[k : k + step].astype(np.float64)
        made += weights[:, k : k + step] @ block
        size += np.abs(block).sum(axis=0)
    if not np.isfinite(made).all():
        return True
    made, slack = made[:, np.argsort(made[0], kind="stable")], 16e-6 * size.max(initial=0.0)
    for far in range(1, made.shape[1]):
        close = made[0, far:] - made[0, :-far] <= slack
        if not close.any():
            return False
        if far > 64 or (close & (np.abs(made[1:, far:] - made[1:, :-far]) <= slack).all(axis=0)).any():
            return True
    return False
