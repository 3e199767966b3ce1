"""What is refused of an untrusted model file: on disk before it is read, and on the message before anything is built.

Readers accept cycles, undefined inputs, doubled names and tensors without their bytes in silence; every one of these
would turn into a wrong answer or a traceback later. Sizes are checked by arithmetic, before memory is taken.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import onnx

from symlint.model.errors import MissingModel, UnreadableModel
from symlint.model.graph import RANK_LIMIT
from symlint.model.stored import BITS, WORDS, StoredFile
from symlint.model.wire import Outline, outline

PROTOBUF_LIMIT = 2**31
_LFS = b"version https://git-lfs"
_SIGNATURES = (
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"\x89PNG", "a PNG image"),
    (b"GIF8", "a GIF image"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a zip archive (a PyTorch checkpoint is one): export the model to ONNX first"),
    (b"\x80\x02", "a Python pickle (an older PyTorch checkpoint?): export the model to ONNX first"),
    (b"\x80\x03", "a Python pickle: export the model to ONNX first"),
    (b"\x80\x04", "a Python pickle: export the model to ONNX first"),
    (b"\x80\x05", "a Python pickle: export the model to ONNX first"),
    (b"\x1f\x8b", "a gzip file: decompress it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd file: decompress it first"),
    (b"\x89HDF", "an HDF5 file (Keras?): export the model to ONNX first"),
    (b"GGUF", "a GGUF model: symlint reads ONNX"),
    (b"\x7fELF", "an executable"),
)


def model_file(path: Path, name: str) -> StoredFile:
    """A model file as it is now. Raises UnreadableModel, SYM002 for a Git LFS pointer."""
    try:
        if not path.exists():
            raise MissingModel(name)
        if path.is_dir():
            raise MissingModel(name, "is a directory; name a model file in it")
        if not path.is_file():
            raise UnreadableModel(name, "is not a regular file; expected an ONNX file")
        file = StoredFile(path, name)
        if file.size >= PROTOBUF_LIMIT:
            raise UnreadableModel(
                name, f"has {file.size} bytes, protobuf allows 2 GiB; store the weights as external data"
            )
    except OSError as error:
        raise UnreadableModel(name, f"cannot be read: {error.strerror or error}") from error
    if not file.size:
        raise UnreadableModel(name, "is empty; expected an ONNX model")
    if _head(file).startswith(_LFS):
        reason = "is a Git LFS pointer, not the model itself; run `git lfs pull`"
        raise UnreadableModel(name, reason, "SYM002")
    return file


def parse(file: StoredFile) -> tuple[onnx.ModelProto, Outline]:
    """The model in a file, without its large tensors, and where these are.

    Raises UnreadableModel with what the file looks like if it is no model.
    """
    proto = onnx.ModelProto()
    try:
        walked = outline(file)
        proto.ParseFromString(walked.data)
        # Protobuf skips fields that it does not know, so that some other files parse as a model of nothing.
        if proto.HasField("graph") or proto.ir_version:
            return proto, walked
    except UnreadableModel:  # it has changed meanwhile
        raise
    except Exception:  # protobuf's own error is told in symlint's words
        del proto
    found = _looks_like(_head(file))
    raise UnreadableModel(file.name, f"could not be parsed as ONNX: {file.size} bytes of what looks like {found}")


def _head(file: StoredFile) -> bytes:
    return file.read(0, min(512, file.size)).tobytes()


def data_file(folder: Path, location: str, path: str) -> Path:
    """The external data file ``location``, resolved, if it exists inside the model's folder.

    Raises UnreadableModel: SYM001 when it lies outside of ``folder``, SYM003 when it is missing.
    """
    wanted = Path(location)
    outside = f"external data {location!r} lies outside of the model's folder; put the file beside the model"
    if not location or "\0" in location:
        raise UnreadableModel(path, "a tensor is stored in an external file without a usable name; export it again")
    if wanted.is_absolute() or wanted.drive or ".." in wanted.parts or "\\" in location:
        raise UnreadableModel(path, outside)
    root = folder.resolve()
    found = (root / wanted).resolve()
    if root not in found.parents:
        raise UnreadableModel(path, outside)
    if not found.is_file():
        raise UnreadableModel(path, f"external data file {location!r} is missing; put it beside the model", "SYM003")
    return found


def _looks_like(head: bytes) -> str:
    """What the first bytes of a file that is no ONNX model say it is; a phrase for an error message."""
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return name
    if head[4:8] == b"TFL3":
        return "a TensorFlow Lite model: convert it to ONNX first"
    if head[8:10] == b'{"':
        return "a safetensors file: it holds weights without a network, export the model to ONNX"
    if head[:1] == b"\x08":  # field 1 of ModelProto, ir_version
        return "an ONNX file that ends early or is damaged: fetch it again"
    if head and all(byte >= 32 or byte in (9, 10, 13) for byte in head):
        return "text"
    return "no file type that symlint knows"


NODE_LIMIT = 1_000_000
"""Nodes after inlining; nested functions could otherwise unfold exponentially."""

_FIELDS = {
    1: "float_data", 14: "float_data", 7: "int64_data", 8: "string_data", 11: "double_data", 15: "double_data",
    12: "uint64_data", 13: "uint64_data",
}  # fmt: skip
"""Code of an element type -> the field that holds its numbers; those of all others are in ``int32_data``."""


def check(model: onnx.ModelProto, outline: Outline, path: str, folder: Path) -> dict[str, StoredFile]:
    """Refuse a model whose structure has no meaning, and put its nodes into topological order.

    Returns the files of external data, by the names that tensors have for them. Raises UnreadableModel with the first
    flaw found. Weight bytes are counted, never decoded.
    """
    guard = _Guard(outline, path, folder)
    guard.model(model)
    return guard.files


class _Guard:
    def __init__(self, outline: Outline, path: str, folder: Path) -> None:
        self.outline = outline
        self.path = path
        self.folder = folder
        self.files: dict[str, StoredFile] = {}

    def fail(self, reason: str) -> UnreadableModel:
        return UnreadableModel(self.path, reason)

    def model(self, model: onnx.ModelProto) -> None:
        if not model.HasField("graph"):
            raise self.fail("holds no graph; expected an ONNX model")
        if not model.opset_import and model.ir_version >= 3:
            raise self.fail("names no operator set (opset_import); is the file cut off? fetch or export it again")
        for function in model.functions:
            free = self.graph(function.node, function.input, (), function.output, f"function {function.name!r}")
            self.defined(free)
        graph = model.graph
        if not graph.output:
            raise self.fail("its graph has no output; expected at least one")
        self.defined(self.body(graph, "the graph"))
        self.expansion(model)

    def defined(self, free: Mapping[str, str]) -> None:
        for name, user in free.items():
            raise self.fail(f"{user} reads {name!r}, which nothing defines; export the model again")

    def text(self, names: Iterable[object], where: str) -> None:
        # Protobuf hands over bytes where a name is no UTF-8.
        if not all(isinstance(name, str) for name in names):
            raise self.fail(f"{where} has names that are no UTF-8 text; is the file damaged? fetch it again")

    def body(self, graph: onnx.GraphProto, where: str) -> dict[str, str]:
        if graph.sparse_initializer:
            raise self.fail("stores sparse tensors, which symlint does not read; store them densely")
        for tensor in graph.initializer:
            if not tensor.name:
                raise self.fail("an initializer has no name; export the model again")
            self.tensor(tensor)
        inputs, stored = [item.name for item in graph.input], [item.name for item in graph.initializer]
        return self.graph(graph.node, inputs, stored, [item.name for item in graph.output], where)

    def graph(
        self, nodes: Any, inputs: Sequence[str], stored: Sequence[str], outputs: Iterable[str], where: str
    ) -> dict[str, str]:
        """Check one scope, sort its nodes in place, and return what it reads from outside: name -> reader."""
        known: dict[str, str] = {}
        outputs = list(outputs)
        self.text(outputs, where)
        for kind, names in (("input", inputs), ("initializer", stored)):
            self.text(names, where)
            for name in names:
                if known.get(name) == kind:
                    raise self.fail(f"{where} has two {kind}s named {name!r}; expected unique names")
                known[name] = kind
        producer: dict[str, int] = {}
        for index, node in enumerate(nodes):
            self.text((node.op_type, node.domain, *node.input, *node.output), where)
            for name in node.output:
                if name and (name in producer or name in known):
                    raise self.fail(f"{where} defines the value {name!r} twice; expected unique names")
                if name:
                    producer[name] = index
        free: dict[str, str] = {}
        needs: list[set[int]] = []
        for node in nodes:
            reads = {name: f"node {node.name or node.op_type!r}" for name in node.input if name}
            for attribute in node.attribute:
                for inner in self.attribute(attribute):
                    reads.update(inner)
            needs.append({producer[name] for name in reads if name in producer})
            free.update({name: user for name, user in reads.items() if name not in producer and name not in known})
        self.sort(nodes, needs, where)
        for name in outputs:
            if name not in producer and name not in known:
                # A body may hand an outer value straight through; at the top this is an undefined value.
                free.setdefault(name, f"an output of {where}")
        return free

    def attribute(self, attribute: onnx.AttributeProto) -> Iterator[dict[str, str]]:
        self.text((attribute.name,), "an attribute")
        if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
            raise self.fail("stores sparse tensors, which symlint does not read; store them densely")
        if attribute.HasField("t"):
            self.tensor(attribute.t)
        for tensor in attribute.tensors:
            self.tensor(tensor)
        if attribute.HasField("g"):
            yield self.body(attribute.g, f"the body {attribute.name!r}")
        for graph in attribute.graphs:
            yield self.body(graph, f"the body {attribute.name!r}")

    def sort(self, nodes: Any, needs: list[set[int]], where: str) -> None:
        if all(not before or max(before) < index for index, before in enumerate(needs)):
            return
        readers: list[list[int]] = [[] for _ in needs]
        for index, before in enumerate(needs):
            for other in before:
                readers[other].append(index)
        waiting = [len(before) for before in needs]
        ready = [index for index, count in enumerate(waiting) if not count]
        order: list[int] = []
        while ready:  # a heap keeps the file's order wherever it may stay
            index = heapq.heappop(ready)
            order.append(index)
            for other in readers[index]:
                waiting[other] -= 1
                if not waiting[other]:
                    heapq.heappush(ready, other)
        if len(order) < len(needs):
            stuck = next(index for index, count in enumerate(waiting) if count)
            name = nodes[stuck].name or nodes[stuck].op_type
            raise self.fail(f"{where} has a cycle through or before node {name!r}; expected an acyclic graph")
        rank = {tuple(nodes[index].output): place for place, index in enumerate(order)}
        nodes.sort(key=lambda node: rank[tuple(node.output)])

    def tensor(self, tensor: onnx.TensorProto) -> None:
        """Refuse a tensor whose stored bytes are not those of its shape and element type."""
        name, dims = tensor.name or "(constant)", list(tensor.dims)
        if len(dims) > RANK_LIMIT:
            raise self.fail(f"tensor {name!r} has {len(dims)} dimensions; expected at most {RANK_LIMIT}")
        if any(dim < 0 for dim in dims):
            raise self.fail(f"tensor {name!r} has the shape {dims}; expected no negative dimension")
        bits = BITS.get(tensor.data_type)
        if bits is None:
            raise self.fail(f"tensor {name!r} has the unknown element type {tensor.data_type}")
        count = math.prod(dims)
        want = (count * bits + 7) // 8
        inside = self.outline.inside(tensor)
        if tensor.data_location == onnx.TensorProto.EXTERNAL and not inside:
            self.external(tensor, name, want)
        elif tensor.HasField("raw_data") or (inside and not inside.numbers):
            have = inside.length if inside else len(tensor.raw_data)
            if have != want or not bits:
                raise self.fail(f"tensor {name!r} of shape {dims} holds {have} bytes; expected {want}")
        else:
            unpacked = want if bits < 8 else count * (2 if WORDS[tensor.data_type].startswith("complex") else 1)
            held = inside.numbers if inside else len(getattr(tensor, _FIELDS.get(tensor.data_type, "int32_data")))
            if held != (unpacked if bits else count):
                raise self.fail(f"tensor {name!r} of shape {dims} holds {held} numbers; expected {unpacked}")

    def external(self, tensor: onnx.TensorProto, name: str, want: int) -> None:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        try:
            offset, length = int(entries.get("offset", "0")), int(entries.get("length", want))
        except ValueError:
            raise self.fail(f"tensor {name!r} has an external offset or length that is no number") from None
        if location not in self.files:
            found = data_file(self.folder, location, self.path)
            self.files[location] = StoredFile(found, self.path, f"external data file {location!r} ")
        size = self.files[location].size
        if offset < 0 or length != want:
            raise self.fail(f"tensor {name!r} has {length} external bytes at {offset}; expected {want} at 0 or later")
        if offset + want > size:
            end = offset + want
            raise self.fail(
                f"external data file {location!r} has {size} bytes, tensor {name!r} ends at {end}; cut off?"
            )

    def expansion(self, model: onnx.ModelProto) -> None:
        """Refuse recursive functions, and functions that unfold into more nodes than any network has."""
        functions = {(f.domain, f.name, f.overload): f for f in model.functions}
        if not functions:
            return
        calls = {key: list(_nodes(function.node)) for key, function in functions.items()}
        order = TopologicalSorter({key: {c for c in inner if c in functions} for key, inner in calls.items()})
        size: dict[tuple[str, str, str], int] = {}
        try:
            for key in order.static_order():
                size[key] = min(NODE_LIMIT + 1, sum(size.get(call, 1) for call in calls[key]))
        except CycleError:
            raise self.fail("its functions call each other in a circle; expected a finite graph") from None
        if sum(size.get(call, 1) for call in _nodes(model.graph.node)) > NODE_LIMIT:
            raise self.fail(f"its functions unfold into more than {NODE_LIMIT} nodes")


def _nodes(nodes: Any) -> Iterator[tuple[str, str, str]]:
    for node in nodes:
        yield node.domain, node.op_type, node.overload
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _nodes(graph.node)
