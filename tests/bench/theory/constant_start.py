"""Permutation: layers that start with one number in all weights stay on the plane where their units are one.

Gradients of equal units are equal, with weight decay and without it: at no step can gradient descent part them. The
same networks from random weights keep all their units apart.
"""

from __future__ import annotations

import torch
from record import Result, Series
from torch import Tensor
from trial import descend, each, model, seeded, verdict

NETWORK = """
    layers (float[n, 8] x) => (float[n, 2] y) {
        a = Gemm<transB = 1>(x, W1, b1) h = Relu(a) c = Gemm<transB = 1>(h, W2, b2) k = Tanh(c) y = MatMul(k, W3)
    }
"""
WIDTHS = (16, 12)
SHAPES = {"W1": (16, 8), "b1": (16,), "W2": (12, 16), "b2": (12,), "W3": (12, 2)}
STARTS = (0.02, 0.05, 0.1, 0.2)
DECAYS = (0.0, 0.001, 0.01)


def run(*, seeds: int = 5, short: bool = False) -> Result:
    """Train, export and audit."""
    starts, steps = (STARTS[1:2], 200) if short else (STARTS, 1_000)
    inputs = seeded(seeds, 128, 8, first=100)
    wanted = torch.sin(inputs @ seeded(seeds, 8, 2, first=200))

    def loss(w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor, w3: Tensor) -> Tensor:
        hidden = torch.relu(inputs @ w1.mT + b1[..., None, :])
        return ((torch.tanh(hidden @ w2.mT + b2[..., None, :]) @ w3 - wanted).square().sum(-1)).mean(-1).sum() / 2

    def distinct(weights: list[Tensor]) -> list[list[float]]:
        """Units of both layers less those that SYM203 or SYM201 calls spare, per decay and seed."""
        counts = [[float(sum(WIDTHS))] * seeds for _ in DECAYS]
        for (k, s), arrays in each(*weights):
            findings = verdict(model(NETWORK, dict(zip(SHAPES, arrays, strict=True))))
            for code in ("SYM201", "SYM203"):
                counts[k][s] -= sum(f.facts["units"] - len(f.facts["groups"]) for f in findings.get(code, ()))
        return counts

    constant = []
    for start in starts:
        same = [torch.full((seeds, *shape), start) for shape in SHAPES.values()]
        found = distinct(descend(same, loss, DECAYS, rate=0.05, steps=steps))
        constant.append([count for per_decay in found for count in per_decay])
    drawn = [seeded(seeds, *shape, first=300 + 100 * i, scale=0.3) for i, shape in enumerate(SHAPES.values())]
    free = distinct(descend(drawn, loss, DECAYS, rate=0.05, steps=steps))
    return Result(
        "constant_start",
        "from a constant one distinct unit per layer is left for ever; from random weights all are",
        "permutation symmetry: O^T theta = 0 implies O^T grad = 0, Ziyin 2024",
        f"{seeds} seeds, decays {DECAYS}, {steps} steps of full-batch gradient descent, rate 0.05, momentum 0.9,"
        " float64",
        [
            Series(
                "distinct units of two layers (SYM203), started constant",
                "count",
                "the constant",
                list(starts),
                [2.0] * len(starts),
                constant,
                logarithmic=True,
            ),
            Series(
                "distinct units of two layers, started at random",
                "count",
                "weight decay",
                list(DECAYS),
                [float(sum(WIDTHS))] * len(DECAYS),
                free,
                logarithmic=True,
            ),
        ],
    )
