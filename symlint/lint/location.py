"""Where a finding is: its layer, as every table calls it, and a node with its operator."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from symlint.lint.finding import Finding
from symlint.model.naming import Names, Where
from symlint.symmetry.spaces import Space, Symmetry


def placed(findings: Iterable[Finding], symmetry: Symmetry) -> list[Finding]:
    """The findings with their places; that of a space is where it is written."""
    names = Names(symmetry.model)
    spaces = {space.id: space for space in symmetry.spaces}
    return [_placed(finding, spaces.get(finding.space or ""), names) for finding in findings]


def _placed(finding: Finding, space: Space | None, names: Names) -> Finding:
    tensor = space.places[0].tensor if space and space.places else names.chief(finding.tensors)
    layer = space.name if space else names.layer(tensor) if tensor else ""
    where = next(_nodes(finding, tensor, names), None)
    if where is None:
        return replace(finding, layer=layer or tensor, node=tensor, op="Initializer" if tensor else "")
    return replace(finding, layer=layer or where.node, node=where.node, op=where.op)


def _nodes(finding: Finding, tensor: str, names: Names) -> Iterator[Where]:
    """Nodes that a finding speaks of, the likeliest first."""
    facts = finding.facts
    if facts.get("op") and facts.get("nodes"):
        yield Where(str(facts["nodes"][0]) or str(facts["op"]), str(facts["op"]))
    if tensor and (where := names.where(tensor)):
        yield where
    if (value := facts.get("input")) is not None:
        yield names.where(str(value)) or Where(str(value), "Input")
    if (value := facts.get("output")) is not None:
        yield names.written(str(value)) or Where(str(value), "Output")
