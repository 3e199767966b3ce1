"""A classifier whose classes are equally strong and equally far apart, as after neural collapse.

## What it checks

For the last linear map before every output, over an axis of at least four classes: the second moments of the logits
over all paths, without their common part. It is reported where all classes have the same size and all pairs the cosine
-1/(K-1) of a simplex, both within the option ``tolerance``, and closer than random rows of so many dimensions are.

## Example

```text
note[neural-collapse] SYM811: the 5 classes of a2#0 are equally strong and
  far apart, to within 4e-05
  --> w2 (MatMul -> a2)
    = tensors: w2
    = evidence: heuristic; tolerance 0.09
```

## Why it matters

The state is reached when training goes on long after the training error is zero. It is no fault: the classifier could
be replaced by a fixed simplex, and the features before it need no more than K-1 dimensions. It often goes with features
that transfer badly, and with overfitting where it comes early.

## What else can cause it

A classifier fixed to a simplex on purpose, an orthogonal initialisation of the last layer, and label smoothing. The
finding does not tell these apart.

## Evidence

heuristic: only the geometry of the classifier is seen, not that of the features of data. It does not depend on the
gauge: neither a common shift of all logits nor a rescaling of the features counts.

## Repair

None is needed.

## References

Papyan, Han and Donoho, Prevalence of Neural Collapse during the Terminal Phase of Deep Learning Training (PNAS 2020);
Zhu et al., A Geometric Analysis of Neural Collapse with Unconstrained Features (NeurIPS 2021).
"""

from __future__ import annotations

from collections.abc import Iterator

from symlint.evidence.context import Context
from symlint.evidence.estimates import classifiers, estimates
from symlint.lint.finding import Finding, Level
from symlint.lint.rule import rule

CLOSER = 0.5
"""Against what random rows would show."""


@rule("SYM811", "neural-collapse", Level.NOTE, "heuristic", options={"tolerance": 0.1})
def check(context: Context) -> Iterator[Finding]:
    """One finding per classifier."""
    limit = context.option(check, "tolerance")
    for found in classifiers(estimates(context).shares.forward):
        angle, size = min(limit, CLOSER * found.chance_angle), min(limit, CLOSER * found.chance_size)
        if found.angle > angle or found.size > size:
            continue
        off = max(found.angle, found.size)
        yield Finding(
            check.code,
            check.name,
            check.level,
            check.evidence,
            f"the {found.classes} classes of {found.name} are equally strong and far apart, to within {off:.1g}",
            None,
            (),
            found.tensors,
            {
                "classes": found.classes,
                "angle": float(f"{found.angle:.1g}"),
                "size": float(f"{found.size:.1g}"),
                "tolerance": float(f"{min(angle, size):.1g}"),
            },
        )
