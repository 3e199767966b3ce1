"""Names that differ only in their numbers, written as one: ``blocks.{0..11}.attn.qkv.weight``."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from math import prod

_SHOWN = 6
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
        _written(key, block): [found[vector] for vector in block]
        for key, found in groups.items()
        for block in _blocks(list(found))
    }


def _blocks(vectors: Sequence[tuple[str, ...]]) -> list[list[tuple[str, ...]]]:
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


def _written(key: str, block: Sequence[tuple[str, ...]]) -> str:
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
    shown = ordered if len(ordered) <= _SHOWN else [*ordered[:3], "..", ordered[-1]]
    return f"{{{','.join(shown)}}}"
