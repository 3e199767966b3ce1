"""Every tensor with its axes in symbols: ``attn.qkv.weight   e, q(h dk)+k(h dk)+v(h dv)``."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import prod

from symlint.cli.report.inspection.alike import merged
from symlint.cli.report.inspection.symbols import ID, Row, terms
from symlint.cli.report.words import listed, printable
from symlint.symmetry.spaces import Symmetry

_FUSED = re.compile(r"qkv|c_attn|in_proj|query_key_value", re.IGNORECASE)
_USES_SHOWN = 3

Axes = Mapping[int, Sequence[str]]
"""Axis -> its layouts; a shared tensor may have several."""


def layouts(
    symmetry: Symmetry, rows: Iterable[Row], shown: Mapping[str, str], *, collapse: bool = True
) -> list[tuple[str, str]]:
    """Names and axes of all tensors that hold a space, in the order in which the network reads them.

    Names that differ in their numbers only are one, and so are a weight and a bias of one module with the same axes.
    """
    write = _Writer(symmetry, rows)
    axes: dict[str, dict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    for space in symmetry.spaces:
        for place in space.places:
            if place.layout not in axes[place.tensor][place.axis]:
                axes[place.tensor][place.axis].append(place.layout)
    tensors = sorted(axes, key=_order(symmetry))
    position = {shown[tensor]: k for k, tensor in enumerate(tensors)}
    texts: dict[str, list[str]] = defaultdict(list)
    for tensor in tensors:
        texts[write.tensor(tensor, shown[tensor], axes[tensor])].append(shown[tensor])
    found: dict[tuple[str, str], tuple[int, list[str]]] = {}
    for text, names in texts.items():
        for pattern, members in (merged(names) if collapse else {name: [name] for name in names}).items():
            stem, _, last = pattern.rpartition(".") if collapse else ("", "", pattern)
            first, parts = found.get((stem, text), (len(tensors), []))
            found[stem, text] = min(first, *(position[name] for name in members)), [*parts, last]
    ordered = sorted(found.items(), key=lambda item: item[1][0])
    if not collapse:
        return [(name, text) for (_, text), (_, names) in ordered for name in names]
    return [(".".join(filter(None, (stem, _either(last)))), text) for (stem, text), (_, last) in ordered]


def _either(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{{{','.join(words)}}}"


def _order(symmetry: Symmetry) -> Callable[[str], int]:
    """When the network first reads a tensor."""
    first: dict[str, int] = {}
    for k, node in enumerate(symmetry.model.graph.walk()):
        for name in node.inputs:
            first.setdefault(name, k)
    return lambda name: first.get(name, len(first))


class _Writer:
    """Layouts in symbols instead of the ids of spaces."""

    def __init__(self, symmetry: Symmetry, rows: Iterable[Row]) -> None:
        self.tensors = symmetry.model.tensors
        self.sizes = {space.id: space.size for space in symmetry.spaces}
        self.order = {space.id: k for k, space in enumerate(symmetry.spaces)}
        self.rows = {space.id: row for row in rows for space in row.spaces}

    def tensor(self, name: str, shown: str, axes: Axes) -> str:
        """All axes of a tensor; one without a space is its length."""
        tensor = self.tensors.get(name)
        shape = tensor.shape if tensor else tuple(0 for _ in range(max(axes) + 1))
        symbols = self._symbols(axes)
        written = []
        for k, length in enumerate(shape):
            uses = [self._axis(layout, length, shown, symbols) for layout in axes.get(k, ())]
            written.append(" | ".join(uses[:_USES_SHOWN]) + (" | .." if len(uses) > _USES_SHOWN else ""))
            written[k] = written[k] or f"{length}"
        return listed(written)

    def _symbols(self, axes: Axes) -> dict[str, str]:
        """The symbols of a tensor's spaces; a prime where it holds two spaces of one row, as a square matrix may."""
        here = {word for uses in axes.values() for layout in uses for word in ID.findall(layout)}
        seen: dict[str, int] = defaultdict(int)
        symbols = {}
        for space in sorted(here & self.rows.keys(), key=self.order.__getitem__):
            symbol = self.rows[space].symbol
            symbols[space] = symbol + "'" * seen[symbol]
            seen[symbol] += 1
        return symbols

    def _axis(self, layout: str, length: int, shown: str, symbols: Mapping[str, str]) -> str:
        if not ID.search(layout):
            return f"{length}"
        if "..." in layout:
            return ID.sub(lambda match: symbols.get(match[0], match[0]), printable(layout))
        summands = terms(layout)
        widths = [prod(self._width(word) for word in words) for words in summands]
        if len(summands) == 2 and 2 * widths[0] + widths[1] == length:
            triple, total = [summands[0], *summands], length
        else:
            triple, total = summands, sum(widths)
        if total == length and self._attends(triple, shown):
            return "+".join(f"{x}({self._term(words, symbols)})" for x, words in zip("qkv", triple, strict=True))
        written = [self._term(words, symbols) for words in summands]
        written = [f"({text})" if " " in text else text for text in written]
        times, rest = divmod(length, sum(widths) or 1)
        # A layout says terms that follow on each other once: the length tells how often.
        if rest or times < 2:
            return "+".join(written)
        return f"{times}*{written[0]}" if len(written) == 1 else f"{'+'.join(written)}+.."

    def _attends(self, summands: Sequence[Sequence[str]], shown: str) -> bool:
        """Whether three summands are query, key and value: by what they are, or by the name of a fused tensor."""
        if len(summands) != 3:
            return False
        last = [self.rows[words[-1]].letter if words and words[-1] in self.rows else "" for words in summands]
        return last == ["dk", "dk", "dv"] or (last[-1] == "dv" and bool(_FUSED.search(shown)))

    def _width(self, word: str) -> int:
        return self.sizes.get(word, int(word) if word.isdecimal() else 0)

    def _term(self, words: Sequence[str], symbols: Mapping[str, str]) -> str:
        return " ".join(symbols.get(word, printable(word)) for word in words)
