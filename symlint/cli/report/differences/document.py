"""What `symlint diff` tells, as one document for machines."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from symlint.cli.report.differences.weights import STATUS, verb
from symlint.cli.report.json import dump, written
from symlint.comparison.change.weights import Change
from symlint.comparison.compare import Comparison
from symlint.comparison.course.course import SpaceChange
from symlint.comparison.course.state import State
from symlint.comparison.verdict import Grown
from symlint.model.errors import UnreadableModel


def as_json(found: Comparison) -> str:
    """One document for machines."""
    verdicts = found.findings
    return dump(
        {
            "schema_version": "1",
            "verdict": found.verdict,
            "exit_code": found.exit_code,
            "old": {"path": found.old.path, "sha256": found.old.sha256},
            "new": {"path": found.new.path, "sha256": found.new.sha256},
            "findings": {
                "new": [written(f) for f in verdicts.new],
                "gone": [written(f) for f in verdicts.gone],
                "worse": [_grown(g) for g in verdicts.worse],
                "better": [_grown(g) for g in verdicts.better],
                "kept": verdicts.kept,
            },
            "weights": {
                "total": found.total,
                "matched": found.matched,
                "unmatched_old": [weight.name for weight in found.unmatched_old],
                "unmatched_new": [weight.name for weight in found.unmatched_new],
                **{name.replace(" ", "_"): found.counts[name] for name in STATUS},
                "unchanged": found.unchanged,
                "unrelated": found.unrelated,
                "repairs": [asdict(one) | {"verb": verb(one)} for one in found.repairs],
                "tensors": [_change(change) for change in found.changes],
            },
            "spaces": [_space(space) for space in found.spaces],
            "operators": {op: list(pair) for op, pair in found.operators.items() if pair[0] != pair[1]},
            "nodes": {"same": found.nodes.same, "changed": [asdict(edit) for edit in found.nodes.edits]},
        }
    )


def unread(old: str, new: str, problem: UnreadableModel, code: int) -> str:
    """The document where one of the files could not be read."""
    empty: dict[str, Any] = {"findings": {"new": [], "gone": [], "worse": [], "better": [], "kept": 0}}
    return dump(
        {"schema_version": "1", "verdict": "incomplete", "exit_code": code, "old": {"path": old}, "new": {"path": new}}
        | empty
        | {
            "weights": None,
            "spaces": [],
            "operators": {},
            "nodes": None,
            "problem": {"rule": problem.code, "message": str(problem)},
        }
    )


def _grown(grown: Grown) -> dict[str, Any]:
    return written(grown.new) | {"added": list(grown.added), "removed": list(grown.removed)}


def _change(change: Change) -> dict[str, Any]:
    rank = change.rank
    return {
        "old": change.old,
        "new": list(change.new),
        "shape": list(change.shape),
        "matched": change.matched,
        "status": change.status,
        "relative": change.relative,
        "rank": None if rank is None else rank.numerical,
        "effective_rank": None if rank is None else rank.effective,
        "dtypes": list(change.dtypes),
        "broken": change.broken,
        "new_shape": list(change.became) if change.became else None,
    }


def _space(one: SpaceChange) -> dict[str, Any]:
    return {"name": one.old.name, "old": _state(one.old), "new": None if one.new is None else _state(one.new)}


def _state(state: State) -> dict[str, Any]:
    return {"id": state.id, "units": state.units, "live": state.live, "width": state.width, "rank": state.rank}
