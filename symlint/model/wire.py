"""A model file without its large tensors: what protobuf is given to parse, so that no weight is parsed or copied.

Protobuf's wire format is walked by places. A tensor whose numbers lie in the file as they do in memory is written as
external data of the file itself, by a name that no other file can have; everything else stays byte for byte.
"""

from __future__ import annotations

import secrets

import onnx

from symlint.model.records import dataclass
from symlint.model.stored import STRING, Reader, StoredFile

LARGE = 1024
"""Bytes from which on the numbers of a tensor stay in the file."""
DEPTH_LIMIT = 100
"""Messages inside of each other; protobuf parses no deeper ones."""
FIELD_LIMIT = 4_000_000
"""Fields that are looked at; a file that has more is left to protobuf as it is."""
_WINDOW = 1 << 16
_TENSOR_FIELDS = 64

INSIDE: dict[str, dict[int, tuple[str, bool]]] = {
    "model": {7: ("graph", True), 25: ("function", False)},
    "graph": {1: ("node", False), 5: ("tensor", False)},
    "function": {7: ("node", False)},
    "node": {5: ("attribute", False)},
    "attribute": {5: ("tensor", True), 6: ("graph", True), 10: ("tensor", False), 11: ("graph", False)},
}
"""What holds tensors: message -> its field -> message in that field, and whether it may stand there only once."""
_DATA = frozenset({4, 5, 6, 7, 9, 10, 11})
_AS_IN_MEMORY = {4: ({1, 14}, 4), 10: ({11, 15}, 8)}
"""Fields of numbers other than raw bytes -> the types that they hold as in memory, and bytes of each number."""
_TYPE, _EXTERNAL, _LOCATION = 2, 13, 14


class Damaged(ValueError):
    """The bytes are no protobuf message: a length leads out of what holds it, or a number never ends."""


class _Unusual(Exception):
    """Nothing is wrong with the file as far as is known, but it is not for this walk."""


@dataclass(frozen=True, slots=True)
class Inside:
    """Where the model file itself holds a tensor's numbers."""

    offset: int
    length: int
    numbers: int
    """How many numbers its field has; 0 for raw bytes."""


@dataclass(frozen=True, slots=True)
class Outline:
    """The bytes of a model without its large tensors, each of which says where it is under a secret name."""

    data: bytes
    secret: str

    def inside(self, tensor: onnx.TensorProto) -> Inside | None:
        """Where the numbers of a tensor were left; None where they are in the message, or in another file."""
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            return None
        entries = {entry.key: entry.value for entry in tensor.external_data}
        found, _, size = entries.get("location", "").rpartition(":")
        if found != self.secret:
            return None
        offset, length = int(entries["offset"]), int(entries["length"])
        return Inside(offset, length, length // int(size) if int(size) else 0)


def outline(file: StoredFile) -> Outline:
    """Walk a model file. Raises Damaged where protobuf would refuse it, UnreadableModel if it changes meanwhile."""
    with file.opened() as reader:
        walk = _Walk(reader, file.size)
        try:
            walk.run()
        except _Unusual:
            return Outline(reader.read(0, file.size).tobytes(), walk.secret)
        return Outline(b"".join(walk.out), walk.secret)


@dataclass(slots=True)
class _Message:
    kind: str
    tag: bytes
    end: int
    slot: int
    """Where its tag and length go in the output, once its length is known."""
    size: int
    """Bytes of output inside of it so far."""
    seen: int = 0
    """A bit for each field that may stand only once."""


class _Walk:
    def __init__(self, reader: Reader, size: int) -> None:
        self.reader = reader
        self.size = size
        self.secret = f"\0{secrets.token_hex(8)}"
        self.out: list[bytes] = []
        self.fields = 0
        self.window = b""
        self.base = 0

    def run(self) -> None:
        """Fill ``out``."""
        stack = [_Message("model", b"", self.size, 0, 0)]
        self.out.append(b"")
        at = plain = 0
        while True:
            message = stack[-1]
            if at == message.end:
                self.copy(plain, at, message)
                plain = at
                stack.pop()
                if not stack:
                    return
                header = message.tag + _put(message.size)
                self.out[message.slot] = header
                stack[-1].size += len(header) + message.size
                continue
            number, wire, content, stop = self.field(at, message.end)
            inner = INSIDE[message.kind].get(number) if wire == 2 else None
            if inner is None:
                at = stop
                continue
            kind, once = inner
            if once:
                if message.seen >> number & 1:  # protobuf merges the two
                    raise _Unusual
                message.seen |= 1 << number
            if stop - content < LARGE:
                at = stop
            elif kind == "tensor":
                if (made := self.tensor(content, stop)) is not None:
                    self.copy(plain, at, message)
                    self.put(framed(number, made), message)
                    plain = stop
                at = stop
            else:
                if len(stack) >= DEPTH_LIMIT:
                    raise _Unusual
                self.copy(plain, at, message)
                stack.append(_Message(kind, _put(number << 3 | 2), stop, len(self.out), 0))
                self.out.append(b"")
                at = plain = content

    def put(self, data: bytes, message: _Message) -> None:
        self.out.append(data)
        message.size += len(data)

    def copy(self, start: int, stop: int, message: _Message) -> None:
        """Take over a part of the file as it is."""
        if start < stop:
            self.put(self.part(start, stop), message)

    def part(self, start: int, stop: int) -> bytes:
        """A part of the file."""
        if self.base <= start and stop <= self.base + len(self.window):
            return self.window[start - self.base : stop - self.base]
        return self.reader.read(start, stop - start).tobytes()

    def field(self, at: int, end: int) -> tuple[int, int, int, int]:
        """Number and wire type of the field that begins here, where its content begins, and where it ends."""
        self.fields += 1
        if self.fields > FIELD_LIMIT:
            raise _Unusual
        tag, at = self.varint(at, end)
        wire, number = tag & 7, tag >> 3
        if wire == 2:
            size, at = self.varint(at, end)
            stop = at + size
        elif wire == 0:
            stop = self.varint(at, end)[1]
        elif wire in (1, 5):
            stop = at + (8 if wire == 1 else 4)
        elif wire in (3, 4):  # groups, which ONNX does not have
            raise _Unusual
        else:
            raise Damaged(f"wire type {wire}")
        if stop > end:
            raise Damaged("a field is longer than what holds it")
        if not number or tag >= 1 << 32:
            raise Damaged("a field without a number")
        return number, wire, at, stop

    def varint(self, at: int, end: int) -> tuple[int, int]:
        """A number of up to ten bytes, and where it ends."""
        place = at - self.base
        if place < 0 or place + 10 > len(self.window):
            self.base, place = at, 0
            self.window = self.reader.read(at, min(_WINDOW, self.size - at)).tobytes()
        window, value = self.window, 0
        for shift in range(0, 70, 7):
            if at >= end:
                break
            byte = window[place]
            place += 1
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value, at
        raise Damaged("a number that does not end")

    def tensor(self, start: int, end: int) -> bytes | None:
        """A tensor that says where its numbers are; None where they are not as in memory, or few."""
        kept: list[tuple[int, int]] = []
        code, at, count = 0, start, 0
        data: tuple[int, int, int] | None = None
        while at < end:
            begin = at
            number, wire, content, at = self.field(at, end)
            count += 1
            if number in (_EXTERNAL, _LOCATION) or count > _TENSOR_FIELDS or (data and number in _DATA):
                return None
            if number in _DATA:
                if wire != 2:
                    return None
                data = (number, content, at - content)
                continue
            if number == _TYPE and wire == 0:
                code = self.varint(content, end)[0]
            kept.append((begin, at))
        if data is None or code == STRING or data[2] < LARGE:
            return None
        number, offset, length = data
        codes, size = _AS_IN_MEMORY.get(number, (set[int](), 0))
        if number != 9 and (code not in codes or length % size):
            return None
        parts = [self.part(first, last) for first, last in kept]
        for key, value in (("location", f"{self.secret}:{size}"), ("offset", str(offset)), ("length", str(length))):
            parts.append(framed(_EXTERNAL, framed(1, key.encode()) + framed(2, value.encode())))
        parts.append(_put(_LOCATION << 3) + _put(onnx.TensorProto.EXTERNAL))
        return b"".join(parts)


def _put(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)


def framed(number: int, content: bytes, size: int | None = None) -> bytes:
    """A field of bytes; its beginning only, where its size is told and the content follows elsewhere."""
    return _put(number << 3 | 2) + _put(len(content) if size is None else size) + content


def varint(data: bytes, at: int) -> tuple[int, int]:
    """A number in a sound message, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
