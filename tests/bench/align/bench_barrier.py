"""Loss barriers between two trainings of an MLP on scikit-learn's digits, before and after their units are aligned.

    pip install '.[align,bench]'
    python tests/bench/align/bench_barrier.py [PAIRS]

Recipe: 1,200 of 1,797 images (shuffled by seed 0) train, the rest is held out; ReLU, softmax, Adam at 1e-3, batches of
64, weight decay 1e-4, 60 epochs (40 at width 512); the pair k has the seeds 2 k and 2 k + 1. The barrier is the largest
of the held-out losses at five points of the line, above the line between those of its ends. Beside it the weight
matching of Git Re-Basin (arXiv 2209.04836, algorithm 1), written here from the paper for this one architecture.
"""

# ruff: noqa: T201  (a script talks)

from __future__ import annotations

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from scipy.optimize import linear_sum_assignment
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

import symlint

SIZES = ((64, 60), (256, 60), (512, 40))
"""Widths of three hidden layers, and epochs."""
POINTS = np.linspace(0, 1, 5)
Layers = list[np.ndarray]
"""Weight, (inputs, outputs), and bias of each layer."""


def data() -> tuple[np.ndarray, np.ndarray]:
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    return (images[order] / 16).astype(np.float32), labels[order]


def trained(width: int, epochs: int, seed: int) -> Layers:
    images, labels = (part[:1200] for part in data())
    network = MLPClassifier(
        (width,) * 3, alpha=1e-4, batch_size=64, learning_rate_init=1e-3, max_iter=epochs, random_state=seed, tol=0
    )
    network.n_iter_no_change = 10**6
    network.fit(images, labels)
    pairs = zip(network.coefs_, network.intercepts_, strict=True)
    return [values.astype(np.float32) for pair in pairs for values in pair]


def loss(layers: Layers) -> float:
    images, labels = (part[1200:] for part in data())
    x = images.astype(np.float64)
    for k in range(0, len(layers), 2):
        x = x @ layers[k] + layers[k + 1]
        x = np.maximum(x, 0) if k < len(layers) - 2 else x
    x = x - x.max(axis=1, keepdims=True)
    logits = x - np.log(np.exp(x).sum(axis=1, keepdims=True))
    return float(-logits[np.arange(len(labels)), labels].mean())


def barrier(one: Layers, two: Layers) -> float:
    found = [loss([(1 - t) * u + t * v for u, v in zip(one, two, strict=True)]) for t in POINTS]
    return max(value - (1 - t) * found[0] - t * found[-1] for t, value in zip(POINTS, found, strict=True))


def matched(one: Layers, two: Layers) -> Layers:
    """Git Re-Basin's weight matching: every hidden layer in turn, until none changes."""
    two, rng, better = [values.copy() for values in two], np.random.default_rng(0), True
    while better:
        better = False
        for k in 2 * rng.permutation(len(two) // 2 - 1):
            score = one[k].T @ two[k] + np.outer(one[k + 1], two[k + 1]) + one[k + 2] @ two[k + 2].T
            order = linear_sum_assignment(-score)[1]
            if score[np.arange(len(order)), order].sum() > np.trace(score) * (1 + 1e-6):
                better = True
                two[k], two[k + 1], two[k + 2] = two[k][:, order], two[k + 1][order], two[k + 2][order]
    return two


def saved(layers: Layers, path: Path) -> None:
    nodes, last = [], "x"
    for k in range(0, len(layers), 2):
        out = f"y{k}" if k < len(layers) - 2 else "out"
        nodes.append(helper.make_node("Gemm", [last, f"t{k}", f"t{k + 1}"], [out]))
        nodes += [helper.make_node("Relu", [out], [f"h{k}"])] if out != "out" else []
        last = f"h{k}"
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["n", s]) for n, s in (("x", 64), ("out", 10))]
    tensors = [numpy_helper.from_array(values, f"t{k}") for k, values in enumerate(layers)]
    graph = helper.make_graph(nodes, "mlp", ends[:1], ends[1:], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def aligned(one: Layers, two: Layers) -> tuple[Layers, float]:
    """The second network as symlint moves it, and the seconds of processor time that took."""
    with TemporaryDirectory() as folder:
        paths = [Path(folder) / "one.onnx", Path(folder) / "two.onnx"]
        for layers, path in zip((one, two), paths, strict=True):
            saved(layers, path)
        start = time.process_time()
        moved, found = symlint.align(*paths)
        assert found.exit_code == 0, found.proof
        values = {i.name: numpy_helper.to_array(i) for i in moved.graph.initializer}
        return [values[f"t{k}"] for k in range(len(two))], time.process_time() - start


def main() -> None:
    print("width  pair  loss of ends  naive  weight matching  align  CPU s")
    for width, epochs in SIZES:
        for pair in range(int(sys.argv[1]) if len(sys.argv) > 1 else 1):
            one, two = (trained(width, epochs, seed) for seed in (2 * pair, 2 * pair + 1))
            moved, seconds = aligned(one, two)
            row = [barrier(one, two), barrier(one, matched(one, two)), barrier(one, moved)]
            ends = f"{loss(one):.3f} {loss(two):.3f}"
            print(f"{width:5d} {pair:5d}   {ends}  " + "  ".join(f"{value:.3f}" for value in row) + f"  {seconds:.1f}")


if __name__ == "__main__":
    main()
