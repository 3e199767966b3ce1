"""What is accepted, in words: by whom, until when and why, and what of it is needed no more."""

from __future__ import annotations

from collections.abc import Iterator

from symlint.audit.outcome import Run
from symlint.cli.report.words import printable
from symlint.lint.finding import Finding


def acceptance(finding: Finding) -> str:
    """By whom a finding is accepted, until when and why; empty where it is not."""
    if finding.accepted is None:
        return ""
    until = f" until {finding.accepted.expires}" if finding.accepted.expires else ""
    why = f" ({printable(finding.accepted.reason)})" if finding.accepted.reason else ""
    return f"accepted by the {finding.accepted.by}{until}{why}"


def standing(run: Run) -> Iterator[str]:
    """What was declared or accepted beforehand and meets nothing, a line each."""
    for name in run.unmet:
        yield f"mirror {printable(repr(name))}: no model has any of its tensors"
    for declared in run.unmet_equivariances:
        yield f"equivariance {printable(repr(declared))}: no model has its input"
    for name in run.unmet_inputs:
        yield f"input {printable(repr(name))}: no model has it, and what is declared of it means nothing"
    for gone in run.standing.gone:
        where = f" at {printable(gone.layer)}" if gone.layer else ""
        yield f"gone: {gone.rule}{where} of {printable(gone.path)}, {gone.amount}; --prune-baseline takes it out"
    for item in run.standing.expired:
        yield f"accepted until {item.expires} only: {printable(f'{item.place}, in {item.origin}')}"
    for item in run.standing.unused:
        yield f"accepted and not found: {printable(f'{item.place}, in {item.origin}')}"
