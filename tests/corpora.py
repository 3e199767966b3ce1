"""Where models are found, and which of the slow tests run: those of the repository, and the corpora beside it."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
FIXTURES = ROOT / "fixtures"
SHARED = Path(os.environ.get("SYMLINT_SHARED", ROOT.parent / "shared"))


@cache
def seed_of_sources() -> int:
    """A number that is another one for other sources: that of the files of the last commit, 0 where there is none."""
    command = ["git", "-C", str(ROOT), "rev-parse", "HEAD^{tree}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return int(done.stdout[:8], 16) if done.returncode == 0 else 0


def sample_seed() -> int:
    """What chooses among the slow tests on single networks: ``SYMLINT_SAMPLE``, else the sources."""
    return int(os.environ.get("SYMLINT_SAMPLE", seed_of_sources()))
