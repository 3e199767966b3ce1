"""Permutation and rescaling: of 40 ReLU units as many directions are left as the teacher has.

A student y = sum of u_i relu(w_i x) learns a teacher with three units at right angles and the readers 1, -1, 1 from
all normal inputs at once: the mean of relu(a x) relu(b x) over them is (|a| |b| sin t + (pi - t) a b) / 2 pi, where t
is the angle from a to b. With weight decay gamma a unit costs gamma |w_i| |u_i| at best, whatever its scale. That is a
lasso over directions: it has the teacher's three where gamma is small, and nothing above
gamma_c = max over n, |n| = 1, of |mean of teacher(x) relu(n x)|. Just below it has the one direction of that maximum.
"""

from __future__ import annotations

import numpy as np
import torch
from record import Result, Series
from torch import Tensor
from trial import dead, descend, each, model, orthogonal, seeded, spare, verdict

NETWORK = "student (float[n, 4] x) => (float[n, 1] y) { p = MatMul(x, W) h = Relu(p) y = MatMul(h, U) }"
INPUTS, WIDTH = 4, 40
READERS = torch.tensor([1.0, -1.0, 1.0])
PREDICTED = {0.0: 40, 0.01: 3, 0.02: 3, 0.05: 3, 0.1: 3, 0.57: 1, 0.62: 1, 0.66: 0, 0.72: 0}
"""Weight decay -> distinct live directions. Between 0.1 and 0.57 theory gives no number."""


def means(a: Tensor, b: Tensor) -> Tensor:
    """Means of relu(a x) relu(b x), (..., units of a, units of b).

    The value does not change with the angle while all else is held, so that no gradient has to pass through it.
    """
    long, other = (rows.norm(dim=-1, keepdim=True) for rows in (a, b))
    with torch.no_grad():
        one, two = (rows / size.clamp(min=1e-150) for rows, size in ((a, long), (b, other)))
        gap, sum_ = (torch.cdist(one, x, compute_mode="donot_use_mm_for_euclid_dist") for x in (two, -two))
        angle = 2 * torch.atan2(gap, sum_)  # exact for equal directions, which an arc cosine is not
        sine = torch.sin(angle)
    return ((torch.pi - angle) * (a @ b.mT) + sine * (long @ other.mT)) / (2 * torch.pi)


def critical() -> float:
    """The decay above which nothing is left: the maximum lies between units 0 and 2, and away from unit 1."""
    turn = torch.linspace(-torch.pi / 2, torch.pi / 2, 2001)
    beside = turn.cos() / 2**0.5
    around = torch.stack([beside, turn.sin(), beside, 0 * turn], 1)
    return float((means(around, torch.eye(INPUTS)[:3]) @ READERS).abs().max())


def run(*, seeds: int = 5, short: bool = False) -> Result:
    """Train, export and audit."""
    decays, steps = list(PREDICTED)[::3] if short else list(PREDICTED), 5_000
    decays = sorted({*decays, 0.62, 0.66})
    teacher = orthogonal(seeds, INPUTS, first=100)[:, :3]

    def loss(w: Tensor, u: Tensor) -> Tensor:
        mine, wanted = means(w, w), means(w, teacher) @ READERS
        return (u * ((mine @ u[..., None])[..., 0] / 2 - wanted)).sum()

    starts = [seeded(seeds, WIDTH, INPUTS, first=200, scale=0.3), seeded(seeds, WIDTH, first=300, scale=0.3)]
    weights = descend(starts, loss, decays, rate=0.15, steps=steps, momentum=0.95)
    lost, left = (np.zeros((len(decays), seeds)) for _ in range(2))
    for (k, s), (w, u) in each(*weights):
        findings = verdict(model(NETWORK, {"W": w.T, "U": u[:, None]}))
        lost[k, s] = len(dead(findings))
        left[k, s] = WIDTH - lost[k, s] - spare(findings)
    edges = [decays[int((left[:, s] > 0).sum()) - 1 :][:2] for s in range(seeds)]
    return Result(
        "relu_student",
        "distinct live directions: 3, those of the teacher, for small gamma > 0; 0 for gamma > gamma_c = max over"
        " |n| = 1 of |E f(x) relu(n x)|; none is lost at 0",
        "min over a of |a w|^2 + |u / a|^2 is 2 |w| |u|, a group lasso over units; equal units: permutation symmetry,"
        " Ziyin 2024; the means over normal inputs: Cho and Saul 2009",
        f"{seeds} seeds, {WIDTH} units, {steps} steps of gradient descent on the mean over all normal inputs, rate"
        " 0.15, momentum 0.95, float64",
        [
            Series(
                "live distinct units (40 - SYM101 - SYM201)",
                "count",
                "weight decay",
                decays,
                [float(PREDICTED[decay]) for decay in decays],
                left.tolist(),
                logarithmic=True,
            ),
            Series(
                "decay at which all are dead (SYM104)",
                "value",
                "gamma_c",
                [critical()],
                [critical()],
                [[sum(pair) / len(pair) for pair in edges]],
            ),
        ],
    )
