"""Spaces and tensors as a graph for Graphviz: arrows lead from writers to a space, and from it to its readers.

Spaces are ellipses and as large as their names; tensors are boxes. Edges have no direction where nothing tells it.
"""

from __future__ import annotations

from collections.abc import Iterator

from symlint.cli.report.inspection.flow import Flow
from symlint.cli.report.inspection.stored import readable
from symlint.cli.report.inspection.symbols import Row, rows
from symlint.cli.report.words import count, printable
from symlint.symmetry.spaces import Place, Symmetry

_HEAD = """\
  rankdir=LR;
  node [fontname="Helvetica", fontsize=10];
  edge [arrowsize=0.6];
"""


def graph(symmetry: Symmetry, flow: Flow | None = None) -> str:
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
        yield f"{_key(row.spaces[0].id)} [{_space(row, list(kinds.get(row.spaces[0].id, ())))}]"
    tensors = dict.fromkeys(place.tensor for space in symmetry.spaces for place in space.places)
    keys = {name: f'"t{number}"' for number, name in enumerate(tensors)}
    for name, key in keys.items():
        tensor = symmetry.model.tensors.get(name)
        shape = " x ".join(map(str, tensor.shape)) if tensor else ""
        yield f"{key} [shape=box, label={quoted(shown.get(name, printable(name)), shape)}]"
    for space in symmetry.spaces:
        edges = {_edge(place, _key(space.id), keys[place.tensor], flow): None for place in space.places}
        yield from edges


def _space(row: Row, kinds: list[str]) -> str:
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
