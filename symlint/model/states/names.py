"""Pairs by their names: the words by which exporters and libraries tell what comes back from what has left.

A name falls into words; those that only say on which side it stands are left out, and what is left is the same on both:
``past_key_values.0.key`` and ``present.0.key``, ``cache_in_3`` and ``cache_out_3``, ``state`` and ``stateN``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_WORD = re.compile(r"[A-Za-z]+|\d+")
_BOUNDARY = re.compile(r"(?<=[a-z])(?=[A-Z])")
_COMING = frozenset({"in", "ins", "input", "past", "prev", "previous", "old", "init", "initial", "cached"})
_LEAVING = frozenset({"out", "outs", "output", "present", "next", "new", "r", "cached", "updated", "final"})
_CARRIED = frozenset(
    {"att", "avg", "buffer", "c", "cache", "caches", "cell", "cnn", "conv", "cx", "ctx", "h", "hidden", "hx", "key"}
    | {"keys", "kv", "mem", "memory", "past", "present", "recurrent", "ssm", "state", "states", "value", "values"}
)
"""Words for what is carried on; without one of them, a pair such as ``image_in`` and ``image_out`` is none."""
_TELLING = frozenset({"new", "next", "past", "present"})
"""Words that nobody would use for what is not carried on."""
_FOREIGN = frozenset({"encoder", "cross"})
"""Words for what another network supplies: it is read at every step, and never changes."""

Key = tuple[str, ...]


def words(name: str) -> Key:
    """The words of a name in lower case; numbers are words of their own."""
    return tuple(word.lower() for word in _WORD.findall(_BOUNDARY.sub(" ", name)))


def coming(name: str) -> Iterator[Key]:
    """What is left of the name of an input without the words of its side, the surest first."""
    parts = words(name)
    yield _without(parts, _COMING)
    if parts[-1:] == ("0",):  # h0, the state before the first step
        yield parts[:-1]


def leaving(name: str) -> Iterator[Key]:
    """The same of an output."""
    parts = words(name)
    yield _without(parts, _LEAVING)
    if parts and len(parts[-1]) > 1 and parts[-1].endswith("n"):  # hn, stateN: after step n
        yield (*parts[:-1], parts[-1][:-1])
    if parts[-1:] == ("n",):
        yield parts[:-1]


def carried(name: str) -> bool:
    """Whether a name has a word for what is carried on."""
    parts = words(name)
    named = not (_CARRIED | _TELLING).isdisjoint(parts)
    return named or any(p[:-1] in _CARRIED and p.endswith("n") for p in parts)


def foreign(name: str) -> bool:
    """Whether a name says that another network supplies the value."""
    return not _FOREIGN.isdisjoint(words(name))


def _without(parts: Key, side: frozenset[str]) -> Key:
    both = parts[1:3] == ("key", "values") and parts[0] in ("past", "present")
    return tuple(part for part in (parts[3:] if both else parts) if part not in side)
