"""How often a check reads the weights, and what arrays it makes: a guard by counts, which no slow machine upsets.

`python tests/counts.py FILE` prints those of any file, and `python tests/test_counts.py` those of all networks here:
a limit is what they are, and some room.
"""

from __future__ import annotations

import cProfile
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.parser import parse_graph

from symlint.audit.engine import audit
from symlint.lint.rule import rules
from symlint.lint.settings import Settings
from symlint.model.load import load
from symlint.symmetry.inference import examine

MEGABYTE = 1_000_000
BLOCK = 4 * MEGABYTE
"""What may be held of a weight at once in another precision, above what is stored."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a check of a network may need at most."""

    disk: float
    """Bytes read from the disk, in sizes of the file."""
    reads: int
    """How often any weight of at least a kilobyte is asked for: of one that is settled, as stored and as settled."""
    peak: float
    """Bytes of arrays alive at once, in megabytes."""
    largest: float
    """Bytes of the largest array, in megabytes."""
    made: float
    """Bytes of all arrays of at least 64 kB ever made, in sizes of the file: passes over the weights that copy them."""


LIMITS = {
    "encoder": Limits(disk=1.2, reads=14, peak=70, largest=9, made=23),
    "encoder planted": Limits(disk=1.2, reads=22, peak=75, largest=9, made=39),
    "encoder float16": Limits(disk=1.2, reads=20, peak=56, largest=9, made=72),
    "encoder int8": Limits(disk=1.3, reads=12, peak=46, largest=9, made=44),
    "convolutional": Limits(disk=1.2, reads=12, peak=25, largest=5.5, made=5),
    "recurrent int8": Limits(disk=1.2, reads=72, peak=15, largest=4, made=25),
    # Each forbids one shape by less memory than it would take with a byte for each element.
    "tokens x vocabulary": Limits(disk=1.2, reads=18, peak=12, largest=4, made=26),
    "positions x units": Limits(disk=1.2, reads=18, peak=44, largest=5, made=66),
    "n x n": Limits(disk=1.3, reads=10, peak=8, largest=1.3, made=28),
}


class Network:
    """Nodes as text, and weights as they are drawn."""

    def __init__(self, store: Callable[[np.ndarray, str], list[onnx.TensorProto]] | None = None) -> None:
        self.rng = np.random.default_rng(0)
        self.text = ""
        self.stored: dict[str, np.ndarray] = {}

    def weight(self, name: str, *shape: int) -> str:
        values = self.rng.standard_normal(shape).astype(np.float32)
        self.stored[name] = values / np.float32(shape[0]) ** 0.5 if len(shape) > 1 else values / 10
        return name

    def linear(self, x: str, y: str, into: int, out: int) -> None:
        self.weight(f"{y}_w", into, out)
        self.weight(f"{y}_b", out)
        self.text += f" {y}_p = MatMul({x}, {y}_w) {y} = Add({y}_p, {y}_b)"

    def norm(self, x: str, y: str, width: int) -> None:
        self.weight(f"{y}_g", width)
        self.weight(f"{y}_h", width)
        self.text += f" {y} = LayerNormalization<axis = -1>({x}, {y}_g, {y}_h)"

    def table(self, name: str, values: list[int]) -> None:
        self.stored[name] = np.array(values, np.int64)

    def layer(self, x: str, y: str, width: int, heads: int, inner: int) -> None:
        """Normalisation before each half."""
        self.table("split", [0, 0, heads, width // heads])
        self.table("merge", [0, 0, width])
        self.norm(x, f"{y}_n", width)
        for part, order in (("q", "0, 2, 1, 3"), ("k", "0, 2, 3, 1"), ("v", "0, 2, 1, 3")):
            self.linear(f"{y}_n", f"{y}_{part}", width, width)
            self.text += f" {y}_{part}4 = Reshape({y}_{part}, split)"
            self.text += f" {y}_{part}t = Transpose<perm = [{order}]>({y}_{part}4)"
        self.text += f" {y}_s = MatMul({y}_qt, {y}_kt) {y}_a = Softmax<axis = -1>({y}_s) {y}_c = MatMul({y}_a, {y}_vt)"
        self.text += f" {y}_ct = Transpose<perm = [0, 2, 1, 3]>({y}_c) {y}_f = Reshape({y}_ct, merge)"
        self.linear(f"{y}_f", f"{y}_o", width, width)
        self.text += f" {y}_r = Add({x}, {y}_o)"
        self.norm(f"{y}_r", f"{y}_m", width)
        self.linear(f"{y}_m", f"{y}_u", width, inner)
        self.text += f" {y}_i = Relu({y}_u)"
        self.linear(f"{y}_i", f"{y}_d", inner, width)
        self.text += f" {y} = Add({y}_r, {y}_d)"

    def save(
        self, path: Path, x: list[int | str], y: list[int | str], kind: int = TensorProto.FLOAT, form: str = ""
    ) -> Path:
        """Write it; in float16, or with matrices of eight bits in front of which they are dequantised."""
        number = TensorProto.FLOAT16 if form == "float16" else TensorProto.FLOAT
        kind = number if kind == TensorProto.FLOAT else kind
        text, stored = self.text, dict[str, np.ndarray]()
        for name, values in self.stored.items():
            if form == "int8" and values.ndim == 2:
                scale = np.abs(values).max() / 127
                stored[f"{name}_8"] = np.rint(values / scale).astype(np.int8)
                stored[f"{name}_s"] = np.array(scale, np.float32)
                text = f" {name} = DequantizeLinear({name}_8, {name}_s)" + text
            else:
                stored[name] = values.astype(np.float16) if form == "float16" and values.dtype.kind == "f" else values
        graph = helper.make_graph(
            parse_graph(f"counted () => () {{ {text} }}").node,
            "counted",
            [helper.make_tensor_value_info("x", kind, x)],
            [helper.make_tensor_value_info("y", number, y)],
            [numpy_helper.from_array(values, name) for name, values in stored.items()],
        )
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
        return path


def encoder(path: Path, form: str = "") -> Path:
    """Two layers, 512 wide, on 16 positions."""
    net = Network()
    net.layer("x", "h", 512, 8, 2048)
    net.layer("h", "z", 512, 8, 2048)
    net.norm("z", "y", 512)
    if form == "planted":
        for at in ("h", "z"):
            writer, bias = net.stored[f"{at}_u_w"], net.stored[f"{at}_u_b"]
            reader = net.stored[f"{at}_d_w"]
            units = net.rng.permutation(2048).reshape(32, -1)
            writer[:, units[0]], bias[units[0]] = 0, 0
            reader[units[1]] = 0
            writer[:, units[2]] = 0
            writer[:, units[3]], bias[units[3]] = writer[:, units[4]], bias[units[4]]
    return net.save(path, ["batch", 16, 512], ["batch", 16, 512], form=form)


def convolutional(path: Path) -> Path:
    """Four convolutions of 3 x 3 with batch normalisation, 256 channels wide."""
    net = Network()
    x, into = "x", 3
    for at in range(4):
        y = f"c{at}"
        net.weight(f"{y}_w", 256, into, 3, 3)
        for name in ("g", "h", "m"):
            net.weight(f"{y}_{name}", 256)
        net.stored[f"{y}_v"] = net.rng.uniform(0.5, 2, 256).astype(np.float32)
        net.text += f" {y} = Conv<pads = [1, 1, 1, 1]>({x}, {y}_w)"
        net.text += f" {y}_n = BatchNormalization({y}, {y}_g, {y}_h, {y}_m, {y}_v) {y}_r = Relu({y}_n)"
        x, into = f"{y}_r", 256
    net.text += f" mean = GlobalAveragePool({x}) flat = Flatten(mean)"
    net.linear("flat", "y", 256, 10)
    return net.save(path, ["batch", 3, 32, 32], ["batch", 10])


def recurrent(path: Path, width: int = 640) -> Path:
    """A DynamicQuantizeLSTM and a projection."""
    net = Network()
    net.linear("h", "y", width, 10)
    model = onnx.load(net.save(path, ["time", 1, width], ["time", 1, 10]))
    matrices = [
        numpy_helper.from_array(net.rng.integers(-127, 128, (1, width, 4 * width)).astype(np.int8), name)
        for name in ("w", "r")
    ]
    scale = numpy_helper.from_array(np.array([0.001], np.float32), "scale")
    zero = numpy_helper.from_array(np.zeros(1, np.int8), "zero")
    biases = numpy_helper.from_array(net.rng.standard_normal((1, 8 * width)).astype(np.float32) / 10, "b")
    inputs = ["x", "w", "r", "b", "", "", "", "", "scale", "zero", "scale", "zero"]
    lstm = helper.make_node("DynamicQuantizeLSTM", inputs, ["all"], domain="com.microsoft", hidden_size=width)
    squeeze = helper.make_node("Squeeze", ["all", "one"], ["h"])
    model.graph.initializer.extend([*matrices, scale, zero, biases, numpy_helper.from_array(np.array([1]), "one")])
    nodes = [lstm, squeeze, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, path)
    return path


def vocabulary(path: Path, tokens: int = 768, words: int = 20_000, width: int = 16) -> Path:
    """An encoder from words to words: tokens times words are 15 million."""
    net = Network()
    net.weight("words", words, width)
    net.weight("places", 1, tokens, width)
    net.text = "e = Gather(words, x) h = Add(e, places)"
    net.layer("h", "z", width, 2, 4 * width)
    net.linear("z", "y", width, words)
    return net.save(path, [1, tokens], [1, tokens, words], TensorProto.INT64)


def positions(path: Path, count: int = 512, width: int = 16, units: int = 32768) -> Path:
    """Perceptrons of 32,768 units at 512 positions: times each other 16 million; scores are 512 x 512."""
    net = Network()
    net.layer("x", "h", width, 2, units)
    net.layer("h", "z", width, 2, units)
    net.linear("z", "y", width, 8)
    return net.save(path, [1, count, width], [1, count, 8])


def square(path: Path, size: int = 8192, width: int = 16) -> Path:
    """Rectified units and a linear bottleneck turned inside out, 8,192 wide each: n times n is 67 million."""
    net = Network()
    net.linear("x", "a", width, size)
    net.text += " b = Relu(a)"
    net.linear("b", "c", size, width)
    net.linear("c", "d", width, size)
    net.linear("d", "y", size, width)
    return net.save(path, ["batch", width], ["batch", width])


NETWORKS: Mapping[str, Callable[[Path], Path]] = {
    "encoder": encoder,
    "encoder planted": lambda path: encoder(path, "planted"),
    "encoder float16": lambda path: encoder(path, "float16"),
    "encoder int8": lambda path: encoder(path, "int8"),
    "convolutional": convolutional,
    "recurrent int8": recurrent,
    "tokens x vocabulary": vocabulary,
    "positions x units": positions,
    "n x n": square,
}


@dataclass(frozen=True, slots=True)
class Counts:
    """What was counted, in the units of the limits, and the exit code."""

    code: int
    used: Mapping[str, float]


@cache
def counted(name: str, folder: Path) -> Counts:
    """Of a check in a process of its own."""
    path = NETWORKS[name](folder / "model.onnx")
    size = path.stat().st_size
    weights = {w.name: int(np.prod(w.dims)) for w in onnx.load(path).graph.initializer}
    script = Path(__file__).with_name("counts.py")
    done = subprocess.run(
        [sys.executable, str(script), str(path)],
        capture_output=True,
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    found = json.loads(done.stdout)
    used = {
        "disk": found["disk"] / size,
        "reads": max(n for tensor, n in found["reads"].items() if weights.get(tensor, 0) >= 1000),
        "peak": found["peak"] / MEGABYTE,
        "largest": max(size for size, _ in found["sizes"]) / MEGABYTE,
        "made": sum(size * times for size, times in found["sizes"] if size >= 1 << 16) / size,
    }
    return Counts(found["code"], used)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    return {name: tmp_path_factory.mktemp("counted") for name in NETWORKS}


@pytest.mark.parametrize("what", ["disk", "reads", "peak", "largest", "made"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_check_needs_no_more_than_it_must(name: str, what: str, folders: Mapping[str, Path]) -> None:
    counts = counted(name, folders[name])
    limit = getattr(LIMITS[name], what)
    assert counts.used[what] <= limit, {key: round(value, 2) for key, value in counts.used.items()}


def residual(path: Path, blocks: int, width: int = 4) -> Path:
    """Perceptrons that are added to what they read, one after the other."""
    net, x = Network(), "x"
    for k in range(blocks):
        net.linear(x, f"u{k}", width, 6)
        net.text += f" a{k} = Relu(u{k})"
        net.linear(f"a{k}", f"d{k}", 6, width)
        net.text += f" r{k} = Add({x}, d{k})"
        x = f"r{k}"
    net.linear(x, "y", width, 2)
    return net.save(path, ["batch", width], ["batch", 2])


def layers(path: Path, blocks: int, width: int = 4) -> Path:
    """Layers of a transformer."""
    net, x = Network(), "x"
    for k in range(blocks):
        net.layer(x, f"h{k}", width, 2, 6)
        x = f"h{k}"
    net.linear(x, "y", width, 2)
    return net.save(path, [1, 3, width], [1, 3, 2])


def branching(path: Path, blocks: int, ways: int = 4) -> Path:
    """Several rectified maps side by side, put behind each other for the next ones."""
    net, x, into = Network(), "x", 3
    for k in range(blocks):
        for way in range(ways):
            net.linear(x, f"w{k}_{way}", into, 3)
            net.text += f" a{k}_{way} = Relu(w{k}_{way})"
        net.text += f" c{k} = Concat<axis = -1>({', '.join(f'a{k}_{way}' for way in range(ways))})"
        x, into = f"c{k}", 3 * ways
    net.linear(x, "y", into, 2)
    return net.save(path, ["batch", 3], ["batch", 2])


def computed(path: Path, blocks: int, width: int = 4) -> Path:
    """Layers whose shapes are computed in front of them, as exporters write them."""
    net, x = Network(), "x"
    for name, values in (("zero", [0]), ("one", [1]), ("two", [2]), ("rest", [-1])):
        net.table(name, values)
    for k in range(blocks):
        net.text += f" s{k} = Shape({x}) b{k} = Gather<axis = 0>(s{k}, zero) t{k} = Gather<axis = 0>(s{k}, one)"
        net.text += f" q{k} = Concat<axis = 0>(b{k}, t{k}, two, rest) g{k} = Concat<axis = 0>(b{k}, t{k}, rest)"
        net.linear(x, f"u{k}", width, width)
        net.text += f" h{k} = Reshape(u{k}, q{k}) a{k} = Relu(h{k}) f{k} = Reshape(a{k}, g{k})"
        net.linear(f"f{k}", f"d{k}", width, width)
        net.text += f" r{k} = Add({x}, d{k})"
        x = f"r{k}"
    net.linear(x, "y", width, 2)
    return net.save(path, ["batch", 3, width], ["batch", 3, 2])


REPEATED: Mapping[str, tuple[Callable[[Path, int], Path], int, bool]] = {
    "residual, inferred": (residual, 200, False),
    "layers, inferred": (layers, 40, False),
    "branching, inferred": (branching, 60, False),
    "computed shapes, inferred": (computed, 60, False),
    "residual, checked": (residual, 80, True),
    "layers, checked": (layers, 10, True),
    "branching, checked": (branching, 12, True),
    "computed shapes, checked": (computed, 20, True),
}
"""Networks of blocks that repeat, so many and twice as many; whether they are checked as well, by all rules."""
GROWTH = 1.05
"""How many times the calls per node of one half as deep a network may need; 0.90 to 1.02 is what they are."""


def calls(path: Path, *, checked: bool) -> float:
    """Calls of functions of ours for each node of a network."""
    count = len(onnx.load(path).graph.node)
    profile = cProfile.Profile()
    profile.enable()
    if checked:
        audit(str(path), rules(), Settings())
    else:
        examine(load(str(path)))
    profile.disable()
    files = [(getattr(entry.code, "co_filename", ""), entry.callcount) for entry in profile.getstats()]
    # How many steps a descent takes is a matter of numbers.
    return sum(n for file, n in files if "symlint" in file and not file.endswith("convex.py")) / count


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if checked else []) for name, (*_, checked) in REPEATED.items()],
)
def test_a_node_takes_as_many_calls_in_a_network_of_twice_the_depth(name: str, tmp_path: Path) -> None:
    make, blocks, checked = REPEATED[name]
    few, many = (calls(make(tmp_path / f"{n}.onnx", n), checked=checked) for n in (blocks, 2 * blocks))
    assert many <= GROWTH * few, f"{few:.0f} and {many:.0f} calls"


def lines(path: Path) -> float:
    """Lines of ours that the inference of a network runs for each node, each pass of a comprehension counted."""
    model, count, before = load(str(path)), 0, sys.gettrace()

    def inside(_frame: FrameType, event: str, _value: object) -> Any:
        nonlocal count
        count += event == "line"
        return inside

    sys.settrace(lambda frame, *_: inside if "symlint" in frame.f_code.co_filename else None)
    try:
        examine(model)
    finally:
        sys.settrace(before)
    return count / len(model.graph.nodes)


def test_a_node_takes_as_many_lines_in_a_network_of_twice_the_depth(tmp_path: Path) -> None:
    """Calls do not tell how often a comprehension goes through all that was found before."""
    few, many = (lines(layers(tmp_path / f"{n}.onnx", n)) for n in (20, 40))
    assert many <= 1.01 * few, f"{few:.0f} and {many:.0f} lines"


def test_the_planted_flaws_are_found(folders: Mapping[str, Path]) -> None:
    """So that no count is low because nothing was looked at."""
    assert [counted(name, folders[name]).code for name in ("encoder", "encoder planted")] == [0, 1]


if __name__ == "__main__":
    import tempfile

    for network in NETWORKS:
        with tempfile.TemporaryDirectory() as temporary:
            used = counted(network, Path(temporary)).used
            print(f"{network:22}", {key: round(value, 2) for key, value in used.items()})  # noqa: T201
