"""Recording: the steps of one node's lowering, primitive by primitive."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from math import prod

import numpy as np

from symlint.model.graph import Array, Graph, Node, Shape
from symlint.model.records import dataclass
from symlint.program.mixing import MixKind
from symlint.program.notation import measure, parse, spread
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
    Spec,
    Step,
    Unknown,
    Window,
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
