"""Units that cannot affect any output.

## What it checks

For every space of units that may be permuted: whether a unit (a neuron, a channel) contributes to some
output. It does not where nothing reads it (its outgoing weights are zero, or what reads it is dead itself), where
nothing writes it and its activation maps zero to zero, or where its bias alone decides that its activation is zero.

Zero is what no input of ordinary size makes visible. A unit adds to an output what its incoming weights times its
outgoing ones let through; where that is below a rounding of float32 beside the median unit of the space, even for
inputs a million times larger than others (``largest-input`` in the configuration), the unit is dead. Decay leaves
weights of 1e-15 or 1e-39 as well as zeros.

Units that lie between linear maps only may be mixed by any invertible matrix, after which none of them is dead: there
the same flaw is a rank, see SYM301.

## Example

```text
warning[dead-unit] SYM101: 2 of 6 units of w1 cannot affect the output
  --> w1 (MatMul -> a)
    = tensors: b1, w1, w2
    = evidence: exact; tolerance 5.96e-14
    = units: 1, 4
    = saves: 16 parameters (33.3% of the model)
```

## Why it matters

The unit costs memory and time in every layer that its space passes through and does nothing. It can be deleted
without changing the function. A rescaling symmetry predicts such units: with weight decay or gradient noise the state
in which the incoming and the outgoing weights of a unit vanish together is attractive.

## What else can cause it

Structured pruning that zeroes channels without removing them, a too large learning rate, an unlucky initialisation,
input features that are always zero, and an output that the export left unused. The finding does not tell these apart.
Where every unit of a space is dead the whole branch is, and heads, groups and experts are bundles of units: SYM104
speaks of those.

## Evidence

exact: follows from what is zero in the weights, for every input. A second finding of a space has evidence bounded:
intervals and norms that are carried through the network prove that an activation of the unit is zero for every input,
because what it gets stays below zero by more than float32 rounds. ``facts.margin`` is by how much of its width the
interval could be wider on either side. Where a unit has so few weights that chance may have given them one sign, and
the margin is below one, that is only a note.

Inputs may be anything, unless ``[[tool.symlint.inputs]]`` declares ``name``, ``low`` and ``high`` of one: a finding
that rests on it says so, and ``facts.inputs`` has the ends.

## Repair

``symlint fix`` deletes the unit from every tensor of its space; the outputs stay the same to the last rounding.
Bounded ones go with ``--safety bounded``. Where heads, groups or other copies must have one size, as many units go as
the copy with the fewest dead ones has.

To keep units alive in the next training: ``symlint.torch.remove_symmetries`` (decay then leads to small random weights
instead of zero). To have fewer units on purpose, exactly: ``symlint.torch.constrain`` with ``sparse_units``.

## References

Ziyin, Symmetry Induces Structure and Constraint of Learning (ICML 2024), rescaling symmetry; Chen et al., Stochastic
Collapse (NeurIPS 2023), sign-invariant sets.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from symlint.evidence.context import Context
from symlint.evidence.dead import bounded, lost
from symlint.lint.finding import Finding, Level, Remove
from symlint.lint.rule import SHARES, by_share, rule
from symlint.symmetry.spaces import Space


@rule("SYM101", "dead-unit", Level.WARNING, "exact", repair="remove", options=SHARES)
def check(context: Context) -> Iterator[Finding]:
    """One finding per space with dead units, and one for those that only bounds prove to be dead."""
    for space in context.spaces:
        dead = np.flatnonzero(context.units(space).dead)
        total = space.size * space.copies
        if not len(dead) or lost(context, space):
            continue
        saves = len(dead) * context.weight(space)
        yield Finding(
            check.code,
            check.name,
            by_share(context, check, len(dead), total, saves),
            check.evidence,
            f"{len(dead)} of {total} units of {space.name} cannot affect the output",
            space.id,
            tuple(dead.tolist()),
            context.tensors(space),
            {"dead": len(dead), "units": total, "tolerance": context.asked.faint},
            saves=saves,
            repair=Remove(),
        )
    for space in context.spaces:
        yield from _always_off(context, space)


def _always_off(context: Context, space: Space) -> Iterator[Finding]:
    proven = bounded(context)
    if not proven.settled or context.bundled(space):
        return
    units, total = context.units(space), space.size * space.copies
    off = np.flatnonzero(proven.units(space).dead & ~units.dead & ~units.constant)
    if not len(off):
        return
    rests = not proven.unaided.units(space).dead[off].all()
    proven = proven if rests else proven.unaided
    inputs = proven.condition if rests else "for every input"
    saves, margins = len(off) * context.weight(space), proven.margins(space)
    yield Finding(
        check.code,
        check.name,
        proven.level(space, off.tolist(), by_share(context, check, len(off), total, saves)),
        "bounded",
        f"{len(off)} of {total} units of {space.name} {'is' if len(off) == 1 else 'are'} off {inputs}",
        space.id,
        tuple(off.tolist()),
        context.tensors(space),
        {
            "dead": len(off),
            "units": total,
            "margin": min((margins[u] for u in off.tolist() if u in margins), default=0),
            **({"inputs": proven.ranges} if rests else {}),
        },
        saves=saves,
        repair=Remove(),
    )
