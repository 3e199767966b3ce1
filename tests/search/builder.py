"""Writes a network node by node as one exporter or another would: the words that the blocks are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, defs, helper, numpy_helper

Dim = int | str
BATCH = "batch"
SIZE = 2
"""The batch, where it is written down."""
TYPES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "float64": TensorProto.DOUBLE,
    "bfloat16": TensorProto.BFLOAT16,
}
NUMPY = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "float64": np.dtype(np.float64),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
CHANNEL = {"flat": 1, "tokens": 2, "steps": 2, "image": 1, "nhwc": 3, "signal": 1}
"""Layout -> the axis of its channels."""


_WRITTEN = {"Slice": 10, "Pad": 11, "Clip": 11, "Gemm": 11, "Resize": 11}
"""Operators that are not written as they were before an opset."""


class Unfit(Exception):
    """A block cannot stand here: it is left out."""


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor of the network."""

    name: str
    layout: str
    shape: tuple[Dim, ...]

    @property
    def axis(self) -> int:
        """Where the channels are."""
        return CHANNEL[self.layout]

    @property
    def width(self) -> int:
        """The number of channels."""
        return int(self.shape[self.axis])

    def of(self, name: str, width: int | None = None) -> Value:
        """The same layout under another name, with another number of channels."""
        shape = list(self.shape)
        shape[self.axis] = self.width if width is None else width
        return Value(name, self.layout, tuple(shape))


@dataclass(frozen=True, slots=True)
class Mark:
    """How much of a network there is."""

    nodes: int
    tensors: int
    inputs: int
    outputs: int
    tied: dict[tuple[int, ...], str]


class Builder:
    """A network that grows. ``rng`` draws sizes, and is another one in each block; ``values`` draws weights."""

    def __init__(self, dtype: str, opset: int, habits: Sequence[str], seed: int) -> None:
        self.dtype, self.opset, self.habits = dtype, opset, frozenset(habits)
        self.values = np.random.default_rng(seed)
        self.rng = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.domains: dict[str, int] = {}
        self.tied: dict[tuple[int, ...], str] = {}
        self.count = 0

    def mark(self) -> Mark:
        """Where the network stands, to come back to."""
        return Mark(len(self.nodes), len(self.tensors), len(self.inputs), len(self.outputs), dict(self.tied))

    def back(self, mark: Mark) -> None:
        """Take away what has come since."""
        grown = (self.nodes, mark.nodes), (self.tensors, mark.tensors), (self.inputs, mark.inputs)
        for made, count in (*grown, (self.outputs, mark.outputs)):
            del made[count:]
        self.tied = dict(mark.tied)

    # -- names and tensors ----------------------------------------------------------------------------------------
    def fresh(self, stem: str) -> str:
        """A name that nothing has."""
        self.count += 1
        return f"{stem}_{self.count}"

    def stored(self, values: np.ndarray, stem: str = "c") -> str:
        """A stored tensor, as an initializer or as a Constant node."""
        name = self.fresh(stem)
        tensor = numpy_helper.from_array(np.ascontiguousarray(values).reshape(np.shape(values)), name)
        if "constant nodes" in self.habits:
            self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        else:
            self.tensors.append(tensor)
        return name

    def numbers(self, values: object, stem: str = "n") -> str:
        """A stored tensor of the network's type."""
        return self.stored(np.asarray(values).astype(NUMPY[self.dtype]), stem)

    def whole(self, values: object, stem: str = "i") -> str:
        """A stored tensor of int64."""
        return self.stored(np.asarray(values, np.int64), stem)

    def weight(self, *shape: int, fan: int | None = None, stem: str = "w") -> str:
        """A random weight, as initialised: of one over the root of its fan-in; its first axis unless it is told."""
        scale = 1 / np.sqrt(fan or shape[0])
        values = self.values.normal(size=shape) * scale
        name = self.numbers(values, stem)
        self.tied[shape] = name
        return name

    def bias(self, *shape: int) -> str:
        """A random bias."""
        return self.numbers(0.3 * self.values.normal(size=shape), "b")

    def gain(self, *shape: int) -> str:
        """Random numbers about one."""
        return self.numbers(1 + 0.3 * self.values.uniform(-1, 1, size=shape), "g")

    # -- nodes ----------------------------------------------------------------------------------------------------
    def node(self, op: str, *inputs: str, outputs: int = 1, **attributes: object) -> str:
        """A node; its first output."""
        return self.many(op, *inputs, outputs=outputs, **attributes)[0]

    def many(self, op: str, *inputs: str, outputs: int, **attributes: object) -> list[str]:
        """A node; all of its outputs."""
        domain, _, kind = op.rpartition(".")
        if domain:
            self.domains[domain] = 1
        elif not self.has(kind) or self.opset < _WRITTEN.get(kind, 0):
            raise Unfit(f"{kind} is not in opset {self.opset}")
        names = [self.fresh(kind.lower()) for _ in range(outputs)]
        self.nodes.append(helper.make_node(kind, inputs, names, self.fresh(kind), domain=domain, **attributes))
        return names

    def has(self, op: str) -> bool:
        """Whether the opset has an operator."""
        try:
            return not defs.get_schema(op, self.opset, "").deprecated
        except defs.SchemaError:
            return False

    def chance(self, share: float) -> bool:
        """True so often, by the block's own draws."""
        return bool(self.rng.random() < share)

    def pick(self, *choices: object) -> object:
        """One of several, by the block's own draws."""
        return choices[int(self.rng.integers(len(choices)))]

    # -- what changed between opsets -------------------------------------------------------------------------------
    def reduce(self, op: str, x: str, axes: Sequence[int], *, keep: bool = True) -> str:
        """A reduction over axes."""
        since = 13 if op == "ReduceSum" else 18
        if self.opset >= since:
            return self.node(op, x, self.whole(axes), keepdims=int(keep))
        return self.node(op, x, axes=list(axes), keepdims=int(keep))

    def squeeze(self, x: str, axes: Sequence[int]) -> str:
        """Axes of one unit less."""
        if self.opset >= 13:
            return self.node("Squeeze", x, self.whole(axes))
        return self.node("Squeeze", x, axes=list(axes))

    def unsqueeze(self, x: str, axes: Sequence[int]) -> str:
        """Axes of one unit more."""
        if self.opset >= 13:
            return self.node("Unsqueeze", x, self.whole(axes))
        return self.node("Unsqueeze", x, axes=list(axes))

    def split(self, x: str, sizes: Sequence[int], axis: int) -> list[str]:
        """Pieces along an axis."""
        if self.opset >= 13:
            if self.opset >= 18 and len(set(sizes)) == 1 and "short" in self.habits:
                return self.many("Split", x, outputs=len(sizes), axis=axis, num_outputs=len(sizes))
            return self.many("Split", x, self.whole(sizes), outputs=len(sizes), axis=axis)
        return self.many("Split", x, outputs=len(sizes), axis=axis, split=list(sizes))

    def slice(self, x: str, start: int, end: int, axis: int, step: int = 1) -> str:
        """A piece of an axis."""
        return self.node("Slice", x, *(self.whole([k]) for k in (start, end, axis, step)))

    def dropout(self, x: str) -> str:
        """Dropout, which does nothing."""
        if self.opset >= 12:
            return self.node("Dropout", x, self.stored(np.float32(0.1)))
        return self.node("Dropout", x, ratio=0.1)

    def softmax(self, x: str, rank: int, op: str = "Softmax") -> str:
        """A softmax over the last of so many axes."""
        return self.node(op, x, axis=rank - 1 if "short" in self.habits or self.opset < 13 else -1)

    def mean(self, x: Value, axes: Sequence[int], *, keep: bool = True) -> str:
        """The mean over axes."""
        return self.reduce("ReduceMean", x.name, axes, keep=keep)

    def transpose(self, x: str, *order: int) -> str:
        """Axes in another order."""
        return self.node("Transpose", x, perm=list(order))

    def reshape(self, x: str, shape: Sequence[Dim], *, source: Sequence[Dim] = ()) -> str:
        """Another shape, in which the batch stands for itself: as zero, minus one, a number, or as computed.

        ``source`` is the shape before, in which the batch is looked for.
        """
        shape = list(shape)
        if BATCH not in shape:
            return self.node("Reshape", x, self.whole(shape))
        place = shape.index(BATCH)
        if "computed shapes" in self.habits and BATCH in source:
            return self.node("Reshape", x, self._computed(x, shape, list(source).index(BATCH)))
        if "symbolic batch" not in self.habits:
            return self.node("Reshape", x, self.whole([SIZE if d == BATCH else d for d in shape]))
        same = list(source).index(BATCH) == place if BATCH in source else place == 0
        return self.node("Reshape", x, self.whole([(0 if same else -1) if d == BATCH else d for d in shape]))

    def _computed(self, x: str, shape: Sequence[Dim], place: int) -> str:
        size = self.node("Gather", self.node("Shape", x), self.whole(place), axis=0)
        parts = [self.unsqueeze(size, [0]) if d == BATCH else self.whole([d]) for d in shape]
        return self.node("Concat", *parts, axis=0)

    # -- whole layers ----------------------------------------------------------------------------------------------
    def linear(self, x: Value, width: int, *, bias: bool = True) -> Value:
        """A layer over the channels, whatever stands where."""
        if x.layout in ("image", "signal"):
            ones = [1] * (len(x.shape) - 2)
            weight = self.weight(width, x.width, *ones, fan=x.width)
            return x.of(self.node("Conv", x.name, weight, *([self.bias(width)] if bias else [])), width)
        if len(x.shape) == 2 and "gemm" in self.habits and self.opset >= _WRITTEN["Gemm"]:
            turned = "transposed" in self.habits
            weight = self.weight(*((width, x.width) if turned else (x.width, width)), fan=x.width)
            more = [self.bias(width)] if bias else []
            return x.of(self.node("Gemm", x.name, weight, *more, **({"transB": 1} if turned else {})), width)
        if "transposed" in self.habits:
            weight = self.transpose(self.weight(width, x.width, fan=x.width), 1, 0)
        else:
            weight = self.weight(x.width, width)
        made = self.node("MatMul", x.name, weight)
        if bias:
            pair = (self.bias(width), made) if "bias first" in self.habits else (made, self.bias(width))
            made = self.node("Add", *pair)
        return x.of(made, width)

    def add(self, x: str, y: str) -> str:
        """A sum."""
        return self.node("Add", x, y)

    def along(self, x: Value) -> list[int]:
        """The shape of a vector over the channels that is to meet them."""
        return [x.width if k == x.axis else 1 for k in range(x.axis, len(x.shape))]

    def layout(self, x: Value, layout: str) -> Value:
        """The value in another layout, as far as one is made of the other."""
        if x.layout == layout:
            return x
        known = {
            ("tokens", "steps"): (1, 0, 2),
            ("steps", "tokens"): (1, 0, 2),
            ("tokens", "signal"): (0, 2, 1),
            ("signal", "tokens"): (0, 2, 1),
            ("signal", "steps"): (2, 0, 1),
            ("steps", "signal"): (1, 2, 0),
            ("image", "nhwc"): (0, 2, 3, 1),
            ("nhwc", "image"): (0, 3, 1, 2),
        }
        if (order := known.get((x.layout, layout))) is None:
            raise Unfit(f"{x.layout} does not become {layout}")
        return Value(self.transpose(x.name, *order), layout, tuple(x.shape[k] for k in order))

    def pooled(self, x: Value) -> Value:
        """The mean over all that is no batch and no channel."""
        rest = [k for k, d in enumerate(x.shape) if d != BATCH and k != x.axis]
        if not rest:
            return x
        if x.layout == "image" and self.chance(0.5):
            op = str(self.pick("GlobalAveragePool", "GlobalMaxPool"))
            made = self.node(op, x.name)
            flat = self.node("Flatten", made) if self.chance(0.5) else self.squeeze(made, [2, 3])
            return Value(flat, "flat", (BATCH, x.width))
        return Value(self.mean(x, rest, keep=False), "flat", (BATCH, x.width))

    # -- ends ------------------------------------------------------------------------------------------------------
    def enter(self, layout: str) -> Value:
        """The input."""
        width = int(self.rng.integers(5, 9))
        long = int(self.rng.integers(3, 6))
        shapes: dict[str, tuple[Dim, ...]] = {
            "flat": (BATCH, width),
            "tokens": (BATCH, long, width),
            "steps": (long, BATCH, width),
            "image": (BATCH, 3, 6, 6),
            "nhwc": (BATCH, 6, 6, 3),
            "signal": (BATCH, 3, 8),
        }
        name = "x"
        shape = shapes[layout]
        self.inputs.append(self.info(name, shape, TYPES[self.dtype]))
        return Value(name, layout, shape)

    def info(self, name: str, shape: Sequence[Dim] | None, kind: int) -> onnx.ValueInfoProto:
        """The declaration of an input or output."""
        if shape is None:
            return helper.make_tensor_value_info(name, kind, None)
        symbolic = "symbolic batch" in self.habits
        return helper.make_tensor_value_info(
            name, kind, [(d if symbolic else SIZE) if d == BATCH else d for d in shape]
        )

    def leave(self, x: Value) -> None:
        """An output."""
        name = f"y{len(self.outputs)}"
        self.nodes.append(helper.make_node("Identity", [x.name], [name]))
        self.outputs.append(self.info(name, x.shape, TYPES[self.dtype]))

    def model(self) -> onnx.ModelProto:
        """The network, with the shapes between its nodes where the exporter writes them down."""
        graph = helper.make_graph(self.nodes, "g", self.inputs, self.outputs, self.tensors)
        opsets = [helper.make_opsetid("", self.opset), *(helper.make_opsetid(d, v) for d, v in self.domains.items())]
        made = helper.make_model(graph, opset_imports=opsets, ir_version=min(10, onnx.IR_VERSION))
        # onnx dies of what is no table in front of that operator.
        if "value info" in self.habits and all(node.op_type != "DictVectorizer" for node in self.nodes):
            made = onnx.shape_inference.infer_shapes(made)
        return made
