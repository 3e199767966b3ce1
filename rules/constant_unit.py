"""Units whose value is one number, whatever the input.

## What it checks

For every space of units that may be permuted: whether a unit that contributes to the output has the same value for
every input and at every place, so that it only adds a constant to whatever reads it. The usual cause is that its
incoming weights are zero and its bias, or the shift of a normalisation, is not. Units between linear maps only are
judged by their rank, see SYM301.

## Example

```text
warning[constant-unit] SYM102: 2 of 6 units of w1 have a value that does not
  depend on the input
  --> w1 (MatMul -> a)
    = tensors: b1, w1, w2
    = evidence: exact; tolerance 5.96e-14
    = units: 2, 4
    = saves: 16 parameters (33.3% of the model)
```

## Why it matters

The unit costs as much as any other and does the work of a bias. Its constant can be folded into the biases of its
readers, and the unit deleted.

## What else can cause it

Structured pruning that zeroes weights but leaves biases, dead features behind a normalisation whose shift survived, a
gain that decayed to zero, and a branch whose input the export made constant. Nothing is reported of a space that is
computed from the weights alone, like a learned query, since no input could reach it.

## Evidence

exact: follows from zeros in the weights, for every input. A second finding of a space has evidence bounded: intervals
and norms that are carried through the network prove that what an activation gets stays where it is constant, as above
6 for a ReLU6. ``facts.margin`` is by how much of its width the interval could be wider on either side.

Inputs may be anything, unless ``[[tool.symlint.inputs]]`` declares ``name``, ``low`` and ``high`` of one: a finding
that rests on it says so, and ``facts.inputs`` has the ends.

## Repair

``symlint fix`` adds the constant, times the outgoing weights, to the biases of the readers, and deletes the unit. A
reader that pads its input with zeros sees the constant everywhere but in the padding: there one constant unit stays and
does the work of all. Bounded ones are folded with ``--safety bounded``.

## References

Ziyin, Symmetry Induces Structure and Constraint of Learning (ICML 2024), rescaling symmetry.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from symlint.evidence.context import Context
from symlint.evidence.dead import bounded
from symlint.lint.finding import Finding, Fold, Level
from symlint.lint.rule import SHARES, by_share, rule
from symlint.symmetry.spaces import Space


@rule("SYM102", "constant-unit", Level.WARNING, "exact", repair="fold", options=SHARES)
def check(context: Context) -> Iterator[Finding]:
    """One finding per space with constant units, and one for those that only bounds prove to be constant."""
    for space in context.spaces:
        units = context.units(space)
        constant = np.flatnonzero(units.constant)
        total = space.size * space.copies
        if not len(constant):
            continue
        saves, have = len(constant) * context.weight(space), "has" if len(constant) == 1 else "have"
        yield Finding(
            check.code,
            check.name,
            by_share(context, check, len(constant), total, saves),
            check.evidence,
            f"{len(constant)} of {total} units of {space.name} {have} a value that does not depend on the input",
            space.id,
            tuple(constant.tolist()),
            context.tensors(space),
            {"constant": len(constant), "units": total, "tolerance": context.asked.faint},
            saves=saves,
            repair=Fold(),
        )
    for space in context.spaces:
        yield from _saturated(context, space)


def _saturated(context: Context, space: Space) -> Iterator[Finding]:
    proven = bounded(context)
    if not proven.settled:
        return
    units, total = context.units(space), space.size * space.copies
    still = np.flatnonzero(proven.units(space).constant & ~units.dead & ~units.constant)
    if not len(still):
        return
    rests = not proven.unaided.units(space).constant[still].all()
    proven = proven if rests else proven.unaided
    inputs = proven.condition if rests else "for every input"
    saves, margins = len(still) * context.weight(space), proven.margins(space)
    stay = "stays" if len(still) == 1 else "stay"
    least = min((margins[u] for u in still.tolist() if u in margins), default=0)
    yield Finding(
        check.code,
        check.name,
        proven.level(space, still.tolist(), by_share(context, check, len(still), total, saves)),
        "bounded",
        f"{len(still)} of {total} units of {space.name} {stay} at one value {inputs}",
        space.id,
        tuple(still.tolist()),
        context.tensors(space),
        {
            "constant": len(still),
            "units": total,
            "margin": least,
            **({"inputs": proven.ranges} if rests else {}),
        },
        saves=saves,
        repair=Fold(),
    )
