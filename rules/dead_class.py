"""Classes, or other entries of an output, whose score does not depend on the input.

## What it checks

Along the axes of every output that weights write (classes, tokens, channels of a map): which entries are the same for
every input while others are not. Behind a softmax or an argmax the logits before it are judged, up to what is added to
all of them alike: there a single constant logit means nothing, since any class may serve as the reference, and two or
more classes are told whose logits differ by constants, so that the input never decides between them. Where all entries
are constant SYM012 says so. What would be constant with any other weights (a padded channel) is no finding.

The units of the finding are the entries, from 0; where several axes are concerned at once they are places in these
axes, row by row. The facts name the axes and give the constants: those before a softmax less the first of them.

## Example

```text
warning[dead-class] SYM013: entry 2 of 4 of output y is the same for every
  input
  --> w2 (MatMul -> d)
    = tensors: b2, w2
    = evidence: exact; tolerance 1e-30
    = units: 2
```

## Why it matters

The model has nothing to say of such a class: it is never preferred for a reason. A head with dead rows often means
that the labels of the training set never named the class.

## What else can cause it

Classes without examples under weight decay, a head that was made larger than the number of labels, rows that were
pruned, a regression target that was constant in training. Where the entries are those of a table that the input looks
up (the tokens of a language model) and a single one or fewer than one in a hundred are dead (the option `few`), it is
a note: such rows pad a vocabulary, or stand for the padding itself.

## Evidence

exact: follows from zeros (or, before a softmax, from equal rows) in the weights, for every input.

## Repair

There is none that keeps the shape of the output. Train with examples of the class, or drop it from the head.

## References

Ziyin, Symmetry Induces Structure and Constraint of Learning (ICML 2024), rescaling symmetry; Land and Bartolo,
Fishing for Magikarp: Automatically Detecting Under-trained Tokens in Large Language Models (EMNLP 2024).
"""

from __future__ import annotations

from collections.abc import Iterator

from symlint.evidence.context import Context
from symlint.evidence.ends import Entries, Scores, entries, scores
from symlint.lint.finding import Finding, Level
from symlint.lint.rule import SHARES, by_share, rule


@rule("SYM013", "dead-class", Level.WARNING, "exact", options={**SHARES, "few": 0.01})
def check(context: Context) -> Iterator[Finding]:
    """One finding per output, or the logits before it; outputs of the same scores share one."""
    for found in scores(context.ends, context.moving):
        dead = entries(found.still)
        if dead is None:
            continue
        share = len(dead.places) / dead.total
        few = share < context.option(check, "few") or len(dead.places) == 1
        padding = few and dead.total in context.ends.vocabularies
        constants = found.constants(dead)
        facts = {"output": found.output, "logits": found.compared, **dead.facts, "constants": constants}
        yield Finding(
            check.code,
            check.name,
            Level.NOTE if padding else by_share(context, check, len(dead.places), dead.total),
            check.evidence,
            _say(found, dead),
            None,
            dead.places,
            context.ends.weights(found.tensor, dead.axes),
            {**facts, "tolerance": 1e-30},
        )


def _say(found: Scores, dead: Entries) -> str:
    output = f"output {found.output}"
    if found.compared:
        which = dead.of(output, "class", "classes")
        return f"{which} can never change places: no input decides between them"
    return f"{dead.of(output)} {'is' if len(dead.places) == 1 else 'are'} the same for every input"
