"""Networks for `bench_barrier.py`: pairs of trainings of seven architectures, on images and on text.

Recipe of all: AdamW with weight decay 0.3, batches of 64, a rate of 0.003 that falls to zero along half a cosine; 60
epochs on 1,200 of scikit-learn's 1,797 images of digits (shuffled by seed 0), or 600 steps on nine tenths of the text
of this repository's rules, README and changelog. The rest is held out. The pair k has the seeds 2 k and 2 k + 1, which
draw weights and batches. Of the recipes with Adam tried at width 64 this rate and decay had the least loss on images
held out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from trace_networks import Block, Convolutional, Data, Transformer, digits

ROOT = Path(__file__).parents[3]
RATE, DECAY, BATCH, EPOCHS, STEPS = 3e-3, 0.3, 64, 60, 600
SIGNS, PLACES = 97, 32
"""Signs that are told apart, and how many a GPT sees at once."""


def perceptron(width: int) -> nn.Module:
    """Three hidden layers of one width."""
    ends = [(64, width), (width, width), (width, width)]
    layers = [layer for a, b in ends for layer in (nn.Linear(a, b), nn.ReLU())]
    return nn.Sequential(nn.Flatten(), *layers, nn.Linear(width, 10))


class Writer(nn.Module):
    """A GPT of two blocks that goes on with a text, sign by sign."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.signs, self.place = nn.Embedding(SIGNS, width), nn.Parameter(torch.randn(PLACES, width) * 0.1)
        mask = torch.full((PLACES, PLACES), -1e9).triu(1)
        self.blocks = nn.Sequential(Block(width, mask), Block(width, mask))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, SIGNS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.norm(self.blocks(self.signs(x) + self.place)))


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "MLP 3 x 64": partial(perceptron, 64),
    "MLP 3 x 256": partial(perceptron, 256),
    "MLP 3 x 512": partial(perceptron, 512),
    "CNN": partial(Convolutional, 10, normed=False),
    "CNN, batch norm": partial(Convolutional, 10),
    "ViT": partial(Transformer, 10),
    "GPT": Writer,
}


@cache
def text() -> torch.Tensor:
    """The signs of a text, those of ASCII as numbers and all others as one."""
    files = [*sorted((ROOT / "rules").glob("*.py")), ROOT / "README.md", ROOT / "CHANGELOG.md"]
    codes = [ord(sign) for file in files for sign in file.read_text(encoding="utf-8")]
    return torch.tensor([code - 31 if 32 <= code < 127 else 96 if code == 10 else 0 for code in codes])


def held_out(name: str) -> Data:
    """Inputs and classes that nothing was trained on."""
    if name != "GPT":
        return digits(slice(1200, None))
    left = text()[-len(text()) // 10 :]
    pieces = left[: len(left) // (PLACES + 1) * (PLACES + 1)].reshape(-1, PLACES + 1)
    return pieces[:, :-1], pieces[:, 1:].contiguous()


def learned(name: str) -> Data:
    """Inputs and classes of training, in part for a text."""
    if name != "GPT":
        return digits(slice(0, 1200))
    pieces = text()[: 1024 * (PLACES + 1)].reshape(-1, PLACES + 1)
    return pieces[:, :-1], pieces[:, 1:]


def _batches(name: str) -> Iterator[Data]:
    if name != "GPT":
        images, labels = learned(name)
        for _ in range(EPOCHS):
            for batch in torch.randperm(len(labels)).split(BATCH):
                yield images[batch], labels[batch]
        return
    kept = text()[: -len(text()) // 10]
    for _ in range(STEPS):
        starts = torch.randint(len(kept) - PLACES, (BATCH, 1))
        pieces = kept[starts + torch.arange(PLACES + 1)]
        yield pieces[:, :-1], pieces[:, 1:]


def trained(name: str, seed: int) -> nn.Module:
    """A network from scratch."""
    torch.manual_seed(seed)
    network = NETWORKS[name]().train()
    steps = STEPS if name == "GPT" else EPOCHS * -(-1200 // BATCH)
    optimiser = torch.optim.AdamW(network.parameters(), RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for inputs, classes in _batches(name):
        optimiser.zero_grad()
        functional.cross_entropy(network(inputs).flatten(0, -2), classes.flatten()).backward()
        optimiser.step()
        schedule.step()
    return network.eval()


def exported(network: nn.Module, name: str, path: Path) -> None:
    """As ONNX; batch normalisations stay, so that averages can get statistics of their own."""
    kept = any(isinstance(part, nn.BatchNorm2d) for part in network.modules())
    mode = torch.onnx.TrainingMode.PRESERVE if kept else torch.onnx.TrainingMode.EVAL
    torch.onnx.export(
        network, (held_out(name)[0][:2],), str(path), dynamo=False, opset_version=17,
        training=mode, do_constant_folding=not kept, input_names=["x"], output_names=["y"],
        dynamic_axes={"x": {0: "n"}, "y": {0: "n"}},
    )  # fmt: skip
