"""Directions of a residual stream that nothing reads.

## What it checks

For every stream that a norm divides by its length: the rank of all that reads it, stacked (queries, keys, values,
first layers of feed-forward blocks, routers, the head), with the gains of norms absorbed, compared with what the width
and the number of rows allow. Where the norm subtracts the mean, the mean does not count. A stream that is also
multiplied with itself or with another is read in all directions. Linear streams without a norm are SYM301's. A table
that is shared with the head behind a gain keeps the stream from being rotated; such a stream is left alone.

The facts give the rank, its bound, the smallest singular value of the readers that counts and the largest that does
not, relative to the largest of all, and the tolerance: what the rounding of the stored numbers makes of a zero.

## Example

```text
warning[unread-stream-direction] SYM601: nothing reads 2 of 8 directions of
  the stream of table: they only lengthen what a norm divides by
  --> table (Gather -> x)
    = tensors: bo, gain, gain2, head and 3 more
    = evidence: exact
```

## Why it matters

What is written along these directions does nothing but lengthen the vector that the norm divides by. All blocks pay
for them, and what is written there by accident makes everything else smaller. A rotation symmetry predicts the state:
under weight decay directions of the stream that the task does not need are left by readers and writers together.

## What else can cause it

Gains of zero in all norms, readers that were pruned or initialised in a subspace, layers that were cut off a longer
network together with their readers, a narrow model that was widened. The finding does not tell these apart. Readers
that are zero, as in a young network, allow no more than the others have rows.

## Evidence

exact: the singular values that are dropped are at the rounding noise of the stored weights, and there is a gap of at
least 16 times above them, more where chance could make one. Where the noise hides too much nothing is said.

## Repair

None that keeps the function: the directions are part of the length by which a norm divides, so that cutting them off
changes all others. A network that is trained on can do without them; if SYM602 says that they are not written either,
they can go as its page tells.

## References

Ashkboos et al., SliceGPT: Compress Large Language Models by Deleting Rows and Columns (ICLR 2024), rotations of the
stream; Brody, Alon and Yahav, On the Expressivity Role of LayerNorm in Transformers' Attention (Findings of ACL 2023);
Ziyin, Symmetry Induces Structure and Constraint of Learning (ICML 2024), rotation symmetry.
"""

from __future__ import annotations

from collections.abc import Iterator

from symlint.evidence.context import Context
from symlint.lint.finding import Finding, Level
from symlint.lint.redundancy import missing
from symlint.lint.rule import SHARES, rule


@rule("SYM601", "unread-stream-direction", Level.WARNING, "exact", options=SHARES)
def check(context: Context) -> Iterator[Finding]:
    """One finding per stream with such directions."""
    return missing(check, context, "read", _say, saves=False)


def _say(directions: str, stream: str) -> str:
    return f"nothing reads {directions} of the stream of {stream}: they only lengthen what a norm divides by"
