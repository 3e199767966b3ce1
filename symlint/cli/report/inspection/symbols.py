"""Short names for spaces, as papers use them: ``h`` for heads, ``dk`` for a query-key dimension, ``e`` for a stream.

A symbol says what the structure shows, with the tensors' names as a hint for attention only; two spaces never share
one unless they are alike up to the numbers in the names of their tensors, as the same space in every block is.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from symlint.cli.report.inspection.alike import merged, template
from symlint.cli.report.inspection.flow import Flow, Role
from symlint.cli.report.words import printable
from symlint.symmetry.spaces import Generator, Place, Space, Symmetry

MEANING = {
    "e": "stream that several layers write and read",
    "g": "groups",
    "h": "heads",
    "dk": "query-key dimensions",
    "dv": "value dimensions",
    "d": "dimensions within a group",
    "c": "channels",
    "n": "neurons",
    "s": "scale of a whole tensor",
}
ID = re.compile(r"\bS\d+\b")
_ROLES: tuple[Role, Role] = ("writes", "reads")
_ATTENTION = re.compile(r"attn|attention|qkv|q_proj|query", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Row:
    """Spaces that look alike up to the numbers in their names."""

    symbol: str
    letter: str
    spaces: tuple[Space, ...]
    generators: tuple[Generator, ...]
    """Those of the first space."""
    names: tuple[str, ...]
    """Of the tensors that write the spaces, as few patterns as possible."""


def rows(symmetry: Symmetry, flow: Flow, shown: Mapping[str, str], *, collapse: bool = True) -> tuple[Row, ...]:
    """The spaces in their order, those that look alike together; each row has a symbol of its own."""
    generators: dict[str, list[Generator]] = defaultdict(list)
    for generator in symmetry.generators:
        generators[generator.space or ""].append(generator)
    groups: dict[object, list[Space]] = defaultdict(list)
    for space in symmetry.spaces:
        groups[_likeness(space, generators[space.id], shown) if collapse else space.id].append(space)
    context = _Context(symmetry, flow, shown)
    letters = [_letter(group[0], context) for group in groups.values()]
    many, seen = Counter(letters), Counter[str]()
    found = []
    for group, letter in zip(groups.values(), letters, strict=True):
        seen[letter] += 1
        symbol = f"{letter}{seen[letter]}" if many[letter] > 1 else letter
        names = tuple(merged(printable(space.name) for space in group if space.places))
        found.append(Row(symbol, letter, tuple(group), tuple(generators[group[0].id]), names))
    return tuple(found)


def terms(layout: str) -> list[list[str]]:
    """The words of each term of a layout: ``(S3 S2)+S4`` is ``[[S3, S2], [S4]]``."""
    return [term.strip("()").split() for term in layout.split("+")]


def _likeness(space: Space, generators: list[Generator], shown: Mapping[str, str]) -> object:
    places = Counter((template(shown[p.tensor]), p.axis, ID.sub("S", p.layout)) for p in space.places)
    acts = Counter((g.kind, g.group, g.dimension, g.exact) for g in generators)
    return space.size, space.copies, frozenset(places.items()), frozenset(acts.items())


def _letter(space: Space, context: _Context) -> str:
    if space.size == 1:
        return "s"
    flow = context.flow
    named = {context.shown[place.tensor] for place in space.places}
    attention = 2 * sum(bool(_ATTENTION.search(name)) for name in named) > len(named)
    grouped = [words for words in _products(space) if len(words) > 1]
    if any(space.id in words[:-1] for words in grouped):
        first_of_three = any(len(words) > 2 and words[0] == space.id for words in grouped)
        return "h" if attention and not first_of_three else "g"
    if grouped:
        if not attention:
            return "d"
        return "dv" if any("reads" in flow.get((p.tensor, p.axis), ()) for p in space.places) else "dk"
    summed = any((pin.op, pin.node) in context.sums for pin in space.why)
    if summed and all(_matrices(space, context, role) > 1 for role in _ROLES):
        return "e"
    convolved = any("Conv" in pin.op for pin in space.why)
    return "c" if convolved or not context.filters.isdisjoint(place.tensor for place in space.places) else "n"


def _products(space: Space) -> Iterator[list[str]]:
    """The terms that hold the space, with the spaces in them."""
    for place in space.places:
        for words in terms(place.layout):
            if space.id in words:
                yield [word for word in words if ID.fullmatch(word)]


def _matrices(space: Space, context: _Context, role: Role) -> int:
    """How many matrices write or read the space; gains, biases and depthwise filters do not count."""

    def counts(place: Place) -> bool:
        tensor = context.symmetry.model.tensors.get(place.tensor)
        return tensor is not None and len(tensor.shape) > 1 and tensor.shape[1] > 1

    return len(
        {p.tensor for p in space.places if context.flow.get((p.tensor, p.axis)) == frozenset([role]) and counts(p)}
    )


class _Context:
    """What letters are chosen by, beside the space itself."""

    def __init__(self, symmetry: Symmetry, flow: Flow, shown: Mapping[str, str]) -> None:
        self.symmetry, self.flow, self.shown = symmetry, flow, shown
        stored = {*symmetry.model.tensors, *symmetry.model.constants}
        every = list(symmetry.model.graph.walk())
        self.sums = frozenset(
            (node.op, node.name or node.outputs[0])
            for node in every
            if (node.op in ("Add", "Sum") and stored.isdisjoint(node.inputs)) or ".Skip" in node.op
        )
        """The nodes that add two computed values, by operator and name."""
        self.filters = frozenset(name for node in every if "Conv" in node.op for name in node.inputs)
