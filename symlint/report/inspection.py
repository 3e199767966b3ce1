"""What `symlint inspect` shows: spaces with their layouts, generators, coverage, and what is opaque."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from symlint.errors import UnreadableModel
from symlint.report import Style
from symlint.report.full import coverage, typeset
from symlint.report.json import dump
from symlint.report.words import count, listed, printable
from symlint.symmetry import Coverage, Generator, Space, Symmetry

_PLACES_SHOWN, _NODES_SHOWN = 4, 4


def document(symmetry: Symmetry) -> str:
    """The symmetries as one JSON document."""
    model = symmetry.model
    spaces = [
        {
            "id": space.id,
            "size": space.size,
            "copies": space.copies,
            "name": space.name,
            "tensors": [{"name": place.tensor, "axis": place.axis, "layout": place.layout} for place in space.places],
            "why": list(space.why),
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
            "parameters": asdict(symmetry.coverage),
            "dimension": symmetry.dimension,
            "spaces": spaces,
            "generators": [asdict(generator) for generator in symmetry.generators],
            "opaque": [asdict(opaque) for opaque in symmetry.opaque],
        }
    )


def unread(problem: UnreadableModel) -> str:
    """The document of a file that could not be read: empty, with the reason under ``error``."""
    return dump(
        {
            "schema_version": "1",
            "model": {"path": problem.path, "sha256": "", "opset": 0, "producer": ""},
            "parameters": asdict(Coverage(0, 0, 0, 0)),
            "dimension": 0,
            "spaces": [],
            "generators": [],
            "opaque": [],
            "error": {"rule": problem.code, "reason": problem.reason},
        }
    )


def table(symmetry: Symmetry, style: Style) -> str:
    """The symmetries for people: one tree per space, then what is opaque."""
    return typeset(_blocks(symmetry, style), style)


def _blocks(symmetry: Symmetry, style: Style) -> Iterator[RenderableType]:
    model = symmetry.model
    yield Text(printable(model.path), style="bold")
    producer = f", from {printable(model.producer)}" if model.producer else ""
    yield Text(f"  opset {model.opset}{producer}; {count(len(model.graph.nodes), 'node')}", style="dim")
    yield Text(f"  {coverage(symmetry.coverage)}", style="dim")
    kinds = listed(_kinds(symmetry))
    yield Text(f"  {count(symmetry.dimension, 'continuous direction')}; generators: {kinds or 'none'}\n", style="dim")
    generators: dict[str, list[Generator]] = defaultdict(list)
    for generator in symmetry.generators:
        generators[generator.space].append(generator)
    for space in symmetry.spaces:
        yield _space(space, generators[space.id], verbose=style.verbose)
    if symmetry.opaque:
        yield Text(f"\nopaque: {count(symmetry.coverage.opaque, 'parameter')}", style="bold")
        yield _opaque(symmetry, verbose=style.verbose)


def _kinds(symmetry: Symmetry) -> Iterator[str]:
    kinds = [generator.kind for generator in symmetry.generators]
    return (f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds)))


def _space(space: Space, generators: list[Generator], *, verbose: bool) -> Tree:
    size = count(space.size, "unit") + (f" in {space.copies:,} copies" if space.copies > 1 else "")
    tree = Tree(Text.assemble((printable(space.id), "cyan"), "  ", (printable(space.name), "bold"), f"  {size}"))
    alike = Counter((g.kind, g.group, g.dimension, g.exact) for g in generators)
    for (kind, group, dimension, exact), times in alike.items():
        many = f"{times} x " if times > 1 else ""
        grade = f", dimension {dimension:,}" if dimension else ""
        tree.add(Text.assemble(many, (kind, "green"), f" {group}{grade}", "" if exact else " (approximate)"))
    shown = space.places if verbose else space.places[:_PLACES_SHOWN]
    for place in shown:
        tree.add(Text(f"{printable(place.tensor)} axis {place.axis}: {printable(place.layout)}", overflow="fold"))
    if len(shown) < len(space.places):
        tree.add(Text(f"{len(space.places) - len(shown)} more tensors (-v shows them)", style="dim"))
    if verbose and space.why:
        tree.add(Text(f"why: {'; '.join(map(printable, space.why))}", style="dim"))
    return tree


def _opaque(symmetry: Symmetry, *, verbose: bool) -> Table:
    """One row per operator and reason: what it hides, and where."""
    groups: dict[tuple[str, str], list[tuple[int, str]]] = defaultdict(list)
    for item in symmetry.opaque:
        groups[item.op, item.reason].append((item.parameters, item.node))
    rows = Table("operator", "parameters", "nodes", "reason", box=None, pad_edge=False, header_style="dim")
    rows.columns[1].justify = "right"
    for (op, reason), members in sorted(groups.items(), key=lambda group: -sum(size for size, _ in group[1])):
        nodes = listed(dict.fromkeys(printable(node) for _, node in members), None if verbose else _NODES_SHOWN)
        rows.add_row(
            Text(printable(op)),
            f"{sum(size for size, _ in members):,}",
            Text(nodes, overflow="fold"),
            Text(printable(reason)),
        )
    return rows
