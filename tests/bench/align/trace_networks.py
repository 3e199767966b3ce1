"""Networks for `bench_trace.py`: small ones of four architectures, trained, and changed in six ways."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_dynamic, quantize_static
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional

Data = tuple[torch.Tensor, torch.Tensor]


def digits(part: slice) -> Data:
    """Images of 8 x 8 and their digits."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))[part]
    return torch.tensor(images[order].reshape(-1, 1, 8, 8) / 16, dtype=torch.float32), torch.tensor(labels[order])


def textures(seed: int, count: int = 1200) -> Data:
    """Ten kinds of waves in noise, of the same shapes: other data."""
    rng = np.random.default_rng(seed)
    kinds, labels = np.random.default_rng(7).normal(size=(10, 2)) * 1.5, rng.integers(0, 10, count)
    y, x = np.mgrid[:8, :8]
    phase = rng.uniform(0, 2 * np.pi, (count, 1, 1))
    waves = np.sin(kinds[labels, 0, None, None] * y + kinds[labels, 1, None, None] * x + phase)
    images = 0.5 + 0.3 * waves + 0.1 * rng.normal(size=waves.shape)
    return torch.tensor(images[:, None], dtype=torch.float32), torch.tensor(labels)


class Recurrent(nn.Module):
    """Two LSTM layers over the rows of an image."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.body, self.head = nn.LSTM(8, 40, 2, batch_first=True), nn.Linear(40, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x.squeeze(1))[0][:, -1])


class Block(nn.Module):
    """Attention of four heads and an MLP, norms first; a mask of places is added to the scores."""

    def __init__(self, width: int = 32, mask: torch.Tensor | None = None) -> None:
        super().__init__()
        self.register_buffer("mask", mask, persistent=False)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(self.norms[0](x)).unflatten(-1, (3, 4, -1)).permute(2, 0, 3, 1, 4)
        scores = (q @ k.transpose(-1, -2)) / q.shape[-1] ** 0.5
        mixed = (scores if self.mask is None else scores + self.mask).softmax(-1) @ v
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.down(functional.gelu(self.up(self.norms[1](x))))


class Transformer(nn.Module):
    """Two blocks over the rows of an image."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.embed, self.place = nn.Linear(8, 32), nn.Parameter(torch.randn(8, 32) * 0.1)
        self.blocks, self.norm = nn.Sequential(Block(), Block()), nn.LayerNorm(32)
        self.head = nn.Linear(32, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.blocks(self.embed(x.squeeze(1)) + self.place)).mean(1))


class Feedforward(nn.Module):
    """Three hidden layers."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 32), nn.ReLU()
        )
        self.head = nn.Linear(32, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))


class Convolutional(nn.Module):
    """Four convolutions, two of them in a residual block, with batch normalisation or with biases."""

    def __init__(self, classes: int, *, normed: bool = True) -> None:
        super().__init__()
        ends = [(1, 16), (16, 24), (24, 24), (24, 32)]
        self.convolutions = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1, bias=not normed) for a, b in ends)
        self.norms = nn.ModuleList(nn.BatchNorm2d(b) if normed else nn.Identity() for _, b in ends)
        self.head = nn.Linear(32, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = list(zip(self.convolutions, self.norms, strict=True))
        for conv, norm in parts[:2]:
            x = norm(conv(x)).relu()
        x = functional.max_pool2d(x + parts[2][1](parts[2][0](x)).relu(), 2)
        return self.head(parts[3][1](parts[3][0](x)).relu().mean((2, 3)))


ARCHITECTURES: dict[str, Callable[[int], nn.Module]] = {
    "mlp": Feedforward, "cnn": Convolutional, "rnn": Recurrent, "transformer": Transformer,
}  # fmt: skip


def train(network: nn.Module, data: Data, epochs: int, rate: float, seed: int) -> nn.Module:
    """Adam with batches of 32."""
    torch.manual_seed(seed)
    images, labels = data
    optimiser = torch.optim.Adam(network.parameters(), rate, weight_decay=1e-5)
    network.train()
    for _ in range(epochs):
        for batch in torch.randperm(len(labels)).split(32):
            optimiser.zero_grad()
            functional.cross_entropy(network(images[batch]), labels[batch]).backward()
            optimiser.step()
    return network.eval()


def trained(kind: str, data: Data, seed: int, epochs: int = 15) -> nn.Module:
    """A network from scratch."""
    torch.manual_seed(seed)
    return train(ARCHITECTURES[kind](10), data, epochs, 2e-3, seed)


def copied(network: nn.Module, kind: str, classes: int = 10) -> nn.Module:
    """A copy; with another number of classes the head is a new one."""
    other = ARCHITECTURES[kind](classes)
    state = network.state_dict()
    other.load_state_dict({n: v for n, v in state.items() if classes == 10 or "head" not in n}, strict=classes == 10)
    return other


def pruned(network: nn.Module, share: float = 0.5) -> nn.Module:
    """Without the smallest elements of every matrix."""
    with torch.no_grad():
        for values in network.parameters():
            if values.ndim > 1:
                values.mul_(values.abs() >= values.abs().flatten().kthvalue(int(share * values.numel()))[0])
    return network.eval()


def exported(network: nn.Module, path: Path) -> Path:
    """As ONNX."""
    images = digits(slice(0, 2))[0]
    torch.onnx.export(
        network.eval(), (images,), str(path), dynamo=False, opset_version=17,
        input_names=["image"], output_names=["logits"], dynamic_axes={"image": {0: "n"}, "logits": {0: "n"}},
    )  # fmt: skip
    return path


class _Reader(CalibrationDataReader):
    def __init__(self) -> None:
        self.left = [{"image": digits(slice(k, k + 1))[0].numpy()} for k in range(8)]

    def get_next(self) -> dict[str, np.ndarray] | None:
        return self.left.pop() if self.left else None


def quantised(path: Path, out: Path, kind: str) -> Path:
    """With weights of eight bits: a grid around every operator of a CNN, matrices of integers in the others."""
    if kind == "cnn":
        quantize_static(str(path), str(out), _Reader(), quant_format=QuantFormat.QDQ)
    else:
        quantize_dynamic(str(path), str(out))
    return out


def renamed(path: Path) -> None:
    """All tensors under other names, and initializers in another order."""
    model = onnx.load(path)
    graph, ends = model.graph, {v.name for v in (*model.graph.input, *model.graph.output)}
    names: dict[str, str] = {"": ""}

    def other(name: str) -> str:
        return name if name in ends else names.setdefault(name, f"t{len(names)}")

    for tensor in graph.initializer:
        tensor.name = other(tensor.name)
    for node in graph.node:
        node.name = ""
        for side in (node.input, node.output):
            side[:] = [other(name) for name in side]
    order = np.random.default_rng(0).permutation(len(graph.initializer))
    kept = [graph.initializer[k] for k in order]
    del graph.initializer[:], graph.value_info[:]
    graph.initializer.extend(kept)
    onnx.save(model, path)
