"""From an ONNX file to a `Model`: read, checked, inlined, aliased, with concrete shapes.

Nothing is executed and no weight is read: a `Tensor` reads its values when it is asked to.

From the protobuf message to plain nodes and tensors: unique names, Constants stored, Identities followed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from symlint.model import guard
from symlint.model.errors import UnreadableModel
from symlint.model.graph import Array, Graph, Model, Node, Shape, Tensor
from symlint.model.guard import model_file, parse
from symlint.model.shapes.concrete import Declared, Dim, Skeleton, make_concrete
from symlint.model.stored import BITS, STRING, WORDS, Place, StoredFile, Weights, decode, default_budget, numpy_type
from symlint.model.wire import Outline


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


_NUMBERS = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
_KINDS = onnx.AttributeProto


def plain_domain(domain: str) -> str:
    """The domain with ONNX's own written one way, as nothing."""
    return "" if domain == "ai.onnx" else domain


class Converter:
    """Turns the message of a model without functions into plain nodes."""

    def __init__(self, reading: Reading, versions: Mapping[str, int], node_version: str = "") -> None:
        self.reading = reading
        self.versions = versions
        self.node_version = node_version
        """The property of a node that tells the version of its operator, where it is another than the model's."""
        self.tensors: dict[str, Tensor] = {}
        self.types: dict[str, Declared] = {}
        self.scopes: list[dict[str, str]] = []
        """The unique name of each value, graph by graph from the outermost."""
        self.taken: set[str] = set()
        self.alias: dict[str, str] = {}
        self.called: dict[tuple[str, int], str] = {}
        self.literals: set[str] = set()
        self.read: set[str] = set()
        """The unique names of values that nodes read."""
        self.bound: set[str] = set()
        """The unique names of the inputs and the results of all graphs."""

    def graph(self, graph: onnx.GraphProto, prefix: str = "") -> Graph:
        """One graph and the bodies inside of it; ``prefix`` is for names that an outer graph has taken."""
        names = self.declare(graph, prefix)
        self.scopes.append(names)
        for tensor in graph.initializer:
            self.tensors[names[tensor.name]] = self.reading.tensor(names[tensor.name], tensor)
        results = {info.name for info in graph.output}
        self.bound.update(names[info.name] for info in (*graph.input, *graph.output) if info.name in names)
        # What tells the ranges of a quantised value is no operand.
        marks = (entry.value for mark in graph.quantization_annotation for entry in mark.quant_parameter_tensor_names)
        self.read.update(names[name] for name in marks if name in names)
        nodes = tuple(self.nodes(graph.node, results, prefix))
        found = Graph(
            nodes=nodes,
            inputs=tuple(names[info.name] for info in graph.input if names[info.name] not in self.tensors),
            # A body may hand through a value of an outer graph, and that one may be an alias.
            outputs=tuple(names.get(info.name) or self.source(info.name) for info in graph.output),
        )
        self.scopes.pop()
        return found

    def nodes(self, nodes: Iterable[onnx.NodeProto], results: set[str], prefix: str) -> Iterator[Node]:
        """The nodes of one graph but for what is stored or only another name."""
        names = self.scopes[-1]
        for node in nodes:
            domain, op = plain_domain(node.domain), node.op_type
            outputs = tuple(names[name] if name else "" for name in node.output)
            if op == "Constant" and not domain and outputs and self.constant(node, outputs[0]):
                self.literals.add(outputs[0])
                continue
            called = [self.name(name) if name else "" for name in node.input]
            inputs = tuple(self.alias.get(name, name) for name in called)
            if op == "Identity" and not domain and inputs and inputs[0]:
                self.alias[outputs[0]] = inputs[0]
                if node.output[0] not in results:
                    continue
            for k, name in enumerate(called):
                if name != inputs[k] and inputs[k] in self.tensors:
                    self.called[next(filter(None, outputs), ""), k] = name
            op = f"{node.domain}.{op}" if domain else op
            attributes = self.attributes(node, prefix) if node.attribute else {}
            yield Node(op, _title(node), inputs, outputs, attributes, self.version(node, domain))

    def version(self, node: onnx.NodeProto, domain: str) -> int:
        """The version of the operator set that a node is of."""
        if self.node_version:
            for entry in node.metadata_props:
                if entry.key == self.node_version:
                    return int(entry.value)
        return self.versions.get(domain, 1)

    def declare(self, graph: onnx.GraphProto, prefix: str) -> dict[str, str]:
        """The name of every value of one graph; one that an outer or sibling scope has taken gets a prefix."""
        types = {info.name: info.type for info in graph.value_info}
        types.update((info.name, info.type) for info in graph.input)
        types.update((info.name, info.type) for info in graph.output)
        found: dict[str, str] = {}
        for value in _defined(graph):
            if not value or value in found:
                continue
            name = found[value] = unused(value, prefix, self.taken)
            self.taken.add(name)
            if value in types and (declared := _declared(types[value])):
                self.types[name] = declared
        return found

    def name(self, value: str) -> str:
        """The unique name of a value that the file calls so, here."""
        for scope in reversed(self.scopes):
            if value in scope:
                self.read.add(scope[value])
                return scope[value]
        raise KeyError(value)

    def source(self, value: str) -> str:
        """The unique name of a value, or of what it is an Identity of."""
        name = self.name(value)
        return self.alias.get(name, name)

    def constant(self, node: onnx.NodeProto, name: str) -> bool:
        """Store the value of a Constant node; False where it is no plain tensor."""
        for attribute in node.attribute:
            if attribute.name == "value" and attribute.type == _KINDS.TENSOR:
                self.tensors[name] = self.reading.tensor(name, attribute.t)
                return True
            if attribute.name in _NUMBERS:
                array = np.asarray(self.plain(attribute), _NUMBERS[attribute.name])
                self.tensors[name] = Tensor(name, array.shape, array.dtype.name, held(array))
                return True
            if attribute.name in ("value_string", "value_strings"):
                texts = np.array(
                    attribute.s if attribute.name == "value_string" else list(attribute.strings), np.bytes_
                )
                self.tensors[name] = Tensor(name, texts.shape, "string", held(texts))
                return True
        return False

    def attributes(self, node: onnx.NodeProto, prefix: str) -> dict[str, Any]:
        """The attributes of a node as Python values; sparse tensors and types are left out."""
        found: dict[str, Any] = {}
        for attribute in node.attribute:
            key, kind = attribute.name, attribute.type
            inner = f"{prefix}{_title(node) or node.op_type}/{key}/"
            if kind == _KINDS.GRAPH:
                found[key] = self.graph(attribute.g, inner)
            elif kind == _KINDS.GRAPHS:
                found[key] = tuple(self.graph(graph, inner) for graph in attribute.graphs)
            elif (value := self.plain(attribute)) is not None:
                found[key] = value
        return found

    def plain(self, attribute: onnx.AttributeProto) -> Any:
        """The value of an attribute that is no graph; None for what symlint has no use for."""
        kind = attribute.type
        if kind == _KINDS.INT:
            return attribute.i
        if kind == _KINDS.INTS:
            return tuple(attribute.ints)
        if kind == _KINDS.FLOAT:
            return attribute.f
        if kind == _KINDS.FLOATS:
            return tuple(attribute.floats)
        if kind == _KINDS.STRING:
            try:
                return attribute.s.decode()
            except UnicodeDecodeError:  # operators of others may store anything
                return attribute.s
        if kind == _KINDS.STRINGS:
            return tuple(text.decode() for text in attribute.strings)
        if kind == _KINDS.TENSOR:
            return self.reading.tensor(attribute.t.name, attribute.t).read()
        return None


def unused(name: str, prefix: str, taken: set[str]) -> str:
    """The name, or one with a prefix and a number where it is taken."""
    if name not in taken:
        return name
    found, count = f"{prefix}{name}", 2
    while found in taken:
        found, count = f"{prefix}{name}_{count}", count + 1
    return found


def _title(node: onnx.NodeProto) -> str:
    """The name of a node, which nothing refers to: one that is no UTF-8 text, bytes to protobuf, does no harm."""
    name: str | bytes = node.name
    return name if isinstance(name, str) else name.decode(errors="backslashreplace")


def _defined(graph: onnx.GraphProto) -> Iterator[str]:
    yield from (info.name for info in graph.input)
    yield from (tensor.name for tensor in graph.initializer)
    for node in graph.node:
        yield from node.output


def _declared(kind: onnx.TypeProto) -> Declared | None:
    """Element type and dimensions that a file declares for a value; None unless it has both."""
    if kind.HasField("optional_type"):
        return _declared(kind.optional_type.elem_type)
    if not kind.HasField("tensor_type"):
        return None
    tensor = kind.tensor_type
    if not tensor.elem_type or not tensor.HasField("shape"):
        return None
    if tensor.elem_type not in WORDS:
        raise ValueError(f"{tensor.elem_type} is not an element type")
    return WORDS[tensor.elem_type], tuple(_dim(dim) for dim in tensor.shape.dim)


def _dim(dim: onnx.TensorShapeProto.Dimension) -> Dim:
    """An integer, a symbol's name, or None; exporters also write -1 and 0 for "any size"."""
    if dim.HasField("dim_value"):
        return dim.dim_value if dim.dim_value > 0 else None
    if not isinstance(dim.dim_param, str):  # protobuf hands over bytes
        raise ValueError("the name of a dimension is no UTF-8 text")
    return dim.dim_param or None


def load(path: str | Path, *, budget: int | None = None) -> Model:
    """Read an ONNX file into a `Model`, with one concrete choice of every symbolic dimension.

    ``budget`` is how many bytes of weights may stay in memory once they were read: by default all of a model of up to
    512 MB. Raises UnreadableModel (SYM001 unreadable, SYM002 Git LFS pointer, SYM003 missing external data), and
    nothing else.
    """
    name = str(path)
    try:
        file = model_file(Path(path), name)
        proto, outline = parse(file)
        files = guard.check(proto, outline, name, Path(path).parent)
        size = file.size + sum(other.size for other in files.values())
        weights = Weights(default_budget(size) if budget is None else budget, files)
        node_version = ""
        if proto.functions:
            proto, node_version = _inlined(proto, outline.secret)
        return _build(proto, file, Reading(outline, file, files, weights), node_version)
    except UnreadableModel:
        raise
    except Exception as error:  # whatever an untrusted file provokes is told in one line
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        reason = " ".join(str(cause).split())[:300] or type(cause).__name__
        raise UnreadableModel(name, f"could not be parsed as ONNX: {reason}") from error


def files(path: str | Path) -> dict[str, StoredFile]:
    """The files of a model by the names that it has for them; its own, without a name, is the first.

    Raises UnreadableModel as `load` does, for what already its outline shows.
    """
    file = model_file(Path(path), str(path))
    proto, outline = parse(file)
    return {"": file, **guard.check(proto, outline, str(path), Path(path).parent)}


def _inlined(proto: onnx.ModelProto, key: str) -> tuple[onnx.ModelProto, str]:
    """The model with its functions written out; under ``key`` a node tells its version if it has one of its own."""
    import logging

    import onnx_ir as ir

    from symlint.model.saving import inline

    # Its warnings about a file would reach the terminal unescaped; what matters of them is checked by the guard.
    logging.getLogger("onnx_ir").addHandler(logging.NullHandler())
    model = ir.serde.deserialize_model(proto)
    for function in model.functions.values():
        for node in function.all_nodes():
            node.version = function.opset_imports.get(node.domain)
        for domain, version in function.opset_imports.items():
            model.opset_imports.setdefault(domain, version)
        # Each node now knows its version, so a function may differ from the model; the inliner would refuse that.
        function.opset_imports.clear()
    inline(model)
    for node in model.graph.all_nodes():
        if node.version:
            node.metadata_props[key] = str(node.version)
    return ir.serde.serialize_model(model), key


def _build(proto: onnx.ModelProto, file: StoredFile, reading: Reading, node_version: str) -> Model:
    versions = {plain_domain(item.domain): item.version for item in proto.opset_import}
    opset = versions.setdefault("", 1)
    notes = []
    if opset > onnx.defs.onnx_opset_version():
        newest = onnx.defs.onnx_opset_version()
        notes.append(f"opset {opset} is newer than the installed onnx knows; read with the operators of {newest}")
    walk = Converter(reading, versions, node_version)
    graph = walk.graph(proto.graph)
    skeleton = Skeleton(
        graph, walk.tensors, {name: walk.types[name] for name in graph.inputs if name in walk.types}, walk.types
    )
    concrete = make_concrete(skeleton)
    return Model(
        path=file.name,
        file=file,
        opset=opset,
        producer=f"{proto.producer_name} {proto.producer_version}".strip(),
        graph=graph,
        tensors=walk.tensors,
        shapes=concrete.shapes,
        dtypes=concrete.dtypes,
        constants=concrete.constants,
        symbols=concrete.symbols,
        moving=concrete.moving,
        notes=(*notes, *concrete.notes),
        called=walk.called,
        literals=frozenset(walk.literals),
        unread=frozenset(walk.tensors.keys() - walk.read - walk.bound),
        bound=frozenset(walk.bound & walk.tensors.keys()),
        weights=reading.weights,
    )
