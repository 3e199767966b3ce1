"""Program: the model in a few primitives, which every analysis interprets.

It may import `symlint.model`.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    """What packages of rules take from here."""
    if name in ("Program", "Step"):
        return getattr(import_module("symlint.program.steps"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
