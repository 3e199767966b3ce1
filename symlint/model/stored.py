"""The element types of tensors: ONNX's codes, numpy's words, widths, how bytes become numbers and several share one.

Files as they were when they were first looked at, and the weights in them, read when they are asked for.

Nothing is mapped: a mapping of a file that shrinks ends the process. Every read compares the file with what was first
seen of it, so that one that changes meanwhile is told of, wherever in the audit that happens.
"""

from __future__ import annotations

import os
import sys
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from threading import Lock
from types import MappingProxyType
from typing import Any, BinaryIO, NoReturn

import numpy as np
from numpy.typing import NDArray

from symlint.model.errors import UnreadableModel
from symlint.model.graph import Array, Model, Node
from symlint.model.records import dataclass

STRING = 8
WORDS = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    STRING: "string",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    14: "complex64",
    15: "complex128",
    16: "bfloat16",
    17: "float8_e4m3fn",
    18: "float8_e4m3fnuz",
    19: "float8_e5m2",
    20: "float8_e5m2fnuz",
    21: "uint4",
    22: "int4",
    23: "float4_e2m1fn",
    24: "float8_e8m0fnu",
    25: "uint2",
    26: "int2",
    27: "float6_e2m3fn",
    28: "float6_e3m2fn",
}
"""Code of a type in TensorProto -> its name in numpy, or in ml_dtypes where numpy has none."""
CODES = {word: code for code, word in WORDS.items()}
BITS = {
    code: bits
    for bits, codes in {
        0: (STRING,),
        2: (25, 26),
        4: (21, 22, 23),
        6: (27, 28),
        8: (2, 3, 9, 17, 18, 19, 20, 24),
        16: (4, 5, 10, 16),
        32: (1, 6, 12),
        64: (7, 11, 13, 14),
        128: (15,),
    }.items()
    for code in codes
}
"""Bits of a stored element; types of fewer than eight are packed."""


def numpy_type(code: int) -> np.dtype[Any]:
    """The numpy type of an ONNX type. Raises ValueError for one that has none."""
    word = WORDS.get(code, "string")
    if word == "string":
        raise ValueError(f"the element type {code} has no numbers")
    known: np.dtype[Any]
    try:
        known = np.dtype(word)
    except TypeError:  # one of machine learning's own, whose name numpy knows only once they were imported
        import ml_dtypes

        known = np.dtype(getattr(ml_dtypes, word))
    return known


def decode(data: NDArray[np.uint8], code: int, count: int) -> Array:
    """The numbers in bytes that are stored as in a file (little-endian, packed); a view where that is possible."""
    kind = numpy_type(code)
    if BITS[code] < 8:
        return _UNPACK[BITS[code]](data)[:count].view(kind)
    found = data.view(kind)
    return found.byteswap() if sys.byteorder == "big" else found


def _quarters(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.stack([data >> shift & 0x03 for shift in (0, 2, 4, 6)], -1).reshape(-1)


def _halves(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    found = np.empty(2 * data.size, np.uint8)
    np.bitwise_and(data, 0x0F, out=found[0::2])
    np.right_shift(data, 4, out=found[1::2])
    return found


def _sixths(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    padded = np.zeros((-(-data.size // 3), 3), np.uint8)
    padded.reshape(-1)[: data.size] = data
    first, second, third = padded.T
    parts = (first & 63, first >> 6 | (second & 15) << 2, second >> 4 | (third & 3) << 4, third >> 2)
    return np.stack(parts, -1).reshape(-1)


_UNPACK: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {2: _quarters, 4: _halves, 6: _sixths}


PACKED = "com.microsoft.MatMulNBits"
_STORED: Mapping[str, Array] = MappingProxyType({})


def packed(model: Model) -> Mapping[str, Node]:
    """Stored tensor -> the product with blocks of few bits that reads it."""
    return {node.inputs[1]: node for node in model.graph.nodes if node.op == PACKED}


def unpacked(model: Model, node: Node, moved: Mapping[str, Array] = _STORED) -> tuple[Array, Array] | None:
    """The matrix (N, blocks block_size) of such a product, and its steps; None where its parts are not stored.

    Args:
        model: the model that has the parts.
        node: the product.
        moved: stored tensors that have other values.
    """
    bits, rows, block = (
        int(node.attributes.get("bits", 4)),
        int(node.attributes["N"]),
        int(node.attributes["block_size"]),
    )
    names = (*node.inputs[1:4], "")[:3]
    given = [moved[n] if n in moved else model.tensors[n].read() if n in model.tensors else None for n in names]
    if 8 % bits or given[0] is None or given[1] is None:
        return None
    levels = _apart(given[0], bits, rows)
    steps = given[1].astype(np.float64).reshape(rows, -1)
    blocks = steps.shape[1]
    zeros = np.full((rows, blocks), 2.0 ** (bits - 1))
    if len(node.inputs) > 3 and node.inputs[3]:
        if given[2] is None:
            return None
        zeros = _apart(given[2], bits, rows)[:, :blocks] if given[2].dtype == np.uint8 else given[2].reshape(rows, -1)
    wide, offset = np.repeat(steps, block, axis=1), np.repeat(zeros.astype(np.float64), block, axis=1)
    return (levels[:, : wide.shape[1]] - offset) * wide, np.abs(wide)


def _apart(stored: Array, bits: int, rows: int) -> Array:
    """Numbers of some bits, the lowest first, row by row."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    apart = (stored.astype(np.uint8).reshape(rows, -1, 1) >> shifts) & np.uint8(2**bits - 1)
    return apart.reshape(rows, -1).astype(np.float64)


KEPT = 512 << 20
"""Bytes of weights up to which all of a model stay in memory once they were read."""
RECENT = 256 << 20
"""Bytes of the last used weights that stay in memory of a larger model."""
FEW = 64 << 20
"""The same where each weight is used once or twice, and others take the memory."""
_BLOCK = 1 << 20


class StoredFile:
    """A regular file; ``name`` is what messages call the model that it belongs to, ``what`` what they call the file.

    Raises UnreadableModel, whenever it is read, if it is no longer the file that it was.
    """

    def __init__(self, path: str | Path, name: str, what: str = "") -> None:
        self.path = os.path.abspath(path)  # noqa: PTH100 - links stay, so that they are followed at each read
        self.name = name
        self.what = what
        self.identity = _identity(os.stat(self.path))  # noqa: PTH116

    @property
    def size(self) -> int:
        """Bytes."""
        return self.identity[0]

    @property
    def stale(self) -> bool:
        """Whether it is no longer the file that it was."""
        try:
            return _identity(os.stat(self.path)) != self.identity  # noqa: PTH116
        except OSError:
            return True

    @contextmanager
    def opened(self) -> Iterator[Reader]:
        """The file, open for reading; unchanged from the beginning to the end of the block."""
        try:
            # Without O_NONBLOCK, a pipe that has taken the file's place would hold the audit up for ever.
            flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
            with os.fdopen(os.open(self.path, flags), "rb", buffering=0) as handle:
                self._compare(handle)
                yield Reader(self, handle)
                self._compare(handle)
        except FileNotFoundError:
            self.changed()
        except OSError as error:
            raise UnreadableModel(self.name, f"{self.what}cannot be read: {error.strerror or error}") from error

    def read(self, offset: int, size: int) -> NDArray[np.uint8]:
        """So many bytes from there, in an array of their own."""
        with self.opened() as reader:
            return reader.read(offset, size)

    @cached_property
    def sha256(self) -> str:
        """Hash of the whole file, taken when it is first asked for."""
        import hashlib

        digest = hashlib.sha256()
        block = memoryview(bytearray(_BLOCK))
        with self.opened() as reader:
            for start in range(0, self.size, _BLOCK):
                part = block[: min(_BLOCK, self.size - start)]
                reader.fill(start, part)
                digest.update(part)
        return digest.hexdigest()

    def changed(self) -> NoReturn:
        """Refuse to go on. Raises UnreadableModel."""
        raise UnreadableModel(
            self.name, f"{self.what}has changed while it was read; check it again when it is complete"
        )

    def _compare(self, handle: BinaryIO) -> None:
        if _identity(os.fstat(handle.fileno())) != self.identity:
            self.changed()


def _identity(stat: os.stat_result) -> tuple[int, int, int, int]:
    return stat.st_size, stat.st_mtime_ns, stat.st_ino, stat.st_dev


class Reader:
    """An open file; ends early nowhere, or raises UnreadableModel."""

    def __init__(self, file: StoredFile, handle: BinaryIO) -> None:
        self.file = file
        self.handle = handle

    def read(self, offset: int, size: int) -> NDArray[np.uint8]:
        """So many bytes from there, in an array of their own."""
        found = np.empty(size, np.uint8)
        if size:
            self.fill(offset, memoryview(found.data))
        return found

    def fill(self, offset: int, view: memoryview) -> None:
        """Fill a buffer with what is stored from there on."""
        self.handle.seek(offset)
        while len(view):
            count: int = self.handle.readinto(view)  # type: ignore[attr-defined]
            if not count:
                self.file.changed()
            view = view[count:]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a file holds the numbers of a tensor."""

    file: StoredFile
    offset: int
    length: int
    code: int
    """ONNX's code of the element type."""
    count: int
    """Elements."""


class Weights:
    """The weights of one model, read from its files on demand; the last used stay in memory, within ``budget`` bytes.

    ``reads`` counts how often each place was read from its file.
    """

    def __init__(self, budget: int, files: Mapping[str, StoredFile] | None = None) -> None:
        self.budget = budget
        self.files: Mapping[str, StoredFile] = files or {}
        """The files of external data, by the names that the model has for them."""
        self.reads: Counter[Place] = Counter()
        self._kept: OrderedDict[Place, Array] = OrderedDict()
        self._size = 0
        self._lock = Lock()

    @property
    def bytes_read(self) -> int:
        """Bytes of weights that were read from files so far."""
        return sum(place.length * count for place, count in self.reads.items())

    def forget(self) -> None:
        """Give back the memory of all that was read."""
        with self._lock:
            self._kept.clear()
            self._size = 0

    def read(self, place: Place) -> Array:
        """The numbers at a place, in one dimension, read-only. Raises UnreadableModel if the file has changed."""
        with self._lock:
            if (found := self._kept.get(place)) is not None:
                self._kept.move_to_end(place)
                return found
        found = decode(place.file.read(place.offset, place.length), place.code, place.count)
        found.flags.writeable = False
        with self._lock:
            self.reads[place] += 1
            if found.nbytes <= self.budget and place not in self._kept:
                self._kept[place] = found
                self._size += found.nbytes
                while self._size > self.budget:
                    self._size -= self._kept.popitem(last=False)[1].nbytes
        return found


def same_bytes(one: Model, other: Model) -> bool:
    """Whether two models, loaded from files, are the same in every byte that is theirs."""
    if one.file is None or other.file is None or one.weights is None or other.weights is None:
        return False
    mine, theirs = ({"": m.file, **m.weights.files} for m in (one, other) if m.file and m.weights)
    return mine.keys() == theirs.keys() and all(_equal(file, theirs[name]) for name, file in mine.items())


def _equal(one: StoredFile, other: StoredFile) -> bool:
    if one.size != other.size:
        return False
    return one.identity == other.identity or _alike((one, 0), (other, 0), one.size)


def same_numbers(one: Place, other: Place) -> bool:
    """Whether two places hold the same bytes; they are compared in blocks, and not kept."""
    if one.length != other.length:
        return False
    return one == other or _alike((one.file, one.offset), (other.file, other.offset), one.length)


def _alike(one: tuple[StoredFile, int], other: tuple[StoredFile, int], size: int) -> bool:
    """Whether so many bytes are the same from two places on."""
    with one[0].opened() as first, other[0].opened() as second:
        blocks = [np.empty(min(_BLOCK, size), np.uint8) for _ in range(2)]
        for start in range(0, size, _BLOCK):
            parts = [block[: min(_BLOCK, size - start)] for block in blocks]
            for reader, begin, part in zip((first, second), (one[1], other[1]), parts, strict=True):
                reader.fill(begin + start, memoryview(part.data))
            if not np.array_equal(parts[0], parts[1]):
                return False
    return True


def sketch(place: Place, window: int = 64) -> bytes:
    """Some bytes of the beginning, the middle and the end of a place."""
    starts = (0, (place.length - window) // 2, place.length - window)
    with place.file.opened() as reader:
        found = [reader.read(place.offset + max(k, 0), min(window, place.length)) for k in starts]
    return b"".join(part.tobytes() for part in found)


def uniform(place: Place) -> bool:
    """Whether a place holds one number throughout; no more is read than it takes to see that."""
    width = max(BITS[place.code] // 8, 1)
    with place.file.opened() as reader:
        first = reader.read(place.offset, min(width, place.length))
        for start in range(0, place.length, _BLOCK):
            part = reader.read(place.offset + start, min(_BLOCK, place.length - start))
            if (part.reshape(-1, width) != first).any():
                return False
    return True


def default_budget(size: int) -> int:
    """Bytes of weights to keep of files that have so many: all if they are few, else the last used."""
    return size if size <= KEPT else RECENT
