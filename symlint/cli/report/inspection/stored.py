"""Stored tensors as they are shown: a star says that the file stores one under another name."""

from __future__ import annotations

from symlint.cli.report.words import printable
from symlint.model.graph import Model
from symlint.model.naming import Names

MARK = "*"


def readable(model: Model) -> dict[str, str]:
    """Stored tensor -> the name to show: its own, or one from the node that reads it, with a star; safe to print."""
    names = Names(model)
    return {name: printable(names.tensor(name)) + MARK * (name in names.borrowed) for name in model.tensors}
