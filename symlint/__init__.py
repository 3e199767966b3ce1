"""symlint: a linter for trained ONNX models.

`Finding`, `Level`, `Rule`, `Settings`, `Model` and `Symmetry` can be taken from here; they are imported when first
asked for, so that ``import symlint`` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Finding": "symlint.finding",
    "Level": "symlint.finding",
    "Model": "symlint.graph",
    "Rule": "symlint.rule",
    "Settings": "symlint.settings",
    "Symmetry": "symlint.symmetry",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
