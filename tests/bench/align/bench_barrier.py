"""Loss barriers between two trainings of seven networks, before and after their units are aligned.

    pip install '.[align,bench,train]'
    python tests/bench/align/bench_barrier.py FOLDER [--only NAME] [--bound] [--figure FILE.svg]

`barrier_networks.py` has the recipe. The barrier is the largest of the held-out losses at five points of the line,
above the line between those of its ends; batch normalisations get the statistics of the images of training at each.
All methods see the same networks: as they were trained; weight matching as in Git Re-Basin (arXiv 2209.04836,
algorithm 1: products of all weights, spaces in random order from where they are), with the permutations that symlint
infers for a specification; the same permutations as `align` searches for them; `align`; and `align --merge`. None of
these sees data. With `--bound` there is one that does, for what the symmetries could reach: the descent of `--merge` on
the inputs of training. Networks are kept in FOLDER. Training all takes 15 minutes of one core.
"""

# ruff: noqa: T201  (a script talks)

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import torch
from barrier_networks import NETWORKS, exported, held_out, learned, trained

from symlint.comparison.alignment.align import Alignment, Line, align, averageable
from symlint.comparison.alignment.halfway import Descent
from symlint.comparison.alignment.merge import POINTS, Data, averaged
from symlint.comparison.alignment.pair import Pair
from symlint.comparison.alignment.search import Search
from symlint.model.graph import Array
from symlint.model.load import load
from symlint.symmetry.actions.permutation import UnitPermutation

PAIRS = 3
METHODS = {
    "as trained": "#9ca3af", "weight matching": "#d97706", "permutations": "#2563eb", "align": "#059669",
    "align --merge": "#be185d",
}  # fmt: skip
BOUND = "with inputs of training"


def methods(found: Alignment) -> dict[str, Pair]:
    """The pair of an alignment as each method moves it."""
    assert found.pair is not None
    made = {name: found.pair.again() for name in METHODS}
    averageable(replace(found, pair=made["align --merge"]))
    for name in list(METHODS)[:3]:
        made[name].target.now, made[name].current.now = {}, {}
    for name in ("weight matching", "permutations"):
        structure = found.pair.structure
        kept = {key: a for key, a in structure.actions.items() if isinstance(a, UnitPermutation)}
        search = Search(replace(made[name], structure=replace(structure, actions=kept)))
        if name == "permutations":
            search.inwards()
        else:
            search.pair.__dict__["weigh"] = dict.fromkeys(search.pair.uses, 1.0)
            search.done, search.order = {a.id for a in search.left}, search.left
            np.random.default_rng(0).shuffle(search.order)
        search.refine()
    return made


class Taught(Descent):
    """The descent of an average on the inputs of training."""

    def __init__(self, pair: Pair, inputs: Array) -> None:
        super().__init__(pair)
        self.inputs = inputs

    def draw(self, rng: np.random.Generator) -> tuple[dict[str, Array], dict[str, Array]]:
        """Some of them; signs are rows of the first table."""
        program = self.pair.structure.program
        (name,) = program.inputs
        rows = self.inputs[rng.choice(len(self.inputs), program.shapes[name][0], replace=False)]
        if rows.dtype.kind == "f":
            return {name: rows.astype(np.float64)}, {}
        table = program.mixes[0]
        width = program.shapes[table.x][1]
        return {}, {table.out: rows[..., None] * width + np.arange(width)}


def loss(found: Alignment, point: float, seen: Data, held: Data) -> float:
    """That of an average, with the statistics of what was seen."""
    weights = averaged([found], 1 - point)
    if 0 < point < 1:
        seen.renewed(weights, found.second)
    return held.loss(weights, found.second)


def lines(name: str, pair: int, folder: Path, bound: bool) -> tuple[dict[str, Line], float]:
    """Method -> the held-out losses on the line of a pair of seeds, and the processor time of `align`."""
    paths = [folder / f"{name}-{seed}.onnx" for seed in (2 * pair, 2 * pair + 1)]
    for path in paths:
        if not path.exists():
            exported(trained(name, int(path.stem[-1])), name, path)
    start = time.process_time()
    found = align(*(load(str(path)) for path in paths))
    seconds = time.process_time() - start
    inputs, classes = held_out(name)
    data = Data({"x": learned(name)[0].numpy()}), Data({"x": inputs.numpy()}, classes.numpy())
    ends = [loss(found, end, *data) for end in (POINTS[0], POINTS[-1])]
    made, pairs = {}, methods(found)
    if bound:
        pairs[BOUND] = found.pair.again()
        Taught(pairs[BOUND], learned(name)[0].numpy()).moves()
    for method, moved in pairs.items():
        between = [loss(replace(found, pair=moved), point, *data) for point in POINTS[1:-1]]
        made[method] = Line(POINTS, (ends[0], *between, ends[1]))
    return made, seconds


def drawn(rows: dict[str, list[dict[str, float]]], path: Path) -> None:
    """The barrier of every pair as a point, network by network."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    plt.rcParams.update({"svg.hashsalt": "barriers", "axes.spines.top": False, "axes.spines.right": False})
    plt.rcParams["svg.fonttype"] = "none"
    figure, panel = plt.subplots(figsize=(8, 2.8), layout="constrained")
    for k, (method, colour) in enumerate(METHODS.items()):
        points = [(x + k / 8 - 0.25, one[method]) for x, found in enumerate(rows.values()) for one in found]
        panel.plot(*zip(*points, strict=True), "o", color=colour, ms=5, alpha=0.8, label=method)
    panel.set_yscale("log")
    panel.yaxis.set_major_formatter("{x:g}")
    panel.set_xticks(range(len(rows)), rows)
    panel.tick_params(length=0)
    panel.grid(axis="y", color="#e5e7eb", lw=0.7)
    panel.set_ylabel("loss barrier")
    figure.legend(loc="outside upper center", ncols=len(METHODS), frameon=False)
    text = StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    path.write_text("\n".join(row.rstrip() for row in text.getvalue().splitlines()) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=NETWORKS)
    parser.add_argument("--bound", action="store_true")
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    options.folder.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    rows: dict[str, list[dict[str, float]]] = {}
    for name in [options.only] if options.only else NETWORKS:
        for pair in range(PAIRS):
            found, seconds = lines(name, pair, options.folder, options.bound)
            rows.setdefault(name, []).append({method: one.barrier for method, one in found.items()})
            ends = " ".join(f"{found['align'].losses[k]:.3f}" for k in (0, -1))
            told = "  ".join(f"{method} {barrier:.3f}" for method, barrier in rows[name][-1].items())
            print(f"{name:16s} {pair}  ends {ends}  {told}  {seconds:.1f} CPU s", flush=True)
    if options.figure:
        drawn(rows, options.figure)


if __name__ == "__main__":
    main()
