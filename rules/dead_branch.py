"""Branches, heads and experts of which nothing reaches an output.

## What it checks

Two things. First, every space of units (neurons, channels, heads, the inside of a linear product): whether all of its
units are dead in the sense of SYM101. Spaces that share a weight are one branch and one finding, as the two inner
layers of a residual block are whose last weights are zero. Second, every space whose units are made of units of other
spaces (attention heads, groups of channels, experts in one tensor): which of them are dead with everything in them.
The units of the finding are those of the first space of the branch, or the numbers of the heads. SYM101 does not
repeat them.

## Example

```text
warning[dead-branch] SYM104: the branch of w2 adds nothing: the weights that
  it ends in let nothing through
  --> w2 (MatMul -> a2)
    = tensors: b2, v2, w2
    = evidence: exact; tolerance 5.96e-14
    = units: 0-2
    = saves: 33 parameters (29.5% of the model)
```

## Why it matters

A dead branch costs as much as a live one. A sum that it ends in is the other branch alone: the block may as well be
missing. A dead head is cached and multiplied for nothing.

## What else can cause it

An initialisation at zero of what ends a branch (the last gain of a residual block, the second factor of a low-rank
adapter, a projection that opens a control branch) is meant to be left by training; an export may leave parts whose
output nobody asked for; pruning removes heads and blocks by zeroing them; weight decay takes branches that do not help
to zero. The finding does not know which it was, but its level makes one distinction:

- note, where the branch is alive as soon as every tensor that is one constant number holds random numbers instead
  (``closed_by`` in the facts is ``start``). An initialisation at zero leaves just that, and so does pruning a tensor as
  a whole. Where the branch is dead, what comes before the zeros may be anything, so the file cannot tell more.
- note, where the branch stays dead whatever the weights are (``graph``): no path leads from it to an output.
- warning otherwise (``weights``): zeros beside other numbers, or numbers that have decayed to nothing, close it.

Single heads, groups and experts have a level by their share, as dead units have.

## Evidence

exact: follows from what is zero in the weights, for every input. Along directions that no normalisation sees weights
may be anything: a head whose output weights are not zero, but lie in such a direction alone, is not told.

## Repair

``symlint fix`` leaves out the sum that a zero branch ends in, and everything that only led there. Where a branch does
not end in a sum of its own, or adds a constant, its spaces keep one unit each. Heads, groups and experts are deleted
from every tensor, and operators that are told a number of heads are told the new one.

## References

Ziyin, Symmetry Induces Structure and Constraint of Learning (ICML 2024), rescaling symmetry; Michel, Levy and Neubig,
Are Sixteen Heads Really Better than One? (NeurIPS 2019); Goyal et al., Accurate, Large Minibatch SGD (2017), residual
blocks that start at zero.
"""

from __future__ import annotations

from collections.abc import Iterator

from symlint.evidence.context import Context
from symlint.evidence.dead import Branch, Bundles, branches, bundles
from symlint.lint.finding import Finding, Level, Remove
from symlint.lint.rule import SHARES, by_share, rule


@rule("SYM104", "dead-branch", Level.WARNING, "exact", repair="remove", options=SHARES)
def check(context: Context) -> Iterator[Finding]:
    """One finding per branch, and one per space with dead heads, groups or experts."""
    for branch in branches(context):
        first = branch.spaces[0]
        yield Finding(
            check.code,
            check.name,
            Level.WARNING if branch.cause == "weights" else Level.NOTE,
            check.evidence,
            _say(branch),
            first.id,
            tuple(range(branch.units)),
            branch.tensors,
            {
                "dead": branch.units,
                "units": branch.units,
                "spaces": [space.id for space in branch.spaces],
                "closed_by": branch.cause,
                "tolerance": context.asked.faint,
            },
            saves=branch.parameters,
            repair=Remove(),
        )
    for found in bundles(context):
        space, total = found.space, found.space.size * found.space.copies
        saves = len(found.lost) * context.weight(space)
        yield Finding(
            check.code,
            check.name,
            by_share(context, check, len(found.lost), total, saves),
            check.evidence,
            _tell(found),
            space.id,
            found.lost,
            context.tensors(space),
            {"dead": len(found.lost), "units": total, "tolerance": context.asked.faint},
            saves=saves,
            repair=Remove(),
        )


def _say(branch: Branch) -> str:
    others = len(branch.spaces) - 1
    more = f" (and {others} more space{'s' if others > 1 else ''})" if others else ""
    why = {
        "graph": "no path leads from there to an output",
        "start": "it is closed by a tensor at one constant, as an initialisation leaves it",
        "weights": "the weights that it ends in let nothing through",
    }[branch.cause]
    return f"the branch of {branch.spaces[0].name}{more} adds nothing: {why}"


def _tell(found: Bundles) -> str:
    total = found.space.size * found.space.copies
    some = f"{len(found.lost)} of {total} units" if len(found.lost) > 1 else f"unit {found.lost[0]} of {total}"
    return f"{some} of {found.space.name} {'add' if len(found.lost) > 1 else 'adds'} nothing, with everything in it"
