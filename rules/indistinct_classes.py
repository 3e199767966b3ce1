"""Classes, or other entries of an output, that always get the same score.

## What it checks

For every axis of an output that weights write (the classes of a classifier, the tokens of a language model, the
channels of a map): which entries are the same function of the input. Usually these are equal rows of the last linear
map, with equal biases; rows that differ only in what the units before it have in common count too, and so does what
comes after it, such as a softmax. Entries that do not depend on the input at all are not meant here. The groups are in
the facts.

## Example

```text
warning[indistinct-classes] SYM206: entries 0 and 3 of 5 of output y are
  always the same
  --> w2 (MatMul -> z)
    = tensors: w2
    = evidence: exact; tolerance 4.8e-07
    = units: {0, 3}
```

## Why it matters

The network cannot tell these classes apart, whatever the input: which of them wins is decided by their order. A
permutation symmetry predicts the state: the gradient treats equal rows alike as long as none of the classes is ever
the right one, and so they stay equal.

## What else can cause it

Classes without a single example, tokens that only fill a vocabulary up to a round number, heads that were enlarged
with one initial row for all new classes, labels that were merged on purpose, outputs that are tied by design. The
finding does not tell these apart. Where the spare entries are less than one in a thousand (the option `few`) it is a
note, as such fillers of large vocabularies are.

## Evidence

exact: every weight agrees to a few roundings of its number type. Rows that differ along a direction only which the
normalisation before them does not let through are one function too, but are not told.

## Repair

There is none that keeps the shape of the output. Merge the classes, or train with examples of them.

## References

Ziyin, Symmetry Induces Structure and Constraint of Learning (ICML 2024), permutation symmetry; Land and Bartolo,
Fishing for Magikarp: Automatically Detecting Under-trained Tokens in Large Language Models (EMNLP 2024).
"""

from __future__ import annotations

from collections.abc import Iterator

from symlint.evidence.context import Context
from symlint.evidence.ends import Ending, endings
from symlint.lint.finding import Finding, Level
from symlint.lint.rule import SHARES, by_share, rule

FEW = {"few": 0.001}


@rule("SYM206", "indistinct-classes", Level.WARNING, "exact", options={**SHARES, **FEW})
def check(context: Context) -> Iterator[Finding]:
    """One finding per axis of an output with such entries; its groups are in the facts."""
    for ending in endings(context.canonical, context.moving, context.verdicts):
        if not ending.groups:
            continue
        spare = sum(len(group) - 1 for group in ending.groups)
        few = spare < context.option(check, "few") * ending.size
        yield Finding(
            check.code,
            check.name,
            Level.NOTE if few else by_share(context, check, spare, ending.size),
            check.evidence,
            _say(ending),
            None,
            tuple(sorted(entry for group in ending.groups for entry in group)),
            ending.writers,
            {
                "groups": [list(group) for group in ending.groups],
                "spare": spare,
                "units": ending.size,
                "output": ending.output,
                "axis": ending.axis,
                "tolerance": 4.8e-07,
            },
        )


def _say(ending: Ending) -> str:
    members, output = sum(len(group) for group in ending.groups), f"output {ending.output}"
    if len(ending.groups) == 1 and members < 5:
        named = ", ".join(map(str, ending.groups[0][:-1]))
        return f"entries {named} and {ending.groups[0][-1]} of {ending.size:,} of {output} are always the same"
    which = "they are all one" if len(ending.groups) == 1 else f"they take {len(ending.groups)} values"
    return f"{members:,} of {ending.size:,} entries of {output} are always the same as others: {which}"
