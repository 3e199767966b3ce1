"""Trains small networks on scikit-learn's digits under growing weight decay, and weighs what optimisers leave of them.

    pip install '.[compare,bench]'
    python tests/bench/bench_digits.py [--keep FOLDER] [--rows FILE.json] [--figure FILE.svg]

A perceptron, a convolutional network and a vision transformer are trained for each weight decay by stochastic gradient
descent, all of a kind for as many steps, and exported by PyTorch. Each file goes through `symlint fix`, onnxslim,
onnxsim and onnxruntime. Accuracy on 450 images that were not trained on, and the largest difference of an output
relative to the largest output, are measured on the files. No figure is asserted. The training takes about 15 minutes on
one core; files in the folder of --keep are used again.
"""

# ruff: noqa: T201  (a script talks)
from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from symlint.runtime.runner import run

DECAYS = (0.0, 0.001, 0.002, 0.004, 0.008, 0.012, 0.016, 0.032)
MOMENTUM, BATCH = 0.9, 32
SLIM = "import onnxslim, sys; onnxslim.slim(*sys.argv[1:])"
SIMPLIFY = "import onnx, onnxsim, sys; onnx.save(onnxsim.simplify(sys.argv[1])[0], sys.argv[2])"
OPTIMISE = """
import onnx, onnxruntime, os, sys
best = None
for level in ("BASIC", "EXTENDED"):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, f"ORT_ENABLE_{level}")
    options.optimized_model_filepath = f"{sys.argv[2]}.{level}"
    onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
    model = onnx.load(options.optimized_model_filepath)
    portable = all(node.domain in ("", "ai.onnx") for node in model.graph.node)
    if portable and (best is None or model.ByteSize() < best.ByteSize()):
        best = model
onnx.save(best, sys.argv[2])
"""
TOOLS = {
    "symlint fix": ["-m", "symlint", "fix", "{source}", "-o", "{target}"],
    "onnxslim": ["-c", SLIM, "{source}", "{target}"],
    "onnxsim": ["-c", SIMPLIFY, "{source}", "{target}"],
    "onnxruntime": ["-c", OPTIMISE, "{source}", "{target}"],
}
COLOURS = {"symlint fix": "#c2410c", "onnxslim": "#2563eb", "onnxsim": "#0d9488", "onnxruntime": "#7c3aed"}
STYLES = {"symlint fix": "o-", "onnxslim": "-", "onnxsim": "--", "onnxruntime": ":"}


class Attention(nn.Module):
    """Attention with a matrix of its own for queries, keys, values and outputs."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        parts = (part(x).unflatten(-1, (self.heads, -1)) for part in (self.query, self.key, self.value))
        q, k, v = (part.transpose(1, 2) for part in parts)
        seen = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, -1)
        mixed: Tensor = self.out((seen @ v).transpose(1, 2).flatten(-2))
        return mixed


class Residual(nn.Sequential):
    """Layers, and a path around them."""

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class Transformer(nn.Module):
    """A vision transformer with normalisation before each half of a layer, on four patches."""

    def __init__(self, width: int = 32, heads: int = 4, layers: int = 2) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 4, 4)
        self.position = nn.Parameter(0.1 * torch.randn(1, 4, width))
        self.layers = nn.Sequential()
        for _ in range(layers):
            self.layers.append(Residual(nn.LayerNorm(width), Attention(width, heads)))
            mlp = nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width)
            self.layers.append(Residual(nn.LayerNorm(width), *mlp))
        self.norm, self.classes = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.position
        scores: Tensor = self.classes(self.norm(self.layers(x)).mean(1))
        return scores


def perceptron() -> nn.Module:
    hidden = nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU()
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(128, 10))


def convolutional() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(32, 64, 2), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)),
    )


NETWORKS = {
    "MLP": (perceptron, 0.1, 20_000),
    "CNN": (convolutional, 0.05, 20_000),
    "ViT": (Transformer, 0.05, 10_000),
}
"""Name -> how it is made, the learning rate and the number of steps. At 0.1 the last two fail without weight decay."""


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images and classes to train on, and to test on: float32 (n, 1, 8, 8) in [0, 1], and int64 (n,)."""
    images, classes = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32).reshape(-1, 1, 8, 8)
    split = train_test_split(images, classes, test_size=450, stratify=classes, random_state=0)
    x, test_x, y, test_y = (torch.from_numpy(part) for part in split)
    return x, y, test_x, test_y


def train(network: str, decay: float, images: Tensor, classes: Tensor) -> nn.Module:
    """Gradient descent with momentum; the last fifth of it in float64, with a falling rate.

    In float32 alone the rounding of every step keeps small singular values of a matrix at 1e-6 of the largest.
    """
    torch.manual_seed(0)
    make, rate, steps = NETWORKS[network]
    net, last = make(), steps - steps // 5
    for step in range(steps):
        if step == last:
            net, images = net.double(), images.double()
        if step in (0, last):
            optimizer = torch.optim.SGD(net.parameters(), rate, MOMENTUM, weight_decay=decay, fused=True)
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1, (step + 1) / 200, max(0.02, 5 * (1 - step / steps)))
        batch = torch.randint(0, len(images), (BATCH,))
        loss = nn.functional.cross_entropy(net(images[batch]), classes[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.float().eval()


def export(net: nn.Module, path: Path) -> None:
    """One file, any batch; without the notes on the source that the exporter adds, which every tool would drop."""
    with redirect_stdout(StringIO()), warnings.catch_warnings(action="ignore"):
        program = torch.onnx.export(
            net,
            (torch.rand(2, 1, 8, 8),),
            dynamo=True,
            opset_version=20,
            input_names=["image"],
            output_names=["scores"],
            dynamic_shapes=({0: "batch"},),
        )
    assert program is not None
    model = program.model_proto
    for part in (*model.graph.node, *model.graph.value_info, *model.graph.initializer, model.graph, model):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    onnx.save(model, path)


@dataclass(frozen=True, slots=True)
class Row:
    """What was measured on one network; sizes in bytes, and no size where a tool failed."""

    network: str
    decay: float
    parameters: int
    sizes: dict[str, int | None] = field(default_factory=dict)
    accuracy: dict[str, float] = field(default_factory=dict)
    difference: dict[str, float] = field(default_factory=dict)

    def left(self, tool: str) -> float:
        """Percent of the exported file."""
        size = self.sizes[tool]
        return float("nan") if size is None else 100 * size / (self.sizes["exported"] or 1)


def optimised(tool: str, source: Path, target: Path) -> bool:
    command = [part.format(source=source, target=target) if part[0] == "{" else part for part in TOOLS[tool]]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"  {tool}: exit code {done.returncode}: {(done.stderr or done.stdout).strip()[-300:]}", file=sys.stderr)
    elif not target.exists():
        shutil.copy(source, target)  # there was nothing to do
    return done.returncode == 0


def measure(network: str, decay: float, source: Path, images: Tensor, classes: Tensor) -> Row:
    """Size, accuracy and largest difference of a file and of what each tool makes of it."""
    parameters = sum(int(np.prod(w.dims)) for w in onnx.load(source).graph.initializer if w.data_type == 1)
    row = Row(network, decay, parameters)
    with TemporaryDirectory() as folder:
        files = {"exported": source} | {tool: Path(folder) / f"{tool.split()[0]}.onnx" for tool in TOOLS}
        made = {name: path for name, path in files.items() if name == "exported" or optimised(name, source, path)}
        row.sizes.update({name: made[name].stat().st_size if name in made else None for name in files})
        results = dict(zip(made, run(list(made.values()), {"image": images.numpy()}), strict=True))
    truth = results["exported"].outputs[0]
    for name, result in results.items():
        if result.failure is None:
            row.accuracy[name] = float((result.outputs[0].argmax(1) == classes.numpy()).mean())
            row.difference[name] = float(abs(result.outputs[0] - truth).max() / abs(truth).max())
    return row


def draw(rows: Sequence[Row], path: Path) -> None:
    """A panel per network: percent of the exported file that each tool leaves, and the accuracy, over weight decay."""
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    plt.rcParams.update({"svg.hashsalt": "digits", "axes.spines.top": False, "axes.spines.right": False})
    figure, panels = plt.subplots(1, len(NETWORKS), figsize=(10, 3.6), sharey=True, layout="constrained")
    for panel, network in zip(panels, NETWORKS, strict=True):
        mine = [row for row in rows if row.network == network]
        places = range(len(mine))
        for tool, style in STYLES.items():
            left = [row.left(tool) for row in mine]
            panel.plot(places, left, style, color=COLOURS[tool], lw=2.4 if "o" in style else 1.4, ms=4, label=tool)
        right = [100 * row.accuracy["exported"] for row in mine]
        panel.plot(places, right, color="#6b7280", lw=0.9, label="test accuracy")
        worst = max(row.difference.get("symlint fix", 0.0) for row in mine)
        panel.set_title(f"{network}, {mine[0].parameters:,} parameters", fontsize=11)
        panel.text(0.03, 0.04, f"fix moves outputs by {worst:.0e} at most", transform=panel.transAxes, fontsize=8)
        panel.set_xticks(places, [f"{row.decay:g}".lstrip("0") or "0" for row in mine], fontsize=9)
        panel.tick_params(length=0)
        panel.grid(axis="y", color="#e5e7eb", lw=0.7)
    panels[0].set_ylim(0, 104)
    panels[0].yaxis.set_major_formatter("{x:.0f}%")
    panels[0].set_ylabel("bytes left of the file")
    figure.supxlabel("weight decay", fontsize=10)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=5, frameon=False)
    text = StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    # Hundredths of a point are finer than any screen, and take a quarter less room; scales are below one.
    short = re.sub(r"\b[1-9]\d*\.\d{3,}", lambda number: f"{float(number[0]):.2f}", text.getvalue())
    path.write_text(re.sub(r"\n\s*|<!--.*?-->", "\n", short).replace("\n\n", "\n"))


def main() -> None:
    """Train what is missing, run the tools, print a line per network and weight decay."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--keep", type=Path, help="folder for the networks; a temporary one by default")
    parser.add_argument("--rows", type=Path, help="write what was measured to this JSON file")
    parser.add_argument("--figure", type=Path, help="draw it into this SVG file")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # they are slow, and rounding to nearest never lets them become zero
    images, classes, *test = digits()
    rows = []
    print(f"{'':4}{'decay':>7}{'KiB':>7}" + "".join(f"{tool:>13}" for tool in TOOLS) + "   accuracy   difference")
    with TemporaryDirectory() as folder:
        where = options.keep or Path(folder)
        where.mkdir(parents=True, exist_ok=True)
        for network in NETWORKS:
            for decay in DECAYS:
                path = where / f"{network.lower()}-{decay:g}.onnx"
                if not path.exists():
                    export(train(network, decay, images, classes), path)
                row = measure(network, decay, path, *test)
                rows.append(row)
                sizes = "".join(f"{row.left(tool):12.1f}%" for tool in TOOLS)
                before, after = (row.accuracy.get(name, float("nan")) for name in ("exported", "symlint fix"))
                print(f"{network:4}{decay:7g}{(row.sizes['exported'] or 0) / 1024:7.1f}{sizes}", end="")
                print(f"{before:7.1%}{after:7.1%}{row.difference.get('symlint fix', float('nan')):10.1e}", flush=True)
    if options.rows:
        options.rows.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
    if options.figure:
        draw(rows, options.figure)


if __name__ == "__main__":
    main()
