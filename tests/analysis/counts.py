"""Counts what `symlint check` of a file reads and allocates, from outside of it: the same on every machine.

    python tests/analysis/counts.py FILE [BYTES]

This is a process of its own, since numpy's allocator is replaced in it. A check of a tiny network goes first, so that
what is imported or made once does not count. A line of JSON says what was counted; stderr, where arrays of at least so
many bytes were made.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import tempfile
import traceback
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx.parser import parse_model

_ALLOCATE = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_CLEAR = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t)
_RESIZE = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_FREE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_SET_HANDLER = 304
"""Place of PyDataMem_SetHandler in numpy's table of functions (NEP 49), the same since 1.22."""


class _Handler(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char * 127),
        ("version", ctypes.c_uint8),
        ("context", ctypes.c_void_p),
        ("malloc", _ALLOCATE),
        ("calloc", _CLEAR),
        ("realloc", _RESIZE),
        ("free", _FREE),
    )


class Arrays:
    """Counts the arrays that numpy makes, by their bytes; never taken back, so only for a process that ends with it."""

    def __init__(self) -> None:
        self.told = float("inf")
        """Bytes from which on it is said where an array is made."""
        self.places: Counter[str] = Counter()
        python = ctypes.pythonapi
        raw = {name: getattr(python, f"PyMem_Raw{name}") for name in ("Malloc", "Calloc", "Realloc", "Free")}
        for name, function in raw.items():
            function.restype = None if name == "Free" else ctypes.c_void_p
        raw["Malloc"].argtypes, raw["Calloc"].argtypes = [ctypes.c_size_t], [ctypes.c_size_t] * 2
        raw["Realloc"].argtypes, raw["Free"].argtypes = [ctypes.c_void_p, ctypes.c_size_t], [ctypes.c_void_p]
        self.live: dict[int, int] = {}
        self.start()

        def made(where: int | None, size: int) -> int | None:
            if where:
                self.live[where] = size
                self.now += size
                self.peak = max(self.peak, self.now)
                self.sizes[size] += 1
                if size >= self.told:
                    frames = [f for f in traceback.extract_stack()[::-1] if "symlint" in f.filename][:5]
                    path = " < ".join(f"{Path(f.filename).name}:{f.lineno}:{f.name}" for f in frames)
                    self.places[f"{size:12,} {path}"] += 1
            return where

        def gone(where: int) -> None:
            self.now -= self.live.pop(where, 0)

        def malloc(_: int, size: int) -> int | None:
            return made(raw["Malloc"](size), size)

        def calloc(_: int, count: int, size: int) -> int | None:
            return made(raw["Calloc"](count, size), count * size)

        def realloc(_: int, where: int | None, size: int) -> int | None:
            if where:
                gone(where)
            return made(raw["Realloc"](where, size), size)

        def free(_: int, where: int | None, __: int) -> None:
            if where:
                gone(where)
                raw["Free"](where)

        self.handler = _Handler(b"counting", 1, None, _ALLOCATE(malloc), _CLEAR(calloc), _RESIZE(realloc), _FREE(free))
        capsule, pointer = python.PyCapsule_New, python.PyCapsule_GetPointer
        capsule.restype, capsule.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
        pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
        core = np._core if hasattr(np, "_core") else np.core
        table = pointer(core._multiarray_umath._ARRAY_API, None)
        functions = ctypes.cast(table, ctypes.POINTER(ctypes.c_void_p))
        put = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.py_object)(functions[_SET_HANDLER])
        self.capsule = capsule(ctypes.addressof(self.handler), b"mem_handler", None)
        put(self.capsule)

    def start(self) -> None:
        """Count from here on; what is alive stays known, and is no part of the peak."""
        self.sizes: Counter[int] = Counter()
        self.now = self.peak = 0


class Reads:
    """Counts how often each stored tensor is asked for its numbers."""

    def __init__(self) -> None:
        from symlint.model.graph import Tensor

        self.times: Counter[str] = Counter()
        self.bytes: dict[str, int] = {}
        make = Tensor.__init__

        def init(tensor: Any, name: str, shape: Any, dtype: str, read: Any, *rest: Any, **more: Any) -> None:
            def counted() -> Any:
                found = read()
                self.times[name] += 1
                self.bytes[name] = found.nbytes
                return found

            make(tensor, name, shape, dtype, counted, *rest, **more)

        Tensor.__init__ = init

    def start(self) -> None:
        self.times.clear()


def read_so_far() -> int:
    """Bytes that this process has asked the system for, by any call but a mapping; 0 where the system does not say."""
    with suppress(OSError):
        for line in Path("/proc/self/io").read_text().splitlines():
            if line.startswith("rchar:"):
                return int(line.split()[1])
    return 0


def check(path: str) -> int:
    from symlint.cli.main import cli

    try:
        cli(["check", path, "--quiet"])
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def main(path: str, told: str = "inf") -> None:
    """Print what was counted."""
    arrays, reads = Arrays(), Reads()
    sys.stdout = sys.stderr  # what the check says
    with tempfile.TemporaryDirectory() as folder:
        tiny = Path(folder) / "tiny.onnx"
        onnx.save(parse_model(TINY), tiny)
        check(str(tiny))
    arrays.start()
    arrays.told = float(told)
    reads.start()
    before = read_so_far()
    code = check(path)
    counted = {
        "code": code,
        "disk": read_so_far() - before,
        "reads": dict(reads.times),
        "peak": arrays.peak,
        "sizes": sorted(arrays.sizes.items()),
    }
    arrays.told = float("inf")
    for place, times in arrays.places.most_common():
        print(f"{times:6} x {place}", file=sys.stderr, flush=True)  # noqa: T201
    os.write(1, json.dumps(counted).encode() + b"\n")
    os._exit(0)  # no array may be freed by a function that is gone


TINY = """<ir_version: 8, opset_import: ["": 17]>
tiny (float[batch, 4] x) => (float[batch, 2] y)
<float[4, 3] w = {1, 2, 0, 4, 5, 0, 7, 8, 0, 2, 1, 0}, float[3, 2] v = {3, 2, 1, 4, 1, 7}> {
    a = MatMul (x, w)
    b = Relu (a)
    y = MatMul (b, v)
}"""

if __name__ == "__main__":
    main(*sys.argv[1:])
