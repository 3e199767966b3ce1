"""Attention whose queries and keys make a symmetric product in every head: half of them is redundant.

## What it checks

For every attention layer that looks at what it reads itself: the product of its query and key weights, head by head. If
it is equal to its transpose in all heads, a token weighs another exactly as that weighs it, before their biases and the
softmax. Heads whose queries and keys are rotated by position, or normalised, are left alone, and so are layers in which
several heads of queries share one of keys. The facts give the tolerance: how far two entries that face each other may
be apart, as a share of the largest entry.

## Example

```text
note[symmetric-scores] SYM305: queries and keys of wq make a symmetric
  product in all 2 heads: half of them is redundant
  --> wq (MatMul -> q0)
    = tensors: bk, bq, wk, wq
    = evidence: exact; tolerance 2.8e-06
```

## Why it matters

A symmetric product of rank r is written with one matrix and r signs, where queries and keys are two: the keys could be
the queries, up to a sign for each dimension in the right basis, and need neither weights nor a multiplication of their
own. Attention of this kind cannot tell who looks at whom, so a decoder that needs a direction has lost it.

## What else can cause it

Queries and keys that are tied on purpose, as in Reformer; a copied initialisation that training did not break; a task
without a direction, such as the similarity of patches. The finding does not tell these apart.

## Evidence

exact: the difference is below the rounding of the stored weights in every head, whatever basis the heads are in.

## Repair

None by ``symlint fix``: operators of attention want keys. ``facts.redundant`` counts the weights of the keys.

## References

Kitaev, Kaiser and Levskaya, Reformer (ICLR 2020), shared queries and keys; Saponati et al., The underlying structures
of self-attention: symmetry, directionality, and emergent dynamics in Transformer training (2025).
"""

from __future__ import annotations

from collections.abc import Iterator

from symlint.evidence.context import Context
from symlint.lint.finding import Finding, Level
from symlint.lint.redundancy import short
from symlint.lint.rule import rule


@rule("SYM305", "symmetric-scores", Level.NOTE, "exact")
def check(context: Context) -> Iterator[Finding]:
    """One finding per attention layer."""
    spaces = {space.id: space for space in context.symmetry.spaces}
    for found in context.mutual:
        space = spaces[found.space]
        heads = "its head" if space.copies == 1 else f"all {space.copies} heads"
        yield Finding(
            check.code,
            check.name,
            check.level,
            check.evidence,
            f"queries and keys of {space.name} make a symmetric product in {heads}: half of them is redundant",
            space.id,
            tensors=context.tensors(space),
            facts={
                "heads": space.copies,
                "tolerance": short(found.tolerance),
                "redundant": found.redundant,
            },
        )
