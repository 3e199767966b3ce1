"""Layers whose units become fewer and fewer different ones with depth.

## What it checks

For every space of units that may be permuted: the effective rank of the matrix of cosines between its units, which is
the exponential of the entropy of its spectrum, as a share of what the width and the number of writing weights allow.
The cosines are those of second moments over paths. It is reported once for the model, where the share of some
space is below the option ``share`` and less than half of what an earlier space had; the facts of the JSON report list
the ranks of all spaces by depth.

## Example

```text
note[rank-by-depth] SYM813: the units of w2 lie in 1.0 dimensions of 16; 1
  of 2 spaces have lost so much with depth
  --> w2 (MatMul -> a2)
    = tensors: w2, w3
    = evidence: heuristic; tolerance 0.1
```

## Why it matters

Deeper layers can carry no more different features than that. Networks that collapse (in self-supervised training, in
reinforcement learning, with too much depth or decay) show a rank that falls with depth.

## What else can cause it

A task with few classes, a bottleneck on purpose, neural collapse at the end of a long training, and weight sharing. The
finding does not tell these apart.

## Evidence

heuristic: the rank is one of path sums, not of activations on data. It does not depend on the gauge.

## Repair

None is applied. Compare checkpoints, or have ``symlint.torch.Watch`` record the ranks of a training; narrow the late
layers, train with less decay, or with ``symlint.torch.remove_symmetries``.

## References

Roy and Vetterli, The Effective Rank (EUSIPCO 2007); Kumar et al., Implicit Under-Parameterization Inhibits
Data-Efficient Deep Reinforcement Learning (ICLR 2021); Feng et al., Rank Diminishing in Deep Neural Networks
(NeurIPS 2022).
"""

from __future__ import annotations

from collections.abc import Iterator

from symlint.evidence.context import Context
from symlint.evidence.estimates import estimates
from symlint.lint.finding import Finding, Level
from symlint.lint.rule import rule

FEWEST = 16
"""Units of a space whose rank means something."""


@rule("SYM813", "rank-by-depth", Level.NOTE, "heuristic", options={"share": 0.1})
def check(context: Context) -> Iterator[Finding]:
    """One finding for the model."""
    found, limit = estimates(context), context.option(check, "share")
    rows = []
    for space in context.spaces:
        if space.size < FEWEST or context.unbroken(space):
            continue
        rank = found.likeness.rank(found.action(space))
        if rank is not None:
            rows.append((space, *rank))
    rows.sort(key=lambda row: row[1])
    first = [max((own[3] for own in rows[:k]), default=0.0) for k in range(len(rows))]
    low = [row for row, before in zip(rows, first, strict=True) if row[3] < limit and row[3] < before / 2]
    if not low:
        return
    worst = min(low, key=lambda row: row[3])
    yield Finding(
        check.code,
        check.name,
        check.level,
        check.evidence,
        f"the units of {worst[0].name} lie in {worst[2]:.1f} dimensions of {worst[2] / worst[3]:.0f}; "
        f"{len(low)} of {len(rows)} spaces have lost so much with depth",
        worst[0].id,
        (),
        context.tensors(worst[0]),
        {
            "ranks": [
                {"space": s.id, "rank": float(f"{rank:.2g}"), "share": float(f"{share:.1g}")}
                for s, _, rank, share in rows
            ],
            "tolerance": limit,
        },
    )
