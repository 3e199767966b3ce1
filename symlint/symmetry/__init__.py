"""Symmetry: the spaces that a network's parameters hold, and the generators that act on them.

It may import `symlint.operators` and what stands before it.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    """What packages of rules take from here."""
    if name in ("Generator", "Place", "Space", "Symmetry"):
        return getattr(import_module("symlint.symmetry.spaces"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
