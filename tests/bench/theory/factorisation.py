"""Rotation: two linear layers with weight decay lose every singular value below it, and SYM301 counts the others.

y = V U x learns y = M x from white inputs, so that with weight decay the loss is |V U - M|^2 / 2 plus
gamma (|U|^2 + |V|^2) / 2: least over all pairs with one product, the last is gamma times the sum of the singular values
of the product, and the minimum has the singular vectors of M and the singular values max(sigma - gamma, 0).
"""

from __future__ import annotations

import numpy as np
import torch
from record import Result, Series
from torch import Tensor
from trial import descend, each, model, orthogonal, outputs, seeded, verdict, white

NETWORK = "factors (float[n, 24] x) => (float[n, 24] y) { h = MatMul(x, U) y = MatMul(h, V) }"
SIZE = 24
SIGMA = 0.2 * 1.1 ** torch.arange(SIZE)
"""The singular values of M, from 0.2 to 1.8, each 10% above the last."""
DECAYS = (0.0, 0.25, 0.4, 0.61, 0.96, 1.4)
SHOWN = 0.61


def trained(seeds: int, decays: tuple[float, ...], steps: int, bias: float = 0.0) -> list[Tensor]:
    """The weights (U, V); the decay pulls them to random ones with elements of size `bias`."""
    target = orthogonal(seeds, SIZE, first=100) * SIGMA @ orthogonal(seeds, SIZE, first=200)
    inputs = white(seeds, 2 * SIZE, SIZE, first=300)
    wanted = inputs @ target

    def loss(down: Tensor, up: Tensor) -> Tensor:
        return (inputs @ down @ up - wanted).square().mean(2).sum() / 2

    starts = [seeded(seeds, SIZE, SIZE, first=first, scale=0.1) for first in (400, 500)]
    origins = [seeded(seeds, SIZE, SIZE, first=first, scale=bias) for first in (600, 700)]
    return descend(starts, loss, decays, rate=0.2, steps=steps, origins=origins)


def run(*, seeds: int = 5, short: bool = False) -> Result:
    """Train, export and audit."""
    decays, steps = ((0.0, SHOWN, 1.4), 1_000) if short else (DECAYS, 3_000)
    weights = trained(seeds, decays, steps)
    ranks, edges = (np.zeros((len(decays), seeds)) for _ in range(2))
    spectra, line = np.zeros((SIZE, seeds)), np.linspace(0, max(decays), 300)
    sigma = SIGMA.numpy()
    for (k, s), (down, up) in each(*weights):
        file = model(NETWORK, {"U": down, "V": up})
        found = verdict(file).get("SYM301", ())
        rank = int(found[0].facts["ranks"][0]) if found else SIZE
        ranks[k, s] = rank
        edges[k, s] = sigma[SIZE - rank - 1 : SIZE - rank + 1].mean() if found else np.nan
        if decays[k] == SHOWN:
            spectra[:, s] = np.linalg.svd(outputs(file, np.eye(SIZE)), compute_uv=False)[::-1]
    return Result(
        "factorisation",
        "sigma(V U) = max(sigma(M) - gamma, 0): the rank is the number of singular values above gamma",
        "rotation symmetry (U, V) -> (g U, V / g), Ziyin 2024; min over g of |g U|^2 + |V / g|^2 is twice the nuclear"
        " norm of V U (Srebro, Rennie and Jaakkola 2004)",
        f"{seeds} seeds, 24 x 24 x 24, {steps} steps of full-batch gradient descent, rate 0.2, momentum 0.9, float64",
        [
            Series(
                "rank (SYM301)",
                "count",
                "weight decay",
                list(decays),
                [float((sigma > decay).sum()) for decay in decays],
                ranks.tolist(),
                [line.tolist(), [float((sigma > decay).sum()) for decay in line]],
            ),
            Series(
                "sigma between lost and kept (SYM301)",
                "value",
                "weight decay",
                list(decays[1:]),
                list(decays[1:]),
                edges[1:].tolist(),
                [list(decays[1:])] * 2,
            ),
            Series(
                f"singular value of the file at decay {SHOWN}",
                "value",
                "sigma of the target",
                sigma.tolist(),
                np.maximum(sigma - SHOWN, 0).tolist(),
                spectra.tolist(),
                [sigma.tolist(), np.maximum(sigma - SHOWN, 0).tolist()],
            ),
        ],
    )
