"""Which axes of which stored tensors write the units of their spaces, which read them, and which stay in place.

Short names for spaces, as papers use them: ``h`` for heads, ``dk`` for a query-key dimension, ``e`` for a stream.

A symbol says what the structure shows, with the tensors' names as a hint for attention only; two spaces never share
one unless they are alike up to the numbers in the names of their tensors, as the same space in every block is.

What `symlint inspect` tells machines: JSON, comma-separated values, a graph.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from math import prod
from typing import Literal

from symlint.cli.report.data import comma_separated, dump, shares
from symlint.cli.report.words import cell, count, listed, merged, printable, template
from symlint.model.errors import UnreadableModel
from symlint.model.graph import Model
from symlint.model.naming import Names
from symlint.model.records import dataclass
from symlint.model.states import State
from symlint.program.steps import Einsum, Mix, Step
from symlint.symmetry.spaces import Coverage, Generator, Place, Space, Symmetry
from symlint.symmetry.structure import Structure

Role = Literal["writes", "reads"]
Flow = Mapping[tuple[str, int], frozenset[Role]]
"""Stored tensor and axis -> what the axis does; an axis that no step tells anything about is missing."""

_Axes = dict[int, frozenset[tuple[str, int]]]


def flow(structure: Structure) -> Flow:
    """What each axis does: a contraction with a computed tensor reads it, everything else writes it."""
    return _Walk(structure).found


class _Walk:
    def __init__(self, structure: Structure) -> None:
        self.program, self.axes = structure.program, structure.axes
        self.made: dict[str, _Axes] = {
            name: {k: frozenset([(stored, k)]) for k in range(len(self.axes.of[name]))}
            for name, stored in self.program.weights.items()
        }
        """Tensor that is made of weights alone -> its axes -> the stored axes that they are."""
        self.known = {*self.program.tables, *self.made}
        roles: dict[tuple[str, int], set[Role]] = defaultdict(set)
        for step in self.program.steps:
            names = step.operands
            # A lookup makes a value of a table: which rows it takes is the input's choice, more often than not.
            if all(name in self.known for name in names) and not isinstance(step, Mix):
                self._derive(step)
                continue
            for slot, name in enumerate(names):
                for k, origins in self.made.get(name, {}).items():
                    for origin in origins:
                        roles[origin] |= self._roles(step, slot, k)
        self.found: Flow = {origin: frozenset(found) for origin, found in roles.items()}

    def _derive(self, step: Step) -> None:
        """What a step makes of weights is another layout of them: its axes are known by their factors."""
        origins: dict[int, set[tuple[str, int]]] = defaultdict(set)
        for name in step.operands:
            for k, mine in self.made.get(name, {}).items():
                for leaf in self._leaves(name, k):
                    origins[leaf] |= mine
        for name in step.results:
            self.known.add(name)
            self.made[name] = {
                k: frozenset(origin for leaf in self._leaves(name, k) for origin in origins.get(leaf, ()))
                for k in range(len(self.axes.of.get(name, ())))
            }

    def _leaves(self, name: str, axis: int) -> set[int]:
        return set(self.axes.factors.leaves(self.axes.of[name][axis]))

    @staticmethod
    def _roles(step: Step, slot: int, axis: int) -> set[Role]:
        if not isinstance(step, Einsum):
            return {"writes"}
        kept = step.kept
        labels = step.specs[slot][axis]
        return {"writes" if label in kept else "reads" for label in labels}


@dataclass(frozen=True, slots=True)
class Pinned:
    """A stored tensor all of whose axes are pinned."""

    tensor: str
    parameters: int
    reason: str
    """Why its units stay where they are, axis by axis, without the nodes."""


def pinned(symmetry: Symmetry, structure: Structure) -> tuple[Pinned, ...]:
    """What the coverage counts as pinned, tensor by tensor."""
    program, axes = structure.program, structure.axes
    moved = {name for generator in symmetry.generators if generator.exact for name in generator.tensors}
    elsewhere = moved | {item.tensor for item in symmetry.opaque}
    held: dict[str, list[str]] = {}
    for name, stored in program.weights.items():
        held.setdefault(stored, []).append(name)
    found = []
    for stored, size in program.parameters.items():
        if stored in elsewhere or stored not in held:
            continue
        leaves = [x for name in held[stored] for f in axes.of[name] for x in axes.factors.leaves(f)]
        pins = [axes.factors.pins.get(x) for x in leaves if axes.factors.size(x) > 1]
        words = [pin.text for pin in pins if pin is not None]
        if len(words) == len(pins):
            found.append(Pinned(stored, size, ", ".join(dict.fromkeys(words)) or "a single number"))
    return tuple(found)


MARK = "*"


def readable(model: Model) -> dict[str, str]:
    """Stored tensor -> the name to show: its own, or one from the node that reads it, with a star; safe to print."""
    names = Names(model)
    return {name: printable(names.tensor(name)) + MARK * (name in names.borrowed) for name in model.tensors}


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


def as_json(symmetry: Symmetry) -> str:
    """The symmetries as one JSON document."""
    model = symmetry.model
    spaces = [
        {
            "id": space.id,
            "size": space.size,
            "copies": space.copies,
            "name": space.name,
            "tensors": [{"name": place.tensor, "axis": place.axis, "layout": place.layout} for place in space.places],
            "why": list(space.reasons),
        }
        for space in symmetry.spaces
    ]
    return dump(
        {
            "schema_version": "1",
            "model": {
                "path": model.path,
                "sha256": model.sha256,
                "opset": model.opset,
                "producer": model.producer,
            },
            "parameters": shares(symmetry.coverage),
            "dimension": symmetry.dimension,
            "spaces": spaces,
            "generators": [_record(generator) for generator in symmetry.generators],
            "opaque": [asdict(opaque) for opaque in symmetry.opaque],
            "states": [_state(state) for state in model.states],
        }
    )


def _record(generator: Generator) -> dict[str, object]:
    """Its fields, which are plain values: a deep copy of each would take longer than to write them."""
    return {field.name: getattr(generator, field.name) for field in fields(generator)}


def _state(state: State) -> dict[str, object]:
    return {
        "input": state.input,
        "output": state.output,
        "axes": list(state.axes),
        "source": state.source,
        "start": state.start,
        "closed": state.closed,
    }


def unread(problem: UnreadableModel) -> str:
    """The document of a file that could not be read: empty, with the reason under ``error``."""
    return dump(
        {
            "schema_version": "1",
            "model": {"path": problem.path, "sha256": "", "opset": 0, "producer": ""},
            "parameters": shares(Coverage(0, 0, 0, 0)),
            "dimension": 0,
            "spaces": [],
            "generators": [],
            "opaque": [],
            "states": [],
            "error": {"rule": problem.code, "reason": problem.reason},
        }
    )


COLUMNS = (
    *("generator", "kind", "group", "dimension", "exact"),
    *("space", "symbol", "name", "size", "copies", "writers", "readers", "parameters", "tensors"),
)


def as_csv(symmetry: Symmetry, flow: Flow | None = None) -> str:
    """One line per generator under the names of the columns."""
    return comma_separated(COLUMNS, _lines(symmetry, flow or {}))


def _lines(symmetry: Symmetry, flow: Flow) -> Iterator[list[object]]:
    shown = readable(symmetry.model)
    symbols = {space.id: row for row in rows(symmetry, flow, shown, collapse=False) for space in row.spaces}
    spaces = {space.id: space for space in symmetry.spaces}
    for generator in symmetry.generators:
        row = [*_generator(generator), *_space(spaces.get(generator.space or ""), symbols, flow)]
        moved = [symmetry.model.tensors[name].size for name in generator.tensors if name in symmetry.model.tensors]
        yield [*row, sum(moved), cell("; ".join(map(printable, generator.tensors)))]


def _generator(generator: Generator) -> Iterator[object]:
    yield from (cell(generator.id), generator.kind, cell(generator.group))
    yield from (generator.dimension, str(generator.exact).lower())


def _space(space: Space | None, symbols: Mapping[str, Row], flow: Flow) -> Iterator[object]:
    if space is None:
        yield from [""] * 7
        return
    yield from (cell(space.id), symbols[space.id].symbol, cell(printable(space.name)), space.size, space.copies)
    roles: tuple[Role, Role] = ("writes", "reads")
    for role in roles:
        yield len({place.tensor for place in space.places if role in flow.get((place.tensor, place.axis), ())})


_HEAD = """\
  rankdir=LR;
  node [fontname="Helvetica", fontsize=10];
  edge [arrowsize=0.6];
"""


def as_dot(symmetry: Symmetry, flow: Flow | None = None) -> str:
    """The graph in the dot language."""
    lines = "".join(f"  {line};\n" for line in _statements(symmetry, flow or {}))
    return f"digraph symlint {{\n{_HEAD}{lines}}}\n"


def _statements(symmetry: Symmetry, flow: Flow) -> Iterator[str]:
    shown = readable(symmetry.model)
    yield f"label={quoted(printable(symmetry.model.path))}"
    kinds: dict[str, dict[str, None]] = {}
    for generator in symmetry.generators:
        kinds.setdefault(generator.space or "", {})[generator.kind] = None
    for row in rows(symmetry, flow, shown, collapse=False):
        yield f"{_key(row.spaces[0].id)} [{_ellipse(row, list(kinds.get(row.spaces[0].id, ())))}]"
    tensors = dict.fromkeys(place.tensor for space in symmetry.spaces for place in space.places)
    keys = {name: f'"t{number}"' for number, name in enumerate(tensors)}
    for name, key in keys.items():
        tensor = symmetry.model.tensors.get(name)
        shape = " x ".join(map(str, tensor.shape)) if tensor else ""
        yield f"{key} [shape=box, label={quoted(shown.get(name, printable(name)), shape)}]"
    for space in symmetry.spaces:
        edges = {_edge(place, _key(space.id), keys[place.tensor], flow): None for place in space.places}
        yield from edges


def _ellipse(row: Row, kinds: list[str]) -> str:
    space = row.spaces[0]
    size = count(space.size, "unit") + (f" in {space.copies:,} copies" if space.copies > 1 else "")
    head = f"{row.symbol} ({printable(space.id)})"
    return f'shape=ellipse, style=filled, fillcolor="lightblue", label={quoted(head, size, ", ".join(kinds))}'


def _edge(place: Place, space: str, tensor: str, flow: Flow) -> str:
    label = f"xlabel={quoted(f'axis {place.axis}')}"
    roles = flow.get((place.tensor, place.axis), frozenset())
    if roles == {"reads"}:
        return f"{space} -> {tensor} [{label}]"
    direction = {0: ", dir=none", 2: ", dir=both"}.get(len(roles), "")
    return f"{tensor} -> {space} [{label}{direction}]"


def _key(space: str) -> str:
    return quoted(f"space {printable(space)}")


def quoted(*lines: str) -> str:
    r"""A string of the dot language: a backslash in a name is no escape, and a quote does not end it.

    >>> print(quoted('a"b', r"c\n"))
    "a\"b\nc\\n"
    """
    escaped = (line.replace("\\", "\\\\").replace('"', '\\"') for line in lines if line)
    return '"' + "\\n".join(escaped) + '"'
