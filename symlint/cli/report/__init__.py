"""Reporters: each turns a finished run into the text of one document, and prints nothing."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from symlint.model.records import dataclass

if TYPE_CHECKING:
    from symlint.audit.outcome import Run

# format -> module that holds it as `FORMAT_report`; imported when it is asked for, since rich takes its time
FORMATS = {
    "full": "full",
    "concise": "full",
    "json": "data",
    "jsonl": "data",
    "csv": "data",
    "sarif": "pipelines",
    "github": "pipelines",
    "junit": "pipelines",
    "markdown": "pipelines",
    "html": "page",
}
MACHINE = ("json", "jsonl", "csv", "sarif", "junit")
"""Formats of which nobody may read that there was no model."""


@dataclass(frozen=True, slots=True)
class Style:
    """How a document for people looks; machine formats ignore it."""

    width: int = 80
    color: bool = False
    verbose: bool = False
    quiet: bool = False
    notes: bool = False
    """Whether notes belong into alerts and annotations."""


class Reporter(Protocol):
    """What ``FORMAT_report`` of a module is."""

    def __call__(self, run: Run, style: Style) -> str:
        """The document, ending in a newline unless it is empty."""


def reporter(name: str) -> Reporter:
    """The reporter of a format in `FORMATS`."""
    return cast("Reporter", getattr(import_module(f"{__name__}.{FORMATS[name]}"), f"{name}_report"))
