"""Layers all of whose units are one and the same.

## What it checks

For every space of units that may be permuted: whether all of its units are duplicates of each other, in the sense of
SYM201: equal, or multiples that the activation passes. A space with copies (heads, groups, experts) is reported where
that holds within each of them. Spaces between linear maps only are judged by their rank, see SYM301.

## Example

```text
warning[unbroken-symmetry] SYM203: all 6 units of w1 are the same: the layer
  does the work of one
  --> w1 (MatMul -> a)
    = tensors: b1, w1, w2
    = evidence: exact; tolerance 4.8e-07
    = units: {0-5}
    = saves: 40 parameters (83.3% of the model)
```

## Why it matters

The layer does the work of a single unit, however wide it is. Gradient descent cannot part units that are equal, so
training on will not help: the layer stays on the plane of the permutation symmetry on which it was started, or onto
which it fell.

## What else can cause it

A constant initialisation (all weights zero, one or the same number), a layer that was widened by copying, an
export of placeholder weights, and weight decay so strong that one direction is left. The finding does not tell these
apart.

## Evidence

exact: every weight agrees to a few roundings of its number type.

## Repair

To use the width: initialise at random and train again. To keep the function: merge the units into one, with their
outgoing weights added up (times their factor). From any start, ``symlint.torch.remove_symmetries`` adds fixed random
numbers to the weights, so that units are different and stay so.

## References

Ziyin, Symmetry Induces Structure and Constraint of Learning (ICML 2024), permutation symmetry; Chen et al.,
Stochastic Collapse (NeurIPS 2023), permutation-invariant sets.
"""

from __future__ import annotations

from collections.abc import Iterator

from symlint.evidence.context import Context
from symlint.lint.finding import Finding, Level, Merge, grouped
from symlint.lint.rule import SHARES, by_share, rule


@rule("SYM203", "unbroken-symmetry", Level.ERROR, "exact", repair="merge", options=SHARES)
def check(context: Context) -> Iterator[Finding]:
    """One finding per space whose units are all the same; it stands for one of SYM201."""
    for space in context.spaces:
        if not context.unbroken(space):
            continue
        total = space.size * space.copies
        spare = total - space.copies
        groups = [list(range(k, k + space.size)) for k in range(0, total, space.size)]
        each = " in each copy" if space.copies > 1 else ""
        saves = spare * context.weight(space)
        yield Finding(
            check.code,
            check.name,
            by_share(context, check, spare, total, saves),
            check.evidence,
            f"all {space.size} units of {space.name} are the same{each}: the layer does the work of one",
            space.id,
            tuple(range(total)),
            context.tensors(space),
            {"groups": groups, "spare": spare, "units": total, "tolerance": 4.8e-07},
            saves=saves,
            repair=Merge(grouped(groups)),
        )
