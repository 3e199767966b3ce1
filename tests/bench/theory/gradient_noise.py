"""Gradient noise alone, without weight decay: a feature dies where the learning rate is above a threshold.

The network of diagonal.py, trained on one example at a time with noisy targets y = b f + e, where each feature f is 0
or sqrt(2) and e is 3 or -3, by the toss of a coin. Near u = v = 0 a step multiplies u + v by 1 + rate f y: on average
the feature grows, since b > 0, but the logarithm falls where the mean of log|1 + rate f y| is negative. For coins that
is (1 + 2 b rate)^2 - 18 rate^2 < 1, or rate > 2 b / (9 - 2 b^2). A short end at a tenth of the rate, as schedules have
it, brings back what has only been small for a while, and nothing that is dead.
"""

from __future__ import annotations

import numpy as np
from diagonal import NETWORK, SIZE
from record import Result, Series
from trial import Array, dead, model, orthogonal, verdict

SIGNALS = (0.25, 0.35, 0.5)
"""b, the same for all 40 features of a network."""
NOISE = 3.0
RATIOS = (0.5, 0.7, 0.8, 0.85, 0.9, 0.94, 0.97, 1.0, 1.03, 1.06, 1.1, 1.15, 1.2, 1.3)
"""Learning rates, relative to the predicted threshold."""
FAR = 0.15
"""So far from the threshold all features do the same."""


def threshold(signal: float) -> float:
    """The rate above which features die."""
    return 2 * signal / (NOISE**2 - 2 * signal**2)


def train(rates: Array, signals: Array, seeds: int, steps: int) -> tuple[Array, Array]:
    """u and v after stochastic gradient descent, (signals, ratios, seeds, size)."""
    rng = np.random.default_rng(0)
    u, v = (rng.uniform(0.3, 0.7, (1, 1, seeds, SIZE)) * np.ones((*rates.shape, 1, 1)) for _ in range(2))
    rate, b, block = rates[..., None, None], signals[:, None, None, None], 1_000
    for start in range(0, steps + steps // 10, block):
        if start == steps:
            rate = rate / 10
        features = 2**0.5 * rng.integers(0, 2, (block, seeds, SIZE))
        noise = NOISE * (2 * rng.integers(0, 2, (block, seeds, SIZE)) - 1)
        for f, e in zip(features, noise, strict=True):
            # Features of different outputs do not feel each other: the loss is a sum over them.
            pull = rate * f * ((b - u * v) * f + e)
            u, v = u + pull * v, v + pull * u
    return u, v


def run(*, seeds: int = 5, short: bool = False) -> Result:
    """Train, export and audit."""
    signals, ratios, steps = (SIGNALS[-1:], RATIOS[1::4], 30_000) if short else (SIGNALS, RATIOS, 200_000)
    critical = np.array([threshold(b) for b in signals])
    with np.errstate(under="ignore"):
        u, v = train(critical[:, None] * np.array(ratios), np.array(signals), seeds, steps)
    reader, turn = (orthogonal(seeds, SIZE, first=first).numpy() for first in (100, 200))
    counts = np.zeros(u.shape[:3])
    for place in np.ndindex(*counts.shape):
        weights = {"P": 2**0.5 * reader[place[2]], "u": u[place], "v": v[place], "Q": turn[place[2]]}
        counts[place] = len(dead(verdict(model(NETWORK, weights))))
    far = [k for k, ratio in enumerate(ratios) if abs(ratio - 1) >= FAR - 1e-9]
    rising = np.maximum.accumulate(counts, axis=1)
    halves = [[float(np.interp(SIZE / 2, rising[i, :, s], ratios)) for s in range(seeds)] for i in range(len(signals))]
    step = [[ratios[0], 1.0, 1.0, ratios[-1]], [0.0, 0.0, float(SIZE), float(SIZE)]]
    return Result(
        "gradient_noise",
        "without weight decay a feature dies where E log|1 + rate f y| < 0; for coins that is rate > 2 b / (9 - 2 b^2)",
        "stochastic collapse, Chen et al. 2023; the product of random factors 1 + rate f y near u = v = 0",
        f"{seeds} seeds, {SIZE} features, {steps} steps of stochastic gradient descent on one example at a time, and"
        f" {steps // 10} at a tenth of the rate, float64; b = {', '.join(map(str, signals))}, noise {NOISE}",
        [
            Series(
                f"dead units (SYM101), b = {signals[-1]}",
                "count",
                "learning rate / predicted threshold",
                [ratios[k] for k in far],
                [SIZE * float(ratios[k] > 1) for k in far],
                [counts[-1, k].tolist() for k in far],
                step,
            ),
            Series(
                "learning rate at which half are dead (SYM101)",
                "value",
                "b",
                list(signals),
                critical.tolist(),
                (np.array(halves) * critical[:, None]).tolist(),
                [list(signals), critical.tolist()],
            ),
            Series(
                f"dead units near the threshold, b = {signals[-1]}",
                "rising",
                "learning rate / predicted threshold",
                list(ratios),
                [],
                counts[-1].tolist(),
                step,
            ),
        ],
    )
