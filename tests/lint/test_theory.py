"""What the theory predicts of trained networks is what symlint finds in them: the stored experiments, and short ones.

`tests/bench/theory` trains the networks and compares; see its README.
"""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from corpora import ROOT

BENCH = ROOT / "tests" / "bench" / "theory"
EXPERIMENTS = (
    "diagonal",
    "factorisation",
    "relu_student",
    "tanh_student",
    "gradient_noise",
    "attention",
    "convolution",
    "constant_start",
    "static_bias",
    "remedies",
)
SEEDS = 5


def series(folder: Path, experiment: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "results" / f"{experiment}.json").read_text())["series"]
    return found


def disagreements(one: dict[str, Any]) -> list[str]:
    """Counts have to be equal in the median, values within 5% of what was predicted."""
    medians = [median(values) for values in one["measured"]]
    if one["kind"] == "rising":
        return [f"{b} after {a}" for a, b in pairwise(medians) if b < a]
    least = min((abs(p) for p in one["predicted"] if p), default=0.0)
    share = 0.0 if one["kind"] == "count" else 0.05
    rows = zip(one["at"], medians, one["predicted"], strict=True)
    return [f"{x}: {m}, not {p}" for x, m, p in rows if not abs(m - p) <= share * max(abs(p), least)]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_stored_measurements_agree_with_the_theory(experiment: str) -> None:
    for one in series(BENCH, experiment):
        assert one["kind"] in ("count", "value", "rising")
        assert min(map(len, one["measured"])) >= SEEDS
        assert not disagreements(one), one["name"]


def test_every_experiment_is_stored_drawn_and_told_of() -> None:
    told = (BENCH / "README.md").read_text()
    for experiment in EXPERIMENTS:
        assert (BENCH / f"{experiment}.py").is_file()
        assert f"](figures/{experiment}.svg)" in told
        assert (BENCH / "figures" / f"{experiment}.svg").is_file()
    assert {path.stem for path in (BENCH / "results").iterdir()} == set(EXPERIMENTS)


@pytest.fixture(scope="session")
def again(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of short versions of all experiments; about a minute."""
    for module in ("torch", "matplotlib"):
        pytest.importorskip(module, reason="pip install '.[compare,bench]' to train the networks again")
    folder = tmp_path_factory.mktemp("theory")
    command = [sys.executable, str(BENCH / "run.py"), "--short", "--seeds", "2", "--into", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_networks_trained_anew_agree_with_the_theory(experiment: str, again: Path) -> None:
    for one in series(again, experiment):
        assert not disagreements(one), one["name"]
