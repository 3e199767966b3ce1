"""One trial of the theory: gradient descent in torch, an ONNX file, and what symlint says about it.

Many small networks are trained at once: every weight has two leading axes, one for the weight decays (or whatever else
is varied) and one for the seeds, and a loss adds up over both, so that no network feels the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper, parser, reference
from torch import Tensor

from symlint.audit.engine import audit
from symlint.lint.finding import Finding
from symlint.lint.rule import Rule, rules
from symlint.lint.settings import Settings

Array = NDArray[np.float64]
Findings = Mapping[str, Sequence[Finding]]
SETTINGS = Settings(select=("SYM101", "SYM104", "SYM201", "SYM203", "SYM301", "SYM302"))
HEADER = '<ir_version: 8, opset_import: ["" : 17]> '

torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
# What falls below 1e-308 is slow to compute with. Nothing else is ever set to zero here.
torch.set_flush_denormal(True)


def seeded(seeds: int, *shape: int, first: int = 0, scale: float = 1.0) -> Tensor:
    """Normal numbers of shape (seeds, ...), for each seed those that it would draw alone."""
    draws = [torch.randn(shape, generator=torch.Generator().manual_seed(first + seed)) for seed in range(seeds)]
    return scale * torch.stack(draws)


def orthogonal(seeds: int, size: int, first: int = 0) -> Tensor:
    """Random rotations, (seeds, size, size)."""
    return torch.linalg.qr(seeded(seeds, size, size, first=first))[0]


def white(seeds: int, count: int, size: int, first: int = 0) -> Tensor:
    """Inputs whose second moments are exactly the identity, (seeds, count, size)."""
    return torch.linalg.qr(seeded(seeds, count, size, first=first))[0] * count**0.5


def descend(
    starts: Sequence[Tensor],
    loss: Callable[..., Tensor],
    decay: Sequence[float],
    rate: float,
    steps: int,
    momentum: float = 0.9,
    origins: Sequence[Tensor] | None = None,
) -> list[Tensor]:
    """Gradient descent with momentum and weight decay on all data at once, in float64.

    Args:
        starts: the initial weights, (seeds, ...); every decay starts from the same.
        loss: of the weights, (decays, seeds, ...) each, added up over decays and seeds.
        decay: gamma, where gamma/2 times the sum of all squared weights is added to the loss.
        rate: the learning rate.
        steps: how many.
        momentum: of the heavy ball.
        origins: where the decay pulls to, (seeds, ...) like the weights; zero by default.
    """
    weights = [w.expand(len(decay), *w.shape).clone().requires_grad_() for w in starts]
    pulls = [torch.zeros_like(w[0]) for w in weights] if origins is None else origins
    speeds = [torch.zeros_like(w) for w in weights]
    strengths = [torch.tensor(decay).reshape(-1, *[1] * (w.ndim - 1)) for w in weights]
    for _ in range(steps):
        slopes = torch.autograd.grad(loss(*weights), weights)
        with torch.no_grad():
            for weight, slope, speed, strength, pull in zip(weights, slopes, speeds, strengths, pulls, strict=True):
                speed.mul_(momentum).add_(slope).add_(strength * (weight - pull))
                weight.sub_(rate * speed)
    return [w.detach() for w in weights]


def each(*weights: Tensor) -> Iterator[tuple[tuple[int, int], list[Array]]]:
    """The networks one by one: (index of the decay, seed) and the weights."""
    for index in product(*map(range, weights[0].shape[:2])):
        yield index, [w[index].numpy() for w in weights]


def model(text: str, weights: Mapping[str, Array]) -> onnx.ModelProto:
    """A network in ONNX's own notation; its weights are rounded to float32, and integers kept."""
    made = parser.parse_model(HEADER + text)
    for name, value in weights.items():
        stored = np.asarray(value)
        assert np.isfinite(stored).all(), f"{name} diverged"
        stored = stored.astype(np.float32) if stored.dtype.kind == "f" else stored
        made.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(stored), name))
    onnx.checker.check_model(made, full_check=True)
    return made


def verdict(made: onnx.ModelProto) -> Findings:
    """What `symlint check` says about dead units, repeated units and ranks of a network: code -> findings."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        onnx.save(made, path)
        report = audit(str(path), _rules(), SETTINGS)
    assert not report.incomplete, report.incomplete
    return {code: [f for f in report.findings if f.rule == code] for code in {f.rule for f in report.findings}}


def outputs(made: onnx.ModelProto, x: Array) -> Array:
    """What the file computes, by ONNX's reference evaluator."""
    return np.asarray(reference.ReferenceEvaluator(made).run(None, {"x": x.astype(np.float32)})[0], np.float64)


def dead(findings: Findings) -> tuple[int, ...]:
    """The units of a network with one space that SYM101 names, or SYM104 where all of them are dead."""
    return tuple(unit for code in ("SYM101", "SYM104") for f in findings.get(code, ()) for unit in f.units)


def spare(findings: Findings) -> int:
    """How many units repeat others, as SYM201 counts them, or SYM203 where all are one."""
    return sum(int(f.facts["spare"]) for code in ("SYM201", "SYM203") for f in findings.get(code, ()))


@cache
def _rules() -> tuple[Rule, ...]:
    return SETTINGS.chosen(rules())
