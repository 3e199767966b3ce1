"""Shapes of operators of ONNX itself of which its own inference says nothing, or less than their inputs tell."""

from __future__ import annotations

import math
from math import prod

import numpy as np

from symlint.model.shapes.call import Call, Found, Refused
from symlint.model.shapes.parts import Rule, dtype, known, same


def told(call: Call, index: int) -> np.ndarray | None:
    """The value of an input that may decide a shape, in one row, if it is known."""
    value = call.value(index) if call.has(index) else None
    return None if value is None else value.reshape(-1)


def between(call: Call) -> list[Found]:
    """A range, whatever its number type."""
    start, limit = told(call, 0), told(call, 1)
    step = told(call, 2) if call.has(2) else np.ones(1)
    if start is None or limit is None or step is None:
        return [(dtype(call, 0), (None,))]
    if start.dtype.kind in "iu" and step.dtype.kind in "iu":
        return [(start.dtype.name, (max(0, -((int(start[0]) - int(limit[0])) // int(step[0]))),))]
    return [(dtype(call, 0), (max(0, math.ceil((float(limit[0]) - float(start[0])) / float(step[0]))),))]


def _one_hot(call: Call) -> list[Found]:
    indices, depth = call.shape(0), told(call, 1)
    at = call.attribute("axis", -1) % (len(indices) + 1)
    return [(dtype(call, 2), (*indices[:at], None if depth is None else int(depth[0]), *indices[at:]))]


def _compressed(call: Call) -> list[Found]:
    x, kept, axis = call.shape(0), told(call, 1), call.attribute("axis")
    shape = (prod(x),) if axis is None else x
    at = 0 if axis is None else axis % len(x)
    count = None if kept is None else int(np.count_nonzero(kept[: shape[at]]))
    return [(dtype(call, 0), (*shape[:at], count, *shape[at + 1 :]))]


def _unpooled(call: Call) -> list[Found]:
    (batch, channels, *sizes), kernel = call.shape(0), call.attribute("kernel_shape")
    if call.has(2):
        return [(dtype(call, 0), tuple(int(n) for n in known(call, 2)))]
    strides, pads = call.attribute("strides") or [1] * len(sizes), call.attribute("pads") or [0] * (2 * len(sizes))
    widths = ((n - 1) * strides[k] + kernel[k] - pads[k] - pads[k + len(sizes)] for k, n in enumerate(sizes))
    return [(dtype(call, 0), (batch, channels, *widths))]


def _spectra(call: Call) -> list[Found]:
    """Frames of a signal, the frequencies of each, and the parts of a complex number."""
    batch, length, _ = call.shape(0)
    step, told_width = int(known(call, 1).reshape(-1)[0]), told(call, 3)
    width = call.shape(2)[0] if told_width is None else int(told_width[0])
    if width > length:
        raise Refused("a window does not fit its input")
    bins = width // 2 + 1 if call.attribute("onesided", 1) else width
    return [(dtype(call, 0), (batch, (length - width) // step + 1, bins, 2))]


def _blocks(call: Call) -> list[Found]:
    """Blocks of a picture as channels, or back."""
    (batch, channels, *sizes), block = call.shape(0), call.attribute("blocksize")
    if call.node.op == "DepthToSpace":
        if channels % block**2:
            raise Refused("the channels are no blocks")
        return [(dtype(call, 0), (batch, channels // block**2, *(n * block for n in sizes)))]
    if any(n % block for n in sizes):
        raise Refused("a side is no whole number of blocks")
    return [(dtype(call, 0), (batch, channels * block**2, *(n // block for n in sizes)))]


def _encoded(call: Call) -> list[Found]:
    """Labels for labels; attributes tell their type."""
    kinds = {"int64s": "int64", "floats": "float32", "strings": "string"}
    made = next((word for name, word in kinds.items() if call.attribute(f"values_{name}") is not None), None)
    table = call.attribute("values_tensor")
    return [(made or (table.dtype.name if isinstance(table, np.ndarray) else "float32"), call.shape(0))]


def _targets(call: Call) -> list[Found]:
    count = call.attribute("targets") or call.attribute("n_targets") or 1
    return [("float32", (call.shape(0)[0], int(count)))]


def _trees(call: Call) -> list[Found]:
    rows = call.shape(0)[0]
    integers = call.attribute("classlabels_int64s")
    classes = len(integers or call.attribute("classlabels_strings") or ())
    return [("int64" if integers else "string", (rows,)), ("float32", (rows, classes))]


def _vectorized(call: Call) -> list[Found]:
    return [("float32", (call.shape(0)[0], sum(int(n) for n in call.attribute("inputdimensions"))))]


STANDARD: dict[str, Rule] = {
    **dict.fromkeys(("GroupNormalization", "MeanVarianceNormalization", "Scatter", "ScatterElements"), same(0)),
    **dict.fromkeys(("ScatterND", "TensorScatter"), same(0)),
    **dict.fromkeys(("SpaceToDepth", "DepthToSpace"), _blocks),
    "Compress": _compressed,
    "MaxUnpool": _unpooled,
    "OneHot": _one_hot,
    "Range": between,
    "STFT": _spectra,
    "ai.onnx.ml.Imputer": same(0),
    "ai.onnx.ml.LabelEncoder": _encoded,
    "ai.onnx.ml.FeatureVectorizer": _vectorized,
    "ai.onnx.ml.TreeEnsembleClassifier": _trees,
    **dict.fromkeys(("ai.onnx.ml.Scaler", "ai.onnx.ml.Normalizer"), lambda call: [("float32", call.shape(0))]),
    **dict.fromkeys(
        ("ai.onnx.ml.LinearRegressor", "ai.onnx.ml.SVMRegressor", "ai.onnx.ml.TreeEnsembleRegressor"), _targets
    ),
}
"""Operators of ONNX's own domains: the kinds of their outputs."""
