"""Linear layers in a row through which fewer independent directions pass than their widths allow.

## What it checks

Every space of units that lies between linear maps only: two linear layers without an activation, a linear bottleneck,
an adapter, a factorised embedding, a residual stream without normalisation. All weights that write the units (biases
included, unless a later bias can take them over) are one matrix, all that read them another, and the rank of their
product is compared with what the width, the writers and the readers allow. A space that is wider than what goes in or
comes out is no finding: there the smaller number is the bound. Heads have rules of their own, SYM302 and SYM303.
Spaces of more than 4,096 units are left alone.

The finding has no units, because none is more at fault than another: any invertible matrix may mix them. Where a
space has copies (groups, or heads without scores) the units are the numbers of the copies that are low in rank. The
facts give, copy by copy, the rank, its bound, the smallest singular value that counts and the largest that does not,
relative to the largest of all, and the tolerance: what the rounding of the stored numbers makes of a zero.

## Example

```text
warning[low-rank-product] SYM301: only 2 of 5 independent directions pass
  through w1: a narrower pair of layers does the same
  --> w1 (MatMul -> a)
    = tensors: b1, w1, w2
    = evidence: exact
    = saves: 44 parameters (62.0% of the model)
```

## Why it matters

The layers cost as much as their width and do the work of a narrower pair: the same function needs fewer weights, less
memory and less time. A rotation symmetry predicts the state. With weight decay the product of two matrices is
penalised by the sum of its singular values, which sets the small ones to zero one by one.

## What else can cause it

A task that needs no more directions, compression by truncated factors that kept the old shape, units that were pruned
on one side, an adapter that was never trained (its rank is zero: that is only a note), and fixed matrices of low rank
by construction. The finding does not tell these apart.

## Evidence

exact: the singular values that are dropped are at the rounding noise of the stored weights, and there is a gap of at
least 16 times above them, more where chance could make one. Where the noise hides too much nothing is said.

## Repair

``symlint fix`` replaces the writers A and the readers B by A' and B' of the rank's width with B' A' = B A, from a
singular value decomposition of the product; the outputs stay the same to the rounding of the weights. The parameters
that the finding says it saves are those of this pair.

In the next training ``symlint.torch.remove_symmetries`` keeps decay from lowering the rank; ``symlint.torch.constrain``
with ``low_rank`` lowers that of a matrix on purpose.

## References

Ziyin, Symmetry Induces Structure and Constraint of Learning (ICML 2024), rotation symmetry; Ziyin, Wang, Li and Wu,
Parameter Symmetry and Noise Equilibrium of SGD (NeurIPS 2024), matrix factorisation; Srebro, Rennie and Jaakkola,
Maximum-Margin Matrix Factorization (NeurIPS 2004), weight decay on two factors as the trace norm of their product.
"""

from __future__ import annotations

from collections.abc import Iterator

from symlint.evidence.context import Context
from symlint.lint.finding import Finding, Level
from symlint.lint.redundancy import Shortfall, shortfalls
from symlint.lint.rule import SHARES, rule


@rule("SYM301", "low-rank-product", Level.WARNING, "exact", repair="factor", options=SHARES)
def check(context: Context) -> Iterator[Finding]:
    """One finding per linear space through which less passes than could."""
    return shortfalls(check, context, "linear", _say, numbered=False)


def _say(short: Shortfall) -> str:
    name, product = short.space.name, short.product
    where = name if product.copies == 1 else f"{short.some('copy', 'copies')} of {name}"
    if short.vanished:
        return f"nothing passes through {where}: its {product.width} units do no work"
    return f"only {short.ranks} independent directions pass through {where}: a narrower pair of layers does the same"
