"""Stored tensors that no node reads and that are no output.

## What it checks

Every initializer and every value of a Constant node of at least a kilobyte, in the graph and in the bodies of control
flow: whether any node reads it, or it is an output. The finding names those that nothing reads, and how many bytes they
take. An initializer that is an input as well is left out, since it belongs to the interface.

## Example

```text
note[unused-initializer] SYM015: 1 stored tensor is read by no node and
  1,280 bytes large: lost
  --> lost (Initializer)
    = tensors: lost
    = evidence: exact
```

## Why it matters

They are stored, sent and loaded, and change nothing. Where they are weights, a layer may have been lost on the way.

## What else can cause it

Exporters that write every parameter of a checkpoint (heads of a pretraining, auxiliary classifiers, a teacher), and
tools that fold or replace nodes and leave behind what these had read.

## Evidence

exact: follows from the names that nodes read.

## Repair

`symlint fix` drops them.

## References

ONNX, Open Neural Network Exchange Intermediate Representation, initializers.
"""

from __future__ import annotations

from collections.abc import Iterator

from symlint.evidence.context import Context
from symlint.lint.finding import Discard, Finding, Level
from symlint.lint.rule import rule
from symlint.model.clusters import size, unread

SHOWN = 3


@rule("SYM015", "unused-initializer", Level.NOTE, "exact", repair="discard")
def check(context: Context) -> Iterator[Finding]:
    """One note for the model."""
    model = context.symmetry.model
    names = unread(model)
    if not names:
        return
    taken = size(model, names)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    what = "1 stored tensor is" if len(names) == 1 else f"{len(names)} stored tensors are"
    yield Finding(
        check.code,
        check.name,
        Level.NOTE,
        check.evidence,
        f"{what} read by no node and {taken:,} bytes large: {', '.join(names[:SHOWN])}{more}",
        tensors=tuple(sorted(names)),
        facts={"bytes": taken, "elements": sum(model.tensors[name].size for name in names), "spare": [*names]},
        repair=Discard(tuple(names), taken),
    )
