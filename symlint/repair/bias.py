"""Biases: what a contraction is to have added goes into the bias that it has, or into a new one."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from symlint.graph import Array
from symlint.repair.folding import Offset
from symlint.repair.site import Site, source_of, stored_value

SLOTS = {"Conv": 2, "ConvTranspose": 2, "Gemm": 2}
"""Operator -> the operand that is its bias."""


def shift(file: ir.Model, offset: Offset) -> None:
    """Add an offset to what a contraction of the file makes, in place."""
    node = next(n for n in file.graph.all_nodes() if n.outputs[0].name == offset.step.node.outputs[0])
    values = offset.values
    if not values.any():
        return
    if node.op_type in SLOTS:
        _slotted(file, node, SLOTS[node.op_type], values)
        return
    out = node.outputs[0]
    uses = list(out.uses())
    if len(uses) == 1 and uses[0].node.op_type == "Add" and out not in file.graph.outputs:
        reader = uses[0].node
        other = reader.inputs[1 - uses[0].idx]
        old = None if other is None else stored_value(other)
        if other is not None and old is not None and _own(other) and (fresh := _joined(old, values)) is not None:
            Site.overwrite(other, fresh)
            return
    _added(file, node, values)


def _slotted(file: ir.Model, node: ir.Node, slot: int, values: Array) -> None:
    channels = values.reshape(-1)
    if node.op_type == "Gemm":
        attributes = node.attributes
        beta = attributes["beta"].as_float() if "beta" in attributes else 1.0
        channels = channels / (beta or 1.0)
    given = node.inputs[slot] if len(node.inputs) > slot else None
    weight = node.inputs[1]
    assert weight is not None
    stored = stored_value(weight)
    kind = np.float32 if stored is None else stored.dtype
    if given is None:
        name = f"{(weight.name or 'weight').removesuffix('.weight')}.bias"
        fresh = Site.store(file, name, channels.astype(kind))
        if len(node.inputs) <= slot:
            node.resize_inputs(slot + 1)
        node.replace_input_with(slot, fresh)
        return
    old = stored_value(given)
    made = None if old is None else _joined(old, channels)
    if made is None:
        _added(file, node, values)
    elif _own(given):
        Site.overwrite(given, made)
    else:
        node.replace_input_with(slot, Site.store(file, f"{given.name}.shifted", made))


def _joined(old: Array, values: Array) -> Array | None:
    """A bias with an offset, where it has the shape for that."""
    wide = np.squeeze(values).reshape((1,) * max(0, old.ndim - np.squeeze(values).ndim) + np.squeeze(values).shape)
    if old.ndim == 1 and wide.ndim == 1 and old.shape == wide.shape:
        return np.asarray((old.astype(np.float64) + wide).astype(old.dtype))
    if old.shape == np.broadcast_shapes(
        old.shape, values.shape[-old.ndim :] if old.ndim else ()
    ) and values.size == np.prod(values.shape[-old.ndim :]):
        made = old.astype(np.float64) + values.reshape(values.shape[-old.ndim :])
        return np.asarray(made.astype(old.dtype))
    return None


def _own(value: ir.Value) -> bool:
    """Whether a stored tensor has one use only."""
    origin = source_of(value)
    return len(list(origin.uses())) == 1 and len(list(value.uses())) == 1


def _added(file: ir.Model, node: ir.Node, values: Array) -> None:
    """An Add of its own behind the node, whose result keeps its name."""
    out = node.outputs[0]
    name = out.name or ""
    weight = next((v for v in node.inputs if v is not None and stored_value(v) is not None), None)
    stored = None if weight is None else stored_value(weight)
    kind = np.float32 if stored is None or stored.dtype.kind != "f" else stored.dtype
    lead = 0
    while lead < values.ndim - 1 and values.shape[lead] == 1:
        lead += 1
    bias = Site.store(file, f"{name}.bias", values.reshape(values.shape[lead:]).astype(kind))
    add = ir.Node("", "Add", [out, bias], num_outputs=1, name=f"{node.name or name}.bias")
    made = add.outputs[0]
    made.type, made.shape = out.type, out.shape
    assert node.graph is not None
    node.graph.insert_after(node, add)
    ir.convenience.replace_all_uses_with(out, made, replace_graph_outputs=True)
    add.replace_input_with(0, out)
    out.name, made.name = f"{name}.unbiased", name
