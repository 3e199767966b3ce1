"""Numbers, ranges and foreign names as people read them."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from symlint.lint.finding import Finding
    from symlint.symmetry.spaces import Coverage

_UNITS_TOLD = 12
# Controls, surrogates, format characters (which turn text around or hide it), separators of lines and paragraphs.
_UNSAFE = {"Cc", "Cs", "Cf", "Zl", "Zp"}


def printable(text: str) -> str:
    r"""The text with all that could steer a terminal written out.

    >>> printable("a\x1b[31mb")
    'a\\x1b[31mb'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        character.encode("unicode_escape").decode() if unicodedata.category(character) in _UNSAFE else character
        for character in text
    )


def end(name: str, most: int) -> str:
    """A name of at most so many characters; its end tells more than its beginning.

    >>> end("models/network.onnx", 13)
    '…network.onnx'
    """
    return name if len(name) <= most else f"…{name[len(name) - most + 1 :]}"


_FORMULA = ("=", "+", "-", "@")


def cell(text: str) -> str:
    """Text that no spreadsheet takes for a formula: names come from the model, which may be anyone's.

    >>> cell("=1+1"), cell("conv")
    ("'=1+1", 'conv')
    """
    return f"'{text}" if text.startswith(_FORMULA) else text


def told(finding: Finding, coverage: Coverage) -> str:
    """A finding in one line, with its units and what its repair saves; not yet safe to print.

    Args:
        finding: to be told.
        coverage: of its model.
    """
    parts = [finding.message]
    if finding.units:
        parts.append(f"units {ranges(finding.units, _UNITS_TOLD)}")
    if finding.saves:
        parts.append(f"saves {count(finding.saves, 'parameter')}, {share(finding.saves, coverage.total)} of the model")
    return "; ".join(parts)


def ranges(units: Sequence[int], limit: int | None = None) -> str:
    """Ascending numbers, with runs of three and more written as ranges.

    >>> ranges([3, 17, 40, 41, 42, 50, 51])
    '3, 17, 40-42, 50, 51'
    """
    pieces: list[str] = []
    start = 0
    for stop in range(1, len(units) + 1):
        if stop == len(units) or units[stop] != units[stop - 1] + 1:
            run = units[start:stop]
            pieces += [f"{run[0]}-{run[-1]}"] if len(run) > 2 else [str(unit) for unit in run]
            start = stop
    return listed(pieces, limit)


def listed(pieces: Iterable[str], limit: int | None = None) -> str:
    """The pieces in a row, the last ones counted when there are more than ``limit``.

    >>> listed(["a", "b", "c"], limit=2)
    'a, b and 1 more'
    """
    items = list(pieces)
    if limit is None or len(items) <= limit:
        return ", ".join(items)
    return f"{', '.join(items[:limit])} and {len(items) - limit} more"


def count(number: int, noun: str, plural: str = "") -> str:
    """A number with its noun: ``1 model``, ``1,200 parameters``."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def share(part: float, whole: float) -> str:
    """A share in per cent that says 0% and 100% only of nothing and of everything.

    >>> share(1, 10_000_000), share(9_999_999, 10_000_000), share(1, 3)
    ('<0.1%', '>99.9%', '33.3%')
    """
    if part == 0 or whole == 0:
        return "0%"
    percent = 100 * part / whole
    if abs(percent - 100) < 1e-9:
        return "100%"
    if percent < 0.05:
        return "<0.1%"
    return ">99.9%" if percent >= 99.95 else f"{percent:.1f}%"


def number(value: object) -> str:
    """A fact's value: integers in full, other numbers to three digits."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return printable(str(value))
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.3g}" if math.isfinite(value) else str(value)
