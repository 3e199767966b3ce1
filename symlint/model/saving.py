"""Model files opened for editing, given new values and written, with no weight in memory but the one being written.

A file is parsed without its large tensors, which stay where they are until they are asked for. To write it, a skeleton
is serialised in which every large tensor is a name; its numbers are put in its place, or into a file beside it, one
tensor after another.
"""

from __future__ import annotations

import os
import secrets
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from itertools import chain, count
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass

from symlint.model.graph import Array
from symlint.model.guard import PROTOBUF_LIMIT, data_file, model_file, parse
from symlint.model.load import unused
from symlint.model.operators import known
from symlint.model.stored import StoredFile, decode
from symlint.model.wire import INSIDE, LARGE, framed, varint

_SHARED = ("", "com.microsoft", "ai.onnx", "ai.onnx.ml")
"""Domains whose operators many know: a function of such a name in a file is what the file means by it."""


def inline(model: ir.Model) -> None:
    """Write out the functions of `model`, in place.

    What has a rule of its own stays a call: runtimes find out by its function what the rule already says.
    """
    InlinePass(criteria=_written_out)(model)


def _written_out(function: ir.Function) -> bool:
    return function.domain in _SHARED or known(f"{function.domain}.{function.name}").rule is None


_COPIED = 1 << 20
"""Bytes that are copied from file to file in one go."""
_TYPE = "symlint.type"
"""Metadata of a value in memory: its type, which is a map."""
_ALIGNED = 4096
"""Large tensors in files of their own begin at multiples of this, so that they can be mapped."""
_ROOM = 1 << 24
"""Bytes below protobuf's limit from which on weights are stored beside a file."""


class Stored(ir.LazyTensor):
    """A tensor whose numbers stay in a file until they are asked for."""

    def __init__(self, file: StoredFile, start: int, length: int, location: str, like: ir.ExternalTensor) -> None:
        super().__init__(self._read, like.dtype, like.shape, name=like.name, doc_string=like.doc_string)
        self.file = file
        self.start = start
        self.length = length
        self.location = location
        """The name of the file of external data; empty for the model file itself."""
        self.metadata_props.update(like.metadata_props)

    def _read(self) -> ir.Tensor[Any]:
        count = self.size
        found = decode(self.file.read(self.start, self.length), int(self.dtype), count)
        return ir.Tensor(found.reshape(self.shape.numpy()), dtype=self.dtype, name=self.name)

    def tobytes(self) -> bytes:
        """The numbers as they are stored."""
        return self.file.read(self.start, self.length).tobytes()

    def tofile(self, file: BinaryIO) -> None:
        """Copy the numbers as they are stored."""
        block = memoryview(bytearray(min(_COPIED, self.length)))
        with self.file.opened() as reader:
            for start in range(0, self.length, _COPIED):
                part = block[: min(_COPIED, self.length - start)]
                reader.fill(self.start + start, part)
                file.write(part)


class _Initializer:
    """A stored tensor, by its value."""

    stored = True

    def __init__(self, value: ir.Value) -> None:
        self.value = value

    def get(self) -> ir.TensorProtocol | None:
        return self.value.const_value

    def put(self, tensor: ir.TensorProtocol) -> None:
        self.value.const_value = tensor


class _Attribute:
    """A tensor in an attribute, as that of a Constant node."""

    stored = False

    def __init__(self, node: ir.Node, name: str) -> None:
        self.node, self.name = node, name

    def get(self) -> ir.TensorProtocol | None:
        return self.node.attributes[self.name].as_tensor()

    def put(self, tensor: ir.TensorProtocol) -> None:
        self.node.attributes[self.name] = ir.AttrTensor(self.name, tensor)


def _holders(model: ir.Model) -> Iterator[_Initializer | _Attribute]:
    graphs = [*model.graphs(), *(graph for function in model.functions.values() for graph in function.subgraphs())]
    for graph in graphs:
        for value in graph.initializers.values():
            yield _Initializer(value)
    nodes = (model.graph.all_nodes(), *(function.all_nodes() for function in model.functions.values()))
    for node in chain.from_iterable(nodes):
        for name, attribute in list(node.attributes.items()):
            if not attribute.is_ref() and attribute.type == ir.AttributeType.TENSOR:
                yield _Attribute(node, name)


def opened(path: str | Path) -> ir.Model:
    """A model to be changed; its large tensors are `Stored`."""
    name = str(path)
    file = model_file(Path(path), name)
    proto, outline = parse(file)
    _set_apart(proto.graph)
    model = ir.serde.deserialize_model(proto)
    files: dict[str, StoredFile] = {}
    for holder in _holders(model):
        tensor = holder.get()
        if not isinstance(tensor, ir.ExternalTensor):
            continue
        location, _, _ = str(tensor.location).rpartition(":")
        if location == outline.secret:
            holder.put(Stored(file, tensor.offset or 0, tensor.length or 0, "", tensor))
            continue
        location = str(tensor.location)
        if location not in files:
            found = data_file(Path(path).parent, location, name)
            files[location] = StoredFile(found, name, f"its external data {location!r} ")
        holder.put(Stored(files[location], tensor.offset or 0, tensor.nbytes, location, tensor))
    return model


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and the bodies inside it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for body in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _graphs(body)


def _is_map(kind: onnx.TypeProto) -> bool:
    if kind.HasField("sequence_type"):
        return _is_map(kind.sequence_type.elem_type)
    return kind.HasField("map_type") or (kind.HasField("optional_type") and _is_map(kind.optional_type.elem_type))


def _set_apart(graph: onnx.GraphProto) -> None:
    """Put types that are maps, which onnx_ir does not have, into the metadata of their values."""
    for inner in _graphs(graph):
        for value in (*inner.input, *inner.output, *inner.value_info):
            if _is_map(value.type):
                value.metadata_props.add(key=_TYPE, value=value.type.SerializeToString().hex())
                value.ClearField("type")


def _brought_back(graph: onnx.GraphProto) -> None:
    """Give values the types that were set apart."""
    for inner in _graphs(graph):
        for value in (*inner.input, *inner.output, *inner.value_info):
            kept = {entry.key: entry.value for entry in value.metadata_props}
            if _TYPE in kept:
                value.type.ParseFromString(bytes.fromhex(kept.pop(_TYPE)))
                del value.metadata_props[:]
                for key, text in kept.items():
                    value.metadata_props.add(key=key, value=text)


def stored(model: ir.Model) -> Iterator[Stored]:
    """The tensors of an opened model whose numbers are in its files."""
    return (tensor for holder in _holders(model) if isinstance(tensor := holder.get(), Stored))


def outside(model: ir.Model) -> dict[str, int]:
    """The files in which an opened model keeps tensors, and the bytes of the smallest tensor in each."""
    found: dict[str, int] = {}
    for tensor in stored(model):
        if tensor.location:
            found[tensor.location] = min(found.get(tensor.location, tensor.nbytes), tensor.nbytes)
    return found


def _as_it_is(tensor: ir.TensorProtocol) -> ir.TensorProtocol:
    return tensor


def _unchanged(graph: onnx.GraphProto) -> None:
    """Nothing is to be changed."""


def save(
    model: ir.Model,
    out: str | Path,
    *,
    data: str = "",
    least: int = 0,
    stand_in: Callable[[ir.TensorProtocol], ir.TensorProtocol] = _as_it_is,
    adapt: Callable[[onnx.GraphProto], None] = _unchanged,
) -> None:
    """Write a model, tensor by tensor. What was there is replaced at the end, so that it may be what is read.

    Args:
        model: what is written; it stays as it is.
        out: the file.
        data: the name of a file beside it for its initializers; empty for none, if protobuf can hold them all.
        least: only tensors of so many bytes go there.
        stand_in: what is written for a tensor.
        adapt: changes the graph that is written.
    """
    writing = _Writing(Path(out), stand_in)
    old = [(holder, tensor) for holder in _holders(model) if (tensor := holder.get()) is not None]
    chosen = [(holder, tensor, stand_in(tensor)) for holder, tensor in old]
    chosen = [each for each in chosen if each[2].dtype != ir.DataType.STRING]
    if not data and sum(made.nbytes for _, _, made in chosen) > PROTOBUF_LIMIT - _ROOM:
        data, least = f"{Path(out).name}.data", LARGE
    try:
        for holder, _, made in chosen:
            if data and holder.stored and made.nbytes >= least:
                holder.put(writing.beside(made, data))
            elif made.nbytes >= LARGE:
                holder.put(writing.within(made))
            elif made is not holder.get():
                holder.put(made)
        proto = ir.serde.serialize_model(model)
    finally:
        for holder, tensor in old:
            holder.put(tensor)
    _brought_back(proto.graph)
    adapt(proto.graph)
    writing.run(proto.SerializeToString(), data)


def _copy(tensor: ir.TensorProtocol, file: BinaryIO) -> None:
    """Write the numbers of a tensor."""
    made = tensor.raw() if type(tensor) is ir.LazyTensor else tensor
    if isinstance(made, (ir.Tensor, Stored)):
        made.tofile(file)
    else:
        file.write(made.tobytes())


class _Writing:
    def __init__(self, out: Path, stand_in: Callable[[ir.TensorProtocol], ir.TensorProtocol]) -> None:
        self.out = out
        self.secret = f"\0{secrets.token_hex(8)}"
        self.inner: list[ir.TensorProtocol] = []
        self.outer: list[tuple[int, ir.TensorProtocol]] = []
        self.end = 0

    def within(self, tensor: ir.TensorProtocol) -> ir.ExternalTensor:
        """The name for a tensor in the file."""
        self.inner.append(tensor)
        return self._named(tensor, self.secret, len(self.inner) - 1)

    def beside(self, tensor: ir.TensorProtocol, data: str) -> ir.ExternalTensor:
        """The place of a tensor in the file of data."""
        start = -(-self.end // _ALIGNED) * _ALIGNED if tensor.nbytes >= _ALIGNED else self.end
        self.outer.append((start, tensor))
        self.end = start + tensor.nbytes
        return self._named(tensor, data, start)

    @staticmethod
    def _named(tensor: ir.TensorProtocol, location: str, offset: int) -> ir.ExternalTensor:
        return ir.ExternalTensor(
            location,
            offset,
            tensor.nbytes,
            tensor.dtype,
            shape=ir.Shape(tensor.shape.numpy()),
            name=tensor.name or "",
            doc_string=tensor.doc_string,
            metadata_props=dict(tensor.metadata_props),
        )

    def run(self, skeleton: bytes, data: str) -> None:
        """Write both files, and then put them in their places."""
        parts: list[tuple[Path, Path]] = []
        try:
            if data:
                parts.append(self._part(self.out.with_name(data)))
                with parts[-1][0].open("wb") as file:
                    for start, tensor in self.outer:
                        file.write(b"\0" * (start - file.tell()))
                        _copy(tensor, file)
            parts.append(self._part(self.out))
            with parts[-1][0].open("wb") as file:
                for piece in self._filled(skeleton, "model")[0]:
                    if isinstance(piece, bytes):
                        file.write(piece)
                    else:
                        _copy(piece, file)
            for part, place in parts:
                part.replace(place)
        finally:
            for part, _ in parts:
                part.unlink(missing_ok=True)

    def _part(self, place: Path) -> tuple[Path, Path]:
        return place.with_name(f".{place.name}.{self.secret[1:]}.part"), place

    def _filled(self, data: bytes, kind: str) -> tuple[list[bytes | ir.TensorProtocol], int]:
        """A message with numbers in the place of names, in pieces, and how many bytes it has."""
        mark = self.secret.encode()
        pieces: list[bytes | ir.TensorProtocol] = []
        size = at = plain = 0
        while data.find(mark, at) >= 0:
            begin = at
            tag, at = varint(data, at)
            if tag & 7 != 2:
                at = varint(data, at)[1] if tag & 7 == 0 else at + (8 if tag & 7 == 1 else 4)
                continue
            length, at = varint(data, at)
            content, at = at, at + length
            if data.find(mark, content, at) < 0:
                continue
            inner, _ = INSIDE[kind][tag >> 3]
            made, count = self._filled(data[content:at], inner) if inner != "tensor" else self._tensor(data[content:at])
            pieces += [data[plain:begin], framed(tag >> 3, b"", count), *made]
            size += begin - plain + len(pieces[-len(made) - 1]) + count  # type: ignore[arg-type]
            plain = at
        pieces.append(data[plain:])
        return pieces, size + len(data) - plain

    def _tensor(self, data: bytes) -> tuple[list[bytes | ir.TensorProtocol], int]:
        proto = onnx.TensorProto.FromString(data)
        entries = {entry.key: entry.value for entry in proto.external_data}
        tensor = self.inner[int(entries["offset"])]
        del proto.external_data[:]
        proto.ClearField("data_location")
        head = proto.SerializeToString() + framed(9, b"", tensor.nbytes)
        return [head, tensor], len(head) + tensor.nbytes


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
