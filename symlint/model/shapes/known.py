"""One operator call as the shape rules see it, and what such rules are made of.

Values that depend on no input and on no weight: what a pass knows, and how it comes to know more.

Evaluation of one operator on known values, for the shape and index arithmetic that exporters leave in graphs.

Frequent operators are plain numpy; a list of further pure ones goes to onnx's reference evaluator. Weights never
come here, nothing random, nothing that reads files or decodes media.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import field, replace
from typing import Any

import numpy as np
import onnx
from onnx import defs, helper

from symlint.model.graph import Array, Graph, Node, Shape, Tensor, plausible
from symlint.model.records import dataclass
from symlint.model.stored import numpy_type

Partial = tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Kind:
    """Element type and shape of one value."""

    dtype: str
    shape: Shape


GRID = frozenset({"int8", "uint8", "int4", "uint4", "int2", "uint2"})
Found = tuple[str, Partial] | None


class Refused(Exception):
    """An operator cannot take inputs of these shapes."""


@dataclass(frozen=True, slots=True)
class Call:
    """One operator call as the rules see it; ``value(i)`` is the known value of input i, if it has one."""

    node: Node
    kinds: tuple[Kind | None, ...]
    value: Callable[[int], Array | None]

    def shape(self, index: int) -> Shape:
        """Shape of an input; raises LookupError where it is absent or unknown."""
        kind = self.kinds[index]
        if kind is None:
            raise LookupError(index)
        return kind.shape

    def has(self, index: int) -> bool:
        """Whether the call has this input."""
        return index < len(self.node.inputs) and bool(self.node.inputs[index])

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute or its default."""
        return self.node.attributes.get(name, default)

    def like(self, op: str, inputs: Sequence[int], **attributes: Any) -> Call:
        """The same call as another operator of ONNX's own domain, with some of its inputs, and floats for integers."""
        picked = [index for index in inputs if index < len(self.kinds)]
        node = replace(
            self.node,
            op=op,
            inputs=tuple(self.node.inputs[i] for i in picked),
            attributes={**self.node.attributes, **attributes},
            opset=defs.onnx_opset_version(),
        )
        kinds = tuple(replace(k, dtype="float32") if (k := self.kinds[i]) and k.dtype in GRID else k for i in picked)
        return Call(node, kinds, lambda i: self.value(picked[i]))


Rule = Callable[[Call], Sequence[Found] | Call]


def kind(call: Call, index: int) -> tuple[str, Shape]:
    """Element type and shape of an input; raises LookupError where they are absent or unknown."""
    found = call.kinds[index]
    if found is None:
        raise LookupError(index)
    return found.dtype, found.shape


def dtype(call: Call, index: int, default: str = "float32") -> str:
    """Element type of an input, if it has one."""
    found = call.kinds[index] if call.has(index) else None
    return found.dtype if found else default


def known(call: Call, index: int) -> Array:
    """The value of an input that decides a shape; raises LookupError where it is unknown."""
    value = call.value(index) if call.has(index) else None
    if value is None:
        raise LookupError(index)
    return value


def same(*inputs: int) -> Rule:
    """Every output is like one of the inputs, those beyond the last named like the last."""
    return lambda call: [kind(call, inputs[min(k, len(inputs) - 1)]) for k in range(len(call.node.outputs))]


def together(shapes: Iterable[Shape]) -> Shape:
    """The shape that shapes broadcast to."""
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError as error:
        raise Refused("dimensions differ") from error


def like(op: str, *inputs: int) -> Rule:
    """The same as another operator of some of the inputs."""
    return lambda call: call.like(op, inputs)


# Operators that onnx's reference evaluator computes: pure ones, of which nothing is random and nothing reads files.

_OTHERS = (
    "Acos Acosh ArgMax ArgMin Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor CastLike "
    "Celu Compress Cosh CumSum DepthToSpace EyeLike GatherElements GatherND Gelu HardSigmoid HardSwish IsInf IsNaN "
    "MatMul Mean Mish NonZero OneHot PRelu Pad ReduceL1 ReduceL2 ReduceMean ReverseSequence ScatterElements "
    "ScatterND Selu Shrink Sinh Softmax Softsign SpaceToDepth Split Swish Tan ThresholdedRelu TopK Trilu Unique"
)
LISTED = frozenset(_OTHERS.split())


def reference(
    op: str, opset: int, attributes: Mapping[str, Any], inputs: Sequence[Array | None], outputs: int
) -> tuple[Array, ...]:
    """The outputs of one call of an operator that is listed here."""
    from onnx.reference import ReferenceEvaluator  # only a few models need it, and it loads every operator

    names = ["" if value is None else f"i{index}" for index, value in enumerate(inputs)]
    values = {name: np.asarray(value) for name, value in zip(names, inputs, strict=True) if value is not None}
    made = [f"o{index}" for index in range(outputs)]
    infos = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for n, v in values.items()
    ]
    results = [helper.make_value_info(name, onnx.TypeProto()) for name in made]
    graph = helper.make_graph([helper.make_node(op, names, made, **attributes)], "one", infos, results)
    version = min(opset, defs.onnx_opset_version())
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)])
    return tuple(np.asarray(value) for value in ReferenceEvaluator(model).run(None, values))


Attributes = Mapping[str, Any]
Inputs = Sequence[Array | None]
_LARGEST = 3.4028234663852886e38  # of float32


def evaluate(op: str, opset: int, attributes: Attributes, inputs: Inputs, outputs: int = 1) -> tuple[Array, ...] | None:
    """The outputs of one call on known inputs (None for an omitted one), or None where the operator is not listed.

    The caller bounds the sizes first: results may be as large as the operator makes them. Raises whatever numpy or the
    reference evaluator raise on inputs that do not fit.
    """
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if op in _PLAIN:
            return (np.asarray(_PLAIN[op](inputs, attributes)),)
        if op in LISTED:
            return reference(op, opset, attributes, inputs, outputs)
    return None


def listed(op: str) -> bool:
    """Whether `evaluate` knows this operator."""
    return op in _PLAIN or op in LISTED


def _need(inputs: Inputs, index: int) -> Array:
    value = inputs[index]
    if value is None:
        raise ValueError(f"input {index} is missing")
    return value


def _optional(inputs: Inputs, index: int) -> Array | None:
    return inputs[index] if index < len(inputs) else None


def _axes(inputs: Inputs, attributes: Attributes, index: int = 1) -> tuple[int, ...] | None:
    """Axes given as an attribute (older opsets) or as an input."""
    given = _optional(inputs, index)
    if given is not None:
        return tuple(int(axis) for axis in given.reshape(-1))
    return tuple(attributes["axes"]) if "axes" in attributes else None


def _unary(function: Callable[[Array], Any]) -> Callable[[Inputs, Attributes], Any]:
    def run(inputs: Inputs, _: Attributes) -> Any:
        x = _need(inputs, 0)
        return np.asarray(function(x)).astype(x.dtype, copy=False)

    return run


def _binary(function: Callable[[Array, Array], Any]) -> Callable[[Inputs, Attributes], Any]:
    return lambda inputs, _: function(_need(inputs, 0), _need(inputs, 1))


def _fold(function: Callable[[Array, Array], Any]) -> Callable[[Inputs, Attributes], Any]:
    def run(inputs: Inputs, _: Attributes) -> Any:
        result = _need(inputs, 0)
        for index in range(1, len(inputs)):
            result = function(result, _need(inputs, index))
        return result

    return run


def _divide(a: Array, b: Array) -> Any:
    if a.dtype.kind == "f":
        return a / b
    if not np.all(b):
        raise ValueError("division by zero")
    quotient = a // b
    return quotient + ((quotient < 0) & (quotient * b != a)).astype(a.dtype)  # integers truncate toward zero


def _power(a: Array, b: Array) -> Any:
    return np.power(a.astype(np.float64), b.astype(np.float64)).astype(a.dtype)


def _cast(inputs: Inputs, attributes: Attributes) -> Any:
    return _need(inputs, 0).astype(numpy_type(attributes["to"]))


def _slice(inputs: Inputs, attributes: Attributes) -> Any:
    x = _need(inputs, 0)
    if "starts" in attributes:
        starts, ends = attributes["starts"], attributes["ends"]
        axes, steps = attributes.get("axes"), None
    else:
        starts, ends = (_need(inputs, index).reshape(-1).tolist() for index in (1, 2))
        axes, steps = (None if (v := _optional(inputs, i)) is None else v.reshape(-1).tolist() for i in (3, 4))
    cut = [slice(None)] * x.ndim
    axes, steps = axes or range(len(starts)), steps or [1] * len(starts)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        # Walking backwards, an end below the first element means "through it", which Python writes as None.
        stop = None if step < 0 and end < -x.shape[axis] else end
        cut[axis] = slice(start, stop, step)
    return x[tuple(cut)]


def _squeeze(inputs: Inputs, attributes: Attributes) -> Any:
    return np.squeeze(_need(inputs, 0), _axes(inputs, attributes))


def _unsqueeze(inputs: Inputs, attributes: Attributes) -> Any:
    return np.expand_dims(_need(inputs, 0), _axes(inputs, attributes) or ())


def _reshape(inputs: Inputs, attributes: Attributes) -> Any:
    x = _need(inputs, 0)
    target = list(attributes["shape"]) if "shape" in attributes else _need(inputs, 1).tolist()
    if not attributes.get("allowzero", 0):
        target = [x.shape[axis] if dim == 0 else dim for axis, dim in enumerate(target)]
    return x.reshape(target)


def _expand(inputs: Inputs, _: Attributes) -> Any:
    x, shape = _need(inputs, 0), tuple(_need(inputs, 1).tolist())
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, shape)).copy()


def _filled(inputs: Inputs, attributes: Attributes) -> Any:
    value = attributes.get("value")
    return np.full(tuple(_need(inputs, 0).tolist()), np.float32(0) if value is None else value.reshape(-1)[0])


def _range(inputs: Inputs, _: Attributes) -> Any:
    start, limit, step = (_need(inputs, index).reshape(()) for index in range(3))
    return np.arange(start.item(), limit.item(), step.item()).astype(start.dtype)


def _concat(inputs: Inputs, attributes: Attributes) -> Any:
    return np.concatenate([_need(inputs, index) for index in range(len(inputs))], attributes["axis"])


def _gather(inputs: Inputs, attributes: Attributes) -> Any:
    return np.take(_need(inputs, 0), _need(inputs, 1).astype(np.int64), attributes.get("axis", 0))


def _reduce(function: Callable[..., Any]) -> Callable[[Inputs, Attributes], Any]:
    def run(inputs: Inputs, attributes: Attributes) -> Any:
        x, axes = _need(inputs, 0), _axes(inputs, attributes)
        if not axes and attributes.get("noop_with_empty_axes", 0):
            return x
        return np.asarray(function(x, axis=axes or None, keepdims=bool(attributes.get("keepdims", 1)))).astype(x.dtype)

    return run


def _flatten(inputs: Inputs, attributes: Attributes) -> Any:
    x, axis = _need(inputs, 0), attributes.get("axis", 1)
    return x.reshape(int(np.prod(x.shape[:axis], dtype=np.int64)), -1)


def _sigmoid(x: Array) -> Any:
    grown = np.exp(x)
    return np.where(x > 0, 1.0 / (1.0 + np.exp(-x)), grown / (1.0 + grown))


def _erf(x: Array) -> Any:
    return np.array([math.erf(number) for number in x.reshape(-1)], np.float32).reshape(x.shape)


def _clip(inputs: Inputs, attributes: Attributes) -> Any:
    x = _need(inputs, 0)
    low, high = _optional(inputs, 1), _optional(inputs, 2)
    if len(inputs) == 1:  # attributes, in older opsets
        low, high = (np.asarray(attributes.get(name, edge)) for name, edge in (("min", -_LARGEST), ("max", _LARGEST)))
    clip: Any = np.clip
    return x if low is None and high is None else clip(x, low, high).astype(x.dtype, copy=False)


def _leaky(inputs: Inputs, attributes: Attributes) -> Any:
    x, slope = _need(inputs, 0), attributes.get("alpha", float(np.float32(0.01)))
    sign = (x > 0).astype(x.dtype)
    sign -= ((sign - 1) * slope).astype(x.dtype)
    return (x * sign).astype(x.dtype, copy=False)


def _elu(inputs: Inputs, attributes: Attributes) -> Any:
    x = _need(inputs, 0)
    return np.where(x > 0, x, attributes.get("alpha", 1.0) * np.expm1(x)).astype(x.dtype)


def _named(table: str) -> Iterator[tuple[str, Any]]:
    for entry in table.split():
        op, _, function = entry.partition("=")
        yield op, getattr(np, function)


_BINARY = (
    "Add=add Sub=subtract Mul=multiply Equal=equal Less=less LessOrEqual=less_equal Greater=greater "
    "GreaterOrEqual=greater_equal And=logical_and Or=logical_or Xor=logical_xor"
)
_UNARY = (
    "Neg=negative Abs=abs Sqrt=sqrt Floor=floor Ceil=ceil Round=rint Exp=exp Log=log Sin=sin Cos=cos "
    "Reciprocal=reciprocal Sign=sign"
)
_PLAIN: dict[str, Callable[[Inputs, Attributes], Any]] = {
    "Identity": lambda inputs, _: _need(inputs, 0),
    "Shape": lambda inputs, a: np.asarray(_need(inputs, 0).shape[a.get("start", 0) : a.get("end")], np.int64),
    "Size": lambda inputs, _: np.asarray(_need(inputs, 0).size, np.int64),
    "Cast": _cast,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Reshape": _reshape,
    "Expand": _expand,
    "ConstantOfShape": _filled,
    "Range": _range,
    "Concat": _concat,
    "Gather": _gather,
    "Flatten": _flatten,
    "Transpose": lambda inputs, a: np.transpose(_need(inputs, 0), a.get("perm")),
    "Tile": lambda inputs, _: np.tile(_need(inputs, 0), _need(inputs, 1).tolist()),
    "Where": lambda inputs, _: np.where(_need(inputs, 0), _need(inputs, 1), _need(inputs, 2)),
    "Div": _binary(_divide),
    "Pow": _binary(_power),
    "Mod": lambda inputs, a: (np.fmod if a.get("fmod", 0) else np.mod)(_need(inputs, 0), _need(inputs, 1)),
    "QuickGelu": lambda inputs, a: _need(inputs, 0) / (1 + np.exp(-a.get("alpha", 1.702) * _need(inputs, 0))),
    # These give the bits that the reference evaluator gives; without it a run starts sooner.
    "Relu": _unary(lambda x: np.maximum(x, 0)),
    "Sigmoid": _unary(_sigmoid),
    "Tanh": _unary(np.tanh),
    "Erf": _unary(_erf),
    "Softplus": _unary(lambda x: np.logaddexp(0, x)),
    "LeakyRelu": _leaky,
    "Elu": _elu,
    "Clip": _clip,
    "Not": lambda inputs, _: np.logical_not(_need(inputs, 0)),
    **{op: _binary(function) for op, function in _named(_BINARY)},
    **{op: _unary(function) for op, function in _named(_UNARY)},
    **{op: _fold(function) for op, function in _named("Min=minimum Max=maximum Sum=add")},
    **{op: _reduce(function) for op, function in _named("ReduceProd=prod ReduceSum=sum ReduceMax=max ReduceMin=min")},
}


VALUE_LIMIT = 1_000_000
"""Elements of one known value."""
TOTAL_LIMIT = 50_000_000
"""Elements of all values that a pass computes."""
SMALL = 4096
"""Elements of a stored floating tensor that may be read where it says a shape (scales of a Resize)."""
_BY_DATA = frozenset({"NonZero", "Unique", "Compress"})
_STORES_QUANTISED = (
    *("Dequantize", "Quantize", "QLinear", "Integer", "QGemm", "QAttention", "QMoE", "QEmbed"),
    *("NBits", "Bnb4", "FpQ4", "NhwcMaxPool"),
)
_KEEPS = "Transpose Reshape Squeeze Unsqueeze Flatten Identity Slice Cast Split BitShift BitwiseAnd Concat Gather"
_LAYOUT = frozenset(_KEEPS.split())


@dataclass
class Known:
    """Shapes (element counts), dtypes and values found so far, by the name of the value."""

    tensors: Mapping[str, Tensor]
    shapes: dict[str, Shape] = field(default_factory=dict, kw_only=True)
    dtypes: dict[str, str] = field(default_factory=dict, kw_only=True)
    constants: dict[str, Array] = field(default_factory=dict, kw_only=True)
    asides: dict[str, Array | None] = field(default_factory=dict, kw_only=True)
    makers: dict[str, Node] = field(default_factory=dict, kw_only=True)
    computed: int = field(default=0, kw_only=True)

    def begin(self, values: Mapping[str, Array]) -> None:
        """Enter the stored tensors, and those values of them that count as known."""
        for name, tensor in self.tensors.items():
            self.shapes[name], self.dtypes[name] = tensor.shape, tensor.dtype
        self.constants.update(values)

    def kind(self, name: str) -> Kind | None:
        """Dtype and shape of a value, where both are known."""
        if name in self.shapes and name in self.dtypes:
            return Kind(self.dtypes[name], self.shapes[name])
        return None

    def put(self, name: str, kind: Kind | None) -> None:
        """Enter what is known of a value; what nobody can have stays unknown."""
        if name and kind is not None and plausible(kind.shape):
            self.shapes[name], self.dtypes[name] = kind.shape, kind.dtype

    def measure(self, node: Node) -> None:
        """The value of a Shape or Size."""
        shape = self.shapes[node.inputs[0]]
        part = shape[node.attributes.get("start", 0) : node.attributes.get("end")]
        value = np.asarray(part if node.op == "Shape" else math.prod(shape), np.int64)
        self.keep(node.outputs[0], value)

    def keep(self, name: str, value: Array) -> None:
        """Enter a known value."""
        if name:
            self.constants[name] = value
            self.computed += value.size
            self.put(name, Kind(value.dtype.name, value.shape))

    def known(self, node: Node, found: list[Found] | None) -> bool:
        """Evaluate the node if all its inputs are known and the results are small."""
        if not node.inputs or any(name and name not in self.constants for name in node.inputs):
            return False
        values = self.results(node, self.constants, found)
        for name, value in zip(node.outputs, values or (), strict=False):
            self.keep(name, value)
        return values is not None

    def results(self, node: Node, values: Mapping[str, Array], found: list[Found] | None) -> tuple[Array, ...] | None:
        """The values of a call, if its results are known to be small."""
        if not listed(node.op) or self.computed > TOTAL_LIMIT:
            return None
        # NonZero and its like are bounded by their input; all others must say their size before they run.
        if node.op not in _BY_DATA and (found is None or not all(map(_small, found))):
            return None
        try:
            inputs = [values[name] if name else None for name in node.inputs]
            return evaluate(node.op, node.opset, node.attributes, inputs, len(node.outputs))
        except Exception:  # a value that cannot be had is no reason to give up its shape
            return None

    def value(self, name: str, depth: int = 0) -> Array | None:
        """A known value, or one computed aside from small stored tensors because a shape depends on it."""
        if name in self.constants:
            return self.constants[name]
        if name not in self.asides and depth < 64:  # chains of shape arithmetic are short
            self.asides[name] = None
            tensor, node = self.tensors.get(name), self.makers.get(name)
            if tensor is not None and tensor.size <= SMALL and tensor.dtype != "string":
                self.asides[name] = tensor.read()
            elif node is not None and math.prod(self.shapes.get(name, (SMALL + 1,))) <= SMALL:
                self.asides[name] = self.aside(node, name, depth + 1)
        return self.asides.get(name)

    def aside(self, node: Node, name: str, depth: int) -> Array | None:
        """Evaluate one node whose own inputs are small and known, here or aside."""
        if not listed(node.op) or not node.inputs:
            return None
        values: dict[str, Array] = {}
        for source in filter(None, node.inputs):
            value = self.value(source, depth)
            if value is None or value.size > SMALL:
                return None
            values[source] = value
        found: list[Found] = [(k.dtype, k.shape) if (k := self.kind(o)) else None for o in node.outputs if o]
        results = self.results(node, values, found)
        return results[node.outputs.index(name)] if results else None


def _small(item: Found) -> bool:
    return item is not None and None not in item[1] and math.prod(d or 0 for d in item[1]) <= VALUE_LIMIT


def stored_values(graph: Graph, tensors: Mapping[str, Tensor]) -> dict[str, Array]:
    """Stored integers, truth values and single numbers: known values, unless they are quantised weights."""
    quantised = _stored_quantised(graph)
    # Integers of 64 bits are the shapes and indices of quantised operators, never their weights.
    quantised -= {name for name in quantised if name in tensors and tensors[name].dtype == "int64"}
    plain = {n: t for n, t in tensors.items() if t.dtype != "string" and "complex" not in t.dtype}
    return {
        name: tensor.read()
        for name, tensor in plain.items()
        if not tensor.shape or (not tensor.floating and name not in quantised and tensor.size <= VALUE_LIMIT)
    }


def _stored_quantised(graph: Graph) -> set[str]:
    """Names of values that are quantised weights: read by a quantised operator, perhaps after a change of layout."""
    found: set[str] = set()
    graphs = [graph]
    for inner in graphs:
        for node in reversed(inner.nodes):
            graphs += node.bodies
            reads = any(word in node.op for word in _STORES_QUANTISED)
            if reads or (node.op in _LAYOUT and any(name in found for name in node.outputs)):
                found.update(node.inputs if node.op == "Concat" or reads else node.inputs[:1])
    return found
