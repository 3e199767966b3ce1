"""Rotation in attention: with weight decay a head's scores lose every singular value below gamma times sqrt(width).

Four heads of width 6 learn the scores x_i M x_j of a teacher's heads, on 48 tokens with 24 features whose second
moments are the identity: the mean squared error over all pairs of tokens is |W_Q W_K^T / sqrt(6) - M|^2. Weight decay
on W_Q and W_K adds, at best, gamma sqrt(6) times the sum of the singular values of what is compared with M. The
exported file is the whole layer, with softmax, whose values are the tokens.
"""

from __future__ import annotations

import numpy as np
import torch
from record import Result, Series
from torch import Tensor
from trial import descend, each, model, orthogonal, seeded, verdict, white

NETWORK = """
    attention (float[t, 24] x) => (float[t, 96] y) {
        q = MatMul(x, WQ) k = MatMul(x, WK) qs = Reshape(q, heads) ks = Reshape(k, heads)
        qh = Transpose<perm = [1, 0, 2]>(qs) kh = Transpose<perm = [1, 2, 0]>(ks)
        raw = MatMul(qh, kh) scores = Div(raw, root) shares = Softmax<axis = -1>(scores) mixed = MatMul(shares, x)
        back = Transpose<perm = [1, 0, 2]>(mixed) y = Reshape(back, flat)
    }
"""
TABLES = {"heads": np.array([-1, 4, 6]), "flat": np.array([-1, 96]), "root": np.array(6**0.5)}
HEADS, WIDTH, SIZE, TOKENS = 4, 6, 24, 48
SIGMA = (0.3 * 1.06 ** torch.arange(HEADS * WIDTH)).reshape(WIDTH, HEADS).T
"""Singular values of the heads of the teacher, (heads, width); all 24 in a row are 6% apart."""
THRESHOLDS = (0.0, 0.38, 0.5, 0.65, 0.82, 0.99)
"""gamma sqrt(width) to try."""


def run(*, seeds: int = 5, short: bool = False) -> Result:
    """Train, export and audit."""
    levels, steps = (THRESHOLDS[::2], 1_500) if short else (THRESHOLDS, 4_000)
    decays = [level / WIDTH**0.5 for level in levels]
    left, right = (
        torch.stack([orthogonal(seeds, SIZE, first=first + 1000 * h)[..., :WIDTH] for h in range(HEADS)], 1)
        for first in (100, 200)
    )
    teacher = left * SIGMA[:, None] @ right.mT
    tokens = white(seeds, TOKENS, SIZE, first=300)[:, None]
    wanted = tokens @ teacher @ tokens.mT

    def loss(query: Tensor, key: Tensor) -> Tensor:
        scores = (tokens @ query) @ (tokens @ key).mT / WIDTH**0.5
        return (scores - wanted).square().sum() / 2 / TOKENS**2

    starts = [seeded(seeds, HEADS, SIZE, WIDTH, first=first, scale=0.1) for first in (400, 500)]
    weights = descend(starts, loss, decays, rate=0.3, steps=steps)
    ranks, edges = (np.zeros((len(decays), seeds)) for _ in range(2))
    sigma, line = SIGMA.numpy(), np.linspace(0, max(levels), 300)
    for (k, s), pair in each(*weights):
        query, key = (w.transpose(1, 0, 2).reshape(SIZE, HEADS * WIDTH) for w in pair)
        found = verdict(model(NETWORK, {"WQ": query, "WK": key, **TABLES})).get("SYM302", ())
        rank = dict.fromkeys(range(HEADS), WIDTH)
        for finding in found:
            rank.update(zip(finding.units, finding.facts["ranks"], strict=True))
        ranks[k, s] = sum(rank.values())
        lost = max([sigma[h][WIDTH - r - 1] for h, r in rank.items() if r < WIDTH], default=0.0)
        edges[k, s] = (lost + min(sigma[h][WIDTH - r] for h, r in rank.items() if r)) / 2
    return Result(
        "attention",
        "a head's scores keep the singular values above gamma sqrt(d_k): the rank is their number",
        "rotation symmetry (W_Q, W_K) -> (W_Q g, W_K / g^T), Ziyin 2024; nuclear norm as in factorisation",
        f"{seeds} seeds, {HEADS} heads of {WIDTH}, {steps} steps of full-batch gradient descent, rate 0.3, momentum"
        " 0.9, float64",
        [
            Series(
                "ranks of all heads (SYM302)",
                "count",
                "gamma sqrt(d_k)",
                list(levels),
                [float((sigma > level).sum()) for level in levels],
                ranks.tolist(),
                [line.tolist(), [float((sigma > level).sum()) for level in line]],
            ),
            Series(
                "sigma between lost and kept (SYM302)",
                "value",
                "gamma sqrt(d_k)",
                list(levels[1:]),
                list(levels[1:]),
                edges[1:].tolist(),
                [list(levels[1:])] * 2,
            ),
        ],
    )
