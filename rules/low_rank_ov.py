"""Attention heads that pass on fewer dimensions than their values have.

## What it checks

For every attention head: the rank of the product of its output and value weights (the bias of the values included,
unless that of the output can take it over), compared with what the size of the head, its input and its output allow.
What a normalisation before or after them removes does not count either. A head is where units are carried through a
contraction with scores that depend on the input, whatever the exporter called it and whether a softmax made the scores.
The units of the finding are the numbers of the heads; where several query heads share a value head, those of the value
heads.

The facts give, head by head, the rank, its bound, the smallest singular value that counts and the largest that does
not, relative to the largest of all, and the tolerance: what the rounding of the stored numbers makes of a zero.

## Example

```text
warning[low-rank-ov] SYM303: head 0 of 2 of wv passes on 1 of 3 dimensions
  --> wv (MatMul -> v0)
    = tensors: bv, wo, wv
    = evidence: exact
    = units: 0
    = saves: 22 parameters (15.4% of the model)
    = cache: of these values it holds 24 bytes per token where 16 would do
    = repair: none, since heads or copies keep one size, and one of them
      needs all of it
```

## Why it matters

The head can move its output in few directions only, but it computes and caches values of full size; smaller ones give
the same output. At rank zero the head adds nothing, and can be deleted. A rotation symmetry predicts the state: weight
decay on values and outputs penalises the sum of the singular values of their product, which sets the small ones to
zero one by one.

## What else can cause it

A task for which few directions are enough, pruned heads, and an initialisation of the output at zero (where that holds
for all heads it is only a note). The finding does not tell these apart.

## Evidence

exact: the singular values that are dropped are at the rounding noise of the stored weights, and there is a gap of at
least 16 times above them, more where chance could make one. Where the noise hides too much nothing is said.

## Repair

``symlint fix`` replaces values and output of the head by factors of the rank's size with the same product, from its
singular value decomposition. Where all heads must have one size the largest rank decides. The parameters that the
finding says it saves count every head on its own.

## References

Ziyin, Symmetry Induces Structure and Constraint of Learning (ICML 2024), rotation symmetry; Tran et al., Equivariant
Neural Functional Networks for Transformers (ICLR 2025), the symmetries of attention; Ziyin, Wang, Li and Wu, Parameter
Symmetry and Noise Equilibrium of SGD (NeurIPS 2024), matrix factorisation.
"""

from __future__ import annotations

from collections.abc import Iterator

from symlint.evidence.context import Context
from symlint.lint.finding import Finding, Level
from symlint.lint.redundancy import Shortfall, shortfalls
from symlint.lint.rule import SHARES, rule


@rule("SYM303", "low-rank-ov", Level.WARNING, "exact", repair="factor", options=SHARES)
def check(context: Context) -> Iterator[Finding]:
    """One finding per attention layer with such heads."""
    return shortfalls(check, context, "values", _say, numbered=True)


def _say(short: Shortfall) -> str:
    heads = f"{short.some('head', 'heads')} of {short.space.name}"
    several = len(short.product.low) > 1
    if short.vanished:
        return f"{heads} add{'' if several else 's'} nothing to the output"
    return f"{heads} pass{'' if several else 'es'} on {short.ranks} dimensions"
