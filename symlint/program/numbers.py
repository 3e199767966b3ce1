"""Numbers: what the tensors of a program that depend on no input are, and what a linear step makes of a change."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from symlint.model.graph import Array, Shape
from symlint.model.records import dataclass
from symlint.program.arithmetic import compute
from symlint.program.dispatch import dispatched
from symlint.program.steps import Affine, Concat, Einsum, Fold, Mix, Pointwise, Program, Slice, Spec, Step

Read = Callable[[str], Array]


class Unvalued(ArithmeticError):
    """A constant tensor has no value: what makes it is not evaluated, or not for the numbers that it gets."""


class Numbers:
    """The constant part of a program, evaluated in float64 when asked for; a value may be infinite, or no number.

    ``read`` gives the present value of a stored weight. A change of a tensor is an array that broadcasts against the
    tensor, with size 1 where it is the same along an axis, after any number of leading axes of its own.
    """

    def __init__(self, program: Program, read: Read) -> None:
        self.program, self.read = program, read
        self.known: dict[str, Array] = {}
        self.derived: dict[object, Array] = {}
        """What others have worked out of these values, and ask for again and again."""

    def value(self, name: str) -> Array:
        """The value of a constant tensor."""
        if name in self.known:
            return self.known[name]
        todo = [name]
        while todo:
            top = todo[-1]
            missing = [n for n in self._needs(top) if n not in self.known] if top not in self.known else []
            todo.extend(missing)
            if not missing:
                todo.pop()
                self._make(top)
        return self.known[name]

    def forget(self) -> None:
        """Let go of all values, which are made again where they are asked for."""
        self.known.clear()
        self.derived.clear()

    def _needs(self, name: str) -> Sequence[str]:
        return self.program.makers[name].operands if name in self.program.makers else ()

    def _make(self, name: str) -> None:
        program = self.program
        if name in self.known:
            return
        if name in program.weights:
            self.known[name] = _wide(self.read(name))
        elif name in program.tables:
            self.known[name] = _wide(program.tables[name])
        else:
            step = self.program.makers[name]
            self.known.update(self.apply(step, {n: self.known[n] for n in step.operands}))

    @dispatched
    def apply(self, step: Step, arrays: Mapping[str, Array], lead: int = 0) -> dict[str, Array]:
        """What a step makes of `arrays`, which have `lead` axes of their own in front; absent operands are constants.

        In a sum absent operands do not change, so they count as zero.
        """
        raise Unvalued(f"what {step.node.op} makes of constants is not known")

    def _given(self, step: Step, arrays: Mapping[str, Array]) -> list[Array]:
        return [arrays[n] if n in arrays else self.value(n) for n in step.operands]

    @apply.register
    def _(self, step: Einsum, arrays: Mapping[str, Array], lead: int = 0) -> dict[str, Array]:
        given = self._given(step, arrays)
        return {step.out: contract(step, given, [lead * (n in arrays) for n in step.operands])}

    @apply.register
    def _(self, step: Pointwise, arrays: Mapping[str, Array], lead: int = 0) -> dict[str, Array]:
        if step.known.sums:
            return {step.out: _summed(step, [arrays.get(n) for n in step.operands])}
        made = compute(step, self._given(step, arrays), finite=False)
        if made is None:
            raise Unvalued(f"what {step.function} makes of constants is not known")
        return {step.out: made}

    @apply.register
    def _(self, step: Slice, arrays: Mapping[str, Array], lead: int = 0) -> dict[str, Array]:
        x = arrays[step.x]
        cut = (slice(None),) * (lead + step.axis)
        whole = x.shape[lead + step.axis] == 1
        return {step.out: x if whole else x[(*cut, slice(step.start, step.stop))]}

    @apply.register
    def _(self, step: Concat, arrays: Mapping[str, Array], lead: int = 0) -> dict[str, Array]:
        shapes = self.program.shapes
        parts = [_full(arrays.get(n, np.zeros(())), shapes[n], arrays, step) for n in step.operands]
        return {step.out: np.concatenate(parts, axis=lead + step.axis)}

    @apply.register
    def _(self, step: Mix, arrays: Mapping[str, Array], lead: int = 0) -> dict[str, Array]:
        x = arrays[step.x]
        if step.chosen is not None and lead + step.chosen[0] < x.ndim:
            axis = lead + step.chosen[0]
            return {step.out: x.take(step.chosen[1], axis) if x.shape[axis] > 1 else x}
        new = [a for a, source in enumerate(step.keep) if source is None]
        kept = [source for source in step.keep if source is not None]
        x = x[tuple(slice(None) if a in kept else 0 for a in range(x.ndim))].transpose(np.argsort(np.argsort(kept)))
        return {step.out: np.expand_dims(x, tuple(new))}

    @apply.register
    def _(self, step: Fold, arrays: Mapping[str, Array], lead: int = 0) -> dict[str, Array]:
        if step.known.extreme is None:
            raise Unvalued(f"what {step.function} makes of constants is not known")
        return {step.out: step.known.extreme(arrays[step.x], axis=tuple(lead + a for a in step.axes))}

    @apply.register
    def _(self, step: Affine, arrays: Mapping[str, Array], lead: int = 0) -> dict[str, Array]:
        if step.gain not in arrays:
            return {step.shift: arrays[step.bias]}
        scale = arrays[step.gain] / np.sqrt(arrays[step.var] + step.epsilon)
        return {step.scale: scale, step.shift: arrays[step.bias] - arrays[step.mean] * scale}


def contract(step: Einsum, given: Sequence[Array], leads: Sequence[int]) -> Array:
    """A contraction of arrays that may have size 1 where they are the same along an axis, and leading axes.

    An axis of one label may have another size than the step knows, if all have it.
    """
    parts: list[Labelled] = []
    sizes = dict(step.sizes)
    for x, spec, lead in zip(given, step.specs, leads, strict=True):
        front = tuple(f"~{k}" for k in range(lead))
        sizes |= {axis[0]: n for axis, n in zip(spec, x.shape[lead:], strict=True) if len(axis) == 1 and n != 1}
        parts.append(ungroup(x, (*((label,) for label in front), *spec), sizes))
    result = (*((f"~{k}",) for k in range(max(leads))), *step.result)
    return regroup(multiply(parts, {label for axis in result for label in axis}, sizes), result, sizes)


@dataclass(frozen=True, slots=True)
class Labelled:
    """An array with a label per axis; size 1 where it is the same along a longer one."""

    values: Array
    labels: tuple[str, ...]


def ungroup(x: Array, spec: Spec, sizes: Mapping[str, int]) -> Labelled:
    """An operand with the labels of its axes apart; an axis of several labels is written out or of size 1."""
    shape: list[int] = []
    for n, axis in zip(x.shape, spec, strict=True):
        shape += [n] if len(axis) == 1 else [1 if n == 1 else sizes[label] for label in axis]
    return Labelled(x.reshape(shape), tuple(label for axis in spec for label in axis))


def multiply(parts: Sequence[Labelled], kept: Collection[str], sizes: Mapping[str, int]) -> Labelled:
    """The product of all parts, summed over labels that are not `kept`."""
    widths: dict[str, int] = {}
    for part in parts:
        for label, n in zip(part.labels, part.values.shape, strict=True):
            widths[label] = widths.get(label, 1) if n == 1 else n
    index = {label: k for k, label in enumerate(widths)}
    left = tuple(label for label in widths if label in kept)
    if len(parts) == 1 and len(left) == len(parts[0].labels) and parts[0].values.dtype.kind == "f":
        return Labelled(parts[0].values, left)
    spread: list[Any] = []
    for part in parts:
        whole = tuple(widths[label] for label in part.labels)
        spread += [_spread(part.values, whole), [index[label] for label in part.labels]]
    # Of what is not summed over, no order of two factors is better than another.
    ordered = len(parts) > 2 or (len(parts) > 1 and len(left) < len(widths))
    made = np.einsum(*spread, [index[label] for label in left], optimize=ordered)
    repeats = prod(sizes[x] for x in widths if x not in kept and widths[x] == 1)
    return Labelled(np.asarray(made) * float(repeats), left)


def regroup(made: Labelled, result: Spec, sizes: Mapping[str, int]) -> Array:
    """Labels put together to axes; an axis along which some labels vary is written out."""
    widths = dict(zip(made.labels, made.values.shape, strict=True))
    if all(len(axis) == 1 for axis in result) and made.labels == tuple(label for (label,) in result):
        return made.values
    order = [label for axis in result for label in axis]
    values = made.values.transpose([made.labels.index(label) for label in order if label in widths])
    target: list[int] = []
    wide: list[int] = []
    for axis in result:
        some = any(widths.get(label, 1) != 1 for label in axis)
        known = [widths.get(label, 1) for label in axis]
        wide += [(sizes.get(label, 1) if n == 1 else n) if some else 1 for label, n in zip(axis, known, strict=True)]
        target.append(prod(wide[len(wide) - len(axis) :]))
    return _spread(values.reshape([widths.get(label, 1) for label in order]), tuple(wide)).reshape(target)


def _spread(values: Array, shape: Shape) -> Array:
    return values if values.shape == shape else np.broadcast_to(values, shape)


def _summed(step: Pointwise, terms: Sequence[Array | None]) -> Array:
    # By a float, since levels of a grid are too narrow for a sign.
    made = sum(float(step.known.sign(k)) * x for k, x in enumerate(terms) if x is not None)
    return np.asarray(made) / (len(terms) if step.known.averages else 1)


def _full(x: Array, shape: tuple[int, ...], arrays: Mapping[str, Array], step: Concat) -> Array:
    """A part of a concatenation, as wide as the widest of the others along every axis but the joined one."""
    rank = len(shape)
    others = [a.shape for n, a in arrays.items() if n in step.operands]
    front = np.broadcast_shapes(*(s[: len(s) - rank] for s in others))
    size = [shape[k] if k == step.axis or any(s[len(s) - rank + k] > 1 for s in others) else 1 for k in range(rank)]
    return np.broadcast_to(x, (*front, *size))


def _wide(x: Array) -> Array:
    return x.astype(np.float64, copy=False) if x.dtype.kind in "fV" else x
