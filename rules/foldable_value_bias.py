"""A bias of attention values, which the output projection's bias can hold as well.

## What it checks

The probabilities of every query sum to one, so that a constant added to all values comes out of the average as it is,
and a linear reader with a bias can hold it. The bias is followed through the network to where another takes it up.

## Example

```text
note[foldable-value-bias] SYM402: 6 parameters of bv can be folded into bo
  --> wv (MatMul -> v0)
    = tensors: bv, wo, wv
    = evidence: exact
    = saves: 6 parameters (5.1% of the model)
    = by architecture, whatever the weights: nothing need be done
```

## Why it matters

The parameters are redundant, whatever their present values: folding them into the next bias makes the file smaller
and saves an addition.

## What else can cause it

Nothing: it is a fact of the architecture.

## Evidence

exact: a translation symmetry, for every value of the bias.

## Repair

``symlint fix --absorb`` adds the projected bias to the reader's bias, and drops it where it is a tensor of its own. It
is not done unasked, since runtimes know some patterns of attention by their biases.

## References

Rows of a softmax sum to one; the value-output circuit of Elhage et al., A Mathematical Framework for Transformer
Circuits (2021).
"""

from __future__ import annotations

from collections.abc import Iterator

from symlint.evidence.context import Context
from symlint.lint.finding import Finding, Level
from symlint.lint.redundancy import Redundancy, redundant
from symlint.lint.rule import rule


def _foldable(found: Redundancy) -> bool:
    return found.free and found.averaged and bool(found.absorbers)


@rule("SYM402", "foldable-value-bias", Level.NOTE, "exact", repair="drop")
def check(context: Context) -> Iterator[Finding]:
    """One note per space of values."""
    yield from redundant(context, check, _foldable, "{parameters} of {tensors} can be folded into {absorbers}")
