"""Substitutes: the functions of single steps in a rehearsal, and fixed stand-ins for those that are not known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from symlint.model.graph import Array
from symlint.model.shapes.known import evaluate
from symlint.program.functions import standard
from symlint.program.numbers import NEWEST
from symlint.program.steps import CONSTANT, Law, Pointwise

LARGEST = 1e4
"""Numbers beyond are those of masks."""
EPSILON = 0.1
TINY = 1e-30


def wide(x: Array) -> Array:
    """Numbers in float64."""
    return x if x.dtype == np.float64 else x.astype(np.float64)


def pointwise(step: Pointwise, inputs: Sequence[Array]) -> Array | None:
    """An elementwise function; another one stands for a function of one operand that is not known."""
    function, opset = standard(step.function), step.node.opset if "." not in step.node.op else NEWEST
    if function == "Where":
        choice = inputs[0] if inputs[0].dtype == bool else inputs[0] > 0
        # Where the other value is zero throughout, there is none.
        return np.where(choice, inputs[1], inputs[2] if len(inputs) > 2 else inputs[1].dtype.type(0))
    if function == "Identity":
        return inputs[0]
    attributes = step.node.attributes if step.function == step.node.op else {}
    try:
        made = evaluate(function, opset, attributes, [n if n.dtype.kind in "biu" else wide(n) for n in inputs])
    except Exception:
        made = None
    if made is not None:
        return np.nan_to_num(made[0], posinf=LARGEST, neginf=-LARGEST) if made[0].dtype.kind == "f" else made[0]
    if len(inputs) > 1:
        return None
    x = wide(inputs[0])
    return np.where(x < 0, 0.3 * x, x) if step.law.kind == "product" else np.tanh(x + 0.2) + 0.3 * x * x


def normalised(function: str, x: Array, axes: tuple[int, ...], law: Law) -> Array:
    """A normalisation along axes: that of the name, or one of lengths, which count but where it takes scales away."""
    if "Softmax" in function:
        power = np.exp(x - x.max(axis=axes, keepdims=True))
        made = power / (power.sum(axis=axes, keepdims=True) + (function == "SoftmaxAndOne"))
        return np.asarray(np.log(made + 1e-300) if function == "LogSoftmax" else made)
    if function == "standardise":
        x = x - x.mean(axis=axes, keepdims=True)
    return np.asarray(x / np.sqrt((x * x).mean(axis=axes, keepdims=True) + (TINY if law == CONSTANT else EPSILON)))


def folded(function: str, x: Array, axes: tuple[int, ...]) -> Array | None:
    """A symmetric reduction along axes."""
    if "Max" in function:
        return np.asarray(x.max(axis=axes))
    if "Min" in function:
        return np.asarray(x.min(axis=axes))
    if function in ("ReduceL2", "ReduceSumSquare", "moment"):
        return np.asarray((x * x).sum(axis=axes))
    return np.asarray(np.abs(x).sum(axis=axes)) if function == "ReduceL1" else None
