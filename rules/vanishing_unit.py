"""Units through which next to nothing gets from the inputs to the outputs.

## What it checks

For every space of units that may be permuted: the share that each unit has of all paths from the inputs to the outputs.
A path counts with the square of the product of its weights; what reaches a unit times what leads on from it is its
share, relative to an equal share for all units. It is reported where it is below the option ``share`` in every tensor
that holds the unit, and below what the smallest of so many random units would have by chance. Biases write no paths, so
such a unit may have a constant value; what SYM101 and SYM102 report is not repeated.

## Example

```text
warning[vanishing-unit] SYM103: 1 of 8 units of w1 has below 1e-05 of an
  equal share of all paths
  --> w1 (MatMul -> a1)
    = tensors: b1, w1, w2
    = evidence: heuristic; tolerance 1e-05
    = units: 3
```

## Why it matters

The unit costs as much as any other, and what the outputs get of the input through it is not visible. It is on its way
to being dead: a rescaling symmetry with weight decay or gradient noise drives incoming and outgoing weights of a unit
to zero together. Such units can often be pruned without retraining; their outputs should be measured first.

## What else can cause it

Channels that training has switched off by a small gain, inputs that are of another scale than the others, soft pruning
by L1 or group penalties, and layers that were initialised near zero on purpose. The finding does not tell these apart.

## Evidence

heuristic: sums of squares over paths stand for the size of activations on data, which nothing here has seen. The shares
do not depend on the gauge: rescalings, signs and permutations cancel along every path, rotations by following pairs.

## Repair

None is applied. Compare the outputs with and without the units on data, then prune them, or train with less decay.

## References

Neyshabur, Salakhutdinov and Srebro, Path-SGD: Path-Normalized Optimization in Deep Neural Networks (NeurIPS 2015);
Tanaka et al., Pruning Neural Networks without Any Data by Iteratively Conserving Synaptic Flow (NeurIPS 2020).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from symlint.evidence.context import Context
from symlint.evidence.estimates import estimates, smallest, weights
from symlint.lint.finding import Finding, Level
from symlint.lint.rule import rule


@rule("SYM103", "vanishing-unit", Level.WARNING, "heuristic", options={"share": 1e-5})
def check(context: Context) -> Iterator[Finding]:
    """One finding per space with such units."""
    found = estimates(context)
    for space in context.spaces:
        share, action = found.share(space), found.action(space)
        units = context.units(space)
        if share is None:
            continue
        limit = min(
            [
                context.option(check, "share"),
                *(smallest(len(share), w) for w in weights(context.structure, action.leaf)),
            ]
        )
        low = np.flatnonzero((share < limit) & ~units.dead & ~units.constant)
        if not len(low):
            continue
        have = "has" if len(low) == 1 else "have"
        yield Finding(
            check.code,
            check.name,
            check.level,
            check.evidence,
            f"{len(low)} of {len(share)} units of {space.name} {have} below {limit:.0e} of an equal share of all paths",
            space.id,
            tuple(low.tolist()),
            context.tensors(space),
            {
                "vanishing": len(low),
                "units": len(share),
                "largest_share": float(f"{share[low].max():.1e}"),
                "tolerance": float(f"{limit:.1e}"),
            },
        )
