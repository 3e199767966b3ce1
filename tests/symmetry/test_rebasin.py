"""The permutations that symlint infers are those that Git Re-Basin wrote down by hand, tensor by tensor.

Ainsworth, Hayase and Srinivasa, "Git Re-Basin: Merging Models modulo Permutation Symmetries" (2022), permute the units
of one network until it matches another. Which axes move together is a table per architecture there: weight_matching.py
of github.com/samuela/git-re-basin, for ResNet-50 in its commit 83efd77. Each table is written here in a form of its
own, beside the network that it describes; channels come first, as ONNX has them. The running statistics of a batch
normalisation, which those tables leave out, move with its channels, as in their ports to torch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from symlint.model.load import load
from symlint.symmetry.inference import examine

Partition = set[frozenset[tuple[str, int]]]
"""For each permutation the axes of weights that it moves."""


@dataclass
class Net:
    """A network of named layers, which grows node by node."""

    normaliser: str
    """Theirs is a layer normalisation of the channels, or a batch normalisation as in ports to other frameworks."""
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    nodes: list[onnx.NodeProto] = field(default_factory=list)

    def node(self, op: str, *inputs: str, **attributes: object) -> str:
        self.nodes.append(helper.make_node(op, list(inputs), [f"t{len(self.nodes)}"], **attributes))
        return str(self.nodes[-1].output[0])

    def weight(self, name: str, *shape: int) -> str:
        drawn = np.random.default_rng(len(self.weights)).normal(size=shape)
        self.weights[name] = (np.exp(drawn) if name.endswith("/variance") else drawn).astype(np.float32)
        return name

    def conv(self, x: str, name: str, shape: tuple[int, int, int], stride: int = 1, *, bias: bool = False) -> str:
        """A square convolution; shape is inputs, outputs, width of the window."""
        reads, writes, window = shape
        kernel = self.weight(f"{name}/kernel", writes, reads, window, window)
        shift = [self.weight(f"{name}/bias", writes)] if bias else []
        return self.node("Conv", x, kernel, *shift, strides=[stride] * 2, pads=[window // 2] * 4)

    def norm(self, x: str, name: str, width: int) -> str:
        names = ["scale", "bias", *["mean", "variance"] * (self.normaliser == "BatchNormalization")]
        stored = [self.weight(f"{name}/{n}", width) for n in names]
        if self.normaliser == "BatchNormalization":
            return self.node("BatchNormalization", x, *stored)
        last = self.node("Transpose", x, perm=[0, 2, 3, 1])
        return self.node("Transpose", self.node("LayerNormalization", last, *stored), perm=[0, 3, 1, 2])

    def dense(self, x: str, name: str, reads: int, writes: int) -> str:
        return self.node("Gemm", x, self.weight(f"{name}/kernel", reads, writes), self.weight(f"{name}/bias", writes))

    def relu(self, x: str) -> str:
        return self.node("Relu", x)

    def pool(self, x: str, window: int = 2) -> str:
        return self.node("MaxPool", x, kernel_shape=[window] * 2, strides=[2] * 2, pads=[(window - 1) // 2] * 4)

    def classify(self, x: str, name: str, reads: int) -> None:
        """The end of all of them but the first: the mean of each channel, and a layer of ten classes."""
        self.end(self.dense(self.node("Flatten", self.node("GlobalAveragePool", x)), name, reads, 10))

    def end(self, logits: str) -> None:
        self.nodes.append(helper.make_node("LogSoftmax", [logits], ["y"]))

    def save(self, file: Path, shape: tuple[int, ...]) -> Path:
        x, y = (
            helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", *s]) for n, s in (("x", shape), ("y", (10,)))
        )
        tensors = [numpy_helper.from_array(v, n) for n, v in self.weights.items()]
        graph = helper.make_graph(self.nodes, "net", [x], [y], tensors)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), file)
        return file


# Tables: layer, the permutation that it reads, the permutation that it writes; a dot where nothing may move.


def mlp(net: Net) -> str:
    x = "x"
    for i, (reads, writes) in enumerate([(12, 6), (6, 6), (6, 6), (6, 10)]):
        x = net.dense(x if i == 0 else net.relu(x), f"Dense_{i}", reads, writes)
    net.end(x)
    return "Dense_0 . P0   Dense_1 P0 P1   Dense_2 P1 P2   Dense_3 P2 ."


def vgg16(net: Net) -> str:
    x, width = "x", 3
    for i, wide in enumerate([2, 2, 4, 4, 6, 6, 6, 8, 8, 8, 8, 8, 8]):
        x = net.conv(x, f"Conv_{i}", (width, wide, 3), bias=True)
        x, width = net.relu(net.norm(x, f"Norm_{i}", wide)), wide
        x = net.pool(x) if i in (1, 3, 6, 9, 12) else x
    x = net.relu(net.dense(net.node("Flatten", x), "Dense_0", width, 7))
    x = net.relu(net.dense(x, "Dense_1", 7, 7))
    net.end(net.dense(x, "Dense_2", 7, 10))
    table = "Conv_0 . C0   Dense_0 C12 D0   Dense_1 D0 D1   Dense_2 D1 .   Norm_0 . C0"
    return table + "".join(f"   Conv_{i} C{i - 1} C{i}   Norm_{i} . C{i}" for i in range(1, 13))


def resnet20(net: Net) -> str:
    x, width = net.relu(net.norm(net.conv("x", "conv1", (3, 4, 3)), "norm1", 4)), 4
    for group, wide in enumerate([4, 6, 8]):
        for block in range(3):
            name, stride = f"{group}/{block}", 2 if group > 0 and block == 0 else 1
            y = net.relu(net.norm(net.conv(x, f"{name}/conv1", (width, wide, 3), stride), f"{name}/norm1", wide))
            y = net.norm(net.conv(y, f"{name}/conv2", (wide, wide, 3)), f"{name}/norm2", wide)
            if stride > 1:
                x = net.norm(net.conv(x, f"{name}/shortcut0", (width, wide, 3), stride), f"{name}/shortcut1", wide)
            x, width = net.relu(net.node("Add", y, x)), wide
    net.classify(x, "dense", width)
    block = "   {b}/conv1 {p} {b}   {b}/norm1 . {b}   {b}/conv2 {b} {q}   {b}/norm2 . {q}"
    shortcut = block + "   {b}/shortcut0 {p} {q}   {b}/shortcut1 . {q}"
    plain = ("0/0", "0/1", "0/2", "1/1", "1/2", "2/1", "2/2")
    table = "conv1 . bg0   norm1 . bg0   dense bg2 ."
    table += "".join(block.format(b=b, p=f"bg{b[0]}", q=f"bg{b[0]}") for b in plain)
    return table + shortcut.format(b="1/0", p="bg0", q="bg1") + shortcut.format(b="2/0", p="bg1", q="bg2")


def resnet50(net: Net) -> str:
    x, width = net.pool(net.relu(net.norm(net.conv("x", "stem", (3, 4, 7), 2), "stem_norm", 4)), 3), 4
    for group, (blocks, inner) in enumerate([(3, 2), (4, 3), (6, 4), (3, 5)]):
        for block in range(blocks):
            name, stride, wide = f"{group}/{block}", 2 if group > 0 and block == 0 else 1, 4 * inner
            y = net.relu(net.norm(net.conv(x, f"{name}/conv1", (width, inner, 1)), f"{name}/norm1", inner))
            y = net.relu(net.norm(net.conv(y, f"{name}/conv2", (inner, inner, 3), stride), f"{name}/norm2", inner))
            y = net.norm(net.conv(y, f"{name}/conv3", (inner, wide, 1)), f"{name}/norm3", wide)
            if block == 0:
                x = net.norm(net.conv(x, f"{name}/skip", (width, wide, 1), stride), f"{name}/skip_norm", wide)
            x, width = net.relu(net.node("Add", y, x)), wide
    net.classify(x, "dense", width)
    block = "   {b}/conv1 {p} {b}-1   {b}/norm1 . {b}-1   {b}/conv2 {b}-1 {b}-2   {b}/norm2 . {b}-2"
    block += "   {b}/conv3 {b}-2 {q}   {b}/norm3 . {q}"
    skip = block + "   {b}/skip {p} {q}   {b}/skip_norm . {q}"
    table = "stem . bg0   stem_norm . bg0   dense bg4 ."
    for group, last in (1, 2), (2, 3), (3, 5), (4, 2):
        table += skip.format(b=f"{group - 1}/0", p=f"bg{group - 1}", q=f"bg{group}")
        for number in range(1, last + 1):
            table += block.format(b=f"{group - 1}/{number}", p=f"bg{group}", q=f"bg{group}")
    return table


def specified(table: str, net: Net) -> Partition:
    """The table as a partition; it speaks of every weight of the network."""
    words = table.split()
    layers = {name: (reads, writes) for name, reads, writes in zip(*[iter(words)] * 3, strict=True)}
    found: dict[str, set[tuple[str, int]]] = defaultdict(set)
    for tensor, values in net.weights.items():
        reads, writes = layers[tensor.rpartition("/")[0]]
        ends = {1: (writes,), 2: (reads, writes), 4: (writes, reads)}[values.ndim]
        for axis, end in enumerate(ends):
            if end != ".":
                found[end].add((tensor, axis))
    assert {tensor.rpartition("/")[0] for tensor in net.weights} == set(layers)
    return {frozenset(places) for places in found.values()}


NORMS = ("LayerNormalization", "BatchNormalization")


@pytest.mark.parametrize(
    ("build", "normaliser", "permutations"),
    [(mlp, "", 3), *[(b, n, p) for b, p in ((vgg16, 15), (resnet20, 12), (resnet50, 37)) for n in NORMS]],
)
def test_the_permutations_are_those_of_git_re_basin(
    build: Callable[[Net], str], normaliser: str, permutations: int, tmp_path: Path
) -> None:
    """Every permutation moves the axes that the specification names, no more and no fewer, and whole axes."""
    net = Net(normaliser)
    expected = specified(build(net), net)
    assert len(expected) == permutations
    shape = (12,) if build is mlp else (3, 32, 32)
    symmetry, _ = examine(load(net.save(tmp_path / "net.onnx", shape)))
    groups = {g.space: g.group for g in symmetry.generators if g.kind == "permutation"}
    spaces = [s for s in symmetry.spaces if s.id in groups]
    found = {frozenset((p.tensor, p.axis) for p in s.places) for s in spaces}
    assert found == expected
    assert len(spaces) == permutations
    for space in spaces:
        assert groups[space.id] == f"S_{space.size}"
        assert {net.weights[p.tensor].shape[p.axis] for p in space.places} == {space.size}
