"""Units that compute nearly the same, nearer than chance allows.

## What it checks

For every space of units that may be permuted: how far apart two units are in all tensors that hold them, relative to
their size. Distances are taken between what reaches the units, as second moments over all paths from the inputs, so the
gauge of the layers before does not matter; where the activation allows it, multiples of each other count as the same.
Biases have to agree as well. Units are reported whose distance is below the option ``tolerance`` and below what random
units would reach in as many dimensions as the units of the space lie in; of the pairs at most a hundredth may be
chance. Of spaces whose weights are few or of a small alphabet (ternary, 4 bits) nothing is said. What SYM201 reports is
not repeated.

## Example

```text
warning[near-duplicate-units] SYM202: 2 of 8 units of w1 are nearly the
  same, in one group
  --> w1 (MatMul -> a1)
    = tensors: b1, w1, w2
    = evidence: heuristic; tolerance 0.01
    = units: {2, 6}
```

## Why it matters

The units can be merged with a small change of the outputs: the model pays twice for one feature. A permutation symmetry
predicts such units: the state in which two units are equal is attractive under weight decay and gradient noise, and a
unit that was just split, grown or copied has not left it.

## What else can cause it

Training that was stopped early after units were copied, a task that needs few features, tied or low-rank training, and
rounding after a merge. The finding does not tell these apart.

## Evidence

heuristic: the distance is one of path sums, not of activations on data, and the null model is a sphere of the dimension
that the spectrum of the units shows.

## Repair

None is applied. Merge the units (keep one, add the outgoing weights in proportion) and compare the outputs on data.

## References

Ziyin, Symmetry Induces Structure and Constraint of Learning (ICML 2024), permutation symmetry; Chen et al., Stochastic
Collapse (NeurIPS 2023); Chen, Zhou and Yan, Going Beyond Neural Network Feature Similarity (ICLR 2024), merging;
Benjamini and Hochberg, Controlling the False Discovery Rate (Journal of the Royal Statistical Society B, 1995).
"""

from __future__ import annotations

from collections.abc import Iterator

from symlint.evidence.context import Context
from symlint.evidence.estimates import estimates
from symlint.lint.finding import Finding, Level
from symlint.lint.rule import rule


@rule("SYM202", "near-duplicate-units", Level.WARNING, "heuristic", options={"tolerance": 1e-2})
def check(context: Context) -> Iterator[Finding]:
    """One finding per space with such units."""
    found, tolerance = estimates(context), context.option(check, "tolerance")
    for space in context.spaces:
        action = found.action(space)
        if action.copies != context.structure.actions[action.id].copies or context.unbroken(space):
            continue
        near = found.likeness.near(action, found.told(space), tolerance)
        if near is None:
            continue
        units = sorted(u for group in near.groups for u in group)
        many = f"{len(near.groups)} groups" if len(near.groups) > 1 else "one group"
        yield Finding(
            check.code,
            check.name,
            check.level,
            check.evidence,
            f"{len(units)} of {space.size * space.copies} units of {space.name} are nearly the same, in {many}",
            space.id,
            tuple(units),
            context.tensors(space),
            {
                "groups": [list(group) for group in near.groups],
                "units": space.size * space.copies,
                "distance": float(f"{near.distance:.1e}"),
                "dimensions": round(near.dimensions, 1),
                "tolerance": tolerance,
            },
        )
