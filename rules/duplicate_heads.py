"""Attention heads that do the same.

## What it checks

For every space whose units are made of units of other spaces (attention heads, groups of channels): which of them
contribute multiples of one function to the sum that all of them end in. Heads are compared by what can be observed: the
scores that the softmax sees, but for what shifts all of them alike, and the product of values and output weights. How
the dimensions inside a head are ordered, scaled or mixed does not matter, neither do rotary positions, biases of
positions, or normalised queries and keys: all of that is computed, for random inputs of the layer. Where several query
heads share keys and values, the finding is on the heads of the keys; equal query heads of one key head are duplicates
in the sense of SYM201.

Heads that are dead belong to SYM104. Experts, whose sum has a router's weights in it, belong to SYM205. Parts that
cannot be computed here, or with tensors of more than eight million numbers, are left alone.

## Example

```text
warning[duplicate-heads] SYM204: 2 of 3 heads of wq do the work of 1
  --> wq (MatMul -> q1)
    = tensors: bk, bq, bv, wk and 3 more
    = evidence: exact; tolerance 1e-05
    = units: {0, 2}
    = saves: 23 parameters (15.0% of the model)
```

## Why it matters

A head that repeats another adds nothing that the other could not do with larger output weights: its keys, values and
scores are computed and cached for nothing. A permutation symmetry predicts the state: heads that are equal have equal
gradients and stay equal.

## What else can cause it

Heads that were copied (widening, upcycling, converting between numbers of key heads), a constant initialisation, and a
task for which fewer heads are enough. The finding does not tell these apart.

## Evidence

exact: what two heads contribute differs by no more than six times what a rounding of every weight changes, which is
measured; where that is too much to tell heads apart nothing is said. The functions are compared on random numbers, on
which different ones agree with probability zero.

## Repair

``symlint fix`` keeps one head of each group with its output weights times what the group adds up to, and deletes the
others; operators that are told a number of heads are told the new one. What the biases of values add goes to the bias
of the output first. Where layers share one number of heads all of them lose as many.

## References

Ziyin, Symmetry Induces Structure and Constraint of Learning (ICML 2024), permutation symmetry; Tran et al., Equivariant
Neural Functional Networks for Transformers (ICLR 2025), the symmetries of attention; Michel, Levy and Neubig, Are
Sixteen Heads Really Better than One? (NeurIPS 2019).
"""

from __future__ import annotations

from collections.abc import Iterator

from symlint.evidence.context import Context
from symlint.evidence.twins import Twins, twins
from symlint.lint.finding import Finding, Level, MergeHeads
from symlint.lint.rule import SHARES, by_share, rule


@rule("SYM204", "duplicate-heads", Level.WARNING, "exact", repair="merge", options=SHARES)
def check(context: Context) -> Iterator[Finding]:
    """One finding per space with such heads; its groups are in the facts."""
    for space in context.spaces:
        action = context.structure.permutation(space.id)
        if not context.bundled(space) or action.copies:
            continue
        found = twins(context.structure, action, context.moving)
        if found is None or not found.groups:
            continue
        spare = sum(len(group) - 1 for group in found.groups)
        saves = spare * context.weight(space)
        yield Finding(
            check.code,
            check.name,
            by_share(context, check, spare, space.size, saves),
            check.evidence,
            _say(found, space.name, space.size),
            space.id,
            tuple(sorted(unit for group in found.groups for unit in group)),
            context.tensors(space),
            {
                "groups": [list(group) for group in found.groups],
                "multiples": [[_short(found.multiples[unit]) for unit in group] for group in found.groups],
                "spare": spare,
                "units": space.size,
                "tolerance": 1e-5,
            },
            saves=saves,
            repair=MergeHeads(),
        )


def _say(found: Twins, name: str, total: int) -> str:
    what = "heads" if found.attends else "groups"
    members = sum(len(group) for group in found.groups)
    return f"{members} of {total} {what} of {name} do the work of {len(found.groups)}"


def _short(value: float) -> float:
    """Five digits: the rest is the noise of the gauge."""
    return float(f"{value:.5g}")
