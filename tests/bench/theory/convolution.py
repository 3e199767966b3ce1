"""Convolutions with batch normalisation: the more weight decay, the more channels are dead.

Two convolutions with normalisation and ReLU, the mean over places and a linear layer tell four kinds of small images
apart; everything is decayed, gains and shifts of the normalisation too. A gain, its shift and the weights that read
them rescale each other, so decay is a lasso over the channels of the second layer, as for ReLU units. In the first it
is none: what reads its gains is normalised again, and has no scale of its own. The loss is a cross-entropy whose
minimum has no formula: no number of channels is predicted, only that none is dead without decay, that the number does
not fall when decay grows, and that all are dead where decay outweighs any gain. The learning rate is small on purpose:
weights before a normalisation shrink until a step turns them by sqrt(2 rate gamma), and at a rate of 0.2 such leaps
kill channels of the first layer at random, fewer at a decay of 0.1 than at 0.05.
"""

from __future__ import annotations

import numpy as np
import torch
from record import Result, Series
from torch import Tensor
from torch.nn import functional
from trial import descend, each, model, seeded, verdict

NETWORK = """
    channels (float[n, 1, 6, 6] x) => (float[n, 4] y) {
        a = Conv(x, W1) an = BatchNormalization(a, g1, s1, m1, v1) ar = Relu(an)
        b = Conv(ar, W2) bn = BatchNormalization(b, g2, s2, m2, v2) br = Relu(bn)
        c = ReduceMean<axes = [2, 3], keepdims = 0>(br) y = Gemm(c, W3, b3)
    }
"""
CHANNELS, KINDS, IMAGES = 8, 4, 48
NAMES = ("W1", "g1", "s1", "W2", "g2", "s2", "W3", "b3")
DECAYS = (0.0, 0.02, 0.04, 0.08, 0.16, 0.8)


def textures(seeds: int) -> tuple[Tensor, Tensor]:
    """Noisy stripes in four directions, (seeds, images, 6, 6), and which (images,)."""
    kinds = torch.arange(IMAGES) % KINDS
    y, x = torch.meshgrid(torch.arange(6.0), torch.arange(6.0), indexing="ij")
    angle = (kinds * torch.pi / KINDS)[:, None, None]
    phase = 3 * seeded(seeds, IMAGES, 1, 1, first=100)
    waves = torch.sin(1.6 * (x * angle.cos() + y * angle.sin()) + phase)
    return waves + 0.5 * seeded(seeds, IMAGES, 6, 6, first=200), kinds


def moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel, over images and places."""
    variance, mean = torch.var_mean(x, -2, correction=0, keepdim=True)
    return mean, variance


def windows(x: Tensor) -> Tensor:
    """All 3 x 3 windows of images (..., height, width, channels) as rows: (..., heights, widths, 9 channels)."""
    return x.unfold(-3, 3, 1).unfold(-3, 3, 1).flatten(-3)


def normal(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    """Batch normalisation and ReLU of rows (..., rows, channels)."""
    mean, variance = moments(x)
    return torch.relu((x - mean) / (variance + 1e-5).sqrt() * gain[..., None, :] + shift[..., None, :])


def layers(images: Tensor, weights: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
    """What both convolutions give, before normalisation, (decays, seeds, rows, channels), and the scores."""
    w1, g1, s1, w2, g2, s2, w3, b3 = weights
    first = windows(images[..., None]).flatten(-4, -2) @ w1.flatten(-3).mT
    planes = normal(first, g1, s1).unflatten(-2, (IMAGES, 4, 4))
    second = windows(planes).flatten(-4, -2) @ w2.flatten(-3).mT
    pooled = normal(second, g2, s2).unflatten(-2, (IMAGES, 4)).mean(-2)
    return first, second, pooled @ w3 + b3[..., None, :]


def run(*, seeds: int = 5, short: bool = False) -> Result:
    """Train, export and audit."""
    decays, steps = (DECAYS[::5], 2_200) if short else (DECAYS, 2_500)
    images, kinds = textures(seeds)

    def loss(*weights: Tensor) -> Tensor:
        scores = layers(images, weights)[2]
        wanted = kinds.expand(scores.shape[:-1])
        return functional.cross_entropy(scores.flatten(0, -2), wanted.flatten(), reduction="sum") / IMAGES

    one, none = torch.ones(seeds, CHANNELS), torch.zeros(seeds, CHANNELS)
    w1 = seeded(seeds, CHANNELS, 1, 3, 3, first=300, scale=0.4)
    w2 = seeded(seeds, CHANNELS, CHANNELS, 3, 3, first=400, scale=0.15)
    w3 = seeded(seeds, CHANNELS, KINDS, first=500, scale=0.3)
    starts = [w1, one, none, w2, one, none, w3, torch.zeros(seeds, KINDS)]
    weights = descend(starts, loss, decays, rate=0.05, steps=steps)
    first, second, _ = layers(images, tuple(weights))
    # All images are one batch: its statistics are what running ones would have come to.
    statistics = [value[..., 0, :] for layer in (first, second) for value in moments(layer)]
    counts = np.zeros((len(decays), seeds))
    for (k, s), values in each(*weights, *statistics):
        stored = dict(zip((*NAMES, "m1", "v1", "m2", "v2"), values, strict=True))
        findings = verdict(model(NETWORK, stored))
        # A dead branch is one finding for all of its spaces.
        whole = sum(len(f.facts["spaces"]) for f in findings.get("SYM104", ()))
        counts[k, s] = CHANNELS * whole + sum(len(f.units) for f in findings.get("SYM101", ()))
    ends = [0, len(decays) - 1]
    return Result(
        "convolution",
        "dead channels: none without decay, never fewer with more decay, all in the end; no number between",
        "rescaling symmetry of gain, shift and reader, Ziyin 2024; qualitative",
        f"{seeds} seeds, 2 x {CHANNELS} channels, {IMAGES} images, {steps} steps of full-batch gradient descent, rate"
        " 0.05, momentum 0.9, float64",
        [
            Series(
                "dead channels (SYM101, SYM104)", "rising", "weight decay", list(decays), [], counts.tolist(), [], True
            ),
            Series(
                "dead channels without decay, and with most",
                "count",
                "weight decay",
                [decays[k] for k in ends],
                [0.0, 2.0 * CHANNELS],
                [counts[k].tolist() for k in ends],
                logarithmic=True,
            ),
        ],
    )
