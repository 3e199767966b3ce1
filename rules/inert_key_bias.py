"""A bias of attention keys, which no output depends on.

## What it checks

A change of the bias adds the same number to all scores of a query, and softmax does not see that. The bias is followed
through the network as it is: under rotary embeddings, a normalisation of the keys or an attention sink it matters, and
is not reported.

## Example

```text
note[inert-key-bias] SYM401: 6 parameters of bk shift scores that softmax
  centres
  --> wq (MatMul -> q0)
    = tensors: bk, bq, wk, wq
    = evidence: exact
    = saves: 6 parameters (5.1% of the model)
    = by architecture, whatever the weights: nothing need be done
```

## Why it matters

The parameters take part in no output, whatever their present values: they can be dropped from the file. Under weight
decay they only fade; a fine-tune that trains them trains nothing.

## What else can cause it

Nothing: it is a fact of the architecture. Most exporters write the three biases of a query, key and value projection
alike.

## Evidence

exact: a translation symmetry, for every value of the bias.

## Repair

``symlint fix --absorb`` drops the bias where it is a tensor of its own. It is not done unasked, since runtimes know
some patterns of attention by their biases.

## References

Cordonnier, Loukas, Jaggi, Multi-Head Attention: Collaborate Instead of Concatenate (2020), section 3; softmax is
invariant to adding a constant.
"""

from __future__ import annotations

from collections.abc import Iterator

from symlint.evidence.context import Context
from symlint.lint.finding import Finding, Level
from symlint.lint.redundancy import Redundancy, redundant
from symlint.lint.rule import rule


def _inert(found: Redundancy) -> bool:
    return found.free and not found.absorbers and found.sinks == {"Softmax"}


@rule("SYM401", "inert-key-bias", Level.NOTE, "exact", repair="drop")
def check(context: Context) -> Iterator[Finding]:
    """One note per space of keys."""
    yield from redundant(context, check, _inert, "{parameters} of {tensors} {shift} scores that softmax centres")
