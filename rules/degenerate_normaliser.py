"""Batch normalisation of channels that hardly varied in training.

## What it checks

For every batch normalisation whose running statistics are stored: whether a channel's running variance is below the
operator's epsilon although its gain is not zero. Where an export has folded the normalisation into weights nothing is
left to see.

## Example

```text
note[degenerate-normaliser] SYM814: 1 of 4 channels of g hardly varied in
  training: their running variance is below epsilon
  --> w1 (Conv -> a)
    = tensors: g, m, s, v and 2 more
    = evidence: heuristic; tolerance 1e-05
    = units: 2
```

## Why it matters

Epsilon decides how such a channel is scaled: whatever little it varies by is multiplied by the gain over the root of
epsilon, so noise of half precision or of quantisation is amplified. A channel without variance carried one value for
all training data: it is dead, or its input was constant.

## What else can cause it

Statistics that were never updated or were averaged over one example, a channel whose weights decayed (the scale of the
weights before a normalisation is free), and data that were normalised differently. The finding does not tell these
apart.

## Evidence

heuristic: the variance is what training saw, not what a deployment will see.

## Repair

None is applied. Recompute the statistics on data; if the variance stays at zero, prune the channel.

## References

Ioffe and Szegedy, Batch Normalization (ICML 2015); ONNX operator BatchNormalization,
https://onnx.ai/onnx/operators/onnx__BatchNormalization.html.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from symlint.evidence.context import Context
from symlint.lint.finding import Finding, Level
from symlint.lint.rule import rule


@rule("SYM814", "degenerate-normaliser", Level.NOTE, "heuristic", options={"epsilons": 1.0})
def check(context: Context) -> Iterator[Finding]:
    """One finding per normalisation with such channels."""
    program = context.structure.program
    for step in program.batch_norms:
        if any(context.values[n].bases is not None for n in (step.gain, step.var)):
            continue
        gain, var = (np.asarray(context.values[n].scale, np.float64).reshape(-1) for n in (step.gain, step.var))
        low = np.flatnonzero((var < context.option(check, "epsilons") * step.epsilon) & (gain != 0))
        if not len(low):
            continue
        stored = {program.weights[n] for n in (step.gain, step.bias, step.mean, step.var) if n in program.weights}
        space = next((s for s in context.spaces if stored & set(context.tensors(s)) and s.size == len(var)), None)
        alive = ~context.units(space).dead[low] if space and space.copies == 1 else np.ones(len(low), bool)
        low = low[alive]
        if not len(low):
            continue
        yield Finding(
            check.code,
            check.name,
            check.level,
            check.evidence,
            f"{len(low)} of {len(var)} channels of {step.node.name or step.gain} hardly varied in training: "
            "their running variance is below epsilon",
            space.id if space else None,
            tuple(low.tolist()),
            context.tensors(space) if space else tuple(sorted(stored)),
            {
                "channels": len(low),
                "units": len(var),
                "largest_variance": float(f"{var[low].max():.1e}"),
                "tolerance": float(f"{step.epsilon * context.option(check, 'epsilons'):.1e}"),
            },
        )
