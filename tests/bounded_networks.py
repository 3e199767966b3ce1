"""Small networks with units that a bounded activation, a norm or a normalisation before them keeps off."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH = 12
UNITS = 16
OFF = (2, 7)
"""Planted units."""


class Net:
    """A graph under construction; every method returns the name of what it makes."""

    def __init__(self, seed: int = 3, bias: float = -200.0, **more: float) -> None:
        self.rng = np.random.default_rng(seed)
        self.bias, self.more = bias, more
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, *shape: int, scale: float | None = None) -> str:
        fan = int(np.prod(shape[1:])) if len(shape) > 2 else shape[0]
        values = self.rng.standard_normal(shape) * (1 / np.sqrt(fan) if scale is None else scale)
        return self.put(values)

    def put(self, values: np.ndarray, kind: type = np.float32) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values, kind), name))
        return name

    def op(self, kind: str, *inputs: str, **attributes: object) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=f"{kind}{len(self.nodes)}", **attributes))
        return name

    def planted(self, size: int = UNITS) -> str:
        """A bias that is as random as others but for the planted units."""
        values = self.rng.standard_normal(size) * 0.1
        values[list(OFF)] = self.bias
        return self.put(values)

    def linear(self, x: str, rows: int, columns: int, bias: str | None = None) -> str:
        y = self.op("MatMul", x, self.weight(rows, columns))
        return self.op("Add", y, bias or self.put(self.rng.standard_normal(columns) * 0.1))

    def conv(self, x: str, rows: int, columns: int, size: int = 3, bias: str | None = None, group: int = 1) -> str:
        w = self.weight(columns, rows // group, size, size)
        b = bias or self.put(self.rng.standard_normal(columns) * 0.1)
        return self.op("Conv", x, w, b, pads=[size // 2] * 4, group=group)

    def norm(self, x: str, **attributes: object) -> str:
        gain, shift = (self.put(self.rng.uniform(0.5, 1.5, WIDTH)), self.weight(WIDTH, scale=0.1))
        return self.op("LayerNormalization", x, gain, shift, axis=-1, **attributes)

    def rms(self, x: str) -> str:
        """Written out, as exporters do."""
        square = self.op("ReduceMean", self.op("Pow", x, self.put(np.asarray(2.0))), axes=[-1], keepdims=1)
        root = self.op("Sqrt", self.op("Add", square, self.put(np.asarray(1e-6))))
        return self.op("Mul", self.op("Div", x, root), self.put(self.rng.uniform(0.5, 1.5, WIDTH)))

    def clip(self, x: str, low: float, high: float) -> str:
        return self.op("Clip", x, self.put(np.asarray(low)), self.put(np.asarray(high)))

    def feed_forward(self, x: str, activation: str = "Relu", rows: int = WIDTH) -> str:
        return self.linear(self.op(activation, self.linear(x, rows, UNITS, self.planted())), UNITS, WIDTH)

    def save(self, path: Path, y: str, shape: list[int], kind: int = TensorProto.FLOAT) -> Path:
        x = helper.make_tensor_value_info("x", kind, shape)
        out = helper.make_empty_tensor_value_info(y)
        out.type.tensor_type.elem_type = TensorProto.FLOAT
        graph = helper.make_graph(self.nodes, "g", [x], [out], self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.save(onnx.shape_inference.infer_shapes(model), path)
        return path


def behind(function: str) -> Callable[[Net, Path], Path]:
    def build(n: Net, path: Path) -> Path:
        attributes = {"axis": -1} if function == "Softmax" else {}
        h = n.op(function, n.linear("x", 5, WIDTH), **attributes)
        return n.save(path, n.feed_forward(h), [3, 5])

    return build


def layer_norm(n: Net, path: Path) -> Path:
    return n.save(path, n.feed_forward(n.norm(n.linear("x", 5, WIDTH))), [3, 5])


def rms_norm(n: Net, path: Path) -> Path:
    return n.save(path, n.feed_forward(n.rms(n.linear("x", 5, WIDTH))), [3, 5])


def embedding(n: Net, path: Path) -> Path:
    h = n.op("Abs", n.op("Gather", n.weight(20, WIDTH, scale=1.0), "x"))
    return n.save(path, n.feed_forward(h), [2, 6], TensorProto.INT64)


def cnn(n: Net, path: Path) -> Path:
    h = n.clip(n.conv("x", 3, WIDTH), 0.0, 6.0)
    h = n.op("MaxPool", h, kernel_shape=[2, 2], strides=[2, 2])
    h = n.op("Relu", n.conv(h, WIDTH, UNITS, bias=n.planted()))
    return n.save(path, n.conv(h, UNITS, 4), [2, 3, 8, 8])


def depthwise(n: Net, path: Path) -> Path:
    h = n.op("Sigmoid", n.conv("x", 3, UNITS))
    h = n.clip(n.conv(h, UNITS, UNITS, bias=n.planted(), group=UNITS), 0.0, 6.0)
    return n.save(path, n.conv(h, UNITS, 4, 1), [2, 3, 8, 8])


def batch_norm(n: Net, path: Path) -> Path:
    h = n.op("Tanh", n.conv("x", 3, WIDTH))
    h = n.conv(h, WIDTH, UNITS)
    statistics = [n.put(n.rng.uniform(0.5, 1.5, UNITS)), n.planted(), n.weight(UNITS, scale=0.1)]
    h = n.op("BatchNormalization", h, *statistics, n.put(n.rng.uniform(0.5, 1.5, UNITS)))
    return n.save(path, n.conv(n.op("Relu", h), UNITS, 4), [2, 3, 8, 8])


def instance_norm(n: Net, path: Path) -> Path:
    h = n.op("InstanceNormalization", n.conv("x", 3, WIDTH), n.put(np.ones(WIDTH)), n.weight(WIDTH, scale=0.1))
    h = n.op("Relu", n.conv(h, WIDTH, UNITS, 1, bias=n.planted()))
    return n.save(path, n.conv(h, UNITS, 4), [2, 3, 8, 8])


def attention(n: Net, path: Path) -> Path:
    """A block with the normalisations after its sums."""
    x = n.linear("x", 5, WIDTH)
    q, k, v = (n.linear(x, WIDTH, WIDTH) for _ in range(3))
    scores = n.op("MatMul", q, n.op("Transpose", k, perm=[0, 2, 1]))
    mixed = n.op("MatMul", n.op("Softmax", scores, axis=-1), v)
    h = n.norm(n.op("Add", x, n.linear(mixed, WIDTH, WIDTH)))
    return n.save(path, n.norm(n.op("Add", h, n.feed_forward(h))), [2, 7, 5])


def gated(n: Net, path: Path) -> Path:
    h = n.rms(n.linear("x", 5, WIDTH))
    gate = n.op("Relu", n.linear(h, WIDTH, UNITS, n.planted()))
    return n.save(path, n.linear(n.op("Mul", gate, n.linear(h, WIDTH, UNITS)), UNITS, 4), [3, 5])


def recurrent(kind: str) -> Callable[[Net, Path], Path]:
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind]

    def build(n: Net, path: Path) -> Path:
        w, r = n.weight(1, gates * WIDTH, 5, scale=0.4), n.weight(1, gates * WIDTH, WIDTH, scale=0.3)
        h = n.op(kind, "x", w, r, n.weight(1, 2 * gates * WIDTH, scale=0.1), hidden_size=WIDTH)
        h = n.op("Reshape", h, n.put(np.asarray([6, 2, WIDTH]), np.int64))
        return n.save(path, n.feed_forward(h), [6, 2, 5])

    return build


def joined(n: Net, path: Path) -> Path:
    a, b = n.op("Sigmoid", n.linear("x", 5, 8)), n.op("Softmax", n.linear("x", 5, 4), axis=-1)
    return n.save(path, n.feed_forward(n.op("Concat", a, b, axis=-1)), [3, 5])


NETWORKS: dict[str, Callable[[Net, Path], Path]] = {
    **{f.lower(): behind(f) for f in ("Sigmoid", "Tanh", "Softmax", "HardSigmoid", "Softsign", "Erf", "Sin")},
    **{k.lower(): recurrent(k) for k in ("LSTM", "GRU", "RNN")},
    **{
        f.__name__: f
        for f in (
            *(layer_norm, rms_norm, embedding, cnn, depthwise, batch_norm, instance_norm, attention, gated, joined),
        )
    },
}
