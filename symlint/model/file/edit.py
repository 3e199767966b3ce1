"""Write new values into a model file: names, order and storage of everything else stay."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from symlint.model.file.convert import unused
from symlint.model.file.saving import opened, outside, save, stored
from symlint.model.graph import Array
from symlint.model.inlining import inline

_SMALL = 257
"""Bytes of the smallest tensors that are stored beside a file."""


def rewrite(path: str | Path, values: Mapping[str, Array]) -> ir.Model:
    """The model at `path` with other values for the stored tensors named; functions are inlined where there are any.

    Values that are made when they are asked for are not asked for here, but when the model is written.
    """
    model = opened(path)
    if model.functions:
        inline(model)
    distinguish(model.graph)
    left = set(values)
    for graph in model.graphs():
        for name, value in graph.initializers.items():
            if name in left:
                left.remove(name)
                value.const_value = _tensor(values, name, value.const_value)
        for node in graph:
            if (
                node.op_type == "Constant"
                and (name := node.outputs[0].name or "") in left
                and "value" in node.attributes
            ):
                left.remove(name)
                old = node.attributes["value"].as_tensor()
                node.attributes["value"] = ir.AttrTensor("value", _tensor(values, name, old))
    if left:
        raise KeyError(f"{path} stores no tensor {min(left)!r}")
    return model


class Lazy(Mapping[str, Array]):
    """Values of stored tensors, each made when it is asked for; their shapes are those of the tensors."""

    @abstractmethod
    def dtype(self, name: str) -> np.dtype[Any]:
        """The type of the numbers of one of them."""

    def forget(self) -> None:
        """Give back what is held to make them; none is asked for any more."""


def _tensor(values: Mapping[str, Array], name: str, old: ir.TensorProtocol | None) -> ir.TensorProtocol:
    kind = values.dtype(name) if isinstance(values, Lazy) else values[name].dtype
    same = old is not None and old.dtype.itemsize == kind.itemsize
    code = old.dtype if old is not None and same else None
    if old is None or not isinstance(values, Lazy):
        return ir.Tensor(values[name], dtype=code, name=name)
    code = ir.DataType.from_numpy(kind) if code is None else code
    shape = ir.Shape(old.shape.numpy())
    return ir.LazyTensor(lambda: ir.Tensor(values[name], dtype=code, name=name), code, shape, name=name)


def write(path: str | Path, values: Mapping[str, Array], out: str | Path) -> None:
    """Save the model at `path` as `out` with other values; external data stay external, beside `out`."""
    model, old = rewrite(path, values), opened(path)
    taken = {os.path.realpath(tensor.file.path) for tensor in stored(old)}
    names = (f"{Path(out).name}{f'.{k}' if k else ''}.data" for k in count())
    data = next(name for name in names if os.path.realpath(Path(out).with_name(name)) not in taken)
    save(model, out, data=data if outside(old) else "", least=_SMALL)


def distinguish(graph: ir.Graph, prefix: str = "", taken: set[str] | None = None) -> None:
    """Give every value of a file, in place, the name that a `Model` has for it: those of sibling bodies differ."""
    taken = set[str]() if taken is None else taken
    for value in dict.fromkeys(_values(graph)):
        if value.name:
            value.name = unused(value.name, prefix, taken)
            taken.add(value.name)
    for node in graph:
        for key, attribute in node.attributes.items():
            inner = f"{prefix}{node.name or node.op_type}/{key}/"
            if attribute.type == ir.AttributeType.GRAPH:
                distinguish(attribute.as_graph(), inner, taken)
            elif attribute.type == ir.AttributeType.GRAPHS:
                for body in attribute.as_graphs():
                    distinguish(body, inner, taken)


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs
