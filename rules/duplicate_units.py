"""Units that are equal, or multiples of each other, for every input.

## What it checks

For every space of units that may be permuted: which units are the same function of the input wherever they are read.
Equal incoming weights and bias make equal units under any activation; under a positively homogeneous one (ReLU,
LeakyReLU, PReLU with one slope, none at all) a positive multiple of both makes a multiple of the unit, and under an
odd one (tanh, sin, erf) their negative makes the negative unit. Units further on are compared through what they read:
two units that read duplicates differently but in the same sum are duplicates as well. Where all units of a space are
the same SYM203 says so instead, and spaces between linear maps only are judged by their rank, see SYM301.

## Example

```text
warning[duplicate-units] SYM201: 1 of 6 units of w1 repeats another: 2 do
  the work of 1
  --> w1 (MatMul -> a)
    = tensors: b1, w1, w2
    = evidence: exact; tolerance 4.8e-07
    = units: {1, 5}
    = saves: 8 parameters (16.7% of the model)
```

## Why it matters

One unit does the work of several. Merging them, with their outgoing weights added up, leaves the function as it is
and the network smaller. A permutation symmetry predicts the state: units that once became equal stay equal under
gradient descent.

## What else can cause it

A constant initialisation that never broke the symmetry, copied weights (widening a network, an ensemble of clones),
clustering or quantisation to a small alphabet, and too much weight decay, which leaves as many distinct directions as
the task needs. Rows that random weights of that length and alphabet would often repeat are not reported.

## Evidence

exact: every weight agrees to a few roundings of its number type.

## Repair

``symlint fix`` keeps one unit of each group, adds the outgoing weights of the others to its own (times their factor),
and deletes the others.

In the next training ``symlint.torch.remove_symmetries`` keeps units apart; ``symlint.torch.constrain`` with ``tied``
makes some equal on purpose.

## References

Ziyin, Symmetry Induces Structure and Constraint of Learning (ICML 2024), permutation symmetry; Chen et al.,
Stochastic Collapse (NeurIPS 2023), permutation-invariant sets.
"""

from __future__ import annotations

from collections.abc import Iterator

from symlint.evidence.context import Context
from symlint.lint.finding import Finding, Level, Merge, grouped
from symlint.lint.rule import SHARES, by_share, rule


@rule("SYM201", "duplicate-units", Level.WARNING, "exact", repair="merge", options=SHARES)
def check(context: Context) -> Iterator[Finding]:
    """One finding per space with duplicates; its groups are in the facts."""
    for space in context.spaces:
        groups = context.units(space).groups
        if not groups or context.unbroken(space):
            continue
        total = space.size * space.copies
        spare = sum(len(group) - 1 for group in groups)
        members = sorted(unit for group in groups for unit in group)
        saves, repeat = spare * context.weight(space), "repeats another" if spare == 1 else "repeat others"
        yield Finding(
            check.code,
            check.name,
            by_share(context, check, spare, total, saves),
            check.evidence,
            f"{spare} of {total} units of {space.name} {repeat}: {len(members)} do the work of {len(groups)}",
            space.id,
            tuple(members),
            context.tensors(space),
            {"groups": [list(group) for group in groups], "spare": spare, "units": total, "tolerance": 4.8e-07},
            saves=saves,
            repair=Merge(grouped(groups)),
        )
