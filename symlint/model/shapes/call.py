"""One operator call as the shape rules see it, and what such rules are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from onnx import defs

from symlint.model.graph import Array, Node, Shape
from symlint.model.records import dataclass

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
