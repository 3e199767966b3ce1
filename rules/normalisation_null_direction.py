"""Directions that a mean-subtracting normalisation takes away, before it or after it.

## What it checks

What is written along the vector of ones before a LayerNorm, InstanceNorm or GroupNorm is subtracted again; what reads
a normalised tensor along that vector (divided by the gain) reads a constant, which the reader's bias holds as well.
Both are followed through residual streams to every norm that reads them.

## Example

```text
note[normalisation-null-direction] SYM404: 5 directions of b1 and 1 more are
  lost in a normalisation
  --> w1 (MatMul -> a)
    = tensors: b1, g, s, w1 and 1 more
    = evidence: exact
    = saves: 5 parameters (8.3% of the model)
    = by architecture, whatever the weights: nothing need be done
```

## Why it matters

The parameters along these directions take part in no output, whatever their present values. They show up as one large
singular value in raw spectra, and a stream's mean that has grown costs precision in float16.

## What else can cause it

Nothing: it is a fact of the architecture.

## Evidence

exact: a translation symmetry, for every value of the weights.

## Repair

Subtract from what writes its mean over the units, and from what reads its part along the null direction.

## References

Ashkboos et al., SliceGPT (ICLR 2024), section 3, on LayerNorm as RMSNorm after a projection; Brody, Alon, Yahav, On the
Expressivity Role of LayerNorm in Transformers' Attention (2023).
"""

from __future__ import annotations

from collections.abc import Iterator

from symlint.evidence.context import Context
from symlint.lint.finding import Finding, Level
from symlint.lint.redundancy import Redundancy, redundant
from symlint.lint.rule import rule


def _centred(found: Redundancy) -> bool:
    return found.sinks == {"standardise"}


@rule("SYM404", "normalisation-null-direction", Level.NOTE, "exact")
def check(context: Context) -> Iterator[Finding]:
    """One note per space that is normalised."""
    yield from redundant(context, check, _centred, "{directions} of {tensors} {verb} lost in a normalisation")
