"""Experts of a mixture that are the same function.

## What it checks

For every space of experts (units that are made of units of other spaces, and among which a router chooses or to which
it gives weights): which of them make the same of every input when they are chosen. How the units inside an expert are
ordered or scaled does not matter: for random inputs, what comes out with one expert chosen everywhere is computed. The
facts also say, group by group, whether the router gives the experts the same score (``routed``).

This is for experts that lie along an axis of their tensors, as in most exports of mixtures. Where every expert has
tensors and nodes of its own, or tokens are sorted by expert at run time, nothing is said, neither are mixtures with
tensors of more than eight million numbers.

## Example

```text
warning[duplicate-experts] SYM205: 2 of 3 experts of gate are 1 function
  --> gate (MatMul -> r)
    = tensors: b, down, gate, up
    = evidence: exact; tolerance 1e-05
    = units: {0, 2}
    = saves: 25 parameters (33.3% of the model)
```

## Why it matters

Experts that are one function are paid for several times, in memory and, where all are computed, in time. Where the
router also cannot tell them apart they are as good as one. A permutation symmetry predicts the state: experts that are
equal, with equal scores, have equal gradients.

## What else can cause it

Experts that were copied from a dense network (upcycling) and not trained on, a router that collapsed onto few of them
so that the others never moved, and a constant initialisation. The finding does not tell these apart.

## Evidence

exact: the outputs of two experts differ by no more than six times what a rounding of every weight changes, which is
measured. The functions are compared on random numbers, on which different ones agree with probability zero.

## Repair

There is none that is simple: to merge two experts the router has to give the one that is left the sum of both weights,
which a softmax or a choice of the best few does not do by any weights. Train on, with a loss that balances the load.

## References

Ziyin, Symmetry Induces Structure and Constraint of Learning (ICML 2024), permutation symmetry; Komatsuzaki et al.,
Sparse Upcycling: Training Mixture-of-Experts from Dense Checkpoints (ICLR 2023); Chi et al., On the Representation
Collapse of Sparse Mixture of Experts (NeurIPS 2022).
"""

from __future__ import annotations

from collections.abc import Iterator

from symlint.evidence.context import Context
from symlint.evidence.twins import Experts, experts
from symlint.lint.finding import Finding, Level
from symlint.lint.rule import SHARES, by_share, rule


@rule("SYM205", "duplicate-experts", Level.WARNING, "exact", options=SHARES)
def check(context: Context) -> Iterator[Finding]:
    """One finding per space with such experts; its groups are in the facts."""
    for space in context.spaces:
        action = context.structure.permutation(space.id)
        if not context.bundled(space) or action.copies:
            continue
        found = experts(context.structure, action, context.moving)
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
                "routed": list(found.routed),
                "spare": spare,
                "units": space.size,
                "tolerance": 1e-5,
            },
            saves=saves,
        )


def _say(found: Experts, name: str, total: int) -> str:
    members = sum(len(group) for group in found.groups)
    alike = ", and the router cannot tell them apart" if all(found.routed) else ""
    return f"{members} of {total} experts of {name} are {len(found.groups)} function{_s(len(found.groups))}{alike}"


def _s(count: int) -> str:
    return "" if count == 1 else "s"
