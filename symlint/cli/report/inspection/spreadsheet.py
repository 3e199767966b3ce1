"""The generators as comma-separated values: one line per generator, to be filtered, counted and summed by kind.

A line repeats what is known of the generator's space; those columns are empty where it has none. ``symbol`` is the one
of ``symlint inspect -v``; ``writers`` and ``readers`` are counts of tensors; ``parameters`` are the elements of all
tensors that the generator moves, which the last column lists. Spaces overlap: dimensions may sum to more than the
network's.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from io import StringIO

from symlint.cli.report.inspection.flow import Flow, Role
from symlint.cli.report.inspection.stored import readable
from symlint.cli.report.inspection.symbols import Row, rows
from symlint.cli.report.words import cell, printable
from symlint.symmetry.spaces import Generator, Space, Symmetry

COLUMNS = (
    *("generator", "kind", "group", "dimension", "exact"),
    *("space", "symbol", "name", "size", "copies", "writers", "readers", "parameters", "tensors"),
)


def table(symmetry: Symmetry, flow: Flow | None = None) -> str:
    """One line per generator under the names of the columns."""
    text = StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    shown = readable(symmetry.model)
    symbols = {space.id: row for row in rows(symmetry, flow or {}, shown, collapse=False) for space in row.spaces}
    spaces = {space.id: space for space in symmetry.spaces}
    for generator in symmetry.generators:
        row = [*_generator(generator), *_space(spaces.get(generator.space or ""), symbols, flow or {})]
        moved = [symmetry.model.tensors[name].size for name in generator.tensors if name in symmetry.model.tensors]
        writer.writerow([*row, sum(moved), cell("; ".join(map(printable, generator.tensors)))])
    return text.getvalue()


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
