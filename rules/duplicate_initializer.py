"""Stored tensors that hold the same numbers as another one.

## What it checks

Every initializer and every value of a Constant node of at least a kilobyte, in the graph and in the bodies of control
flow: whether another one of its type and shape holds the same numbers, bit for bit, in another place of the file. The
facts list the groups, in which the first tensor could stand for the others, and how many bytes the others take.
Tensors that are one number throughout are left out (they are as they were initialised: see never-trained), and so are
inputs and outputs of a graph.

## Example

```text
note[duplicate-initializer] SYM016: 1 stored tensor holds the same numbers
  as another one, sharing them saves 1,024 bytes: tied is w
  --> tied (MatMul -> y)
    = tensors: tied, w
    = evidence: exact
    = saves: 256 parameters (50.0% of the model)
```

## Why it matters

A file is larger than the network in it, and so is the memory of most runtimes. Tied weights that were written twice,
such as an embedding and its head, come apart as soon as somebody trains the file further.

## What else can cause it

Exporters that write a table once for every layer that reads it (masks, frequencies, positions), quantisers that copy
what is shared, branches of control flow that repeat the same layers, and layers that were copied to start a training.

## Evidence

exact: all bytes are compared. It is the stored numbers that are judged and not the function: moving weights along a
symmetry takes the copies apart.

## Repair

`symlint fix` stores one of each group, after all other repairs, so that these still see each tensor for itself.

## References

Press and Wolf, Using the Output Embedding to Improve Language Models (EACL 2017); Inan, Khosravi and Socher, Tying Word
Vectors and Word Classifiers (ICLR 2017).
"""

from __future__ import annotations

from collections.abc import Iterator

from symlint.evidence.context import Context
from symlint.lint.finding import Finding, Level, Share, grouped
from symlint.lint.rule import rule
from symlint.model.clusters import copies, size

SHOWN = 3


@rule("SYM016", "duplicate-initializer", Level.NOTE, "exact", repair="share")
def check(context: Context) -> Iterator[Finding]:
    """One note for the model."""
    model = context.symmetry.model
    groups = sorted(copies(model), key=lambda group: -size(model, group))
    if not groups:
        return
    saved = sum(size(model, group) - size(model, group[:1]) for group in groups)
    spare = [name for group in groups for name in group[1:]]
    called = context.named.spoken
    pairs = [f"{called(group[1])} is {called(group[0])}" for group in groups[:SHOWN]]
    more = f" and {len(spare) - len(pairs)} more" if len(spare) > len(pairs) else ""
    what = "1 stored tensor holds" if len(spare) == 1 else f"{len(spare)} stored tensors hold"
    yield Finding(
        check.code,
        check.name,
        Level.NOTE,
        check.evidence,
        f"{what} the same numbers as another one, sharing them saves {saved:,} bytes: {', '.join(pairs)}{more}",
        tensors=tuple(sorted(name for group in groups for name in group)),
        facts={"bytes": saved, "groups": [list(group) for group in groups], "spare": spare},
        saves=sum(context.parameters.get(name, 0) for name in spare),
        repair=Share(grouped(groups), tuple(spare), saved),
    )
