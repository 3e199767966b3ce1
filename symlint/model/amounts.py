"""Sizes and times as people write them: ``512M``, ``2G``, ``90s``, ``5m``."""

from __future__ import annotations

import re

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
