"""Units that cannot affect any output.

## What it checks

For every space of units that may be permuted: whether a unit (a neuron, a channel, a head) contributes to some
output. It does not where nothing reads it (its outgoing weights are zero, or what reads it is dead itself), where
nothing writes it and its activation maps zero to zero, or where its bias alone decides that its activation is zero.
Zero means below 1e-30: weights that decayed to 1e-39 are zero for every input. Units that lie between linear maps only
may be mixed by any invertible matrix, after which none of them is dead: there the same flaw is a rank, see SYM301.

## Why it matters

The unit costs memory and time in every layer that its space passes through and does nothing. It can be deleted
without changing the function. A rescaling symmetry predicts such units: with weight decay or gradient noise the state
in which the incoming and the outgoing weights of a unit vanish together is attractive.

## What else can cause it

Structured pruning that zeroes channels without removing them, a too large learning rate, an unlucky initialisation,
input features that are always zero, and an output that the export left unused. The finding does not tell these apart.
Where every unit of a space is dead the whole branch is: that is only a note, because exporters leave such branches.

## Evidence

exact: follows from zeros in the weights, for every input.

## Repair

``symlint fix`` deletes the unit from every tensor of its space; the outputs stay the same to the last rounding. Where
heads, groups or other copies must have one size, as many units go as the copy with the fewest dead ones has. A branch
that ends in a sum and of which nothing is alive goes as a whole.

## References

Ziyin, Symmetry Induces Structure and Constraint of Learning (ICML 2024), rescaling symmetry; Chen et al., Stochastic
Collapse (NeurIPS 2023), sign-invariant sets.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from symlint.evidence import Context
from symlint.finding import Finding, Level
from symlint.rule import rule
from symlint.severity import by_share


@rule("SYM101", "dead-unit", Level.WARNING, "exact", repair="remove")
def check(context: Context) -> Iterator[Finding]:
    """One finding per space with dead units."""
    for space in context.spaces:
        dead = np.flatnonzero(context.units(space).dead)
        total = space.size * space.copies
        if not len(dead):
            continue
        whole = len(dead) == total
        message = (
            f"nothing that {space.name} computes reaches an output: all {total} units are dead"
            if whole
            else f"{len(dead)} of {total} units of {space.name} cannot affect the output"
        )
        yield Finding(
            check.code,
            check.name,
            Level.NOTE if whole else by_share(len(dead), total),
            check.evidence,
            message,
            space.id,
            tuple(dead.tolist()),
            context.tensors(space),
            {"dead": len(dead), "units": total, "tolerance": 1e-30},
            saves=len(dead) * context.weight(space),
        )
