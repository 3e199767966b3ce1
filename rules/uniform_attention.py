"""Attention heads whose weights are all but equal for every input.

## What it checks

For every attention head that reads normalised vectors: how far the scores of a query with two keys can be apart. A
normalisation makes vectors of a known length, so that this is bounded by a number of the weights alone: the largest
singular value of the product of query and key weights, gains included, and the bias of the queries. Where the bound is
so small that no softmax weight differs from those of a plain average by more than the share ``spread``, the head is
reported; the units of the finding are the numbers of the heads. Masks may choose which keys are averaged. Heads with
rotary positions, with learned biases of positions, or without a normalisation before them are left alone, and so are
those whose scores do not depend on the input at all, of which SYM302 speaks.

## Example

```text
warning[uniform-attention] SYM304: head 0 of 2 of wq can only average: no
  weight differs from a mean's by more than 0.001 of it
  --> wq (MatMul -> q0)
    = tensors: bq, wk, wq
    = evidence: bounded
    = units: 0
```

## Why it matters

Such a head compares nothing: it is an average over positions that costs as much as attention. Its queries and keys can
be left out, and what remains is one matrix.

## What else can cause it

A training that started from very small queries and keys and did not move them, weight decay, a head that has learned
to average, and a gain of the normalisation that decayed. The finding does not tell these apart.

## Evidence

bounded: the bound holds for every input; the facts give the largest difference of two scores, head by head.

## Repair

None by ``symlint fix``, since the outputs would change by about the share. The head can be replaced by a mean.

## References

Dong, Cordonnier and Loukas, Attention is Not All You Need: Pure Attention Loses Rank Doubly Exponentially with Depth
(ICML 2021); Zhai et al., Stabilizing Transformer Training by Preventing Attention Entropy Collapse (ICML 2023), the
bound by the singular values of queries and keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import log1p

from symlint.evidence.context import Context
from symlint.evidence.score_spread import spreads
from symlint.lint.finding import Finding, Level
from symlint.lint.rule import SHARES, by_share, rule


@rule("SYM304", "uniform-attention", Level.WARNING, "bounded", options={**SHARES, "spread": 1e-3})
def check(context: Context) -> Iterator[Finding]:
    """One finding per attention layer with such heads."""
    share = context.option(check, "spread")
    found = list(spreads(context, log1p(share)))
    zero = {
        (space.id, copy) for space, p in (context.products if found else ()) for copy, r in p.low.items() if not r.rank
    }
    for spread in found:
        space, heads = spread.space, spread.heads
        flat = [k for k, most in enumerate(heads) if most < log1p(share) and (space.id, k) not in zero]
        if not flat:
            continue
        some = f"head {flat[0]} of {len(heads)}" if len(flat) == 1 else f"{len(flat)} of {len(heads)} heads"
        yield Finding(
            check.code,
            check.name,
            by_share(context, check, len(flat), len(heads)),
            check.evidence,
            f"{some} of {space.name} can only average: no weight differs from a mean's by more than {share:g} of it",
            space.id,
            tuple(flat),
            context.tensors(space),
            {"scores": [float(f"{heads[k]:.1e}") for k in flat], "heads": len(heads), "spread": share},
        )
