"""The tensors of a message: read from the message itself, from the model's file or from its external data."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx

from symlint.model.file.element_types import BITS, STRING, WORDS, decode, numpy_type
from symlint.model.file.stored import Place, StoredFile, Weights
from symlint.model.file.wire import Outline
from symlint.model.graph import Array, Shape, Tensor


class Reading:
    """How the tensors of a message are read: from the message, from the model's file or from its external data."""

    def __init__(self, outline: Outline, file: StoredFile, files: Mapping[str, StoredFile], weights: Weights) -> None:
        self.outline = outline
        self.file = file
        self.files = files
        self.weights = weights

    def tensor(self, name: str, proto: onnx.TensorProto) -> Tensor:
        """A stored tensor under a name; numbers that are outside of the message are not read yet."""
        shape = tuple(proto.dims)
        if proto.data_location == onnx.TensorProto.EXTERNAL:
            place, weights = self.place(proto, shape), self.weights
            return Tensor(name, shape, WORDS[proto.data_type], lambda: weights.read(place).reshape(shape), place)
        return Tensor(name, shape, WORDS[proto.data_type], held(_values(proto, shape)))

    def place(self, proto: onnx.TensorProto, shape: Shape) -> Place:
        """Where numbers are that lie in a file as they do in memory."""
        count = int(np.prod(shape, dtype=np.int64))
        numpy_type(proto.data_type)  # there are no strings outside of the message
        size = (count * BITS[proto.data_type] + 7) // 8
        if inside := self.outline.inside(proto):
            return Place(self.file, inside.offset, size, proto.data_type, count)
        entries = {entry.key: entry.value for entry in proto.external_data}
        file = self.files[entries.get("location", "")]
        return Place(file, int(entries.get("offset", "0")), size, proto.data_type, count)


def held(values: Array) -> Callable[[], Array]:
    """A reader of values that are in memory, read-only from now on."""
    values.flags.writeable = False
    return lambda: values


def _values(proto: onnx.TensorProto, shape: Shape) -> Array:
    """The numbers in a message, or its strings as bytes."""
    code = proto.data_type
    if proto.HasField("raw_data"):
        count = int(np.prod(shape, dtype=np.int64))
        return decode(np.frombuffer(proto.raw_data, np.uint8), code, count).reshape(shape)
    if code == STRING:
        return np.array(list(proto.string_data), dtype=np.bytes_).reshape(shape)
    kind = numpy_type(code)
    if proto.int32_data:  # narrow types are held as the bits that they have in memory
        bits = np.array(proto.int32_data, np.int32)
        if BITS[code] > 16:
            return bits.astype(kind, copy=False).reshape(shape)
        if BITS[code] == 16:
            return bits.astype(np.uint16).view(kind).reshape(shape)
        narrow = bits.astype(np.uint8)
        packed = BITS[code] in (2, 4)
        return (decode(narrow, code, int(np.prod(shape))) if packed else narrow.view(kind)).reshape(shape)
    for numbers, held in (
        (proto.int64_data, np.int64),
        (proto.uint64_data, np.uint64),
        (proto.float_data, np.float32),
        (proto.double_data, np.float64),
    ):
        if numbers:
            found = np.array(numbers, held)
            return (found.view(kind) if kind.kind == "c" else found.astype(kind, copy=False)).reshape(shape)
    return np.zeros(shape, kind)
