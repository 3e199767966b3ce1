"""Lowering: an operator rule describes its operator to a `Tracer`, which writes the steps of the program."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod

import numpy as np

from symlint.graph import Array, Graph, Node, Shape
from symlint.pattern import measure, parse, regroup, spread
from symlint.program import (
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
    Spec,
    Step,
    Unknown,
)


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


class Tracer:
    """Writes the steps of one node; every method returns the tensor that it makes."""

    def __init__(self, node: Node, results: Sequence[Shape | None], tag: str = "") -> None:
        self.node = node
        self.tag = tag
        """Tells apart the passes over one body."""
        self.body: Callable[[Graph, Mapping[str, Ref]], tuple[Ref, ...]] | None = None
        """Lowers a body, given its inputs, and returns its outputs."""
        self.results = tuple(results)
        """Inferred shapes of the node's outputs."""
        self.steps: list[Step] = []
        self.tables: dict[str, Array] = {}
        self.shapes: dict[str, Shape] = {}

    def _new(self, shape: Sequence[int]) -> str:
        name = f"{self.node.outputs[0]}{self.tag}#{len(self.shapes)}"
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
        """The contraction of `operands` whose axes are spelled out as labels."""
        shape = tuple(prod(sizes[label] for label in axis) for axis in result)
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
        kept = [x for x in present if not (x.value is not None and not np.any(x.value))] or present[:1]
        shape = np.broadcast_shapes(*(x.shape for x in present))
        if len(kept) == 1 and kept[0].shape == shape:
            return kept[0]
        return self.pointwise(SUM, *kept, function="Add")

    def multiply(self, *operands: Ref) -> Ref:
        """The broadcast product."""
        return self.pointwise(Law("product", (Fraction(1),) * len(operands)), *operands, function="Mul")

    def apply(self, x: Ref, degree: Fraction | int | None, function: str) -> Ref:
        """A pointwise function of one operand, homogeneous of `degree` for positive factors, or of none."""
        return self.pointwise(NONE if degree is None else Law("product", (Fraction(degree),)), x, function=function)

    def concat(self, operands: Sequence[Ref], axis: int) -> Ref:
        """The operands one behind the other along `axis`."""
        parts = [x for x in operands if x.shape[axis] > 0]
        if len(parts) == 1:
            return parts[0]
        shape = list(np.broadcast_shapes(*(_without(x.shape, axis) for x in parts)))
        shape.insert(axis, sum(x.shape[axis] for x in parts))
        out = self._new(shape)
        self.steps.append(Concat(out, tuple(x.name for x in parts), axis, self.node))
        return Ref(out, tuple(shape))

    def slice(self, x: Ref, axis: int, start: int, stop: int, step: int = 1) -> Ref:
        """Indices from `start` to `stop` of one axis; a step regroups the axis first."""
        size = x.shape[axis]
        if step == 1:
            if start == 0 and stop == size:
                return x
            shape = (*x.shape[:axis], stop - start, *x.shape[axis + 1 :])
            out = self._new(shape)
            self.steps.append(Slice(out, x.name, axis, start, stop, self.node))
            return Ref(out, shape)
        if step < 1 or size % step or start >= step or stop <= size - step:
            return self.mix(x, [None if k == axis else k for k in range(x.rank)], "a strided slice")
        rows = self.reshape(x, (*x.shape[:axis], size // step, step, *x.shape[axis + 1 :]))
        picked = self.slice(rows, axis + 1, start, start + 1)
        return self.reshape(picked, (*x.shape[:axis], size // step, *x.shape[axis + 1 :]))

    def take(self, x: Ref, axis: int, indices: Array) -> Ref:
        """Fixed indices of one axis: runs of neighbours become slices; the shape of `indices` replaces the axis."""
        flat = [int(i) % x.shape[axis] for i in indices.reshape(-1)]
        runs: list[tuple[int, int]] = []
        for i in flat:
            if runs and runs[-1][1] == i:
                runs[-1] = (runs[-1][0], i + 1)
            else:
                runs.append((i, i + 1))
        if len(runs) > 64:
            keep = [None if k == axis else k for k in range(x.rank)]
            shape = (*x.shape[:axis], len(flat), *x.shape[axis + 1 :])
            picked = self.mix(x, keep, "a lookup in a fixed order", shape=shape)
        else:
            picked = self.concat([self.slice(x, axis, a, b) for a, b in runs], axis)
        return self.reshape(picked, (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]))

    def transpose(self, x: Ref, order: Sequence[int]) -> Ref:
        """The axes of `x` in another order."""
        if list(order) == list(range(x.rank)):
            return x
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
        return self.mix(x, keep, "a reshape without a common grouping", shape=shape)

    def expand(self, x: Ref, shape: Sequence[int]) -> Ref:
        """`x` repeated along new axes and along axes of size 1."""
        full = np.broadcast_shapes(x.shape, tuple(shape))
        if full == x.shape:
            return x
        new = len(full) - x.rank
        spec: Spec = tuple((f"e{new + k}",) if size > 1 else () for k, size in enumerate(x.shape))
        made: Spec = tuple((f"e{k}",) if size > 1 else () for k, size in enumerate(full))
        return self.contract([x], [spec], made, {f"e{k}": size for k, size in enumerate(full)})

    def mix(
        self,
        x: Ref,
        keep: Sequence[int | None],
        reason: str,
        *,
        law: Law = SUM,
        shape: Sequence[int] | None = None,
        steady: bool = False,
        linear: bool = True,
    ) -> Ref:
        """A map that acts along the axes that are not kept, in a fixed order."""
        shape = self.result() if shape is None else tuple(shape)
        out = self._new(shape)
        self.steps.append(Mix(out, x.name, tuple(keep), law, reason, steady, linear and law is SUM, self.node))
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
        folded = Ref(out, short)
        full = tuple(1 if k in along else size for k, size in enumerate(x.shape))
        return self.reshape(folded, full) if keepdims else folded

    def affine(self, gain: Ref, bias: Ref, mean: Ref, var: Ref, epsilon: float) -> tuple[Ref, Ref]:
        """Scale and shift of a batch normalisation."""
        scale, shift = self._new(gain.shape), self._new(gain.shape)
        names = (gain.name, bias.name, mean.name, var.name)
        self.steps.append(Affine(scale, shift, *names, epsilon, self.node))
        return Ref(scale, gain.shape), Ref(shift, gain.shape)

    def unknown(self, operands: Sequence[Ref], outs: Sequence[Shape], reason: str, *, opaque: bool) -> tuple[Ref, ...]:
        """Outputs about which nothing is known."""
        made = tuple(Ref(self._new(shape), shape) for shape in outs)
        read = tuple(y.name for x in operands for y in (x.items if x.items is not None else (x,)))
        self.steps.append(Unknown(tuple(r.name for r in made), read, reason, opaque, self.node))
        return made


def _without(shape: Shape, axis: int) -> Shape:
    return (*shape[:axis], *shape[axis + 1 :])
