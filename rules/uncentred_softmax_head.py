"""Logits before a softmax, which can all be shifted alike.

## What it checks

A change of a layer that adds the same number to every logit leaves the probabilities as they are: one direction for
each input of the layer and one for its bias. Classifier heads, routers of mixtures of experts and attention scores are
followed to their softmax.

## Example

```text
note[uncentred-softmax-head] SYM403: 7 directions of b2 and 1 more shift all
  logits alike
  --> w2 (MatMul -> d)
    = tensors: b2, w2
    = evidence: exact
    = saves: 7 parameters (13.7% of the model)
    = by architecture, whatever the weights: nothing need be done
```

## Why it matters

One row of the layer is redundant, whatever its present values. The common shift drifts freely in training, costs
dynamic range in half precision and int8, and makes comparisons of raw weights between checkpoints meaningless:
subtract the mean over the classes first.

## What else can cause it

Nothing: it is a fact of the architecture.

## Evidence

exact: a translation symmetry, for every value of the weights.

## Repair

Subtract the mean over the classes from the weights and the bias.

## References

Softmax is invariant to adding a constant; Ziyin, Symmetry Induces Structure and Constraint of Learning (ICML 2024) on
translation symmetry.
"""

from __future__ import annotations

from collections.abc import Iterator

from symlint.evidence.context import Context
from symlint.lint.finding import Finding, Level
from symlint.lint.redundancy import Redundancy, redundant
from symlint.lint.rule import rule


def _shifted(found: Redundancy) -> bool:
    return not found.free and not found.absorbers and found.sinks <= {"Softmax", "LogSoftmax"} and bool(found.sinks)


@rule("SYM403", "uncentred-softmax-head", Level.NOTE, "exact")
def check(context: Context) -> Iterator[Finding]:
    """One note per space of logits."""
    yield from redundant(context, check, _shifted, "{directions} of {tensors} {shift} all logits alike")
