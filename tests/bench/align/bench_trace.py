"""Whether `symlint trace` tells relatives from strangers: small networks of four architectures, changed in six ways.

    pip install '.[align,bench,train]'
    python tests/bench/align/bench_trace.py FOLDER

Twelve networks (an MLP, a CNN, an RNN, a transformer, three seeds each) learn scikit-learn's digits for 15 epochs,
four more learn other images. Every one of the twelve is changed: fine-tuned for an epoch on images that it has not
seen, half pruned, quantised to eight bits, given a new head (of five classes, and an epoch of training), moved along
all its symmetries, and several of these at once: pruned, given a new head, trained, moved, renamed, reordered. Related
pairs are each of these and its own origin; unrelated ones are each and the origin of the next seed, which was trained
on the same data, and each and the network of the other images. All of it twice: with files, and
with sketches of the origins. Networks are kept in FOLDER.
"""

# ruff: noqa: T201  (a script talks)

from __future__ import annotations

import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import torch
from trace_networks import ARCHITECTURES, copied, digits, exported, pruned, quantised, renamed, textures, train, trained

import symlint

SEEDS = 3
Scores = dict[tuple[str, str], list[float]]
"""Of relatives by architecture and change, of others by what they have learned and architecture."""


def moved(path: Path, out: Path, seed: int) -> Path:
    command = [sys.executable, "-m", "symlint", "teleport", path, "-o", out, "--seed", str(seed)]
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
    return out


def made(folder: Path) -> None:
    """All networks, each where it is not there yet."""
    first, second = digits(slice(0, 1200)), digits(slice(1200, None))
    five = (second[0], second[1] % 5)
    for kind in ARCHITECTURES:
        if not (path := folder / f"{kind}-other.onnx").exists():
            exported(trained(kind, textures(0), 9), path)
        for seed in range(SEEDS):
            base = folder / f"{kind}-{seed}.onnx"
            if base.exists():
                continue
            network = trained(kind, first, seed)
            kept = (network(second[0]).argmax(1) == second[1]).float().mean()
            print(f"{kind} {seed}: {kept:.3f} of held-out images right", flush=True)
            exported(train(copied(network, kind), second, 1, 2e-3, 100 + seed), folder / f"{kind}-{seed}.tuned.onnx")
            exported(pruned(copied(network, kind)), folder / f"{kind}-{seed}.pruned.onnx")
            exported(train(copied(network, kind, 5), five, 1, 2e-3, seed), folder / f"{kind}-{seed}.head.onnx")
            several = train(pruned(copied(network, kind, 5)), five, 1, 2e-3, 200 + seed)
            draft = exported(several, folder / "draft.tmp")
            renamed(moved(draft, folder / f"{kind}-{seed}.several.onnx", seed))
            draft.unlink()
            draft = exported(network, folder / f"{kind}-{seed}.draft")
            moved(draft, folder / f"{kind}-{seed}.moved.onnx", seed)
            quantised(draft, folder / f"{kind}-{seed}.int8.onnx", kind)
            draft.rename(base)


def told(scores: Scores) -> None:
    for (row, column), values in scores.items():
        print(f"{row:12s} {column:12s} {len(values):3d} pairs: {min(values):.3f} to {max(values):.3f}")
    strange = [v for (row, _), values in scores.items() if row in ("same data", "other data") for v in values]
    related = [v for (row, _), values in scores.items() if row in ARCHITECTURES for v in values]
    wins = sum((a > b) + 0.5 * (a == b) for a in related for b in strange)
    print(f"{len(related)} related, least {min(related):.3f}; {len(strange)} unrelated, most {max(strange):.3f}")
    print(f"AUC {wins / len(related) / len(strange):.4f}")


def scored(folder: Path, suffix: str, kind: str, seed: int, scores: Scores) -> None:
    """The scores of all changes of a network beside their origin, and beside two networks that have another one."""
    for path in sorted(folder.glob(f"{kind}-{seed}.*.onnx")):
        change = path.name.split(".")[1]
        if suffix == "npz" and change == "int8":  # of which there are no sketches
            continue
        for word, name in (("related", seed), ("same data", (seed + 1) % SEEDS), ("other data", "other")):
            found = symlint.trace(path, [folder / f"{kind}-{name}.{suffix}"]).best
            scores[(kind, change) if word == "related" else (word, kind)].append(found.score or 0.0)


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    made(folder)
    for path in folder.glob("*.onnx"):
        if path.name.count(".") == 1:
            symlint.fingerprint(path, path.with_suffix(".npz"))
    for suffix in ("onnx", "npz"):
        scores: Scores = defaultdict(list)
        start = time.process_time()
        for kind in ARCHITECTURES:
            for seed in range(SEEDS):
                scored(folder, suffix, kind, seed, scores)
        print(f"*.{suffix}: {sum(map(len, scores.values()))} pairs, {time.process_time() - start:.0f} s on one core")
        told(scores)


if __name__ == "__main__":
    main()
