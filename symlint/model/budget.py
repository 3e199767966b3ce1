"""What an audit may take, time and memory, as people write it, and the moments at which it asks whether some is left.

Nothing is stopped from outside but by Ctrl-C. The audit asks between its phases and rules, a walk over the network at
every step, a weight before it is read: what does not fit ends the phase or rule at work, which the report then names.
A single call of numpy is never interrupted, so that a budget is exceeded by at most one of them.
"""

from __future__ import annotations

import gc
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from symlint.model.graph import Array, Model, Tensor

_BYTES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}
_MOST = 1e18  # no size and no time is that long
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]*)", re.IGNORECASE | re.ASCII)


def memory(value: object) -> int:
    """A size in bytes; the units K, M, G, T are powers of 1,024, and 0 stands for no limit.

    Raises ValueError with what can be written instead.

    >>> memory("512M"), memory("1.5 GiB"), memory(1000)
    (536870912, 1610612736, 1000)
    """
    number, unit = _parts(value)
    unit = unit.removesuffix("b").removesuffix("i") if unit not in ("", "i", "ib") else unit
    if number is None or unit not in _BYTES:
        raise ValueError(f"expected a size such as 512M, 2G or a number of bytes, not {value!r}")
    return int(number * _BYTES[unit])


def duration(value: object) -> float:
    """A time in seconds; 0 stands for no limit.

    Raises ValueError with what can be written instead.

    >>> duration("90"), duration("5m"), duration(0.5)
    (90.0, 300.0, 0.5)
    """
    number, unit = _parts(value)
    if number is None or unit not in _SECONDS:
        raise ValueError(f"expected a time such as 60, 90s or 5m, not {value!r}")
    return number * _SECONDS[unit]


def percent(value: object) -> float:
    """A part of a hundred, with or without its sign.

    Raises ValueError with what can be written instead.

    >>> percent("95%"), percent(99.5)
    (95.0, 99.5)
    """
    number, _ = _parts(value.strip().removesuffix("%") if isinstance(value, str) else value)
    if number is None or number > 100:
        raise ValueError(f"expected a number from 0 to 100, not {value!r}")
    return number


def _parts(value: object) -> tuple[float | None, str]:
    """A number of at least 0 with its unit in small letters; no number where the value is no amount."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return (float(value) if 0 <= value < _MOST else None), ""
    found = _AMOUNT.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None or float(found[1]) >= _MOST:
        return None, ""
    return float(found[1]), found[2].lower()


def size_in_words(size: int) -> str:
    """A size as `memory` reads it, in the largest unit of which it is at least one.

    >>> size_in_words(512 << 20), size_in_words(3 << 29), size_in_words(700)
    ('512M', '1.5G', '700 bytes')
    """
    for unit in ("t", "g", "m", "k"):
        if size >= _BYTES[unit]:
            return f"{size / _BYTES[unit]:.4g}{unit.upper()}"
    return f"{size} byte{'' if size == 1 else 's'}"


LOAD, SYMMETRIES = "load", "symmetries"
"""The phases without which no rule can run."""
DONE = "done"
"""What is told at the end of an audit that another process has made."""

_T = TypeVar("_T")
_PROCESS = 100 << 20
"""What Python and the libraries take, where the system does not say how much memory a process has."""
_COPIES = 2
"""How many times its bytes the reading of a weight takes: itself, and what an analysis makes of it."""
_SPARE = 16
"""A part of the memory (one of so many) that is left for what is made between two questions."""
_CACHE = 3
"""A part of the memory (one of so many) in which weights that were read stay."""
_GLANCE = 0.002
"""Seconds between two looks at the memory: a look costs some microseconds."""


class Stopped(BaseException):
    """The audit of a model cannot go on. Like KeyboardInterrupt it is no error of the code that it passes through."""

    def __init__(self, reason: str, tensor: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.tensor = tensor
        """The tensor that did not fit, where it is one."""


class BudgetExceeded(Stopped):
    """There is not enough time or memory left."""


class Interrupted(Stopped):
    """The user has pressed Ctrl-C."""

    def __init__(self) -> None:
        super().__init__("interrupted")


class Watch:
    """Follows a run: is told of every model and phase, and makes Ctrl-C an answer instead of the end.

    As a context manager it listens to the interrupt; a second one ends the process as ever.
    """

    def __init__(self, told: Callable[[str, str, float], None] | None = None) -> None:
        """``told`` gets a model's path, the phase or the code of the rule at work, and how much of all is done."""
        self.told = told or (lambda path, phase, share: None)
        self.interrupted = False
        self._open = False
        self._before: Any = None

    def __enter__(self) -> Watch:
        # Elsewhere than in the main thread there are no signals; a process that ignores them goes on doing so.
        main = threading.current_thread() is threading.main_thread()
        if main and callable(before := signal.getsignal(signal.SIGINT)):
            self._before = before
            signal.signal(signal.SIGINT, self._interrupt)
        return self

    def __exit__(self, *problem: object) -> None:
        if self._before is not None and signal.getsignal(signal.SIGINT) == self._interrupt:
            signal.signal(signal.SIGINT, self._before)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, self._before)
        self.interrupted = True
        if self._open:
            self._open = False
            raise Interrupted

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Work that may end at any point in `Interrupted`: nothing that it leaves half done is used afterwards."""
        try:
            self._open = True
            if self.interrupted:
                raise Interrupted
            yield
        finally:
            self._open = False


class Budget:
    """The time and memory that the audit of one model may take; unlimited, and free of cost, unless it is told them."""

    def __init__(self, path: str = "", memory: int = 0, seconds: float = 0.0, watch: Watch | None = None) -> None:
        """``memory`` in bytes is that of the whole process, 0 is no limit; the seconds count from now."""
        self.memory, self.seconds = memory, seconds
        self.watch = watch or Watch()
        self._path = path
        self._deadline = time.monotonic() + seconds if seconds else float("inf")
        self._next_glance = 0.0
        self.spare: list[Callable[[], object]] = [gc.collect]
        """What gives memory back where it is short: called before anything is left out."""

    @property
    def limited(self) -> bool:
        """Whether there is anything to ask for."""
        return bool(self.memory or self.seconds)

    @property
    def room(self) -> int | None:
        """Bytes that are left beside what the process holds now; None without a limit."""
        return max(0, self._allowed - (resident() or _PROCESS)) if self.memory else None

    @property
    def cache(self) -> int | None:
        """Bytes of weights that may stay in memory once they were read; None where that is left to the loader."""
        room = self.room
        return None if room is None else room // _CACHE

    @property
    def _allowed(self) -> int:
        return self.memory - self.memory // _SPARE

    def _fits(self, size: int) -> bool:
        """Whether so many bytes are left, if need be after what is spare was given back."""
        if not self.memory or (resident() or _PROCESS) + size <= self._allowed:
            return True
        for give_back in self.spare:
            give_back()
        return (self.room or 0) >= size

    def enter(self, phase: str, share: float) -> None:
        """Begin a phase or rule, when this share of all of them is done."""
        self.watch.told(self._path, phase, share)
        self.tick()

    def lift(self) -> None:
        """Ask for nothing any more: what was found is written down, whatever that takes."""
        self.memory, self.seconds, self._deadline = 0, 0.0, float("inf")

    def tick(self) -> None:
        """Ask at the head of a loop whether to go on. Raises BudgetExceeded when time or memory are used up."""
        if not self.limited:
            return
        now = time.monotonic()
        if now > self._deadline:
            raise BudgetExceeded(f"the time budget of {self.seconds:g} s is used up")
        if self.memory and now >= self._next_glance:
            self._next_glance = now + _GLANCE
            if not self._fits(1):
                raise BudgetExceeded(f"it takes more than {size_in_words(self.memory)} of memory")

    def claim(self, size: int, tensor: str = "", copies: int = _COPIES) -> None:
        """Ask for the memory that a weight or file of so many bytes takes. Raises BudgetExceeded with its name."""
        self.tick()
        if not self._fits(copies * size):
            words = f"{size_in_words(size)}, and what is made of them, do not fit into {size_in_words(self.memory)}"
            raise BudgetExceeded(words, tensor)

    def steps(self, steps: tuple[_T, ...]) -> tuple[_T, ...]:
        """The same steps, but every walk over them asks at each one."""
        return _Watched(steps, self) if self.limited else steps

    def weights(self, model: Model) -> Model:
        """The same model, but every weight asks before it is read, and every walk over the nodes at each one."""
        if not self.limited:
            return model
        if model.weights is not None:
            self.spare.insert(0, model.weights.forget)
        graph = replace(model.graph, nodes=self.steps(model.graph.nodes))
        return replace(model, graph=graph, tensors={name: self._asking(t) for name, t in model.tensors.items()})

    def _asking(self, tensor: Tensor) -> Tensor:
        size = tensor.size * _width(tensor.dtype)

        def read() -> Array:
            self.claim(size, tensor.name)
            return tensor.read()

        return replace(tensor, read=read)


class _Watched(tuple[_T, ...]):
    """A sequence whose walks ask a budget at each element."""

    budget: Budget

    def __new__(cls, items: tuple[_T, ...], budget: Budget) -> _Watched[_T]:
        made = super().__new__(cls, items)
        made.budget = budget
        return made

    def __iter__(self) -> Iterator[_T]:
        for item in super().__iter__():
            self.budget.tick()
            yield item

    def __reversed__(self) -> Iterator[_T]:
        for place in range(len(self) - 1, -1, -1):
            self.budget.tick()
            yield self[place]


def _width(dtype: str) -> int:
    """Bytes of a stored number, from the digits of its type: 4 bits are read into a byte."""
    digits = "".join(c for c in dtype.partition("_")[0] if c.isdigit())
    return max(1, int(digits or 8) // 8)


def resident() -> int:
    """Bytes of memory that this process holds; the most that it ever held where the system tells no more, or 0."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        pass
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
