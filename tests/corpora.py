"""Where models are found, and which of the slow tests run: those of the repository, and the corpora beside it."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).parents[1]
FIXTURES = ROOT / "fixtures"
SHARED = Path(os.environ.get("SYMLINT_SHARED", ROOT.parent / "shared"))


def seed_of_day() -> int:
    """A number that is another one each day, the same all over the world."""
    return int(datetime.now(timezone.utc).strftime("%Y%m%d"))


def sample_seed() -> int:
    """What chooses among the slow tests on single networks: ``SYMLINT_SAMPLE``, else the day."""
    return int(os.environ.get("SYMLINT_SAMPLE", seed_of_day()))
