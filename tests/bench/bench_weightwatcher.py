"""What `symlint profile` and WeightWatcher's `analyze()` say of a network, and of the same one rescaled.

    pip install '.[torch,bench]'
    python tests/bench/bench_weightwatcher.py [FILE ...] [--seed N]

Each network is measured as it is and after `symlint teleport --kinds rescaling`, which `symlint verify` has to confirm
in onnxruntime: no output changes. Then every table ought to be the same. Of each tool: its columns and rows, CPU
seconds for one file (reading and measuring, without imports, one thread) and how much of its table moved. WeightWatcher
gives each layer an exponent and a verdict (over-trained below 2, under-trained above 6); of symlint's numbers all are
compared, to 0.3%, as the tests do. The table goes to stdout as Markdown.
"""

# ruff: noqa: T201  (a script talks, and numpy reads its number of threads once)
from __future__ import annotations

import os

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import argparse
import contextlib
import io
import logging
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import isnan
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
import weightwatcher

import symlint

ROOT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("SYMLINT_SHARED", ROOT.parent / "shared"))
DEFAULT = (
    ROOT / "fixtures/decayed_cnn.onnx",
    *(SHARED / f"models/{name}.onnx" for name in ("marabou-cifar-deep-kw", "superres-subpixel-cnn")),
    *(SHARED / f"models/{name}.onnx" for name in ("ultraface-slim-320", "mtcnn-onet")),
)
CLOSE = 3e-3
KEYS = ("model", "space", "series", "noise")
"""Columns that say which row it is, or how exactly its numbers are stored."""
Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Table:
    """What a tool says of a file."""

    rows: Rows
    columns: int
    seconds: float


def watched(path: Path) -> Rows:
    """WeightWatcher's table."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        frame = weightwatcher.WeightWatcher(model=onnx.load(path)).analyze()
    return list(frame.to_dict("records"))


def profiled(path: Path) -> Rows:
    """symlint's table."""
    return symlint.profile(path).to_dicts()


def timed(tool: Callable[[Path], Rows], path: Path) -> Table:
    start = time.process_time()
    rows = tool(path)
    return Table(rows, len(rows[0]) if rows else 0, time.process_time() - start)


def same(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) <= CLOSE * max(abs(one), abs(other)) or (isnan(one) and isnan(other))
    return one == other


def moved(one: Rows, other: Rows) -> int:
    """Rows of which some number is another one."""
    pairs = zip(one, other, strict=True)
    return sum(any(not same(a[k], b[k]) for k in a if k not in KEYS) for a, b in pairs)


def teleported(path: Path, folder: Path, seed: int) -> Path:
    """The same network in another gauge, which onnxruntime has confirmed."""
    target = folder / path.name
    command = [sys.executable, "-m", "symlint"]
    move = ["teleport", str(path), "-o", str(target), "--kinds", "rescaling", "--seed", str(seed)]
    subprocess.run([*command, *move], check=True, capture_output=True)
    subprocess.run([*command, "verify", str(path), str(target)], check=True, capture_output=True)
    return target


def verdicts(rows: Rows) -> str:
    words = [row["warning"] for row in rows]
    return ", ".join(str(words.count(word)) for word in ("over-trained", "under-trained", ""))


def compared(path: Path, folder: Path, seed: int) -> str:
    """The line of a network."""
    other = teleported(path, folder, seed)
    old, new = timed(watched, path), timed(watched, other)
    changed = sum(a["warning"] != b["warning"] for a, b in zip(old.rows, new.rows, strict=True))
    mine, still = timed(profiled, path), timed(profiled, other)
    sizes = [f"{len(one.rows)} x {one.columns}, {one.seconds:.2f} s" for one in (old, mine)]
    said = [f"{verdicts(old.rows)} -> {verdicts(new.rows)}", f"{changed} of {len(old.rows)}"]
    return f"| {' | '.join([path.stem, *sizes, *said, f'{moved(mine.rows, still.rows)} of {len(mine.rows)}'])} |"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path, default=list(DEFAULT))
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    with TemporaryDirectory() as folder:
        for tool in (watched, profiled):  # what is imported when it is first used is no cost of a file
            tool(options.models[0])
        lines = [compared(path, Path(folder), options.seed) for path in options.models]
    print("| | WeightWatcher | symlint profile | over-trained, under-trained, fine | change | symlint's rows that do |")
    print("|---|--:|--:|--:|--:|--:|")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
