"""Write new values into a model file: names, order and storage of everything else stay."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from symlint.convert import unused
from symlint.errors import UnreadableModel
from symlint.graph import Array


def opened(path: str | Path) -> ir.Model:
    """The file as what can be edited and written back. Raises UnreadableModel where it holds what cannot."""
    try:
        return ir.load(path)
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, NotImplementedError):
            cause = cause.__cause__
        if cause is None:
            raise
        reason = "has values that are maps: it can be audited but not written back; export it without (zipmap=False)"
        raise UnreadableModel(str(path), reason) from error


def rewrite(path: str | Path, values: Mapping[str, Array]) -> ir.Model:
    """The model at `path` with other values for the stored tensors named; functions are inlined where there are any."""
    model = opened(path)
    if model.functions:
        InlinePass()(model)
    distinguish(model.graph)
    left = dict(values)
    for graph in model.graphs():
        for name, value in graph.initializers.items():
            if name in left:
                value.const_value = _tensor(left.pop(name), name, value.const_value)
        for node in graph:
            if (
                node.op_type == "Constant"
                and (name := node.outputs[0].name or "") in left
                and "value" in node.attributes
            ):
                old = node.attributes["value"].as_tensor()
                node.attributes["value"] = ir.AttrTensor("value", _tensor(left.pop(name), name, old))
    if left:
        raise KeyError(f"{path} stores no tensor {min(left)!r}")
    return model


def _tensor(values: Array, name: str, old: ir.TensorProtocol | None) -> ir.TensorProtocol:
    same = old is not None and old.dtype.itemsize == values.dtype.itemsize
    return ir.Tensor(values, dtype=old.dtype if old is not None and same else None, name=name)


def write(path: str | Path, values: Mapping[str, Array], out: str | Path) -> None:
    """Save the model at `path` as `out` with other values; external data stay external, beside `out`."""
    model = rewrite(path, values)
    external = any(
        isinstance(v.const_value, ir.ExternalTensor) for g in model.graphs() for v in g.initializers.values()
    )
    ir.save(model, out, external_data=f"{Path(out).name}.data" if external else None)


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
