"""Levels of findings."""

from __future__ import annotations

from enum import IntEnum


class Level(IntEnum):
    """How serious a finding is; ordered, so that thresholds compare."""

    NOTE = 1
    WARNING = 2
    ERROR = 3

    def __str__(self) -> str:
        return self.name.lower()
