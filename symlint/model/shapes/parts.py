"""What shape rules are made of: element types, known values, broadcasting, and shapes that an input already has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from symlint.model.graph import Array, Shape
from symlint.model.shapes.call import Call, Found, Refused

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
