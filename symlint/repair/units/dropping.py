"""Dropping: biases that a translation makes redundant go to zero, into what absorbs them, and then out of the file."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
import onnx_ir as ir

from symlint.evidence.context import Context
from symlint.model.graph import Model
from symlint.repair.surgery.tensors import source_of
from symlint.repair.surgery.waste import discard, idle
from symlint.symmetry.motion.motion import Weights
from symlint.symmetry.structure import Structure
from symlint.symmetry.translation.course import Translation
from symlint.symmetry.translation.element import changes

OPTIONAL = {"Conv": 2, "ConvTranspose": 2, "Gemm": 2, "LayerNormalization": 2}
"""Operator -> the operand that may be missing, which counts as zero."""


def redundant(context: Context, space: str, tensors: Collection[str]) -> Iterator[Translation]:
    """The translations of a space that take a whole tensor to zero."""
    program = context.structure.program
    actions = (action for action in context.structure.shifts if action.space == space)
    for moved in (action.translation for action in sorted(actions, key=lambda action: action.id)):
        if whole(context.structure, moved) and program.weights[moved.weight] in tensors:
            yield moved


def whole(structure: Structure, translation: Translation) -> bool:
    """Whether a translation reaches every number of a stored tensor, each for itself."""
    return translation.free and translation.full and translation.weight not in structure.program.detached


def drop(weights: Weights, translation: Translation) -> str:
    """Take a bias to zero; what others have to take over is added to them. The name of the stored tensor."""
    value = weights.get(translation.weight)
    order = [np.argsort(classes) for classes in translation.wave.classes]
    size = -value[np.ix_(*order)] if value.ndim else -value
    for name, change in list(changes(translation, weights.numbers, size.reshape(translation.shape))):
        weights.put(name, weights.get(name) + change)
    weights.put(translation.weight, np.zeros_like(value))
    return weights.structure.program.weights[translation.weight]


def droppable(file: ir.Model, model: Model, name: str) -> bool:
    """Whether the file can do without a stored tensor that is zero; `model` is the file as symlint reads it."""
    use = _use(file, name)
    if use is None:
        return False
    node, k = use
    if node.op_type == "Add":
        other, out = node.inputs[1 - k], node.outputs[0]
        if other is None or other.name is None or out.name is None or out in file.graph.outputs:
            return False
        return model.shapes.get(out.name) == model.shapes.get(other.name, ())
    return OPTIONAL.get(node.op_type) == k


def remove(file: ir.Model, name: str) -> None:
    """Take a stored tensor of zeros out of the file, with the addition that it was for."""
    use, before = _use(file, name), idle(file)
    assert use is not None
    node, k = use
    if node.op_type == "Add":
        other = node.inputs[1 - k]
        assert other is not None
        ir.convenience.replace_all_uses_with(node.outputs[0], other)
        assert node.graph is not None
        node.graph.remove(node, safe=True)
    else:
        node.replace_input_with(k, None)
        if k == len(node.inputs) - 1:
            node.resize_inputs(k)
    discard(file, before)


def bypass(file: ir.Model, model: Model, zeros: Collection[str]) -> bool:
    """Leave out additions of a branch that is zero for every input, and the branch; whether there was one.

    Args:
        file: changes in place.
        model: the file as symlint reads it.
        zeros: names of values that are zero.
    """
    found, before = False, idle(file)
    for node in list(file.graph):
        out = node.outputs[0]
        if node.op_type != "Add" or out in file.graph.outputs:
            continue
        for value, other in ((node.inputs[0], node.inputs[1]), (node.inputs[1], node.inputs[0])):
            if value is None or other is None or source_of(value).name not in zeros:
                continue
            if model.shapes.get(out.name or "") == model.shapes.get(source_of(other).name or "", ()):
                ir.convenience.replace_all_uses_with(out, other)
                file.graph.remove(node, safe=True)
                found = True
                break
    if found:
        discard(file, before)
    return found


def _use(file: ir.Model, name: str) -> tuple[ir.Node, int] | None:
    """The one place where a stored tensor is read."""
    found = [
        (node, k)
        for node in file.graph
        for k, value in enumerate(node.inputs)
        if value is not None and node.op_type != "Identity" and source_of(value).name == name
    ]
    return found[0] if len(found) == 1 else None
