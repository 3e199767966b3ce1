"""Names that people can read: of stored tensors, of layers, of nodes.

The older torch exporter calls a transposed or folded weight ``onnx::MatMul_350``. The node that reads it still carries
the path of its module, so the tensor is called ``encoder.layer.0.attention.self.query.weight`` and its layer
``encoder.layer.0.attention.self.query``. Where no path is left, a layer is called after its node, or after its operator
and the tensor: ``Conv 12``. All names are a model's own words: whoever shows them makes them safe.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

from symlint.model.graph import Model, Node

_NAMELESS = re.compile(r"onnx::.*|\d+|_?(val|v|t|tmp|const|constant)_?\d+", re.IGNORECASE | re.DOTALL)
_ROLE = re.compile(r"units?|weights?|bias(es)?|kernels?|params?|parameters?|tensors?|data", re.IGNORECASE)
"""What a tensor may be called in any layer: no name of one."""
_SUFFIXES = (
    re.compile(r":\d+\Z"),
    re.compile(r"(/ReadVariableOp)?(/resource)?\Z"),
    re.compile(r"[./](weight|bias|kernel|filter|gamma|beta|w_\d+|b_\d+)\Z"),
)
_PASSING = {"Cast", "DequantizeLinear", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
_AFFINE = {"Conv": 1, "ConvTranspose": 1, "Gemm": 1, "MatMul": 1, "QLinearConv": 3, "QLinearMatMul": 3}
_RECURRENT = {"GRU", "LSTM", "RNN"}


class Where(NamedTuple):
    """A node as it is told: its own name, or its operator and output where it has none; and its operator."""

    node: str
    op: str


def called(node: Node) -> Where:
    """How a node is told; neither word is ever empty."""
    outputs = [name for name in node.outputs if name]
    return Where(node.name or f"{node.op} -> {outputs[0] if outputs else 'nothing'}", node.op)


class Names:
    """The names of one model."""

    def __init__(self, model: Model) -> None:
        self._model = model

    @cached_property
    def borrowed(self) -> dict[str, str]:
        """Stored tensor without a name of its own -> one from the node that reads it."""
        shown: dict[str, str] = {}
        taken = set(self._model.tensors)
        for name in filter(_NAMELESS.fullmatch, self._model.tensors):
            for word in self._candidates(name):
                if word not in taken:
                    shown[name] = word
                    taken.add(word)
                    break
        return shown

    def tensor(self, name: str) -> str:
        """A stored tensor's name: its own, or one from the node that reads it."""
        return self.borrowed.get(name, name)

    def spoken(self, tensor: str) -> str:
        """A stored tensor in a sentence; where it has no name, by its layer and the part that it plays there."""
        name = self.tensor(tensor)
        node, slot = self._user(tensor)
        return name if node is None or not _NAMELESS.fullmatch(name) else f"{self.layer(tensor)}.{_part(node, slot)}"

    def layer(self, tensor: str) -> str:
        """The layer that a stored tensor belongs to."""
        name = stem(self.tensor(tensor))
        node = self._user(tensor)[0]
        if _telling(name) or node is None:
            return name
        return node.name if _telling(node.name) else f"{node.op} {name}"

    def chief(self, tensors: Collection[str]) -> str:
        """Of several stored tensors the first with most axes: the weight of a layer, before its bias."""
        stored = self._model.tensors
        return max(tensors, key=lambda name: len(stored[name].shape) if name in stored else 0, default="")

    def where(self, name: str) -> Where | None:
        """The node that reads a value, behind what only hands it on, else the one that makes it."""
        node = self._user(name)[0] or self._writers.get(name)
        return called(node) if node else None

    def written(self, value: str) -> Where | None:
        """The node that makes a value."""
        node = self._writers.get(value)
        return called(node) if node else None

    @cached_property
    def _readers(self) -> dict[str, tuple[Node, int]]:
        """Value -> the first node that reads it, and as which input."""
        found: dict[str, tuple[Node, int]] = {}
        for node in self._model.graph.walk():
            for slot, name in enumerate(node.inputs):
                found.setdefault(name, (node, slot))
        return found

    @cached_property
    def _writers(self) -> dict[str, Node]:
        return {name: node for node in self._model.graph.walk() for name in node.outputs if name}

    def _user(self, name: str) -> tuple[Node | None, int]:
        """The node that makes use of a value, and as which input it gets it."""
        readers: Mapping[str, tuple[Node | None, int]] = self._readers
        node, slot = readers.get(name, (None, 0))
        seen = {name}
        while node is not None and slot == 0 and node.op in _PASSING and node.outputs[0] not in seen:
            seen.add(node.outputs[0])
            following = readers.get(node.outputs[0], (None, 0))
            if following[0] is None:
                break
            node, slot = following
        return node, slot

    def _candidates(self, name: str) -> Iterator[str]:
        """The module of the node that uses a tensor, and the part that it plays there; with the node if need be."""
        node, slot = self._user(name)
        if node is not None and (module := _module(node)):
            yield f"{module}.{_part(node, slot)}"
            yield f"{module}.{node.name.rpartition('/')[2]}.{_part(node, slot)}"


def _telling(name: str) -> bool:
    """Whether a name tells one layer from others."""
    return bool(name) and not _NAMELESS.fullmatch(name) and not _ROLE.fullmatch(name)


def stem(name: str) -> str:
    """The layer's name: that of ``fc1.weight``, ``conv2d_5.w_0`` or ``dense/kernel:0`` without the part that it plays.

    >>> stem("h.0.mlp.weight"), stem("dense/MatMul/ReadVariableOp:0"), stem("weight")
    ('h.0.mlp', 'dense/MatMul', 'weight')
    """
    for suffix in _SUFFIXES:
        name = suffix.sub("", name) or name
    return name


def _module(node: Node) -> str:
    """``/net/layer1/layer1.0/conv1/Conv`` is ``net.layer1.0.conv1``: exporters repeat the parent in the child."""
    path = [step for step in node.name.split("/") if step]
    if "/" not in node.name or len(path) < 2:
        return ""
    kept = [step for step, child in pairwise(path) if not child.startswith(f"{step}.")]
    return ".".join(kept)


def _part(node: Node, slot: int) -> str:
    if node.op in _AFFINE:
        weight = _AFFINE[node.op]
        if slot == weight or (node.op == "MatMul" and slot == 0):
            return "weight"
        if slot > weight:
            return "bias"
    if node.op in _RECURRENT and 1 <= slot <= 3:
        return "WRB"[slot - 1]
    return node.op.rpartition(".")[2]
