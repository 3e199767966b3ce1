"""What `symlint fix` makes of a folder of models: a Markdown table of sizes, times and differences.

    python tests/bench/bench_fix.py [PATHS ..] [--absorb]

Parameters, bytes and the median time of a run before and after, the largest difference of the outputs relative to the
largest output, and why what was found is left. Models in which nothing is found are counted in the last line.
"""

# ruff: noqa: T201  (a script talks)
from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

SHARED = Path(__file__).parents[3] / "shared" / "models"


def fixed(path: Path, options: list[str]) -> dict[str, Any]:
    """The document that the command prints."""
    with TemporaryDirectory() as folder:
        out = Path(folder) / "out.onnx"
        command = [sys.executable, "-m", "symlint", "fix", str(path), "-o", str(out), "-f", "json", *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    return json.loads(done.stdout) if done.stdout else {"outcome": done.stderr.strip()}


def row(path: Path, document: dict[str, Any]) -> str:
    """One line of the table."""
    if "before" not in document:
        return f"| {path.stem} | {document['outcome']} | | | | |"
    before, after, proof = document["before"], document["after"], document["proof"] or {}
    parts = [f"{before[key]:,} → {after[key]:,}" for key in ("parameters", "bytes")]
    times = [f"{1e3 * cost['latency']:.3g}" if cost["latency"] else "-" for cost in (before, after)]
    difference = f"{proof['difference']:.1e}" if proof.get("difference") is not None else proof.get("reason", "-")
    why = "; ".join(f"{one['rule']}: {one['reason']}" for one in document["left"])
    return f"| {path.stem} | {parts[0]} | {parts[1]} | {' → '.join(times)} | {difference} | {why} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paths", nargs="*", type=Path, default=[SHARED])
    parser.add_argument("--absorb", action="store_true", help="drop redundant biases as well")
    given = parser.parse_args()
    files = [f for p in given.paths for f in (sorted(p.glob("*.onnx")) if p.is_dir() else [p])]
    print("| model | parameters | bytes | ms | difference | left |\n|---|---|---|---|---|---|")
    untouched = 0
    for path in files:
        document = fixed(path, ["--absorb"] if given.absorb else [])
        if document["outcome"] == "unchanged" and not document["left"]:
            untouched += 1
        else:
            print(row(path, document), flush=True)
    print(f"\n{untouched} of {len(files)}: nothing to repair")


if __name__ == "__main__":
    main()
