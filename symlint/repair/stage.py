"""One stage of a repair: new weights, and fewer units, written to a file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from symlint.evidence.ends.settled import Settled
from symlint.model.file.edit import Lazy, rewrite
from symlint.model.file.element_types import CODES, numpy_type
from symlint.model.graph import Array, Model, Tensor
from symlint.repair.surgery.file import narrow
from symlint.repair.surgery.narrowing import Narrowing, Whole
from symlint.symmetry.motion.motion import Weights
from symlint.symmetry.structure import Structure


def stored(weights: Weights) -> dict[str, Array]:
    """The present values of all weights that have moved, in the types of the file."""
    tensors = weights.structure.program.model.tensors
    return {name: _rounded(tensors[name], value) for name, value in weights.now.items()}


def _rounded(tensor: Tensor, values: Array) -> Array:
    return values.astype(numpy_type(CODES[tensor.dtype]))


def _settled(model: Model) -> list[str]:
    return [name for name, tensor in model.tensors.items() if isinstance(tensor.read, Settled)]


class _Written(Lazy):
    """The values of a file: some that are given, and those of settled tensors, each made when it is asked for."""

    def __init__(self, model: Model, values: Mapping[str, Array]) -> None:
        self.tensors, self.given = model.tensors, values
        self.names = tuple(dict.fromkeys((*values, *_settled(model))))

    def __getitem__(self, name: str) -> Array:
        tensor = self.tensors[name]
        return self.given[name] if name in self.given else _rounded(tensor, tensor.read())

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def dtype(self, name: str) -> np.dtype[Any]:
        """The type of the file."""
        return numpy_type(CODES[self.tensors[name].dtype])

    def forget(self) -> None:
        """Settled values are not kept."""


def narrowed(
    structure: Structure, values: Mapping[str, Array], widths: Mapping[int, int], whole: Whole | None = None
) -> ir.Model:
    """The file of a structure with its settled and with other weights, and with the first units only of some leaves."""
    model = structure.program.model
    file = rewrite(model.path, _Written(model, values) if _settled(model) else values)
    if widths:
        narrow(file, model, Narrowing(structure, whole or Whole(structure.program), widths))
    return file
