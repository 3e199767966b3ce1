"""What `symlint inspect` says as one JSON document."""

from __future__ import annotations

from dataclasses import asdict, fields

from symlint.cli.report.json import dump, shares
from symlint.model.errors import UnreadableModel
from symlint.model.states.state import State
from symlint.symmetry.spaces import Coverage, Generator, Symmetry


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
