"""Evidence: the questions that rules ask of a network, each answered once.

It may import `symlint.analysis` and what stands before it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    """What packages of rules take from here."""
    if name == "Context":
        return getattr(import_module("symlint.evidence.context"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
