"""Attention heads that compare queries and keys in fewer dimensions than they have.

## What it checks

For every attention head: the rank of the product of its query and key weights (biases included, but for the bias of
the keys, which shifts all scores alike), compared with what the size of the head, the queries and the keys allow. What
a normalisation before them removes from their inputs does not count either. A head is where units are summed over
between two tensors that both depend on the input, whatever the exporter called them. Heads whose queries and keys are
rotated by position, or normalised, are left alone: there fewer matrices may act, and a low rank is no repair. The units
of the finding are the numbers of the heads; where several query heads share a key head, those of the key heads.

The facts give, head by head, the rank, its bound, the smallest singular value that counts and the largest that does
not, relative to the largest of all, and the tolerance: what the rounding of the stored numbers makes of a zero.

## Example

```text
warning[low-rank-qk] SYM302: head 1 of 2 of wq compares queries and keys in
  1 of 3 dimensions
  --> wq (MatMul -> q0)
    = tensors: bk, bq, wk, wq
    = evidence: exact
    = units: 1
    = saves: 24 parameters (16.8% of the model)
    = cache: of these keys it holds 24 bytes per token where 16 would do
    = repair: none, since heads or copies keep one size, and one of them
      needs all of it
```

## Why it matters

The scores of such a head depend on few directions of its inputs. It computes and caches keys of full size for them;
smaller ones give the same scores. At rank zero the scores do not depend on the input at all, and the head averages. A
rotation symmetry predicts the state: weight decay on queries and keys penalises the sum of the singular values of
their product, which sets the small ones to zero one by one.

## What else can cause it

A task for which one or two directions are enough, pruned or merged heads, and an initialisation at zero. The finding
does not tell these apart.

## Evidence

exact: the singular values that are dropped are at the rounding noise of the stored weights, and there is a gap of at
least 16 times above them, more where chance could make one. Where the noise hides too much nothing is said.

## Repair

``symlint fix`` replaces queries and keys of the head by factors of the rank's size with the same product, from its
singular value decomposition, and keeps the scale of the scores as it was. Where all heads must have one size the
largest rank decides. The parameters that the finding says it saves count every head on its own.

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


@rule("SYM302", "low-rank-qk", Level.WARNING, "exact", repair="factor", options=SHARES)
def check(context: Context) -> Iterator[Finding]:
    """One finding per attention layer with such heads."""
    return shortfalls(check, context, "scores", _say, numbered=True)


def _say(short: Shortfall) -> str:
    heads = f"{short.some('head', 'heads')} of {short.space.name}"
    several = len(short.product.low) > 1
    if short.vanished:
        return f"the scores of {heads} do not depend on the input: {'they average' if several else 'it averages'}"
    return f"{heads} compare{'' if several else 's'} queries and keys in {short.ranks} dimensions"
