"""Outputs that are the same for every input.

## What it checks

Every graph output that lies behind some input: whether its value follows from the weights alone, because on every way
from the inputs something is multiplied by zero, rectified to zero, or normalised away. Outputs that no input leads to
(anchors, initial states, lengths), that hand a state on, or that would be constant with any other weights are no
findings.

## Example

```text
warning[constant-output] SYM012: output z is the same for every input
  --> w3 (MatMul -> e)
    = tensors: w3
    = evidence: exact; tolerance 1e-30
```

## Why it matters

The model answers the same whatever it is asked. Where this is its only output the model does nothing; where there are
others, a head was lost. It is an error where no other output depends on the input, else a warning. A head of which
every weight and bias is zero is as some libraries start it, and only a note.

## What else can cause it

A head that was never trained and is still at its zero initialisation, a training that collapsed or was stopped at the
first step, weights that were zeroed or lost on the way to the file, units before the output that are all dead.

## Evidence

exact: follows from zeros in the weights, for every input.

## Repair

There is none that gives the output a meaning. Go back to the checkpoint, or drop the output from the graph.

## References

Ziyin, Symmetry Induces Structure and Constraint of Learning (ICML 2024), rescaling symmetry; Zhang, Dauphin and Ma,
Fixup Initialization (ICLR 2019), on heads that start at zero.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from symlint.evidence.context import Context
from symlint.lint.finding import Finding, Level
from symlint.lint.rule import rule


@rule("SYM012", "constant-output", Level.WARNING, "exact")
def check(context: Context) -> Iterator[Finding]:
    """One finding per output; an error where no other output depends on the input, a note where it was not begun."""
    program, ends = context.structure.program, context.ends
    named = dict(zip(program.outputs, context.symmetry.model.graph.outputs, strict=False))
    tensors = context.symmetry.model.tensors
    moving = [name for name in named if name in context.moving and name in program.ends]
    still = [name for name in moving if ends.still(name).all()]
    told = [name for name in still if not ends.generic.still(name).all()]
    for name in told:
        only = len(still) == len(moving)
        writers = ends.writers(name)
        blank = bool(writers) and not any(np.any(tensors[writer].read()) for writer in writers)
        blank = blank and bool(context.values[name].constant.all() and np.ptp(context.values[name].scale) == 0)
        facts = {"output": named[name], "outputs": len(named), "blank": blank, "tolerance": 1e-30}
        why = ": the head is all zero, bias and all" if blank else ""
        yield Finding(
            check.code,
            check.name,
            Level.NOTE if blank else Level.ERROR if only else Level.WARNING,
            check.evidence,
            f"output {named[name]} is the same for every input{why}",
            None,
            (),
            writers,
            facts,
        )
