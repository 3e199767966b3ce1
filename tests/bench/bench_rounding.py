"""Measures what `fix --target int8` and `int4` gain: signal to noise of quantised networks, on inputs not searched on.

    python tests/bench/bench_rounding.py int8|int4 MODELS [--json FILE]

Each network is brought where onnxruntime's quantiser rounds it least, as `fix` does it, with all moves and without
rotations, and quantised then and before on other inputs than the search had: twice six sets, each calibrated on a set
of its own. All is in decibels of the outputs; 6 dB are one bit. Where no move is made the file is the same.
"""

# ruff: noqa: T201  (a script talks)
from __future__ import annotations

import argparse
import json
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from symlint.model.load import load
from symlint.repair import rounding
from symlint.runtime.precision import BITS, Quantiser

UNSEEN = (1000, 2000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", choices=BITS)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows = []
    for path in given.models:
        with TemporaryDirectory() as folder:
            row = measured(path, given.target, Path(folder))
        rows.append(row)
        print(json.dumps(row), flush=True)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n")


def measured(path: Path, target: str, folder: Path) -> dict[str, object]:
    """One network: before, after, without rotations, and which moves were made."""
    model, every = load(str(path)), rounding.MOVES[target]
    with Quantiser(model, target, 0, {}) as judge:
        found = rounding.sought(path, {}, judge, folder)
        if found is None:
            return {"model": path.stem, "target": target, "failure": "not quantised"}
        made = [name for name, _, kept in found.tried if kept]
        plain = found
        if any("rotation" in name for name in made):
            rounding.MOVES = {target: tuple(move for move in every if "rotation" not in move[0])}
            (folder / "plain").mkdir()
            plain = rounding.sought(path, {}, judge, folder / "plain") or found
            rounding.MOVES = {target: every}
    scores: dict[str, list[float]] = {"before": [], "after": [], "without rotations": []}
    for seed in UNSEEN:
        with Quantiser(model, target, seed, {}) as judge:
            told = {one: judge.decibels(one) or () for one in {path, found.path, plain.path}}
        for name, one in zip(scores, (path, found.path, plain.path), strict=True):
            scores[name] += told[one]
    worst = min((b - a for a, b in zip(scores["before"], scores["after"], strict=True)), default=0.0)
    means = {name: round(float(np.mean(values)), 1) for name, values in scores.items()}
    return {"model": path.stem, "target": target, **means, "least gain of a set": round(worst, 1), "made": made}


if __name__ == "__main__":
    main()
