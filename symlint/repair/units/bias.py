"""Biases: what a contraction is to have added goes into the bias that it has, or into a new one."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from symlint.model.graph import Array
from symlint.repair.surgery.tensors import free_name, overwrite, source_of, store, stored_value
from symlint.repair.units.folding import SLOTS, Offset


def shift(file: ir.Model, offset: Offset) -> None:
    """Add an offset to what a contraction of the file makes, in place."""
    node = next(n for n in file.graph.all_nodes() if offset.step.node.first in {o.name for o in n.outputs})
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
            overwrite(other, fresh)
            return
    _added(file, node, values)


def _slotted(file: ir.Model, node: ir.Node, slot: int, values: Array) -> None:
    given = node.inputs[slot] if len(node.inputs) > slot else None
    channels = _slim(values) if node.op_type in ("Gemm", "FusedGemm") else values.reshape(-1)
    if node.op_type in ("Gemm", "FusedGemm"):
        alpha, beta = (node.attributes[n].as_float() if n in node.attributes else 1.0 for n in ("alpha", "beta"))
        if not beta:  # what stands in its place does not count
            node.attributes["beta"] = ir.AttrFloat32("beta", 1.0)
            given = None
        channels = channels * (alpha / (beta or 1.0))
    weight = next((v for v in node.inputs[1::-1] if v is not None and stored_value(v) is not None), node.inputs[1])
    assert weight is not None
    stored = stored_value(weight)
    kind = np.float32 if stored is None else stored.dtype
    if given is None:
        name = f"{(weight.name or 'weight').removesuffix('.weight')}.bias"
        fresh = store(file, name, channels.astype(kind))
        if len(node.inputs) <= slot:
            node.resize_inputs(slot + 1)
        node.replace_input_with(slot, fresh)
        return
    old = stored_value(given)
    made = None if old is None else _joined(old, channels)
    if made is None:
        _added(file, node, values)
    elif _own(given):
        overwrite(given, made)
    else:
        node.replace_input_with(slot, store(file, f"{given.name}.shifted", made))


def _joined(old: Array, values: Array) -> Array | None:
    """A bias with an offset, where it has the shape for that."""
    made = old.astype(np.float64) + _slim(values, old.ndim)
    return np.asarray(made.astype(old.dtype)) if made.shape == old.shape else None


def _slim(values: Array, least: int = 1) -> Array:
    """An array without leading axes of size 1, down to so many axes."""
    lead = 0
    while lead < values.ndim - least and values.shape[lead] == 1:
        lead += 1
    return values.reshape(values.shape[lead:])


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
    bias = store(file, f"{name}.bias", _slim(values).astype(kind))
    add = ir.Node("", "Add", [out, bias], num_outputs=1, name=f"{node.name or name}.bias")
    made = add.outputs[0]
    made.type, made.shape = out.type, out.shape
    assert node.graph is not None
    node.graph.insert_after(node, add)
    ir.convenience.replace_all_uses_with(out, made, replace_graph_outputs=True)
    add.replace_input_with(0, out)
    out.name, made.name = free_name(file, f"{name}.unbiased"), name
