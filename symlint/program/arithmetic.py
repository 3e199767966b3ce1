"""Arithmetic: what an elementwise step makes of known numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from symlint.model.graph import Array
from symlint.model.shapes.known import evaluate
from symlint.program.functions import standard
from symlint.program.steps import Pointwise

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
