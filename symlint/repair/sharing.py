"""Sharing: stored tensors that nothing reads leave a file, and of those that hold the same numbers one stays."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import onnx_ir as ir

from symlint.lint.repairs import Discard, Share, Storing
from symlint.model.file.edit import rewrite


def shared(path: Path, asked: Storing) -> ir.Model:
    """The file without the tensors that it can do without."""
    file = rewrite(path, {})
    match asked:
        case Discard(spare):
            _discard(file, spare)
        case Share(groups):
            for group in groups:
                _share(file, group)
    return file


def _discard(file: ir.Model, names: Iterable[str]) -> None:
    for name in names:
        _taken_out(_holder(file, name))


def _share(file: ir.Model, group: Sequence[str]) -> None:
    """Let all that reads tensors of a group read one; bodies of control flow see what the outermost graph stores.

    The values of a file have a name each, so that nothing in a body hides it.
    """
    stays = next((name for name in group if name in file.graph.initializers), None)
    if stays is None:
        stays = group[0]
        old = _holder(file, stays)
        made = ir.Value(name=stays, const_value=_numbers(old))
        ir.convenience.replace_all_uses_with(old, made)
        _taken_out(old)
        file.graph.register_initializer(made)
    for name in group:
        if name != stays:
            old = _holder(file, name)
            ir.convenience.replace_all_uses_with(old, file.graph.initializers[stays])
            _taken_out(old)


def _holder(file: ir.Model, name: str) -> ir.Value:
    """The value of a stored tensor: an initializer, or what a Constant node makes."""
    for graph in file.graphs():
        if name in graph.initializers:
            return graph.initializers[name]
    return next(o for node in file.graph.all_nodes() for o in node.outputs if o.name == name)


def _numbers(value: ir.Value) -> ir.TensorProtocol | None:
    node = value.producer()
    return value.const_value if node is None else node.attributes["value"].as_tensor()


def _taken_out(value: ir.Value) -> None:
    node = value.producer()
    graph = value.graph if node is None else node.graph
    assert graph is not None
    if node is not None:
        graph.remove(node, safe=True)
    elif value.name is not None:
        del graph.initializers[value.name]
