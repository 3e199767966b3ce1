"""Numbers: what the tensors of a program that depend on no input are, and what a linear step makes of a change.

Arithmetic: what an elementwise step makes of known numbers.

Which steps compute what their operator does, number by number, and not only what its symmetries show.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from symlint.model.graph import Array, Graph, Node, Shape
from symlint.model.operators import known
from symlint.model.records import dataclass
from symlint.model.shapes.known import evaluate
from symlint.program.functions import dispatched, standard
from symlint.program.steps import Affine, Concat, Einsum, Fold, Mix, Pointwise, Program, Slice, Spec, Step, Unknown

NEWEST = 20
"""The operator set in which functions of other domains are evaluated."""


def compute(step: Pointwise, numbers: list[Array], *, finite: bool = True) -> Array | None:
    """The function of a step on known numbers, in float64 where it takes them; None where it cannot be had.

    What is infinite or no number cannot be had either, unless it is taken.
    """
    node = step.node
    if step.known.quantises and len(numbers) > 1:
        return _quantised(*numbers[:3])
    attributes = node.attributes if step.function == node.op else {}
    function, opset = standard(step.function), node.opset if "." not in node.op else NEWEST
    # What a quantiser subtracts from its levels does not wrap round, as ONNX's own Sub of small integers does.
    whole = "biu" if step.function == node.op else "b"
    for dtype in (np.float64, np.float32):
        inputs = [n if n.dtype.kind in whole else n.astype(dtype) for n in numbers]
        made = _tried(function, opset, attributes, inputs)
        if made is not None and (not finite or np.isfinite(np.asarray(made[0], np.float64)).all()):
            return np.asarray(made[0])
    return None


def _tried(function: str, opset: int, attributes: Mapping[str, Any], inputs: list[Array]) -> tuple[Array, ...] | None:
    try:
        return evaluate(function, opset, attributes, inputs)
    except Exception:  # whatever the evaluator does not take stays unknown
        return None


def _quantised(y: Array, scale: Array, zero: Array | None = None) -> Array | None:
    """Numbers on a grid of 8 bits; None where it is not known whether they fit on it."""
    level = np.rint(y.astype(np.float64) / scale) + (0 if zero is None else zero.astype(np.float64))
    if zero is not None and zero.dtype in (np.int8, np.uint8):
        return np.clip(level, np.iinfo(zero.dtype).min, np.iinfo(zero.dtype).max)
    return level if np.all((level >= 0) & (level <= 127)) else None


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
        scale = arrays[step.gain] / np.sqrt(self.value(step.var) + step.epsilon)
        return {step.scale: scale, step.shift: arrays.get(step.bias, 0.0) - self.value(step.mean) * scale}


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


RECURRENT = frozenset({"RNN", "GRU", "LSTM"})
PLAIN = frozenset({"Add", "Mul", "Where", "Complement", "Sigmoid", "Tanh", "Relu", "Softsign", "Softplus", "Identity"})
"""Functions in them that have no parameters."""
NORMS = frozenset(
    {
        *("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization", "InstanceNormalization"),
        *("GroupNormalization", "MeanVarianceNormalization", "LpNormalization"),
        *("com.microsoft.SkipLayerNormalization", "com.microsoft.SkipSimplifiedLayerNormalization"),
        "com.microsoft.EmbedLayerNormalization",
    }
)
"""Operators that normalise with an epsilon that is not negative; the others are written out."""


def exactly(step: Step) -> bool:
    """Whether a step computes what its operator does there."""
    if step.elementwise and step.node.op.startswith("Scatter"):
        return step.node.attributes.get("reduction", "none") in ("none", b"none")
    return known(step.node.op).exact


class Truth:
    """What of a program holds for every input, whatever lengths a run tells."""

    def __init__(self, program: Program) -> None:
        self.program = program
        symbols = set(program.model.symbols.values())
        self._lengths = {n for n in symbols if n > 1}
        self._lost = 1 in symbols  # a length of one cannot be told from no axis
        self._loops = looping(program.model.graph)
        self._states = {
            s.operands[2]: s
            for s in program.elementwise
            if s.function == "Where" and s.node.op in RECURRENT and len(s.operands) > 2
        }

    def free(self, length: int) -> bool:
        """Whether a length is one that only a run tells."""
        return any(length % n == 0 for n in self._lengths)

    def told(self, step: Step) -> bool:
        """Whether anything can be said of what a step makes: of the rounds of a loop only two are steps.

        The sums of an LSTM read its cell, which grows with time; some activations have parameters of their own.
        """
        unsure = step.elementwise and (
            (step.node.op == "LSTM" and step.function == "Add")
            or (step.node.op in RECURRENT and step.function not in PLAIN)
        )
        return not (self._lost or unsure or id(step.node) in self._loops or isinstance(step, (Unknown, Affine)))

    def varying(self, name: str, step: Step) -> bool:
        """Whether a step reads a state as it is after the first time step, which stands for all later ones."""
        return step.node.op in RECURRENT and self._states.get(name, step) is not step

    def averaged(self, step: Step) -> bool:
        """Whether the state of a gated unit is an average of values of a hyperbolic tangent, and of zero."""
        node, constants = step.node, self.program.model.constants
        start = node.inputs[5] if len(node.inputs) > 5 else ""
        zero = not start or (start in constants and not constants[start].any())
        return zero and not node.attributes.get("activations") and "clip" not in node.attributes

    @cached_property
    def doubtful(self) -> frozenset[str]:
        """The tensors that depend on no input and of which the values are not what the network computes."""
        found: set[str] = set()
        for name, step in self.program.makers.items():
            tabled = any(n in self.program.tables for n in step.operands)
            stale = tabled and not self.program.model.moving.isdisjoint(step.node.inputs)
            if stale or not (exactly(step) or name in self.program.affines) or not found.isdisjoint(step.operands):
                found.add(name)
        return frozenset(found)


def looping(graph: Graph) -> frozenset[int]:
    """The nodes of loops and of their bodies, by identity: only two rounds of them are steps."""
    return frozenset(id(node) for node in _looping(graph))


def _looping(graph: Graph) -> Iterator[Node]:
    waiting = [(graph, False)]
    while waiting:
        now, within = waiting.pop()
        for node in now.nodes:
            mine = within or node.op in ("Loop", "Scan")
            if mine:
                yield node
            waiting += [(body, mine) for body in node.bodies]
