"""Numbers, ranges, foreign names and what is accepted, as people read them."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from math import prod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from symlint.audit.outcome import Run
    from symlint.lint.finding import Finding
    from symlint.symmetry.spaces import Coverage

_UNITS_TOLD = 12
_LONGEST = 10_000
"""Characters of a foreign text that are shown: a damaged file may have a name of millions, which nobody reads."""
# Controls, surrogates, format characters (which turn text around or hide it), separators of lines and paragraphs.
_UNSAFE = {"Cc", "Cs", "Cf", "Zl", "Zp"}


def printable(text: str) -> str:
    r"""The text with all that could steer a terminal written out, and the middle of a very long one left out.

    >>> printable("a\x1b[31mb")
    'a\\x1b[31mb'
    """
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]} … {text[-_LONGEST // 2 :]}"
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


_NUMBERS_SHOWN = 6
_NUMBER = re.compile(r"[0-9]{1,9}")


def template(name: str) -> str:
    """The name with its numbers taken out; equal templates may differ only in these."""
    return _NUMBER.sub("\0", name)


def merged(names: Iterable[str]) -> dict[str, list[str]]:
    """The names under as few patterns as their numbers allow, in order of first appearance.

    >>> list(merged(["h.0.w", "h.1.w", "h.2.w", "a.w", "x.0.y.1", "x.1.y.0", "x.0.y.0", "x.1.y.1"]))
    ['h.{0..2}.w', 'a.w', 'x.{0,1}.y.{0,1}']
    """
    groups: dict[str, dict[tuple[str, ...], str]] = defaultdict(dict)
    for name in names:
        groups[template(name)][tuple(_NUMBER.findall(name))] = name
    return {
        _pattern(key, block): [found[vector] for vector in block]
        for key, found in groups.items()
        for block in _grids(list(found))
    }


def _grids(vectors: Sequence[tuple[str, ...]]) -> list[list[tuple[str, ...]]]:
    """The vectors in full grids: each holds every combination of the numbers that it holds in each place."""
    todo, done = [list(vectors)], []
    while todo:
        block = todo.pop()
        columns = [set(column) for column in zip(*block, strict=True)]
        if prod(map(len, columns)) == len(block):
            done.append(block)
            continue
        at = min((k for k, column in enumerate(columns) if len(column) > 1), key=lambda k: len(columns[k]))
        parts: dict[str, list[tuple[str, ...]]] = defaultdict(list)
        for vector in block:
            parts[vector[at]].append(vector)
        alike: dict[frozenset[tuple[str, ...]], list[tuple[str, ...]]] = defaultdict(list)
        for part in parts.values():
            alike[frozenset(v[:at] + v[at + 1 :] for v in part)] += part
        # Parts with the same rest belong together, unless all have it and the rest itself is no grid.
        todo += reversed(list((alike if len(alike) > 1 else parts).values()))
    return done


def _pattern(key: str, block: Sequence[tuple[str, ...]]) -> str:
    words = [_braces(list(dict.fromkeys(column))) for column in zip(*block, strict=True)]
    pieces = key.split("\0")
    return "".join(piece + word for piece, word in zip(pieces, [*words, ""], strict=True))


def _braces(numbers: Sequence[str]) -> str:
    """One number as it is, neighbours as a range, others as a list that is cut when it is long."""
    if len(numbers) == 1:
        return numbers[0]
    ordered = sorted(numbers, key=lambda text: (int(text), len(text)))
    values = [int(text) for text in ordered]
    if len(values) > 2 and values == list(range(values[0], values[-1] + 1)):
        return f"{{{ordered[0]}..{ordered[-1]}}}"
    shown = ordered if len(ordered) <= _NUMBERS_SHOWN else [*ordered[:3], "..", ordered[-1]]
    return f"{{{','.join(shown)}}}"


def acceptance(finding: Finding) -> str:
    """By whom a finding is accepted, until when and why; empty where it is not."""
    if finding.accepted is None:
        return ""
    until = f" until {finding.accepted.expires}" if finding.accepted.expires else ""
    why = f" ({printable(finding.accepted.reason)})" if finding.accepted.reason else ""
    return f"accepted by the {finding.accepted.by}{until}{why}"


def standing(run: Run) -> Iterator[str]:
    """What was declared or accepted beforehand and meets nothing, a line each."""
    for name in run.unmet:
        yield f"mirror {printable(repr(name))}: no model has any of its tensors"
    for declared in run.unmet_equivariances:
        yield f"equivariance {printable(repr(declared))}: no model has its input"
    for name in run.unmet_inputs:
        yield f"input {printable(repr(name))}: no model has it, and what is declared of it means nothing"
    for gone in run.standing.gone:
        where = f" at {printable(gone.layer)}" if gone.layer else ""
        yield f"gone: {gone.rule}{where} of {printable(gone.path)}, {gone.amount}; --prune-baseline takes it out"
    for item in run.standing.expired:
        yield f"accepted until {item.expires} only: {printable(f'{item.place}, in {item.origin}')}"
    for item in run.standing.unused:
        yield f"accepted and not found: {printable(f'{item.place}, in {item.origin}')}"
