"""Directions of a residual stream that nothing writes.

## What it checks

For every stream that a norm divides by its length: the rank of all that writes it, stacked (embeddings, position
tables, output projections of all blocks with their biases), compared with what the width and the number of rows allow.
Where the norm subtracts the mean, the mean does not count. What a change of weights moves from one writer to another,
such as a vector from all words to all positions, does not count either. Linear streams without a norm are SYM301's. A
table that is shared with the head behind a gain keeps the stream from being rotated; such a stream is left alone.

Where units only meet, in a length or in a product that is summed (towers that share a dot product, squared distances,
factorisation machines), orthogonal matrices turn them as they turn a stream: what writes them is judged the same way.

The facts give the rank, its bound, the smallest singular value of the writers that counts and the largest that does
not, relative to the largest of all, and the tolerance: what the rounding of the stored numbers makes of a zero.

## Example

```text
warning[unwritten-stream-direction] SYM602: nothing writes 2 of 7 directions
  of the stream of table: they are zero for every input
  --> table (Gather -> x)
    = tensors: bo, gain, gain2, head and 3 more
    = evidence: exact
    = saves: 68 parameters (25.0% of the model)
```

## Why it matters

Along these directions the stream is zero for every input. All blocks read and write vectors that are longer than what
they hold: the cost of every matrix that touches the stream grows with its width. A rotation symmetry predicts the
state: under weight decay directions of the stream that the task does not need are left by readers and writers together.

## What else can cause it

Sliced or pruned models that were padded back to a round width, embeddings and projections that were initialised in a
subspace or frozen, a narrow model that was widened. The finding does not tell these apart. Writers that are zero, as in
a young network, allow no more than the others have rows.

## Evidence

exact: the singular values that are dropped are at the rounding noise of the stored weights, and there is a gap of at
least 16 times above them, more where chance could make one. Where the noise hides too much nothing is said.

## Repair

None by ``symlint fix``. By hand: rotate the stream so that the directions come last (keep the vector of ones where the
norm subtracts the mean), absorb the gains into the readers, and cut them off. A norm that divides by the root of the
mean square over n' instead of n directions needs gains times sqrt(n' / n) and an epsilon times n / n'.

## References

Ashkboos et al., SliceGPT: Compress Large Language Models by Deleting Rows and Columns (ICLR 2024), rotations of the
stream; Ziyin, Symmetry Induces Structure and Constraint of Learning (ICML 2024), rotation symmetry.
"""

from __future__ import annotations

from collections.abc import Iterator

from symlint.evidence.context import Context
from symlint.lint.finding import Finding, Level
from symlint.lint.redundancy import missing
from symlint.lint.rule import SHARES, rule


@rule("SYM602", "unwritten-stream-direction", Level.WARNING, "exact", options=SHARES)
def check(context: Context) -> Iterator[Finding]:
    """One finding per stream with such directions."""
    return missing(check, context, "written", _say, saves=True)


def _say(directions: str, stream: str) -> str:
    return f"nothing writes {directions} of the stream of {stream}: they are zero for every input"
