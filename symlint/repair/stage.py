"""One stage of a repair: new weights, and fewer units, written to a file."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_ir as ir

from symlint.edit import rewrite
from symlint.graph import Array
from symlint.motion import Weights
from symlint.repair.narrowing import Narrowing, Whole
from symlint.repair.surgery import narrow
from symlint.structure import Structure


def fresh_weights(structure: Structure) -> Weights:
    """The weights of a network as its file stores them."""
    return Weights(structure, lambda name: structure.program.model.tensors[name].read())


def stored(weights: Weights) -> dict[str, Array]:
    """The present values of all weights that have moved, in the types of the file."""
    tensors = weights.structure.program.model.tensors
    return {name: value.astype(tensors[name].read().dtype) for name, value in weights.now.items()}


def narrowed(
    structure: Structure, values: Mapping[str, Array], widths: Mapping[int, int], whole: Whole | None = None
) -> ir.Model:
    """The file of a structure with other weights, and with the first units only of some leaves."""
    model = structure.program.model
    file = rewrite(model.path, values)
    if widths:
        narrow(file, model, Narrowing(structure, whole or Whole(model), widths))
    return file
