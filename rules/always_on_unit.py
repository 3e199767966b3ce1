"""Units of which the activation never does anything.

## What it checks

For every activation that leaves alone what is not negative (ReLU, leaky and parametric ReLU), or what lies between two
numbers (ReLU6 and other clamps): the units for which everything that it can get, for any input, lies there. Bounds are
carried through the network to see that: a sigmoid or a softmax makes numbers between 0 and 1, a normalisation vectors
of a known length, a ReLU nothing negative, and sums of these with weights lie in intervals.

## Example

```text
note[always-on-unit] SYM105: the ReLU after w2 never acts on 2 of 6 units
  --> w2 (MatMul -> c)
    = tensors: b2, w2, w3
    = evidence: bounded
    = units: 1, 4
```

## Why it matters

Such a unit is linear. It adds no bend to the function, so that a layer of such units and the next one are one matrix
written as two: the model pays for depth that it does not have.

## What else can cause it

A second activation behind a first, as behind a pooling or a concatenation of outputs that were rectified before, which
costs a pass over memory and nothing else; large positive biases, as after a training that drifted; weights of one sign
by chance, where a unit has only a few; and a normalisation whose shift is larger than what it lets through.

## Evidence

bounded: intervals and norms, rounded outward by what a run in float32 may be off.

Inputs may be anything, unless ``[[tool.symlint.inputs]]`` declares ``name``, ``low`` and ``high`` of one: a finding
that rests on it says so, and ``facts.inputs`` has the ends.

## Repair

None by ``symlint fix``. Where all units of a space are named, the activation can be deleted, and two linear layers
without anything between them can be multiplied out.

## References

Gowal et al., On the Effectiveness of Interval Bound Propagation for Training Verifiably Robust Models (2018), bounds;
Serra, Kumar and Ramalingam, Lossless Compression of Deep Neural Networks (CPAIOR 2020), stably active units.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from symlint.evidence.context import Context
from symlint.evidence.dead import bounded, idle
from symlint.lint.finding import Finding, Level
from symlint.lint.rule import rule


@rule("SYM105", "always-on-unit", Level.NOTE, "bounded")
def check(context: Context) -> Iterator[Finding]:
    """One finding per space with such units."""
    proven = bounded(context)
    anyway = {space.id: found for space, found in idle(proven.unaided)} if proven.declared else {}
    for space, found in idle(proven):
        total = space.size * space.copies
        lost = proven.units(space).dead | proven.units(space).constant if proven.settled else context.units(space).dead
        masks = {name: on & ~lost for name, on in found.items() if (on & ~lost).any()}
        if not masks:
            continue
        units = np.flatnonzero(np.any(list(masks.values()), axis=0))
        some = f"{'all' if len(units) == total else f'{len(units):,} of'} {total:,} units"
        functions = sorted({"ReLU" if where.op == "Relu" else where.op for where in masks})
        which = f"the {' and the '.join(functions)} after {space.name} never {'act' if len(functions) > 1 else 'acts'}"
        mine = anyway.get(space.id, {})
        rests = bool(proven.declared) and any(k not in mine or (on & ~mine[k]).any() for k, on in masks.items())
        yield Finding(
            check.code,
            check.name,
            check.level,
            check.evidence,
            f"{which} on {some}{f' {proven.condition}' if rests else ''}",
            space.id,
            tuple(units.tolist()),
            context.tensors(space),
            {
                "on": len(units),
                "units": total,
                "activations": {k.node: int(on.sum()) for k, on in masks.items()},
                **({"inputs": proven.ranges} if rests else {}),
            },
        )
