"""Files as they were when they were first looked at, and the weights in them, read when they are asked for.

Nothing is mapped: a mapping of a file that shrinks ends the process. Every read compares the file with what was first
seen of it, so that one that changes meanwhile is told of, wherever in the audit that happens.
"""

from __future__ import annotations

import os
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, BinaryIO, NoReturn

import numpy as np
from numpy.typing import NDArray

from symlint.model.errors import UnreadableModel
from symlint.model.file.element_types import BITS, decode
from symlint.model.graph import Array
from symlint.model.records import dataclass

if TYPE_CHECKING:
    from symlint.model.graph import Model

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
