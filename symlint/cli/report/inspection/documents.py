"""What `symlint inspect` tells machines: JSON, comma-separated values, a graph."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields

from symlint.cli.report.data import comma_separated, dump, shares
from symlint.cli.report.inspection.flow import Flow, Role
from symlint.cli.report.inspection.symbols import Row, readable, rows
from symlint.cli.report.words import cell, count, printable
from symlint.model.errors import UnreadableModel
from symlint.model.state import State
from symlint.symmetry.spaces import Coverage, Generator, Place, Space, Symmetry


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
