"""Times the inference on networks of growing depth: it should take the same time per node.

    python tests/bench/bench_inference.py [--layers N ...]

Encoders with normalisation before each half are made with random weights, narrow so that only the graph counts, up to
20,000 nodes. Loading is timed beside it. No figure is asserted.
"""

# ruff: noqa: T201  (a script talks)
from __future__ import annotations

import argparse
import gc
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.parser import parse_graph

from symlint.model.load import load
from symlint.symmetry.inference import examine

WIDTH, HEADS = 16, 2
LAYER = """
    n_{i} = LayerNormalization<axis = -1>(x_{i}, g_{i}, h_{i})
    q_{i} = MatMul(n_{i}, wq_{i}) qb_{i} = Add(q_{i}, bq_{i}) q4_{i} = Reshape(qb_{i}, split)
    k_{i} = MatMul(n_{i}, wk_{i}) kb_{i} = Add(k_{i}, bk_{i}) k4_{i} = Reshape(kb_{i}, split)
    v_{i} = MatMul(n_{i}, wv_{i}) vb_{i} = Add(v_{i}, bv_{i}) v4_{i} = Reshape(vb_{i}, split)
    qt_{i} = Transpose<perm = [0, 2, 1, 3]>(q4_{i}) kt_{i} = Transpose<perm = [0, 2, 3, 1]>(k4_{i})
    vt_{i} = Transpose<perm = [0, 2, 1, 3]>(v4_{i}) s_{i} = MatMul(qt_{i}, kt_{i}) p_{i} = Softmax<axis = -1>(s_{i})
    c_{i} = MatMul(p_{i}, vt_{i}) ct_{i} = Transpose<perm = [0, 2, 1, 3]>(c_{i}) f_{i} = Reshape(ct_{i}, merge)
    o_{i} = MatMul(f_{i}, wo_{i}) ob_{i} = Add(o_{i}, bo_{i}) y_{i} = Add(x_{i}, ob_{i})
    m_{i} = LayerNormalization<axis = -1>(y_{i}, gg_{i}, hh_{i}) u_{i} = MatMul(m_{i}, wu_{i})
    ub_{i} = Add(u_{i}, bu_{i}) r_{i} = Relu(ub_{i}) d_{i} = MatMul(r_{i}, wd_{i}) db_{i} = Add(d_{i}, bd_{i})
    x_{j} = Add(y_{i}, db_{i})
"""
SQUARE = ("wq", "wk", "wv", "wo")
VECTOR = ("g", "h", "gg", "hh", "bq", "bk", "bv", "bo", "bd")


def weights(layer: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The parameters of a layer."""
    yield from ((f"{name}_{layer}", (WIDTH, WIDTH)) for name in SQUARE)
    yield from ((f"{name}_{layer}", (WIDTH,)) for name in VECTOR)
    yield from ((f"wu_{layer}", (WIDTH, 4 * WIDTH)), (f"bu_{layer}", (4 * WIDTH,)), (f"wd_{layer}", (4 * WIDTH, WIDTH)))


def encoder(layers: int, path: Path) -> Path:
    """An encoder with so many layers, as a file."""
    rng = np.random.default_rng(0)
    text = "".join(LAYER.format(i=i, j=i + 1) for i in range(layers)) + f"y = MatMul(x_{layers}, head)"
    shapes = [*(pair for i in range(layers) for pair in weights(i)), ("head", (WIDTH, 10))]
    stored = [numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n) for n, s in shapes]
    stored += [
        numpy_helper.from_array(np.array(v), n)
        for n, v in (("split", [0, 0, HEADS, WIDTH // HEADS]), ("merge", [0, 0, WIDTH]))
    ]
    infos = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", "time", size])
        for n, size in (("x_0", WIDTH), ("y", 10))
    ]
    nodes = parse_graph(f"encoder () => () {{ {text} }}").node
    graph = helper.make_graph(nodes, "encoder", infos[:1], infos[1:], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def main() -> None:
    """Print a line per depth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, nargs="+", default=[22, 89, 357, 715])
    gc.set_threshold(10_000_000, 10, 10)  # as the command line does
    print(f"{'layers':>7} {'nodes':>7} {'load s':>7} {'infer s':>8} {'ms per node':>12}")
    with TemporaryDirectory() as folder:
        for layers in parser.parse_args().layers:
            path = encoder(layers, Path(folder) / "encoder.onnx")
            start = time.perf_counter()
            model = load(path)
            read = time.perf_counter()
            examine(model)
            done = time.perf_counter()
            nodes = len(model.graph.nodes)
            print(
                f"{layers:7d} {nodes:7d} {read - start:7.2f} {done - read:8.2f} {1000 * (done - read) / nodes:12.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
