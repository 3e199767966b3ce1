"""Trains what the theory speaks of, and compares what symlint finds in it with what was predicted.

    pip install '.[compare,bench]'
    python tests/bench/theory/run.py [EXPERIMENT...] [--seeds N] [--short] [--into FOLDER]

Writes results/NAME.json and figures/NAME.svg beside this file, or into another folder; the exit code is 1 where a
measurement misses its prediction.
"""

# ruff: noqa: T201  (a script talks)
from __future__ import annotations

import argparse
import sys
import time
from importlib import import_module
from pathlib import Path

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


def main() -> int:
    """Run experiments, print a line for each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("experiment", nargs="*", help=f"some of {', '.join(EXPERIMENTS)}; all by default")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--short", action="store_true", help="fewer decays and steps")
    parser.add_argument("--into", type=Path, default=Path(__file__).parent)
    options = parser.parse_args()
    missed = 0
    for name in options.experiment or EXPERIMENTS:
        start = time.process_time()
        result = import_module(name).run(seeds=options.seeds, short=options.short)
        result.save(options.into)
        misses = result.misses()
        missed += len(misses)
        print(
            f"{name}: {len(misses)} misses, {time.process_time() - start:.0f} s of processor time",
            *misses,
            sep="\n  ",
            flush=True,
        )
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
