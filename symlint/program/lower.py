"""Lowering: an operator rule describes its operator to a `Tracer`, which writes the steps of the program.

Recording: the steps of one node's lowering, primitive by primitive.

Rules of operators: how families of them are entered, and how one is applied to a node.

Factor notation: parse ``b (h d), (h d) n -> b n`` and find the sizes of its labels.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import cache
from math import prod
from typing import Any

import numpy as np

from symlint.model.graph import Array, Graph, Node, Shape
from symlint.model.operators import Operator, op, shape
from symlint.model.records import dataclass
from symlint.program.functions import Course, Function, MixKind, Parity, enter, standard
from symlint.program.steps import (
    NONE,
    SUM,
    Affine,
    Concat,
    Einsum,
    Fold,
    Law,
    Middle,
    Mix,
    Normalise,
    Pointwise,
    Slice,
    Spec,
    Step,
    Unknown,
    Window,
)


@cache
def parse(pattern: str) -> tuple[tuple[Spec, ...], Spec]:
    """The operand specs and the result spec of `pattern`.

    ``1`` is an axis of size 1 and ``...`` any number of leading axes, which broadcast.

    Raises ValueError when there is no arrow.
    """
    left, arrow, right = pattern.partition("->")
    if not arrow:
        raise ValueError(f"a pattern reads 'inputs -> output', not {pattern!r}")
    return tuple(_spec(side) for side in left.split(",")), _spec(right)


def _spec(side: str) -> Spec:
    tokens = re.findall(r"\(([^)]*)\)|(\S+)", side)
    return tuple(tuple(group.split()) if group or not single else _single(single) for group, single in tokens)


def _single(token: str) -> tuple[str, ...]:
    return () if token == "1" else (token,)


def spread(specs: Sequence[Spec], shapes: Sequence[Shape], result: Spec) -> tuple[list[Spec], Spec]:
    """Write ``...`` out as labels, aligned from the right; an axis of size 1 there broadcasts."""
    ranks = [len(shape) - len(spec) + 1 for spec, shape in zip(specs, shapes, strict=True) if ("...",) in spec]
    most = max(ranks, default=0)
    written: list[Spec] = []
    wide: set[str] = set()
    for spec, sizes in zip(specs, shapes, strict=True):
        if ("...",) not in spec:
            written.append(spec)
            continue
        at, rank = spec.index(("...",)), len(sizes) - len(spec) + 1
        labels = [f".{most - rank + k}" for k in range(rank)]
        wide.update(label for k, label in enumerate(labels) if sizes[at + k] > 1)
        middle = tuple((label,) if sizes[at + k] > 1 else () for k, label in enumerate(labels))
        written.append((*spec[:at], *middle, *spec[at + 1 :]))
    if ("...",) in result:
        at = result.index(("...",))
        middle = tuple((f".{k}",) if f".{k}" in wide else () for k in range(most))
        result = (*result[:at], *middle, *result[at + 1 :])
    return written, result


def measure(specs: Sequence[Spec], shapes: Sequence[Shape], known: Mapping[str, int]) -> dict[str, int]:
    """The size of every label, from the shapes of the operands and what is `known`.

    Raises ValueError where the shapes contradict the pattern.
    """
    sizes = dict(known)
    pending = [
        (axis, size) for spec, shape in zip(specs, shapes, strict=True) for axis, size in zip(spec, shape, strict=True)
    ]
    while pending:
        left: list[tuple[tuple[str, ...], int]] = []
        for axis, size in pending:
            unknown = [label for label in axis if label not in sizes]
            rest, over = divmod(size, max(prod(sizes[label] for label in axis if label in sizes), 1))
            if over:
                raise ValueError(f"axis {' '.join(axis)} has size {size}, its labels say otherwise: {sizes}")
            if len(unknown) == 1:
                sizes[unknown[0]] = rest
            elif unknown:
                left.append((axis, size))
            elif prod(sizes[label] for label in axis) != size:
                raise ValueError(f"axis {' '.join(axis) or '1'} has size {size}, its labels say otherwise: {sizes}")
        if len(left) == len(pending):
            raise ValueError(f"sizes of {left} cannot be told apart")
        pending = left
    return sizes


def regroup(before: Shape, after: Shape) -> tuple[Spec, Spec, dict[str, int]] | None:
    """Labels that write a reshape as a regrouping; None where one side's axes do not refine the other's."""
    if 0 in before or 0 in after:
        return None
    old: list[list[str]] = [[] for _ in before]
    new: list[list[str]] = [[] for _ in after]
    sizes: dict[str, int] = {}
    i = j = 0
    left, right = 1, 1
    while True:
        while left == 1 and i < len(before):
            left, i = before[i], i + 1
        while right == 1 and j < len(after):
            right, j = after[j], j + 1
        if left == 1 or right == 1:
            return (tuple(map(tuple, old)), tuple(map(tuple, new)), sizes) if left == right else None
        step = min(left, right)
        if max(left, right) % step:
            return None
        label = f"r{len(sizes)}"
        sizes[label] = step
        old[i - 1].append(label)
        new[j - 1].append(label)
        left, right = left // step, right // step


@dataclass(frozen=True, slots=True)
class Ref:
    """A tensor of the program: its name, its shape, and its value where no weight is needed to know it."""

    name: str
    shape: Shape
    value: Array | None = None
    fixed: bool = True
    """False where the value depends on a length that only a run tells."""
    items: tuple[Ref, ...] | None = None
    """The elements, where it is a sequence; name and shape say nothing then."""

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)


class Unsupported(Exception):
    """An operator rule meets a case that it does not describe; ``opaque`` is False for a true obstacle."""

    def __init__(self, reason: str, *, opaque: bool = True) -> None:
        super().__init__(reason)
        self.opaque = opaque


class Recorder:
    """Writes the steps of one node; every method returns the tensor that it makes."""

    def __init__(self, node: Node, results: Sequence[Shape | None], tag: str = "") -> None:
        self.node = node
        self.tag = tag
        """Tells apart the passes over one body."""
        self.makers: Mapping[str, Step] = {}
        """The steps so far, by what they make."""
        self.body: Callable[[Graph, Mapping[str, Ref]], tuple[Ref, ...]] | None = None
        """Lowers a body, given its inputs, and returns its outputs."""
        self.results = tuple(results)
        """Inferred shapes of the node's outputs."""
        self.steps: list[Step] = []
        self.tables: dict[str, Array] = {}
        self.shapes: dict[str, Shape] = {}

    def _new(self, shape: Sequence[int]) -> str:
        name = f"{self.node.first}{self.tag}#{len(self.shapes)}"
        self.shapes[name] = tuple(shape)
        return name

    def result(self, k: int = 0) -> Shape:
        """The inferred shape of output `k`."""
        shape = self.results[k] if k < len(self.results) else None
        if shape is None:
            raise Unsupported("the shape of its output is unknown")
        return shape

    def constant(self, value: Array, *, fixed: bool = True) -> Ref:
        """A tensor of known value."""
        name = self._new(value.shape)
        self.tables[name] = value
        return Ref(name, value.shape, value, fixed)

    def _slim(self, x: Ref) -> str:
        """A known tensor for a broadcasting use: axes along which it is constant shrink to size 1."""
        if x.value is None:
            return x.name
        slim = x.value
        for axis in range(slim.ndim):
            first = slim.take([0], axis=axis)
            if slim.shape[axis] > 1 and np.array_equal(np.broadcast_to(first, slim.shape), slim):
                slim = first
        return x.name if slim.shape == x.shape else self.constant(slim).name

    def einsum(self, pattern: str, *operands: Ref, **sizes: int) -> Ref:
        """The contraction that `pattern` writes in factor notation, e.g. ``"b (h d), (h d) n -> b n"``."""
        specs, result = parse(pattern)
        shapes = [x.shape for x in operands]
        written, made = spread(specs, shapes, result)
        return self.contract(operands, written, made, measure(written, shapes, sizes))

    def contract(self, operands: Sequence[Ref], specs: Sequence[Spec], result: Spec, sizes: dict[str, int]) -> Ref:
        """The contraction of `operands` whose axes are spelled out as labels; a sum over nothing is zero."""
        shape = tuple(prod(sizes[label] for label in axis) for axis in result)
        if prod(shape) and any(not sizes[label] for spec in specs for axis in spec for label in axis):
            return self.constant(np.broadcast_to(np.float32(0), shape))
        out = self._new(shape)
        self.steps.append(Einsum(out, tuple(x.name for x in operands), tuple(specs), result, sizes, self.node))
        return Ref(out, shape)

    def pointwise(self, law: Law, *operands: Ref, function: str | None = None) -> Ref:
        """An elementwise function of operands that broadcast."""
        shape = np.broadcast_shapes(*(x.shape for x in operands))
        names = tuple(self._slim(x) for x in operands)
        out = self._new(shape)
        self.steps.append(Pointwise(out, names, law, function or self.node.op, self.node))
        return Ref(out, shape)

    def add(self, *operands: Ref | None) -> Ref:
        """The broadcast sum; absent operands and known zeros add nothing."""
        present = [x for x in operands if x is not None]
        shape = np.broadcast_shapes(*(x.shape for x in present))
        kept = [x for x in present if x.value is None or np.any(x.value)] or present[:1]
        if np.broadcast_shapes(*(x.shape for x in kept)) != shape:
            kept = present
        return kept[0] if len(kept) == 1 else self.pointwise(SUM, *kept, function="Add")

    def multiply(self, *operands: Ref) -> Ref:
        """The broadcast product."""
        return self.pointwise(Law("product", (Fraction(1),) * len(operands)), *operands, function="Mul")

    def apply(self, x: Ref, degree: Fraction | int | None, function: str) -> Ref:
        """A pointwise function of one operand, homogeneous of `degree` for positive factors, or of none."""
        return self.pointwise(NONE if degree is None else Law("product", (Fraction(degree),)), x, function=function)

    def concat(self, operands: Sequence[Ref], axis: int) -> Ref:
        """The operands one behind the other along `axis`."""
        parts = [x for x in operands if x.shape[axis] > 0]
        if not parts:
            raise Unsupported("it puts nothing together", opaque=False)
        if len(parts) == 1:
            return parts[0]
        if len({x.rank for x in parts}) > 1:
            raise Unsupported("what it puts together has different numbers of axes", opaque=False)
        shape = list(np.broadcast_shapes(*(_without(x.shape, axis) for x in parts)))
        shape.insert(axis, sum(x.shape[axis] for x in parts))
        out = self._new(shape)
        self.steps.append(Concat(out, tuple(x.name for x in parts), axis, self.node))
        return Ref(out, tuple(shape))

    def mix(
        self,
        x: Ref,
        keep: Sequence[int | None],
        kind: MixKind,
        *,
        law: Law = SUM,
        shape: Sequence[int] | None = None,
        steady: bool = False,
        linear: bool = True,
        chosen: tuple[int, tuple[int, ...]] | None = None,
        centre: Sequence[Middle] = (),
        windows: Sequence[Window] = (),
    ) -> Ref:
        """A map that acts along the axes that are not kept, in a fixed order."""
        shape = self.result() if shape is None else tuple(shape)
        if len(keep) != len(shape) or any(k is not None and k >= x.rank for k in keep):
            raise Unsupported(f"its operand of {x.rank} axes makes no result of {len(shape)}")
        out = self._new(shape)
        plain = linear and law is SUM
        more = chosen, tuple(centre), tuple(windows)
        self.steps.append(Mix(out, x.name, tuple(keep), law, kind, steady, plain, self.node, *more))
        return Ref(out, tuple(shape))

    def normalise(self, x: Ref, axes: Sequence[int], *, law: Law = NONE, function: str | None = None) -> Ref:
        """A map along `axes` that commutes with their permutations."""
        out = self._new(x.shape)
        along = tuple(sorted(a % x.rank for a in axes))
        self.steps.append(Normalise(out, x.name, along, law, function or self.node.op, self.node))
        return Ref(out, x.shape)

    def fold(self, x: Ref, axes: Sequence[int], *, keepdims: bool, law: Law, function: str) -> Ref:
        """A symmetric reduction that is not linear."""
        along = {a % x.rank for a in axes}
        short = tuple(size for k, size in enumerate(x.shape) if k not in along)
        out = self._new(short)
        self.steps.append(Fold(out, x.name, tuple(sorted(along)), law, function, self.node))
        if not keepdims:
            return Ref(out, short)
        kept: Spec = tuple((f"f{k}",) for k in range(x.rank) if k not in along)
        full: Spec = tuple(() if k in along else (f"f{k}",) for k in range(x.rank))
        return self.contract([Ref(out, short)], [kept], full, {f"f{k}": size for k, size in enumerate(x.shape)})

    def affine(self, gain: Ref, bias: Ref, mean: Ref, var: Ref, epsilon: float) -> tuple[Ref, Ref]:
        """Scale and shift of a batch normalisation."""
        shapes = {x.shape for x in (gain, bias, mean, var)}
        if len(shapes) > 1 or gain.rank != 1:
            raise Unsupported(f"its gain, bias and moments are no vectors of one length: {sorted(shapes)}")
        scale, shift = self._new(gain.shape), self._new(gain.shape)
        names = (gain.name, bias.name, mean.name, var.name)
        self.steps.append(Affine(scale, shift, *names, epsilon, self.node))
        return Ref(scale, gain.shape), Ref(shift, gain.shape)

    def unknown(
        self, operands: Sequence[Ref], outs: Sequence[Shape], reason: str, *, opaque: bool, missing: Sequence[str] = ()
    ) -> tuple[Ref, ...]:
        """Outputs about which nothing is known, made of `operands` and of tensors that are not even there."""
        made = tuple(Ref(self._new(shape), shape) for shape in outs)
        read = tuple(y.name for x in operands for y in (x.items if x.items is not None else (x,)))
        self.steps.append(Unknown(tuple(r.name for r in made), read, reason, opaque, self.node, (*missing,)))
        return made


def _without(shape: Shape, axis: int) -> Shape:
    return (*shape[:axis], *shape[axis + 1 :])


__all__ = ["Ref", "Tracer", "Unsupported"]


RUNS = 64
"""Runs of neighbours into which a lookup in several dimensions is cut."""
UNITS = 4096
"""Indices of a choice among units that is followed."""


class Tracer(Recorder):
    """A recorder that also knows the operators which only rearrange."""

    def slice(self, x: Ref, axis: int, start: int, stop: int, step: int = 1) -> Ref:
        """Indices from `start` to `stop` of one axis; a step regroups the axis first."""
        size = x.shape[axis]
        if step == 1:
            if start == 0 and stop == size:
                return x
            if not 0 <= start < stop <= size:
                raise Unsupported(f"the indices from {start} to {stop} of an axis of {size} are none", opaque=False)
            shape = (*x.shape[:axis], stop - start, *x.shape[axis + 1 :])
            out = self._new(shape)
            self.steps.append(Slice(out, x.name, axis, start, stop, self.node))
            return Ref(out, shape)
        if step < 1 or size % step or start >= step or stop <= size - step:
            return self.mix(x, [None if k == axis else k for k in range(x.rank)], MixKind.STRIDED)
        rows = self.reshape(x, (*x.shape[:axis], size // step, step, *x.shape[axis + 1 :]))
        picked = self.slice(rows, axis + 1, start, start + 1)
        return self.reshape(picked, (*x.shape[:axis], size // step, *x.shape[axis + 1 :]))

    def take(self, x: Ref, axis: int, indices: Array) -> Ref:
        """Fixed indices of one axis: runs of neighbours become slices; the shape of `indices` replaces the axis."""
        if not indices.size:
            raise Unsupported("it takes nothing", opaque=False)
        flat = [int(i) % x.shape[axis] for i in indices.reshape(-1)]
        runs: list[tuple[int, int]] = []
        for i in flat:
            if runs and runs[-1][1] == i:
                runs[-1] = (runs[-1][0], i + 1)
            else:
                runs.append((i, i + 1))
        few = len(runs) <= RUNS
        if len(runs) > 1 and (indices.ndim == 1 or not few):
            keep = [None if k == axis else k for k in range(x.rank)]
            shape = (*x.shape[:axis], len(flat), *x.shape[axis + 1 :])
            chosen = (axis, tuple(flat)) if len(flat) <= UNITS and indices.ndim == 1 else None
            picked = self.mix(x, keep, MixKind.FIXED_LOOKUP, shape=shape, steady=True, chosen=chosen)
        else:
            picked = self.concat([self.slice(x, axis, a, b) for a, b in runs], axis)
        return self.reshape(picked, (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))

    def transpose(self, x: Ref, order: Sequence[int]) -> Ref:
        """The axes of `x` in another order."""
        if list(order) == list(range(x.rank)):
            return x
        if sorted(order) != list(range(x.rank)):
            raise Unsupported(f"{list(order)[:32]} is no order of {x.rank} axes")
        labels: Spec = tuple((f"t{k}",) if size > 1 else () for k, size in enumerate(x.shape))
        sizes = {f"t{k}": size for k, size in enumerate(x.shape)}
        return self.contract([x], [labels], tuple(labels[k] for k in order), sizes)

    def reshape(self, x: Ref, shape: Sequence[int]) -> Ref:
        """The elements of `x` in row-major order under another shape."""
        if tuple(shape) == x.shape:
            return x
        if prod(x.shape) != prod(shape):
            raise Unsupported(f"cannot reshape {list(x.shape)} to {list(shape)}")
        found = regroup(x.shape, tuple(shape))
        if found is None:
            return self._reshape_in_part(x, tuple(shape))
        before, after, sizes = found
        return self.contract([x], [before], after, sizes)

    def _reshape_in_part(self, x: Ref, shape: Shape) -> Ref:
        """Axes whose groups have no common refinement lose their units, the others keep them."""
        keep: list[int | None] = []
        i = 0
        left = right = 1
        start = 0
        for size in shape:
            right *= size
            keep.append(None)
            while left < right and i < x.rank:
                left, i = left * x.shape[i], i + 1
            if left == right:
                if i - start == 1 and x.shape[start] == size:
                    keep[-1] = start
                start = i
        return self.mix(x, keep, MixKind.RESHAPE, shape=shape)

    def expand(self, x: Ref, shape: Sequence[int]) -> Ref:
        """`x` repeated along new axes and along axes of size 1."""
        full = np.broadcast_shapes(x.shape, tuple(shape))
        if full == x.shape:
            return x
        new = len(full) - x.rank
        spec: Spec = tuple((f"e{new + k}",) if size > 1 else () for k, size in enumerate(x.shape))
        made: Spec = tuple((f"e{k}",) if size > 1 else () for k, size in enumerate(full))
        return self.contract([x], [spec], made, {f"e{k}": size for k, size in enumerate(full)})


def pointwise(
    degree: Fraction | int | None,
    *names: str,
    parity: Parity,
    course: Course | None,
    exact: bool = False,
    passes: bool = False,
    negates: bool = False,
    undone: Callable[[Array], Array] | None = None,
) -> None:
    """Enter elementwise functions of one input, homogeneous of `degree` for positive factors."""

    def rule(t: Tracer, x: Ref) -> Ref:
        return t.apply(x, degree, t.node.op)

    op(*names, exact=exact)(rule)
    # An elementwise function has the shape of what it gets, in whatever domain; ONNX's and onnxruntime's are told.
    foreign = [name for name in names if "." in name and standard(name) == name]
    shape(*foreign)(lambda call: call.like("Identity", (0,)))
    enter(names, Function(parity, course, passes=passes, negates=negates, undone=undone))


def call(operator: Operator, tracer: Tracer, node: Node, inputs: tuple[Ref | None, ...]) -> tuple[Ref | None, ...]:
    """Apply the rule of an operator, which has one, to a node.

    Raises:
        Unsupported: The rule does not know what the node asks for, or an attribute that is a number is none here.
    """
    assert operator.rule
    bound: list[Ref | None] = list(inputs)
    if operator.inputs >= 0:
        bound = [*bound[: operator.inputs], *[None] * (operator.inputs - len(bound))]
    attributes: dict[str, Any] = {k: v for k, v in node.attributes.items() if k in operator.attributes}
    usual = getattr(operator.rule, "__kwdefaults__", None) or {}
    for name, value in attributes.items():
        if isinstance(usual.get(name), int | float) and not isinstance(value, int | float):
            raise Unsupported(f"its attribute {name} is no number")
    made = operator.rule(tracer, *bound, **attributes)
    return made if isinstance(made, tuple) else (made,)
