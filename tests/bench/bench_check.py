"""Times `symlint check` beside the creation of an onnxruntime session, both as whole processes, in alternation.

    python tests/bench/bench_check.py [--transformer] [--runs N] [--keep FOLDER] [--profile]

A network in the shape of ResNet-50 (25.5 million parameters, normalisations folded) and, when asked for, one in that of
BERT-base (85 million parameters in 12 layers) are made with random weights. No figure is asserted.
"""

# ruff: noqa: T201  (a script talks)
from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SESSION = """
import sys, onnxruntime
onnxruntime.set_default_logger_severity(4)
onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
"""
PROFILE = """
import cProfile, pstats, sys
from symlint.audit import audit
from symlint.rule import rules
from symlint.settings import Settings
watch, chosen = cProfile.Profile(), rules()
watch.runcall(audit, sys.argv[1], chosen, Settings())
pstats.Stats(watch).sort_stats("cumulative").print_stats(25)
"""


class Graph:
    """Nodes and initializers on their way into a file."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.parameters = 0

    def weight(self, name: str, *shape: int, fan_in: int | None = None) -> str:
        """A new random tensor; without `fan_in` it is a bias."""
        scale = 0.05 if fan_in is None else (2 / fan_in) ** 0.5
        values = self.rng.standard_normal(shape, dtype=np.float32) * np.float32(scale)
        self.parameters += values.size
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def table(self, name: str, values: Sequence[int | float], dtype: type = np.int64) -> str:
        """A constant that is no weight."""
        self.weights.append(numpy_helper.from_array(np.asarray(values, dtype), name))
        return name

    def node(self, op: str, *inputs: str, out: str, **attributes: object) -> str:
        """One node with one output, named after it."""
        self.nodes.append(helper.make_node(op, inputs, [out], out, **attributes))
        return out

    def save(self, path: Path, x: Sequence[int | str], y: Sequence[int | str]) -> Path:
        """Write the graph from `x` to `y`."""
        graph = helper.make_graph(
            self.nodes,
            path.stem,
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, x)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, y)],
            self.weights,
        )
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
        print(
            f"{path.name}: {self.parameters:,} parameters, {path.stat().st_size / 1e6:.0f} MB, {len(self.nodes)} nodes"
        )
        return path


def resnet50(path: Path) -> Path:
    """Bottlenecks in four stages."""
    g = Graph(0)

    def conv(x: str, name: str, into: int, out: int, kernel: int, stride: int = 1) -> str:
        w = g.weight(f"{name}.weight", out, into, kernel, kernel, fan_in=into * kernel**2)
        pads, strides = [kernel // 2] * 4, [stride] * 2
        b = g.weight(f"{name}.bias", out)
        return g.node("Conv", x, w, b, out=name, kernel_shape=[kernel] * 2, pads=pads, strides=strides)

    def relu(x: str) -> str:
        return g.node("Relu", x, out=f"{x}.relu")

    x = relu(conv("x", "stem", 3, 64, 7, 2))
    x = g.node("MaxPool", x, out="pool", kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2])
    into = 64
    for stage, (blocks, width) in enumerate(zip((3, 4, 6, 3), (64, 128, 256, 512), strict=True)):
        for block in range(blocks):
            stride, name = (2 if stage and not block else 1), f"stage{stage}.{block}"
            skip = x if block else conv(x, f"{name}.shortcut", into, 4 * width, 1, stride)
            y = relu(conv(x, f"{name}.reduce", into, width, 1))
            y = relu(conv(y, f"{name}.spatial", width, width, 3, stride))
            y = conv(y, f"{name}.expand", width, 4 * width, 1)
            x = relu(g.node("Add", y, skip, out=f"{name}.add"))
            into = 4 * width
    x = g.node("Flatten", g.node("GlobalAveragePool", x, out="mean"), out="flat")
    g.node("Gemm", x, g.weight("fc.weight", 1000, into, fan_in=into), g.weight("fc.bias", 1000), out="y", transB=1)
    return g.save(path, ["batch", 3, 224, 224], ["batch", 1000])


def transformer(path: Path, layers: int = 12, width: int = 768, heads: int = 12) -> Path:
    """Encoder layers with normalisation after each half."""
    g = Graph(1)
    split, merge = g.table("split", [0, 0, heads, width // heads]), g.table("merge", [0, 0, width])
    root = g.table("root", [(width // heads) ** 0.5], np.float32)
    half, one, two = (g.table(n, [v], np.float32) for n, v in (("half", 0.5), ("one", 1.0), ("sqrt2", 2**0.5)))

    def linear(x: str, name: str, into: int, out: int) -> str:
        y = g.node("MatMul", x, g.weight(f"{name}.weight", into, out, fan_in=into), out=f"{name}.product")
        return g.node("Add", y, g.weight(f"{name}.bias", out), out=name)

    def norm(x: str, name: str) -> str:
        gain, bias = g.weight(f"{name}.weight", width), g.weight(f"{name}.bias", width)
        return g.node("LayerNormalization", x, gain, bias, out=name, axis=-1)

    x = "x"
    for layer in range(layers):
        at = f"layer{layer}"
        parts = [
            g.node("Reshape", linear(x, f"{at}.{part}", width, width), split, out=f"{at}.{part}.heads")
            for part in ("query", "key", "value")
        ]
        q, k, v = (
            g.node("Transpose", part, out=f"{part}.first", perm=[0, 2, 3, 1] if n == 1 else [0, 2, 1, 3])
            for n, part in enumerate(parts)
        )
        scores = g.node("Div", g.node("MatMul", q, k, out=f"{at}.scores"), root, out=f"{at}.scaled")
        probabilities = g.node("Softmax", scores, out=f"{at}.softmax", axis=-1)
        mixed = g.node("MatMul", probabilities, v, out=f"{at}.mixed")
        mixed = g.node("Transpose", mixed, out=f"{at}.back", perm=[0, 2, 1, 3])
        mixed = g.node("Reshape", mixed, merge, out=f"{at}.merged")
        x = norm(g.node("Add", linear(mixed, f"{at}.output", width, width), x, out=f"{at}.add"), f"{at}.norm")
        h = linear(x, f"{at}.up", width, 4 * width)
        e = g.node("Erf", g.node("Div", h, two, out=f"{at}.div"), out=f"{at}.erf")
        e = g.node("Mul", h, g.node("Add", e, one, out=f"{at}.plus"), out=f"{at}.gelu")
        e = g.node("Mul", e, half, out=f"{at}.half")
        x = norm(g.node("Add", linear(e, f"{at}.down", 4 * width, width), x, out=f"{at}.end"), f"{at}.last")
    g.node("Identity", x, out="y")
    return g.save(path, [1, 128, width], [1, 128, width])


MAKERS = {"resnet50": resnet50, "transformer": transformer}


def timed(command: Sequence[str]) -> tuple[float, float]:
    """Seconds and peak megabytes of a whole process."""
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode not in (0, 1):
        print(f"exit code {child.returncode}: {' '.join(command)[:100]}", file=sys.stderr)
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def compare(path: Path, runs: int) -> None:
    """Alternate the two commands on one file, after one run of each that warms the caches."""
    commands = {
        "symlint check": [sys.executable, "-m", "symlint", "check", str(path)],
        "onnxruntime session": [sys.executable, "-c", SESSION, str(path)],
    }
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for run in range(runs + 1):
        for name, command in commands.items():
            measured = timed(command)
            if run:
                found[name].append(measured)
    medians = {name: statistics.median(s for s, _ in values) for name, values in found.items()}
    for name, values in found.items():
        seconds = [s for s, _ in values]
        print(f"  {name:20} {medians[name]:6.2f} s  ({min(seconds):.2f} to {max(seconds):.2f})", end="")
        print(f"  {max(m for _, m in values):6.0f} MB")
    check, session = medians.values()
    print(f"  ratio {check / session:.2f}, difference {check - session:+.2f} s")


def main() -> None:
    """Make the networks, run the commands, print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--transformer", action="store_true", help="a BERT-base-shaped network as well")
    parser.add_argument("--runs", type=int, default=5, help="timed runs of each command")
    parser.add_argument("--keep", type=Path, help="folder for the networks; a temporary one by default")
    parser.add_argument("--profile", action="store_true", help="print where an audit spends its time")
    parser.add_argument("--make", choices=MAKERS, help="only make this network, in the folder of --keep")
    options = parser.parse_args()
    if options.make:
        MAKERS[options.make](options.keep / f"{options.make}.onnx")
        return
    seconds = [timed([sys.executable, "-m", "symlint", "--help"])[0] for _ in range(options.runs + 1)][1:]
    print(f"symlint --help: {statistics.median(seconds):.2f} s ({min(seconds):.2f} to {max(seconds):.2f})")
    with TemporaryDirectory() as folder:
        where = options.keep or Path(folder)
        where.mkdir(parents=True, exist_ok=True)
        for name in MAKERS if options.transformer else ["resnet50"]:
            # In a process of its own: what this one has held counts as the peak of the children that it starts.
            subprocess.run([sys.executable, __file__, "--make", name, "--keep", str(where)], check=True)
            compare(where / f"{name}.onnx", options.runs)
            if options.profile:
                subprocess.run([sys.executable, "-c", PROFILE, str(where / f"{name}.onnx")], check=True)


if __name__ == "__main__":
    main()
