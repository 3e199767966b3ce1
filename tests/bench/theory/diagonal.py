"""Rescaling: diagonal linear regression with weight decay is soft thresholding, and what it thresholds is dead.

The network multiplies features f = relu(P x) by u and then by v, and turns them: y = Q (v * u * f). It learns
y = Q (b * f) from 64 examples. The features have unit second moments and Q is a rotation, so with weight decay the
loss is the sum over features of (u v - b)^2 / 2 + gamma (u^2 + v^2) / 2, least where u v = sign(b) max(|b| - gamma, 0).
Unit i of symlint's space is feature i here: the units that SYM101 names bracket the threshold.
"""

from __future__ import annotations

import numpy as np
import torch
from record import Result, Series
from torch import Tensor
from trial import dead, descend, each, model, orthogonal, outputs, seeded, verdict

NETWORK = """
    diagonal (float[n, 40] x) => (float[n, 40] y) {
        p = MatMul(x, P) f = Relu(p) h = Mul(f, u) k = Mul(h, v) y = MatMul(k, Q)
    }
"""
SIZE = 40
STRENGTHS = 0.1 * 1.05 ** torch.arange(SIZE)
"""The sizes of b, from 0.1 to 0.67, each 5% above the last."""
DECAYS = (0.0, 0.12, 0.183, 0.27, 0.4, 0.6)
SHOWN = 0.183
"""The decay at which the coefficients themselves are compared."""


def features(seeds: int, examples: int = 64) -> tuple[Tensor, Tensor]:
    """P (seeds, size, size), and the features (seeds, examples, size) that it makes of normal inputs."""
    reader, inputs = orthogonal(seeds, SIZE, first=100), seeded(seeds, examples, SIZE, first=200)
    made = torch.relu(inputs @ reader)
    size = made.square().mean(1, keepdim=True).sqrt()
    return reader / size, made / size


def trained(
    seeds: int, decays: tuple[float, ...], steps: int, bias: float = 0.0
) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
    """P, b, the weights (u, v), and what the decay pulls them to: u0 and v0 of size `bias`."""
    reader, made = features(seeds)
    b = STRENGTHS * seeded(seeds, SIZE, first=300).sign()

    def loss(u: Tensor, v: Tensor) -> Tensor:
        # Turning the error by Q would not change its length.
        return ((u * v - b)[:, :, None] * made).square().mean(2).sum() / 2

    starts = [seeded(seeds, SIZE, first=first, scale=0.3) for first in (400, 500)]
    origins = [seeded(seeds, SIZE, first=first, scale=bias) for first in (600, 700)]
    return reader, b, descend(starts, loss, decays, rate=0.3, steps=steps, origins=origins), origins


def run(*, seeds: int = 5, short: bool = False) -> Result:
    """Train, export and audit."""
    decays, steps = ((0.0, SHOWN, 0.4) if short else DECAYS), 8_000
    reader, b, weights, _ = trained(seeds, decays, steps)
    turn, sizes = orthogonal(seeds, SIZE, first=800).numpy(), STRENGTHS.numpy()
    counts, edges = (np.zeros((len(decays), seeds)) for _ in range(2))
    gains, line = np.zeros((SIZE, seeds)), np.linspace(0, max(decays), 300)
    for (k, s), (u, v) in each(*weights):
        file = model(NETWORK, {"P": reader[s].numpy(), "u": u, "v": v, "Q": turn[s]})
        lost = list(dead(verdict(file)))
        counts[k, s] = len(lost)
        edges[k, s] = (max(sizes[lost], default=0.0) + min(np.delete(sizes, lost))) / 2
        if decays[k] == SHOWN:
            shown = outputs(file, np.linalg.inv(reader[s].numpy())) @ turn[s].T
            gains[:, s] = np.diag(shown) * b[s].sign().numpy()
    return Result(
        "diagonal",
        "u v = sign(b) max(|b| - gamma, 0): the features with |b| < gamma are dead",
        "rescaling symmetry (u, v) -> (a u, v / a), Ziyin 2024; min over a of a^2 u^2 + v^2 / a^2 is 2 |u v|",
        f"{seeds} seeds, {SIZE} features, {steps} steps of full-batch gradient descent, rate 0.3, momentum 0.9,"
        " float64",
        [
            Series(
                "dead units (SYM101)",
                "count",
                "weight decay",
                list(decays),
                [float((sizes < decay).sum()) for decay in decays],
                counts.tolist(),
                [line.tolist(), [float((sizes < decay).sum()) for decay in line]],
            ),
            Series(
                "|b| between dead and live units (SYM101)",
                "value",
                "weight decay",
                list(decays[1:]),
                list(decays[1:]),
                edges[1:].tolist(),
                [list(decays[1:])] * 2,
            ),
            Series(
                f"coefficient of the file at decay {SHOWN}",
                "value",
                "|b|",
                sizes.tolist(),
                np.maximum(sizes - SHOWN, 0).tolist(),
                gains.tolist(),
                [sizes.tolist(), np.maximum(sizes - SHOWN, 0).tolist()],
            ),
        ],
    )
