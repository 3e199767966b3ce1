"""Inputs on which a model is tried, and the float32 copy of it that is run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx import AttributeProto, GraphProto, TensorProto, numpy_helper

from symlint.model.graph import Array, Model, Shape
from symlint.model.saving import save
from symlint.model.wire import LARGE

HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
STRUCTURAL = frozenset({"Resize", "Upsample", "Range"})
"""Operators whose floating constants are sizes: a unit in the last place may change a shape."""
SIZES = {"wide": 8.0, "image": 1.0, "bright": 255.0, "narrow": 0.05, "huge": 100.0}
"""Kinds of inputs that are no plain noise, and how large they are."""


def feeds(model: Model, seed: int) -> Iterator[dict[str, Array]]:
    """Random inputs, the likeliest to be valid first.

    Floating inputs are standard normal, then uniform in [0, 1). Integers stay below the length of the table that they
    look up where the graph shows it, then below ever smaller bounds; the last resort is the length of a sequence.
    """
    longest = max((n for name in model.graph.inputs for n in model.shapes.get(name, ())[1:2]), default=1)
    for floats in ("normal", "uniform"):
        for bound in (None, 20, 5, 2, 1, -longest):
            yield _drawn(model, seed, floats, bound)


def unusual_feeds(model: Model, seed: int) -> Iterator[dict[str, Array]]:
    """Inputs for a network that does not answer to noise: of other sizes, smooth as images, and long runs of tokens."""
    for floats in ("wide", "image", "bright", "narrow", "huge"):
        for bound in (None, 1, 2):
            yield _drawn(model, seed, floats, bound)


def _drawn(model: Model, seed: int, floats: str, bound: int | None) -> dict[str, Array]:
    rng = np.random.default_rng(seed)
    return {name: _draw(model, name, rng, floats, bound) for name in model.graph.inputs}


def _draw(model: Model, name: str, rng: np.random.Generator, floats: str, bound: int | None) -> Array:
    shape, dtype = model.shapes.get(name, ()), model.dtypes.get(name, "float32")
    if dtype == "bool":
        return rng.random(shape) < 0.8
    if "int" in dtype:
        if bound is not None and bound < 0 and len(shape) <= 1:
            return np.full(shape, -bound, dtype)
        table = _table(model, name)
        high = max(min(table if bound is None and table else abs(bound or 50), 120), 1)
        if floats in SIZES:  # what is frequent in a text comes often; of two values, as in a mask, the larger one
            return (np.minimum(rng.zipf(1.3, shape) - 1, high - 1) if high > 2 else np.ones(shape)).astype(dtype)
        return rng.integers(0, high, shape).astype(dtype)
    values = rng.random(shape) if floats == "uniform" else rng.standard_normal(shape) * SIZES.get(floats, 1.0)
    if floats in ("image", "bright"):
        values = _smooth(rng, shape) * SIZES[floats]
    return values.astype("float64" if dtype == "float64" else "float32")


def _smooth(rng: np.random.Generator, shape: Shape) -> Array:
    """Numbers from 0 to 1 that change little from one place to the next, along the last two axes."""
    values = rng.standard_normal(shape)
    for axis in range(max(len(shape) - 2, 0), len(shape)):
        count = shape[axis]
        for step in (1, 2, 4, 8):
            values = values + np.roll(values, step % max(count, 1), axis=axis)
    low, high = (float(f(values)) if values.size else 0.0 for f in (np.min, np.max))
    return (values - low) / max(high - low, 1e-30)


def _table(model: Model, name: str) -> int | None:
    """The length of the table that an integer input looks up, where it does so directly."""
    lengths = [
        model.shapes[node.inputs[0]][int(node.attributes.get("axis", 0))]
        for node in model.graph.nodes
        if node.op == "Gather" and node.inputs[1] == name and node.inputs[0] in model.shapes
    ]
    return min(lengths, default=None)


def save_lifted(model: ir.Model, out: Path) -> None:
    """Save a model for running, with float16 and bfloat16 lifted to float32.

    Its weights are stored beside it: so onnxruntime maps them, and holds none twice.
    """
    save(model, out, data=f"{out.name}.data", least=LARGE, stand_in=_lifted, adapt=_lift)


def _lifted(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    if int(tensor.dtype) not in HALVES:
        return tensor
    wide = ir.DataType.FLOAT
    return ir.LazyTensor(
        lambda: ir.Tensor(tensor.numpy().astype(np.float32), dtype=wide, name=tensor.name),
        wide,
        ir.Shape(tensor.shape.numpy()),
        name=tensor.name,
    )


def _lift(graph: GraphProto) -> None:
    for tensor in graph.initializer:
        _widen(tensor)
    for value in [*graph.input, *graph.output, *graph.value_info]:
        if value.type.tensor_type.elem_type in HALVES:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                _widen(attribute.t)
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i in HALVES:
                attribute.i = TensorProto.FLOAT
            for body in [attribute.g, *attribute.graphs] if attribute.type in (5, 10) else []:
                _lift(body)


def _widen(tensor: TensorProto) -> None:
    if tensor.data_type in HALVES:
        wide = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
