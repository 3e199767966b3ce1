"""No symmetry, no collapse: with decay towards a fixed random point nothing dies, at the decay that collapses the rest.

The networks of diagonal.py and factorisation.py, trained as there, except that the decay pulls to small random weights
instead of zero: the same as to add a fixed random bias to the weights before they are decayed. Where |b| < gamma the
two weights of a feature settle at u = gamma (gamma u0 + b v0) / (gamma^2 - b^2), and v likewise, up to terms of the
third order in the bias: small, and not zero.
"""

from __future__ import annotations

import diagonal
import factorisation
import numpy as np
from record import Result, Series
from trial import Array, Findings, dead, each, model, orthogonal, verdict

BIAS, MATRIX_BIAS = 0.01, 0.05
"""Sizes of the random weights. At 0.01 the product of two random matrices is, now and then, within 1e-7 of singular."""
DIAGONAL_DECAYS = (0.183, 0.27, 0.4)
MATRIX_DECAYS = (0.4, 0.61, 0.96)


def rank(findings: Findings) -> int:
    """The rank that SYM301 tells, or all."""
    found = findings.get("SYM301", ())
    return int(found[0].facts["ranks"][0]) if found else factorisation.SIZE


def coefficients(decay: float, b: Array, origins: list[Array]) -> Array:
    """What u v should be for the features with |b| below the decay."""
    first, second = origins
    u, v = ((decay * one + b * other) / (decay**2 - b**2) for one, other in ((first, second), (second, first)))
    return np.asarray(decay**2 * u * v)


def run(*, seeds: int = 5, short: bool = False) -> Result:
    """Train with the bias and without it, export and audit."""
    decays, others = (DIAGONAL_DECAYS[1:], MATRIX_DECAYS[1:]) if short else (DIAGONAL_DECAYS, MATRIX_DECAYS)
    turn = orthogonal(seeds, diagonal.SIZE, first=800).numpy()
    lost, ranks = ({biased: np.zeros((len(levels), seeds)) for biased in (False, True)} for levels in (decays, others))
    ratios = np.zeros((len(decays), seeds))
    for biased in (False, True):
        reader, b, weights, origins = diagonal.trained(seeds, decays, 8_000, BIAS * biased)
        for (k, s), (u, v) in each(*weights):
            file = model(diagonal.NETWORK, {"P": reader[s].numpy(), "u": u, "v": v, "Q": turn[s]})
            lost[biased][k, s] = len(dead(verdict(file)))
            if biased:
                low = diagonal.STRENGTHS.numpy() < 0.6 * decays[k]
                expected = coefficients(decays[k], b[s].numpy(), [o[s].numpy() for o in origins])
                ratios[k, s] = np.median((u * v)[low] / expected[low])
        weights = factorisation.trained(seeds, others, 1_500, MATRIX_BIAS * biased)
        for (k, s), (down, up) in each(*weights):
            ranks[biased][k, s] = rank(verdict(model(factorisation.NETWORK, {"U": down, "V": up})))
    small = [float((diagonal.STRENGTHS.numpy() < decay).sum()) for decay in decays]
    large = [float((factorisation.SIGMA.numpy() > decay).sum()) for decay in others]
    full = [float(factorisation.SIZE)] * len(others)
    kinds = [
        ("dead units (SYM101), decay to zero", decays, small, lost[False]),
        ("dead units (SYM101), to random weights", decays, [0.0] * len(decays), lost[True]),
        ("rank (SYM301), decay to zero", others, large, ranks[False]),
        ("rank (SYM301), to random weights", others, full, ranks[True]),
    ]
    return Result(
        "static_bias",
        "decay to random weights leaves no unit dead and no rank low where decay to zero does",
        "syre, Ziyin, Xu and Chuang 2025 (arXiv 2408.15495): a static bias, decayed with the weights, removes every"
        " reflection symmetry",
        f"{seeds} seeds, random weights of size {BIAS} and {MATRIX_BIAS}; else as diagonal and factorisation",
        [
            Series(name, "count", "weight decay", list(levels), expected, found.tolist())
            for name, levels, expected, found in kinds
        ]
        + [
            Series(
                "u v of features below gamma / predicted",
                "value",
                "weight decay",
                list(decays),
                [1.0] * len(decays),
                ratios.tolist(),
            )
        ],
    )
