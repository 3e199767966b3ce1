"""Recipes by which a model file is damaged: of its bytes, of its protobuf fields, of what its messages say.

A recipe gets a random generator and either the bytes or the message, and gives the bytes back; so a case is made again
from its file and its seed alone. Recipes over messages may also put files beside the model.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError, EncodeError
from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, helper, numpy_helper

Rng = np.random.Generator
HUGE = (2**31 - 1, 2**31, 2**32, 2**40, 2**62, 2**63 - 1, -1, -(2**63), 10**9, 0, 1)
NAMES = (
    "", " ", "a\nb", "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\u202eevil", "<script>alert(1)</script>", "|a|b|",
    "`x`", "::error::x", "[link](http://a)", "../../x", "a" * 70_000, "é" * 500, "\0", "%s%n{}", "\U0001f600",
    "C:\\x", "'\"",
)  # fmt: skip
LOCATIONS = (
    "", ".", "..", "/etc/hostname", "/dev/zero", "/dev/stdin", "/proc/self/mem", "../outside.bin", "link", "pipe",
    "a/../../outside.bin", "folder", "short.bin", "huge.bin", "model.onnx", "missing.bin", "sub/short.bin",
    "short.bin\0", "~/x", "file:///etc/hostname", "loop", "x" * 5000, "\\\\host\\x", "short.bin/",
)  # fmt: skip


# -- bytes ------------------------------------------------------------------------------------------------------------
def cut(rng: Rng, data: bytes) -> bytes:
    """It ends early."""
    return data[: int(rng.integers(len(data) + 1))] if rng.random() < 0.7 else data[: -int(rng.integers(1, 16))]


def flip(rng: Rng, data: bytes) -> bytes:
    """A few bits are others."""
    found = bytearray(data)
    for _ in range(int(rng.integers(1, 12))):
        found[_place(rng, len(found))] ^= 1 << int(rng.integers(8))
    return bytes(found)


def replace(rng: Rng, data: bytes) -> bytes:
    """A few bytes are others."""
    found = bytearray(data)
    for _ in range(int(rng.integers(1, 6))):
        found[_place(rng, len(found))] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF, int(rng.integers(256))]))
    return bytes(found)


def erase(rng: Rng, data: bytes) -> bytes:
    """A stretch is zero, or not there, or there twice."""
    start = _place(rng, len(data))
    size = min(len(data) - start, int(2 ** rng.uniform(0, 14)))
    middle = (bytes(size), b"", data[start : start + size] * 2)[int(rng.integers(3))]
    return data[:start] + middle + data[start + size :]


def append(rng: Rng, data: bytes) -> bytes:
    """Something stands behind, or before."""
    extra = (bytes(64), rng.bytes(64), data, b"\x0a" * 9)[int(rng.integers(4))]
    return data + extra if rng.random() < 0.8 else extra[:64] + data


def _place(rng: Rng, size: int) -> int:
    """Anywhere, but more often near the ends, where structure is."""
    if rng.random() < 0.5:
        return int(rng.integers(size))
    near = min(size - 1, int(2 ** rng.uniform(0, 12)))
    return near if rng.random() < 0.5 else size - 1 - near


# -- fields -----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Field:
    """A field of a message in the bytes of a file."""

    start: int
    content: int
    """Where its content begins; for a number that is behind its tag."""
    end: int
    number: int
    wire: int
    inside: tuple[int, ...]
    """Starts of the fields that it lies in, from the outside."""


def varint(value: int, least: int = 1) -> bytes:
    """Protobuf's number of variable length, in at least so many bytes."""
    value &= 2**64 - 1
    found = bytearray()
    while value > 0x7F or len(found) + 1 < least:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _number(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while at < end and shift < 70:
        value |= (data[at] & 0x7F) << shift
        at += 1
        if data[at - 1] < 0x80:
            return value, at
        shift += 7
    raise ValueError(at)


def fields(data: bytes, limit: int = 30_000) -> list[Field]:
    """The fields of a model file, outer before inner, as far as they can be walked."""
    found: list[Field] = []
    waiting: list[tuple[int, int, Any, tuple[int, ...]]] = [(0, len(data), ModelProto.DESCRIPTOR, ())]
    while waiting and len(found) < limit:
        at, end, kind, inside = waiting.pop()
        try:
            while at < end and len(found) < limit:
                start = at
                tag, at = _number(data, at, end)
                number, wire = tag >> 3, tag & 7
                content = at
                if wire == 0:
                    _, at = _number(data, at, end)
                elif wire == 2:
                    size, content = _number(data, at, end)
                    at = content + size
                else:
                    at += {1: 8, 5: 4}[wire]
                if at > end:
                    break
                field = Field(start, content, at, number, wire, inside)
                found.append(field)
                inner = kind.fields_by_number.get(number)
                if wire == 2 and inner is not None and inner.message_type is not None and len(inside) < 40:
                    waiting.append((content, at, inner.message_type, (*inside, start)))
        except (ValueError, KeyError):
            continue
    return found


def _spliced(data: bytes, there: list[Field], field: Field, new: bytes, honest: bool) -> bytes:
    """Put other bytes in the place of a field; honestly, what it lies in has the length that it then has."""
    if not honest:
        return data[: field.start] + new + data[field.end :]
    by_start = {other.start: other for other in there if other.wire == 2}
    start, end = field.start, field.end
    for outer in reversed(field.inside):
        around = by_start[outer]
        content = data[around.content : start] + new + data[end : around.end]
        tag, _ = _number(data, around.start, around.end)
        new = varint(tag) + varint(len(content)) + content
        start, end = around.start, around.end
    return data[:start] + new + data[end:]


def lie(rng: Rng, data: bytes) -> bytes:
    """A length or a number says something else."""
    there = fields(data)
    if not there:
        return flip(rng, data)
    field = there[int(rng.integers(len(there)))]
    tag, _ = _number(data, field.start, field.end)
    honest = bool(rng.random() < 0.6)
    least = int(rng.choice([1, 1, 1, 5, 9, 10, 11]))
    if field.wire == 2:
        content = data[field.content : field.end]
        size = len(content) + int(rng.choice([-2, -1, 1, 2, 100, 2**31, 2**33, 2**63, -len(content)]))
        new = varint(tag) + varint(size, least) + content
    elif field.wire == 0:
        new = varint(tag) + varint(int(rng.choice(HUGE)), least)
    else:
        new = varint(tag) + rng.bytes(field.end - field.content)
    return _spliced(data, there, field, new, honest)


def retag(rng: Rng, data: bytes) -> bytes:
    """A field has another number or another wire type."""
    there = fields(data)
    if not there:
        return flip(rng, data)
    field = there[int(rng.integers(len(there)))]
    number, wire = field.number, field.wire
    if rng.random() < 0.5:
        number = int(rng.choice([number + 1, max(0, number - 1), 0, 15, 2**28, int(rng.integers(1, 30))]))
    else:
        wire = int(rng.integers(8))
    behind = _number(data, field.start, field.end)[1]
    new = varint(number << 3 | wire) + data[behind : field.end]
    return _spliced(data, there, field, new, bool(rng.random() < 0.7))


def rearrange(rng: Rng, data: bytes) -> bytes:
    """A field is gone, or there twice, or stands in the place of another one."""
    there = fields(data)
    if not there:
        return erase(rng, data)
    field, other = (there[int(k)] for k in rng.integers(len(there), size=2))
    whole = data[field.start : field.end]
    new = (b"", whole + whole, data[other.start : other.end])[int(rng.integers(3))]
    return _spliced(data, there, field, new, bool(rng.random() < 0.8))


def exchange(rng: Rng, data: bytes) -> bytes:
    """Two neighbours of one message change places, honestly."""
    there = [f for f in fields(data) if f.wire == 2]
    pairs = [(a, b) for a, b in pairwise(there) if a.inside == b.inside and a.end == b.start]
    if not pairs:
        return rearrange(rng, data)
    a, b = pairs[int(rng.integers(len(pairs)))]
    both = Field(a.start, a.content, b.end, a.number, a.wire, a.inside)
    return _spliced(data, there, both, data[b.start : b.end] + data[a.start : a.end], honest=True)


def nest(rng: Rng, data: bytes) -> bytes:
    """Graphs in attributes in nodes in graphs, deeper than protobuf itself would write or read them."""

    def wrapped(number: int, content: bytes) -> bytes:
        return varint(number << 3 | 2) + varint(len(content)) + content

    inner = b""
    for _ in range(int(rng.choice([20, 32, 34, 60, 400, 3000]))):
        attribute = wrapped(1, b"then_branch") + varint(20 << 3) + varint(5) + wrapped(6, inner)
        inner = wrapped(1, wrapped(1, b"c") + wrapped(2, b"n") + wrapped(4, b"If") + wrapped(5, attribute))
    return data + wrapped(7, inner)  # a second graph, which protobuf merges into the first


# -- messages ---------------------------------------------------------------------------------------------------------
def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    waiting = [graph]
    while waiting:
        here = waiting.pop()
        yield here
        for node in here.node:
            for attribute in node.attribute:
                waiting += [attribute.g] if attribute.HasField("g") else []
                waiting += attribute.graphs


def _tensors(model: ModelProto) -> list[TensorProto]:
    found: list[TensorProto] = []
    for graph in _graphs(model.graph):
        found += graph.initializer
        found += [a.t for node in graph.node for a in node.attribute if a.HasField("t")]
    return found


def _pick(rng: Rng, items: Any) -> Any:
    return items[int(rng.integers(len(items)))]


def dims(rng: Rng, model: ModelProto, folder: Path) -> None:
    """A stored tensor has other dimensions."""
    if tensors := _tensors(model):
        tensor = _pick(rng, tensors)
        kind = int(rng.integers(6))
        if kind == 0 and tensor.dims:
            tensor.dims[int(rng.integers(len(tensor.dims)))] = int(rng.choice(HUGE))
        elif kind == 1:
            tensor.dims.append(int(rng.choice(HUGE)))
        elif kind == 2 and tensor.dims:
            del tensor.dims[int(rng.integers(len(tensor.dims)))]
        elif kind == 3:
            tensor.dims.extend([1] * int(rng.choice([5, 70, 1000])))
        elif kind == 4:
            tensor.dims[:] = [2**32, 2**32]
        else:
            tensor.dims[:] = rng.permutation(list(tensor.dims)).tolist()


def element_type(rng: Rng, model: ModelProto, folder: Path) -> None:
    """A stored tensor is of another type, or of none that there is."""
    if tensors := _tensors(model):
        _pick(rng, tensors).data_type = int(rng.choice([*range(27), 99, -1, 2**31 - 1]))


def numbers(rng: Rng, model: ModelProto, folder: Path) -> None:
    """A stored tensor has too few bytes, too many, both kinds of fields, or strange numbers."""
    if not (tensors := _tensors(model)):
        return
    tensor = _pick(rng, tensors)
    kind = int(rng.integers(6))
    if kind == 0:
        tensor.raw_data = tensor.raw_data[: int(rng.integers(len(tensor.raw_data) + 1))]
    elif kind == 1:
        tensor.raw_data = tensor.raw_data + rng.bytes(int(rng.integers(1, 9)))
    elif kind == 2:
        tensor.ClearField("raw_data")
    elif kind == 3:
        tensor.float_data.extend([1.0, float("nan")])
    elif kind == 4:
        tensor.string_data.append(b"\xff\xfe")
    elif tensor.data_type == TensorProto.FLOAT and len(tensor.raw_data) >= 4:
        values = np.frombuffer(tensor.raw_data, np.float32).copy()
        strange = np.array([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e-45, 0.0, -0.0], np.float32)
        values[rng.random(values.size) < rng.choice([0.01, 0.5, 1])] = _pick(rng, strange)
        tensor.raw_data = values.tobytes()
    elif tensor.data_type == TensorProto.INT64 and len(tensor.raw_data) >= 8:
        whole = np.frombuffer(tensor.raw_data, np.int64).copy()
        whole[int(rng.integers(whole.size))] = int(rng.choice(HUGE))
        tensor.raw_data = whole.tobytes()


def external(rng: Rng, model: ModelProto, folder: Path) -> None:
    """The numbers of a tensor lie in another file, which may be anything."""
    if not (tensors := _tensors(model)):
        return
    for name, size in (("short.bin", 10), ("huge.bin", 1 << 36)):
        with (folder / name).open("wb") as file:
            file.truncate(size)
    (folder / "folder").mkdir(exist_ok=True)
    for name, target in (("link", "/etc/hostname"), ("loop", "loop")):
        if not os.path.lexists(folder / name):
            (folder / name).symlink_to(target)
    if not (folder / "pipe").exists():
        os.mkfifo(folder / "pipe")
    for tensor in [_pick(rng, tensors) for _ in range(int(rng.choice([1, 1, 3])))]:
        if rng.random() < 0.3 and tensor.raw_data:
            size = len(tensor.raw_data)
            (folder / "good.bin").write_bytes(tensor.raw_data + bytes(int(rng.choice([0, 0, 7]))))
            location = "good.bin"
        else:
            size, location = int(rng.choice([4, *HUGE])), str(_pick(rng, LOCATIONS))
        tensor.data_location = TensorProto.EXTERNAL
        if rng.random() < 0.9:
            tensor.ClearField("raw_data")
        del tensor.external_data[:]
        texts = (str(size), "-1", "abc", "", "1e3", "0x10", "\u0664", " 4", str(2**70), "0")
        wanted = [("location", location)]
        if rng.random() < 0.7:
            wanted.append(("length", str(size) if rng.random() < 0.6 else str(_pick(rng, texts))))
        if rng.random() < 0.6:
            wanted.append(("offset", "0" if rng.random() < 0.4 else str(_pick(rng, texts))))
        if rng.random() < 0.2:
            wanted += wanted
        for key, value in wanted:
            tensor.external_data.add(key=key, value=value)


def names(rng: Rng, model: ModelProto, folder: Path) -> None:
    """A name is huge, empty, taken, or full of what terminals and pages obey."""
    new = str(_pick(rng, NAMES))
    if rng.random() < 0.1:
        new = "n" * int(rng.choice([1_000_000, 20_000_000]))
    graph = model.graph
    used = [*(n for node in graph.node for n in (*node.input, *node.output)), *(w.name for w in graph.initializer)]
    old = str(_pick(rng, used)) if used else ""
    everywhere = rng.random() < 0.7
    for node in graph.node:
        for values in (node.input, node.output):
            values[:] = [new if v == old and (everywhere or rng.random() < 0.5) else v for v in values]
    for item in (*graph.initializer, *graph.input, *graph.output):
        if item.name == old and everywhere:
            item.name = new
    if graph.node and rng.random() < 0.5:
        node = _pick(rng, graph.node)
        part = int(rng.integers(3))
        if part == 0:
            node.name = new
        elif part == 1:
            node.op_type = new
        else:
            node.domain = new
    if rng.random() < 0.2:
        model.producer_name = new
        graph.name = new


def wiring(rng: Rng, model: ModelProto, folder: Path) -> None:
    """Operands change places, are left out, doubled, or come from elsewhere: cycles, too."""
    graph = _pick(rng, list(_graphs(model.graph)))
    if not graph.node:
        return
    node, other = _pick(rng, graph.node), _pick(rng, graph.node)
    kind = int(rng.integers(9))
    if kind == 0:
        node.input[:] = rng.permutation(list(node.input)).tolist()
    elif kind == 1 and node.input:
        del node.input[int(rng.integers(len(node.input)))]
    elif kind == 2 and node.input and other.output:
        node.input[int(rng.integers(len(node.input)))] = _pick(rng, other.output)
    elif kind == 3 and node.input:
        node.input[int(rng.integers(len(node.input)))] = str(rng.choice(["", "nowhere"]))
    elif kind == 4:
        node.input.extend(list(node.input) * int(rng.choice([1, 300])))
    elif kind == 5 and node.output and other.output:
        node.output[0] = other.output[0]
    elif kind == 6:
        graph.node.add().CopyFrom(node)
    elif kind == 7:
        graph.node.remove(node)
    else:
        node.op_type = other.op_type


def attributes(rng: Rng, model: ModelProto, folder: Path) -> None:
    """An attribute is another one, of another type, or not there."""
    nodes = [n for g in _graphs(model.graph) for n in g.node if n.attribute]
    if not nodes:
        return
    node = _pick(rng, nodes)
    attribute = _pick(rng, node.attribute)
    kind = int(rng.integers(7))
    if kind == 0:
        node.attribute.remove(attribute)
    elif kind == 1:
        attribute.type = int(rng.integers(15))
    elif kind == 2:
        node.attribute.add().CopyFrom(attribute)
    elif kind == 3 and attribute.ints:
        attribute.ints[int(rng.integers(len(attribute.ints)))] = int(rng.choice(HUGE))
    elif kind == 4 and attribute.ints:
        attribute.ints[:] = list(attribute.ints)[: int(rng.integers(len(attribute.ints)))] * int(rng.choice([1, 40]))
    elif attribute.type == AttributeProto.INT:
        attribute.i = int(rng.choice([*HUGE, -2, 2, 7]))
    elif attribute.type == AttributeProto.FLOAT:
        attribute.f = float(rng.choice([np.nan, np.inf, 0.0, -1.0, 3e38]))
    elif attribute.type == AttributeProto.STRING:
        attribute.s = _pick(
            rng, [b"", b"\xff", b"x" * 100_000, b"bilinear", b"SAME_UPPER", b"ij,jk->ik", b"...", b"->"]
        )
    else:
        attribute.ClearField("type")


def shapes(rng: Rng, model: ModelProto, folder: Path) -> None:
    """An input or a noted value has another shape, or none."""
    infos = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    if not infos:
        return
    info = _pick(rng, infos)
    tensor = info.type.tensor_type
    kind = int(rng.integers(7))
    if kind == 0 and tensor.shape.dim:
        _pick(rng, tensor.shape.dim).dim_value = int(rng.choice(HUGE))
    elif kind == 1 and tensor.shape.dim:
        _pick(rng, tensor.shape.dim).dim_param = str(_pick(rng, NAMES))
    elif kind == 2:
        tensor.shape.dim.add().dim_value = int(rng.choice(HUGE))
    elif kind == 3:
        tensor.ClearField("shape")
    elif kind == 4:
        tensor.elem_type = int(rng.choice([*range(24), 99]))
    elif kind == 5:
        info.type.ClearField("tensor_type")
    else:
        info.type.sequence_type.elem_type.tensor_type.elem_type = 1


def versions(rng: Rng, model: ModelProto, folder: Path) -> None:
    """Another operator set, or none, or another format."""
    kind = int(rng.integers(5))
    if kind == 0 and model.opset_import:
        _pick(rng, model.opset_import).version = int(rng.choice([*HUGE, 5, 9, 13, 21, 23, 99]))
    elif kind == 1:
        del model.opset_import[:]
    elif kind == 2:
        model.ir_version = int(rng.choice([0, 1, 3, 99, -1, 2**62]))
    elif kind == 3:
        model.opset_import.add(domain=str(_pick(rng, NAMES)), version=1)
    elif model.opset_import:
        _pick(rng, model.opset_import).domain = "com.microsoft"


def bombs(rng: Rng, model: ModelProto, folder: Path) -> None:
    """A few nodes whose constant result would fill any memory, or take for ever."""
    graph, kind = model.graph, int(rng.integers(9))
    size = int(rng.choice([2**20, 2**31, 2**36, 2**62]))

    def given(name: str, values: Any, kind: type = np.int64) -> str:
        graph.initializer.append(numpy_helper.from_array(np.asarray(values, kind), name))
        return name

    out = "bomb"
    if kind == 0:
        made = [helper.make_node("ConstantOfShape", [given("bomb_s", [size])], [out])]
    elif kind == 1:
        made = [helper.make_node("Range", [given("bomb_a", 0), given("bomb_b", size), given("bomb_c", 1)], [out])]
    elif kind == 2:
        made = [helper.make_node("Tile", [given("bomb_a", [1, 2]), given("bomb_r", [size])], [out])]
    elif kind == 3:
        made = [helper.make_node("Expand", [given("bomb_a", [1]), given("bomb_s", [size, size])], [out])]
    elif kind == 4:
        made = [
            helper.make_node("Concat", [given("bomb_0", [1, 2, 3, 4])] * 4, ["bomb_1"], axis=0),
            *(helper.make_node("Concat", [f"bomb_{k}"] * 8, [f"bomb_{k + 1}"], axis=0) for k in range(1, 12)),
            helper.make_node("Identity", ["bomb_12"], [out]),
        ]
    elif kind == 5:
        given("bomb_i", size)
        body = helper.make_graph(
            [helper.make_node("Identity", ["c"], ["d"]), helper.make_node("Add", ["v", "v"], ["w"])],
            "body",
            [
                helper.make_tensor_value_info("i", TensorProto.INT64, []),
                helper.make_tensor_value_info("c", TensorProto.BOOL, []),
                helper.make_tensor_value_info("v", TensorProto.INT64, []),
            ],
            [
                helper.make_tensor_value_info("d", TensorProto.BOOL, []),
                helper.make_tensor_value_info("w", TensorProto.INT64, []),
            ],
        )
        made = [
            helper.make_node("Loop", ["bomb_i", given("bomb_c", True, np.bool_), given("bomb_v", 1)], [out], body=body)
        ]
    elif kind == 6:
        made = [helper.make_node("Pad", [given("bomb_a", [1]), given("bomb_p", [size, size])], [out])]
    elif kind == 7:
        made = [
            helper.make_node("OneHot", [given("bomb_a", [1]), given("bomb_d", size), given("bomb_v", [0, 1])], [out])
        ]
    else:
        made = [
            helper.make_node("EyeLike", [given("bomb_a", np.zeros((3, 3)))], ["bomb_e"], dtype=7, k=size),
            helper.make_node(
                "Resize", [given("bomb_x", [[[1.0]]], np.float32), "", given("bomb_f", [1, 1, 1e9], np.float32)], [out]
            ),
        ]
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*made, *rest])
    if rng.random() < 0.5:
        graph.output.add(name=out)
    elif rest:
        reader = _pick(rng, graph.node[len(made) :])
        if reader.input:
            reader.input[int(rng.integers(len(reader.input)))] = out


def depth(rng: Rng, model: ModelProto, folder: Path) -> None:
    """Graphs in graphs, sequences of sequences, functions that call themselves, and long chains."""
    kind = int(rng.integers(6))
    count = int(rng.choice([10, 60, 99, 120, 500, 3000]))
    if kind == 0:
        inner = GraphProto(name="inner")
        inner.node.add(op_type="Identity", input=["x"], output=["deep"])
        inner.output.add(name="deep")
        for _ in range(min(count, 500)):
            outer = GraphProto(name="outer")
            node = outer.node.add(op_type="If", input=["condition"], output=["deep"])
            node.attribute.add(name="then_branch", type=AttributeProto.GRAPH, g=inner)
            node.attribute.add(name="else_branch", type=AttributeProto.GRAPH, g=GraphProto(name="e"))
            outer.output.add(name="deep")
            inner = outer
        model.graph.node.extend(inner.node)
    elif kind == 1:
        info = model.graph.input.add(name="deep").type
        for _ in range(min(count, 90)):
            info = info.sequence_type.elem_type
        info.tensor_type.elem_type = 1
    elif kind == 2:
        for k in range(int(rng.choice([1, 3, 25]))):
            function = model.functions.add(name=f"f{k}", domain="own", input=["a"], output=["b"])
            function.opset_import.add(domain="own", version=1)
            function.opset_import.add(domain="", version=17)
            function.node.add(op_type=f"f{k + 1}", domain="own", input=["a"], output=["c"])
            function.node.add(op_type=f"f{k + 1}", domain="own", input=["c"], output=["b"])
        last = model.functions.add(name=f"f{k + 1}", domain="own", input=["a"], output=["b"])
        again = "f0" if rng.random() < 0.5 else "Identity"
        last.node.add(op_type=again, domain="own" if again == "f0" else "", input=["a"], output=["b"])
        model.opset_import.add(domain="own", version=1)
        if model.graph.input:
            model.graph.node.add(op_type="f0", domain="own", input=[model.graph.input[0].name], output=["called"])
            model.graph.output.add(name="called")
    elif model.graph.output:
        # A long chain behind the output.
        op = str(rng.choice(["Identity", "Relu", "Neg", "Transpose", "Add", "Softmax"]))
        last, out = model.graph.output[0].name, model.graph.output[0]
        for k in range(count):
            operands = [last, last] if op == "Add" else [last]
            model.graph.node.add(op_type=op, input=operands, output=[f"chain{k}"])
            last = f"chain{k}"
        out.name = last


def sparse(rng: Rng, model: ModelProto, folder: Path) -> None:
    """A weight is sparse, with indices that may lead out of it."""
    graph = model.graph
    if not graph.initializer:
        return
    tensor = _pick(rng, graph.initializer)
    found = graph.sparse_initializer.add(dims=list(tensor.dims))
    count = int(rng.integers(0, 5))
    size = int(np.prod(list(tensor.dims) or [1], dtype=object)) % 2**62 or 1
    indices = rng.integers(0, size, count).astype(np.int64)
    if count and rng.random() < 0.5:
        indices[0] = int(rng.choice(HUGE))
    found.values.CopyFrom(numpy_helper.from_array(rng.standard_normal(count).astype(np.float32), tensor.name))
    found.indices.CopyFrom(numpy_helper.from_array(indices, "indices"))
    if rng.random() < 0.7:
        graph.initializer.remove(tensor)


def doubled(rng: Rng, model: ModelProto, folder: Path) -> None:
    """Something is there twice, or an input as well as stored."""
    graph = model.graph
    parts = [p for p in (graph.initializer, graph.input, graph.output, model.opset_import, model.functions) if p]
    if parts:
        part = _pick(rng, parts)
        part.add().CopyFrom(_pick(rng, part))
    if graph.initializer and rng.random() < 0.3:
        graph.input.add(name=_pick(rng, graph.initializer).name)


Bytes = Callable[[Rng, bytes], bytes]
Message = Callable[[Rng, ModelProto, Path], None]
OF_BYTES: tuple[Bytes, ...] = (
    cut,
    flip,
    replace,
    erase,
    append,
    lie,
    lie,
    lie,
    retag,
    retag,
    rearrange,
    rearrange,
    exchange,
)
OF_MESSAGES: tuple[Message, ...] = (
    dims, element_type, numbers, numbers, external, external, names, names, wiring, wiring, attributes, attributes,
    shapes, versions, bombs, depth, sparse, doubled,
)  # fmt: skip


def mutate(rng: Rng, data: bytes, folder: Path) -> tuple[bytes, list[str]]:
    """Apply one to three recipes; the names of those that were."""
    done = []
    if rng.random() < 0.6:
        model = onnx.load_model_from_string(data)
        for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
            recipe = _pick(rng, OF_MESSAGES)
            try:
                recipe(rng, model, folder)
            except (DecodeError, OverflowError, ValueError, TypeError):
                continue  # protobuf itself does not write that
            done.append(recipe.__name__)
        try:
            data = model.SerializeToString()
        except EncodeError:  # too deep, or too large
            done.clear()
    if not done or rng.random() < 0.15:
        for _ in range(int(rng.choice([1, 1, 2, 3]))):
            if not data:
                break
            of_bytes = _pick(rng, OF_BYTES)
            data = of_bytes(rng, data)
            done.append(of_bytes.__name__)
    return data, done
