"""Sign and permutation: tanh units die where weight decay is small, and become one where it is large.

A student y = sum of u_i tanh(w_i x) learns a teacher of three units at right angles. Normal inputs are replaced by
points with the same moments up to the eleventh, in three dimensions of eight. Three regimes, for decay gamma:
small: to fit at the least norm, the teacher's own units are needed and no others, the rest is dead (see `certificate`).
large: many small units are straighter than few large ones at the same cost |w_i| |u_i|, and at a given sum of products
the error is least where all are equal (the sum of their fourth powers is): all 40 are one unit, up to sign.
gamma > gamma_c = |mean of teacher(x) x|: zero is the minimum, since |tanh z| <= |z|; all are dead.
"""

from __future__ import annotations

import numpy as np
import torch
from record import Result, Series
from torch import Tensor
from trial import Array, dead, descend, each, model, orthogonal, seeded, spare, verdict

NETWORK = "student (float[n, 8] x) => (float[n, 1] y) { p = MatMul(x, W) h = Tanh(p) y = MatMul(h, U) }"
INPUTS, WIDTH = 8, 40
STEEP, HIGH = 1.5, 1.4
"""The teacher's units are 1.4 tanh(1.5 z), with signs."""
SIGNS = torch.tensor([1.0, -1.0, 1.0])
LIVE = {0.0: 40, 0.005: 3, 0.01: 3, 0.2: 1, 0.4: 1, 0.8: 1, 1.4: 1, 1.68: 1, 1.8: 0, 2.0: 0}
"""Weight decay -> distinct live units. From 0.01 to 0.2 theory gives no number."""
DEAD = {0.0: 0, 0.005: 37, 0.01: 37, 0.2: 0, 0.4: 0, 0.8: 0, 1.4: 0, 1.68: 0, 1.8: 40, 2.0: 40}


def line() -> tuple[Array, Array]:
    """Six points with the moments of a normal number, and their weights."""
    points, shares = np.polynomial.hermite_e.hermegauss(6)
    return points, shares / shares.sum()


def certificate() -> float:
    """What a small unit gains by fitting, in units of what it costs, for a decay towards zero; below 1 it dies.

    The error that decay leaves in each teacher unit is gamma (a tanh(s z) + b z / cosh(s z)^2), with a and b such that
    the unit's own weights stand still.
    """
    z, share = line()
    one, two = np.tanh(STEEP * z), z / np.cosh(STEEP * z) ** 2
    table = [[share @ (p * q) for q in (one, two)] for p in (one, HIGH * two)]
    a, b = np.linalg.solve(table, [HIGH, STEEP])
    return float(3**0.5 * abs(share @ (z * (a * one + b * two))))


def critical() -> float:
    """The decay above which nothing is left."""
    z, share = line()
    return float(3**0.5 * HIGH * share @ (z * np.tanh(STEEP * z)))


def run(*, seeds: int = 5, short: bool = False) -> Result:
    """Train, export and audit."""
    decays, steps = [0.0, 0.01, 0.4, 1.68, 1.8] if short else list(LIVE), 5_000
    assert certificate() < 1
    z, share = (torch.from_numpy(numbers) for numbers in line())
    grid = torch.cartesian_prod(z, z, z)
    half = grid[:, 0] > 0  # all functions here are odd
    points, chance = grid[half], 2 * torch.cartesian_prod(share, share, share).prod(1)[half]
    inputs = points @ orthogonal(seeds, INPUTS, first=100)[:, :3]
    wanted = HIGH * torch.tanh(STEEP * points) @ SIGNS

    def loss(w: Tensor, u: Tensor) -> Tensor:
        made = (torch.tanh(inputs @ w.mT) @ u[..., None])[..., 0]
        return ((made - wanted).square() @ chance).sum() / 2

    starts = [seeded(seeds, WIDTH, INPUTS, first=200, scale=0.2), seeded(seeds, WIDTH, first=300, scale=0.2)]
    weights = descend(starts, loss, decays, rate=0.15, steps=steps, momentum=0.95)
    lost, left = (np.zeros((len(decays), seeds)) for _ in range(2))
    for (k, s), (w, u) in each(*weights):
        findings = verdict(model(NETWORK, {"W": w.T, "U": u[:, None]}))
        lost[k, s] = len(dead(findings))
        left[k, s] = WIDTH - lost[k, s] - spare(findings)
    edges = [decays[int((left[:, s] > 0).sum()) - 1 :][:2] for s in range(seeds)]
    counted = [
        (f"live distinct units ({WIDTH} - SYM101 - SYM201)", LIVE, left),
        ("dead units (SYM101)", DEAD, lost),
    ]
    return Result(
        "tanh_student",
        "small gamma: 37 of 40 dead, the teacher's 3 left; large: none dead, all 40 one unit up to sign; gamma > "
        "gamma_c = |E f(x) x|: all dead; none is lost at 0",
        "sign and permutation symmetry, Ziyin 2024; the regimes derived from |tanh z| <= |z| and from first-order"
        " conditions, as in tanh_student.py",
        f"{seeds} seeds, {WIDTH} units, {steps} steps of full-batch gradient descent on 108 points, rate 0.15,"
        " momentum 0.95, float64",
        [
            Series(
                name,
                "count",
                "weight decay",
                decays,
                [float(number[decay]) for decay in decays],
                found.tolist(),
                logarithmic=True,
            )
            for name, number, found in counted
        ]
        + [
            Series(
                "decay at which all are dead (SYM104)",
                "value",
                "gamma_c",
                [critical()],
                [critical()],
                [[sum(pair) / len(pair) for pair in edges]],
            )
        ],
    )
