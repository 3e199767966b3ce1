"""Stored tensors of a file that is edited: found behind other names, given other numbers, added."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from symlint.model.graph import Array


def store(file: ir.Model, name: str, value: Array) -> ir.Value:
    """A new stored tensor of the file."""
    name = free_name(file, name)
    tensor = ir.Tensor(np.asarray(value, order="C"), name=name)
    fresh = ir.Value(name=name, shape=ir.Shape(value.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    file.graph.register_initializer(fresh)
    if file.ir_version < 4:  # there every stored tensor is listed as an input
        file.graph.inputs.append(fresh)
    return fresh


def replace(value: ir.Value, tensor: ir.TensorProtocol) -> None:
    """Give an initializer another tensor."""
    value = source_of(value)
    value.const_value, value.shape = tensor, ir.Shape(tensor.shape.numpy())


def overwrite(value: ir.Value, array: Array) -> None:
    """Give a stored tensor another value, wherever the file keeps it."""
    value = source_of(value)
    maker = value.producer()
    old = value.const_value if maker is None else maker.attributes["value"].as_tensor()
    same = old is not None and old.dtype.itemsize == array.dtype.itemsize
    tensor = ir.Tensor(array, dtype=old.dtype if old is not None and same else None, name=value.name)
    if maker is None:
        value.const_value = tensor
    else:
        for name in list(maker.attributes):
            del maker.attributes[name]
        maker.attributes["value"] = ir.AttrTensor("value", tensor)
    value.shape = ir.Shape(array.shape)


def source_of(value: ir.Value) -> ir.Value:
    """What a value is an Identity of."""
    while (maker := value.producer()) is not None and maker.op_type == "Identity" and maker.inputs[0] is not None:
        value = maker.inputs[0]
    return value


def stored_value(value: ir.Value) -> Array | None:
    """The numbers of a stored tensor; None for a computed value."""
    value = source_of(value)
    maker = value.producer()
    if maker is None:
        return None if value.const_value is None else value.const_value.numpy()
    if maker.op_type != "Constant":
        return None
    if "value" in maker.attributes:
        return maker.attributes["value"].as_tensor().numpy()
    key, attribute = next(iter(maker.attributes.items()))
    return np.asarray(attribute.value, np.int64 if "int" in key else np.float32)


def free_name(file: ir.Model, name: str) -> str:
    """A name that no value of the file has yet."""
    taken = {*file.graph.initializers}
    taken.update(v.name for node in file.graph.all_nodes() for v in node.outputs if v.name)
    taken.update(v.name for v in file.graph.inputs if v.name)
    count, found = 1, name
    while found in taken:
        count += 1
        found = f"{name}_{count}"
    return found
