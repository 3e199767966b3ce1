"""Remedies: `symlint.torch` takes a symmetry away where decay collapses it, or builds one in that decay collapses.

The networks of diagonal.py and factorisation.py as modules, trained as they are and with `remove_symmetries`, at the
same decays. Then `constrain`: with decay gamma its surface adds gamma |O^T theta|, direction by direction, to the loss
of a network with one layer to be learned. That is convex, and proximal gradient descent, which sets to zero by itself,
has its exact minimum: a group lasso of inputs, a nuclear norm, a fused lasso of two rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import diagonal
import factorisation
import numpy as np
import onnx
import torch
from record import Result, Series
from torch import Tensor, nn
from trial import Array, dead, model, orthogonal, seeded, verdict, white

from symlint import torch as remedies
from symlint.audit.engine import audit
from symlint.lint.finding import Finding
from symlint.lint.rule import rules
from symlint.lint.settings import Settings

DECAYS, MATRIX_DECAYS = (0.183, 0.4), (0.4, 0.96)
SIGMA, MATRIX_SIGMA = 0.01, 0.05
STRENGTHS = (0.06, 0.1, 0.15)
NEAR = 0.05
"""How near to its threshold, relative to the strength, something may be that has not got to zero yet."""
TINY = 1e-9
SWEEP = tuple(0.04 * 1.1**k for k in range(20))
"""Strengths among which the baselines have their choice."""
INPUTS, OUTPUTS, EXAMPLES, STEPS = 20, 12, 80, 8_000
LINEAR = f"linear (float[n, {INPUTS}] x) => (float[n, {OUTPUTS}] y) {{ y = MatMul(x, W) }}"
CHAIN = f"chain (float[n, {INPUTS}] x) => (float[n, {OUTPUTS}] y) {{ h = MatMul(x, W) y = MatMul(h, T) }}"


class Pair(nn.Module):  # type: ignore[misc]
    """Two weights, for all seeds at once."""

    def __init__(self, first: Tensor, second: Tensor) -> None:
        super().__init__()
        self.first, self.second = nn.Parameter(first.clone()), nn.Parameter(second.clone())


def _trained(
    pair: Pair, arm: str, sigma: float, loss: Callable[[Pair], Tensor], decay: float, rate: float, steps: int
) -> Tensor:
    """Gradient descent by PyTorch's own optimiser, as the arm says; the loss of the data alone in the end."""
    if arm == "syre":
        remedies.remove_symmetries(pair, sigma, generator=torch.Generator().manual_seed(1200))
    _descend(pair, [{"params": list(pair.parameters()), "weight_decay": decay}], lambda: loss(pair), rate, steps)
    return loss(pair).detach()


def _descend(module: nn.Module, groups: list[Any], loss: Callable[[], Tensor], rate: float, steps: int) -> None:
    optimiser = torch.optim.SGD(groups, lr=rate, momentum=0.9)
    for _ in range(steps):
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()


def _each(pair: Pair) -> Iterator[tuple[int, list[Array]]]:
    """The networks of the seeds, baked."""
    baked = remedies.bake(pair)
    for seed in range(len(baked.first)):
        yield seed, [w[seed].detach().numpy() for w in (baked.first, baked.second)]


def without_symmetries(seeds: int) -> list[Series]:
    """Dead units and ranks with and without, and where the loss of the data, over all seeds, is higher without."""
    reader, made = diagonal.features(seeds)
    b = diagonal.STRENGTHS * seeded(seeds, diagonal.SIZE, first=300).sign()
    turn = orthogonal(seeds, diagonal.SIZE, first=800).numpy()
    size = factorisation.SIZE
    target = orthogonal(seeds, size, first=100) * factorisation.SIGMA @ orthogonal(seeds, size, first=200)
    inputs = white(seeds, 2 * size, size, first=300)

    def of_diagonal(m: Pair) -> Tensor:
        return ((m.first * m.second - b)[:, None] * made).square().mean(1).sum() / 2

    def of_matrices(m: Pair) -> Tensor:
        return (inputs @ (m.first @ m.second - target)).square().mean(1).sum() / 2

    lost, ranks = ({arm: np.zeros((2, seeds)) for arm in ("plain", "syre")} for _ in "ab")
    losses: dict[str, list[float]] = {"plain": [], "syre": []}
    for arm in ("plain", "syre"):
        for k, decay in enumerate(DECAYS):
            pair = Pair(*(seeded(seeds, diagonal.SIZE, first=first, scale=0.3) for first in (400, 500)))
            losses[arm].append(float(_trained(pair, arm, SIGMA, of_diagonal, decay, 0.3, 8_000)))
            for s, (u, v) in _each(pair):
                file = model(diagonal.NETWORK, {"P": reader[s].numpy(), "u": u, "v": v, "Q": turn[s]})
                lost[arm][k, s] = len(dead(verdict(file)))
        for k, decay in enumerate(MATRIX_DECAYS):
            pair = Pair(*(seeded(seeds, size, size, first=first, scale=0.1) for first in (400, 500)))
            losses[arm].append(float(_trained(pair, arm, MATRIX_SIGMA, of_matrices, decay, 0.2, 1_500)))
            for s, (down, up) in _each(pair):
                found = verdict(model(factorisation.NETWORK, {"U": down, "V": up})).get("SYM301", ())
                ranks[arm][k, s] = int(found[0].facts["ranks"][0]) if found else size
    small = [float((diagonal.STRENGTHS.numpy() < decay).sum()) for decay in DECAYS]
    large = [float((factorisation.SIGMA.numpy() > decay).sum()) for decay in MATRIX_DECAYS]
    full = [float(factorisation.SIZE)] * 2
    worse = [float(with_ > 1.02 * plain) for with_, plain in zip(losses["syre"], losses["plain"], strict=True)]
    return [
        Series("dead units (SYM101), plain", "count", "weight decay", [*DECAYS], small, lost["plain"].tolist()),
        Series("dead units, remove_symmetries", "count", "weight decay", [*DECAYS], [0, 0], lost["syre"].tolist()),
        Series("rank (SYM301), plain", "count", "weight decay", [*MATRIX_DECAYS], large, ranks["plain"].tolist()),
        Series("rank, remove_symmetries", "count", "weight decay", [*MATRIX_DECAYS], full, ranks["syre"].tolist()),
        Series("losses of 2% more", "count", "run", [1, 2, 3, 4], [0.0] * 4, [[one] * seeds for one in worse]),
    ]


@dataclass(frozen=True)
class Constraint:
    """A surface, the proximal step that has the same minimum, and how symlint counts what is on it."""

    name: str
    surface: Callable[[], nn.Module]
    shrunk: Callable[[Tensor, float], Tensor]
    """The weight (outputs, inputs) after a proximal step of a length."""
    length: Callable[[Tensor], float]
    """What decay adds to the loss, for a decay of one."""
    count: Callable[[Array], int]
    """Of a weight on the surface, what is constrained."""
    told: Callable[[Array, Array], int]
    """The same as symlint tells it of the file with that weight."""
    nearest: Callable[[Tensor, int], Tensor]
    """The weight nearest to one of which so much is constrained."""
    held: Callable[[Tensor, Tensor], Tensor]
    """The weight nearest to one that is on the surface which another is on."""


def _shorter(rows: Tensor, by: float) -> Tensor:
    """Rows (k, ...) with so much less length."""
    return rows * (1 - by / rows.norm(dim=1, keepdim=True).clamp_min(1e-300)).clamp_min(0)


def _grouped(w: Tensor, by: float) -> Tensor:
    return _shorter(w.T, by).T


def _nuclear(w: Tensor, by: float) -> Tensor:
    u, s, v = torch.linalg.svd(w, full_matrices=False)
    return (u * (s - by).clamp_min(0)) @ v


def _fused(w: Tensor, by: float) -> Tensor:
    made, apart = w.clone(), (w[:1] - w[1:2]) / 2**0.5
    change = (_shorter(apart, by) - apart)[0] / 2**0.5
    made[0] += change
    made[1] -= change
    return made


def _fewer(w: Tensor, count: int) -> Tensor:
    return w * (w.norm(dim=0).argsort().argsort() >= count)


def _lower(w: Tensor, count: int) -> Tensor:
    u, s, v = torch.linalg.svd(w, full_matrices=False)
    return (u * s * (torch.arange(len(s)) < len(s) - count)) @ v


def _equal(w: Tensor, count: int) -> Tensor:
    return _fused(w, 1e9) if count else w


def _findings(file: onnx.ModelProto, code: str) -> list[Finding]:
    settings = Settings(select=(code,))
    with TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        onnx.save(file, path)
        return [f for f in audit(str(path), settings.chosen(rules()), settings).findings if f.rule == code]


def _ignored(w: Array, _: Array) -> int:
    return sum(len(f.units) for f in _findings(model(LINEAR, {"W": w.T}), "SYM011"))


def _lost_rank(w: Array, turn: Array) -> int:
    found = verdict(model(CHAIN, {"W": w.T, "T": turn})).get("SYM301", ())
    return OUTPUTS - (int(found[0].facts["ranks"][0]) if found else OUTPUTS)


def _alike(w: Array, turn: Array) -> int:
    """Behind a ReLU, so that rows are units."""
    file = model(CHAIN.replace("h = MatMul(x, W)", "g = MatMul(x, W) h = Relu(g)"), {"W": w.T, "T": turn})
    return sum(int(f.facts["spare"]) for f in verdict(file).get("SYM201", ()))


CONSTRAINTS = (
    Constraint(
        "inputs that nothing reads (SYM011), sparse_units",
        lambda: remedies.sparse_units(axis=1),
        _grouped,
        lambda w: float(w.norm(dim=0).sum()),
        lambda w: int((np.abs(w).max(0) == 0).sum()),
        _ignored,
        _fewer,
        lambda w, on: w * (on.abs().amax(0) > TINY),
    ),
    Constraint(
        "ranks that are lost (SYM301), low_rank",
        remedies.low_rank,
        _nuclear,
        lambda w: float(torch.linalg.svdvals(w).sum()),
        lambda w: OUTPUTS - int(np.linalg.matrix_rank(w, tol=1e-9)),
        _lost_rank,
        _lower,
        lambda w, on: _lower(w, OUTPUTS - int(torch.linalg.matrix_rank(on, atol=TINY))),
    ),
    Constraint(
        "units that are equal (SYM201), tied",
        lambda: remedies.tied(0, 1, of=OUTPUTS),
        _fused,
        lambda w: float((w[0] - w[1]).norm() / 2**0.5),
        lambda w: int(np.array_equal(w[0], w[1]) or bool(np.abs(w[0] - w[1]).max() < 1e-9)),
        _alike,
        _equal,
        lambda w, on: _equal(w, int((on[0] - on[1]).abs().max() < TINY)),
    ),
)


def constrained(seeds: int, strengths: tuple[float, ...]) -> list[Series]:
    """What `constrain` reaches, as symlint counts it, and its objective beside the exact minimum."""
    series: list[Series] = []
    turn = orthogonal(1, OUTPUTS, first=1300)[0].numpy()
    for constraint in CONSTRAINTS:
        exact, told, ratios, outside, beside = (np.zeros((len(strengths), seeds)) for _ in range(5))
        for seed in range(seeds):
            x, y = _data(seed)
            for k, strength in enumerate(strengths):
                least, found = _proximal(x, y, constraint, strength), _constrained(x, y, constraint, strength, seed)
                exact[k, seed], told[k, seed] = constraint.count(least.numpy()), constraint.told(found.numpy(), turn)
                low, high = (
                    constraint.count(_proximal(x, y, constraint, strength * side).numpy())
                    for side in (1 - NEAR, 1 + NEAR)
                )
                outside[k, seed] = float(not low <= told[k, seed] <= high)
                beside[k, seed] = _beside(x, y, constraint, found)
                ratios[k, seed] = _objective(found, x, y, constraint, strength)
                ratios[k, seed] /= _objective(least, x, y, constraint, strength)
        expected = np.median(exact, axis=1).tolist()
        series += [
            Series(constraint.name, "rising", "strength", [*strengths], expected, told.tolist()),
            Series(
                f"other counts than at strengths {NEAR:.0%} apart, {constraint.name.rpartition(' ')[2]}",
                *("count", "strength", [*strengths], [0.0] * len(strengths), outside.tolist()),
            ),
            Series(
                f"objective over the least, {constraint.name.rpartition(' ')[2]}",
                *("value", "strength", [*strengths], [1.0] * len(strengths), ratios.tolist()),
            ),
            Series(
                f"loss over that of lasso and projection, {constraint.name.rpartition(' ')[2]}",
                *("value", "strength", [*strengths], [1.0] * len(strengths), beside.tolist()),
            ),
        ]
    return series


def _data(seed: int) -> tuple[Tensor, Tensor]:
    """White inputs, and outputs of a layer whose inputs, ranks and first two rows matter more and less."""
    x = white(1, EXAMPLES, INPUTS, first=1500 + seed)[0]
    left, right = orthogonal(2, INPUTS, first=1600 + 2 * seed)
    w = left[:OUTPUTS, :OUTPUTS] * 0.7 ** torch.arange(OUTPUTS) @ right[:OUTPUTS] * 0.8 ** torch.arange(INPUTS)
    w[1] = w[0] + 0.1 * w[1]
    return x, x @ w.T + 0.05 * seeded(1, EXAMPLES, OUTPUTS, first=1700 + seed)[0]


def _error(w: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return (x @ w.T - y).square().mean(0).sum() / 2


def _objective(w: Tensor, x: Tensor, y: Tensor, constraint: Constraint, strength: float) -> float:
    return float(_error(w, x, y)) + strength * constraint.length(w)


def _proximal(x: Tensor, y: Tensor, constraint: Constraint, strength: float) -> Tensor:
    """The exact minimum: the inputs are white, so that steps of length one are stable."""
    w = torch.zeros(OUTPUTS, INPUTS)
    for _ in range(500):
        w = constraint.shrunk(w - (x @ w.T - y).T @ x / len(x), strength)
    return w


def _beside(x: Tensor, y: Tensor, constraint: Constraint, found: Tensor) -> float:
    """The loss of a weight over the best of baselines of which as much is constrained, all fitted on their surfaces.

    The baselines are the minima of the proximal method at a sweep of strengths, and projected gradient descent.
    """
    count = constraint.count(constraint.held(found, found).numpy())
    sparse = [constraint.nearest(torch.zeros_like(found), count)]
    for _ in range(300):
        sparse[0] = constraint.nearest(sparse[0] - (x @ sparse[0].T - y).T @ x / len(x), count)
    sparse += [w for s in SWEEP if constraint.count((w := _proximal(x, y, constraint, s)).numpy()) == count]
    best = min(float(_error(_fitted(w, x, y, constraint), x, y)) for w in sparse)
    return float(_error(_fitted(found, x, y, constraint), x, y)) / best


def _fitted(w: Tensor, x: Tensor, y: Tensor, constraint: Constraint) -> Tensor:
    """The least loss on the surface that a weight is on."""
    on = constraint.held(w, w)
    for _ in range(300):
        w = constraint.held(w - (x @ w.T - y).T @ x / len(x), on)
    return w


def _constrained(x: Tensor, y: Tensor, constraint: Constraint, strength: float, seed: int) -> Tensor:
    """The same by weight decay on what the surface is made of, and on nothing else."""
    layer = nn.Linear(INPUTS, OUTPUTS, bias=False)
    with torch.no_grad():
        layer.weight.copy_(seeded(1, OUTPUTS, INPUTS, first=1400 + seed, scale=0.1)[0])
    remedies.constrain(layer, "weight", constraint.surface())
    first, second, *free = layer.parameters()
    groups = [{"params": [first, second], "weight_decay": strength}, *([{"params": free}] if free else [])]
    _descend(layer, groups, lambda: _error(layer.weight, x, y), 0.3, STEPS)
    return remedies.bake(layer).weight.detach()


def run(*, seeds: int = 5, short: bool = False) -> Result:
    """Train, export and audit."""
    return Result(
        "remedies",
        "without mirror symmetries decay leaves nothing dead and no rank low; with one that is built in it reaches its"
        " surface exactly, at the minimum that a proximal method has",
        "syre: Ziyin, Xu and Chuang 2025 (arXiv 2408.15495); DCS: Ziyin 2024 (arXiv 2309.16932)",
        f"{seeds} seeds, torch.optim.SGD with momentum 0.9 and weight_decay on modules of symlint.torch, float64; sigma"
        f" {SIGMA} and {MATRIX_SIGMA}; {STEPS} steps under constraints",
        [*without_symmetries(seeds), *constrained(seeds, STRENGTHS[1:] if short else STRENGTHS)],
    )
