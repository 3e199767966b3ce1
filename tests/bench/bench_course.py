"""Checkpoints of one training in `symlint profile`: how `fixtures/decayed_cnn.onnx` came to its dead units.

    pip install '.[train]'
    python tests/bench/bench_course.py [--folder FOLDER] [--count N]

Trains as `fixtures/train.py` does, which takes some minutes; checkpoints that are in the folder already are taken as
they are. Kept are the first step and others at even distances. The trajectory is asked for once: as CSV and as a page
with its plots. Then every pair of neighbours goes through `symlint diff`, whose live units and widths have to be its.
"""

# ruff: noqa: T201  (a script talks)
from __future__ import annotations

import argparse
import csv
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from click.testing import CliRunner

import symlint
from symlint.cli.main import cli

FIXTURES = Path(__file__).parents[2] / "fixtures"
DECAY = 0.006


def trained(folder: Path, count: int) -> list[Path]:
    """The checkpoints, in order of time."""
    known = sorted(folder.glob("step-*.onnx"))
    if known:
        return known
    sys.path.insert(0, str(FIXTURES))
    import torch
    import train

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    kept = {max(1, k * train.STEPS // (count - 1)) for k in range(count)}

    def seen(step: int, net: torch.nn.Sequential) -> None:
        if step in kept:
            train.save_classifier(folder / f"step-{step:06}.onnx", net)

    train.classifier(DECAY, seen)
    return sorted(folder.glob("step-*.onnx"))


def told(paths: Sequence[Path], folder: Path) -> list[dict[str, str]]:
    """The rows of the trajectory's CSV; beside it lies its page."""
    start = time.process_time()
    outputs = [f"--output={kind}={folder / f'course.{kind}'}" for kind in ("csv", "html")]
    done = CliRunner().invoke(cli, ["profile", *map(str, paths), *outputs], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    print(done.stdout)
    print(f"{len(paths)} checkpoints: {time.process_time() - start:.1f} CPU s")
    with (folder / "course.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def same(paths: Sequence[Path], rows: Sequence[dict[str, str]]) -> int:
    """Asserts that `diff` tells the numbers of the rows, pair by pair; how many there are."""
    found = {(row["model"], row["space"]): row for row in rows}
    compared = 0
    for old, new in pairwise(paths):
        for change in symlint.diff(old, new).spaces:
            pair = [(old, change.old), (new, change.new)]
            mine = [found[str(path), state.id] for path, state in pair]
            assert mine[0]["series"] == mine[1]["series"]
            for row, (_, state) in zip(mine, pair, strict=True):
                width = "" if state.width is None else str(float(f"{state.width:.5g}"))
                live = "" if state.live is None else str(state.live)
                assert (row["live"], row["effective_width"]) == (live, width), (row, state)
                compared += 2
    return compared


def main() -> None:
    """Train, ask, compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--folder", type=Path, help="for the checkpoints, the CSV and the page; a temporary one by default"
    )
    parser.add_argument("--count", type=int, default=20, help="checkpoints")
    options = parser.parse_args()
    with TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        paths = trained(folder, options.count)
        rows = told(paths, folder)
        print(f"{same(paths, rows):,} numbers are those of symlint diff")


if __name__ == "__main__":
    main()
